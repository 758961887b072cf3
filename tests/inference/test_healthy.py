"""Which training images are healthy: those the training saw, at most so many, and some of every contrast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.packed import PackedArrays
from pipeline_lib.inference.healthy import healthy_images


def recipe_of(**data: Any) -> RecipeOptions:
    return RecipeOptions.model_validate({"task": "anomaly", "data": {"modality": "FLAIR", **data}})


def chunks_of(folder: Path, sizes: list[int], **columns: list[str]) -> list[Path]:
    """Packed chunks of so many images, of which only the index is there; ``columns`` of all images, one after the other."""
    total = sum(sizes)
    rows = pd.DataFrame(
        {"scan": [f"s{n}" for n in range(total)], "group": "A", "age": 50, "lesion": "none", "has_lesion": "false"}
        | columns
    )
    chunks = []
    for number, size in enumerate(sizes):
        chunks.append(folder / f"train-anat-{number:04d}")
        chunks[-1].mkdir()
        rows.iloc[sum(sizes[:number]) :].head(size).to_csv(chunks[-1] / "index.tsv", sep="\t", index=False)
    return chunks


def scans(healthy: list[tuple[Path, pd.DataFrame]]) -> list[str]:
    return [scan for _, index in healthy for scan in index["scan"]]


@pytest.mark.parametrize("by_chance", [False, True])
@pytest.mark.parametrize("lesion_free", [False, True])
@pytest.mark.parametrize("groups", [[], ["A"]])
def test_they_are_those_of_the_training_without_lesions(
    groups: list[str], lesion_free: bool, by_chance: bool, tmp_path: Path
) -> None:
    looked_at = {
        "group": ["A", "A", "A", "B", "B"],
        "lesion": ["mask", "mask", "", "none", ""],
        "has_lesion": ["true", "false", "false", "false", "false"],
    }
    chunks = chunks_of(tmp_path, [3, 0, 2], **looked_at)
    found = healthy_images(chunks, recipe_of(train_groups=groups, lesion_free=lesion_free), 9, by_chance=by_chance)
    trained = PackedArrays(chunks, only_groups=groups, lesion_free=lesion_free).index
    assert scans(found) == trained.loc[trained["has_lesion"].astype(str).str.lower() == "false", "scan"].tolist()
    assert found[0][1]["row"].tolist() == ([1] if lesion_free and not groups else [1, 2])


@pytest.mark.parametrize("by_chance", [False, True])
def test_many_small_chunks_give_as_many_as_one_large(by_chance: bool, tmp_path: Path) -> None:
    for name, sizes in (("small", [1] * 25), ("large", [25])):
        (tmp_path / name).mkdir()
        healthy = healthy_images(chunks_of(tmp_path / name, sizes), recipe_of(), 5, by_chance=by_chance)
        assert len(set(scans(healthy))) == 5, name
        assert all(chunk.is_relative_to(tmp_path / name) for chunk, _ in healthy)


@pytest.mark.parametrize("by_chance", [False, True])
def test_a_rare_contrast_is_among_them(by_chance: bool, tmp_path: Path) -> None:
    chunks = chunks_of(tmp_path, [20, 20], modality=["FLAIR"] * 7 + ["T1w"] + ["FLAIR"] * 32)
    healthy = healthy_images(chunks, recipe_of(modality=["T1w", "FLAIR"]), 8, by_chance=by_chance)
    found = pd.concat([index for _, index in healthy])["modality"].tolist()
    assert (found.count("T1w"), found.count("FLAIR")) == (1, 4)


def test_nobody_healthy_is_an_empty_list(tmp_path: Path) -> None:
    assert healthy_images(chunks_of(tmp_path, [2], has_lesion=["true"] * 2), recipe_of(), 5) == []
    assert healthy_images([], recipe_of(), 5) == []
