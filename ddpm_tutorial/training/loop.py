"""The training loop and what it remembers.

Nothing random is stored: the order of the images is a function of (seed, epoch), and t, ε, flips and dropped labels are functions of
(seed, step), drawn for the whole batch and then shared out.  So a run that was stopped and resumed is the run that was never stopped,
bit for bit on a CPU; and one process or eight, one batch or four micro-batches, are the same run, up to rounding (and dropout's masks).

[1] Esser et al. Scaling Rectified Flow Transformers for High-Resolution Image Synthesis. arXiv:2403.03206, section 3.1
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from ..checks import described, integer, number
from ..ddpm import DDPM, drop_labels, loss
from .devices import best_precision, gathered, processes
from .draws import draw, seeded


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained."""

    steps: int | None = None                                    # optimizer steps; None: as many as fit into `seconds`
    seconds: float = 60.0
    batch: int = 128                                            # images per step, of all processes together
    micro: int | None = None                                    # images at a time, where a process's share of the batch needs too much memory
    lr: float = 2e-3                                            # AdamW's, after warm-up
    warmup: int = 100                                           # steps from 0 to lr …
    decay: str = "cosine"                                       # … then half a cosine down to 0, or "constant"
    betas: tuple[float, float] = (0.9, 0.99)                    # AdamW's
    weight_decay: float = 0.01                                  # AdamW's
    clip_grad: float = 1.0                                      # largest norm of the gradient
    ema: float = 0.999                                          # decay of the averaged weights that we sample from
    times: str = "uniform"                                      # how t is drawn, evenly over a batch: uniform, or logit-normal [1], more in the middle
    flip: bool = False                                          # mirror each image with probability 1/2
    precision: str | None = None                                # float32, bfloat16 or float16, of the network's layers; None: what suits the device
    compile: bool = False                                       # torch.compile the network: a minute of waiting first; for GPUs
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "betas", tuple(self.betas))    # a list, as JSON gives it
        for name in ("steps", "seconds", "batch", "micro", "lr", "warmup", "clip_grad"):
            if (value := getattr(self, name)) is not None and not number(value, name) > 0:
                raise ValueError(f"{name} is {value}; it must be positive")
        for name, least in {"steps": 1, "batch": 1, "micro": 1, "warmup": 1, "seed": 0}.items():
            if (value := getattr(self, name)) is not None:
                integer(value, name, least)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {self.betas}; they must be two numbers in 0 … 1, without 1")
        number(self.weight_decay, "weight_decay", 0)
        for name, allowed in CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name} is {value!r}; choose {' or '.join(map(str, allowed))}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; it must lie in 0 … 1, without 1")


CHOICES = {"decay": ("cosine", "constant"), "times": ("uniform", "logit-normal"), "precision": (None, "float32", "bfloat16", "float16")}
CALIBRATION = range(10, 40)                                     # the steps whose speed turns seconds into steps
BANDS = 10                                                      # of t, for which the loss is recorded separately


@dataclass
class TrainState:
    """All that a run is: `checkpoint.save` it, and it can go on elsewhere."""

    model: DDPM
    config: TrainConfig
    step: int = 0                                               # how many are done
    losses: list[float] = field(default_factory=list)           # of each step
    loss_by_time: Tensor = field(default_factory=lambda: torch.full((BANDS,), math.nan))    # running mean in each tenth of 1 … T; NaN: not met yet
    stop: bool = False                                          # set it, and the run ends after the step in progress; of several processes, all at one

    def __post_init__(self):
        if not isinstance(self.model, DDPM) or not isinstance(self.config, TrainConfig):
            raise TypeError(f"model is {described(self.model)} and config {described(self.config)}; they must be a DDPM and a TrainConfig")
        where = self.model.device
        self.config = replace(self.config, precision=self.config.precision or best_precision(where))
        self.ema = AveragedModel(self.model.net, multi_avg_fn=self._average)    # parameters only: buffers are no weights
        self.optimizer = torch.optim.AdamW(self.model.net.parameters(), lr=self.config.lr, betas=self.config.betas,
                                           weight_decay=self.config.weight_decay, fused=True)
        self.scaler = torch.amp.GradScaler(where.type, enabled=self.config.precision == "float16")      # small gradients would be 0 in float16

    def _average(self, averaged, current, n):
        """θ̄ ← d θ̄ + (1-d) θ with  d = min(ema, (1+step)/(10+step)): short memory at first, or θ̄ would remember the random start.

        (AveragedModel's very first update is a copy.)
        """
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def averaged_model(self) -> DDPM:
        """The model to sample from: the averaged weights."""
        config = self.model.config
        return DDPM(config, self.ema.module, self.model.schedule if config.schedule == "custom" else None).eval()


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
    if not isinstance(images, Tensor) or not len(images):
        raise ValueError(f"images are {described(images)}; they must be a tensor (N, C, H, W) with N ≥ 1")
    images = images.to(state.model.device)
    state.model._images(images if transform is None else transform(images[:1]))
    if state.config.batch % processes()[1]:
        raise ValueError(f"batch is {state.config.batch}; it must be a multiple of the number of processes, {processes()[1]}")
    return _steps(state, images, state.model._labels(len(images), y), until, transform or (lambda x: x))


def _steps(state, images, y, until, transform):
    net, began, world = state.model.net, None, processes()[1]
    call = DistributedDataParallel(net) if world > 1 else net   # which averages the processes' gradients
    call = torch.compile(call) if state.config.compile else call
    shape = transform(images[:1]).shape[1:]
    agreed = bool(gathered(torch.tensor([float(state.stop)], device=images.device)).any())     # one process that left alone would let the others wait
    while state.step < min(until, math.inf if state.config.steps is None else state.config.steps) and not (agreed if world > 1 else state.stop):
        step, config = state.step, state.config
        net.train()

        # Algorithm 1, but for how t may be drawn.
        drawn, gradient = draw(step, len(images), state.model.schedule.T, shape, config), None
        with suppress(torch.OutOfMemoryError):
            gradient = _gradient(state, call, images, y, transform, drawn)
        if gradient is None:                                    # not in an except clause: the error would keep alive what filled the memory
            _halve(state)
            continue                                            # the same step again: what it draws depends on nothing else
        losses, norm, agreed = gradient
        value, lr = losses.mean().item(), learning_rate(step, config)
        if not (math.isfinite(value) and (math.isfinite(norm) or state.scaler.get_scale() > 1)):     # a scaler first tries smaller scales
            raise FloatingPointError(f"loss {value}, gradient norm {norm} at step {step}, learning rate {lr:.2g}: lower the learning rate "
                                     "or look for NaN in the data. The averaged weights were not touched.")
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.ema.update_parameters(net)
        state.step += 1
        state.losses.append(value)
        _record(state.loss_by_time, drawn.t, losses, state.model.schedule.T)

        # Seconds become a number of steps, once.
        if config.steps is None:
            if began is None and step >= CALIBRATION.start:
                began = step, time.perf_counter()
            elif began and step - began[0] >= len(CALIBRATION):
                speed = (step - began[0]) / (time.perf_counter() - began[1])
                steps = gathered(torch.tensor([max(state.step, round(config.seconds * speed))], device=images.device))[0]
                state.config = replace(config, steps=int(steps))
        yield Progress(state.step, state.config.steps, value, lr, norm)
    net.eval()


def _gradient(state, call, images, y, transform, drawn):
    """The gradient of one batch, clipped, into .grad.   → the loss of each image (B,), on the CPU; the norm before clipping; whether to stop."""
    model, config, (rank, world) = state.model, state.config, processes()
    share, where = config.batch // world, images.device
    micro, end, losses = min(config.micro or share, share), (rank + 1) * share, []
    state.optimizer.zero_grad()
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(seeded(config.seed, 2, state.step, rank))              # for dropout; the caller's random numbers stay as they are
        for first in range(rank * share, end, micro):
            mine = slice(first, min(first + micro, end))
            x_0 = transform(images[drawn.rows[mine].to(where)])
            if config.flip:
                x_0 = torch.where((drawn.flip[mine] < 0.5).to(where).view(-1, 1, 1, 1), x_0.flip(-1), x_0)
            labels = y
            if y is not None:
                labels = drop_labels(y[drawn.rows[mine].to(where)], (drawn.drop[mine] < model.config.p_uncond).to(where), model.config.num_classes)
            with call.no_sync() if world > 1 and mine.stop < end else nullcontext():            # processes meet once a step
                with torch.autocast(where.type, getattr(torch, config.precision), enabled=config.precision != "float32"):
                    per_image = loss(call, model.schedule, x_0, drawn.eps[mine].to(x_0), drawn.t[mine], labels, model.config.predict)
                state.scaler.scale(per_image.sum() * (world / config.batch)).backward()
            losses.append(per_image.detach())
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(model.net.parameters(), config.clip_grad)
    flag = torch.tensor([float(state.stop)], device=where)
    told = gathered(torch.cat([*losses, norm[None], flag])).cpu().view(world, share + 2)        # the one moment in which a GPU is waited for
    stop = bool(told[:, -1].any())
    if stop:                                                    # never set back: a signal may have come in the meantime
        state.stop = True
    return told[:, :share].flatten(), told[0, share].item(), stop


def _halve(state):
    """Out of memory: half as many images at a time, the same batch."""
    world = processes()[1]
    share = state.config.batch // world
    micro = min(state.config.micro or share, share)
    if world > 1 or micro == 1:                                 # other processes would wait for ever for this one
        raise MemoryError(f"out of memory with {micro} images at a time on each device: choose a smaller network"
                          + (f", or micro = {micro // 2}" if micro > 1 else ""))
    state.optimizer.zero_grad()
    torch.cuda.empty_cache()
    state.config = replace(state.config, micro=(micro + 1) // 2)


def _record(loss_by_time, t, losses, T):
    """Move the running mean of each band of t that was met by 1/20 towards what was met."""
    band = (t - 1) * BANDS // T
    count = band.bincount(minlength=BANDS)
    mean = band.bincount(losses, minlength=BANDS).float() / count
    loss_by_time[:] = torch.where(count == 0, loss_by_time, torch.where(loss_by_time.isnan(), mean, torch.lerp(loss_by_time, mean, 0.05)))


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then constant, or half a cosine that would reach 0 one step after the last."""
    if config.steps is None or config.decay == "constant" or step < config.warmup:
        return config.lr * min(1.0, (step + 1) / config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup)))
