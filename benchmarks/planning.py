"""What the full-scale recipes cost on a cluster, by cohort size, as Markdown tables.

    python benchmarks/planning.py > docs/planning.md

Counted: floating-point operations of each network, from its shapes, and the memory of its training steps (memory.py).
Measured: jobs (a dry run), and seconds and bytes of synthetic heads of 1 mm through ingest and preprocessing. Assumed: what
a GPU sustains.
"""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from dry_run import SIZES, measure
from memory import checks, table
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline_lib.cohort.synthetic import make_cohort
from pipeline_lib.config.schema import PreprocessOptions, RecipeOptions, TrainingOptions
from pipeline_lib.imaging.ingest import ingest_chunk
from pipeline_lib.imaging.preprocess import preprocess_chunk
from pipeline_lib.inference.synthesis import LOOKED_UP
from pipeline_lib.models.autoencoder import KLAutoencoder
from pipeline_lib.models.regressor import Regressor
from pipeline_lib.models.unet import UNet
from pipeline_lib.models.vqgan import VQGAN
from pipeline_lib.training.trainer import in_steps

RECIPES = Path(__file__).resolve().parent.parent / "config" / "recipes"
SUSTAINED = 60e12
"""Operations a second: a fifth of the bfloat16 peak of an A100. Assumed."""
HEADS = range(1, 4)
TRAIN_SHARE, TEST_SHARE = 0.7, 0.2
SCANS = 1_000
"""Of the table of trainings, where some are given as epochs."""
GROUPS = 2
"""Of a cohort, each of which synthesis samples."""
MEMORY = """## GPU memory of a training step

GB by size and batch, activations included, and the largest batch that leaves a tenth of a card free. Computed; measured on a card within 3 % of it, but for
the regression, which took 1.57 times as much ([gpu.md](gpu.md)):
every tensor of one whole step that lives at a time (`benchmarks/memory.py`). cuDNN's work space and what the allocator leaves
unused come on top. `generation` has the network of `anomaly`. `training.accumulate` makes a large batch of small ones,
`denoiser.checkpointing` trades time for memory, in its rows, `training.devices` shares a batch out."""
CHECK = """The same computation for networks so small that this CPU makes a step of them, beside what its allocator gave out at most:"""
HALF = """Half precision saves a tenth only: normalisation and SiLU stay in float32 on a GPU, and what they keep for the backward pass with them."""
BYTES_A_WEIGHT = 20
"""Weight, gradient, two moments of AdamW and the average, all float32."""


def read_recipe(name: str) -> RecipeOptions:
    """A recipe at full scale."""
    return RecipeOptions.model_validate(yaml.safe_load((RECIPES / f"{name}.yaml").read_text()))


@dataclass(frozen=True)
class Network:
    """A network that a recipe trains: operations of one image forward, and how often it is trained on how many."""

    name: str
    forward: float
    weights: int
    images: int  # over the whole training

    @property
    def training(self) -> float:
        """Operations of the training: the backward pass costs twice the forward pass."""
        return 3 * self.forward * self.images


def counted(module: nn.Module, *inputs: Tensor) -> tuple[float, int]:
    """Operations of one forward pass, and weights; of an autoencoder, its encoder and decoder."""
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():  # whose attention is counted
        if isinstance(module, UNet | Regressor):
            module(*inputs)
        else:
            module.decoder(
                module.encode(*inputs)[0]
            )  # without the codebook, which tensors without values cannot look up
    return float(counter.get_total_flops()), sum(parameter.numel() for parameter in module.parameters())


def networks(recipe: RecipeOptions, scans: int) -> list[Network]:
    """What the recipe trains on so many scans; shapes only, nothing is computed."""
    data, options, size, channels = recipe.data, recipe.autoencoder, recipe.data.size, recipe.data.channels
    images = images_a_scan(recipe) * scans
    found = []
    condition = 0
    with FakeTensorMode():
        if options is not None:
            kept = {"dimensions": data.dimensions, "channels": options.channels, "blocks": options.blocks,
                    "latent_channels": options.latent_channels}  # fmt: skip
            roles = (
                {"source": data.channels, "target": data.target_channels} if data.target else {"image": data.channels}
            )
            for role, inside in roles.items():
                kind = KLAutoencoder if options.kind == "vae" else VQGAN
                extra = {} if options.kind == "vae" else {"codes": options.codes}
                cost = counted(kind(in_channels=inside, **kept, **extra), torch.empty(1, inside, *size))
                found.append(Network(f"{options.kind.upper()}, {role}", *cost, seen(options.training, images)))
            size = [n // 2 ** (len(options.channels) - 1) for n in size]
            channels = options.latent_channels
            condition = channels if data.target else 0
        elif data.target:  # the residual of a regression
            channels, condition = data.target_channels, data.channels + data.target_channels
        if (regression := recipe.regression) is not None:
            network = Regressor(
                dimensions=data.dimensions, in_channels=data.channels, out_channels=data.target_channels,
                fold=regression.fold, channels=regression.channels, blocks=regression.blocks,
            )  # fmt: skip
            cost = counted(network, torch.empty(1, data.channels, *[regression.patch] * data.dimensions))
            found.append(Network("regression, a patch", *cost, seen(regression.training, images)))
        denoiser = recipe.denoiser
        network = UNet(
            dimensions=data.dimensions, in_channels=channels + condition, out_channels=channels,
            channels=denoiser.channels, blocks=denoiser.blocks, attention=denoiser.attention,
            head_channels=denoiser.head_channels, fold=denoiser.fold, detail=denoiser.detail,
        )  # fmt: skip
        cost = counted(network, torch.empty(1, channels + condition, *size), torch.zeros(1, dtype=torch.int64))
        found.append(Network("denoiser", *cost, seen(denoiser.training, images)))
    return found


def seen(training: TrainingOptions, images: int) -> int:
    """Images that a training sees in all its steps, which may be given as epochs of so many images."""
    return in_steps(training, images, "planning").steps * training.batch_size * training.accumulate


def images_a_scan(recipe: RecipeOptions) -> int:
    """Slices of a scan, or the one volume it is."""
    slices = recipe.data.slices
    return 1 if recipe.data.dimensions == 3 else math.floor((slices.to_mm - slices.from_mm) / slices.every_mm) + 1


def inference(recipe: RecipeOptions, forward: float, scans: int) -> float:
    """Operations of sampling: of every test scan, or of as many images as are asked for."""
    sampling, score = recipe.sampling, recipe.evaluation.score
    if recipe.task == "anomaly":
        chain = min(sampling.steps, max(1, round(sampling.start * recipe.diffusion.timesteps)))
        return forward * (len(score.levels) * score.draws or chain) * images_a_scan(recipe) * scans
    if recipe.task == "translation":
        return forward * sampling.steps * sampling.count * images_a_scan(recipe) * scans
    guided = 2 if sampling.guidance != 1 else 1
    return forward * sampling.steps * guided * drawn(recipe)


def drawn(recipe: RecipeOptions) -> int:
    """Images sampled by the finished model and by its kept checkpoints, in which synthesis looks at some of them only."""
    sampling = recipe.sampling
    finished = sampling.count * (GROUPS if recipe.task == "synthesis" else 1)
    looked_at = finished if recipe.task == "generation" else len(range(0, finished, math.ceil(finished / LOOKED_UP)))
    return finished + sampling.checkpoints * looked_at


def one_scan() -> tuple[float, float]:
    """Seconds of one core and bytes on disk of a head of 1 mm, from ingest to the preprocessed scan."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scans = [scan for scan in make_cohort(folder, HEADS, root=folder, voxel_mm=1.0) if scan.modality == "T1w"]
        started = time.monotonic()
        ingest_chunk(scans, folder, folder / "ingest", workers=1)
        preprocess_chunk(folder / "ingest", PreprocessOptions(), folder / "preprocess", workers=1)
        seconds = time.monotonic() - started
        made = [path for stage in ("ingest", "preprocess") for path in (folder / stage).rglob("*") if path.is_file()]
        return seconds / len(scans), sum(path.stat().st_size for path in made) / len(scans)


def main() -> None:
    """Print the tables."""
    scan_seconds, scan_bytes = one_scan()
    recipes = {path.stem: read_recipe(path.stem) for path in sorted(RECIPES.glob("*.yaml"))}
    costs = {name: networks(recipe, round(TRAIN_SHARE * SCANS)) for name, recipe in recipes.items()}
    hours = SUSTAINED * 3600
    print("# Planning a run on a cluster\n")
    print("Made by `python benchmarks/planning.py > docs/planning.md` from the recipes in `config/recipes/`.\n")
    epochs = [f"`{name}`" for name, recipe in recipes.items() if recipe.denoiser.training.epochs]
    print(
        f"## Training\n\nThe steps are fixed whatever the size of the cohort. Only {' and '.join(epochs)} trains for epochs: given "
        f"for {SCANS:,} scans, seven of ten trained on.\n"
    )
    print(
        "| recipe | network | weights, millions | forward, GFLOP an image | images seen | GPU hours | GPU memory without activations, GB |"
    )
    print("|---|---|---:|---:|---:|---:|---:|")
    for name, found in costs.items():
        for each in found:
            cells = [name, each.name, f"{each.weights / 1e6:.1f}", f"{each.forward / 1e9:.1f}", f"{each.images:,}",
                     f"{each.training / hours:.1f}", f"{each.weights * BYTES_A_WEIGHT / 1e9:.2f}"]  # fmt: skip
            print("| " + " | ".join(cells) + " |")
    print(f"\n{MEMORY}\n")
    print("\n".join(table()))
    print(f"\n{CHECK}\n")
    print("\n".join(checks("cpu")))
    print(f"\n{HALF}")
    print("\n## By size of the cohort\n")
    print("Each recipe on one kind of scan, seven of ten people trained on, a fifth tested, chunks of 50 scans.\n")
    names = " | ".join(f"inference of {name}, GPU hours" for name in recipes)
    print(f"| scans | jobs | preprocessing, core hours | scans on disk, GB | {names} | training, GPU hours |")
    print("|---:|---:|---:|---:|" + "---:|" * (len(recipes) + 1))
    for scans in SIZES:
        jobs, _, _ = measure(scans)
        trained, tested = round(TRAIN_SHARE * scans), round(TEST_SHARE * scans)
        training = sum(each.training for recipe in recipes.values() for each in networks(recipe, trained)) / hours
        sampled = [
            f"{inference(recipe, costs[name][-1].forward, tested) / hours:.2f}" for name, recipe in recipes.items()
        ]
        cells = [f"{scans:,}", f"{jobs:,}", f"{scans * scan_seconds / 3600:.1f}", f"{scans * scan_bytes / 1e9:.1f}",
                 *sampled, f"{training:.0f}"]  # fmt: skip
        print("| " + " | ".join(cells) + " |")
    print(
        f"""
Measured: jobs (a dry run of the demo's configuration with so many scans); {scan_seconds:.0f} s of one core and {scan_bytes / 1e6:.0f} MB on disk
for a head at 1 mm, ingested and preprocessed (synthetic heads). Counted from the networks' shapes: operations and weights. Assumed, not measured: a GPU that sustains
{SUSTAINED / 1e12:.0f} TFLOP/s in bfloat16 (a fifth of the peak of an A100); small networks and 3D convolutions may reach less, so take
the GPU hours as an order of magnitude and set `runtime` in the profile with room.
""".rstrip()
    )


if __name__ == "__main__":
    main()
