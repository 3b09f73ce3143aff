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
    """The exercise of another class: the one line that the teacher changes."""
    return [c._replace(source=re.sub(r"\ACLASS_SEED = \d+", f"CLASS_SEED = {seed}", c.source)) if c.name == "parameters" else c for c in cells]


def execute(cell: Cell, names: dict) -> Exception | None:
    source = re.sub(r"(?m)^%.*$", "", cell.source)              # IPython's magics are for the kernel
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, cell.name or "cell", "exec"), names)
    except Exception as error:
        return error


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

    @property
    def points(self) -> dict[str, int]:
        return {c.name: c.points for c in self.cells if c.kind == "check"}

    def grade(self, answers: dict[str, str], hidden: bool = True) -> dict[str, str]:
        """The checks that fail with these answers in place of the reference, each with what it said."""
        unknown = set(answers) - {c.name for c in self.cells if c.kind == "answer"}
        if unknown:
            raise KeyError(f"{self.name} has no answer cell called {', '.join(sorted(unknown))}")
        first = min(i for i, c in enumerate(self.cells) if c.name in answers)
        names, failed = dict(self.before[first]), {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for cell in self.cells[first:]:
                cell = cell._replace(source=answers.get(cell.name, cell.source))
                error = execute(cell if hidden else visible(cell), names)
                if error and cell.kind == "check":
                    failed[cell.name] = f"{type(error).__name__}: {error}"
        return failed


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
    print(f"{sum(ex.seconds.values()):7.2f} s in all, {sum(ex.points.values())} points\n")
    if seed == 0:
        book = answers(name)
        for where, codes in book["RIGHT"].items():
            for i, code in enumerate(codes):
                lost = ex.grade({where: code})
                print(f"{'ok  ' if not lost else 'BAD '} right  {where}[{i}]  {lost or ''}")
        for what, where, code, expected, says in book["WRONG"]:
            lost, said = ex.grade({where: code}), ex.grade({where: code}, hidden=False)
            fine = set(lost) == set(expected) and (says in next(iter(said.values()), "") if says else not said)
            print(f"{'ok  ' if fine else 'BAD '} wrong  {where}: {what}  loses {', '.join(sorted(lost)) or 'NOTHING'}")
            print(f"             says  {next(iter(said.values()), '(only the hidden test notices)'):.220}")
