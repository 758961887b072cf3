"""Pack what a machine without network needs: training images, and the Python packages that it lacks.

    python benchmarks/device/prepare.py travel --data SHARED_DATA
    python benchmarks/device/prepare.py travel --stand-ins         # balls instead of brains, in seconds: for a rehearsal

SHARED_DATA holds ixi_t1_2mm_rawhead and soop_flair_axial. Below ``travel`` come ``cohorts`` (the cohorts, through the workflow up
to the training images), ``images`` (those, small; see `travel.shrink`) and ``wheels``. Only the last two go along. What is
there already is not made again. Slices and pairs are made of the volumes on arrival (`derive.py`).
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import yaml
from travel import shrink

from pipeline_lib.cohort.sheet import NO_LESION, Scan, read_sheet, write_sheet
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.files import read_table, sha256_text

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIG = Path(__file__).resolve().parent / "config"
MOST_BYTES = 64 * 2**20
"""Of all that travels, the checkout included."""
WHEELS = (
    "annotated-types", "denoising-diffusion-pytorch", "diffusers", "importlib-metadata", "lightning-fabric",
    "lightning-utilities", "monai", "nibabel", "opensimplex", "pydantic", "pydantic-core", "typing-inspection",
)  # fmt: skip
"""What the phases import and the usual scientific packages do not bring; versions are those of envs/constraints.txt."""
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")


def ixi(shared: Path, work: Path) -> Path:
    """The sheet of config/ixi, each person where its ledger has them; the folder of the scans."""
    splits = {row["scan"]: row["split"] for row in read_table(CHECKOUT / "config" / "ixi" / "splits.tsv")}
    kept: dict[str, list[Scan]] = defaultdict(list)
    for scan in read_sheet(CHECKOUT / "config" / "ixi" / "subjects.tsv", shared / "ixi_t1_2mm_rawhead", {}).scans:
        kept[splits[scan.id]].append(replace(scan, split=splits[scan.id]))
    write_sheet(work / "config" / "subjects.tsv", [scan for scans in kept.values() for scan in scans])
    return shared / "ixi_t1_2mm_rawhead"


def soop(shared: Path, work: Path) -> Path:
    """A sheet: people without a lesion in their slice train, a quarter of the others validate, the rest test."""
    folder = shared / "soop_flair_axial"
    with open(folder / "index.csv", encoding="utf-8") as file:
        people = list(csv.DictReader(file))
    scans = []
    for person in people:
        name, healthy = person["id"], person["lesion_px_axial68"] == "0"
        chosen = int(sha256_text(name)[:8], 16) % 4 == 0
        split = ("validation" if chosen and int(sha256_text(name)[8:12], 16) % 2 else "train") if healthy else ""
        lesion = NO_LESION if healthy else f"mask/{name}_mask.png"
        scans.append(
            Scan(
                name.removeprefix("sub-"), "", "image", f"image/{name}.png", lesion=lesion,
                split=split or ("validation" if chosen else "test"),
            )
        )  # fmt: skip
    write_sheet(work / "config" / "subjects.tsv", scans)
    return folder


COHORTS: Mapping[str, tuple[str, Callable[[Path, Path], Path]]] = {"volumes": ("ixi", ixi), "soop": ("soop", soop)}
"""Of each set of images: the configuration, whose first recipe packs it, and its sheet."""


def through_the_workflow(config: str, root: Path, work: Path) -> Path:
    """The training images of the first recipe of a configuration; the folder of its chunks."""
    recipe = next(iter(yaml.safe_load((CONFIG / f"{config}.yaml").read_text())["recipes"]))
    chunks = work / "results" / recipe / "dataset"
    command = [
        Path(sys.executable).with_name("snakemake"), "--snakefile", CHECKOUT / "Snakefile", "--directory", work,
        "--configfile", CONFIG / f"{config}.yaml", "--config", f"cohort={{root: '{root}'}}", "--cores", "1", "--until", "dataset",
    ]  # fmt: skip
    subprocess.run([str(part) for part in command], check=True)
    return chunks


def stand_ins(config: str, work: Path) -> Path:
    """Chunks of balls of several ages on the grid of a configuration's first recipe; the folder of the chunks."""
    sys.path.insert(0, str(CHECKOUT / "tests"))
    from tiny_chunks import packed

    written = next(iter(yaml.safe_load((CONFIG / f"{config}.yaml").read_text())["recipes"].values()))
    data = RecipeOptions.model_validate(written).data
    data = data.model_copy(update={"modality": "T1w"}) if data.modality == "image" else data
    folder = work / "stand-ins" / "dataset"
    for split in ("train", "validation", "test"):
        chunk = packed(folder, f"{split}-anat-0001", [(f"{split}{n}", "CN") for n in range(4)], data)
        index = pd.read_csv(chunk / "index.tsv", sep="\t")
        index["age"] = 20 + 10 * pd.factorize(index["participant"])[0]
        index.to_csv(chunk / "index.tsv", sep="\t", index=False)
    return folder


def fetch_wheels(out: Path) -> None:
    """The missing packages for Linux on x86-64 and Python 3.12."""
    lines = (CHECKOUT / "envs" / "constraints.txt").read_text().lower().replace("_", "-").split()
    wanted = [line for line in lines if line.partition("==")[0] in WHEELS]
    platforms = [part for name in PLATFORMS for part in ("--platform", f"{name}_x86_64")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version",
               "3.12", "--implementation", "cp", *platforms, "--dest", str(out), *wanted]  # fmt: skip
    subprocess.run(command, check=True)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Make what is missing, and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("travel", type=Path)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder of the cohorts")
    source.add_argument("--stand-ins", action="store_true")
    parser.add_argument("--cohorts", nargs="+", choices=COHORTS, default=list(COHORTS))
    arguments = parser.parse_args()
    travel = arguments.travel.resolve()
    for name in arguments.cohorts:
        work, (config, sheet) = travel / "cohorts" / name, COHORTS[name]
        if arguments.stand_ins:
            chunks = stand_ins(config, work)
        else:
            (work / "config").mkdir(parents=True, exist_ok=True)
            chunks = through_the_workflow(config, sheet(arguments.data.resolve(), work), work)
        for chunk in sorted(path.parent for path in chunks.glob("*/data.npy")):
            for line in shrink(chunk, travel / "images" / name / f"{chunk.name}.npz"):
                print(line)
    if not (travel / "wheels").is_dir():
        fetch_wheels(travel / "wheels")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    checkout = sum((CHECKOUT / path).stat().st_size for path in tracked.split("\0") if path)
    total = checkout + size_of(travel / "images") + size_of(travel / "wheels")
    for what, count in (("checkout", checkout), *((part, size_of(travel / part)) for part in ("images", "wheels"))):
        print(f"{what}: {count / 2**20:.1f} MiB")
    if total > MOST_BYTES:
        sys.exit(f"{total / 2**20:.1f} MiB travel, more than {MOST_BYTES / 2**20:.0f}")


if __name__ == "__main__":
    main()
