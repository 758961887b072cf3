"""What trains again, what goes on, and what is said before: real runs on a dozen small pictures."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

pytestmark = pytest.mark.dag

TRAINING = {"steps": 4, "batch_size": 2, "warmup": 0, "validate_every": 2, "checkpoint_every": 2, "ema": 0.5}
NETWORK = {"channels": [8, 8], "attention": [False, False], "blocks": 1, "head_channels": 4, "training": TRAINING}
RECIPE: dict[str, Any] = {
    "task": "generation",
    "data": {"modality": "image", "size": [16, 16], "channels": 1},
    "diffusion": {"timesteps": 10},
    "denoiser": NETWORK,
    "sampling": {"checkpoints": 1},
}
TARGET = "results/pictures/diffusion/provenance.json"


class Project:
    """A folder of pictures with its sheet and configuration, run in a checkout."""

    def __init__(self, workspace: Any, folder: Path) -> None:
        self.workspace, self.folder = workspace, folder
        self.results = folder / "results"
        self.sites = {f"p{number:02d}": "here" for number in range(12)}
        self.recipe = copy.deepcopy(RECIPE)
        random = np.random.default_rng(0)
        for person in self.sites:
            Image.fromarray(random.integers(0, 255, (20, 20), dtype=np.uint8)).save(folder / f"{person}.png")

    def run(self, *arguments: str) -> str:
        """Snakemake's output."""
        rows = [f"{person}\timage\t{person}.png\t{site}" for person, site in self.sites.items()]
        (self.folder / "subjects.tsv").write_text("\n".join(["participant\tmodality\tpath\tsite", *rows]) + "\n")
        names = {"subjects": "subjects.tsv", "splits": "splits.tsv", "root": ".", "results": "results"}
        cohort = {key: str(self.folder / name) for key, name in names.items()} | {"licence": "CC0, drawn at random"}
        config = self.folder / "config.yaml"
        config.write_text(yaml.safe_dump({"cohort": cohort, "recipes": {"pictures": self.recipe}}))
        target = str(self.results.parent / TARGET)
        return self.workspace.snakemake(*(arguments or ("--cores", "1")), target, config=str(config)).stdout

    def notes(self) -> list[str]:
        """What a dry run announces."""
        return re.findall(r"^NOTE pictures: (.* trained again.*)$", self.run("-n"), flags=re.MULTILINE)

    def states(self) -> set[str]:
        """The folders of training progress."""
        return {path.name for path in (self.workspace.folder / "state").iterdir() if path.name not in ("scans", "rows")}

    def weights(self) -> bytes:
        """Of the trained model."""
        return (self.results / "pictures/diffusion/model.safetensors").read_bytes()

    def person(self, split: str) -> str:
        """Somebody in a split."""
        rows = (self.folder / "splits.tsv").read_text().splitlines()
        return next(cells[1] for cells in (row.split("\t") for row in rows) if cells[2] == split)


def test_only_what_changes_a_number_trains_again_and_it_is_said_first(fresh_workspace: Any, tmp_path: Path) -> None:
    project = Project(fresh_workspace, tmp_path)
    project.run()
    weights, states = project.weights(), project.states()
    assert "CC0, drawn at random" in (project.results / "pictures/diffusion/model.json").read_text()
    assert project.notes() == []

    # Run-time settings rerun nothing.
    settings = {"workers": 1, "keep": 3, "checkpoint_every": 1, "samples_every": 2, "devices": 2}
    project.recipe["denoiser"]["checkpointing"] = True
    project.recipe["denoiser"]["training"] |= settings
    assert "Nothing to be done" in project.run("-n")

    # A finished model that is lost is taken from its state, under other settings, too.
    (project.results / "pictures/diffusion/provenance.json").unlink()
    project.run()
    assert (project.weights(), project.states()) == (weights, states)

    # A site that the model is not told is corrected: its chunk is packed again, and nothing is trained.
    person = project.person("train")
    project.sites[person] = "there"
    assert all("unless its images come out the same" in note for note in project.notes())
    assert "Train the denoiser of pictures" in project.run()
    assert (project.weights(), project.states()) == (weights, states)

    # A person gone and a changed option: said, and trained anew.
    del project.sites[person]
    assert project.notes() == [f"diffusion will be trained again: 1 training person gone: {person}"]
    project.recipe["diffusion"]["loss"] = "l1"
    (note,) = project.notes()
    assert "its configuration changed: diffusion.loss l2 -> l1" in note
    project.run()
    assert project.weights() != weights
    assert len(project.states()) == len(states) + 1
    assert project.notes() == []
