"""Answers of 02, 03 and 06 for every class, whichever way it is told a noise level: ᾱ, √ᾱ or √(1-ᾱ)."""

POWER = """
def power(level): return {"power": level, "signal": level**2, "noise": 1 - level**2}[LEVEL]
"""


def told(function, code, *levels):
    """The answer of class 0 for every class: arguments that are noise levels become ᾱ first."""
    return POWER + code + f"""
of_power = {{**globals().get("of_power", {{}}), "{function}": {function}}}
def {function}(*given): return of_power["{function}"](*(power(x) if i in {levels} else x for i, x in enumerate(given)))
"""
