"""The Gaussian algebra between x_0, x_t, ε and v.

[1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. arXiv:2006.11239
[2] Salimans, Ho. Progressive Distillation for Fast Sampling of Diffusion Models. arXiv:2202.00512

Shapes: x_0, x_t, eps, v are (B, *D) for any D: (C, H, W) for images, (2,) for points.  t, s: an int, or one per image (B,).
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .checks import a_schedule, described, integer
from .schedules import Schedule, like

Denoiser = Callable[[Tensor, int | Tensor], Tensor]             # eps (B, *D) = denoiser(x_t (B, *D), t), 1 ≤ t ≤ T

PREDICTIONS = ("eps", "x0", "v")


def q_sample(schedule: Schedule, x_0: Tensor, eps: Tensor, t: int | Tensor) -> Tensor:
    """[1] eq. 4:  x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε."""
    _checked(schedule, x_0=x_0, eps=eps)
    return schedule.signal(t, x_0) * x_0 + schedule.noise(t, x_0) * eps


def q_step(schedule: Schedule, x_s: Tensor, eps: Tensor, t: int | Tensor, s: int | Tensor) -> Tensor:
    """[1] eq. 2, from any s < t:  x_t = √α x_s + √(1-α) ε  with  α = ᾱ_t/ᾱ_s.  The paper has s = t-1, α = 1-β_t."""
    _checked(schedule, x_s=x_s, eps=eps)
    alpha = _ratio(schedule, t, s)
    return like(alpha.sqrt(), x_s) * x_s + like((1 - alpha).sqrt(), x_s) * eps


def q_posterior(schedule: Schedule, x_t: Tensor, x_0: Tensor, t: int | Tensor, s: int | Tensor) -> tuple[Tensor, Tensor]:
    """[1] eqs. 6-7, for any s < t: mean (B, *D) and variance (1 or B, 1, …) of q(x_s | x_t, x_0).  The paper has s = t-1."""
    _checked(schedule, x_t=x_t, x_0=x_0)
    alpha = _ratio(schedule, t, s)                              # α_t  when s = t-1
    beta = 1 - alpha                                            # β_t  when s = t-1
    alpha_bar_t, alpha_bar_s = schedule.at(t), schedule.at(s)
    c_0 = alpha_bar_s.sqrt() * beta / (1 - alpha_bar_t)
    c_t = alpha.sqrt() * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    var = (1 - alpha_bar_s) / (1 - alpha_bar_t) * beta          # β̃_t when s = t-1
    return like(c_0, x_t) * x_0 + like(c_t, x_t) * x_t, like(var, x_t)      # s = 0 gives exactly (x_0, 0): no special case


def x0_from_eps(schedule: Schedule, x_t: Tensor, eps: Tensor, t: int | Tensor) -> Tensor:
    """[1] eq. 15, which is eq. 4 solved for x_0:  x_0 = (x_t - √(1-ᾱ_t) ε) / √ᾱ_t."""
    _checked(schedule, x_t=x_t, eps=eps)
    return (x_t - schedule.noise(t, x_t) * eps) / schedule.signal(t, x_t)


def eps_from_x0(schedule: Schedule, x_t: Tensor, x_0: Tensor, t: int | Tensor) -> Tensor:
    """[1] eq. 4 solved for ε:  ε = (x_t - √ᾱ_t x_0) / √(1-ᾱ_t),  for t ≥ 1."""
    _checked(schedule, x_t=x_t, x_0=x_0)
    noisy(t)
    return (x_t - schedule.signal(t, x_t) * x_0) / schedule.noise(t, x_t)


def target(schedule: Schedule, x_0: Tensor, eps: Tensor, t: int | Tensor, predict: str = "eps") -> Tensor:
    """What a network is asked for:  ε,  x_0,  or  v = √ᾱ_t ε - √(1-ᾱ_t) x_0  ([2] section 4)."""
    _checked(schedule, x_0=x_0, eps=eps)
    match _known(predict):
        case "eps": return eps
        case "x0":  return x_0
        case "v":   return schedule.signal(t, x_0) * eps - schedule.noise(t, x_0) * x_0


def to_eps(schedule: Schedule, x_t: Tensor, out: Tensor, t: int | Tensor, predict: str = "eps") -> Tensor:
    """Read a network's output as ε, whatever it was trained to predict:  ε = √ᾱ_t v + √(1-ᾱ_t) x_t  for "v"."""
    _checked(schedule, x_t=x_t, out=out)
    match _known(predict):
        case "eps": return out
        case "x0":  return eps_from_x0(schedule, x_t, out, t)
        case "v":   return schedule.signal(t, x_t) * out + schedule.noise(t, x_t) * x_t


@dataclass(frozen=True, eq=False)
class NetDenoiser:
    """What `denoiser` makes: a network, and how to read it as ε."""

    net: Callable
    schedule: Schedule
    y: Tensor | None
    predict: str

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        noisy(t)
        like(self.schedule.at(t), x_t)                          # complains of times that are no integers in 0 … T, or not one per image
        times = t.to(x_t.device).expand(len(x_t)) if isinstance(t, Tensor) else torch.full((len(x_t),), t, device=x_t.device)
        with evaluating(self.net):
            out = self.net(x_t, times) if self.y is None else self.net(x_t, times, self.y)
        if not isinstance(out, Tensor):
            raise TypeError(f"the network answers with {described(out)}; it must answer with a tensor shaped like x_t")
        return to_eps(self.schedule, x_t, out.to(x_t.dtype), t, self.predict)


def denoiser(net: Callable, schedule: Schedule, y: Tensor | None = None, predict: str = "eps") -> Denoiser:
    """A network as a denoiser: `net(x_t, t)` or, with labels y (B,), `net(x_t, t, y)`; t reaches it as (B,) on x_t's device.

    The answer has x_t's type, whatever the network computes in.  A module is in eval mode for the call and gets its modes back.
    """
    functions(net=net)
    a_schedule(schedule)
    return NetDenoiser(net, schedule, y, _known(predict))


@contextmanager
def evaluating(net: Callable):
    """Eval mode inside the block for a network in training; afterwards every module is in the mode it was in.

    (Dropout must not run while sampling.)
    """
    training = [m for m in net.modules() if m.training] if isinstance(net, nn.Module) and net.training else []
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def _ratio(schedule: Schedule, t: int | Tensor, s: int | Tensor) -> Tensor:
    """α = ᾱ_t/ᾱ_s for s < t."""
    alpha = schedule.at(t) / schedule.at(s)
    if not alpha.is_cuda and (alpha >= 1).any():                # ᾱ decreases strictly, so this says s ≥ t
        raise ValueError(f"s = {s} is not before t = {t}: this needs 0 ≤ s < t ≤ T")
    return alpha


def noisy(t: int | Tensor) -> None:
    """Complain of t = 0."""
    if (not isinstance(t, Tensor) and integer(t, "t", 0) < 1) or (isinstance(t, Tensor) and not t.is_cuda and (t < 1).any()):
        raise ValueError(f"t is {t}; at t = 0 there is no noise to name, a denoiser is asked at 1 ≤ t ≤ T")


def _known(predict: str) -> str:
    if not isinstance(predict, str) or predict not in PREDICTIONS:
        raise ValueError(f"unknown prediction {predict!r}; choose one of {', '.join(PREDICTIONS)}")
    return predict


def _checked(schedule: Schedule, **two: Tensor) -> None:
    a_schedule(schedule)
    alike(**two)


def alike(**two: Tensor) -> None:
    """Two tensors of floating-point numbers, of one shape and on one device; otherwise an error that says which and what."""
    (a, x), (b, z) = two.items()
    for name, value in two.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(f"{name} is {described(value)}; it must be a tensor of floating-point numbers (images: see data.normalise)")
    if x.shape != z.shape:
        raise ValueError(f"{a} has shape {tuple(x.shape)} and {b} has shape {tuple(z.shape)}; they must be equal (broadcasting would hide a bug)")
    if x.device != z.device:
        raise ValueError(f"{a} is on {x.device} and {b} is on {z.device}; they must be on one device")


def functions(**given: Callable) -> None:
    """Complain at the call, and not in the middle of a walk, of what is no function."""
    for name, value in given.items():
        if not callable(value):
            raise TypeError(f"{name} is {described(value)}; it must be a function")
