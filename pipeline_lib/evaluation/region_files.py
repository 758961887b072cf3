"""Files of ``evaluation.regions``: an atlas, or each person's own labels, and the table of their names."""

from __future__ import annotations

from pathlib import Path

from pipeline_lib.cohort.importers import from_folder
from pipeline_lib.errors import UserError

OwnLabels = dict[tuple[str, str], Path]
"""Files by participant and session."""


def region_files(path: str) -> list[str]:
    """All files that are read of ``path``.

    Raises:
        UserError: there is none.
    """
    own, table = labels_and_names(path)
    return [str(file) for file in (*(own.values() or [Path(path)]), table) if Path(file).is_file()]


def labels_and_names(path: str) -> tuple[OwnLabels, Path]:
    """People's own labels, none where ``path`` is an atlas; and where the table of names lies, if there is one.

    Raises:
        UserError: there is no such file.
    """
    if "{participant}" not in path:
        if not Path(path).is_file():
            raise UserError(f"evaluation.regions: {path} does not exist; give an atlas, or a path with {{participant}}")
        return {}, Path(f"{path.removesuffix('.gz').removesuffix('.nii')}.tsv")
    folder = Path(path[: path.index("{")].rpartition("/")[0] or ".")
    found = from_folder(folder, str(Path(path).relative_to(folder)), modality="labels")
    whole = folder.resolve()
    return {
        (scan.participant, scan.session): folder / scan.path for scan in found.scans
    }, whole.parent / f"{whole.name}.tsv"
