"""What a training run is: how it is to go (TrainConfig, which never changes) and how far it has come (TrainState, which is saved).

Nothing random is in here, and that is the point.  The order of the images is a function of (seed, epoch); t, ε, flips and dropped labels are
functions of (seed, step): see draws.py.  So a run that was stopped and resumed is the run that was never stopped, bit for bit on a CPU.

[1] Esser et al. Scaling Rectified Flow Transformers for High-Resolution Image Synthesis. arXiv:2403.03206, section 3.1
"""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from ..checks import described, integer, number
from ..ddpm import DDPM
from ..weights.files import unwrapped
from .devices import best_precision


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
        self.ema = AveragedModel(unwrapped(self.model.net), multi_avg_fn=self._average)    # parameters only: an averaged buffer blackened every image elsewhere
        self.optimizer = torch.optim.AdamW(self.model.net.parameters(), lr=self.config.lr, betas=self.config.betas,
                                           weight_decay=self.config.weight_decay, fused=True)
        # Gradients below 6e-8 are 0 in float16.  So the loss is multiplied by a large number before, and the gradient divided by it after the backward pass.
        self.scaler = torch.amp.GradScaler(where.type, enabled=self.config.precision == "float16")

    def _average(self, averaged, current, n):
        """θ̄ ← d θ̄ + (1-d) θ with  d = min(ema, (1+step)/(10+step)): short memory at first, or θ̄ would remember the random start.

        (AveragedModel's very first update is a copy.)
        """
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def remember(self, t: Tensor, losses: Tensor) -> None:
        """Count a step: the mean loss of its images (B,), and the running mean of each band of t that was met, moved by 1/20 towards what was met.

        One number hides a lot: near t = T any network is good, near t = 0 none can be.  The bands show where something is still being learnt.
        """
        self.step += 1
        self.losses.append(losses.mean().item())
        band = (t - 1) * BANDS // self.model.schedule.T
        count = band.bincount(minlength=BANDS)
        mean, before = band.bincount(losses, minlength=BANDS).float() / count, self.loss_by_time
        before[:] = torch.where(count == 0, before, torch.where(before.isnan(), mean, torch.lerp(before, mean, 0.05)))

    def refuse_another_chain(self) -> None:
        """A network learns what t = 500 looks like in *its* chain.  In one of another length t = 500 is another amount of noise, and each answer is wrong.

        The length goes with the network from here on, wherever the network goes.
        """
        net, T = unwrapped(self.model.net), self.model.schedule.T
        trained = getattr(net, "trained_T", T)
        if self.step and trained != T:
            raise ValueError(f"this run began with {trained} timesteps, and the model now has {T}: "
                             "its times are not those that the network has learnt; begin a new run")
        net.trained_T = self.ema.module.trained_T = T           # type: ignore[assignment, union-attr]

    def averaged_model(self) -> DDPM:
        """The model to sample from: the averaged weights."""
        config = self.model.config
        return DDPM(config, self.ema.module, self.model.schedule if config.schedule == "custom" else None).eval()
