"""The mean diffusion signal over all directions of given NODDI maps, in closed form.

Of a stick the mean over directions does not depend on how sticks are dispersed (Kaden et al. 2016,
doi:10.1002/mrm.25734); outside them NODDI's tensor does, by tau = <(n.mu)^2> of the Watson distribution (Zhang et al. 2012,
doi:10.1016/j.neuroimage.2012.03.072).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import dawsn, erf

D_PARALLEL = 1.7e-3
D_FREE = 3.0e-3
"""mm2/s, the values of the paper of NODDI."""
LEAST, MOST = 0.02, 0.98
"""ODI is taken into these: beyond them kappa is hardly finite."""

Array = NDArray[np.float64]


def powder_mean(maps: Array, b: float) -> Array:
    """Mean over directions of the signal over b0, (*spatial).

    Args:
        maps: ICVF, ODI and ISOVF (3, *spatial) in [0, 1].
        b: weighting, s/mm2, above 0.
    """
    icvf, odi, isovf = maps
    kappa = 1 / np.tan(np.clip(odi, LEAST, MOST) * np.pi / 2)
    tau = 1 / (2 * np.sqrt(kappa) * dawsn(np.sqrt(kappa))) - 1 / (2 * kappa)
    parallel = D_PARALLEL * (1 - icvf * (1 - tau))
    across = D_PARALLEL * (1 - icvf * (1 + tau) / 2)
    inside = _over_directions(np.asarray(b * D_PARALLEL))
    outside = np.exp(-b * across) * _over_directions(b * (parallel - across))
    tissue = icvf * inside + (1 - icvf) * outside
    mean: Array = isovf * np.exp(-b * D_FREE) + (1 - isovf) * tissue
    return mean


def _over_directions(x: Array) -> Array:
    """Integral of exp(-x u^2) over u from 0 to 1; x may be slightly below 0."""
    x = np.maximum(x, 1e-9)
    root = np.sqrt(x)
    mean: Array = np.sqrt(np.pi) / 2 * erf(root) / root
    return mean
