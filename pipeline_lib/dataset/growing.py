"""An .npy file that grows by a row at a time, so that a chunk never lies in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.files import BUFFER


class GrowingArray:
    """Rows of one shape appended to an .npy file; a context manager, complete when it is left."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        """Rows of ``shape`` are written to ``path`` as ``dtype``."""
        self.path, self.shape, self.dtype, self.count = path, shape, dtype, 0

    def __enter__(self) -> GrowingArray:
        self.file: BinaryIO = open(self.path, "wb", buffering=BUFFER)
        self._header()
        return self

    def append(self, row: NDArray[Any]) -> None:
        """Write one row.

        Raises:
            ValueError: it has another shape.
        """
        if row.shape != self.shape:
            raise ValueError(f"{self.path.name}: a row of shape {row.shape} where {self.shape} is meant")
        self.file.write(np.ascontiguousarray(row, dtype=self.dtype).data)
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.file.seek(0)
        self._header()
        self.file.close()

    def _header(self) -> None:
        """NumPy pads its header so that the number of rows can grow in place."""
        shape = (self.count, *self.shape)
        np.lib.format.write_array_header_1_0(self.file, {"descr": self.dtype, "fortran_order": False, "shape": shape})
