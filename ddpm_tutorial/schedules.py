"""The noise schedule: how much of the data is left at time t.

[1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. arXiv:2006.11239
[2] Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. arXiv:2102.09672
[3] Jabri, Fleet, Chen. Scalable Adaptive Computation for Iterative Generation. arXiv:2212.11972
[4] Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. arXiv:2112.10752

Conventions of the whole package (docs/notation.md):
  t = 0 is the data and t = 1 … T are noisy images, as in the papers; so every table has T+1 entries and ᾱ_0 = 1 is one of them;
  tables live on the CPU in float64, every coefficient is formed there and rounded once, by `like`.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import described, integer, number

BETA_MAX = 0.999    # [2], section 3.2: β_t = 1 would be a division by √ᾱ_t = 0
SIGNAL_MAX = 0.05   # sampling starts from N(0, I); with more signal than this left at T it starts from the wrong place


@dataclass(frozen=True, eq=False)
class Schedule:
    """A diffusion is one decreasing sequence  1 = ᾱ_0 > ᾱ_1 > … > ᾱ_T ≈ 0."""

    alpha_bar: Tensor                                           # (T+1,) float64 on the CPU; index t is the paper's t

    def __post_init__(self):
        a = self.alpha_bar
        if not isinstance(a, Tensor) or a.ndim != 1 or len(a) < 2 or a.dtype != torch.float64 or a.device.type != "cpu":
            raise TypeError(f"alpha_bar is {described(a)}; it must be a float64 tensor on the CPU with T+1 ≥ 2 entries: ᾱ_0, ᾱ_1, …, ᾱ_T")
        if a[0] != 1:
            raise ValueError(f"alpha_bar[0] is {a[0]:.6g}; it must be exactly 1, because t = 0 is the data. Is the leading 1 missing?")
        if not (a.isfinite().all() and (a.diff() < 0).all() and a[-1] > 0):
            raise ValueError(f"alpha_bar must be finite, strictly decreasing and positive, 1 = ᾱ_0 > ᾱ_1 > … > ᾱ_T > 0; given {a}")
        if (left := a[-1].sqrt().item()) > SIGNAL_MAX:
            warnings.warn(f"this schedule ends with √ᾱ_T = {left:.3f} of the signal left (more than {SIGNAL_MAX}), but sampling starts from "
                          f"pure noise: samples will be off. Use larger β, or rescale them by 1000/T as `linear` does.", stacklevel=3)

    @property
    def T(self) -> int:
        """Number of steps of the chain."""
        return len(self.alpha_bar) - 1

    @property
    def beta(self) -> Tensor:
        """β_t = 1 - ᾱ_t/ᾱ_{t-1}, variance of the noise added between t-1 and t; (T+1,) with β_0 = 0."""
        return torch.cat([self.alpha_bar.new_zeros(1), 1 - self.alpha_bar[1:] / self.alpha_bar[:-1]])

    @property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio ᾱ_t / (1-ᾱ_t), (T+1,); infinite at t = 0.  In dB: 10·log10(snr)."""
        return self.alpha_bar / (1 - self.alpha_bar)

    @property
    def log_snr(self) -> Tensor:
        """λ_t = log(ᾱ_t / (1-ᾱ_t)), (T+1,); +∞ at t = 0."""
        return self.snr.log()

    def at(self, t: int | Tensor) -> Tensor:
        """ᾱ_t in float64: () for an int, (B,) for a (B,) integer tensor.  0 ≤ t ≤ T, else ValueError (on a CUDA tensor unchecked)."""
        if not isinstance(t, Tensor):
            return self.alpha_bar[integer(t, "t", 0, self.T)]
        if t.is_floating_point() or t.is_complex() or t.dtype == torch.bool or t.ndim > 1:
            raise TypeError(f"t is a {t.dtype} tensor of shape {tuple(t.shape)}; it must hold integers, of shape () or (B,)")
        if t.is_cuda:                                           # unchecked: looking at the values would make the GPU wait
            return self.alpha_bar.to(t.device, non_blocking=True)[t.long()]
        t = t.cpu()
        if t.numel() and not (0 <= t.min() and t.max() <= self.T):
            raise ValueError(f"t is {t.tolist()}; it must lie in 0 … T = {self.T}, where 0 is the data")
        return self.alpha_bar[t.long()]

    def signal(self, t: int | Tensor, x: Tensor) -> Tensor:
        """√ᾱ_t, what multiplies x_0 in x_t; shaped and typed to multiply x."""
        return like(self.at(t).sqrt(), x)

    def noise(self, t: int | Tensor, x: Tensor) -> Tensor:
        """√(1-ᾱ_t), what multiplies ε in x_t; shaped and typed to multiply x."""
        return like((1 - self.at(t)).sqrt(), x)


def like(c: Tensor, x: Tensor) -> Tensor:
    """Round float64 coefficients once to x's type, and shape them to multiply x:   () or (B,)  →  (1 or B, 1, …, 1)."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"x is {described(x)}; it must be a tensor of floating-point numbers (rounded to integers, the coefficients would be 0 or 1)")
    if c.ndim == 1 and len(c) not in (1, len(x)):
        raise ValueError(f"there are {len(c)} times for a batch of {len(x)}: give one int, or a tensor with one time per image")
    c = c.to(x.dtype).to(x.device, non_blocking=x.is_cuda)      # type first: Apple GPUs have no float64; and nothing makes a CUDA GPU wait
    return c.view(-1, *[1] * (x.ndim - 1))


def from_betas(beta: Tensor) -> Schedule:
    """[1] above eq. 4:  ᾱ_t = ∏_{s≤t} (1 - β_s), with ᾱ_0 = 1 in front.   beta (T,): β_1 … β_T, each in (0, 1)."""
    if isinstance(beta, str) or not hasattr(beta, "__len__"):
        raise TypeError(f"beta is {beta!r}; it must be a list β_1 … β_T of numbers")
    beta = torch.as_tensor(beta, dtype=torch.float64, device="cpu")
    if beta.ndim != 1 or len(beta) == 0 or not ((0 < beta) & (beta < 1)).all():
        raise ValueError(f"beta must be a list β_1 … β_T of numbers strictly between 0 and 1; given {beta}")
    return Schedule(torch.cat([beta.new_ones(1), (1 - beta).cumprod(0)]))


def linear(T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> Schedule:
    """[1] section 4:  β_t linear from 1e-4 to 0.02 at T = 1000; other T rescale β by 1000/T, so that every T ends in noise."""
    beta_1, beta_T = number(beta_1, "beta_1", 0), number(beta_T, "beta_T", 0)
    return from_betas((_line(beta_1, beta_T, T) * (1000 / T)).clamp(max=BETA_MAX))


def quadratic(T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> Schedule:
    """√β_t linear, the "scaled linear" schedule of the code of [4]; β rescaled by 1000/T as in `linear`."""
    beta_1, beta_T = number(beta_1, "beta_1", 0), number(beta_T, "beta_T", 0)
    return from_betas((_line(beta_1**0.5, beta_T**0.5, T) ** 2 * (1000 / T)).clamp(max=BETA_MAX))


def cosine(T: int = 1000, s: float = 0.008) -> Schedule:
    """[2] eq. 17:  ᾱ_t = f(t)/f(0),  f(t) = cos²((t/T + s)/(1 + s) · π/2),  with β_t ≤ 0.999."""
    s = number(s, "s", 0)
    return _from_curve((_times(T) + s).div(1 + s).mul(math.pi / 2).cos() ** 2)


def sigmoid(T: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Schedule:
    """[3] "sigmoid schedule":  ᾱ_t falls from 1 to 0 along sigmoid(-(start + (end-start) t/T)/τ),  with β_t ≤ 0.999."""
    if not (number(start, "start") < number(end, "end") and number(tau, "tau") > 0):
        raise ValueError(f"start is {start}, end {end} and tau {tau}; they must be start < end and tau > 0")
    curve = torch.sigmoid(-(start + (end - start) * _times(T)) / tau)
    return _from_curve(curve - curve[-1])


SCHEDULES: dict[str, Callable[[int], Schedule]] = {"linear": linear, "cosine": cosine, "sigmoid": sigmoid, "quadratic": quadratic}


def by_name(name: str, T: int = 1000) -> Schedule:
    """The schedule called linear, cosine, sigmoid or quadratic, with T steps."""
    if not isinstance(name, str) or name not in SCHEDULES:
        raise ValueError(f"unknown schedule {name!r}; choose one of {', '.join(SCHEDULES)}")
    return SCHEDULES[name](T)


def _times(T: int) -> Tensor:
    return torch.arange(integer(T, "T") + 1, dtype=torch.float64) / T               # 0, 1/T, …, 1


def _line(first: float, last: float, T: int) -> Tensor:
    return torch.linspace(last, first, integer(T, "T"), dtype=torch.float64).flip(0)    # from the back, so that T = 1 is the noisy end


def _from_curve(curve: Tensor) -> Schedule:
    """ᾱ_t = curve_t / curve_0, up to the cap on β: ᾱ is built again from the capped β, so that the two never disagree."""
    return from_betas((1 - curve[1:] / curve[:-1]).clamp(max=BETA_MAX))
