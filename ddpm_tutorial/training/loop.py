"""Training: Algorithm 1 of the DDPM paper [1], over and over.

    repeat
      x_0 ~ q(x_0)                     an image of the training set
      t ~ U{1 … T}                     a time: how far the image is to be spoilt
      ε ~ N(0, I)                      the noise to spoil it with
      take a gradient step on  ∇_θ ‖ε - ε_θ(√ᾱ_t x_0 + √(1-ᾱ_t) ε, t)‖²
    until converged

It reads like a regression, and is one: show the network a spoilt image and the time, let it guess the noise, and move each weight a little to where the
guess would have been better.  There is no adversary and no sequence to unroll: every step asks about one time only, at random, and over
many steps the network has been asked about all of them.

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
from ..weights.files import unwrapped
from .devices import processes
from .draws import draw
from .gradient import Batch, asked_to_stop, gradient, parallel
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
    _one_chain(state)
    return _steps(state, images, state.model._labels(len(images), y), until, transform or (lambda x: x))


def _steps(state, images, y, until, transform):
    net, T, shape = state.model.net, state.model.schedule.T, transform(images[:1]).shape[1:]
    call, pace, together = parallel(net, state.config), Pace(state), processes()[1] > 1
    stop = asked_to_stop(state, images.device)

    while state.step < min(until, state.config.steps or math.inf) and not (stop if together else state.stop):
        net.train()                                             # dropout on: whoever sampled in between has switched it off

        # Lines 2 to 4: which images, which times, which noise, for the whole batch.  All three are functions of (seed, step) and of nothing
        # that came before.  Drawn one after another from a global generator, they would differ after a resume, or when somebody plots a sample.
        drawn = draw(state.step, len(images), T, shape, state.config)

        # Line 5, its gradient: the mean over the batch of ‖ε - ε_θ(x_t, t)‖² / dim, derived with respect to θ.  Its norm is clipped (the paper's
        # code does so, at 1): one unlucky batch early on would otherwise throw the weights far away.
        batch = gradient(state, call, images, y, transform, drawn)
        stop = batch.stop

        # Line 5, its step: AdamW [3] instead of plain gradient descent, since gradients are large at some times and small at others, and each weight's step
        # is measured by its own gradient's size.  What is not finite stops here: one NaN in the average would be in it for ever.
        lr = learning_rate(state.step, state.config)
        _refuse_what_is_not_finite(state, batch, lr)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        state.scaler.step(state.optimizer)                      # θ ← θ - lr · (Adam's direction + weight decay · θ)
        state.scaler.update()                                   # does nothing but in float16

        # What we will sample from is not θ but its running average θ̄.  θ jitters about, with every batch; the average of many such θ lies in
        # the middle, and its images are better (so does [1], appendix B; how much, and why: [2]).  The training itself never looks at it.
        state.ema.update_parameters(net)                        # θ̄ ← d θ̄ + (1-d) θ

        state.remember(drawn.t, batch.losses)
        pace.watch()
        yield Progress(state.step, state.config.steps, state.losses[-1], lr, batch.norm)
    net.eval()


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then constant, or half a cosine that would reach 0 one step after the last.

    Up slowly: Adam divides by the gradient's size, which it has to estimate first.  Down at the end: a smaller step jitters less, and the
    last of the loss is in that jitter.  A run of another length has another curve, which is why `seconds` become a number of steps once and for all.
    """
    if config.steps is None or config.decay == "constant" or step < config.warmup:
        return config.lr * min(1.0, (step + 1) / config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup)))


def _refuse_what_is_not_finite(state: TrainState, batch: Batch, lr: float) -> None:
    value = batch.losses.mean().item()
    if not (math.isfinite(value) and (math.isfinite(batch.norm) or state.scaler.get_scale() > 1)):   # a scaler first tries smaller scales, and skips the step
        raise FloatingPointError(f"loss {value}, gradient norm {batch.norm} at step {state.step}, learning rate {lr:.2g}: lower the learning rate "
                                 "or look for NaN in the data. The averaged weights were not touched.")


def _one_chain(state: TrainState) -> None:
    """A network learns what t = 500 looks like in *its* chain.  In one of another length the same t is another amount of noise, and every answer is wrong."""
    T, trained = state.model.schedule.T, getattr(unwrapped(state.model.net), "trained_T", None)
    if state.step and trained not in (None, T):
        raise ValueError(f"this run began with {trained} timesteps, and the model now has {T}: "
                         "its times are not those that the network has learnt; begin a new run")
    for net in (unwrapped(state.model.net), state.ema.module):
        net.trained_T = T                                       # type: ignore[assignment]      # goes with the network, wherever it goes
