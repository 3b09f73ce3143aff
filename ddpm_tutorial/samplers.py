"""Two steps, DDPM's and DDIM's, and the one loop that walks them.

[1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. arXiv:2006.11239
[2] Song, Meng, Ermon. Denoising Diffusion Implicit Models. arXiv:2010.02502  (its α_t is our ᾱ_t)

A step goes from t to s, both named: s = t-1 is DDPM's chain, a sub-sequence is DDIM's, s > t is inversion.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .checks import a_schedule, described, integer, number
from .forward import Denoiser, alike, functions, q_posterior, x0_from_eps
from .schedules import Schedule, like

Noise = Callable[[int], Tensor]                                 # z (B, *D) = noise(t)


class State(NamedTuple):
    """Where a walk is.  x_0 is what the denoiser believes the data to be, seen from this very x_t."""

    t: int
    x_t: Tensor                                                 # (B, *D)
    x_0: Tensor                                                 # (B, *D)


def timesteps(T: int, steps: int | None = None) -> list[int]:
    """The times T = τ_S > … > τ_0 = 0 of a walk in S even steps (default T), for any 1 ≤ S ≤ T."""
    T = integer(T, "T")
    S = T if steps is None else integer(steps, "steps", most=T)
    return [(2 * i * T + S) // (2 * S) for i in range(S, -1, -1)]           # i·T/S rounded, in integers: floats would repeat or skip a time


def ddpm_step(schedule: Schedule, x_t: Tensor, eps: Tensor, t: int, s: int, z: Tensor | None = None, variance: str = "small") -> Tensor:
    """[1] Algorithm 2, lines 3-4:  x_s = mean of q(x_s | x_t, x̂_0) + σ z,  s < t.

    variance: "small" is σ² = β̃_t, "large" is σ² = β_t ([1] section 3.2); the last step, s = 0, has σ = 0.
    """
    if variance not in ("small", "large"):
        raise ValueError(f"unknown variance {variance!r}; choose small (β̃) or large (β)")
    t, s = integer(t, "t", 0), integer(s, "s", 0)
    x_0 = x0_from_eps(schedule, x_t, eps, t)
    mean, _ = q_posterior(schedule, x_t, x_0, t, s)
    if s == 0:
        return mean
    var = 1 - schedule.at(t) / schedule.at(s)                                   # β_t  when s = t-1
    if variance == "small":
        var = (1 - schedule.at(s)) / (1 - schedule.at(t)) * var                 # β̃_t
    return mean + like(var.sqrt(), x_t) * _given(z, x_t)


def ddim_step(schedule: Schedule, x_t: Tensor, eps: Tensor, t: int, s: int, z: Tensor | None = None, eta: float = 0.0) -> Tensor:
    """[2] eq. 12:  x_s = √ᾱ_s x̂_0 + √(1-ᾱ_s-σ²) ε + σ z  with  σ² = η² β̃  ([2] eq. 16).

    η = 0 draws nothing and may also go up (s > t), which is inversion; η = 1 is DDPM's "small" step.
    """
    t, s, eta = integer(t, "t", 0), integer(s, "s", 0), number(eta, "eta", 0, 1)
    if eta > 0 and s >= t:
        raise ValueError(f"a step with noise goes down: s = {s} must be below t = {t}, or eta must be 0")
    x_0 = x0_from_eps(schedule, x_t, eps, t)
    if eta == 0 or s == 0:
        return schedule.signal(s, x_t) * x_0 + schedule.noise(s, x_t) * eps
    alpha_bar_t, alpha_bar_s = schedule.at(t), schedule.at(s)
    fresh = eta**2 * (1 - alpha_bar_t / alpha_bar_s) / (1 - alpha_bar_t)    # the share of the noise in x_s that is drawn anew: σ² = fresh·(1-ᾱ_s)
    kept = ((1 - alpha_bar_s) * (1 - fresh)).sqrt()                         # = √(1-ᾱ_s-σ²); this form cannot round to a negative number
    sigma = ((1 - alpha_bar_s) * fresh).sqrt()
    return schedule.signal(s, x_t) * x_0 + like(kept, x_t) * eps + like(sigma, x_t) * _given(z, x_t)


def sample(denoiser: Denoiser, schedule: Schedule, x: Tensor, step: Callable = ddim_step, steps: int | None = None,
           times: Sequence[int] | None = None, noise: Noise | None = None) -> Iterator[State]:
    """Walk along the times and yield each State before it is left, and the last one at the end.

    x: where the walk starts, (B, *D), N(0, I) at t = T.  step: `ddpm_step`, `ddim_step`, or a `functools.partial` of either.
    times: a strictly monotone list within 0 … T, default `timesteps(T, steps)`.  noise(t) is asked once for each step t → s with t > s > 0.
    """
    functions(denoiser=denoiser, step=step, **({} if noise is None else {"noise": noise}))
    a_schedule(schedule)
    if steps is not None and times is not None:
        raise ValueError("give steps (evenly spaced) or times (your own list), not both")
    times = timesteps(schedule.T, steps) if times is None else [integer(t, "one of the times", 0, schedule.T) for t in times]
    moves = [s - t for t, s in pairwise(times)]
    if not moves or not (max(moves) < 0 or min(moves) > 0):
        raise ValueError(f"times must hold at least two numbers within 0 … T = {schedule.T}, all falling or all rising; given {times}")
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"x is {described(x)}; a walk starts from a tensor of floating-point numbers")
    if not x.is_cuda and not x.isfinite().all():                # looking at the values would make a GPU wait
        raise ValueError("x holds NaN or infinity; a walk starts from finite numbers")
    return _walk(denoiser, schedule, x, step, times, noise)


@torch.no_grad()
def _walk(denoiser, schedule, x, step, times, noise):
    for t, s in pairwise(times):
        eps = denoiser(x, max(t, 1))                            # no denoiser is trained at t = 0, where inversion begins
        yield State(t, x, x0_from_eps(schedule, x, eps, t))
        z = noise(t).to(x) if noise is not None and t > s > 0 else None
        x = step(schedule, x, eps, t, s, z)
    yield State(s, x, x if s == 0 else x0_from_eps(schedule, x, denoiser(x, s), s))


def invert(denoiser: Denoiser, schedule: Schedule, x_0: Tensor, steps: int | None = None) -> Iterator[State]:
    """DDIM inversion: the deterministic walk from the data up to x_T ([2] section 4.3, eq. 14 backwards)."""
    a_schedule(schedule)
    return sample(denoiser, schedule, x_0, ddim_step, times=timesteps(schedule.T, steps)[::-1])


def final(states: Iterable[State]) -> Tensor:
    """Walk to the end: the last x_t."""
    last = deque(states, maxlen=1)
    if not last:
        raise ValueError("there is no state left: an iterator of states can be walked once")
    return last[0].x_t


def seeded_noise(seed: int, indices: Sequence[int], shape: Sequence[int]) -> Noise:
    """noise(t) → the next z (len(indices), *shape), float32 on the CPU, whatever t is: make a new one for every walk.

    Image i draws from its own stream, keyed by (seed, i), so it comes out the same alone or in a batch of a thousand, on a CPU or
    a GPU.  (A torch CPU generator keeps 32 bits of its seed, so that two streams in 10,000 may coincide; numpy's Philox takes the pair.)
    """
    if not (isinstance(indices, Iterable) and isinstance(shape, Iterable)):
        raise TypeError(f"indices is {indices!r} and shape {shape!r}; they must be the numbers of the images, such as range(4), and the shape of one")
    seed, indices, shape = integer(seed, "seed", 0), [integer(index, "an index", 0) for index in indices], [integer(n, "a side of shape", 0) for n in shape]
    streams = [np.random.Generator(np.random.Philox(key=[seed, i])) for i in indices]

    def noise(t: int) -> Tensor:
        z = np.empty((len(streams), *shape), dtype=np.float32)
        for row, stream in zip(z, streams):
            stream.standard_normal(dtype=np.float32, out=row)
        return torch.from_numpy(z)

    return noise


def slerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """[2] section 5.3, appendix D.5: from a (weight 0) to b (weight 1) on an arc, which keeps the length of N(0, I) noise.

    a, b (*D); weight (n,)  →  (n, *D).
    """
    alike(a=a, b=b)
    if not isinstance(weight, Tensor) or weight.ndim != 1:
        raise TypeError(f"weight is {described(weight)}; it must be a tensor (n,) of numbers, one for each point on the way")
    theta = torch.acos((torch.dot(a.flatten(), b.flatten()) / (a.norm() * b.norm())).clamp(-1, 1))
    w = weight.to(a).view(-1, *[1] * a.ndim)
    if theta.sin() < 1e-4:                                      # parallel: the arc is a straight line
        return torch.lerp(a.expand(len(w), *a.shape), b.expand(len(w), *b.shape), w)
    return (torch.sin((1 - w) * theta) * a + torch.sin(w * theta) * b) / theta.sin()


def _given(z: Tensor | None, x_t: Tensor) -> Tensor:
    if z is None:
        raise ValueError("this step adds noise: pass z ~ N(0, I) shaped like x_t, or give `sample` a noise function such as seeded_noise(…)")
    alike(z=z, x_t=x_t)
    return z
