"""The curves of a training, and its best step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

COLUMNS = ("step", "images", "seconds", "lr")
"""First columns of history.csv; losses follow."""


class Record:
    """Rows of history.csv, with what is pending for the next one; plain values, so that a manifest holds it as it is."""

    def __init__(self) -> None:
        self.history: list[dict[str, float]] = []
        self.pending: dict[str, list[float]] = {}
        self.best_loss: float | None = None
        self.best_step = 0
        self.seconds = 0.0

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return dict(vars(self))

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        """Put back what `state_dict` gave."""
        vars(self).update(state_dict)

    def add(self, shown: Mapping[str, float]) -> None:
        """The scalars of one optimiser step."""
        for key, value in shown.items():
            total, count = self.pending.get(key, [0.0, 0])
            self.pending[key] = [total + value, count + 1]

    def close(self, step: int, images: int, rate: float, measured: Mapping[str, float]) -> Mapping[str, float]:
        """Means since the last row become a row, beside what was ``measured`` on validation images."""
        row: dict[str, float] = {"step": step, "images": images, "lr": rate, "seconds": round(self.seconds, 3)}
        row |= {f"train_{key}": total / count for key, (total, count) in self.pending.items()}
        row |= {f"validation_{key}": value for key, value in measured.items()}
        if measured and (self.best_loss is None or measured["loss"] < self.best_loss):
            self.best_loss, self.best_step = measured["loss"], step
        self.history.append(row)
        self.pending = {}
        return row

    def steps_without_better(self, step: int) -> int:
        """Steps since the lowest validation loss; 0 while there is none."""
        return step - self.best_step if self.best_step else 0

    def table(self) -> pd.DataFrame:
        """The history, its columns in the same order after any resumption."""
        table = pd.DataFrame(self.history)
        first = [name for name in COLUMNS if name in table]
        return table[[*first, *sorted(str(name) for name in table if name not in first)]]
