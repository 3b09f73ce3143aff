"""A class of thirty made-up hand-ins of one exercise, to be graded with the wall clock:

    python tests/exercises/thirty.py 04_unet_blocks class
    python exercises/grade.py class --exercise 04_unet_blocks --jobs 2

Each has the solutions in it, but for three answers of the catalogue, right or wrong; every third has two cells that are left open.
"""

import random
import re
import sys
from pathlib import Path

import nbformat
from runner import RELEASE, answers, read

if __name__ == "__main__":
    name, folder, chance = sys.argv[1], Path(sys.argv[2]), random.Random(1)
    solutions = {c.name: c.source for c in read(name) if c.kind == "answer"}
    catalogue = [(where, code) for where, codes in answers(name)["RIGHT"].items() for code in codes]
    catalogue += [(where, code) for _, where, code, *_ in answers(name)["WRONG"]]
    for number in range(30):
        notebook = nbformat.read(RELEASE / name / f"{name}.ipynb", as_version=4)
        theirs = solutions | dict(chance.sample(catalogue, 3))
        left_open = set(chance.sample(sorted(solutions), 0 if number % 3 else 2))
        for cell in notebook.cells:
            if cell.id in solutions and cell.id not in left_open:
                cell.source = re.sub(r"(?m)^[ \t]*### (BEGIN|END) SOLUTION\n?", "", theirs[cell.id])
        (folder / f"student {number:02}").mkdir(parents=True)
        nbformat.write(notebook, folder / f"student {number:02}" / f"{name}.ipynb")
