"""Compile what compiles at its first use, into the caches that all phases share."""

from __future__ import annotations

import sys
import time

import torch

from pipeline_lib.noise.simplex import SimplexNoise


def main() -> None:
    """Simplex noise of the sizes that are drawn in the benchmark."""
    device = sys.argv[1]
    for shape in ((8, 1, 128, 128), (32, 1, 128, 128)):
        began = time.monotonic()
        SimplexNoise()(shape, generator=torch.Generator(device).manual_seed(0), device=device)
        print(f"simplex noise {shape} on {device}: {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
