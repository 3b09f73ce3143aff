"""What differs from class to class and cannot be computed in the notebook, since it would be read there: seals, the bugs of a script, and a sentence.

    sources = resealed(sources, 42)             of one exercise, in which the line  SEALS_1 = {…}  and the register of names stand, or a cell  SCRIPT = …

Sealed answers can be compared by a check, and nobody reads them at a glance.
A seal of one class says nothing about another's: what somebody has found out and published has to be found out again.
"""

import ast
import hashlib
import random
import re
from itertools import product

OTHERWISE = ("**In your class** a noise level is told in another way than the table says: the parameters cell prints which. "
             "Go back to $\\bar\\alpha$ first: it is $\\bar\\alpha$ that the table compares, and that is 1 at the end.")

# The script of exercise 07, part by part: what is healthy, and the same when it is ill.  Every class has one bug of each part: of the data, of the average
# and of the walk or its clock, so that none hides another's symptom.
BUGS = (
    (("classes[order]", "classes[torch.randperm(len(points), generator=generator)]"),
     ("a.sqrt() * x_0 + (1 - a).sqrt() * eps", "a * x_0 + (1 - a) * eps")),
    (("mean = copy.deepcopy(net.state_dict())", "mean = net.state_dict()"),
     ("lerp_(weight, 1 - d)", "lerp_(weight, d)")),
    (("net(x_t, clock(t), dropped", "net(x_t, t, dropped"),
     ("x = torch.randn(len(y)", "x = torch.rand(len(y)"),
     ("(1 - alpha_bar[s]).sqrt() * eps", "(1 - alpha_bar[t]).sqrt() * eps")),
)


def seal(seed: int, patient: str, name: str) -> str:
    return hashlib.sha256(f"{seed} {patient} {name}".encode()).hexdigest()[:8]


def with_bugs(script: str, seed: int) -> str:
    """The script with the bugs of another class; the source has the first ones, those of class 0, and no other class has all of these."""
    first, *others = product(*BUGS)
    for healthy, ill in first:
        script = script.replace(ill, healthy)
    for healthy, ill in random.Random(seed).choice(others) if seed else first:
        script = script.replace(healthy, ill)
    return script


def resealed(sources: list[str], seed: int) -> list[str]:
    """The same cells with the seals and bugs of another class; the source has those of class 0."""
    if seed:
        sources = [source.replace("<!-- level -->", OTHERWISE) for source in sources]
    sources = [with_bugs(source, seed) if source.startswith("SCRIPT = ") else source for source in sources]
    register = next((found[1] for source in sources if (found := re.search(r"(?ms)^REGISTER = (\{.*?^\})", source))), "{}")
    names = list(ast.literal_eval(register))

    def again(line: re.Match) -> str:
        behind = {patient: next(n for n in names if seal(0, patient, n) == old) for patient, old in ast.literal_eval(line[2]).items()}
        return f"{line[1]} = {({patient: seal(seed, patient, name) for patient, name in behind.items()})}".replace("'", '"')

    return [re.sub(r"(?m)^(SEALS_\d+) = (\{.*\})$", again, source) for source in sources]
