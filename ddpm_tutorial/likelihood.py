"""The variational bound, term by term: how many bits the model needs to write an image down.

[1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. arXiv:2006.11239, sections 2 and 3.3

    -log p(x_0)  ≤  L_T  +  Σ_{t>1} L_{t-1}  +  L_0                                                                     eq. 5

    L_T     = KL( q(x_T|x_0) ‖ N(0, I) )                         nothing to learn; ≈ 0 if the schedule ends in noise
    L_{t-1} = KL( q(x_{t-1}|x_t, x_0) ‖ p_θ(x_{t-1}|x_t) )       two Gaussians: the true posterior, and the model's guess of it
    L_0     = -log p_θ(x_0|x_1)                                  the decoder writes the last step down
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import a_schedule, described, integer
from .forward import Denoiser, functions, q_posterior, q_sample, x0_from_eps
from .samplers import seeded_noise
from .schedules import Schedule, like


def prior(schedule: Schedule, x_0: Tensor) -> Tensor:
    """L_T of each image, in nats.   (B,)"""
    a_schedule(schedule)
    mean, var = schedule.signal(schedule.T, x_0) * x_0, schedule.noise(schedule.T, x_0).square()
    return _kl(mean, var, torch.zeros_like(x_0), torch.ones_like(var)).flatten(1).sum(1)


def terms(denoiser: Denoiser, schedule: Schedule, x_0: Tensor, eps: Tensor, t: int, variance: str = "large", decoder: str = "gaussian",
          levels: int = 256) -> Tensor:
    """L_{t-1} of each image, in nats, (B,); for t = 1 that is L_0.  The caller's ε makes x_t, so its mean over ε is the bound's term.

    variance: of p_θ, as `ddpm_step` has it: "small" β̃_t, with β̃_2 for the decoder, where β̃_1 = 0; or "large" β_t.
    decoder: "gaussian", a density, for data that are real numbers; or "discretised" [1] eq. 13, a probability, for images of `levels` grey
    levels, spread evenly over [-1, 1] (256; the digits have 17).
    """
    functions(denoiser=denoiser)
    a_schedule(schedule)
    integer(t, "t", 1, schedule.T)
    if variance not in ("small", "large") or decoder not in ("gaussian", "discretised"):
        raise ValueError(f"variance is {variance!r} and decoder {decoder!r}; choose small or large, and gaussian or discretised")
    x_t = q_sample(schedule, x_0, eps, t)
    guess = x0_from_eps(schedule, x_t, denoiser(x_t, t), t)
    mean, _ = q_posterior(schedule, x_t, guess, t, t - 1)
    small, s = variance == "small" and schedule.T > 1, max(t, 2)                # a chain of one step has no β̃ but 0
    var = q_posterior(schedule, x_t, guess, s, s - 1)[1] if small else like(schedule.beta[t], x_0)
    if t > 1:
        each = _kl(*q_posterior(schedule, x_t, x_0, t, t - 1), mean, var)
    elif decoder == "gaussian":
        each = 0.5 * ((x_0 - mean).square() / var + var.log() + math.log(2 * math.pi))
    else:
        each = -_log_bin(x_0, mean, var.sqrt(), integer(levels, "levels", 2))
    return each.flatten(1).sum(1)


class Bound(NamedTuple):
    """The bound of each image in bits per dimension."""

    L_T: Tensor                                                 # (B,)
    L: Tensor                                                   # (B, T): L_{t-1} at index t-1, so L_0 comes first

    @property
    def total(self) -> Tensor:
        """(B,)"""
        return self.L_T + self.L.sum(1)


@torch.no_grad()
def bits_per_dim(denoiser: Denoiser, schedule: Schedule, x_0: Tensor, variance: str = "large", decoder: str = "discretised", levels: int = 256,
                 seed: int = 0) -> Bound:
    """The whole bound of images x_0 (B, *D), one ε per image and t: T calls of the denoiser."""
    if not isinstance(x_0, Tensor) or not x_0.numel() or not x_0.is_floating_point():
        raise TypeError(f"x_0 is {described(x_0)}; it must be a tensor of floating-point numbers (B, *D) with B ≥ 1 (images: see data.normalise)")
    if not x_0.is_cuda and not (x_0.isfinite().all() and (decoder != "discretised" or x_0.abs().max() <= 1)):
        raise ValueError(f"x_0 lies in {x_0.min():.3g} … {x_0.max():.3g}; it must be finite, and within [-1, 1] for the discretised decoder")
    noise, bits = seeded_noise(seed, range(len(x_0)), x_0.shape[1:]), 1 / (math.log(2) * x_0[0].numel())
    L = [terms(denoiser, schedule, x_0, noise(t).to(x_0), t, variance, decoder, levels) for t in range(1, schedule.T + 1)]
    return Bound(prior(schedule, x_0) * bits, torch.stack(L, dim=1) * bits)


def _kl(mean_q: Tensor, var_q: Tensor, mean_p: Tensor, var_p: Tensor) -> Tensor:
    """KL( N(mean_q, var_q) ‖ N(mean_p, var_p) ), each dimension by itself."""
    return 0.5 * ((var_p / var_q).log() + (var_q + (mean_q - mean_p).square()) / var_p - 1)


def _log_bin(x_0: Tensor, mean: Tensor, std: Tensor, levels: int) -> Tensor:
    """log of the normal's mass within half a level of x_0; the bins of -1 and 1 reach to infinity."""
    half = 1 / (levels - 1)
    above = torch.where(x_0 > 1 - half, torch.inf, (x_0 + half - mean) / std)
    below = torch.where(x_0 < -1 + half, -torch.inf, (x_0 - half - mean) / std)
    flip = below > 0                                            # in the right tail both Φ are 1 - tiny: mirror it, where they are tiny
    above, below = torch.where(flip, -below, above), torch.where(flip, -above, below)
    log_above, log_below = torch.special.log_ndtr(above), torch.special.log_ndtr(below)
    return log_above + torch.log1p(-(log_below - log_above).exp())
