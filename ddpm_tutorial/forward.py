"""The forward process: Gaussian algebra between x_0, x_t, ε, v and the velocity.

The picture: an image dissolves in noise.  Because every step adds Gaussian noise, and sums of
Gaussians are Gaussian, the state after any number of steps can be written down at once, without
walking:

    q:   x_0  ──►  x_1  ──►  …  ──►  x_t  ──►  …  ──►  x_T             each arrow: shrink a little, add a little noise
         x_0  ─────────────────────►  x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε       all arrows at once                 (`q_sample`)

That one line is used in every direction.  Solved for x_0 it says what a guess of the noise means
for the image (`x0_from_eps`); solved for ε it says what a guess of the image means for the noise
(`eps_from_x0`); with Bayes' rule it says where x_t came from (`q_posterior`).  A network may guess
any of ε, x_0, v or the velocity, for each follows from each; here they all become ε (`to_eps`), so
that samplers and guidance know one type only, the *denoiser*:  ε̂ = denoiser(x_t, t).

samplers.py walks back with these functions, ddpm.py trains with them, exact.py has denoisers that
need no training.

Shapes: x_0, x_t, eps, v are (B, *D) for any D: (C, H, W) for images, (2,) for points.  t, s: an
int, or one per image (B,).

[1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. arXiv:2006.11239
[2] Salimans, Ho. Progressive Distillation for Fast Sampling of Diffusion Models. arXiv:2202.00512
[3] Song et al. Score-Based Generative Modeling through Stochastic Differential Equations. arXiv:2011.13456
[4] Lipman et al. Flow Matching for Generative Modeling. arXiv:2210.02747
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import checks
from .checks import checked
from .modes import evaluating
from .schedules import Schedule, like

Denoiser = Callable[[Tensor, int | Tensor], Tensor]             # eps (B, *D) = denoiser(x_t (B, *D), t), 1 ≤ t ≤ T


# Forward, by one jump or by one step.

@checked
def q_sample(schedule: Schedule, x_0: Tensor, eps: Tensor, t: int | Tensor) -> Tensor:
    """[1] eq. 4:  x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε.

    Where it comes from: put the step x_t = √(1-β_t) x_{t-1} + √β_t ε_t into itself.  The factors of
    x_0 multiply to √ᾱ_t; the noises of all steps are independent, so their variances add, to 1-ᾱ_t,
    and one ε can stand for all of them.  That is why training needs no walk: any t is one line
    away.

    (For data of power 1, √ᾱ_t and √(1-ᾱ_t) keep it at 1.  ᾱ_t and 1-ᾱ_t, a frequent slip, let it
    fall, at worst to a half.)
    """
    return schedule.signal(t, x_0) * x_0 + schedule.noise(t, x_0) * eps                             # x_t                      (B, *D)


@checked
def q_step(schedule: Schedule, x_s: Tensor, eps: Tensor, t: int | Tensor, s: int | Tensor) -> Tensor:
    """[1] eq. 2, from any s < t:  x_t = √α x_s + √(1-α) ε  with  α = ᾱ_t/ᾱ_s.  The paper has s = t-1, α = 1-β_t.

    Of the power that is there at s, the share ᾱ_t/ᾱ_s is left at t: one step and a hundred steps
    have the same form, and ε here is *new* noise, independent of all that is in x_s already.
    """
    alpha = schedule.at(t) / schedule.at(s)                                                         # what is kept           () or (B,)
    return like(alpha.sqrt(), x_s) * x_s + like((1 - alpha).sqrt(), x_s) * eps                      # x_t                      (B, *D)


@checked
def q_posterior(schedule: Schedule, x_t: Tensor, x_0: Tensor, t: int | Tensor, s: int | Tensor) -> tuple[Tensor, Tensor]:
    """[1] eqs. 6-7, for any s < t: mean (B, *D) and variance (1 or B, 1, …) of q(x_s | x_t, x_0).  The paper has s = t-1.

    Bayes' rule for Gaussians.  We stand at x_t, somebody tells us x_0: where were we at time s?
    Two witnesses.  x_0 says: around √ᾱ_s x_0, with variance 1-ᾱ_s.  x_t says: x_t is √α x_s plus
    noise, so x_s is around x_t/√α, with variance β/α.  Precisions (1/variance) add, so the variance
    is

        1 / (1/(1-ᾱ_s) + α/β)  =  (1-ᾱ_s) β / (β + α (1-ᾱ_s))  =  (1-ᾱ_s) β / (1-ᾱ_t),

    since α ᾱ_s = ᾱ_t; and the mean is both opinions weighted by their precisions, times that
    variance: √ᾱ_s x_0/(1-ᾱ_s) gives c_0, (x_t/√α)(α/β) gives c_t.  At s = 0 the first witness is
    certain, and the answer is exactly (x_0, 0): the last step of a walk needs no special case.
    (Without the denominator 1-ᾱ_t the variance is wrong by a factor that is nearly 1 at large t, so
    pictures do not show it.)
    """
    alpha_bar_t, alpha_bar_s = schedule.at(t), schedule.at(s)                                       # () or (B,), and so all that follow
    alpha = alpha_bar_t / alpha_bar_s                                                               # α_t when s = t-1: what one step keeps
    beta = 1 - alpha                                                                                # β_t when s = t-1: what it adds
    c_0 = alpha_bar_s.sqrt() * beta / (1 - alpha_bar_t)                                             # weight of the data
    c_t = alpha.sqrt() * (1 - alpha_bar_s) / (1 - alpha_bar_t)                                      # weight of where we are
    var = (1 - alpha_bar_s) / (1 - alpha_bar_t) * beta                                              # β̃_t when s = t-1
    return like(c_0, x_t) * x_0 + like(c_t, x_t) * x_t, like(var, x_t)                              # μ̃ (B, *D), β̃ (1 or B, 1, …)


# One noisy image, four ways to say what is in it.

@checked
def x0_from_eps(schedule: Schedule, x_t: Tensor, eps: Tensor, t: int | Tensor) -> Tensor:
    """[1] eq. 15, which is eq. 4 solved for x_0:  x_0 = (x_t - √(1-ᾱ_t) ε) / √ᾱ_t.

    Near T it divides by almost nothing: an error in ε comes out 1/√ᾱ_t times as large in x̂_0.
    That is why x̂_0 is clamped while sampling (`guidance.clipped`).
    """
    return (x_t - schedule.noise(t, x_t) * eps) / schedule.signal(t, x_t)                           # x̂_0                      (B, *D)


@checked
def eps_from_x0(schedule: Schedule, x_t: Tensor, x_0: Tensor, t: int | Tensor) -> Tensor:
    """[1] eq. 4 solved for ε:  ε = (x_t - √ᾱ_t x_0) / √(1-ᾱ_t),  for t ≥ 1: at t = 0 there is none.

    Whoever changes x̂_0 (clamps it, puts known pixels in) must form ε anew with this line, or the
    pair (x̂_0, ε) no longer adds up to x_t, and the sampler mixes two different stories.
    """
    checks.noisy(t)
    return (x_t - schedule.signal(t, x_t) * x_0) / schedule.noise(t, x_t)                           # ε                        (B, *D)


@checked
def target(schedule: Schedule, x_0: Tensor, eps: Tensor, t: int | Tensor, predict: str = "eps") -> Tensor:
    """What a network is asked for:  ε,  x_0,  v = √ᾱ_t ε - √(1-ᾱ_t) x_0  ([2] section 4),  or the velocity ε - x_0  ([4]).

    All four name the same thing, seen from x_t.  They differ in what is easy: near t = 0 the noise
    can hardly be seen in x_t, so ε is hard and x_0 is easy; near T it is the other way round.  v
    changes from the one to the other on the way.  It is also dx/dφ on the circle x = cos φ x_0 +
    sin φ ε, as the velocity is dx/du on the straight line (1-u) x_0 + u ε.
    """
    match predict:
        case "eps":      return eps
        case "x0":       return x_0
        case "v":        return schedule.signal(t, x_0) * eps - schedule.noise(t, x_0) * x_0
        case "velocity": return eps - x_0


@checked
def to_eps(schedule: Schedule, x_t: Tensor, out: Tensor, t: int | Tensor, predict: str = "eps") -> Tensor:
    """Read a network's output as ε, whatever it was trained to predict.

    Two equations with two unknowns, x_t = a x_0 + b ε with a = √ᾱ_t, b = √(1-ᾱ_t), and `target`:

        v = a ε - b x_0:          a v + b x_t  =  (a² + b²) ε  =  ε
        velocity u = ε - x_0:     x_t + a u    =  (a + b) ε
    """
    match predict:
        case "eps":      return out
        case "x0":       return eps_from_x0(schedule, x_t, out, t)
        case "v":        return schedule.signal(t, x_t) * out + schedule.noise(t, x_t) * x_t
        case "velocity": return (x_t + schedule.signal(t, x_t) * out) / (schedule.signal(t, x_t) + schedule.noise(t, x_t))


# Denoisers.

@dataclass(frozen=True)
class NetDenoiser:
    """What `denoiser` makes: a network, and all that is needed to read its answer as ε.

    A record and no closure, so that guidance can see when two of them are one network with two
    labels, and ask it once with a doubled batch.
    """

    net: Callable
    schedule: Schedule
    y: Tensor | None                                            # labels (B,), or none
    predict: str

    @checked
    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        checks.noisy(t)
        checks.fits(self.schedule.at(t), x_t)                   # before the network is asked: a time for each image, or one for all
        times = t.to(x_t.device).expand(len(x_t)) if isinstance(t, Tensor) else torch.full((len(x_t),), t, device=x_t.device)       # (B,)
        with evaluating(self.net):
            out = self.net(x_t, times) if self.y is None else self.net(x_t, times, self.y)
        checks.answer(out)
        return to_eps(self.schedule, x_t, out.to(x_t.dtype), t, self.predict)


@checked
def denoiser(net: Callable, schedule: Schedule, y: Tensor | None = None, predict: str = "eps") -> Denoiser:
    """A network as a denoiser: `net(x_t, t)` or, with labels y (B,), `net(x_t, t, y)`; t reaches it as (B,) on x_t's device.

    From here on no sampler asks what the network predicts, which precision its layers have, or
    whether it is a network at all.  (Only `guidance.classifier_free` looks, to ask one network once
    and not twice.)  The answer has x_t's type: left in bfloat16, every later step would be rounded
    to eight bits.  A module is in eval mode for the call and gets its modes back.
    """
    return NetDenoiser(net, schedule, y, predict)


@checked
def score(denoiser: Denoiser, schedule: Schedule) -> Callable[[Tensor, int | Tensor], Tensor]:
    """[3]: the score that a denoiser stands for,  (x_t, t) → ∇ log q_t(x_t) = -ε̂(x_t, t) / √(1-ᾱ_t).

    The field of arrows that point to where the data are denser.  For one x_0, log q(x_t|x_0) is, up
    to a constant, -‖x_t - √ᾱ_t x_0‖²/2(1-ᾱ_t), and its gradient -(x_t - √ᾱ_t x_0)/(1-ᾱ_t) is
    -ε/√(1-ᾱ_t).  Averaged over all x_0 that may lie behind x_t, as the best denoiser does, it is
    the score of the noisy data.
    """
    return lambda x_t, t: -denoiser(x_t, t) / schedule.noise(t, x_t)
