"""Vector quantisation with a codebook learned by moving averages (van den Oord et al., 2017, app. A.1).

All in float32 with autocast off, whatever the networks around it use or are cast to, and all state in the state dict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

_ELEMENTS = 2**22  # of the distance matrix that exist at once, 16 MiB


@dataclass(frozen=True)
class Quantised:
    """z: (N, D, *spatial) nearest codes, gradients passing straight through; loss: commitment, scalar float32;
    indices: (N, *spatial) int64."""

    z: Tensor
    loss: Tensor
    indices: Tensor


class Quantiser(nn.Module):
    """Replaces each vector by the nearest of `codes` codes.

    Training moves each code to the running mean of the vectors assigned to it. The first training batch provides
    the initial codes. A code whose running count falls below `restart` times the average count, tokens / codes,
    is placed anew on a vector of the batch, with that average as its count.

    Args:
        codes: size of the codebook K.
        size: of a code, D.
        commitment: weight of the loss that pulls vectors to their codes (beta).
        decay: of the running means.
        epsilon: of the Laplace smoothing of counts.
        restart: see above; 0 never restarts.
    """

    codebook: Tensor  # (K, D)
    counts: Tensor  # (K,) running number of vectors assigned
    sums: Tensor  # (K, D) running sum of these
    initialised: Tensor  # () bool

    def __init__(
        self,
        codes: int,
        size: int,
        *,
        commitment: float = 0.25,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        restart: float = 0.05,
    ) -> None:
        super().__init__()
        if codes < 2 or size < 1:
            raise ValueError(f"codebook of {codes} codes of size {size}; at least 2 codes of size 1 are needed")
        if not commitment >= 0:
            raise ValueError(f"commitment is {commitment}; at least 0 is needed")
        if not 0 < decay < 1:
            raise ValueError(f"decay is {decay}; it must lie between 0 and 1")
        if not epsilon > 0:
            raise ValueError(f"epsilon is {epsilon}; it must be above 0")
        if not 0 <= restart < 1:
            raise ValueError(f"restart is {restart}; allowed: from 0 to below 1")
        self.commitment, self.decay, self.epsilon, self.restart = commitment, decay, epsilon, restart
        codebook = torch.randn(codes, size)
        self.register_buffer("codebook", codebook)
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", codebook.clone())
        self.register_buffer("initialised", torch.tensor(False))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Quantiser:
        """What `to` and its kin do to every tensor: these follow to another device, but stay float32."""

        def keep(tensor: Tensor) -> Tensor:
            applied = fn(tensor)
            return applied if applied.dtype == tensor.dtype else tensor.to(applied.device)

        return super()._apply(keep, recurse)

    def forward(self, z: Tensor) -> Quantised:
        """Quantise (N, D, *spatial); in training mode the codebook learns from it, too."""
        if z.ndim < 3 or z.shape[1] != self.codebook.shape[1]:
            raise ValueError(f"z has shape {tuple(z.shape)}; (N, {self.codebook.shape[1]}, *spatial) is needed")
        if not z.numel():
            raise ValueError(f"z has shape {tuple(z.shape)}; at least one vector is needed")
        with torch.autocast(z.device.type, enabled=False):
            channels_last = z.float().movedim(1, -1)
            tokens = channels_last.reshape(-1, z.shape[1])
            learning = self.training and torch.is_grad_enabled()
            if learning and not self.initialised:
                everything = torch.ones_like(self.counts, dtype=torch.bool)
                self._place(everything, tokens.detach())
                self.initialised.fill_(True)
            indices = self.nearest(tokens.detach())
            chosen = self.codebook[indices].reshape(channels_last.shape).movedim(-1, 1)
            if learning:
                self._learn(tokens.detach(), indices)
            wide = z.float()
            loss = self.commitment * F.mse_loss(wide, chosen)
            passed = wide + (chosen - wide).detach()
        return Quantised(passed.to(z.dtype), loss, indices.reshape(channels_last.shape[:-1]))

    @torch.no_grad()
    def nearest(self, tokens: Tensor) -> Tensor:
        """Index of the code nearest to each of (M, D) tokens, a chunk of tokens at a time."""
        # |token - code|^2 less |token|^2, which does not change the order
        offset = self.codebook.square().sum(1)
        length = min(len(tokens), max(1, _ELEMENTS // len(offset)))
        # one buffer: a new one each time takes new memory each time, small results being put where the last one was
        distances = tokens.new_empty(length, len(offset))
        indices = torch.empty(len(tokens), dtype=torch.int64, device=tokens.device)
        for chunk, found in zip(tokens.split(length), indices.split(length), strict=True):
            torch.addmm(offset, chunk, self.codebook.T, alpha=-2, out=distances[: len(chunk)])
            torch.argmin(distances[: len(chunk)], 1, out=found)
        return indices

    @torch.no_grad()
    def _learn(self, tokens: Tensor, indices: Tensor) -> None:
        codes = len(self.codebook)
        counts = torch.bincount(indices, minlength=codes).to(self.counts.dtype)
        sums = torch.zeros_like(self.sums).index_add_(0, indices, tokens)
        if _processes() > 1:
            dist.all_reduce(counts)
            dist.all_reduce(sums)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + self.epsilon) / (total + codes * self.epsilon) * total
        self.codebook.copy_(self.sums / smoothed[:, None])
        average = len(tokens) * _processes() / codes
        self._place(self.counts < self.restart * average, tokens)

    @torch.no_grad()
    def _place(self, which: Tensor, tokens: Tensor) -> None:
        """Put the codes marked in `which`, (K,) bool, on random tokens of all processes, drawn by the first."""
        codes, own, total = len(self.codebook), len(tokens), len(tokens) * _processes()
        # the same number for any `which`, so that no shape depends on data
        order = torch.randperm(max(total, codes), device=tokens.device)[:codes] % total
        fresh = tokens[order % own]
        if _processes() > 1:
            dist.broadcast(order, src=0)
            mine = (order // own == dist.get_rank())[:, None]
            fresh = torch.where(mine, tokens[order % own], 0)
            dist.all_reduce(fresh)
        average = total / codes
        self.codebook.copy_(torch.where(which[:, None], fresh, self.codebook))
        self.sums.copy_(torch.where(which[:, None], fresh * average, self.sums))
        self.counts.copy_(torch.where(which, average, self.counts))


def usage_and_perplexity(counts: Tensor) -> tuple[float, float]:
    """Share of codes used at all, and exp(entropy) of their use, from (K,) counts over a whole data set."""
    total = counts.sum()
    if total == 0:
        raise ValueError("no codes were counted")
    p = counts.double() / total
    return float((counts > 0).double().mean()), float(torch.exp(-torch.special.xlogy(p, p).sum()))


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
