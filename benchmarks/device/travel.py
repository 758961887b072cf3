"""Packed chunks and trained bundles made small for a journey, and opened again.

python benchmarks/device/travel.py open travel/images/volumes chunks/volumes     # chunks as a training reads them
python benchmarks/device/travel.py halve results/ixi/diffusion back/ixi   # a bundle with weights of 16 bits
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from pipeline_lib.bundle_plan import PLAN, WEIGHTS
from pipeline_lib.bundles.build import difference, rounded
from pipeline_lib.bundles.bundle import save_tensors
from pipeline_lib.files import atomic_directory, atomic_path, read_json, sha256_file, write_json

LEVELS = 255
TEXTS = ("index.tsv", "layout.json", "prepared.json")
SIDECAR = "provenance.json"
CURVES = ("history.csv", "noise_levels.tsv", "strip.png", "loss.png", "codebook.json", SIDECAR)


def shrink(chunk: Path, out: Path) -> Iterator[str]:
    """Write a packed chunk as one compressed file, values of [-1, 1] in 256 steps, masks as they are.

    Yields:
        what that changed: largest and root-mean-square error of each array of values, and its signal-to-noise ratio.
    """
    kept: dict[str, NDArray[np.uint8]] = {}
    for path in sorted(chunk.glob("*.npy")):
        values = np.load(path)
        kept[path.stem] = values if values.dtype == np.uint8 else to_levels(values)
        if values.dtype != np.uint8 and values.size:
            error = from_levels(kept[path.stem]) - values
            inside = np.broadcast_to(np.load(chunk / "mask.npy") > 0, values.shape)
            noise = float(np.sqrt(np.square(error[inside]).mean()))
            yield (
                f"{chunk.parent.parent.name} {chunk.name} {path.stem}: {len(values)} images, error at most "
                f"{np.abs(error).max():.4f}, rms in the brain {noise:.4f}, {20 * np.log10(values[inside].std() / noise):.1f} dB below it"
            )
    texts = {name: np.frombuffer((chunk / name).read_bytes(), np.uint8) for name in TEXTS}
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **kept, **texts)


def open_chunk(file: Path, out: Path) -> None:
    """Write the chunk of a file that `shrink` made, float32 again, with a sidecar that names its content."""
    with atomic_directory(out) as folder:
        with np.load(file) as kept:
            for name in kept.files:
                if name in TEXTS:
                    (folder / name).write_bytes(kept[name].tobytes())
                else:
                    values = kept[name]
                    np.save(folder / f"{name}.npy", values if name in ("mask", "lesion") else from_levels(values))
        outputs = {f"{out.name}/{path.name}": sha256_file(path) for path in sorted(folder.iterdir())}
        write_json(folder / SIDECAR, {"stage": "dataset", "code": "", "options": {}, "outputs": outputs})


def to_levels(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[-1, 1] as 0 to 255; both ends are exact."""
    levels: NDArray[np.uint8] = np.round((values.clip(-1, 1) + 1) * (LEVELS / 2)).astype(np.uint8)
    return levels


def from_levels(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """0 to 255 as [-1, 1]."""
    values: NDArray[np.float32] = (levels.astype(np.float32) / LEVELS * 2 - 1).astype(np.float32)
    return values


def halve(bundle: Path, out: Path) -> None:
    """Copy a bundle and its curves, its weights rounded to float16; the codebook, whose counts are large, is not.

    What loads a bundle makes float32 of it.
    """
    with atomic_directory(out) as folder:
        tensors = load_file(bundle / WEIGHTS)
        save_tensors(rounded(tensors), folder / WEIGHTS)
        write_json(folder / PLAN, {**read_json(bundle / PLAN), "weights_sha256": sha256_file(folder / WEIGHTS)})
        for name in CURVES:
            if (bundle / name).is_file():
                (folder / name).write_bytes((bundle / name).read_bytes())


def main() -> None:
    """Open or halve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["open", "halve"])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "halve":
        halve(arguments.source, arguments.out)
        print(f"{arguments.out}: its output differs by {difference(arguments.source, arguments.out):.1e}")
        return
    for file in sorted(arguments.source.glob("*.npz")):
        open_chunk(file, arguments.out / file.stem)


if __name__ == "__main__":
    main()
