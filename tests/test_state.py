"""A training goes on exactly where everything that changes a number is as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.config.schema import DenoiserOptions, RecipeOptions, TrainingOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import write_json, write_table
from pipeline_lib.state import RUN_TIME, counted_columns, run_time, training_key, with_run_time, without_run_time

OPTIONS: dict[str, Any] = {
    "data": {"train_groups": []},
    "denoiser": {"condition": ["site"], "training": {"steps": 5, "workers": 0}},
}
ROWS = [{"scan": "a", "participant": "a", "group": "A", "site": "X"}]


@pytest.fixture
def key(tmp_path: Path) -> Callable[..., str]:
    def make(
        *, recipe: str = "one", role: str = "denoiser", code: str = "c", options: dict[str, Any] = OPTIONS,
        array: str = "1", picture: str = "1", lesion: str = "", rows: list[dict[str, str]] = ROWS,
        header: Sequence[str] = tuple(ROWS[0]),
    ) -> str:  # fmt: skip
        chunk = tmp_path / "train-anat-0001"
        write_table(chunk / "index.tsv", header, rows)
        outputs = {f"{chunk.name}/{name}": value for name, value in (("data.npy", array), ("loss.png", picture))}
        outputs |= {f"{chunk.name}/lesion.npy": lesion} if lesion else {}
        write_json(chunk / "provenance.json", {"outputs": outputs})
        return training_key(recipe, role, code, options, [chunk])

    return make


def changed(*where: str, to: object) -> dict[str, Any]:
    options = json.loads(json.dumps(OPTIONS))
    place = options
    for name in where[:-1]:
        place = place[name]
    place[where[-1]] = to
    return options


@pytest.mark.parametrize(
    "difference",
    [
        {"recipe": "two"},
        {"role": "target"},
        {"code": "d"},
        {"array": "2"},
        {"options": changed("denoiser", "training", "steps", to=6)},
        {"rows": [ROWS[0] | {"site": "Y"}]},
    ],
    ids=lambda difference: next(iter(difference)),
)
def test_what_changes_numbers_is_another_training(key: Callable[..., str], difference: dict[str, Any]) -> None:
    assert key(**difference) != key()


@pytest.mark.parametrize("name", sorted(RUN_TIME))
def test_run_time_setting_goes_on_from_the_checkpoint(key: Callable[..., str], name: str) -> None:
    where = ("denoiser", "training", name) if name in TrainingOptions.model_fields else ("denoiser", name)
    assert where[-1] in TrainingOptions.model_fields or where[-1] in DenoiserOptions.model_fields
    assert key(options=changed(*where, to=3)) == key()


def test_lesion_masks_are_learned_from_by_nobody(key: Callable[..., str]) -> None:
    assert key(lesion="2") == key(lesion="1") == key()


def test_of_a_network_to_start_from_the_finished_weights_count_and_not_what_was_kept_on_the_way(tmp_path: Path) -> None:
    def started_from(weights: str, kept: str) -> str:
        outputs = {"diffusion/model.safetensors": weights, "diffusion/checkpoints/step-00000004.safetensors": kept}
        write_json(tmp_path / "diffusion" / "provenance.json", {"outputs": outputs})
        return training_key("one", "denoiser", "c", OPTIONS, [tmp_path / "diffusion"])

    assert started_from("1", "1") == started_from("1", "2") != started_from("2", "1")


def test_value_that_no_training_reads_is_the_same_training(key: Callable[..., str]) -> None:
    assert key(rows=[ROWS[0] | {"group": "B"}]) == key(picture="2") == key()
    chosen = changed("data", "train_groups", to=["A", "B"])
    assert key(options=chosen, rows=[ROWS[0] | {"group": "B"}]) != key(options=chosen), "a filter reads it"


def test_values_of_people_whose_group_is_not_learned_from_are_the_same_training(key: Callable[..., str]) -> None:
    options = changed("data", "train_groups", to=["A"])
    patient = ROWS[0] | {"scan": "b", "participant": "b", "group": "B"}
    one = key(options=options, rows=[*ROWS, patient])
    assert key(options=options, rows=[*ROWS, patient | {"group": "C", "site": "Y"}]) == one
    assert key(options=options, rows=[*ROWS, patient | {"group": "A"}]) != one, "now learned from"
    assert key(options=options, rows=[ROWS[0] | {"site": "Y"}, patient]) != one


def test_further_columns_of_the_sheet_count_where_they_are_conditions(key: Callable[..., str]) -> None:
    told = changed("denoiser", "condition", to=["education"])
    rows = [[ROWS[0] | {"covariates": json.dumps({"education": years, "hand": "left"})}] for years in (12.0, 13.0)]
    header = [*ROWS[0], "covariates"]
    assert key(options=told, rows=rows[0], header=header) != key(options=told, rows=rows[1], header=header)
    assert key(rows=rows[0], header=header) == key(rows=rows[1], header=header)


def test_columns_that_count_are_conditions_and_what_is_chosen_by() -> None:
    assert counted_columns({"denoiser": {"condition": []}}) == []
    assert counted_columns({"denoiser": {"condition": ["group", "age"]}}) == ["age", "group"]
    assert counted_columns({"data": {"train_groups": ["CN"]}, "autoencoder": {}}) == ["group"]


def test_options_and_settings_together_are_what_was_configured() -> None:
    training = {"workers": 3, "steps": 7, "devices": 2}
    values = {"task": "synthesis", "autoencoder": {"training": training}, "denoiser": {"training": training}}
    whole = RecipeOptions.model_validate(values).model_dump(mode="json")
    options, settings = without_run_time(whole), run_time(whole)
    of_network = {"checkpointing"}
    assert set(settings["denoiser"]["training"]) == set(settings["autoencoder"]["training"]) == RUN_TIME - of_network
    assert set(settings["denoiser"]) == {"training", *of_network}
    assert not RUN_TIME & {*options["denoiser"], *options["denoiser"]["training"]}
    assert with_run_time(options, settings) == whole


def test_unfinished_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"provenance\.json is missing: chunk is not finished"):
        training_key("one", "denoiser", "c", OPTIONS, [tmp_path / "chunk"])
