"""What a model is told of an image: columns of the sheet and the slice's position, several at once.

A condition is a category (group, sex, site, a covariate that is text) or a number (age, slice, a covariate that is one).
Encoded, a batch of them is one tensor (N, K): the place of a category among those of the training set, a number minus the
training set's mean over its deviation, and NaN where a value is missing or hidden, for which the network has a learned
null. The encoding is fitted to the training set once, travels with the model (``model.json``) and is read from there by
everything that asks the model for something.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("pipeline")

Value = str | float
"""Of a condition; a row of values leaves out those that are not known."""
NUMBERS = ("age", "slice")
CATEGORIES = ("group", "sex", "site")
UNITS = {"age": "years", "slice": "mm"}
QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)
"""What is kept of a number's distribution over the training images."""


@dataclass(frozen=True)
class Condition:
    """One thing a model is told, and how it is encoded.

    Attributes:
        name: of the column of a dataset's index.
        kind: category or number.
        categories: in the order of their codes.
        mean, scale: of a number over the training images; years, or mm of the output space.
        quantiles: of a number over the training images, at `QUANTILES`.
    """

    name: str
    kind: Literal["category", "number"]
    categories: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0
    quantiles: tuple[float, ...] = ()

    @classmethod
    def fitted(cls, name: str, column: pd.Series) -> Condition:
        """The encoding of a column of the training images' index.

        Raises:
            UserError: no image has a value, or all have the same.
        """
        number = name in NUMBERS or (name not in CATEGORIES and pd.api.types.is_numeric_dtype(column))
        known = pd.to_numeric(column, errors="coerce").dropna() if number else _words(column)
        values = sorted(set(known) - {""})
        if len(values) < 2:
            found = f"all that have one have {values[0]}" if values else "none has one"
            raise UserError(
                f"denoiser.condition: {name}: nothing to learn from the {len(column)} training images: {found}; "
                "fill the column of the sheet, or take it out of the list"
            )
        if not number:
            return cls(name, "category", tuple(values))
        numbers = known.to_numpy(dtype=float)
        quantiles = tuple(round(float(value), 6) for value in np.quantile(numbers, QUANTILES))
        return cls(name, "number", (), float(numbers.mean()), float(numbers.std()), quantiles)

    @property
    def size(self) -> int:
        """Number of categories; 0 for a number. What `models.unet.UNet` is told of a condition."""
        return len(self.categories)

    @property
    def ends(self) -> tuple[Value, ...]:
        """Every category; of a number, what a tenth of the training images lie below and above."""
        return self.categories if self.kind == "category" else (self.quantiles[1], self.quantiles[3])

    @property
    def middle(self) -> Value:
        """The first category; the median of a number."""
        return self.categories[0] if self.kind == "category" else self.quantiles[2]

    def encode(self, column: pd.Series) -> NDArray[np.float32]:
        """Codes (N,) of a column; NaN where nothing is known. Unknown categories are named in the log, in one line."""
        if self.kind == "number":
            numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
            return ((numbers - self.mean) / self.scale).astype(np.float32)
        codes = {name: float(code) for code, name in enumerate(self.categories)}
        written = _words(column)
        if foreign := sorted(set(written) - {"", *codes}):
            log.warning(
                "%s %s was not in training (%s were): taken as not known, for %d images",
                self.name, ", ".join(foreign), ", ".join(self.categories), int(written.isin(foreign).sum()),
            )  # fmt: skip
        return written.map(codes).to_numpy(dtype=np.float32)

    def check(self, value: Value) -> Value:
        """A value somebody asks for; a number outside the training set's is allowed and named in the log.

        Raises:
            UserError: it is no number, or no category of the training set.
        """
        if self.kind == "category":
            if _text(value) not in self.categories:
                raise UserError(
                    f"sampling.conditions: {self.name}: {_text(value)} was not in training; "
                    f"the model knows {', '.join(self.categories)}"
                )
            return _text(value)
        try:
            number = float(value)
        except ValueError:
            raise UserError(
                f"sampling.conditions: {self.name}: {value!r} is no number; write e.g. {self.middle:g}"
            ) from None
        low, high = self.quantiles[0], self.quantiles[-1]
        if not low <= number <= high:
            log.warning(
                "%s %g lies outside the training set, %g to %g: what comes is a guess", self.name, number, low, high
            )
        return number

    def __str__(self) -> str:
        """As a page shows it: ``group (AD, CN)``, ``age (20 to 86 years)``."""
        if self.kind == "category":
            return f"{self.name} ({', '.join(self.categories)})"
        unit = f" {UNITS[self.name]}" if self.name in UNITS else ""
        return f"{self.name} ({self.quantiles[0]:g} to {self.quantiles[-1]:g}{unit})"


class Conditions(Sequence[Condition]):
    """All that a model is told of an image, in the order of the configuration; may be empty."""

    def __init__(self, conditions: Sequence[Condition] = ()) -> None:
        self._conditions = tuple(conditions)

    @classmethod
    def fitted(cls, names: Sequence[str], index: pd.DataFrame) -> Conditions:
        """The encodings of the ``names`` over the index of the training images.

        Raises:
            UserError: there is no such column, no image has a value, or all have the same.
        """
        for name in names:
            if name not in index:
                raise UserError(
                    f"denoiser.condition: {name}: no scan has one; fill that column of the sheet and name it in cohort.covariates, "
                    f"or choose from {', '.join((*CATEGORIES, *NUMBERS))}"
                )
        return cls([Condition.fitted(name, index[name]) for name in names])

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Conditions:
        """Those a model was trained with, from its ``model.json``."""
        tuples = ("categories", "quantiles")
        kept = [{**entry, **{key: tuple(entry[key]) for key in tuples}} for entry in info.get("conditions", ())]
        return cls([Condition(**entry) for entry in kept])

    def described(self) -> list[dict[str, Any]]:
        """As ``model.json`` keeps them; `of` reads it."""
        return [asdict(condition) for condition in self]

    def __getitem__(self, place: Any) -> Any:
        return self._conditions[place]

    def __len__(self) -> int:
        return len(self._conditions)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        return tuple(condition.name for condition in self)

    @property
    def categories(self) -> tuple[Condition, ...]:
        """Those that are categories."""
        return tuple(condition for condition in self if condition.kind == "category")

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Codes (N, K) float32 of a table's columns; NaN where nothing is known, or the table has no such column."""
        import torch  # a page that only names the conditions does not wait for it

        unknown = pd.Series(math.nan, index=table.index)
        columns = [condition.encode(table.get(condition.name, unknown)) for condition in self]
        return torch.from_numpy(np.stack(columns, axis=1)) if columns else torch.empty(len(table), 0)

    def grid(self, values: Mapping[str, Sequence[Value]]) -> list[dict[str, Value]]:
        """Every combination of the ``values`` by name, the last named varying fastest, in the order of the conditions."""
        named = [condition for condition in self if condition.name in values]
        checked = [[condition.check(value) for value in values[condition.name]] for condition in named]
        return [
            dict(zip([condition.name for condition in named], chosen, strict=True))
            for chosen in itertools.product(*checked)
        ]

    def corners(self, most: int) -> list[dict[str, Value]]:
        """At most ``most`` combinations that show what each condition does: every category, both ends of a number.

        Where these are too many, the conditions that come last stay at their middle.
        """
        chosen: dict[str, Sequence[Value]] = {}
        room = most
        for condition in self:
            ends = condition.ends
            fitting = ends[:room] if condition is self[0] or len(ends) <= room else [condition.middle]
            chosen[condition.name] = fitting
            room //= len(fitting)
        return self.grid(chosen)


def label(values: Mapping[str, Value]) -> str:
    """``AD, age 70, slice 12.5``: groups go by their name alone; ``all`` where nothing is said."""
    told = [f"{name} {_text(value)}" if name != "group" else str(value) for name, value in values.items()]
    return ", ".join(told) or "all"


def hide(condition: Tensor, share: float, all_hidden: Tensor, alone: Tensor) -> Tensor:
    """Encoded conditions (N, K) as the network sees them in training, NaN where hidden.

    In a ``share`` of the images every condition is hidden, which is what classifier-free guidance takes for the model
    without conditions. Where there are several, each is hidden or not by a coin of its own in as many images again, so that
    one may be given while another is left open.

    Args:
        all_hidden: uniform in [0, 1), (N,): what happens to an image.
        alone: uniform in [0, 1), (N, K): the coins.
    """
    hidden = (all_hidden < share)[:, None].expand_as(condition)
    if condition.shape[1] > 1:
        hidden = hidden | ((all_hidden >= 1 - share)[:, None] & (alone < 0.5))
    return condition.masked_fill(hidden, math.nan)


def people_like(index: pd.DataFrame, conditions: Conditions, cell: Mapping[str, Value]) -> pd.DataFrame:
    """Rows of an index of real images with the categories of ``cell``; all rows where none has them."""
    rows = np.ones(len(index), dtype=bool)
    for condition in conditions.categories:
        if condition.name in cell:
            rows &= (index[condition.name].astype(str) == cell[condition.name]).to_numpy()
    return index[rows] if rows.any() else index


def drawn_like(index: pd.DataFrame, conditions: Conditions, count: int, seed: int) -> list[dict[str, Value]]:
    """Values of all conditions of ``count`` images, jointly as the real images of ``index`` have them.

    The images lie in the order of slice, then of the other numbers, and one is taken by chance in each of ``count`` equal
    parts: the sample follows the distribution closely at any count, and two groups with the same ``seed`` get slices alike,
    number by number.
    """
    numbers = [condition.name for condition in conditions if condition.kind == "number"]
    order = sorted(numbers, key=lambda name: name != "slice")
    values = index[[name for name in conditions.names if name in index]].copy()
    for name in numbers:
        values[name] = pd.to_numeric(values[name], errors="coerce")
    values = values.sort_values(order, kind="stable") if order else values
    rng = np.random.default_rng(seed)
    places = ((np.arange(count) + rng.random(count)) / count * len(values)).astype(int)
    shuffled = rng.permutation(places)
    return [dict(_known(row)) for row in values.iloc[shuffled].to_dict("records")]


def _known(row: Mapping[Any, Any]) -> Iterator[tuple[str, Value]]:
    for name, value in row.items():
        if isinstance(value, str) and value:
            yield str(name), value
        elif not isinstance(value, str) and value == value:
            yield str(name), float(value)


def _words(column: pd.Series) -> pd.Series:
    """Text, empty where nothing is known."""
    return column.astype(object).where(column.notna(), "").astype(str)


def _text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
