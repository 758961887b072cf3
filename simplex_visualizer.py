"""What octaves, decay and frequency do to simplex noise: ``streamlit run simplex_visualizer.py``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import streamlit as st
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline_lib.noise.base import Noise
from pipeline_lib.noise.coarse import CoarseNoise
from pipeline_lib.noise.gaussian import GaussianNoise
from pipeline_lib.noise.simplex import SimplexNoise


def spectrum(field: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean power of a square field by whole number of cycles per field, from 1."""
    size = field.shape[0]
    power = np.abs(np.fft.fft2(field - field.mean())) ** 2 / field.size
    frequency = np.fft.fftfreq(size) * size
    radius = np.hypot(*np.meshgrid(frequency, frequency)).round().astype(int)
    sums = np.bincount(radius.ravel(), power.ravel())
    counts = np.bincount(radius.ravel())
    mean: NDArray[np.float64] = sums[1 : size // 2] / counts[1 : size // 2]
    return mean


def draw(fields: Mapping[str, NDArray[np.float32]]) -> Figure:
    """The fields by name, their histograms and their spectra."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    above, below = figure.subfigures(2, 1)
    images = above.subplots(1, len(fields))
    histogram, power = below.subplots(1, 2)
    limit = float(max(3, *(np.abs(field).max() for field in fields.values())))
    for axis, (name, field) in zip(images, fields.items(), strict=True):
        axis.imshow(field, cmap="gray", vmin=-limit, vmax=limit)
        axis.set_title(f"{name}: mean {field.mean():.2f}, SD {field.std():.2f}")
        axis.axis("off")
        histogram.hist(field.ravel(), bins=80, density=True, histtype="step", label=name)
        power.loglog(np.arange(1, field.shape[0] // 2), spectrum(field), label=name)
    histogram.set_xlabel("value")
    power.set_xlabel("cycles per image")
    power.set_ylabel("power")
    histogram.legend()
    return figure


def main() -> None:
    """The page."""
    st.title("Simplex noise")
    st.write(
        "The corruption of the anomaly recipe beside coarse and white Gaussian noise. Anomalies are removed at the scales it covers."
    )
    octaves = st.sidebar.slider("octaves", 1, 8, 6)
    decay = st.sidebar.slider("decay of amplitude from octave to octave", 0.1, 1.0, 0.8)
    cycle = st.sidebar.slider("voxels per cycle of the lowest octave (1 / frequency)", 4, 256, 64)
    spacing = st.sidebar.slider("voxels between values of the coarse noise", 1, 32, 8)
    size = st.sidebar.select_slider("image size, voxels", [32, 64, 128, 256], 128)
    raw = st.sidebar.checkbox("raw amplitude, as published", value=False)
    seed = int(st.sidebar.number_input("seed", 0, 10_000, 0))
    shape = (1, 1, size, size)
    noises: dict[str, Noise] = {
        "simplex": SimplexNoise(octaves=octaves, decay=decay, frequency=1 / cycle, raw=raw),
        "coarse": CoarseNoise(spacing),
        "white": GaussianNoise(),
    }
    st.pyplot(
        draw(
            {
                name: noise(shape, generator=torch.Generator().manual_seed(seed))[0, 0].numpy()
                for name, noise in noises.items()
            }
        )
    )
    st.code(
        f"noise: {{kind: simplex, octaves: {octaves}, decay: {decay:g}, frequency: {1 / cycle:g}, raw: {str(raw).lower()}}}"
    )


main()
