"""Grade an exercise in this process: the points that nbgrader would give, without starting a kernel.

    python tests/exercises/runner.py 01_noise_schedules [--seed 7]     every graded cell with its seconds, then every answer of the catalogue

A check cell has its points unless it raises.  Cells are run in order, as a notebook is, and an error stops nothing but its own cell.
`answers/<name>.py` holds the catalogue: RIGHT, WRONG and SEEDED, described in test_answers.py.
"""

import ast
import contextlib
import io
import re
import runpy
import sys
import time
import warnings
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nbformat

ROOT = Path(__file__).parents[2]
SOURCE, RELEASE, ANSWERS = ROOT / "exercises" / "source", ROOT / "exercises" / "release", Path(__file__).parent / "answers"
NAMES = sorted(path.name for path in SOURCE.glob("[0-9]*") if (ANSWERS / f"{path.name}.py").is_file())

sys.path.insert(0, str(ROOT / "exercises"))
from grader.sandbox import names_of  # noqa: E402
from grader.seals import resealed  # noqa: E402

STUB = {"code": "# YOUR CODE HERE\nraise NotImplementedError()", "markdown": "YOUR ANSWER HERE"}
SOLUTION = re.compile(r"(?ms)^([ \t]*)[^\n]*BEGIN SOLUTION.*?END SOLUTION[^\n]*\n?")
HIDDEN = re.compile(r"(?ms)^[^\n]*BEGIN HIDDEN TESTS.*?END HIDDEN TESTS[^\n]*\n?")


class Cell(NamedTuple):
    name: str                                                   # nbgrader's grade_id, "" for text
    kind: str                                                   # text, code, picture, answer, question or check
    source: str
    points: int


def read(name: str, folder: Path = SOURCE) -> list[Cell]:
    cells = []
    for cell in nbformat.read(folder / name / f"{name}.ipynb", as_version=4).cells:
        meta = cell.metadata.get("nbgrader", {})
        grade, solution = meta.get("grade", False), meta.get("solution", False)
        kind = {(True, True): "question", (True, False): "check", (False, True): "answer"}.get((grade, solution), "code" if meta else "text")
        if "picture" in cell.metadata.get("tags", []):
            kind = "picture"
        cells.append(Cell(meta.get("grade_id", ""), kind, cell.source, meta.get("points", 0)))
    return cells


def blank(cell: Cell) -> str:
    """What a student is given: no solution, no hidden test."""
    stub = STUB["markdown" if cell.kind == "question" else "code"]
    source = SOLUTION.sub(lambda m: "".join(f"{m[1]}{line}\n" for line in stub.split("\n")), cell.source)
    return HIDDEN.sub("", source).rstrip("\n")


def visible(cell: Cell) -> Cell:
    return cell._replace(source=HIDDEN.sub("", cell.source))


def seeded(cells: list[Cell], seed: int) -> list[Cell]:
    """The exercise of another class: the one line that the teacher changes, and the seals."""
    cells = [c._replace(source=re.sub(r"\ACLASS_SEED = \d+", f"CLASS_SEED = {seed}", c.source)) if c.name == "parameters" else c for c in cells]
    return [c._replace(source=text) for c, text in zip(cells, resealed([c.source for c in cells], seed))]


def execute(cell: Cell, names: dict) -> Exception | None:
    source = re.sub(r"(?m)^%.*$", "", cell.source)              # IPython's magics are for the kernel
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, cell.name or "cell", "exec"), names)
    except Exception as error:
        return error


def taken_in(source: str) -> set[str]:
    """The names that a cell takes from outside and does not make."""
    taken, made = names_of(re.sub(r"(?m)^%.*$", "", source))
    return taken - made


class Exercise:
    """An exercise with its reference solution run once; answers are then tried from the cell on that they replace."""

    def __init__(self, name: str, seed: int = 0):
        self.name, self.cells = name, [c for c in seeded(read(name), seed) if c.kind in ("code", "answer", "check")]
        self.before, self.failed, self.seconds, names = [], {}, {}, {"__name__": "__main__"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for cell in self.cells:
                self.before.append(dict(names))                 # shallow: cells must not change objects of earlier cells
                start = time.process_time()
                error = execute(cell, names)
                self.seconds[cell.name] = time.process_time() - start
                if error:
                    self.failed[cell.name] = error
        self.before.append(names)
        self.taken = [taken_in(c.source) for c in self.cells]

    @property
    def points(self) -> dict[str, int]:
        return {c.name: c.points for c in self.cells if c.kind == "check"}

    def grade(self, answers: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """With these answers in place of the reference: the checks that fail, each with what it said; and those that fail without their hidden tests, too.

        A cell that takes no name which these answers have made otherwise is not run again: it would do what it did.
        """
        unknown = set(answers) - {c.name for c in self.cells if c.kind == "answer"}
        if unknown:
            raise KeyError(f"{self.name} has no answer cell called {', '.join(sorted(unknown))}")
        first = min(i for i, c in enumerate(self.cells) if c.name in answers)
        names, other, failed, said = dict(self.before[first]), set(), {}, {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for cell, taken, was, then in zip(self.cells[first:], self.taken[first:], self.before[first:], self.before[first + 1:]):
                made = {key: value for key, value in then.items() if was.get(key, self) is not value}
                if cell.name not in answers and not taken & other:
                    names.update(made)
                    other -= made.keys()
                    if cell.kind == "check" and cell.name in self.failed:
                        failed[cell.name] = said[cell.name] = str(self.failed[cell.name])
                    continue
                here = dict(names)
                error = execute(cell._replace(source=answers.get(cell.name, cell.source)), names)
                other |= made.keys() | {key for key, value in names.items() if here.get(key, self) is not value}
                if error and cell.kind == "check":
                    failed[cell.name] = f"{type(error).__name__}: {error}"
                    if error := execute(visible(cell), here):
                        said[cell.name] = f"{type(error).__name__}: {error}"
        return failed, said


@cache
def exercise(name: str, seed: int = 0) -> Exercise:
    return Exercise(name, seed)


@cache
def answers(name: str) -> dict:
    return runpy.run_path(str(ANSWERS / f"{name}.py"))


def last_is_statement(source: str) -> bool:
    """nbgrader reads a value that ends a graded cell as partial credit; print(…) has none."""
    last = ast.parse(source).body[-1]
    return not isinstance(last, ast.Expr) or ast.unparse(last).startswith("print(")


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    name, seed = sys.argv[1], int(sys.argv[3]) if "--seed" in sys.argv else 0
    ex = exercise(name, seed)
    for cell in ex.cells:
        print(f"{ex.seconds[cell.name]:7.2f} s  {cell.kind:7} {cell.name:28} {cell.points or '':>2}  {ex.failed.get(cell.name, 'ok')!s:.150}")
    kept = sum(points for check, points in ex.points.items() if check not in ex.failed)
    print(f"{sum(ex.seconds.values()):7.2f} s in all; the public solutions have {kept} of {sum(ex.points.values())} points\n")
    if seed == 0:
        book = answers(name)
        for where, codes in book["RIGHT"].items():
            for i, code in enumerate(codes):
                lost = set(ex.grade({where: code})[0]) - set(ex.failed)
                print(f"{'ok  ' if not lost else 'BAD '} right  {where}[{i}]  {lost or ''}")
        for what, where, code, expected, says in book["WRONG"]:
            lost, said = ({check: text for check, text in of.items() if check not in ex.failed} for of in ex.grade({where: code}))
            fine = set(lost) == set(expected) and (says in next(iter(said.values()), "") if says else not said)
            print(f"{'ok  ' if fine else 'BAD '} wrong  {where}: {what}  loses {', '.join(sorted(lost)) or 'NOTHING'}")
            print(f"             says  {next(iter(said.values()), '(only the hidden test notices)'):.220}")
