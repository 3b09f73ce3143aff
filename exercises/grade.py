"""Grade what students have handed in, whatever has been done to it.

    python exercises/grade.py FOLDER --csv grades.csv [--exercise 01_noise_schedules] [--seed 42] [--jobs 2] [--feedback FOLDER] [--course FOLDER] …

FOLDER, or a .zip of it, holds a folder, an archive or a notebook for every student; names do not matter, cells do.  Everybody gets a row for every exercise,
with a sentence for every check that is lost; what cannot be graded is named at the end, and keeps nobody else from a grade.
With --course the nbgrader course is kept: mark the written answers in formgrader there, then grade again.
"""

import argparse
import re
import shutil
import sys
import unicodedata
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from grader import tables
from grader.hand_ins import HandIn, Student, found, name_of
from grader.notebook import Sandbox, about, cells_of, is_answer, is_check, is_written, mended, trusted_of
from grader.sandbox import Limits, Outcome, bubblewrap, run
from grader.tables import Grade
from release import NAMES, course, source


def somebody(student: Student) -> str:
    """A name that nbgrader can make paths and patterns of: no blanks, no accents, nobody else's, and the same whenever the class is graded."""
    plain = unicodedata.normalize("NFKD", student.name).encode("ascii", "ignore").decode()
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', plain).strip('-') or 'student'}-{student.id or f'{zlib.crc32(student.name.encode()):08x}'}"


def class_of(theirs: nbformat.NotebookNode) -> int | None:
    """The class whose exercise this is, by the first line of its parameters cell."""
    lines = [re.match(r"CLASS_SEED = (\d+)\b", c.source) for c in theirs.cells if name_of(c) == "parameters"]
    return next((int(line[1]) for line in lines if line), None)


def graded(hand_in: HandIn | None, name: str, seed: int, limits: Limits) -> tuple[nbformat.NotebookNode, dict[str, Outcome], list[str]]:
    """The notebook with the student's answers in it, what became of its cells, and remarks.  Several of these run at a time."""
    ours = source(name, seed)
    if hand_in is None:
        return ours, {}, ["nothing was handed in"]
    remarks = [hand_in.remark] if hand_in.remark else []
    if hand_in.notebook is None:
        return ours, {}, remarks
    locked, mine = trusted_of(ours)
    notebook = mended(source(name, seed), hand_in.notebook)
    if (theirs := class_of(hand_in.notebook)) not in (None, seed):
        remarks.append(f"this is the exercise of class {theirs}, graded as class {seed}")
    outcomes, more = run(cells_of(notebook, locked, mine), limits)
    return notebook, outcomes, remarks + more


def plainly(said: str) -> str:
    return "not answered" if said.startswith("NotImplementedError") else re.sub(r"\x1b\[[\d;]*m", "", said)[:300]


def grade(api, root: Path, student: Student, name: str, result, feedback: Path | None) -> Grade:
    """One row, and nbgrader's gradebook and feedback."""
    notebook, outcomes, remarks = result
    checks = [(name_of(c), about(c).points, plainly(outcomes[name_of(c)].failed) if outcomes else "everything") for c in notebook.cells if is_check(c)]
    most_written, written, who = sum(about(c).points for c in notebook.cells if is_written(c)), 0.0, somebody(student)
    if outcomes:
        place = Path(who, name, f"{name}.ipynb")
        (root / "submitted" / place).parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, root / "submitted" / place)
        Sandbox.done[who, name] = outcomes
        with api.gradebook as book:
            book.update_or_create_student(who, first_name=student.name)
        result = api.autograde(name, who, force=True)
        if not result["success"]:
            raise RuntimeError(f"nbgrader could not grade {student.name}, {name}\n{result.get('log', '')}{result['error']}")
        with api.gradebook as book:
            marks = [g for n in book.find_submission(name, who).notebooks for g in n.grades if g.name in {name_of(c) for c in notebook.cells if is_written(c)}]
            unread = any(g.manual_score is None and g.auto_score is None for g in marks)
            written = None if unread else sum(g.score for g in marks)
        remarks += [f"{name_of(c)}: {plainly(said)}" for c in notebook.cells
                    if is_answer(c) and c.cell_type == "code" and (said := outcomes[name_of(c)].failed)]
        if feedback and api.generate_feedback(name, who, force=True)["success"]:
            theirs = feedback / f"{student.name} {student.id}".strip()
            theirs.mkdir(parents=True, exist_ok=True)
            shutil.copyfile((root / "feedback" / place).with_suffix(".html"), theirs / f"{name}.html")
    lost = " | ".join(f"{check} ({points}): {said}" for check, points, said in checks if said) if outcomes else "everything"
    return Grade(student.name, student.id, name, sum(points for _, points, said in checks if not said), sum(points for _, points, _ in checks),
                 written, most_written, lost, " | ".join(remarks), checks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--csv", type=Path, default=Path("grades.csv"))
    parser.add_argument("--exercise", choices=NAMES, help="default: every exercise that somebody has handed in")
    parser.add_argument("--student", help="all of FOLDER was handed in by this one")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the class that was given out")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks that run at a time (default 2)")
    parser.add_argument("--seconds", type=float, default=Limits().cell, help="that a cell may run (default 60)")
    parser.add_argument("--notebook-seconds", type=float, default=Limits().notebook, help="that a notebook may run (default 180)")
    parser.add_argument("--feedback", type=Path, help="write each student's graded notebook there as HTML (it shows the hidden tests)")
    parser.add_argument("--course", type=Path, help="keep nbgrader's course here; marks given there to written answers count when you grade again")
    parser.add_argument("--canvas", type=Path, help="also a table that Canvas imports")
    parser.add_argument("--moodle", type=Path, help="also a table that Moodle imports")
    parser.add_argument("--gradescope", type=Path, help="also Gradescope's results, a .json for every student and exercise in this folder")
    arguments = parser.parse_args()
    if not arguments.folder.exists():
        parser.error(f"there is no {arguments.folder}")
    if not sys.platform.startswith("linux"):
        parser.error("students' code is run in Linux processes: here, grade in the container that exercises/Dockerfile describes")
    given = {name: nbformat.read(Path(__file__).parent / "release" / name / f"{name}.ipynb", as_version=4) for name in NAMES}
    students, strange = found(arguments.folder, given, arguments.exercise, arguments.student)
    names = [arguments.exercise] if arguments.exercise else [n for n in NAMES if any(n in mine for mine in students.values())]
    if not students or not names:
        parser.error(f"there is no student's folder and no notebook of an exercise in {arguments.folder}")
    print(f"{len(students)} students, {arguments.jobs} notebooks at a time; " +
          (f"the network and the disk are closed by Python only, since {bubblewrap()}" if bubblewrap() else "no network and no disk, by bubblewrap"))
    warnings.filterwarnings("ignore", module="nbgrader")        # its own affairs with its database
    limits, people = Limits(arguments.seconds, arguments.notebook_seconds), list(students.items())
    rows, places, ungraded = [], [], []
    work = [(name, number) for name in names for number in range(len(people))]
    with course(names, arguments.seed, arguments.course) as (api, root), ThreadPoolExecutor(max(arguments.jobs, 1)) as pool:
        running = [pool.submit(graded, people[number][1].get(name), name, arguments.seed, limits) for name, number in work]
        try:
            for (name, number), result in zip(work, running):
                student = people[number][0]
                try:
                    row = grade(api, root, student, name, result.result(), arguments.feedback)
                except Exception as error:
                    ungraded.append(f"{student.name}, {name}: {type(error).__name__}: {error}")
                    continue
                rows.append(row)
                places.append(somebody(student))
                tables.grades(arguments.csv, rows)              # so that nothing is lost if somebody pulls the plug
                print(f"{row.student:24} {name:32} {row.points:4} of {row.max_points}   {row.remark or row.lost or 'all right'}"[:200], flush=True)
        finally:
            pool.shutdown(cancel_futures=True)
    for path, table in ((arguments.canvas, tables.canvas), (arguments.moodle, tables.moodle)):
        if path:
            table(path, rows)
    if arguments.gradescope:
        tables.gradescope(arguments.gradescope, rows, places)
    if strange:
        print("not recognised:", ", ".join(strange))
    if ungraded:
        sys.exit("These have no row, since something went wrong while they were graded; the others have theirs:\n  " + "\n  ".join(ungraded))


if __name__ == "__main__":
    main()
