"""Synthetic lesions are where they are said to be, and a network learns to take them out and to mark them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_chunks import FLAT, packed
from tiny_training import NETWORK, TRAINING

from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.config.schema import RecipeOptions, SyntheticLesionOptions
from pipeline_lib.training.denoiser import train_denoiser
from pipeline_lib.training.steps import Draw
from pipeline_lib.training.synthetic_lesions import put_lesions


def draw_of(seed: int, total: int, rows: slice | None = None) -> Draw:
    return Draw(seed, total, rows or slice(0, total), torch.device("cpu"))


def brains(number: int, side: int, dimensions: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth images and round brains."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, side)] * dimensions, indexing="ij")
    radius = torch.stack(axes).norm(dim=0)
    brain = (radius < 0.8).float().expand(number, 1, *radius.shape)
    return torch.where(brain > 0, 0.2 * torch.sin(4 * axes[0]), -1.0), brain


def options(**values: Any) -> SyntheticLesionOptions:
    return SyntheticLesionOptions.model_validate({"share": 1.0, "contrast": (0.3, 0.5), **values})


@pytest.mark.parametrize("dimensions", [2, 3])
def test_lesions_lie_in_the_brain_and_are_as_bright_as_asked(dimensions: int) -> None:
    images, brain = brains(8, 24, dimensions)
    for bright, sign in ((1.0, 1), (0.0, -1)):
        lesioned, marked = put_lesions(images, brain, options(bright=bright, size=(0.1, 0.25)), draw_of(3, 8))
        assert marked.flatten(1).any(1).all()
        assert not marked[brain == 0].any()
        torch.testing.assert_close(lesioned[brain == 0], images[brain == 0], rtol=0, atol=0)
        change = (lesioned - images)[marked > 0]
        assert sign * float(change.mean()) > 0.1
        assert float((lesioned - images).abs()[marked > 0].mean()) > 10 * float(
            (lesioned - images).abs()[(marked == 0) & (brain > 0)].mean()
        )


def test_no_share_is_no_lesion() -> None:
    images, brain = brains(4, 24)
    lesioned, marked = put_lesions(images, brain, options(share=0.0), draw_of(0, 4))
    torch.testing.assert_close(lesioned, images, rtol=0, atol=0)
    assert not marked.any()


def test_sizes_are_those_asked_for() -> None:
    """A radius of .1 of a side of 64 is 6.4 pixels; outlines are bent, further lesions follow: within a factor of 3."""
    images, brain = brains(64, 64)
    _, marked = put_lesions(images, brain, options(size=(0.0999, 0.1001)), draw_of(1, 64))
    area = float(marked.flatten(1).sum(1).median())
    assert 3.14 * 6.4**2 / 3 < area < 3.14 * 6.4**2 * 3


def test_a_process_makes_the_lesions_of_its_own_rows() -> None:
    images, brain = brains(6, 24)
    whole = put_lesions(images, brain, options(), draw_of(5, 6))
    part = put_lesions(images[2:4], brain[2:4], options(), draw_of(5, 6, slice(2, 4)))
    for one, other in zip(whole, part, strict=True):
        torch.testing.assert_close(one[2:4], other)


def test_a_trained_network_restores_and_marks(tmp_path: Path) -> None:
    train = packed(tmp_path, "train-anat-0001", [("a", "CN"), ("b", "CN"), ("c", "CN")])
    validation = packed(tmp_path, "validation-anat-0001", [("d", "CN")])
    recipe = RecipeOptions.model_validate(
        {
            "task": "anomaly",
            "data": FLAT.model_dump(),
            "diffusion": {"timesteps": 20, "prediction": "x0"},
            "denoiser": {
                **NETWORK,
                "synthetic_lesions": {"bright": 1, "contrast": [0.5, 0.9], "size": [0.1, 0.2]},
                "training": {**TRAINING, "steps": 150, "batch_size": 8, "learning_rate": 5e-3, "validate_every": 50},
            },
        }
    )
    train_denoiser(recipe, [train], [validation], tmp_path / "out", tmp_path / "state", {})
    network, info = load_bundle(tmp_path / "out")
    assert info["architecture"]["out_channels"] == 2
    history = (tmp_path / "out" / "history.csv").read_text()
    assert "segmentation" in history
    assert "restoration" in history
    images, brain = brains(32, 16)
    lesioned, marked = put_lesions(images, brain, options(bright=1.0, contrast=(0.7, 0.9)), draw_of(9, 32))
    logits = network(lesioned, torch.zeros(32, dtype=torch.int64))[:, 1:]
    inside = brain > 0
    assert logits[inside & (marked > 0)].mean() > logits[inside & (marked == 0)].mean() + 0.5
