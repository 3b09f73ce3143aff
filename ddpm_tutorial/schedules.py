"""The noise schedule: how much of the data is left at time t.

Diffusion destroys an image a little at a time: at every step some of the signal is taken away, and
as much noise is mixed in, so that data of
variance 1 would keep it.  After t steps the share ᾱ_t ("alpha bar")
of the signal's power is left, and 1-ᾱ_t of the power is noise:

    x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε,         1 = ᾱ_0  >  ᾱ_1  >  …  >  ᾱ_T ≈ 0
                                         data                    noise

That falling sequence is all that a diffusion is.  "Linear" and "cosine" are two curves by which it
falls, β_t is how fast it falls at t, the signal-to-noise ratio is another way to write it;
forward.py, samplers.py and likelihood.py ask for ᾱ, or for one of these.

Conventions of the whole package (docs/notation.md):
  t = 0 is the data and t = 1 … T are noisy images, as in the papers; so every table has T+1 entries, and ᾱ_0 = 1 is one of them and no
  special case.  (Most code counts the noisy images from 0 and makes up a "previous alpha of the first step" by hand; many got it wrong once.)
  Tables live on the CPU in float64; every coefficient is formed there and rounded once, by `like`.

[1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. arXiv:2006.11239
[2] Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. arXiv:2102.09672
[3] Jabri, Fleet, Chen. Scalable Adaptive Computation for Iterative Generation. arXiv:2212.11972
[4] Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. arXiv:2112.10752
[5] Lipman et al. Flow Matching for Generative Modeling. arXiv:2210.02747
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import checks
from .checks import checked

BETA_MAX = 0.999    # [2], section 3.2: β_t = 1 would be a division by √ᾱ_t = 0


@dataclass(frozen=True, eq=False)
class Schedule:
    """A diffusion is one decreasing sequence  1 = ᾱ_0 > ᾱ_1 > … > ᾱ_T ≈ 0."""

    alpha_bar: Tensor                                           # (T+1,) float64 on the CPU; index t is the paper's t

    def __post_init__(self):
        checks.sequence(self.alpha_bar)

    @property
    def T(self) -> int:
        """Number of steps of the chain."""
        return len(self.alpha_bar) - 1

    @property
    def beta(self) -> Tensor:
        """β_t = 1 - ᾱ_t/ᾱ_{t-1}, variance of the noise added between t-1 and t; (T+1,) with β_0 = 0, since nothing comes before the data."""
        return torch.cat([self.alpha_bar.new_zeros(1), 1 - self.alpha_bar[1:] / self.alpha_bar[:-1]])

    @property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio ᾱ_t / (1-ᾱ_t), (T+1,); infinite at t = 0.  In decibels: 10·log10(snr).

        It decides what can still be seen in x_t, so two schedules are compared by their snr and not
        by their t.
        """
        return self.alpha_bar / (1 - self.alpha_bar)

    @property
    def log_snr(self) -> Tensor:
        """log(ᾱ_t / (1-ᾱ_t)), (T+1,); +∞ at t = 0.  Half of it is the λ of DPM-Solver."""
        return self.snr.log()

    def at(self, t: int | Tensor) -> Tensor:
        """ᾱ_t in float64: () for an int, (B,) for a (B,) integer tensor.  0 ≤ t ≤ T, else ValueError (on a CUDA tensor unchecked)."""
        checks.within_chain(t, self.T)                          # or -1 would count from the noisy end, silently
        if not isinstance(t, Tensor):
            return self.alpha_bar[t]
        if t.is_cuda:                                           # the table goes to the times: bringing them here would make the GPU wait
            return self.alpha_bar.to(t.device, non_blocking=True)[t.long()]
        return self.alpha_bar[t.cpu().long()]                   # an Apple GPU has no float64, so there the times come to the table

    def signal(self, t: int | Tensor, x: Tensor) -> Tensor:
        """√ᾱ_t, what multiplies x_0 in x_t; shaped and typed to multiply x."""
        return like(self.at(t).sqrt(), x)

    def noise(self, t: int | Tensor, x: Tensor) -> Tensor:
        """√(1-ᾱ_t), what multiplies ε in x_t; shaped and typed to multiply x.

        Formed in float64: in float32, 1 - ᾱ_1 = 1 - 0.9999 has lost four of its seven digits, and
        the coefficient is off by 1e-4.
        """
        return like((1 - self.at(t)).sqrt(), x)


def like(c: Tensor, x: Tensor) -> Tensor:
    """Round float64 coefficients once to x's type, and shape them to multiply x:   () or (B,)  →  (1 or B, 1, …, 1).

    Without the trailing ones a (B,) would multiply the *last* axis: where B happens to be the
    image's width, nothing complains, and every column of pixels gets a noise level of its own.
    """
    checks.fits(c, x)
    c = c.to(x.dtype).to(x.device, non_blocking=x.is_cuda)      # type first: Apple GPUs have no float64; and nothing makes a CUDA GPU wait
    return c.view(-1, *[1] * (x.ndim - 1))


# The curves.  Each of them is a way to fall from 1 to (almost) 0 in T steps.

@checked
def from_betas(beta: Tensor) -> Schedule:
    """[1] above eq. 4:  ᾱ_t = ∏_{s≤t} (1 - β_s), with ᾱ_0 = 1 in front.   beta (T,): β_1 … β_T, each in (0, 1).

    Where it comes from: a step multiplies the signal by √(1-β), so its power by 1-β, and t steps by
    the product.  The noise of all t steps adds up to the rest, 1-ᾱ_t, because variances of
    independent noises add and every step keeps a total of 1 at 1.  The product ends at t: ∏ up to
    T, as two public courses print it, would be one number for all times.
    """
    beta = torch.as_tensor(beta, dtype=torch.float64, device="cpu")
    return Schedule(torch.cat([beta.new_ones(1), (1 - beta).cumprod(0)]))


@checked
def linear(T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> Schedule:
    """[1] section 4:  β_t linear from 1e-4 to 0.02 at T = 1000; other T rescale β by 1000/T.

    The ends were chosen so that each step is small against data in [-1, 1], and yet √ᾱ_T = 0.006.
    They go with T = 1000: the same β in 50 steps leave 78 % of the signal's amplitude at the end,
    while sampling starts from pure noise.  Several public tutorials do that.
    """
    return from_betas((_line(beta_1, beta_T, T) * (1000 / T)).clamp(max=BETA_MAX))


@checked
def quadratic(T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> Schedule:
    """√β_t linear: "quad" in the code of [1], the schedule of [4], "scaled_linear" in diffusers; β rescaled by 1000/T as in `linear`.

    The same ends as `linear`, and less noise in between.
    """
    return from_betas((_line(beta_1**0.5, beta_T**0.5, T) ** 2 * (1000 / T)).clamp(max=BETA_MAX))


@checked
def cosine(T: int = 1000, s: float = 0.008) -> Schedule:
    """[2] eq. 17:  ᾱ_t = f(t)/f(0),  f(t) = cos²((t/T + s)/(1 + s) · π/2),  with β_t ≤ 0.999.

    Under `linear` the last fifth of the chain is hardly more than noise (at t = 800 the amplitude
    left is 0.04), so those steps teach little.  This curve was drawn to fall nearly straight in the
    middle, and to be flat at both ends.  The offset s keeps the first steps from being much finer
    than a grey level.  Two slips are common: the square forgotten, and s outside the bracket; both
    still look like a schedule.
    """
    return _from_curve((_times(T) + s).div(1 + s).mul(math.pi / 2).cos() ** 2)


@checked
def sigmoid(T: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Schedule:
    """[3] "sigmoid schedule":  ᾱ_t falls from 1 to 0 along sigmoid(-(start + (end-start) t/T)/τ),  with β_t ≤ 0.999.

    Cosine's shape with handles: a small τ falls steeply in the middle.  Large images want more
    noise, since neighbouring pixels tell of each other.
    """
    curve = torch.sigmoid(-(start + (end - start) * _times(T)) / tau)
    return _from_curve(curve - curve[-1])


@checked
def flow(T: int = 1000) -> Schedule:
    """[5] section 4.1 as a schedule: the straight path  (1-u) x_0 + u ε,  u = t/T (there time runs the other way), scaled to variance 1:

        ᾱ_t = (1-u)² / ((1-u)² + u²),   so that  SNR_t = ((1-u)/u)²,   with β_t ≤ 0.999.

    A path is known by its signal-to-noise ratio; that this one is not variance-preserving is only a
    factor in front of x.  So a "flow" needs no code of its own: this curve, `predict="velocity"`,
    and DDIM, which under it is Euler's method on the flow's equation.
    """
    u = _times(T)
    return _from_curve((1 - u) ** 2 / ((1 - u) ** 2 + u**2))


SCHEDULES: dict[str, Callable[[int], Schedule]] = {"linear": linear, "cosine": cosine, "sigmoid": sigmoid, "quadratic": quadratic, "flow": flow}


def by_name(name: str, T: int = 1000) -> Schedule:
    """The schedule called linear, cosine, sigmoid, quadratic or flow, with T steps."""
    checks.choice(name, "schedule", SCHEDULES)
    return SCHEDULES[name](T)


def _times(T: int) -> Tensor:
    return torch.arange(T + 1, dtype=torch.float64) / T                             # 0, 1/T, …, 1: T + 1 times, or ᾱ_0 = 1 would be lost


def _line(first: float, last: float, T: int) -> Tensor:
    return torch.linspace(last, first, T, dtype=torch.float64).flip(0)              # from the back, so that T = 1 is the noisy end


def _from_curve(curve: Tensor) -> Schedule:
    """ᾱ_t = curve_t / curve_0, up to the cap on β: ᾱ is built again from the capped β, so that the two never disagree.

    A curve that reaches 0 has β_T = 1: no signal at all, and x̂_0 = (x_T - ε)/0.  (A cap on β alone
    leaves ᾱ_T = 0 in the table, and NaN.)
    """
    return from_betas((1 - curve[1:] / curve[:-1]).clamp(max=BETA_MAX))
