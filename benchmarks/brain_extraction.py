"""Dice of the embedded brain extraction on heads it was not trained on, as Markdown.

    python benchmarks/brain_extraction.py IXI_FOLDER > docs/brain_extraction.md

IXI_FOLDER holds t1/ID_T1.nii.gz and brainmask/ID_brainmask.nii.gz; data/synthetic is the embedded cohort.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from pipeline_lib.imaging.brain import WEIGHTS, brain_probability, largest_component
from pipeline_lib.imaging.nifti import read_volume
from pipeline_lib.imaging.quality import dice

TEXT = """# The embedded brain extraction

`brain_extraction: learned` is a 3D U-Net of {parameters:,} parameters ({kilobytes} kB) that sees the head at 2 mm and computes
at 4 mm and coarser. It was trained for {steps} steps by

```sh
python -m pipeline_lib.imaging.train_brain_extraction --data IXI_FOLDER --steps {steps}
```

on {trained} raw T1-weighted heads of IXI (CC BY-SA 3.0; the weights inherit that licence), each randomised in contrast, bias field,
resolution, pose, field of view, noise and defacing, after the idea of SynthStrip (Hoopes et al. 2022). The masks it
learned from are automatic (DLMUSE, holes filled) and close to intracranial: a silver standard. The synthetic heads were
never trained on; their truth is the brain with its ventricles and 2 mm of fluid around it.

Measured by `python benchmarks/brain_extraction.py IXI_FOLDER`, one core:

| heads | number | mean Dice | least Dice | CPU seconds a head |
|---|---:|---:|---:|---:|
{rows}

The mask is the largest component of the probability above 0.5, holes filled. A scan that is already stripped is
recognised and left as it is. `given`, `synthstrip` and `hd-bet` are the alternatives.

Trained on: {trained_on}.

Held out: {held_out}.
"""


def measure(heads: list[tuple[Path, Path]]) -> str:
    """Cells of a row: number, mean and least Dice, seconds."""
    scores, seconds = [], []
    for scan, truth in heads:
        volume = read_volume(scan)
        started = time.process_time()
        mask, _ = largest_component(brain_probability(volume.data, volume.zooms) > 0.5)
        seconds.append(time.process_time() - started)
        scores.append(dice(mask, read_volume(truth).data > 0.5))
    return f"{len(heads)} | {np.mean(scores):.3f} | {min(scores):.3f} | {np.median(seconds):.1f}"


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ixi", type=Path)
    parser.add_argument("--synthetic", type=Path, default=Path("data/synthetic"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with safe_open(WEIGHTS, "pt") as weights:
        about = weights.metadata()
        parameters = sum(int(np.prod(weights.get_slice(name).get_shape())) for name in weights.keys())  # noqa: SIM118
    held_out, folder = about["held_out"].split(), arguments.ixi
    ixi = [(folder / f"t1/{name}_T1.nii.gz", folder / f"brainmask/{name}_brainmask.nii.gz") for name in held_out]
    scans = sorted(arguments.synthetic.glob("sub-*/ses-1/anat/*_T1w.nii.gz"))
    truths = [
        arguments.synthetic / "truth" / scan.name.split("_")[0] / scan.name.replace("T1w", "brain") for scan in scans
    ]
    rows = [f"| IXI, held out by person | {measure(ixi)} |"]
    rows.append(f"| embedded synthetic cohort | {measure(list(zip(scans, truths, strict=True)))} |")
    print(
        TEXT.format(
            parameters=parameters,
            kilobytes=WEIGHTS.stat().st_size // 1000,
            steps=about["steps"],
            trained=len(about["trained_on"].split()),
            rows="\n".join(rows),
            trained_on=about["trained_on"].replace(" ", ", "),
            held_out=about["held_out"].replace(" ", ", "),
        ),
        end="",
    )


if __name__ == "__main__":
    main()
