"""KID to held-out people after so many minutes of two cores: this library beside MONAI as its tutorial trains it.

    python benchmarks/time_to_quality.py DATASET --arm ours --out time
    python benchmarks/time_to_quality.py DATASET --arm monai --out time      # side by side with the first
    python benchmarks/time_to_quality.py DATASET --out time                  # the table, kid.png and samples.png

DATASET is the packed chunks of `generation` in config/ixi.yaml (`results/ixi/generation/dataset`). Each arm is one process of
one thread, and a budget counts its own processor seconds, so that what else the machine does falls on both alike: 10 minutes of two
cores are 1,200 of them. Loading, training and validation count, drawing and judging do not.

*ours* is `generation` of config/ixi.yaml, from nothing and without conditions. *monai* is the network, noise, loss, optimiser
and augmentation of MONAI's tutorial "2d_ddpm": DiffusionModelUNet with 128, 256, 256 channels, 1,000 steps of a linear schedule,
epsilon, Adam at 2.5e-5, small affine transforms of half of the images; batches of 16 in place of 128, with which 40 minutes would be nine
steps. Both draw 32 images by 25 DDIM steps; KID is `evaluate_generation`'s by the features of `ventricles-t1`, over random halves of held-out people.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from matplotlib.figure import Figure
from monai.inferers import DiffusionInferer
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from monai.transforms import RandAffine
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.evaluation.features import feature_network
from pipeline_lib.evaluation.metric import Metric
from pipeline_lib.evaluation.sets import Yardstick, read_real
from pipeline_lib.files import atomic_directory, read_json, write_json
from pipeline_lib.inference.generation import sample_generation
from pipeline_lib.metrics.distribution import extract
from pipeline_lib.training.denoiser import train_denoiser

CHECKOUT = Path(__file__).resolve().parents[1]
CORES = 2
SAMPLES, DRAWN_BY = 32, 25
PILOT = 30
"""Steps that tell how long one takes."""
BATCH = 16

log = logging.getLogger("time_to_quality")
Images = NDArray[np.float32]


def recipe_of(steps: int, kept: int) -> RecipeOptions:
    """`generation` of config/ixi.yaml without conditions, with so many steps and checkpoints that are judged."""
    written: dict[str, Any] = yaml.safe_load((CHECKOUT / "config" / "ixi.yaml").read_text())["recipes"]["generation"]
    training = {**written["denoiser"]["training"], "steps": steps, "validate_every": steps, "checkpoint_every": steps}
    written["denoiser"] |= {"training": training, "condition": []}
    written["sampling"] |= {"count": SAMPLES, "steps": DRAWN_BY, "checkpoints": kept}
    return RecipeOptions.model_validate(written)


def ours(chunks: list[Path], held_out: list[Path], budgets: list[float], out: Path) -> None:
    """Train once for the longest budget, keep the averages at the others."""
    shortest = budgets[0]
    kept = round(budgets[-1] / shortest)
    if [each for each in budgets if each % shortest]:
        raise SystemExit("--minutes: each must be a multiple of the first")
    with atomic_directory(out / "pilot") as pilot:
        started = time.process_time()
        train_denoiser(recipe_of(PILOT, 1), chunks, [], pilot / "diffusion", pilot / "state", {}, name="pilot")
        seconds = (time.process_time() - started) / PILOT
    steps = kept * round(shortest / seconds)
    recipe = recipe_of(steps, kept)
    started = time.process_time()
    train_denoiser(recipe, chunks, [], out / "diffusion", out / "state", {}, name="ours")
    each = (time.process_time() - started) / steps
    sample_generation(recipe, out / "diffusion", held_out, out / "samples")
    for budget in budgets:
        at = round(steps * budget / budgets[-1])
        images = np.load(out / "samples" / f"step-{at:08d}" / "samples.npy")
        keep(out, budget, at, at * each, images)


def monai(chunks: list[Path], budgets: list[float], out: Path) -> None:
    """The tutorial's loop until a budget is spent, samples, on to the next."""
    torch.manual_seed(0)
    network = DiffusionModelUNet(
        spatial_dims=2, in_channels=1, out_channels=1, channels=(128, 256, 256), attention_levels=(False, True, True),
        num_res_blocks=1, num_head_channels=256,
    )  # fmt: skip
    inferer = DiffusionInferer(DDPMScheduler(num_train_timesteps=1000))
    optimiser = torch.optim.Adam(network.parameters(), lr=2.5e-5)
    batches = tutorial_batches(PackedDataset(chunks))
    spent, step, wanted = 0.0, 0, list(budgets)
    while wanted:
        started = time.process_time()
        images = next(batches)
        noise, t = torch.randn_like(images), torch.randint(0, 1000, (len(images),))
        optimiser.zero_grad(set_to_none=True)
        predicted = inferer(inputs=images, diffusion_model=network, noise=noise, timesteps=t)
        loss = nn.functional.mse_loss(predicted.float(), noise)
        loss.backward()
        optimiser.step()
        spent, step = spent + time.process_time() - started, step + 1
        if step % 10 == 0:
            log.info("monai: step %d, loss %.4f, %.0f core-seconds", step, float(loss), spent)
        if spent >= wanted[0]:
            keep(out, wanted.pop(0), step, spent, drawn(network, inferer, images.shape[2:]))


def tutorial_batches(images: PackedDataset) -> Iterator[Tensor]:
    """Shuffled batches ``(BATCH, 1, H, W)`` in [0, 1], half of them moved a little."""
    move = RandAffine(
        prob=0.5, rotate_range=[(-np.pi / 36, np.pi / 36)], translate_range=[(-1, 1), (-1, 1)],
        scale_range=[(-0.05, 0.05), (-0.05, 0.05)], padding_mode="zeros",
    )  # fmt: skip
    move.set_random_state(0)
    rng = np.random.default_rng(0)
    rows = itertools.chain.from_iterable(rng.permutation(len(images)) for _ in itertools.count())
    while True:
        yield torch.stack(
            [torch.as_tensor(move((images[int(next(rows))]["image"] + 1) / 2)).clone() for _ in range(BATCH)]
        )


@torch.no_grad()
def drawn(network: nn.Module, inferer: DiffusionInferer, size: tuple[int, ...]) -> Images:
    """Samples ``(SAMPLES, 1, H, W)`` in [-1, 1]."""
    scheduler = DDIMScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(DRAWN_BY)
    noise = torch.randn(SAMPLES, 1, *size, generator=torch.Generator().manual_seed(1))
    network.eval()
    parts = [
        inferer.sample(input_noise=part, diffusion_model=network, scheduler=scheduler, verbose=False)
        for part in noise.split(BATCH)
    ]
    network.train()
    return (2 * torch.cat(parts) - 1).clamp(-1, 1).numpy()


def keep(out: Path, budget: float, step: int, spent: float, images: Images) -> None:
    """The samples of a budget, and what it took."""
    with atomic_directory(out / f"after-{budget:.0f}") as folder:
        np.save(folder / "samples.npy", images)
        write_json(folder / "spent.json", {"step": step, "core_seconds": spent, "images": step * BATCH})


def judge(chunks: list[Path], held_out: list[Path], out: Path) -> pd.DataFrame:
    """A row an arm and budget, and one of people in place of samples."""
    network = feature_network("ventricles-t1", dimensions=2, channels=1)
    known, other = (read_real(folders, network, ()) for folders in (chunks, held_out))
    yardstick = Yardstick(known, other, SAMPLES, network, 0, group="all", note="")
    rows = []
    for folder in sorted(out.glob("*/after-*"), key=lambda path: (path.parent.name, int(path.name[6:]))):
        features = extract(network, np.load(folder / "samples.npy"))
        about = Metric("", None, role="checkpoint", method=folder.parent.name, split="held-out")
        rows.append(row_of(yardstick.measure(features, about), folder.parent.name, read_json(folder / "spent.json")))
    people = [metric for metric in yardstick.real() if metric.role == "floor"]
    return pd.DataFrame([*rows, row_of(people, "people against people", {})])


def row_of(metrics: list[Metric], arm: str, spent: dict[str, Any]) -> dict[str, Any]:
    """KID x 1,000 and FID with their intervals, behind what they cost."""
    found: dict[str, Any] = {"arm": arm, "minutes": spent.get("core_seconds", 0) / 60 / CORES, **spent}
    for metric in metrics:
        if metric.name in ("KID", "FID"):
            found |= {metric.name: metric.value, f"{metric.name} low": metric.low, f"{metric.name} high": metric.high}
    return found


def draw(table: pd.DataFrame, out: Path) -> None:
    """KID over minutes, and eight samples of each."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.subplots()
    arms = table[table["minutes"] > 0]
    for arm, own in arms.groupby("arm"):
        values = own[["KID low", "KID", "KID high"]].to_numpy(dtype=float).T
        axis.errorbar(own["minutes"], values[1], (values[1] - values[0], values[2] - values[1]), marker="o", capsize=3, label=str(arm))  # fmt: skip
    axis.axhline(float(table[table["minutes"] == 0]["KID"].iloc[0]), color="black", linestyle="--", label="people")
    axis.set_xlabel("minutes of two cores")
    axis.set_ylabel("KID x 1,000 to held-out people")
    axis.set_yscale("symlog", linthresh=1)
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8)
    figure.savefig(out / "kid.png", dpi=150)

    folders = sorted(out.glob("*/after-*"), key=lambda path: (path.parent.name, int(path.name[6:])))
    figure = Figure(figsize=(8, 1.15 * len(folders)), layout="constrained")
    for axes, folder in zip(figure.subplots(len(folders), 8, squeeze=False), folders, strict=True):
        for axis, image in zip(axes, np.load(folder / "samples.npy"), strict=False):
            axis.imshow(image[0], cmap="gray", vmin=-1, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
        axes[0].set_ylabel(f"{folder.parent.name}\n{int(folder.name[6:]) / 60 / CORES:.0f} min", fontsize=7)
    figure.savefig(out / "samples.png", dpi=120)


def main() -> None:
    """Train one arm, or judge all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--arm", choices=("ours", "monai"), help="train this one; without: judge")
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 20, 40])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    chunks, held_out = (sorted(given.dataset.glob(f"{split}-anat-*")) for split in ("train", "test"))
    if not chunks or not held_out:
        parser.error(f"{given.dataset}: holds no packed chunks of training and test people; see above how it is made")
    budgets = [60 * CORES * minutes for minutes in sorted(given.minutes)]
    if given.arm == "ours":
        ours(chunks, held_out, budgets, given.out / "ours")
    elif given.arm == "monai":
        monai(chunks, budgets, given.out / "monai")
    elif not list(given.out.glob("*/after-*")):
        parser.error(f"{given.out}: nothing is trained there yet; give --arm first")
    else:
        table = judge(chunks, held_out, given.out)
        table.to_csv(given.out / "kid.tsv", sep="\t", index=False)
        draw(table, given.out)
        print("| arm | minutes of two cores | steps | images | KID x 1,000 | FID |\n|---|---:|---:|---:|---:|---:|")
        for row in table.to_dict("records"):
            cells = [f"{row[name]:.2f} [{row[f'{name} low']:.2f}, {row[f'{name} high']:.2f}]" for name in ("KID", "FID")]  # fmt: skip
            cost = f"{row['minutes']:.0f} | {row['step']:.0f} | {row['images']:.0f}" if row["minutes"] else "- | - | -"
            print(f"| {row['arm']} | {cost} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
