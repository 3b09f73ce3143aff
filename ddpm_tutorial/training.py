"""The training loop and its book-keeping.

Nothing random is stored: the order of the images is a function of (seed, epoch), and t, ε and the dropped labels are functions of
(seed, step).  So a run that was stopped and resumed is the run that was never stopped, bit for bit on a CPU.

[1] Esser et al. Scaling Rectified Flow Transformers for High-Resolution Image Synthesis. arXiv:2403.03206, section 3.1
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .ddpm import DDPM, DDPMConfig, drop_labels, load_weights, loss
from .files import read, write
from .schedules import Schedule
from .unet import UNetConfig


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained."""

    steps: int | None = None                                    # optimizer steps; None: as many as fit into `seconds`
    seconds: float = 60.0
    batch: int = 128
    lr: float = 2e-3                                            # AdamW's, after warm-up
    warmup: int = 100                                           # steps from 0 to lr; then half a cosine down to 0
    clip_grad: float = 1.0                                      # largest norm of the gradient
    ema: float = 0.999                                          # decay of the averaged weights that we sample from
    times: str = "uniform"                                      # how t is drawn: uniform, as in DDPM, or logit-normal [1], more in the middle
    seed: int = 0

    def __post_init__(self):
        for name in ("steps", "seconds", "batch", "lr", "warmup", "clip_grad"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} is {value}; it must be positive")
        if self.times not in ("uniform", "logit-normal"):
            raise ValueError(f"times is {self.times!r}; choose uniform or logit-normal")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; it must lie in 0 … 1, without 1")


RECIPES = {                                                     # what each data set is trained with, unless told otherwise
    "digits": (
        DDPMConfig(image_size=8, channels=1, schedule="cosine", predict="v", num_classes=10, unet=UNetConfig(blocks=1, num_classes=10)),
        TrainConfig(batch=128, lr=4e-3, warmup=50, ema=0.99, times="logit-normal")),
}

CALIBRATION = range(10, 40)                                     # the steps whose speed turns seconds into steps; all of them are in the warm-up


@dataclass
class TrainState:
    """All that a run is: save it, and it can go on elsewhere."""

    model: DDPM
    config: TrainConfig
    step: int = 0                                               # how many are done
    losses: list[float] = field(default_factory=list)           # of each step

    def __post_init__(self):
        self.ema = AveragedModel(self.model.net, multi_avg_fn=self._average)    # parameters only: buffers are no weights
        self.optimizer = torch.optim.AdamW(self.model.net.parameters(), lr=self.config.lr, betas=(0.9, 0.99), fused=True)

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


def train(state: TrainState, x_0: Tensor, y: Tensor | None = None) -> Iterator[Progress]:
    """Train on images x_0 (N, C, H, W) in [-1, 1] with labels y (N,), from state.step on.

    A generator: it takes a step when you ask for the next Progress, so loop over it.  Breaking off between steps loses nothing.
    """
    return _steps(state, state.model._images(x_0), state.model._labels(len(x_0), y))


def _steps(state, x_0, y):
    net, began = state.model.net, None
    while state.config.steps is None or state.step < state.config.steps:
        step, config = state.step, state.config
        net.train()

        # Draw everything that is random, on the CPU.
        index, t, eps, dropped = draw(step, len(x_0), state.model.schedule.T, x_0.shape[1:], config)
        labels = None if y is None else drop_labels(y[index], (dropped < state.model.config.p_uncond).to(y.device), state.model.config.num_classes)

        # Algorithm 1, but for how t may be drawn.
        per_image = loss(net, state.model.schedule, x_0[index], eps.to(x_0), t, labels, state.model.config.predict)
        value = per_image.mean()
        state.optimizer.zero_grad()
        value.backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), config.clip_grad)
        lr = learning_rate(step, config)
        if not torch.isfinite(norm + value):
            raise FloatingPointError(f"loss {value.item()}, gradient norm {norm.item()} at step {step}, learning rate {lr:.2g}: lower the learning rate "
                                     "or look for NaN in the data. The averaged weights were not touched.")
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        state.optimizer.step()
        state.ema.update_parameters(net)
        state.step += 1
        state.losses.append(value.item())

        # Seconds become a number of steps, once.
        if config.steps is None:
            if began is None and step >= CALIBRATION.start:
                began = step, time.perf_counter()
            elif began and step - began[0] >= len(CALIBRATION):
                speed = (step - began[0]) / (time.perf_counter() - began[1])
                state.config = replace(config, steps=max(state.step, round(config.seconds * speed)))
        yield Progress(state.step, state.config.steps, state.losses[-1], lr)
    net.eval()


def draw(step: int, N: int, T: int, shape: tuple[int, ...], config: TrainConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The random part of a step, a function of (seed, step): which images (B,), t (B,), ε (B, *shape), and a uniform number per label (B,)."""
    position = torch.arange(step * config.batch, (step + 1) * config.batch)     # we read permutations of the data, one after another
    index = torch.cat([_permutation(N, config.seed, int(epoch))[position[position // N == epoch] % N] for epoch in (position // N).unique()])
    generator = _generator(config.seed, 1, step)
    u = (torch.arange(config.batch) + torch.rand(config.batch, dtype=torch.float64, generator=generator)) / config.batch    # spread evenly over (0, 1)
    if config.times == "logit-normal":
        u = (1.2 * torch.special.ndtri(u)).sigmoid()            # sigmoid of N(0, 1.2²)
    t = (u * T).long().clamp(0, T - 1) + 1
    eps = torch.randn(config.batch, *shape, generator=generator)
    return index, t, eps, torch.rand(config.batch, generator=generator)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine that would reach 0 one step after the last."""
    warm = min(1.0, (step + 1) / config.warmup)
    if config.steps is None or step < config.warmup:
        return config.lr * warm
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup)))


@lru_cache(maxsize=2)
def _permutation(N: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(N, generator=_generator(seed, 0, epoch))


def _generator(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


def save(state: TrainState, path: str | Path) -> Path:
    """Write the whole run to one file: weights, average, optimizer; configs, step and losses in the header."""
    moments = state.optimizer.state_dict()["state"]
    tensors = {f"net.{k}": v for k, v in state.model.net.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in state.ema.state_dict().items()}
    tensors |= {f"optimizer.{i}.{k}": v for i, values in moments.items() for k, v in values.items()}
    tensors |= {"losses": torch.tensor(state.losses, dtype=torch.float64)}
    if state.model.config.schedule == "custom":
        tensors["alpha_bar"] = state.model.schedule.alpha_bar
    header = {"model": asdict(state.model.config), "net": type(state.model.net).__name__, "train": asdict(state.config), "step": state.step}
    return write(path, tensors, "checkpoint", header)


def resume(path: str | Path, where: torch.device | str = "cpu", net: nn.Module | None = None) -> TrainState:
    """The run that `save` wrote, on a device and ready for `train`.  A model with your own network needs that network: net=…"""
    tensors, header = read(path, "checkpoint")
    if header["net"] != "UNet" and net is None:
        raise ValueError(f"{path} is a run of your own network {header['net']}: build it, and pass it as net=…")
    schedule = Schedule(tensors["alpha_bar"]) if "alpha_bar" in tensors else None
    model = DDPM(DDPMConfig(**header["model"]), net, schedule).to(where)
    state = TrainState(model, TrainConfig(**header["train"]), header["step"], tensors["losses"].tolist())
    load_weights(state.model.net, _part(tensors, "net."), path)
    load_weights(state.ema, _part(tensors, "ema."), path)
    parameters, moments = list(model.net.parameters()), {}
    for key, value in _part(tensors, "optimizer.").items():
        i, name = key.split(".", 1)
        parameter = parameters[int(i)]
        if value.shape == parameter.shape:                      # laid out in memory like its parameter: the fused AdamW takes that for granted
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        moments.setdefault(int(i), {})[name] = value
    state.optimizer.load_state_dict({"state": moments, "param_groups": state.optimizer.state_dict()["param_groups"]})
    return state


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def device() -> torch.device:
    """The best device at hand: a CUDA GPU, an Apple GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
