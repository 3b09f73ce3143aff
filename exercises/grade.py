"""Grade a folder of submissions with nbgrader, whatever has been done to them.

    python exercises/grade.py FOLDER --csv grades.csv [--exercise 01_noise_schedules] [--seed 42] [--seconds 60] [--feedback FOLDER]

FOLDER holds a folder per student with notebooks anywhere in it (FOLDER/alice/01_noise_schedules.ipynb), or notebooks named after their students
(FOLDER/alice_01_noise_schedules.ipynb).  Everybody gets a row for every exercise, with a sentence for every check that is lost.

The students' code runs with your rights: use a container, or an account that has nothing to lose.
"""

import argparse
import csv
import re
import shutil
import warnings
from pathlib import Path
from typing import NamedTuple

import nbformat
from release import NAMES, course, source

PLAIN = {"CellTimeoutError": "it ran too long and was stopped: is there an endless loop?", "NotImplementedError": "not answered"}
FATAL = {"DeadKernel": "the kernel died (exit(), or no memory left?)", "CellTimeout": "one of them went on when it was interrupted"}


class Grade(NamedTuple):
    student: str
    exercise: str
    points: int
    max_points: int
    lost: str                                                   # a sentence for every check that has no points
    remark: str                                                 # about the file as a whole


def name_of(cell): return cell.metadata.get("nbgrader", {}).get("grade_id") or cell.get("id", "")
def is_check(cell): return cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade", False)
def is_answer(cell): return cell.metadata.get("nbgrader", {}).get("solution", False)


def hand_ins(folder: Path, names: list[str]) -> tuple[dict[str, dict[str, Path]], list[Path]]:
    """{student: {exercise: file}}, and the files of no exercise; of several files the notebook is taken, and of several notebooks the newest.

    Where one exercise only is asked for, a notebook may have any name but that of another exercise.
    """
    found: dict[str, dict[str, Path]] = {}
    strange = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith((".", "__")) for part in parts):
            continue
        if path.is_dir():
            found.setdefault(parts[0], {})
            continue
        name = next((n for n in NAMES if n in path.name), names[0] if len(names) == 1 and path.suffix == ".ipynb" else None)
        if name is None:
            strange.append(path)
            continue
        student = parts[0] if len(parts) > 1 else path.stem.replace(name, "").strip(" _-") or path.stem
        mine = found.setdefault(student, {})
        if name in names:
            mine[name] = max(path, mine.get(name, path), key=lambda p: (p.suffix == ".ipynb", name in p.name, p.stat().st_mtime))
    return found, strange


def mended(ours: nbformat.NotebookNode, theirs: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The teacher's notebook with the student's answers in it, and the student's own cells where they stood.  What was done to other cells is undone.

    A cell is known by nbgrader's name for it, or by its id, which is the same, where an editor has removed nbgrader's metadata.
    Pictures are left out; and so are shell lines: what a student installs does not belong in the grader.
    """
    def safe(code): return re.sub(r"(?m)^([ \t]*)(!(?!=)|%pip|%conda).*$", r"\1pass", code)

    known = {name_of(c): c for c in ours.cells}
    last = {name_of(c): i for i, c in enumerate(theirs.cells)}  # a cell that was copied or split: the last part has the name
    answers, own, place = {}, {}, None
    for i, cell in enumerate(theirs.cells):
        here = known.get(name_of(cell))
        final = here is not None and last[name_of(cell)] == i
        if final and is_answer(here):
            answers[name_of(cell)] = cell.source if here.cell_type == "markdown" else safe(cell.source)
        elif cell.cell_type == "code" and (here is None or is_answer(here)):
            own.setdefault(place, []).append(nbformat.v4.new_code_cell(safe(cell.source)))
        place = name_of(cell) if final else place               # earlier parts stand before it, in their order
    cells = own.get(None, [])
    for cell in ours.cells:
        if is_answer(cell):
            cell.source = answers.get(name_of(cell), "raise NotImplementedError()")
        if "picture" not in cell.metadata.get("tags", []):
            cells.append(cell)
        cells += own.get(name_of(cell), [])
    return nbformat.NotebookNode({**ours, "cells": cells})


def class_of(theirs: nbformat.NotebookNode) -> int | None:
    """The class whose exercise this is, by the first line of its parameters cell."""
    lines = [re.match(r"CLASS_SEED = (\d+)\b", c.source) for c in theirs.cells if name_of(c) == "parameters"]
    return next((int(line[1]) for line in lines if line), None)


def complaint(cell: nbformat.NotebookNode) -> str:
    """What a cell said when it failed, in one line."""
    said = {o.ename: o.evalue for o in reversed(cell.outputs) if o.output_type == "error"}
    for known, meaning in PLAIN.items():
        if known in said:
            return meaning
    text = "".join(f"{kind}: {what}" for kind, what in said.items()).removeprefix("AssertionError: ")
    return " ".join(re.sub(r"\x1b\[[\d;]*m", "", text).split())[:300]


def grade(api, root: Path, student: str, name: str, path: Path | None, seed: int, number: int, feedback: Path | None) -> Grade:
    ours = source(name, seed)
    nothing = Grade(student, name, 0, sum(c.metadata.nbgrader.points for c in ours.cells if is_check(c)), "everything", "")
    if path is None:
        return nothing._replace(remark="nothing was handed in")
    try:
        theirs = nbformat.read(path, as_version=4)
        answered, their_class = mended(ours, theirs), class_of(theirs)
    except Exception as error:                                  # not JSON, cut off, not a notebook, no right to read it, …
        return nothing._replace(remark=f"{path.name} is not a notebook that can be read ({type(error).__name__})")

    somebody = f"student{number}"                               # nbgrader makes paths and patterns of it: no blanks, no accents
    place = Path(somebody, name, f"{name}.ipynb")
    (root / "submitted" / place).parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(answered, root / "submitted" / place)
    result = api.autograde(name, somebody)
    if not result["success"]:
        log = result.get("log", "") + result["error"]
        why = next((meaning for known, meaning in FATAL.items() if known in log), log.strip().splitlines()[-1])
        return nothing._replace(remark=f"its cells could not be run to the end: {why}")

    with api.gradebook as book:
        scores = {g.name: g.score for n in book.find_submission(name, somebody).notebooks for g in n.grades}
    run = nbformat.read(root / "autograded" / place, as_version=4)
    lost = [f"{c.id} ({c.metadata.nbgrader.points}): {complaint(c)}" for c in run.cells if is_check(c) and scores[c.id] < c.metadata.nbgrader.points]
    remarks = [f"{c.id}: {complaint(c)}" for c in run.cells if is_answer(c) and c.cell_type == "code" and complaint(c)]
    if their_class not in (None, seed):
        remarks.insert(0, f"this is the exercise of class {their_class}, graded as class {seed}")
    if feedback and api.generate_feedback(name, somebody)["success"]:
        (feedback / student).mkdir(parents=True, exist_ok=True)
        shutil.copyfile((root / "feedback" / place).with_suffix(".html"), feedback / student / f"{name}.html")
    return nothing._replace(points=round(sum(scores.values())), lost=" | ".join(lost), remark=" | ".join(remarks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--csv", type=Path, default=Path("grades.csv"))
    parser.add_argument("--exercise", choices=NAMES, help="default: every exercise that somebody has handed in")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the class that was given out")
    parser.add_argument("--seconds", type=int, default=60, help="that a cell may run (default 60)")
    parser.add_argument("--feedback", type=Path, help="write each student's graded notebook there as HTML (it shows the hidden tests)")
    arguments = parser.parse_args()
    found, strange = hand_ins(arguments.folder, [arguments.exercise] if arguments.exercise else NAMES)
    names = [arguments.exercise] if arguments.exercise else [n for n in NAMES if any(n in files for files in found.values())]
    if not found or not names:
        parser.error(f"there is no student's folder and no notebook of an exercise in {arguments.folder}")
    warnings.filterwarnings("ignore", module="nbgrader")        # its own affairs with its database
    with course(names, arguments.seed, arguments.seconds) as (api, root), open(arguments.csv, "w", buffering=1, newline="", encoding="utf-8-sig") as file:
        table = csv.writer(file)
        table.writerow(Grade._fields)
        for name in names:
            for number, (student, files) in enumerate(found.items()):
                table.writerow(row := grade(api, root, student, name, files.get(name), arguments.seed, number, arguments.feedback))
                print(f"{student:24} {name:32} {row.points:4} of {row.max_points}   {row.remark or row.lost or 'all right'}"[:200], flush=True)
    if strange:
        print("not recognised:", ", ".join(str(path.relative_to(arguments.folder)) for path in strange))


if __name__ == "__main__":
    main()
