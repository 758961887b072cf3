"""What a model is told: encoded and kept exactly, missing where nothing is known, varied and drawn as asked."""

from __future__ import annotations

import json
import logging
import math

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.dataset.conditions import Conditions, drawn_like, hide, label, people_like
from pipeline_lib.errors import UserError

NAN = float("nan")


def cohort(people: int = 40) -> pd.DataFrame:
    """AD is 70 and older, CN 20 to 60; three slices a person; one person lacks age and group."""
    rng = np.random.default_rng(0)
    rows = []
    for person in range(people):
        group = "AD" if person % 4 == 0 else "CN"
        age = rng.uniform(70, 90) if group == "AD" else rng.uniform(20, 60)
        about = {"group": group, "age": age, "sex": "MF"[person % 2], "site": "", "apoe": "3433"[person % 3 :][:2]}
        if person == 7:
            about |= {"group": "", "age": NAN}
        rows += [{"participant": f"p{person}", **about, "slice": place} for place in (-5.0, 0.0, 10.0)]
    return pd.DataFrame(rows)


def test_codes_are_places_and_standard_deviations_and_what_is_missing_is_nan() -> None:
    index = cohort()
    encoded = Conditions.fitted(["age", "group"], index).encode(index)
    age = index["age"].to_numpy()
    np.testing.assert_allclose(encoded[:, 0], (age - np.nanmean(age)) / np.nanstd(age), rtol=1e-4, atol=1e-5)
    known = index["group"].to_numpy(copy=True) != ""
    np.testing.assert_array_equal(encoded[known, 1], (index["group"][known] == "CN").astype(float))
    assert encoded[~known].isnan().all()
    assert encoded.dtype == torch.float32


def test_what_a_model_keeps_of_its_conditions_encodes_as_before() -> None:
    """Through the JSON of model.json and back."""
    index = cohort()
    conditions = Conditions.fitted(["group", "age", "sex", "slice", "apoe"], index)
    again = Conditions.of(json.loads(json.dumps({"conditions": conditions.described()})))
    assert list(again) == list(conditions)
    torch.testing.assert_close(again.encode(index), conditions.encode(index), equal_nan=True, rtol=0, atol=0)
    assert [condition.size for condition in again] == [2, 0, 2, 0, len(set(index["apoe"]))]
    assert not Conditions.of({})


def test_a_number_of_other_people_keeps_the_scale_of_the_training_set() -> None:
    index = cohort()
    age = Conditions.fitted(["age"], index)
    others = pd.DataFrame({"age": [index["age"].mean(), index["age"].mean() + index["age"].std(ddof=0)]})
    torch.testing.assert_close(age.encode(others), torch.tensor([[0.0], [1.0]]), rtol=1e-5, atol=1e-5)


def test_a_category_that_was_not_in_training_is_one_line_and_the_null(caplog: pytest.LogCaptureFixture) -> None:
    conditions = Conditions.fitted(["group"], cohort())
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        codes = conditions.encode(pd.DataFrame({"group": ["CN", "MCI", "MCI", ""]}))
    assert codes[:, 0].isnan().tolist() == [False, True, True, True]
    assert caplog.messages == ["group MCI was not in training (AD, CN were): taken as not known, for 2 images"]
    assert conditions.encode(pd.DataFrame({"age": [3.0]})).isnan().all(), "a table without the column"


@pytest.mark.parametrize(
    ("name", "index", "line"),
    [
        ("group", cohort().assign(group=""), "group: nothing to learn from the 120 training images: none has one"),
        ("group", cohort().assign(group="CN"), "all that have one have CN"),
        ("age", cohort().assign(age=50.0), "all that have one have 50"),
        ("education", cohort(), "education: no scan has one; fill that column"),
    ],
)
def test_a_condition_that_says_nothing_is_refused(name: str, index: pd.DataFrame, line: str) -> None:
    with pytest.raises(UserError, match=line):
        Conditions.fitted([name], index)


def test_a_grid_has_every_combination_and_knows_its_values(caplog: pytest.LogCaptureFixture) -> None:
    conditions = Conditions.fitted(["group", "age"], cohort())
    assert conditions.grid({"age": [25, "70"], "group": ["CN"]}) == [
        {"group": "CN", "age": 25.0},
        {"group": "CN", "age": 70.0},
    ]
    assert conditions.grid({}) == [{}]
    for values, line in (
        ({"group": ["MCI"]}, "MCI was not in training; the model knows AD, CN"),
        ({"age": ["old"]}, "no number"),
    ):
        with pytest.raises(UserError, match=line):
            conditions.grid(values)
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        conditions.grid({"age": [120.0]})
    assert "age 120 lies outside the training set" in caplog.text


def test_a_strip_shows_every_category_and_both_ends_of_a_number_as_far_as_there_is_room() -> None:
    index = cohort()
    conditions = Conditions.fitted(["group", "age", "slice"], index)
    corners = conditions.corners(8)
    assert len(corners) == 8
    assert [corner["group"] for corner in corners] == ["AD"] * 4 + ["CN"] * 4
    ages = sorted({corner["age"] for corner in corners})
    np.testing.assert_allclose(ages, index["age"].quantile([0.1, 0.9]), rtol=1e-4)
    few = conditions.corners(4)
    assert [(corner["group"], corner["age"], corner["slice"]) for corner in few] == [
        (group, age, 0.0) for group in ("AD", "CN") for age in ages
    ], "no room to vary the slice: its median"
    assert len(conditions.corners(1)) == 1


def test_drawn_values_follow_the_people_jointly() -> None:
    """AD only over 70, CN only under 60, in their shares, every slice as often."""
    index = cohort()
    conditions = Conditions.fitted(["group", "age", "slice"], index)
    drawn = pd.DataFrame(drawn_like(index, conditions, 120, seed=0))
    assert (drawn["age"][drawn["group"] == "AD"] > 65).all()
    assert (drawn["age"][drawn["group"] == "CN"] < 65).all()
    assert drawn["group"].value_counts().to_dict() == index["group"].value_counts().drop("").to_dict()
    assert drawn["slice"].value_counts().to_dict() == {-5.0: 40, 0.0: 40, 10.0: 40}
    assert drawn["age"].mean() == pytest.approx(index["age"].mean(), abs=0.01)
    few = pd.DataFrame(drawn_like(index, conditions, 30, seed=0))
    assert few["age"].mean() == pytest.approx(index["age"].mean(), abs=5)


def test_groups_are_drawn_from_their_own_people_at_the_same_slices() -> None:
    index = cohort()
    conditions = Conditions.fitted(["group", "age", "slice"], index)
    numbers = Conditions([condition for condition in conditions if condition.name != "group"])
    by_group = {
        group: pd.DataFrame(drawn_like(people_like(index, conditions, {"group": group}), numbers, 30, seed=1))
        for group in ("AD", "CN")
    }
    assert by_group["AD"]["slice"].tolist() == by_group["CN"]["slice"].tolist()
    assert by_group["AD"]["age"].min() > by_group["CN"]["age"].max()


def test_hidden_are_all_together_in_the_share_asked_for_and_each_alone_in_as_many_again() -> None:
    """Counts of 40,000 images against what the shares say, within four standard deviations."""
    n, share = 40_000, 0.2
    generator = torch.Generator().manual_seed(0)
    condition = torch.ones(n, 2)
    hidden = hide(condition, share, torch.rand(n, generator=generator), torch.rand(n, 2, generator=generator)).isnan()
    both, first, second = hidden.all(1), hidden[:, 0] & ~hidden[:, 1], ~hidden[:, 0] & hidden[:, 1]
    for found, expected in ((both, share + share / 4), (first, share / 4), (second, share / 4)):
        assert abs(found.float().mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / n)
    single = hide(condition[:, :1], share, torch.rand(n, generator=generator), torch.rand(n, 1, generator=generator))
    assert abs(single.isnan().float().mean() - share) < 4 * math.sqrt(share * (1 - share) / n)
    assert not hide(condition, 0.0, torch.rand(n, generator=generator), torch.zeros(n, 2)).isnan().any()


def test_a_combination_in_words() -> None:
    assert label({"group": "AD", "age": 70.0, "slice": -2.5}) == "AD, age 70, slice -2.5"
    assert label({}) == "all"
