"""Train the learned brain extraction: ``python -m pipeline_lib.imaging.train_brain_extraction --data DIR``.

``DIR`` holds raw heads in ``t1/ID_T1.nii.gz`` and their masks in ``brainmask/ID_brainmask.nii.gz``.
Twenty people, chosen by the hash of their id, are never trained on; their Dice is printed at the
end. Synthetic heads with the contrasts of T1, T2 and FLAIR join them. Most examples are randomised
far beyond what scanners do (after SynthStrip, Hoopes et al. 2022), so that the network learns the
shape of a brain and not the contrast of one scanner; the others show it where exactly a brain ends.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy import ndimage
from skimage.filters import threshold_otsu
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from pipeline_lib.cohort.synthetic import brain_of, make_cohort
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_path
from pipeline_lib.imaging.brain import (
    BOX,
    GRID_MM,
    WEIGHTS,
    BrainNetwork,
    brain_probability,
    largest_component,
    load_network,
    normalise,
    to_grid,
)
from pipeline_lib.imaging.nifti import read_volume
from pipeline_lib.imaging.quality import dice

logger = logging.getLogger("pipeline")
HELD_OUT = 20
SYNTHETIC = range(1001, 1017)
"""People of the synthetic cohort that are trained on; the embedded cohort's have lower numbers."""
SYNTHETIC_SHARE = 0.15
GENTLE_SHARE = 0.5
RECONTRASTED_SHARE = 0.3


class Head(NamedTuple):
    """Intensities in [0, 1], brain mask, mask of all that is not air, each ``(1, 1, X, Y, Z)`` at 2 mm; the brain's centre."""

    image: Tensor
    mask: Tensor
    body: Tensor
    centre: NDArray[np.float64]


def find_heads(folder: Path) -> tuple[list[str], list[str]]:
    """Ids to train on and ids held out: those whose ids hash lowest."""
    ids = sorted(path.name.removesuffix("_T1.nii.gz") for path in folder.glob("t1/*_T1.nii.gz"))
    if len(ids) <= HELD_OUT:
        raise UserError(f"{folder}: {len(ids)} heads (t1/*_T1.nii.gz) found; {HELD_OUT} are held out, more are needed")
    by_hash = sorted(ids, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return sorted(by_hash[HELD_OUT:]), sorted(by_hash[:HELD_OUT])


def load_head(scan: Path, truth: Path) -> Head:
    """A scan with the masks of its brain and of its body at 2 mm."""
    head, mask = read_volume(scan), read_volume(truth)
    image = normalise(to_grid(head.data, head.zooms))
    body = body_of(image[0, 0].numpy())
    brain = (to_grid(mask.data, mask.zooms) > 0.5).float()
    centre = np.array(ndimage.center_of_mass(brain[0, 0].numpy()))
    return Head(image, brain, torch.from_numpy(body.astype(np.float32))[None, None], centre)


def body_of(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """All of a head ``(X, Y, Z)`` that is not air: above half of Otsu's threshold, closed, holes filled."""
    above = ndimage.binary_closing(image > threshold_otsu(image) / 2, iterations=2)
    body: NDArray[np.bool_] = ndimage.binary_fill_holes(above)
    return body


def _cut(x: Tensor, centre: NDArray[np.float64], *, flip: bool) -> Tensor:
    """The box of voxels of ``(1, 1, X, Y, Z)`` around ``centre``, 0 where it reaches out of the volume."""
    starts = (centre + 0.5 - np.array(BOX) / 2).astype(int).tolist()
    padding = [
        pad
        for start, size, box in reversed(list(zip(starts, x.shape[2:], BOX, strict=True)))
        for pad in (-start, start + box - size)
    ]
    box = functional.pad(x, padding)
    return box.flip(2) if flip else box


def ixi_paths(folder: Path, name: str) -> tuple[Path, Path]:
    """Scan and mask of a person."""
    return folder / "t1" / f"{name}_T1.nii.gz", folder / "brainmask" / f"{name}_brainmask.nii.gz"


def synthetic_heads() -> list[Head]:
    """T1-, T2-weighted and FLAIR heads of people who are not in the embedded cohort."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scans = make_cohort(folder, SYNTHETIC, root=folder, modalities=("T1w", "T2w", "FLAIR"))
        return [load_head(folder / scan.path, folder / brain_of(scan)) for scan in scans]


class Randomiser:
    """Draws randomised examples of shape ``(1, 1, *BOX)`` from heads."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        self.torch = torch.Generator().manual_seed(int(random.integers(2**62)))

    def __call__(self, head: Head) -> tuple[Tensor, Tensor]:
        kind = self.random.random()
        if kind < GENTLE_SHARE + RECONTRASTED_SHARE:
            return self._gentle(head, recontrast=bool(kind >= GENTLE_SHARE))
        return self._wild(head)

    def _gentle(self, head: Head, *, recontrast: bool) -> tuple[Tensor, Tensor]:
        """Much as it was scanned, the contrast perhaps excepted; half of them on the scan's own voxels."""
        image, mask, body = self._place(head, degrees=0 if self._chance(0.5) else 8)
        if recontrast:
            image = self._contrast(image, mask, body)
        image = image.clamp(min=1e-6) ** float(np.exp(self.random.normal(0, 0.2)))
        image = image * self._field(4, float(self.random.uniform(0, 0.2))).exp()
        return normalise(self._noise(image, float(self.random.uniform(0, 0.02)))), mask

    def _wild(self, head: Head) -> tuple[Tensor, Tensor]:
        image, mask, body = self._place(head, degrees=float(self.random.choice([0, 8, 30], p=[0.3, 0.2, 0.5])))
        image = self._contrast(image, mask, body)
        if self._chance(0.5):
            image = image * self._field(4, float(self.random.uniform(0.1, 0.6))).exp()
        if self._chance(0.15):
            image = image * self._loose(mask)
        elif self._chance(0.15):
            image = self._deface(image, mask)
        if self._chance(0.35):
            image = self._coarsen(image)
        if self._chance(0.5):
            image = self._noise(image, float(self.random.uniform(0.0, 0.1)))
        if self._chance(0.3):
            image, mask = self._crop(image, mask)
        return normalise(image), mask

    def _chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def _place(self, head: Head, *, degrees: float) -> tuple[Tensor, Tensor, Tensor]:
        """Image, mask and body in a box near the brain's centre, half of them flipped left to right.

        Turned by up to ``degrees``, scaled and sheared, or on the scan's own voxels where ``degrees`` is 0.
        """
        centre = np.floor(head.centre + self.random.uniform(-12, 12, 3)) + 0.5
        flip = self._chance(0.5)
        if not degrees:
            image, mask, body = (_cut(x, centre, flip=flip) for x in (head.image, head.mask, head.body))
            return image, mask, body
        matrix = self._turned(degrees)
        if flip:
            matrix[:, 0] *= -1
        shape = np.array(head.image.shape[2:])
        out = np.array(BOX)
        # output voxel o (from the box's centre) -> input voxel centre + matrix o -> grid_sample's [-1, 1],
        # whose axes run backwards (x last); affine_grid gives o in units of half boxes
        linear = matrix * (out / 2)[None, :] / (shape / 2)[:, None]
        offset = (centre + 0.5) / (shape / 2) - 1
        theta = np.concatenate([linear[::-1, ::-1], offset[::-1, None]], axis=1)
        grid = functional.affine_grid(
            torch.tensor(theta[None].copy(), dtype=torch.float32), [1, 1, *BOX], align_corners=False
        )
        placed = functional.grid_sample(
            torch.cat([head.image, head.mask, head.body], dim=1),
            grid,
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )
        image, mask, body = placed.split(1, dim=1)
        return image, (mask > 0.5).float(), body

    def _turned(self, degrees: float) -> NDArray[np.float64]:
        matrix = np.eye(3)
        for axis, angle in enumerate(np.deg2rad(self.random.uniform(-degrees, degrees, 3))):
            turn = np.eye(3)
            i, j = [n for n in range(3) if n != axis]
            turn[i, i] = turn[j, j] = np.cos(angle)
            turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
            matrix = matrix @ turn
        scale = np.exp(self.random.uniform(-0.12, 0.12) + self.random.uniform(-0.06, 0.06, 3))
        turned: NDArray[np.float64] = matrix @ np.diag(scale) @ (np.eye(3) + self.random.uniform(-0.05, 0.05, (3, 3)))
        return turned

    def _curve(self, x: Tensor, knots: Sequence[float]) -> Tensor:
        position = x.clamp(0, 1) * (len(knots) - 1)
        low = position.floor().clamp(max=len(knots) - 2)
        values = torch.tensor(knots, dtype=torch.float32)
        index = low.long()
        return torch.lerp(values[index], values[index + 1], position - low)

    def _random_curve(self, x: Tensor, *, dark_zero: float) -> Tensor:
        """A random function of the intensity, rising, falling or neither; 0 stays 0 with a chance of ``dark_zero``."""
        kind = self.random.random()
        if kind < 0.25:
            return x.clamp(min=1e-6) ** float(np.exp(self.random.normal(0, 0.4)))
        knots = self.random.uniform(0, 1, int(self.random.integers(2, 9)))
        if kind < 0.5:
            knots = np.sort(knots)
        elif kind < 0.8:
            knots = np.sort(knots)[::-1].copy()
        if self._chance(dark_zero):
            knots[0] = 0.0
        return self._curve(x, knots.tolist())

    def _contrast(self, image: Tensor, mask: Tensor, body: Tensor) -> Tensor:
        """As it was, its negative, or one curve for the head and in half of those another for the brain.

        The air often stays dark: bone may so become bright beside it, and fluid bright beside dark bone, as in T2.
        """
        if self._chance(0.15):
            return image
        if self._chance(0.25):
            return torch.lerp(image, 1 - image.clamp(min=1e-6) ** float(np.exp(self.random.normal(0, 0.3))), body)
        head = self._random_curve(image, dark_zero=0.8)
        if self._chance(0.6):
            head = torch.lerp(image, self._random_curve(image, dark_zero=0), body)
        if self._chance(0.5):
            return head
        brain = self._random_curve(image, dark_zero=0.3) * float(self.random.uniform(0.4, 1.2))
        return torch.lerp(head, brain, functional.avg_pool3d(mask, 3, stride=1, padding=1))

    def _field(self, knots: int, strength: float) -> Tensor:
        coarse = torch.randn(1, 1, knots, knots, knots, generator=self.torch) * strength
        return functional.interpolate(coarse, size=BOX, mode="trilinear", align_corners=True)

    def _loose(self, mask: Tensor) -> Tensor:
        """The mask, grown by 0 to 2 voxels: a head that is stripped already."""
        grow = int(self.random.integers(0, 3))
        return functional.max_pool3d(mask, 2 * grow + 1, stride=1, padding=grow)

    def _deface(self, image: Tensor, mask: Tensor) -> Tensor:
        """Everything in front of and below an oblique plane that misses the brain becomes 0."""
        normal = np.array([self.random.uniform(-0.3, 0.3), 1.0, -self.random.uniform(0.3, 1.5)])
        axes = [torch.arange(n, dtype=torch.float32) for n in BOX]
        i, j, k = torch.meshgrid(*axes, indexing="ij")
        height = (normal[0] * i + normal[1] * j + normal[2] * k)[None, None]
        inside = height[mask > 0.5]
        if inside.numel() == 0:
            return image
        return image * (height < inside.max() + float(self.random.uniform(0, 10)))

    def _coarsen(self, image: Tensor) -> Tensor:
        size = list(BOX)
        if self._chance(0.6):
            axis = int(self.random.integers(0, 3))
            size[axis] = int(size[axis] / self.random.uniform(1.3, 4.0))
        else:
            factor = self.random.uniform(1.1, 2.2)
            size = [int(n / factor) for n in size]
        coarse = functional.interpolate(image, size=size, mode="area")
        mode = "trilinear" if self._chance(0.7) else "nearest"
        align = False if mode == "trilinear" else None
        return functional.interpolate(coarse, size=BOX, mode=mode, align_corners=align)

    def _noise(self, image: Tensor, sigma: float) -> Tensor:
        """Rician: the magnitude of a complex signal with normal noise of ``sigma`` on both parts."""
        real = image + sigma * torch.randn(image.shape, generator=self.torch)
        return (real**2 + (sigma * torch.randn(image.shape, generator=self.torch)) ** 2).sqrt()

    def _crop(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Up to a third of the field of view is missing on one side."""
        axis = int(self.random.integers(0, 3))
        length = int(BOX[axis] * self.random.uniform(0, 0.33))
        index: list[slice] = [slice(None)] * 5
        index[axis + 2] = slice(0, length) if self._chance(0.5) else slice(BOX[axis] - length, None)
        image, mask = image.clone(), mask.clone()
        image[tuple(index)] = 0
        mask[tuple(index)] = 0
        return image, mask


class Examples(Dataset[tuple[Tensor, Tensor]]):
    """As many randomised examples as are asked for; the nth follows from the seed, whoever makes it."""

    def __init__(self, real: Sequence[Head], synthetic: Sequence[Head], count: int, seed: int) -> None:
        self.real, self.synthetic, self.count, self.seed = real, synthetic, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        random = np.random.default_rng([self.seed, index])
        heads = self.synthetic if self.synthetic and random.random() < SYNTHETIC_SHARE else self.real
        image, mask = Randomiser(random)(heads[int(random.integers(len(heads)))])
        return image[0], mask[0]


def loss_function(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy plus 1 - soft Dice."""
    probability = logits.sigmoid()
    overlap = 2 * (probability * mask).sum() / (probability.sum() + mask.sum() + 1)
    return functional.binary_cross_entropy_with_logits(logits, mask) + 1 - overlap


def train(
    network: BrainNetwork, examples: Examples, *, batch: int, learning_rate: float, report_every: int = 50
) -> BrainNetwork:
    """Train on each example once with AdamW, a linear warm-up and a cosine decay of the learning rate to 0."""
    network.train().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch has it
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-4)
    loader = DataLoader(examples, batch_size=batch, num_workers=1, prefetch_factor=4)
    steps = len(loader)
    warmup = max(1, min(50, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / warmup, 0.5 * (1 + np.cos(np.pi * step / steps))),
    )
    average, began = 0.0, time.monotonic()
    for step, (image, mask) in enumerate(loader, start=1):
        loss = loss_function(network(image), mask)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        average = loss.item() if step == 1 else 0.98 * average + 0.02 * loss.item()
        if step % report_every == 0 or step == steps:
            left = (time.monotonic() - began) / step * (steps - step)
            logger.info("step %d/%d loss %.4f, %.0f min left", step, steps, average, left / 60)
    return network.eval()


def save(
    network: BrainNetwork, path: Path, trained: Sequence[str], held_out: Sequence[str], runs: Sequence[str]
) -> None:
    """Write the weights as float16, with who was trained on, and by which runs, in the file's metadata."""
    metadata = {
        "trained_on": " ".join(trained),
        "held_out": " ".join(held_out),
        "runs": "; ".join(runs),
        "grid_mm": str(GRID_MM),
    }
    weights = {name: value.detach().half().contiguous() for name, value in network.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(weights, temporary, metadata=metadata)


def runs_of(weights: Path | None) -> list[str]:
    """The options of each run that ``weights`` come from, first to last.

    Raises:
        UserError: they are not of this script.
    """
    if weights is None:
        return []
    try:
        with safe_open(weights, framework="pt") as file:
            return str(file.metadata()["runs"]).split("; ")
    except (OSError, SafetensorError, KeyError, TypeError):
        raise UserError(f"{weights}: not weights that this script wrote; --start goes on from its --out") from None


def evaluate(folder: Path, names: Sequence[str]) -> dict[str, float]:
    """Dice on each head, at the scan's own resolution, with the weights in use."""
    scores = {}
    for name in names:
        head, truth = (read_volume(path) for path in ixi_paths(folder, name))
        mask, _ = largest_component(brain_probability(head.data, head.zooms) > 0.5)
        scores[name] = dice(mask, truth.data > 0.5)
    return scores


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, save, and report Dice on the held-out people."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with t1/ and brainmask/")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="weights file to write")
    parser.add_argument("--start", type=Path, help="weights to go on from (default: random ones)")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        earlier = runs_of(options.start)
        trained, held_out = find_heads(options.data)
        heads = [load_head(*ixi_paths(options.data, name)) for name in trained]
        synthetic = synthetic_heads()
        logger.info("%d heads and %d synthetic ones to train on, %d held out", len(heads), len(synthetic), HELD_OUT)
        examples = Examples(heads, synthetic, options.steps * options.batch, options.seed)
        torch.manual_seed(options.seed)
        network = load_network(options.start) if options.start else BrainNetwork()
        network = train(network, examples, batch=options.batch, learning_rate=options.learning_rate)
        this = f"--steps {options.steps} --batch {options.batch} --learning-rate {options.learning_rate:g} --seed {options.seed}"
        save(network, options.out, trained, held_out, [*earlier, this])
        if options.out == WEIGHTS:
            load_network.cache_clear()
            scores = evaluate(options.data, held_out)
            values = np.array(list(scores.values()))
            logger.info("held-out Dice: mean %.4f, least %.4f", values.mean(), values.min())
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
