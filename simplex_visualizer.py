"""What simplex noise does to a slice, and what a trained model makes of it.

streamlit run simplex_visualizer.py                          # a slice of the MNI152 template
streamlit run simplex_visualizer.py -- results/anomaly       # packed slices of a recipe, and its model where it is trained
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import streamlit as st
import torch
import yaml
from matplotlib.figure import Figure
from nilearn.datasets import load_mni152_template
from numpy.typing import NDArray
from torch import Tensor

from pipeline_lib.bundles.bundle import Bundle, load_bundle
from pipeline_lib.dataset.conditions import Conditions
from pipeline_lib.diffusion.process import DiffusionProcess, make_process
from pipeline_lib.diffusion.schedule import ScheduleName
from pipeline_lib.errors import UserError
from pipeline_lib.inference.chunks import images_of, read_indices
from pipeline_lib.noise.base import Noise
from pipeline_lib.noise.coarse import CoarseNoise
from pipeline_lib.noise.gaussian import GaussianNoise
from pipeline_lib.noise.simplex import SimplexNoise

MOST_SLICES = 200
TIMESTEPS = 1000
Image = NDArray[np.float32]


@dataclass(frozen=True)
class Slices:
    """Slices ``(N, 1, H, W)`` in [-1, 1] and a row of the dataset's index for each."""

    images: Image
    index: pd.DataFrame

    def named(self, row: int) -> str:
        """Scan and slice of a row."""
        return " ".join(str(self.index[name].iloc[row]) for name in ("scan", "slice"))


def template_slice() -> Slices:
    """An axial slice of the MNI152 template at 2 mm, 96 x 112 with its nose up."""
    volume = np.asarray(load_mni152_template(2).dataobj, dtype=np.float32)
    plane = np.rot90(volume[1:97, :109, 45])
    plane = np.pad(plane, ((2, 1), (0, 0)))
    image = plane[None, None] / np.percentile(plane, 99.8) * 2 - 1
    return Slices(image.clip(-1, 1).astype(np.float32), pd.DataFrame({"scan": ["MNI152 template"], "slice": [45]}))


@st.cache_data
def packed_slices(folder: Path) -> Slices:
    """The first slices of a recipe's packed dataset, of test people before others.

    Raises:
        UserError: there is none, or its images are volumes.
    """
    chunks = sorted((path.parent for path in folder.glob("dataset/*/data.npy")), key=lambda chunk: chunk.name)
    if not chunks:
        raise UserError(f"{folder}/dataset has no packed slices; give the folder of a recipe, such as results/anomaly")
    chunk = chunks[:1]
    images, index = images_of(chunk)[:MOST_SLICES], read_indices(chunk).head(MOST_SLICES)
    if images.ndim != 4:
        raise UserError(f"{folder} holds volumes; the page draws slices")
    return Slices(images[:, :1], index)


@st.cache_resource
def trained(folder: Path) -> Bundle | None:
    """The recipe's trained model of images, where there is one."""
    model = folder / "diffusion"
    return load_bundle(model) if (model / "model.json").is_file() and not (folder / "autoencoder").is_dir() else None


def spectrum(field: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies, in cycles per voxel, and mean power of a field in rings around zero."""
    power = np.abs(np.fft.fft2(field - field.mean())) ** 2 / field.size
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in field.shape), indexing="ij"))
    rings = np.arange(1, min(field.shape) // 2) / min(field.shape)
    edges = np.append(rings, 0.5) - rings[0] / 2
    ring = np.digitize(radius.ravel(), edges)
    counts = np.bincount(ring, minlength=len(edges) + 1)
    sums = np.bincount(ring, power.ravel(), minlength=len(edges) + 1)
    return rings, sums[1 : len(rings) + 1] / np.maximum(counts[1 : len(rings) + 1], 1)


def restored(model: Bundle, noisy: Tensor, t: int, row: pd.DataFrame) -> Image:
    """What the model makes of one noisy slice ``(1, 1, H, W)`` in one step."""
    process = make_process(**model.info["process"])
    conditions = Conditions.of(model.info)
    time = torch.tensor([t])
    with torch.inference_mode():
        told = conditions.encode(row) if conditions else None
        output = model.module(noisy, time, told)
        clean: Image = process.to_x0(noisy, output[:, :1], time).clamp(-1, 1)[0, 0].numpy()
    return clean


def draw_images(rows: Mapping[str, Mapping[str, Image]], scale: Mapping[str, float]) -> Figure:
    """Pictures in a row a kind and a column a noise, each row between minus and plus its ``scale``."""
    columns = len(next(iter(rows.values())))
    figure = Figure(figsize=(10, 3.2 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (kind, images) in zip(axes, rows.items(), strict=True):
        for axis, (name, image) in zip(line, images.items(), strict=True):
            limit = scale[kind]
            axis.imshow(image, cmap="gray" if kind != "difference" else "RdBu_r", vmin=-limit, vmax=limit)
            axis.set_title(f"{name}, {kind}", fontsize=10)
            axis.axis("off")
    return figure


def draw_curves(fields: Mapping[str, Image], process: DiffusionProcess, t: int) -> Figure:
    """Histogram and spectrum of the fields, and the schedule with the timestep in it."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    values, power, schedule = figure.subplots(1, 3)
    for name, field in fields.items():
        values.hist(
            field.ravel(),
            bins=80,
            density=True,
            histtype="step",
            label=f"{name} {field.mean():.2f} ± {field.std():.2f}",
        )
        power.loglog(*spectrum(field), label=name)
    values.set_xlabel("value (mean ± SD)")
    values.legend(fontsize=7)
    power.set_xlabel("cycles per voxel")
    power.set_ylabel("power")
    schedule.plot(process.schedule.exact.numpy())
    schedule.plot([t], [process.abar(t)], "o")
    schedule.set_xlabel("timestep")
    schedule.set_ylabel("share of signal")
    return figure


def chosen_noise(given: Mapping[str, object]) -> tuple[dict[str, Noise], dict[str, object]]:
    """The three noises as the sliders have them, and simplex's options; ``given`` is what a model was trained with."""
    side = st.sidebar
    octaves = side.slider("octaves", 1, 8, int(str(given.get("octaves", 6))))
    decay = side.slider("decay of amplitude from octave to octave", 0.1, 1.0, float(str(given.get("decay", 0.8))))
    cycle = side.slider(
        "voxels per cycle of the lowest octave (1 / frequency)",
        4,
        256,
        round(1 / float(str(given.get("frequency", 1 / 64)))),
    )
    raw = side.checkbox("raw amplitude, as published", value=bool(given.get("raw", False)))
    spacing = side.slider("voxels between values of the coarse noise", 1, 32, int(str(given.get("spacing", 8))))
    options: dict[str, object] = {
        "kind": "simplex",
        "octaves": octaves,
        "decay": decay,
        "frequency": 1 / cycle,
        "raw": raw,
    }
    noises: dict[str, Noise] = {
        "simplex": SimplexNoise(octaves=octaves, decay=decay, frequency=1 / cycle, raw=raw),
        "coarse": CoarseNoise(spacing),
        "white": GaussianNoise(),
    }
    return noises, options


def chosen_process(model: Bundle | None) -> tuple[DiffusionProcess, dict[str, object]]:
    """The forward process: a model's own, or of the schedule that is chosen."""
    if model is not None:
        said = model.info["process"]
        return make_process(**said), {"schedule": said["schedule"], "timesteps": said["timesteps"]}
    schedule = st.sidebar.selectbox("schedule", get_args(ScheduleName), index=get_args(ScheduleName).index("cosine"))
    return make_process(schedule, TIMESTEPS, "x0"), {"schedule": schedule, "timesteps": TIMESTEPS}


def main(arguments: list[str]) -> None:
    """The page."""
    st.title("Simplex noise")
    st.write(
        "The corruption of the anomaly recipe beside coarse and white Gaussian noise. A model takes out of a slice what the "
        "noise has hidden: anomalies at the scales that it covers."
    )
    given = st.sidebar.text_input("folder of a recipe's results", arguments[0] if arguments else "")
    try:
        slices = packed_slices(Path(given)) if given else template_slice()
        model = trained(Path(given)) if given else None
    except UserError as error:
        st.error(str(error))
        return
    row = st.sidebar.selectbox("slice", range(len(slices.images)), format_func=slices.named)
    noises, noise = chosen_noise(model.info["diffusion"]["noise"] if model else {})
    process, schedule = chosen_process(model)
    t = st.sidebar.slider("timestep", 0, process.timesteps - 1, process.timesteps // 4)
    seed = int(st.sidebar.number_input("seed", 0, 10_000, 0))
    image = torch.from_numpy(slices.images[row : row + 1])
    fields = {name: made(image.shape, generator=torch.Generator().manual_seed(seed)) for name, made in noises.items()}
    noisy = {name: process.forward_diffusion(image, field, torch.tensor([t])) for name, field in fields.items()}
    flat = {name: field[0, 0].numpy() for name, field in fields.items()}
    rows = {"noise": flat, f"slice at timestep {t}": {name: each[0, 0].numpy() for name, each in noisy.items()}}
    limit = float(max(1, *(each.abs().max() for each in noisy.values())))
    scale = {"noise": 3.0, f"slice at timestep {t}": limit, "reconstruction": 1.0, "difference": 1.0}
    if model is not None:
        told = slices.index.iloc[[row]]
        rows["reconstruction"] = {name: restored(model, each, t, told) for name, each in noisy.items()}
        rows["difference"] = {name: slices.images[row, 0] - each for name, each in rows["reconstruction"].items()}
        st.caption(f"The model was trained with {model.info['diffusion']['noise']['kind']} noise.")
    st.pyplot(draw_images(rows, scale))
    st.pyplot(draw_curves(flat, process, t))
    st.write(f"At timestep {t} the share of signal is {process.abar(t):.3f}. As a recipe has it:")
    block = {
        "diffusion": {"noise": noise, **schedule},
        "evaluation": {"score": {"levels": [round(process.abar(t), 4)]}},
    }
    st.code(yaml.safe_dump(block, sort_keys=False), language="yaml")


main(sys.argv[1:])
