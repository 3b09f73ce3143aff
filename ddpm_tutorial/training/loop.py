"""Training: Algorithm 1 of the DDPM paper [1], over and over.

    repeat
      x_0 ~ q(x_0)                     an image of the training set
      t ~ U{1 … T}                     a time: how far the image is to be spoilt
      ε ~ N(0, I)                      the noise to spoil it with
      take a gradient step on  ∇_θ ‖ε - ε_θ(√ᾱ_t x_0 + √(1-ᾱ_t) ε, t)‖²
    until converged

It reads like a regression, and is one: show the network a spoilt image and the time, let it guess the noise, and move each weight a little to where the
guess would have been better.  There is no adversary and no sequence to unroll: each image of a batch is asked about at one time only, drawn at random,
and over many steps the network has been asked about all of them.  That this is enough is what notebook 03 derives: the bound on
the likelihood is a sum over t, and a sum can be estimated by drawing t.

How to see that it works: where ε is predicted, the first loss is about 1, since a network whose last layer is zero says 0 and ε has variance 1.  It falls
fast, then slowly, and never to 0, because x_t does not tell its noise exactly.  A loss that looks good says little about the images: sample.

The loop below has those lines in that order.  What is needed besides stands elsewhere, under its name: `draws.py` (what is random), `gradient.py`
(micro-batches, half precision, several processes), `pace.py` (seconds as steps), `state.py` (settings; the weights' average), `checkpoint.py`, `run.py`.

[1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. arXiv:2006.11239
[2] Karras et al. Analyzing and Improving the Training Dynamics of Diffusion Models. arXiv:2312.02696
[3] Loshchilov, Hutter. Decoupled Weight Decay Regularization. arXiv:1711.05101
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

from ..checks import described
from ..modes import mode_of
from .devices import processes
from .draws import draw
from .gradient import asked_to_stop, gradient, parallel, refuse_what_is_not_finite
from .pace import Pace
from .state import TrainConfig, TrainState


class Progress(NamedTuple):
    """One finished step, yielded after the average has seen it."""

    step: int
    steps: int | None                                           # of how many; None while the speed is still being measured
    loss: float
    lr: float
    grad_norm: float                                            # before clipping


def train(state: TrainState, images: Tensor, y: Tensor | None = None, until: float = math.inf, transform: Callable | None = None) -> Iterator[Progress]:
    """Train on images (N, C, H, W) in [-1, 1] with labels y (N,), from state.step to step `until` (default: to the end).

    transform: what makes a batch of [-1, 1] from a batch of images: with data.normalise they stay uint8 in memory.
    A generator: it takes a step when you ask for the next Progress, so loop over it.  Breaking off between steps loses nothing.
    Started by torchrun, every process does its share of each batch; all of them must ask for the same steps.
    """
    # Complain at the call: a generator's body would wait for the first step, and by then the mistake is far away.
    if not isinstance(images, Tensor) or not len(images):
        raise ValueError(f"images are {described(images)}; they must be a tensor (N, C, H, W) with N ≥ 1")
    images = images.to(state.model.device)
    state.model._images(images if transform is None else transform(images[:1]))
    if state.config.batch % processes()[1]:
        raise ValueError(f"batch is {state.config.batch}; it must be a multiple of the number of processes, {processes()[1]}")
    state.refuse_another_chain()
    return _steps(state, images, state.model._labels(len(images), y, null=False), until, transform or (lambda x: x))


def _steps(state, images, y, until, transform):
    net, T, shape = state.model.net, state.model.schedule.T, transform(images[:1]).shape[1:]
    call, pace, several = parallel(net, state.config), Pace(state), processes()[1] > 1
    stop = asked_to_stop(state, images.device)

    while state.step < min(until, state.config.steps or math.inf) and not (stop if several else state.stop):
        # Lines 2 to 4.  Which images, which times, which noise, for the whole batch.  All three are functions of (seed, step), and of nothing that came
        # before.  Drawn one after another from a global generator they would be others after a resume, and others again when somebody
        # draws a sample to look at in between: the commonest reason why two runs with one seed differ.
        drawn = draw(state.step, len(images), T, shape, state.config)           # rows (B,), t (B,), ε (B, C, H, W)

        # Line 5, the gradient: of the mean over the batch of ‖ε - ε_θ(x_t, t)‖² / dim, with respect to every weight.  An average over B random
        # questions stands for the average over all questions; it is right on average, and the larger B, the less it jitters.
        # It is clipped to a norm of at most 1, as in the paper's code: one unlucky batch early on would throw the weights far away.
        with mode_of(net):                                      # a thread that samples from this network waits, since dropout is on
            net.train()
            batch = gradient(state, call, images, y, transform, drawn)
        stop = batch.stop

        # Line 5, the step.  Not plain gradient descent but AdamW [3]: the gradient is large for some weights and small for others, and what is a good step for
        # the ones is too much or nothing for the others.  Adam divides each weight's gradient by that gradient's usual size.
        # What is not finite stops here, before anything is changed: one NaN would be in the average for ever.
        lr = learning_rate(state.step, state.config)
        refuse_what_is_not_finite(state, batch, lr)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        state.scaler.step(state.optimizer)                      # θ ← θ - lr · (Adam's direction + weight decay · θ)
        state.scaler.update()                                   # does nothing but in float16

        # What we will sample from is not θ but its running average θ̄.  Every batch pushes θ somewhere else, so it never comes to rest; the
        # average of many such θ lies in the middle of where they wander, and draws better images ([1], appendix B; how much, and why: [2]).
        # Training itself never looks at it.  Sampling from θ by mistake is not an error anywhere: the images are only worse.
        state.ema.update_parameters(net)                        # θ̄ ← d θ̄ + (1-d) θ

        state.remember(drawn.t, batch.losses)
        pace.watch()
        yield Progress(state.step, state.config.steps, state.losses[-1], lr, batch.norm)
    with mode_of(net):
        net.eval()


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then constant, or half a cosine that would reach 0 one step after the last.

    Up slowly, since Adam divides by the gradient's usual size, which it has to get to know first: its first steps are long and badly aimed.
    Down at the end, since a smaller step jitters less, and the last of the loss is in that jitter.
    A run of another length has another curve: which is why `seconds` become a number of steps once and for all, and why a run cannot be made longer later
    and still be the run that was longer from the start.
    """
    if config.steps is None or config.decay == "constant" or step < config.warmup:
        return config.lr * min(1.0, (step + 1) / config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup)))
