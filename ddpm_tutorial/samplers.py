"""Sampling: the way back from noise to data, as steps and one loop that walks them.

    x_T ~ N(0, I)  ──►  x_{τ_{S-1}}  ──►  …  ──►  x_{τ_1}  ──►  x_0        T = τ_S > … > τ_1 > τ_0 = 0

Standing at x_t, ask the denoiser for the noise in it, ε̂; then you also have its idea of the data,
x̂_0.  A *step* uses the two to go from t to some s, both named:

    ddpm_step        draw from the true posterior q(x_s | x_t, x̂_0): back towards x̂_0, plus fresh noise        (Algorithm 2 of [1])
    ddim_step        put x̂_0 and the very same ε̂ together again, with the weights of time s                     (eq. 12 of [2])
    dpm_solver_2m    DDIM's step with a better x̂_0: the line through this one and the last one, read halfway     ([3])

s = t-1 is DDPM's chain, a sub-sequence is DDIM's short walk, s > t is inversion.  Nobody computes a
"previous timestep" from a stride: that arithmetic is right only where S divides T, and is the
best-known bug of public samplers.  A step is a function; so is a denoiser, so guided and clipped
models walk like any other.  ddpm.py calls `sample` for people in a hurry.

[1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. arXiv:2006.11239
[2] Song, Meng, Ermon. Denoising Diffusion Implicit Models. arXiv:2010.02502  (its α_t is our ᾱ_t)
[3] Lu et al. DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models. arXiv:2211.01095
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import checks
from .checks import checked
from .forward import Denoiser, eps_from_x0, q_posterior, x0_from_eps
from .schedules import Schedule, like

Noise = Callable[[int], Tensor]                                 # z (B, *D) = noise(t)


class State(NamedTuple):
    """Where a walk is.  x_0 is what the denoiser believes the data to be, seen from this very x_t."""

    t: int                                                      # the time of x_t
    x_t: Tensor                                                 # (B, *D), the noisy batch
    x_0: Tensor                                                 # (B, *D), x̂_0


# At which times to stop.

@checked
def timesteps(T: int, steps: int | None = None) -> list[int]:
    """The times T = τ_S > … > τ_0 = 0 of a walk in S even steps (default T), for any 1 ≤ S ≤ T.

    τ_i is i·T/S rounded, in integers: a float stride, truncated or summed up, can miss T or add a
    time.  It begins at T, where x_T was drawn, and ends at 0, the data.  Lists that begin below T,
    or end at 1, are common, and cost quality that no number of steps brings back.
    """
    S = steps or T                                                                              # S + 1 times for S steps
    return [(2 * i * T + S) // (2 * S) for i in range(S, -1, -1)]


@checked
def timesteps_in_log_snr(schedule: Schedule, steps: int | None = None, last: float = 8.0) -> list[int]:
    """The times T = τ_S > … > τ_0 = 0 of a walk in S steps, evenly spaced in log SNR instead of in t, for any 1 ≤ S ≤ T.

    log SNR is how far denoising has come, whatever the schedule: evenly spaced in it, a walk visits
    the same noise levels under every schedule, and the second-order step finds its drift straight.
    But it goes to +∞ at the data and far down at the noise, and beyond ±8 there is nothing to do: 2
    % of the amplitude is signal there, or noise.  So the even part lies within, T stands before it
    and 0 behind.  A time that is taken already moves one down.

    last: where the even part ends; from there to the data it is one step.  In 10 calls of the 28×28
    digits last = 4 (13 % of the amplitude is noise) is better, of the 8×8 ones it is not
    (benchmarks/calls.md).  A likely reason: neighbouring pixels tell the same, so a larger image is
    decided among more noise, and less is left to do behind 4.
    """
    T, S = schedule.T, steps or schedule.T
    log_snr = schedule.log_snr[1:]                                                              # at t = 1 … T, falling        (T,)
    at_T, at_1 = log_snr[[-1, 0]].clamp(-8, last).tolist()
    wanted = torch.linspace(at_T, at_1, S, dtype=torch.float64)[1:, None]                       # rising: from noise to data   (S-1, 1)
    times = [T]
    for i, t in enumerate((log_snr - wanted).abs().argmin(1) + 1, start=1):                     # the nearest time of each
        times.append(max(min(int(t), times[-1] - 1), S - i))                                    # falling, and S-i more fit below
    return [*times, 0]


# Steps.

@checked
def ddpm_step(schedule: Schedule, x_t: Tensor, eps: Tensor, t: int, s: int, z: Tensor | None = None, variance: str = "small") -> Tensor:
    """[1] Algorithm 2, lines 3-4:  x_s = mean of q(x_s | x_t, x̂_0) + σ z,  s < t.

    We know how to go back if x_0 is known (`q_posterior`).  It is not; the denoiser's x̂_0 stands
    in. x̂_0 is an average over all data that may lie behind x_t, so the mean is right, but a walk
    of means alone would end in a blur: the noise z is what makes it choose.

    variance: "small" is σ² = β̃_t, right if the data were a single point; "large" is σ² = β_t,
    right if they were N(0, I) ([1] section 3.2).  The last step, s = 0, has σ = 0: noise added
    there would stay in the picture.
    """
    x_0 = x0_from_eps(schedule, x_t, eps, t)                                                    # x̂_0                   (B, *D)
    mean, _ = q_posterior(schedule, x_t, x_0, t, s)                                             # μ̃(x_t, x̂_0)           (B, *D)
    if s == 0:
        return mean
    var = 1 - schedule.at(t) / schedule.at(s)                                                   # β_t  when s = t-1          ()
    if variance == "small":
        var = (1 - schedule.at(s)) / (1 - schedule.at(t)) * var                                 # β̃_t                       ()
    return mean + like(var.sqrt(), x_t) * checks.drawn(z)                                        # σ z, not σ² z         (B, *D)


@checked
def ddim_step(schedule: Schedule, x_t: Tensor, eps: Tensor, t: int, s: int, z: Tensor | None = None, eta: float = 0.0) -> Tensor:
    """[2] eq. 12:  x_s = √ᾱ_s x̂_0 + √(1-ᾱ_s-σ²) ε + σ z  with  σ² = η² β̃  ([2] eq. 16).

    x_s must be the data, √ᾱ_s of it, plus noise of variance 1-ᾱ_s; which noise, nobody says.  Take
    the ε̂ that was just found (η = 0), or new z, or some of each, as long as the variances add up.
    The loss never looks at pairs of times, so one trained network serves all these walks.

    With η = 0 nothing is drawn: x_T alone decides the picture, and the step may also go up (s > t),
    which is inversion; η = 1 is DDPM's "small" step.
    """
    x_0 = x0_from_eps(schedule, x_t, eps, t)                                                    # x̂_0                   (B, *D)
    if eta == 0 or s == 0:
        return schedule.signal(s, x_t) * x_0 + schedule.noise(s, x_t) * eps                     # x_s                   (B, *D)
    alpha_bar_t, alpha_bar_s = schedule.at(t), schedule.at(s)                                   # ()
    fresh = eta**2 * (1 - alpha_bar_t / alpha_bar_s) / (1 - alpha_bar_t)                        # share drawn anew: σ² = fresh·(1-ᾱ_s)
    kept = ((1 - alpha_bar_s) * (1 - fresh)).sqrt()                                             # √(1-ᾱ_s-σ²), which cannot round below 0
    sigma = ((1 - alpha_bar_s) * fresh).sqrt()
    return schedule.signal(s, x_t) * x_0 + like(kept, x_t) * eps + like(sigma, x_t) * checks.drawn(z)


def dpm_solver_2m() -> Callable[..., Tensor]:
    """DPM-Solver++(2M), [3] Algorithm 2: a step that remembers.  Make a new one for each walk:  sample(…, step=dpm_solver_2m(), …).

    DDIM pretends that x̂_0 stays what it is until s.  It does not: along a walk it drifts.  In the
    time λ = ½ log SNR, in which the equation is simplest, the drift is nearly straight; so draw the
    line through the last x̂_0 and this one, and read it in the middle of the step:

        D = x̂_0 + (x̂_0 - x̂_0,last) / 2r,      r = (λ_t - λ_last) / (λ_s - λ_t),

    then take DDIM's step with D in place of x̂_0.  Twice as many steps divide the error by about
    four, where DDIM's is divided by about two; a step of either costs one call.  The first step has
    no last one, and at s = 0 λ is infinite: both are DDIM's.  It walks down only, and draws no
    noise.
    """
    last = None                                                 # (t, s, x̂_0) of the step before

    @checked
    def step(schedule: Schedule, x_t: Tensor, eps: Tensor, t: int, s: int, z: Tensor | None = None) -> Tensor:
        nonlocal last
        checks.goes_on(t, last)
        x_0 = x0_from_eps(schedule, x_t, eps, t)                                                # x̂_0                   (B, *D)
        if last and s > 0:
            lam_last, lam_t, lam_s = schedule.log_snr[[last[0], t, s]] / 2                      # λ rises as the noise falls
            r = ((lam_t - lam_last) / (lam_s - lam_t)).item()                                   # last step : this step, in λ
            D = x_0 + (x_0 - last[2]) / (2 * r)                                                 # x̂_0 in the middle     (B, *D)
            eps = eps_from_x0(schedule, x_t, D, t)                                              # the ε that explains x_t with D
        last = t, s, x_0
        return ddim_step(schedule, x_t, eps, t, s)

    return step


# The loop.

@checked
def sample(denoiser: Denoiser, schedule: Schedule, x: Tensor, step: Callable = ddim_step, steps: int | None = None,
           times: Sequence[int] | None = None, noise: Noise | None = None) -> Iterator[State]:
    """Walk along the times and yield each State before it is left, and the last one at the end.

    x: where the walk starts, (B, *D), N(0, I) at t = T.  step: `ddpm_step`, `ddim_step` (or a
    `functools.partial` of one), or what `dpm_solver_2m()` makes.  times: a strictly monotone list
    within 0 … T, default `timesteps(T, steps)`.  noise(t) is asked once for each step t → s with t
    > s > 0.

    It yields, so that a film needs no copy of the loop; what you do not keep costs no memory.
    Without no_grad the whole walk would hang on one graph, and memory would grow with every step.
    """
    checks.finite(x=x)
    return _walk(denoiser, schedule, x, step, timesteps(schedule.T, steps) if times is None else [int(t) for t in times], noise)


@torch.no_grad()
def _walk(denoiser, schedule, x, step, times, noise):
    """The loop of Algorithm 2: ask, show, step.  One call of the denoiser for each step; a walk that
    ends above t = 0 costs one more, to show its last x̂_0."""
    for t, s in pairwise(times):
        eps = denoiser(x, max(t, 1))                            # no denoiser is trained at t = 0, where inversion begins
        yield State(t, x, x0_from_eps(schedule, x, eps, t))
        z = noise(t).to(x) if noise is not None and t > s > 0 else None         # new noise each time: the same z again would add up
        x = step(schedule, x, eps, t, s, z)
    yield State(s, x, x if s == 0 else x0_from_eps(schedule, x, denoiser(x, s), s))


@checked
def invert(denoiser: Denoiser, schedule: Schedule, x_0: Tensor, steps: int | None = None) -> Iterator[State]:
    """DDIM inversion: the deterministic walk from the data up to x_T ([2] section 4.3, eq. 14 backwards).

    The same step with s > t.  It is exact only for small steps, since ε is asked for at the near
    end of each; walking down again from the x_T that it finds gives the picture back, to within
    that error.
    """
    # Without noise, of course: noise cannot be taken back.
    return sample(denoiser, schedule, x_0, ddim_step, times=timesteps(schedule.T, steps)[::-1])


def final(states: Iterable[State]) -> Tensor:
    """Walk to the end: the last x_t.

    Only the last state is kept, so memory does not grow with the walk.
    """
    last = deque(states, maxlen=1)
    if not last:
        raise ValueError("there is no state left: an iterator of states can be walked once")
    return last[0].x_t


@checked
def seeded_noise(seed: int, indices: Sequence[int], shape: Sequence[int]) -> Noise:
    """noise(t) → the next z (len(indices), *shape), float32 on the CPU, whatever t is: make a new one for every walk.

    Image i draws from its own stream, keyed by (seed, i), so its noise comes out the same alone or
    in a batch of a thousand, on a CPU or a GPU.  (A torch CPU generator keeps 32 bits of its seed,
    so that among 10,000 streams two may coincide, one chance in a hundred; numpy's Philox takes the
    pair.)
    """
    # Philox counts: a stream is its key, and two keys never meet.
    streams = [np.random.Generator(np.random.Philox(key=[seed, i])) for i in indices]

    def noise(t: int) -> Tensor:
        z = np.empty((len(streams), *shape), dtype=np.float32)
        for row, stream in zip(z, streams):                     # image by image, whatever the batch is
            stream.standard_normal(dtype=np.float32, out=row)
        return torch.from_numpy(z)

    return noise


@checked
def slerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """[2] section 5.3, appendix D.5: from a (weight 0) to b (weight 1) on an arc.   a, b (*D); weight (n,)  →  (n, *D).

    In many dimensions N(0, I) lives on a thin shell of radius √D.  The straight line between two of
    its points leaves the shell, down to 1/√2 of the radius in the middle, and a walk that starts
    there draws images that are too much alike (notebook 07, section 9); the arc stays on it.
    """
    omega = torch.acos((torch.dot(a.flatten(), b.flatten()) / (a.norm() * b.norm())).clamp(-1, 1))
    w = weight.to(a).view(-1, *[1] * a.ndim)                                                    # (n, 1, …)
    if omega.sin() < 1e-4:                                                                      # parallel: the arc is a straight line
        return torch.lerp(a.expand(len(w), *a.shape), b.expand(len(w), *b.shape), w)
    return (torch.sin((1 - w) * omega) * a + torch.sin(w * omega) * b) / omega.sin()            # (n, *D)
