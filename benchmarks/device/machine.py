"""Which card, driver and versions these are."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess

import torch

PACKAGES = ("torch", "triton", "numpy", "numba", "lightning-fabric", "monai", "diffusers", "opensimplex", "safetensors")


def main() -> None:
    """Print them."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}")
    for name in PACKAGES:
        try:
            print(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{name} is not installed")
    if not torch.cuda.is_available():
        print("no CUDA device")
        return
    card = torch.cuda.get_device_properties(0)
    print(
        f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {card.multi_processor_count} multiprocessors, CUDA {torch.version.cuda}"
    )
    query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.max.sm,power.limit", "--format=csv"]
    subprocess.run(query, check=False)


if __name__ == "__main__":
    main()
