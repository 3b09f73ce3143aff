"""Everything random in a training step, as a function of its position: nothing random is ever stored.

[1] Esser et al. Scaling Rectified Flow Transformers for High-Resolution Image Synthesis. arXiv:2403.03206, section 3.1
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .state import TrainConfig


class Draw(NamedTuple):
    """Everything random in one step, for the whole batch, on the CPU."""

    rows: Tensor                                                # (B,) which images
    t: Tensor                                                   # (B,) in 1 … T
    eps: Tensor                                                 # (B, C, H, W)
    drop: Tensor                                                # (B,) uniform in 0 … 1: below p_uncond the label is dropped
    flip: Tensor                                                # (B,) uniform in 0 … 1: below a half the image is mirrored, where that is asked for


def draw(step: int, N: int, T: int, shape: tuple[int, ...], config: TrainConfig) -> Draw:
    """The random part of a step: a function of (seed, step)."""
    position = torch.arange(step * config.batch, (step + 1) * config.batch)     # we read permutations of the data, one after another
    rows = torch.cat([_permutation(N, config.seed, int(epoch))[position[position // N == epoch] % N] for epoch in (position // N).unique()])
    generator = torch.Generator().manual_seed(seeded(config.seed, 1, step))
    u = (torch.arange(config.batch) + torch.rand(config.batch, dtype=torch.float64, generator=generator)) / config.batch    # spread evenly over (0, 1)
    if config.times == "logit-normal":
        u = (1.2 * torch.special.ndtri(u)).sigmoid()            # sigmoid of N(0, 1.2²)
    t = (u * T).long().clamp(0, T - 1) + 1
    eps = torch.randn(config.batch, *shape, generator=generator)
    return Draw(rows, t, eps, *torch.rand(2, config.batch, generator=generator))


@lru_cache(maxsize=2)
def _permutation(N: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(N, generator=torch.Generator().manual_seed(seeded(seed, 0, epoch)))


def seeded(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1)[0])
