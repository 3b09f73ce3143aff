"""The recipe of `make run` as a submission; and, by its settings, what else was tried.

What differs from training/loop.py: the learning rate follows the processor's clock instead of a number of steps, since a submission has seconds; warm-up is
6 % of them instead of fifty steps; and the images of a batch are drawn anew each time instead of in epochs.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from ddpm_tutorial import DDPM, DDPMConfig, UNetConfig
from ddpm_tutorial.ddpm import drop_labels, loss


def adamw(net: nn.Module, lr: float) -> list[Optimizer]:
    return [torch.optim.AdamW(net.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)]


def train(x: Tensor, y: Tensor, seed: int, left: Callable[[], float], *, optimizers: Callable = adamw, lr: float = 4e-3, warmup: float = 0.06,
          batch: int = 128, ema: float = 0.99, spread: float = 1.2, predict: str = "v", schedule: str = "cosine", base: int = 32, mults: tuple = (1, 2),
          blocks: int = 1, attention: tuple = (1,), dtype: str = "bfloat16") -> DDPM:
    """x (N, 1, 8, 8) in [-1, 1], y (N,);  warmup: share of the time;  spread: of the logit-normal times;  the rest as in training's settings."""
    torch.manual_seed(seed)
    unet = UNetConfig(base=base, mults=mults, blocks=blocks, attention=attention, num_classes=10)
    model = DDPM(DDPMConfig(image_size=8, channels=1, schedule=schedule, predict=predict, num_classes=10, unet=unet))
    average = AveragedModel(model.net, multi_avg_fn=lambda mean, new, n: torch._foreach_lerp_(mean, new, 1 - min(ema, (1 + n.item()) / (10 + n.item()))))
    steppers, whole, T = optimizers(model.net, lr), left(), model.schedule.T
    rates = [[group["lr"] for group in stepper.param_groups] for stepper in steppers]
    while (time := left()) > 0:
        done = 1 - time / whole                                 # 0 … 1
        rate = min(1, done / warmup) if done < warmup else 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
        rows = torch.randint(len(x), (batch,))
        u = (torch.arange(batch) + torch.rand(batch, dtype=torch.float64)) / batch
        t = ((spread * torch.special.ndtri(u)).sigmoid() * T).long().clamp(0, T - 1) + 1
        labels = drop_labels(y[rows], torch.rand(batch) < model.config.p_uncond, 10)
        with torch.autocast("cpu", getattr(torch, dtype), enabled=dtype != "float32"):
            per_image = loss(model.net, model.schedule, x[rows], torch.randn(batch, *x.shape[1:]), t, labels, predict)
        per_image.mean().backward()
        nn.utils.clip_grad_norm_(model.net.parameters(), 1.0)
        for stepper, own in zip(steppers, rates):
            for group, most in zip(stepper.param_groups, own):
                group["lr"] = most * rate
            stepper.step()
        model.net.zero_grad()
        average.update_parameters(model.net)
    return DDPM(model.config, average.module, model.schedule if schedule == "custom" else None)
