"""What is said about bad arguments of the subject: what was given, what is allowed, what to do.

In this package a name means one thing: `x_t` is a noisy batch, `t` its time, `schedule` a Schedule, wherever they stand.  So the public functions of
the subject wear `@checked`, which looks up each argument *by its name* in the table at the end of this file, and says the sentence there.  What is
left in the function is its equation.  What a name cannot say (a step that needs noise and got none) stays in the function.

Where a letter means two things, the declared type tells them apart: "s: float" is the offset of the cosine schedule, "s" is a time.

No check looks at values on a CUDA GPU, which would have to stop and wait; and all step aside while torch compiles or exports.
A leaf: this file imports nothing of ours.
"""

import functools
import inspect
import math
import operator
import warnings
from collections.abc import Callable, Iterable
from itertools import pairwise
from numbers import Real
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

F = TypeVar("F", bound=Callable)

PREDICTIONS = ("eps", "x0", "v", "velocity")
SAMPLERS = ("ddpm", "ddim", "dpm++")
SIGNAL_MAX = 0.05   # sampling starts from N(0, I); with more signal than this left at T it starts from the wrong place


def checked(function: F) -> F:
    """The function, with each argument held against the rule for its name before anything is computed."""
    parameters = inspect.signature(function).parameters
    names = list(parameters)
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    rules = [(name, rule) for name, p in parameters.items() if (rule := RULES.get(f"{name}: {_type(p)}") or RULES.get(name))]
    images = [name for name in names if name in IMAGES]
    rules += [(name, _floating if name == images[0] else functools.partial(_like, images[0])) for name in images]
    rules.sort(key=lambda rule: names.index(rule[0]))

    @functools.wraps(function)
    def call(*args, **options):
        if not torch.compiler.is_compiling():
            given = {**defaults, **dict(zip(names, args)), **options}
            for name, rule in rules:
                if name in given:                               # where it is missing, Python says so better
                    rule(name, given[name], given)
        return function(*args, **options)

    return cast(F, call)


def _type(parameter: inspect.Parameter) -> str:
    return getattr(parameter.annotation, "__name__", str(parameter.annotation))


# Numbers.

def described(value: Any) -> str:
    """What was given, in an error message."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} on {value.device}"
    text = f"{value.dtype} {value.shape}" if hasattr(value, "dtype") and getattr(value, "shape", None) else " ".join(repr(value).split())  # arrays have lines
    return f"{text:.100} ({type(value).__name__})"


def integer(value: int, name: str, least: int = 1, most: float = math.inf) -> int:
    """The value as a Python int, if it is an integer from least to most; otherwise an error that says which and what."""
    allowed = f"{least} … {most}" if most < math.inf else f"≥ {least}"
    try:
        i = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        i = None
    if i is None:
        raise TypeError(f"{name} is {value!r}; it must be an integer, {allowed}")
    if not least <= i <= most:
        raise ValueError(f"{name} is {i}; it must be {allowed}")
    return i


def number(value: float, name: str, least: float = -math.inf, most: float = math.inf) -> float:
    """The value as a Python float, if it is a finite number from least to most; otherwise an error that says which and what."""
    allowed = f", {least} … {most}" if most < math.inf else f" ≥ {least}" if least > -math.inf else ""
    if not isinstance(value, Real) and not (isinstance(value, Tensor) and value.ndim == 0):
        raise TypeError(f"{name} is {value!r}; it must be a number{allowed}")
    if not (math.isfinite(value) and least <= value <= most):
        raise ValueError(f"{name} is {value}; it must be a finite number{allowed}")
    return float(value)


def choice(value: object, what: str, allowed: Iterable[str]) -> None:
    """One word out of a few."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"unknown {what} {value!r}; choose one of {', '.join(allowed)}")


# Tensors.

def floating(value: Tensor, name: str) -> None:
    """A tensor of floating-point numbers: rounded to integers, the coefficients of a diffusion would be 0 or 1."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"{name} is {described(value)}; it must be a tensor of floating-point numbers (images: see data.normalise)")


def alike(**two: Tensor) -> None:
    """Two tensors of floating-point numbers, of one shape and on one device."""
    (a, x), (b, z) = two.items()
    floating(x, a)
    floating(z, b)
    if x.shape != z.shape:
        raise ValueError(f"{a} has shape {tuple(x.shape)} and {b} has shape {tuple(z.shape)}; they must be equal (broadcasting would hide a bug)")
    if x.device != z.device:
        raise ValueError(f"{a} is on {x.device} and {b} is on {z.device}; they must be on one device")


def finite(**one: Tensor) -> None:
    """No NaN and no infinity, where looking makes no GPU wait."""
    (name, x), = one.items()
    if not x.is_cuda and not x.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinity")


# Times.

def noisy(t: int | Tensor) -> None:
    """Not t = 0: there is no noise there, and so no ε to be named."""
    if torch.compiler.is_compiling():
        return
    if (not isinstance(t, Tensor) and integer(t, "t", 0) < 1) or (isinstance(t, Tensor) and not t.is_cuda and (t < 1).any()):
        raise ValueError(f"t is {t}; at t = 0 there is no noise to name, a denoiser is asked at 1 ≤ t ≤ T")


def _T(given: dict) -> float:
    """The length of the chain that the arguments speak of."""
    if "schedule" in given or "self" in given:
        owner = given.get("schedule", given.get("self"))
        return len(getattr(owner, "schedule", owner).alpha_bar) - 1
    return given.get("T", math.inf)


def within_chain(t: int | Tensor, T: int) -> None:
    """0 ≤ t ≤ T: an int, or integers (B,) as far as they can be seen without making a GPU wait."""
    if (type(t) is int and 0 <= t <= T) or torch.compiler.is_compiling():
        return
    if not isinstance(t, Tensor):
        integer(t, "t", 0, T)
        return
    if t.is_floating_point() or t.is_complex() or t.dtype == torch.bool or t.ndim > 1:
        raise TypeError(f"t is a {t.dtype} tensor of shape {tuple(t.shape)}; it must hold integers, of shape () or (B,)")
    if t.numel() and not t.is_cuda:
        low, high = t.aminmax()
        if low.item() < 0 or high.item() > T:
            raise ValueError(f"t is {t.tolist()}; it must lie in 0 … T = {T}, where 0 is the data")


def fits(c: Tensor, x: Tensor) -> None:
    """One coefficient, or one for each of a batch of floating-point numbers."""
    if torch.compiler.is_compiling():
        return
    floating(x, "x")
    if c.ndim == 1 and len(c) not in (1, len(x)):
        raise ValueError(f"there are {len(c)} times for a batch of {len(x)}: give one int, or a tensor with one time per image")


def _times(name, t, given):
    """An int, for `Schedule.at` looks at tensors, which all go there."""
    if not isinstance(t, Tensor):
        integer(t, name, 0, _T(given))


def _earlier(name, s, given):
    """0 ≤ s < t."""
    t, T = given["t"], _T(given)
    within_chain(t, T)
    if not isinstance(s, Tensor):
        integer(s, name, 0, T)
    elif isinstance(t, Tensor) and t.device != s.device:
        raise ValueError(f"t is on {t.device} and s on {s.device}; they must be on one device")
    late = s >= t
    if late if isinstance(late, bool) else not late.is_cuda and late.any():
        raise ValueError(f"s = {s} is not before t = {t}: this needs 0 ≤ s < t ≤ T")


def _each(name, t, given):
    """One time for each."""
    if not isinstance(t, Tensor):
        raise TypeError(f"t is {t!r}; the loss takes one time for each image, a tensor (B,)")


def _time(name, t, given):
    """One time for all: 0 … T, and for a term of the bound 1 … T."""
    integer(t, name, int("decoder" in given), _T(given))


def _to(name, s, given):
    """Where a step goes: below t, if anything random is in it; without noise DDIM may also go up."""
    integer(s, name, 0, _T(given))
    if s >= given["t"] and given.get("eta", 1.0):
        raise ValueError(f"s = {s} is not before t = {given['t']}: this step goes down, 0 ≤ s < t" + (", or eta must be 0" if "eta" in given else ""))


def drawn(z: Tensor | None) -> Tensor:
    """The noise of a step that needs some."""
    if z is None:
        raise ValueError("this step adds noise: pass z ~ N(0, I) shaped like x_t, or give `sample` a noise function such as seeded_noise(…)")
    return z


def goes_on(t: int, last: tuple | None) -> None:
    """A step that remembers goes on from where the last one ended; last: (t, s, …) of that one."""
    if last and t != last[1]:
        raise ValueError(f"this step remembers a walk that stands at t = {last[1]}, and is asked to go on from t = {t}: "
                         "make a new dpm_solver_2m() for each walk")


def _steps(name, steps, given):
    integer(steps, name, 1, _T(given))


def _list(name, times, given):
    """The times of a walk: strictly falling, or strictly rising."""
    for name in ("steps", "spacing"):
        if given.get(name) is not None:
            raise ValueError(f"give {name} or times (your own list), not both")
    T = _T(given)
    times = [integer(t, "one of the times", 0, T) for t in times]
    moves = [s - t for t, s in pairwise(times)]
    if not moves or not (max(moves) < 0 or min(moves) > 0):
        raise ValueError(f"times must hold at least two numbers within 0 … T = {T}, all falling or all rising; given {times}")


def _whole(name, times, given):
    """A model's own walk: x_T is noise, and a picture is wanted."""
    _list(name, times, given)
    if (T := _T(given)) != times[0] or times[-1] != 0:
        raise ValueError(f"a picture begins as noise at T = {T} and ends at 0; the times given go from {times[0]} to {times[-1]}")


# The rules of the other names.

def _schedule(name, value, given):
    if not isinstance(getattr(value, "alpha_bar", None), Tensor):
        raise TypeError(f"{name} is {described(value)}; it must be a Schedule, such as cosine(1000)")


def a_schedule(value: object) -> None:
    """Complain of everything else, such as a name, or arguments in another order."""
    _schedule("schedule", value, {})


def _floating(name, value, given):
    floating(value, name)


def _like(first, name, value, given):
    """The second batch of a function is shaped like the first."""
    x = given[first]
    if not (type(value) is type(x) is Tensor and value.dtype is x.dtype and value.shape == x.shape and value.device == x.device and x.is_floating_point()):
        alike(**{first: x, name: value})


def _like_x_t(name, value, given):
    alike(**{name: value, "x_t": given["x_t"]})


def _function(name, value, given):
    if not callable(value):
        raise TypeError(f"{name} is {described(value)}; it must be a function")


def _perhaps(rule):
    return lambda name, value, given: None if value is None else rule(name, value, given)


def _integers(least: int):
    return lambda name, value, given: integer(value, name, least)


def _length(name, T, given):
    """Of a chain: tables have T + 1 entries."""
    if integer(T, name) > 1_000_000:
        raise ValueError(f"{name} is {T}; it must be ≤ 1000000: a chain of more steps has more memory to fill than work to do")


def _last(name, last, given):
    """Where a list of times ends its even part: after it began."""
    first = max(given["schedule"].log_snr[-1].item(), -8.0)
    if not number(last, name) > first:
        raise ValueError(f"{name} is {last}; it must be above {first:.2f}, the log SNR at which the even part begins")


def _numbers(least: float = -math.inf, most: float = math.inf):
    return lambda name, value, given: number(value, name, least, most)


def _words(what: str, *allowed: str):
    return lambda name, value, given: choice(value, what, allowed)


def _eta(name, eta, given):
    number(eta, name, 0, 1)
    if eta and given.get("sampler", "ddim") != "ddim":
        raise ValueError("eta belongs to sampler='ddim'; DDPM's own noise is eta = 1, and DPM-Solver++ has none")


def _half_way(name, t, given):
    """How far to go up before coming down again, for DDPM's interpolation; DDIM's goes to T."""
    if (t if given["sampler"] == "ddim" else given["steps"]) is not None:
        raise ValueError("steps belongs to sampler='ddim' (steps each way), t to sampler='ddpm' (how far to noise, and every step back)")
    if t is not None:
        integer(t, name, 0, _T(given))


def _variance(name, value, given):
    if value not in ("small", "large"):
        raise ValueError(f"{name} is {value!r}; choose small or large: σ² = β̃_t or β_t")
    if given.get("sampler", "ddpm") != "ddpm" and value != "small":
        raise ValueError("variance belongs to sampler='ddpm'; DDIM's noise is eta")


def _high(name, high, given):
    low = given["low"]
    if not number(low, "low") < number(high, name):
        raise ValueError(f"low is {low} and high {high}; they must be low < high")


def _interval(name, high, given):
    if integer(given["low"], "low", 0) > integer(high, name, 0):
        raise ValueError(f"low is {given['low']} and high {high}; they must be times low ≤ high")


def _mask(name, mask, given):
    x_0 = given["x_0"]
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"mask is {described(mask)}; it must be a bool tensor, true where x_0 is known")
    if mask.ndim > x_0.ndim or any(m not in (1, n) for m, n in zip(mask.shape[::-1], x_0.shape[::-1])):
        raise ValueError(f"mask has shape {tuple(mask.shape)}; it must fit x_0, {tuple(x_0.shape)}")


def _tau(name, tau, given):
    start, end = given["start"], given["end"]
    if not (number(start, "start") < number(end, "end") and number(tau, name) > 0):
        raise ValueError(f"start is {start}, end {end} and tau {tau}; they must be start < end and tau > 0")


def _betas(name, beta, given):
    if isinstance(beta, str) or not hasattr(beta, "__len__"):
        raise TypeError(f"beta is {beta!r}; it must be a list β_1 … β_T of numbers")
    beta = torch.as_tensor(beta, dtype=torch.float64, device="cpu")
    if beta.ndim != 1 or len(beta) == 0 or not ((0 < beta) & (beta < 1)).all():
        raise ValueError(f"beta must be a list β_1 … β_T of numbers strictly between 0 and 1; given {beta}")


def _indices(name, indices, given):
    if not (isinstance(indices, Iterable) and isinstance(given["shape"], Iterable)):
        raise TypeError(f"indices is {indices!r} and shape {given['shape']!r}; they must be the numbers of the images, such as range(4), and the shape of one")
    for index in indices:
        integer(index, "an index", 0)
    for side in given["shape"]:
        integer(side, "a side of shape", 0)


def _weight(name, weight, given):
    if not isinstance(weight, Tensor) or weight.ndim != 1:
        raise TypeError(f"weight is {described(weight)}; it must be a tensor (n,) of numbers, one for each point on the way")


def _data(name, data, given):
    if not isinstance(data, Tensor) or not data.is_floating_point() or data.ndim < 2 or not data.numel():
        raise TypeError(f"data is {described(data)}; it must be a tensor of floating-point numbers (N, *D) with N ≥ 1 (images: see data.normalise)")
    finite(data=data)


def _dropped(name, dropped, given):
    y = given["y"]
    if not isinstance(y, Tensor) or not isinstance(dropped, Tensor) or dropped.shape != y.shape or dropped.dtype != torch.bool:
        raise ValueError(f"dropped is {described(dropped)} and y {described(y)}; there must be one bool for each label, in tensors (B,)")


def batch_for_bits(x_0: Tensor, decoder: str) -> None:
    """Images to be written down: some, and within the grey levels if there are any."""
    if not x_0.numel():
        raise TypeError(f"x_0 is {described(x_0)}; it must be a tensor of floating-point numbers (B, *D) with B ≥ 1 (images: see data.normalise)")
    if not x_0.is_cuda and not (x_0.isfinite().all() and (decoder != "discretised" or x_0.abs().max() <= 1)):
        raise ValueError(f"x_0 lies in {x_0.min():.3g} … {x_0.max():.3g}; it must be finite, and within [-1, 1] for the discretised decoder")


# Whole objects: what their constructors say.

def sequence(alpha_bar: Tensor) -> None:
    """1 = ᾱ_0 > ᾱ_1 > … > ᾱ_T > 0, and little of it left at T."""
    a = alpha_bar
    if not isinstance(a, Tensor) or a.ndim != 1 or len(a) < 2 or a.dtype != torch.float64 or a.device.type != "cpu":
        raise TypeError(f"alpha_bar is {described(a)}; it must be a float64 tensor on the CPU with T+1 ≥ 2 entries: ᾱ_0, ᾱ_1, …, ᾱ_T")
    if a[0] != 1:
        raise ValueError(f"alpha_bar[0] is {a[0]:.6g}; it must be exactly 1, because t = 0 is the data. Is the leading 1 missing?")
    if not (a.isfinite().all() and (a.diff() < 0).all() and a[-1] > 0):
        raise ValueError(f"alpha_bar must be finite, strictly decreasing and positive, 1 = ᾱ_0 > ᾱ_1 > … > ᾱ_T > 0; given {a}")
    if (left := a[-1].sqrt().item()) > SIGNAL_MAX:
        warnings.warn(f"this schedule ends with √ᾱ_T = {left:.3f} of the signal left (more than {SIGNAL_MAX}), but sampling starts from "
                      f"pure noise: samples will be off. Use larger β, or rescale them by 1000/T as `linear` does.", stacklevel=4)


def mixture(means: Tensor, cov: Tensor, weights: Tensor, labels: Tensor) -> None:
    """K Gaussians in D dimensions."""
    if means.ndim != 2 or not len(means):
        raise ValueError(f"means has shape {tuple(means.shape)}; it must be (K, D): K points in D dimensions")
    K, D = means.shape
    if cov.shape not in ((), (1,), (K,), (1, D, D), (K, D, D)):
        raise ValueError(f"cov has shape {tuple(cov.shape)}; it must be one variance, K = {K} variances, or matrices ({K}, {D}, {D})")
    if weights.shape != (K,) or labels.shape != (K,) or (weights <= 0).any():
        raise ValueError("every component needs one positive weight and one label")
    if not all(c.isfinite().all() for c in (means, cov, weights)):
        raise ValueError("means, cov and weights must be finite; one of them holds NaN or infinity")
    if cov.ndim == 3:
        if not torch.allclose(cov, cov.mT) or (values := torch.linalg.eigvalsh(cov)).min() < -1e-12 * values.max():
            raise ValueError("every component needs a symmetric covariance with eigenvalues ≥ 0")
    elif cov.min() < 0:
        raise ValueError("every component needs a symmetric covariance with eigenvalues ≥ 0")


def points(x_t: Tensor, place: tuple[int, ...], what: str) -> None:
    """A batch of what an exact denoiser knows: (B, *place)."""
    floating(x_t, "x_t")
    if x_t.shape[1:] != place or x_t.ndim != len(place) + 1:
        raise ValueError(f"x_t has shape {tuple(x_t.shape)}; this {what} lives in (B, {', '.join(map(str, place))})")


def classes(belongs: Tensor, y: int | Tensor, labels: Tensor, B: int) -> None:
    """Labels of a mixture: one for all or one for each, and each of them somebody's.   belongs (1 or B, K) bool"""
    if len(belongs) not in (1, B):
        raise ValueError(f"there are {len(belongs)} labels y for a batch of {B}: give one, or one for each")
    if not belongs.any(1).all():
        raise ValueError(f"y is {y}; this mixture has the classes {sorted(set(labels.tolist()))}")


def unet_config(c) -> None:
    """The numbers of a UNetConfig."""
    for name in ("mults", "attention"):
        if not isinstance(value := getattr(c, name), Iterable):
            raise TypeError(f"{name} is {value!r}; it must be a tuple of integers")
    counts = [c.channels, c.base, c.blocks, c.groups, *c.mults, 1 if c.num_classes is None else c.num_classes]
    if not tuple(c.mults) or not all(isinstance(n, int) and n >= 1 for n in counts):
        raise ValueError(f"channels, base, blocks, groups, every mult and num_classes (or None) must be integers ≥ 1; given {c}")
    if not (isinstance(c.dropout, (int, float)) and 0 <= c.dropout < 1):
        raise ValueError(f"dropout is {c.dropout}; it is a probability, 0 … 1, without 1")
    if c.base % c.groups or c.base < 4 or c.base % 2:
        raise ValueError(f"base is {c.base}; it must be even, ≥ 4 and a multiple of groups = {c.groups}")
    if c.groups == c.base * min(c.mults):                       # a norm takes out what is the same in its whole group, and the time adds just that
        raise ValueError(f"groups is {c.groups}, one for each channel of a level, whose blocks would not see the time; choose {c.base // 2} or fewer")
    if not set(c.attention) <= set(range(len(c.mults))):
        raise ValueError(f"attention is {c.attention}; the levels are 0 … {len(c.mults) - 1}")


def mlp(dim: int, width: int, layers: int, num_classes: int | None) -> None:
    """The numbers of an MLP."""
    if not all(isinstance(n, int) and n >= 1 for n in (dim, width, layers, 1 if num_classes is None else num_classes)) or width < 4 or width % 2:
        raise ValueError(f"dim is {dim}, width {width}, layers {layers} and num_classes {num_classes}; they must be ≥ 1 (or None), and width even, ≥ 4")


def embedding(t: Tensor, dim: int) -> None:
    """Times (B,), and how many numbers tell each of them."""
    if not isinstance(dim, int) or dim < 4 or dim % 2:
        raise ValueError(f"dim is {dim}; it must be even and ≥ 4: half of it are sines, half cosines")
    if not isinstance(t, Tensor) or t.ndim != 1:
        raise TypeError(f"t is {described(t)}; it must be a tensor of times, (B,)")


def unet_input(net: Any, x_t: Tensor, t: Tensor, y: Tensor | None) -> None:
    """What a U-Net is called with."""
    if torch.compiler.is_compiling():
        return
    channels, halvings = net.config.channels, len(net.config.mults) - 1
    _like_weights(x_t, net.conv_in.weight)
    if x_t.ndim != 4 or x_t.shape[1] != channels:
        raise ValueError(f"x_t has shape {tuple(x_t.shape)}; this U-Net takes (B, {channels}, H, W)")
    if x_t.shape[2] % 2**halvings or x_t.shape[3] % 2**halvings:
        raise ValueError(f"the image is {x_t.shape[2]}×{x_t.shape[3]}; this U-Net halves it {halvings} times, so both sides must be multiples of {2**halvings}")
    _times_and_labels(x_t, t, y, net.config.num_classes)


def mlp_input(net: Any, x_t: Tensor, t: Tensor, y: Tensor | None) -> None:
    """What an MLP is called with."""
    if torch.compiler.is_compiling():
        return
    _like_weights(x_t, net.first.weight)
    if x_t.ndim != 2 or x_t.shape[1] != net.dim:
        raise ValueError(f"x_t has shape {tuple(x_t.shape)}; this network takes (B, {net.dim})")
    _times_and_labels(x_t, t, y, net.num_classes)


def _like_weights(x_t: Tensor, weight: Tensor) -> None:
    if not isinstance(x_t, Tensor) or x_t.dtype != weight.dtype or x_t.device != weight.device:
        raise TypeError(f"x_t is {described(x_t)}; this network takes a tensor of {weight.dtype} on {weight.device}, as its weights are")


def _times_and_labels(x_t: Tensor, t: Tensor, y: Tensor | None, num_classes: int | None) -> None:
    if not isinstance(t, Tensor) or t.shape != x_t.shape[:1] or t.is_floating_point():
        raise ValueError(f"t is {described(t)}; a network takes one integer time for each of the {len(x_t)} in the batch (a denoiser also takes an int)")
    if y is None:
        return
    if num_classes is None:
        raise ValueError("labels were given, but this network has num_classes=None")
    if not isinstance(y, Tensor) or y.shape != x_t.shape[:1] or y.is_floating_point():
        raise ValueError(f"y is {described(y)}; it must hold one integer label for each of the {len(x_t)} in the batch")
    if y.device.type == "cpu" and len(y) and not (0 <= y.min() and y.max() <= num_classes):
        raise ValueError(f"labels must lie in 0 … {num_classes - 1}, or be the null label {num_classes}; given {y.min()} … {y.max()}")


def one_for_each(log_p: Tensor, x: Tensor) -> None:
    """What a classifier's log_prob answers with."""
    if log_p.shape != x.shape[:1]:
        raise ValueError(f"log_prob answers with shape {tuple(log_p.shape)}; it must be (B,), one number for each of the {len(x)}")


def answer(out: object) -> None:
    """What a network answers with."""
    if not isinstance(out, Tensor):
        raise TypeError(f"the network answers with {described(out)}; it must answer with a tensor shaped like x_t")


def ddpm_config(c: Any, unet_kind: type) -> None:
    """The numbers of a DDPMConfig, whose U-Net is built already."""
    unet: Any = c.unet
    if not isinstance(c.unet, unet_kind):
        raise TypeError(f"unet is {unet!r}; it must be a UNetConfig")
    choice(c.predict, "prediction", PREDICTIONS)
    number(c.p_uncond, "p_uncond", 0, 1)
    integer(c.image_size, "image_size")
    if (unet.channels, unet.num_classes) != (c.channels, c.num_classes):
        raise ValueError(f"the U-Net is for {unet.channels} channels and {unet.num_classes} classes, the model for {c.channels} and {c.num_classes}")
    if c.classes and (len(set(c.classes)) != len(c.classes) or len(c.classes) != (c.num_classes or 1)):
        raise ValueError(f"classes are {c.classes}; they must be {c.num_classes or 1} different names, one for each label")


def images(x_0: Tensor, shape: tuple[int, ...]) -> None:
    """A batch for a model of images: its shape, floats, and [-1, 1] give or take a stray."""
    if not isinstance(x_0, Tensor) or x_0.shape[1:] != shape or not x_0.is_floating_point():
        raise ValueError(f"images are {described(x_0)}; this model takes float (B, {', '.join(map(str, shape))}) in [-1, 1]: see data.normalise")
    if not x_0.is_cuda and not x_0.isfinite().all():
        raise ValueError("the images hold NaN or infinity")
    if not x_0.is_cuda and len(x_0) and (most := x_0.abs().max().item()) > 1.5:
        raise ValueError(f"the images reach ±{most:.3g}; this model takes [-1, 1]: see data.normalise")


def labels(y: Tensor, n: int, num_classes: int | None, null: bool = True) -> None:
    """n labels of a model; null: whether its null label is one."""
    if num_classes is None:
        raise ValueError("labels were given, but this model has num_classes=None")
    if y.shape != (n,) or y.is_floating_point():
        raise ValueError(f"y is {y.dtype} {tuple(y.shape)}; it must be one integer label, or {n} of them")
    if not y.is_cuda and len(y) and not (0 <= y.min() and y.max() < num_classes + null):
        raise ValueError(f"labels must lie in 0 … {num_classes - 1} ({num_classes} is the null label"
                         f"{'' if null else ', which training draws by itself: do your labels begin at 1?'}); given {y.min()} … {y.max()}")


def guided(y: object, scale: float) -> None:
    """A scale says how far to go from "no label" to the label: without labels there is no way to go."""
    if y is None and scale not in (0, 1):
        raise ValueError(f"scale is {scale}, but there are no labels to be guided by: pass y")


def model(config: Any, net: object, schedule: object) -> None:
    """The parts of a DDPM."""
    if schedule is not None:
        a_schedule(schedule)
    if net is not None and not isinstance(net, nn.Module):
        raise TypeError(f"net is {described(net)}; a model takes a torch.nn.Module, whose weights it can move and save "
                        "(`denoiser` and `loss` take any function)")
    least = 2 ** (len(config.unet.mults) - 1)
    if net is None and config.image_size % least:
        raise ValueError(f"image_size is {config.image_size}; the U-Net's {len(config.unet.mults)} levels need a multiple of {least}")


def same_chain(net: Any, T: int) -> None:
    """A network knows its times by their number, and remembers the length of the chain that it was trained with."""
    if (trained := getattr(net, "trained_T", T)) != T:
        warnings.warn(f"this network was trained with T = {trained} times, and is now asked at 1 … {T}: t means another noise level, and samples will be "
                      f"off. For fewer steps keep T = {trained} and say steps=…", stacklevel=4)


# The table.

IMAGES = {"x_0", "x_t", "x_s", "x", "eps", "out", "a", "b"}      # batches; the one that comes first is what the others are shaped like

RULES: dict[str, Callable] = {
    "schedule": _schedule,
    "z": _perhaps(_like_x_t),
    "t": _times, "s": _earlier, "s: float": _numbers(0),
    "t: int": _time, "t: Tensor": _each, "t: int | None": _half_way, "s: int": _to,
    "T": _length, "steps": _perhaps(_steps), "times": _perhaps(_list), "times: list[int] | None": _perhaps(_whole),
    **dict.fromkeys(("n", "K", "batch"), _integers(1)), **dict.fromkeys(("seed", "first", "null"), _integers(0)), "levels": _integers(2),
    **dict.fromkeys(("beta_1", "beta_T", "std"), _numbers(0)), **dict.fromkeys(("radius", "scale"), _numbers()),
    "last": _last, "beta": _betas, "tau": _tau, "eta": _eta, "variance": _variance, "high": _high, "high: int": _interval, "mask": _mask,
    "predict": _words("prediction", *PREDICTIONS), "decoder": _words("decoder", "gaussian", "discretised"),
    "sampler": _words("sampler", *SAMPLERS), "spacing": _perhaps(_words("spacing", "even", "log-snr")),
    **dict.fromkeys(("denoiser", "net", "cond", "uncond", "log_prob", "step", "inside", "outside"), _function), "noise": _perhaps(_function),
    "indices": _indices, "weight": _weight, "data": _data, "dropped": _dropped,
}
