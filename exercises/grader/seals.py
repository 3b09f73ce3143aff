"""Sealed answers, which a check can compare and nobody reads at a glance, sealed anew for every class.

    sources = resealed(sources, 42)             of one exercise, in which the line  SEALS_1 = {…}  and the register of names stand

A seal of one class says nothing about another's: what somebody has found out and published has to be found out again.
"""

import ast
import hashlib
import re


def seal(seed: int, patient: str, name: str) -> str:
    return hashlib.sha256(f"{seed} {patient} {name}".encode()).hexdigest()[:8]


def resealed(sources: list[str], seed: int) -> list[str]:
    """The same cells with the seals of another class; the source has those of class 0."""
    register = next((found[1] for source in sources if (found := re.search(r"(?ms)^REGISTER = (\{.*?^\})", source))), "{}")
    names = list(ast.literal_eval(register))

    def again(line: re.Match) -> str:
        behind = {patient: next(n for n in names if seal(0, patient, n) == old) for patient, old in ast.literal_eval(line[2]).items()}
        return f"{line[1]} = {({patient: seal(seed, patient, name) for patient, name in behind.items()})}".replace("'", '"')

    return [re.sub(r"(?m)^(SEALS_\d+) = (\{.*\})$", again, source) for source in sources]
