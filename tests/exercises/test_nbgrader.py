"""The command that grades a class, nbgrader's own, and what becomes of submissions that something has happened to."""

import csv
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock
from runner import NAMES, RELEASE, ROOT, SOURCE, answers, exercise, read

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="students' code is run in Linux processes")]
pytest.importorskip("nbgrader", reason='nbgrader is the teacher\'s extra: pip install -e ".[teach]"')
sys.path.insert(0, str(ROOT / "exercises"))

from grader.sandbox import asked  # noqa: E402

FIRST, SECOND = NAMES[0], [name for name in NAMES if (RELEASE / name).is_dir()][-1]
ENVIRONMENT = {**os.environ, "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
BEST = answers(FIRST)["BEST"]                                   # of what is to be achieved; the reference does not reach the last of its checks
TWO = {where: (code, lost, says) for _, where, code, lost, says in reversed(answers(FIRST)["WRONG"]) if says and where not in BEST}
TWO = dict(list(TWO.items())[:2])                               # wrong answers in two cells; what all the others get, test_answers.py shows


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run([sys.executable, *map(str, command)], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def notebook(name: str, folder: Path = SOURCE) -> nbformat.NotebookNode:
    return nbformat.read(folder / name / f"{name}.ipynb", as_version=4)


def with_answers(name: str, replaced: dict[str, str]) -> nbformat.NotebookNode:
    """What a student hands in: the release, with an answer in every cell: the best that is known or the reference's, but for those replaced."""
    replaced = answers(name).get("BEST", {}) | replaced
    theirs, reference = notebook(name, RELEASE), {c.id: c.source for c in notebook(name).cells}
    for cell in theirs.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = re.sub(r"(?m)^[ \t]*### (BEGIN|END) SOLUTION\n?", "", replaced.get(cell.id, reference[cell.id]))
    return theirs


def submissions(folder: Path) -> None:
    def hand_in(student, cells):
        path = folder / student / f"{FIRST}.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(cells, path) if isinstance(cells, nbformat.NotebookNode) else path.write_text(cells, encoding="utf-8")

    code = [c for c in notebook(FIRST).cells if c.cell_type == "code"]
    asked = [c.id for c in code if c.metadata.nbgrader.solution and "def " in c.source]
    one, two, three = asked[:3]
    hand_in("reference", with_answers(FIRST, {}))
    hand_in("blank", notebook(FIRST, RELEASE))
    hand_in("two wrong answers", with_answers(FIRST, {where: answer for where, (answer, *_) in TWO.items()}))

    # What happens to notebooks.
    function = exercise(FIRST).cells[[c.name for c in exercise(FIRST).cells].index(two)].source.split("def ")[1].split("(")[0]
    hand_in("three mishaps", with_answers(FIRST, {one: "def f(x)\n    return x", two: f"def {function}(*given, **more):\n    while True:\n        pass",
                                                  three: next(c.source for c in code if c.id == three).replace("def ", "def my_")}))
    hand_in("kernel dies", with_answers(FIRST, {one: "import os\nos._exit(1)"}))
    hand_in("prints to stderr", with_answers(FIRST, {c.id: "import sys, warnings\nprint('loud', file=sys.stderr)\nwarnings.warn('loud')\n" + c.source
                                                     for c in code if c.id == one}))
    cut = with_answers(FIRST, {})
    cut.cells = [c for c in cut.cells if c.cell_type != "code" or c.metadata.nbgrader.solution]
    picture = nbformat.v4.new_output("display_data", data={"image/png": PIXEL, "text/html": "<script>alert(1)</script>"})
    cut.cells += [nbformat.v4.new_code_cell("picture", outputs=[picture], metadata={"nbgrader": {"grade_id": "picture_schedules"}})]
    hand_in("only the answers are left", cut)
    bare = with_answers(FIRST, {})
    for cell in bare.cells:
        cell.metadata = {}
    hand_in("metadata stripped", bare)
    own = with_answers(FIRST, {one: "from_elsewhere = helper + more\n" + next(c.source for c in code if c.id == one)})
    at = [c.id for c in own.cells].index(one)
    parts = [deepcopy(own.cells[at]) for _ in range(2)]         # the first two parts of a cell that was split: the same metadata, a new id
    for part, source in zip(parts, ("helper = 1", "more = helper + 1")):
        part.id, part.source = f"part-{source[0]}", source
    own.cells[at:at] = [*parts, nbformat.v4.new_code_cell("!pip install nothing\nraise NotImplementedError()")]
    hand_in("own cells", own)
    other = with_answers(FIRST, {})
    parameters = next(c for c in other.cells if c.id == "parameters")
    parameters.source = parameters.source.replace("CLASS_SEED = 0", "CLASS_SEED = 42")
    hand_in("another class", other)
    cheat = with_answers(FIRST, {one: "pass"})
    for cell in cheat.cells:
        if cell.metadata.get("nbgrader", {}).get("grade") and cell.cell_type == "code":
            cell.source, cell.metadata.nbgrader.points = "pass", 100
    hand_in("checks rewritten", cheat)
    hand_in("not a notebook", "%PDF-1.7 this is no JSON")
    hand_in("cut off", nbformat.writes(with_answers(FIRST, {}))[:2000])
    hand_in("no cells", '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}')
    (folder / "a whole clone").mkdir()
    for made in ("source", "release"):
        shutil.copytree(ROOT / "exercises" / made, folder / "a whole clone" / "exercises" / made)
    (folder / "missing").mkdir()


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The class is graded once, and not in each process that has some of these tests."""
    place = tmp_path_factory.getbasetemp()
    folder = (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "class"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            submissions(folder / "submissions")
            run("exercises/grade.py", folder / "submissions", "--exercise", FIRST, "--csv", folder / "grades.csv", "--feedback", folder / "feedback",
                "--seconds", "8", "--gradescope", folder / "gradescope", "--canvas", folder / "canvas.csv", "--moodle", folder / "moodle.csv",
                "--course", folder / "course")
            (folder / "done").touch()
    with open(folder / "grades.csv", encoding="utf-8-sig", newline="") as file:
        return folder, {row["student"]: row for row in csv.DictReader(file)}


POINTS = exercise(FIRST).points
FULL = sum(POINTS.values())
WRITTEN = 4 * sum(c.kind == "question" for c in read(FIRST))
CODE = [c.name for c in exercise(FIRST).cells if c.kind == "answer" and "def " in c.source]
CASES = {  # who: (the checks that are lost, what the teacher reads …)
    "reference": ((),), "blank": (tuple(POINTS), "not answered"),
    "two wrong answers": (set().union(*(lost for _, lost, _ in TWO.values())), *(says for *_, says in TWO.values())),
    "three mishaps": ([f"check_{name}" for name in CODE[:3]], "SyntaxError", "endless loop", "is not defined"),
    "kernel dies": ((f"check_{CODE[0]}",), "ended the program"), "prints to stderr": ((),),
    "only the answers are left": ((),), "metadata stripped": ((),), "own cells": ((),),
    "another class": ((), "the exercise of class 42, graded as class 0"), "checks rewritten": ((f"check_{CODE[0]}",), "is not defined"),
    "not a notebook": (tuple(POINTS), "is not a notebook"), "cut off": (tuple(POINTS), "is not a notebook"), "no cells": (tuple(POINTS), "is not a notebook"),
    "missing": (tuple(POINTS), "nothing was handed in"), "a whole clone": (tuple(POINTS), "not looked at, since it has the solutions in it"),
}


def test_everybody_has_a_grade(graded):
    assert set(graded[1]) == set(CASES)


@pytest.mark.parametrize("student", CASES)
def test_a_submission_gets_its_points_and_a_sentence(graded, student):
    folder, rows = graded
    lost, *says = CASES[student]
    row = rows[student]
    assert int(row["points"]) == FULL - sum(POINTS[check] for check in lost) and int(row["max_points"]) == FULL
    assert all(said in row["lost"] + row["remark"] for said in says)
    assert bool(row["lost"]) == bool(lost)
    assert int(row["max_written"]) == WRITTEN
    if "is not a notebook" not in row["remark"] and "nothing was" not in row["remark"]:
        unwritten = student in ("blank", "a whole clone")
        assert row["written"] == ("0.0" if unwritten else ""), "written answers are for people; nothing written is nothing"
        page = (folder / "feedback" / student / f"{FIRST}.html").read_text(encoding="utf-8")
        assert f"Score: {float(row['points'])} / {float(FULL + WRITTEN)}" in page
        assert "Model answer, and what counts" in page


def test_the_feedback_keeps_the_students_pictures_and_runs_nothing_of_theirs(graded):
    page = (graded[0] / "feedback" / "only the answers are left" / f"{FIRST}.html").read_text(encoding="utf-8")
    assert PIXEL in page and "alert(1)" not in page


def test_the_tables_for_canvas_moodle_and_gradescope_say_the_same(graded):
    folder, rows = graded
    with open(folder / "canvas.csv", encoding="utf-8-sig", newline="") as file:
        canvas = {row["Student"].strip(): row[FIRST] for row in csv.DictReader(file)}
    with open(folder / "moodle.csv", encoding="utf-8-sig", newline="") as file:
        moodle = {row["Full name"]: row["Grade"] for row in csv.DictReader(file)}
    assert canvas.pop("Points Possible") == str(FULL + WRITTEN)
    for student, row in rows.items():
        assert float(canvas[student]) == float(moodle[student]) == int(row["points"]) + float(row["written"] or 0)
    results = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "gradescope").glob("*.json")]
    assert sorted(result["score"] for result in results) == sorted(float(grade) for grade in moodle.values())
    assert all(sum(test["max_score"] for test in result["tests"]) == FULL + WRITTEN for result in results)


def test_marks_given_in_formgrader_come_into_the_table(graded):
    """The kept course is nbgrader's: a teacher marks there, and grades again."""
    from nbgrader.api import Gradebook
    folder, _ = graded
    with Gradebook(f"sqlite:///{folder / 'course' / 'gradebook.db'}") as book:
        who = next(s.id for s in book.students if s.first_name == "reference")
        for grade in book.find_submission_notebook(FIRST, FIRST, who).grades:
            if grade.needs_manual_grade:
                grade.manual_score, grade.needs_manual_grade = 3, False
        book.db.commit()
    again = folder / "again" / "reference"
    shutil.copytree(folder / "submissions" / "reference", again)
    run("exercises/grade.py", again.parent, "--exercise", FIRST, "--csv", folder / "again.csv", "--course", folder / "course")
    with open(folder / "again.csv", encoding="utf-8-sig", newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["points"], row["written"]) == (str(FULL), str(3.0 * WRITTEN / 4))


def test_the_nbgrader_command_alone_gives_the_same_points(tmp_path):
    """generate_assignment, autograde, export and generate_feedback, in a copy of exercises/, as a teacher who knows nbgrader would."""
    shutil.copytree(SOURCE / SECOND, tmp_path / "source" / SECOND)
    for part in ("nbgrader_config.py", "release.py"):
        shutil.copy(ROOT / "exercises" / part, tmp_path)
    shutil.copytree(ROOT / "exercises" / "grader", tmp_path / "grader")
    run("-m", "nbgrader", "generate_assignment", SECOND, cwd=tmp_path)
    made, committed = (nbformat.read(path / SECOND / f"{SECOND}.ipynb", as_version=4) for path in (tmp_path / "release", RELEASE))
    assert made.cells == committed.cells, f"release/{SECOND} is stale: python exercises/release.py"

    total = sum(exercise(SECOND).points.values())
    _, where, code, lost, _ = answers(SECOND)["WRONG"][0]
    expected = {"reference": total, "blank": 0, "wrong": total - sum(exercise(SECOND).points[check] for check in lost)}
    for student, theirs in {"reference": with_answers(SECOND, {}), "blank": notebook(SECOND, RELEASE), "wrong": with_answers(SECOND, {where: code})}.items():
        path = tmp_path / "submitted" / student / SECOND / f"{SECOND}.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(theirs, path)
    run("-m", "nbgrader", "autograde", SECOND, cwd=tmp_path)
    run("-m", "nbgrader", "export", "--to", "grades.csv", cwd=tmp_path)
    with open(tmp_path / "grades.csv", encoding="utf-8", newline="") as file:
        assert {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)} == expected
    run("-m", "nbgrader", "generate_feedback", SECOND, cwd=tmp_path)
    assert (tmp_path / "feedback" / "wrong" / SECOND / f"{SECOND}.html").stat().st_size > 10_000


def test_what_cannot_be_graded_is_named_and_costs_nobody_else_a_grade(tmp_path, monkeypatch):
    import grade

    def graded(hand_in, name, seed, limits):
        if hand_in is not None:
            raise RuntimeError("the sandbox did not start")
        return grade.source(name, seed), {}, ["nothing was handed in"]

    (tmp_path / "class" / "ada").mkdir(parents=True)
    (tmp_path / "class" / "bo").mkdir()
    (tmp_path / "class" / "cy").mkdir()
    shutil.copy(RELEASE / FIRST / f"{FIRST}.ipynb", tmp_path / "class" / "bo")
    monkeypatch.setattr(grade, "graded", graded)
    monkeypatch.setattr(sys, "argv", ["grade.py", str(tmp_path / "class"), "--exercise", FIRST, "--csv", str(tmp_path / "grades.csv"),
                                      "--gradescope", str(tmp_path / "gradescope")])
    with pytest.raises(SystemExit, match=f"bo, {FIRST}: RuntimeError: the sandbox did not start"):
        grade.main()
    with open(tmp_path / "grades.csv", encoding="utf-8-sig", newline="") as file:
        assert [row["student"] for row in csv.DictReader(file)] == ["ada", "cy"]
    assert [path.name[:2] for path in sorted((tmp_path / "gradescope").iterdir())] == ["ad", "cy"]


def test_notebooks_that_are_graded_at_a_time_do_not_meet():
    """In Python 3.11 two threads in `ast.parse` can end each other in a SystemError; with it, one notebook of thirty ended the grading of a class.
    Here the collector lets another thread on, again and again, while a check is read: with `ast.parse` this test fails."""
    def another_thread(*given): time.sleep(0)

    check, often = "x = [a + b * c for a in (1, 2, 3) if f(a)(b)[c]]\n" * 20, gc.get_threshold()
    gc.callbacks.append(another_thread)
    gc.set_threshold(50)
    try:
        with ThreadPoolExecutor(4) as pool:
            names = list(pool.map(lambda tier: asked(check, tier), ["print(x, y)"] * 100))
    finally:
        gc.callbacks.remove(another_thread)
        gc.set_threshold(*often)
    assert names == [["b", "c", "f", "print", "y"]] * 100


def test_a_class_gets_its_own_variant_in_a_zip(tmp_path):
    said = run("exercises/release.py", FIRST, "--seed", "7", "--zip", tmp_path / "class.zip")
    assert "class.zip" in said
    with zipfile.ZipFile(tmp_path / "class.zip") as archive:
        assert archive.namelist() == [f"release/{FIRST}/{FIRST}.ipynb"]
        theirs = nbformat.reads(archive.read(archive.namelist()[0]).decode(), as_version=4)
    ours = notebook(FIRST, RELEASE)
    different = [a.id for a, b in zip(theirs.cells, ours.cells) if a.source != b.source]
    assert different == ["parameters"] and theirs.cells[[c.id for c in theirs.cells].index("parameters")].source.startswith("CLASS_SEED = 7\n")
