"""Every sentence about bad input: what was given, what is allowed, what to do.  A leaf: it imports nothing of ours."""

import math
import operator
from numbers import Real

from torch import Tensor


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


def described(value: object) -> str:
    """What was given, in an error message."""
    return f"{value.dtype} {tuple(value.shape)} on {value.device}" if isinstance(value, Tensor) else f"{value!r:.100} ({type(value).__name__})"


def a_schedule(value: object) -> None:
    """Complain of everything else, such as a name, or arguments in another order."""
    if type(value).__name__ != "Schedule":
        raise TypeError(f"schedule is {described(value)}; it must be a Schedule, such as cosine(1000)")
