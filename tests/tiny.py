"""The smallest run that has everything: what the tests of training, checkpoints, runs and processes start from."""

from dataclasses import replace
import math

import torch
from torch import nn

from ddpm_tutorial import DDPM, DDPMConfig, TrainConfig, TrainState, UNetConfig

UNET = UNetConfig(channels=1, base=8, mults=(1, 2), blocks=1, attention=(), num_classes=2, groups=4)
MODEL = DDPMConfig(image_size=4, channels=1, timesteps=16, schedule="cosine", predict="v", num_classes=2, unet=UNET)
UNLABELLED = replace(MODEL, num_classes=None, unet=replace(UNET, num_classes=None))
RUN = TrainConfig(steps=12, batch=4, lr=1e-2, warmup=3, ema=0.3, seed=5, precision="float32")
IMAGES = torch.rand(10, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
PIXELS = torch.randint(256, (10, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
LABELS = torch.arange(10) % 2


def fresh(config=RUN, **unet):
    torch.manual_seed(0)
    return TrainState(DDPM(replace(MODEL, unet=replace(UNET, **unet))), config)


class Line(nn.Module):
    """The smallest network: ε = w·x_t, and a buffer that counts the calls.  At call `breaks_at` it answers infinity."""

    def __init__(self, breaks_at=None):
        super().__init__()
        self.w, self.breaks_at = nn.Parameter(torch.tensor(1.0)), breaks_at
        self.register_buffer("calls", torch.tensor(0.0))

    def forward(self, x_t, t):
        self.calls += 1
        return self.w * x_t * (math.inf if self.calls - 1 == self.breaks_at else 1)


def fresh_line(breaks_at=None, config=RUN):
    return TrainState(DDPM(UNLABELLED, Line(breaks_at)), config)


def tensors(state):
    """All that a run has learnt, by name."""
    moments = {f"optimizer.{i}.{k}": v for i, values in state.optimizer.state_dict()["state"].items() for k, v in values.items()}
    return {**{f"net.{k}": v for k, v in state.model.net.state_dict().items()}, **{f"ema.{k}": v for k, v in state.ema.state_dict().items()}, **moments}


def assert_same(run, other, tolerance=0.0):
    """The same step, losses, weights, average and optimizer: bit for bit, or up to rounding."""
    ours, theirs = tensors(run), tensors(other)
    assert run.step == other.step and len(run.losses) == len(other.losses) and ours.keys() == theirs.keys()
    torch.testing.assert_close(torch.tensor(run.losses), torch.tensor(other.losses), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(run.loss_by_time, other.loss_by_time, rtol=tolerance, atol=tolerance, equal_nan=True)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")
