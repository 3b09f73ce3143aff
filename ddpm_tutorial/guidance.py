"""Guidance: functions that bend a denoiser, denoiser → denoiser.

A denoiser is a function ε̂(x_t, t), so whatever changes its answer is a function around it, and no
sampler, no loop and no metric knows about guidance.  They compose:

    guided = clipped(within(classifier_free(cond, uncond, 3.0), cond, 200, 800), schedule)

    classifier_free    go from the unconditional answer to the conditional one, and on     (also *autoguidance*: from a weak model to a good one)
    classifier         add the gradient of a classifier of noisy images
    within             guide at some times only
    clipped            keep x̂_0 where images live
    known              keep the pixels that are known: inpainting

Guidance with scale > 1 samples another distribution than p(x|y), as a rule a sharper one.  The last
two use that, once x_t is given, x̂_0 and ε̂ say the same: they mend x̂_0, and form ε̂ anew.

[1] Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. arXiv:2105.05233
[2] Ho, Salimans. Classifier-Free Diffusion Guidance. arXiv:2207.12598
[3] Karras et al. Guiding a Diffusion Model with a Bad Version of Itself. arXiv:2406.02507
[4] Kynkäänniemi et al. Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models. arXiv:2404.07724
[5] Lugmayr et al. RePaint: Inpainting using Denoising Diffusion Probabilistic Models. arXiv:2201.09865
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from . import checks
from .checks import checked
from .forward import Denoiser, NetDenoiser, eps_from_x0, x0_from_eps
from .schedules import Schedule

DOUBLE_UP_TO = 64   # images: on two CPU cores a doubled batch takes 0.8 of the time of two calls at 16, and 1.08 at 250


@checked
def classifier_free(cond: Denoiser, uncond: Denoiser, scale: float) -> Denoiser:
    """[2] eq. 6 with scale = 1 + w:  ε̂ = ε_∅ + scale·(ε_y - ε_∅).   0 unconditional, 1 conditional, > 1 guided.

    Where it comes from: ε is -√(1-ᾱ_t) times the score, and by Bayes' rule the scores differ by
    what a classifier would say, ∇log p(x|y) - ∇log p(x) = ∇log p(y|x).  So ε_y - ε_∅ is a
    classifier's gradient without a classifier, and scale times it makes y count `scale` times.  The
    paper's w = 0 is our scale = 1: code that takes the one for the other is the commonest mistake
    about guidance.

    It is a line through two answers, whoever gives them: with `cond` a good model and `uncond` a
    worse version of it, it is autoguidance [3], which goes away from what the worse one gets wrong.

    Scale 0 or 1 gives back the one denoiser and costs one network call a step.  Every other scale
    costs two, or, where both are the same network and that is faster, one of a doubled batch.
    """
    if scale in (0, 1):
        return cond if scale == 1 else uncond
    doubled = _doubled(cond, uncond)

    def guided(x_t: Tensor, t: int | Tensor) -> Tensor:
        if doubled and (x_t.is_cuda or len(x_t) <= DOUBLE_UP_TO):
            eps_cond, eps_uncond = doubled(x_t, t)                                              # ε_y, ε_∅              (B, *D) each
        else:
            eps_cond, eps_uncond = cond(x_t, t), uncond(x_t, t)
        return torch.lerp(eps_uncond, eps_cond, scale)                                          # ε_∅ + scale (ε_y - ε_∅)   (B, *D)

    return guided


@checked
def classifier(denoiser: Denoiser, log_prob: Callable[[Tensor, int | Tensor], Tensor], schedule: Schedule, scale: float = 1.0) -> Denoiser:
    """[1] Algorithm 2, with its scale restored:  ε̂ = ε - √(1-ᾱ_t)·scale·∇ log p(y | x_t).   log_prob(x_t, t) → (B,), differentiable in x_t.

    Bayes' rule for scores: ∇log p(x_t|y) = ∇log p(x_t) + ∇log p(y|x_t), times -√(1-ᾱ_t), which is
    what turns a score into an ε.  (The paper's listing takes a scale and forgets to use it.)  With
    scale 1 and exact parts this is the exact conditional denoiser.  The paper's Algorithm 1 moves
    the step's mean by scale·Σ∇log p instead, which is this to first order in the step, and not
    exact.

    The classifier must know noisy images: one that was trained on clean ones answers noise with
    certainty, and its gradient is noise.
    """
    def guided(x_t: Tensor, t: int | Tensor) -> Tensor:
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            log_p = log_prob(x, t)                                                              # log p(y | x_t)        (B,)
            checks.one_for_each(log_p, x)                       # of a mean over the batch, the gradient would be B times too small
            grad, = torch.autograd.grad(log_p.sum(), x)         # the sum: each image's gradient by itself              (B, *D)
        return denoiser(x_t, t) - scale * schedule.noise(t, x_t) * grad

    return guided


@checked
def within(inside: Denoiser, outside: Denoiser, low: int, high: int) -> Denoiser:
    """[4]: one denoiser at the times low ≤ t ≤ high, another at all others.

    Early in a walk, guidance throws away variety: everything is pulled to the class's mean while
    there is hardly anything to be seen.  Late, it does nothing that can be seen.  In between it
    helps.
    """
    def chosen(x_t: Tensor, t: int | Tensor) -> Tensor:
        if not isinstance(t, Tensor):
            return (inside if low <= t <= high else outside)(x_t, t)
        here = ((low <= t) & (t <= high)).to(x_t.device).view(-1, *[1] * (x_t.ndim - 1))        # each image has its time  (1 or B, 1, …)
        return torch.where(here, inside(x_t, t), outside(x_t, t))

    return chosen


@checked
def clipped(denoiser: Denoiser, schedule: Schedule, low: float = -1.0, high: float = 1.0) -> Denoiser:
    """Keep x̂_0 where images live:  ε → x̂_0 → clamp → ε.

    Data lie in [-1, 1]; an x̂_0 outside is an error that we can see.  At large t it is a large one,
    since x̂_0 divides by √ᾱ_t.  ε is formed anew from the clamped x̂_0: keeping the old ε would
    leave a pair that no longer explains x_t, and samples wash out.
    """
    def eps(x_t: Tensor, t: int | Tensor) -> Tensor:
        # Not a case for x_t.clamp: x_t is noise for the most part, and has to be large.
        x_0 = x0_from_eps(schedule, x_t, denoiser(x_t, t), t)                                   # x̂_0                   (B, *D)
        return eps_from_x0(schedule, x_t, x_0.clamp(low, high), t)                              # ε of the clamped one  (B, *D)

    return eps


@checked
def known(denoiser: Denoiser, schedule: Schedule, x_0: Tensor, mask: Tensor) -> Denoiser:
    """[5], but simpler, inpainting:  ε → x̂_0 → the known pixels put in → ε.   mask (bool): true where x_0 is known.

    At t = 0 the known pixels come out exactly.  Why the others follow: x_t carries the known ones
    under its noise, and the denoiser sees all of x_t.  But it is not exact, since the noise in x_t
    is not told what we know: of two numbers with correlation 0.9, the first known to be 1.5, the
    second comes out at 0.67 ± 0.72 by DDIM and 0.94 ± 0.60 by DDPM, where 1.35 ± 0.44 is right (a
    test says so).  RePaint [5] puts the known pixels, freshly noised, into x_s instead, and walks
    to and fro to mend that.
    """
    def eps(x_t: Tensor, t: int | Tensor) -> Tensor:
        guess = x0_from_eps(schedule, x_t, denoiser(x_t, t), t)                                 # x̂_0                   (B, *D)
        return eps_from_x0(schedule, x_t, torch.where(mask.to(x_t.device), x_0.to(x_t), guess), t)

    return eps


def _doubled(cond: Denoiser, uncond: Denoiser) -> Callable[[Tensor, int | Tensor], tuple[Tensor, ...]] | None:
    """Both answers from one call of twice the batch, fewer, larger pieces of work; None unless the two differ in their labels only."""
    if not (isinstance(cond, NetDenoiser) and isinstance(uncond, NetDenoiser)) or cond.y is None or uncond.y is None:
        return None
    if cond.net is not uncond.net or cond.schedule is not uncond.schedule or cond.predict != uncond.predict:
        return None
    twice = replace(cond, y=torch.cat([cond.y, uncond.y]))
    return lambda x_t, t: twice(torch.cat([x_t, x_t]), torch.cat([t, t]) if isinstance(t, Tensor) and t.ndim else t).chunk(2)
