"""The variational bound, term by term: how many bits the model needs to write an image down.

A model that gives the image x_0 the probability p_θ(x_0) can write it down in -log p_θ(x_0) nats (÷
ln 2: bits).  That number cannot be had: it is an integral over all walks that end in x_0.  But it
has an upper bound that can, and training on the bound is where DDPM's loss comes from:

    -log p(x_0)  ≤  E_q[ L_T  +  Σ_{t>1} L_{t-1}  +  L_0 ]                                                              [1] eq. 5

    L_T     = KL( q(x_T|x_0) ‖ N(0, I) )                         nothing to learn; ≈ 0 if the schedule ends in noise
    L_{t-1} = KL( q(x_{t-1}|x_t, x_0) ‖ p_θ(x_{t-1}|x_t) )       two Gaussians: the true posterior, and the model's guess of it
    L_0     = -log p_θ(x_0|x_1)                                  the decoder writes the last step down

E_q is the mean over the noisy images x_1 … x_T of this x_0.

Read as a message: somebody who knows x_0 and somebody who knows the model walk the chain down
together.  At every step the first tells the second what the model did not guess, which costs
L_{t-1} (KL is the price of a wrong guess); at the end the exact grey levels, which costs L_0.

ddpm.py's loss is these terms with the weights of eq. 12 left out; here they are with their weights.
Notebook 11 walks through this file.

[1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. arXiv:2006.11239, sections 2 and 3.1 to 3.3
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from . import checks
from .checks import checked
from .forward import Denoiser, q_posterior, q_sample, x0_from_eps
from .samplers import seeded_noise
from .schedules import Schedule, like


@checked
def prior(schedule: Schedule, x_0: Tensor) -> Tensor:
    """L_T of each image, in nats.   (B,)

    What is still to be seen of x_0 at T, told to somebody who expects pure noise.  A schedule that
    does not end in noise pays for it here, and again in every sample.
    """
    mean, var = schedule.signal(schedule.T, x_0) * x_0, schedule.noise(schedule.T, x_0).square()        # of q(x_T|x_0)
    return _kl(mean, var, torch.zeros_like(x_0), torch.ones_like(var)).flatten(1).sum(1)


@checked
def terms(denoiser: Denoiser, schedule: Schedule, x_0: Tensor, eps: Tensor, t: int, variance: str = "large", decoder: str = "gaussian",
          levels: int = 256) -> Tensor:
    """L_{t-1} of each image, in nats, (B,); for t = 1 that is L_0.  The caller's ε makes x_t, so its mean over ε is the bound's term.

    The model's guess of the posterior is the posterior with x̂_0 in place of x_0; where both have
    the same variance, their KL is the squared distance of the means over twice the variance ([1]
    eq. 8).

    variance: of p_θ, as `ddpm_step` has it: "small" β̃_t, with β̃_2 for the decoder, where β̃_1 =
    0; or "large" β_t.  On N(0, I) data, with everything exact, "small" gives the looser bound,
    since the true step back is wider than β̃.

    decoder: "gaussian", a density, for data that are real numbers; or "discretised" [1] eq. 13, a
    probability, for images of `levels` grey levels, spread evenly over [-1, 1] (256; the digits
    have 17).  A density of grey levels would be meaningless: it grows without limit as the model
    gets surer.
    """
    x_t = q_sample(schedule, x_0, eps, t)                                                               # (B, *D)
    guess = x0_from_eps(schedule, x_t, denoiser(x_t, t), t)                                             # x̂_0          (B, *D)
    mean, _ = q_posterior(schedule, x_t, guess, t, t - 1)                                               # μ_θ          (B, *D)
    small, s = variance == "small" and schedule.T > 1, max(t, 2)                # a chain of one step has no β̃ but 0
    var = q_posterior(schedule, x_t, guess, s, s - 1)[1] if small else like(schedule.beta[t], x_0)      # σ_t²         (1, 1, …)
    if t > 1:
        each = _kl(*q_posterior(schedule, x_t, x_0, t, t - 1), mean, var)                               # KL(q ‖ p_θ)  (B, *D)
    elif decoder == "gaussian":
        each = 0.5 * ((x_0 - mean).square() / var + var.log() + math.log(2 * math.pi))                  # -log N(x_0; μ_θ, σ_1²)
    else:
        each = -_log_bin(x_0, mean, var.sqrt(), levels)                                                 # -log P(level of x_0)
    return each.flatten(1).sum(1)


class Bound(NamedTuple):
    """The bound of each image in bits per dimension."""

    L_T: Tensor                                                 # (B,)
    L: Tensor                                                   # (B, T): L_{t-1} at index t-1, so L_0 comes first

    @property
    def total(self) -> Tensor:
        """(B,)"""
        return self.L_T + self.L.sum(1)


@checked
@torch.no_grad()
def bits_per_dim(denoiser: Denoiser, schedule: Schedule, x_0: Tensor, variance: str = "large", decoder: str = "discretised", levels: int = 256,
                 seed: int = 0) -> Bound:
    """The whole bound of images x_0 (B, *D), one ε per image and t: T calls of the denoiser.

    Per dimension, so that images of all sizes compare; in bits, so that 8 is what a pixel of 256
    levels costs without any model.  Every term counts:  L_simple gives the small t, where most of
    the bits are, far less weight than the bound does.
    """
    checks.batch_for_bits(x_0, decoder)
    # One ε for each image and t: each term is an estimate with its own luck, and their mean over images is what to trust.
    noise, bits = seeded_noise(seed, range(len(x_0)), x_0.shape[1:]), 1 / (math.log(2) * x_0[0].numel())
    L = [terms(denoiser, schedule, x_0, noise(t).to(x_0), t, variance, decoder, levels) for t in range(1, schedule.T + 1)]
    return Bound(prior(schedule, x_0) * bits, torch.stack(L, dim=1) * bits)


def _kl(mean_q: Tensor, var_q: Tensor, mean_p: Tensor, var_p: Tensor) -> Tensor:
    """KL( N(mean_q, var_q) ‖ N(mean_p, var_p) ), each dimension by itself.

    E_q[log q - log p], and E_q[(x - mean_p)²] = var_q + (mean_q - mean_p)².
    """
    return 0.5 * ((var_p / var_q).log() + (var_q + (mean_q - mean_p).square()) / var_p - 1)


def _log_bin(x_0: Tensor, mean: Tensor, std: Tensor, levels: int) -> Tensor:
    """log of the normal's mass within half a level of x_0; the bins of -1 and 1 reach to infinity, so that all of them sum to 1.

    A difference of two Φ; far out both are 1 to the last digit, and the difference 0.  So it is
    taken of their logarithms, on the side where they are small.
    """
    # Where the bin is: half a level to either side, of levels spread evenly over [-1, 1].
    half = 1 / (levels - 1)                                                                             # half a level, of a range of 2
    above = torch.where(x_0 > 1 - half, torch.inf, (x_0 + half - mean) / std)
    below = torch.where(x_0 < -1 + half, -torch.inf, (x_0 - half - mean) / std)
    flip = below > 0                                                                                    # right tail: mirror it to the left
    above, below = torch.where(flip, -below, above), torch.where(flip, -above, below)
    log_above, log_below = torch.special.log_ndtr(above), torch.special.log_ndtr(below)
    return log_above + torch.log1p(-(log_below - log_above).exp())
