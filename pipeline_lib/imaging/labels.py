"""Maps of labels and masks that are listed as scans."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.errors import UserError

MOST_ALIKE = 0.7
"""Share of foreground voxels equal to their neighbour from which whole numbers are labels."""


def refuse_labels(data: NDArray[np.float32], where: str) -> None:
    """Raise a UserError for a mask, or a map of labels: whole numbers, alike over whole regions."""
    values = data[:: max(1, data.shape[0] // 64)]
    if not (values == np.round(values)).all():
        few = np.unique(data[::7, ::7, ::7])
        if len(few) > 2:
            return
    background = np.median(np.concatenate([data.take(end, axis).ravel() for axis in range(3) for end in (0, -1)]))
    inside = data != background
    found = np.unique(data[inside])
    if len(found) == 1:
        raise UserError(
            f"{where}: {found[0]:g} inside and {background:g} outside, one value: a mask; give the scan itself"
        )
    alike = [
        float((np.diff(data, axis=axis) == 0)[inside.take(range(data.shape[axis] - 1), axis)].mean())
        for axis in range(3)
    ]
    if len(found) and min(alike) > MOST_ALIKE:
        raise UserError(
            f"{where}: {len(found)} whole numbers, and {min(alike):.0%} of neighbours alike: a map of labels; "
            "give the scan itself"
        )
