"""How close a predicted image is to the true one, over the whole image or inside the brain."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales of MS-SSIM, finest first."""
WINDOW = 11


def mae(prediction: Array, target: Array, mask: Mask | None = None) -> float:
    """Mean absolute error of ``(*spatial)`` images, in the images' own units."""
    return float(np.abs(_inside(prediction, mask) - _inside(target, mask)).mean())


def psnr(prediction: Array, target: Array, *, data_range: float, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio, dB, of ``(*spatial)`` images; infinite for equal images.

    Args:
        data_range: largest minus smallest possible value (2 for images in [-1, 1]).
        mask: voxels over which the error is averaged.
    """
    error = float(((_inside(prediction, mask) - _inside(target, mask)) ** 2).mean())
    return float("inf") if error == 0 else 10 * float(np.log10(data_range**2 / error))


def ssim(prediction: Array, target: Array, *, data_range: float, mask: Mask | None = None) -> float:
    """Structural similarity (Wang 2004: Gaussian window of sigma 1.5) of 2D or 3D ``(*spatial)`` images.

    Args:
        mask: voxels over which the map of local similarities is averaged. Without it the mean is
            over every voxel whose window lies inside the image, as scikit-image defines it.

    Raises:
        ValueError: an image is smaller than the window of 11 voxels along some axis.
    """
    value, local = structural_similarity(
        target.astype(np.float64),
        prediction.astype(np.float64),
        data_range=data_range,
        gaussian_weights=True,
        use_sample_covariance=False,
        full=True,
    )
    return float(value) if mask is None else float(local[mask].mean())


def correlation(prediction: Array, target: Array, mask: Mask | None = None) -> float:
    """Pearson's correlation over the voxels of ``(*spatial)`` images; NaN where one of them is constant."""
    one, other = (values - values.mean() for values in (_inside(prediction, mask), _inside(target, mask)))
    norm = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / norm) if norm else float("nan")


def multiscale_similarity(ones: Array, others: Array) -> NDArray[np.float64]:
    """MS-SSIM (Wang 2003) of pairs of images ``(N, C, *spatial)`` in [-1, 1], ``(N,)``, over as many scales as fit.

    The weights of those are brought to a sum of 1; a window of 11 voxels fits into the coarsest. Values of two sets compare
    only where the images have one size.

    Raises:
        ValueError: an image has fewer than 11 voxels along some axis.
    """
    smallest = min(ones.shape[2:])
    if smallest < WINDOW:
        raise ValueError(f"images of {ones.shape[2:]} voxels; {WINDOW} along each axis are needed")
    # torchmetrics asks for room by (n - 1)^2, each scale for half the voxels of the one before.
    scales = max(n for n in range(1, len(WEIGHTS) + 1) if smallest // max(2 ** (n - 1), (n - 1) ** 2) >= WINDOW)
    weights = tuple(weight / sum(WEIGHTS[:scales]) for weight in WEIGHTS[:scales])
    found = multiscale_structural_similarity_index_measure(
        torch.from_numpy(np.asarray(ones, np.float32)),
        torch.from_numpy(np.asarray(others, np.float32)),
        data_range=2.0,
        betas=weights,
        normalize="relu",
        reduction="none",
    )
    values: NDArray[np.float64] = found.double().numpy().reshape(-1)
    return values


def _inside(image: Array, mask: Mask | None) -> NDArray[np.float64]:
    return (image if mask is None else image[mask]).astype(np.float64)
