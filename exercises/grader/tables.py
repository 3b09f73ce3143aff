"""Grades as tables: for people, for Canvas, for Moodle, and for Gradescope."""

import csv
import json
from pathlib import Path
from typing import NamedTuple


class Grade(NamedTuple):
    student: str
    id: str                                                     # Canvas's or Moodle's number
    exercise: str
    points: int                                                 # of the checks
    max_points: int
    written: float | None                                       # of the written answers; None: somebody has to read them
    max_written: int
    lost: str                                                   # a sentence for every check that has no points
    remark: str                                                 # about the file as a whole
    checks: list[tuple[str, int, str]]                          # every check: its name, its points, "" or what it said

    @property
    def total(self) -> float: return self.points + (self.written or 0)
    @property
    def most(self) -> int: return self.max_points + self.max_written


def write(path: Path, rows) -> None:
    with open(path, "w", newline="", encoding="utf-8-sig") as file:     # with its mark: a spreadsheet then reads é as é
        csv.writer(file).writerows([[harmless(value) for value in row] for row in rows])


def harmless(value):
    """A name or a sentence of a student's that a spreadsheet would take for a formula."""
    return "'" + value if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else "" if value is None else value


def grades(path: Path, all_of_them: list[Grade]) -> None:
    write(path, [Grade._fields[:-1], *(grade[:-1] for grade in all_of_them)])


def by_student(all_of_them: list[Grade]) -> dict[tuple[str, str], dict[str, Grade]]:
    table: dict[tuple[str, str], dict[str, Grade]] = {}
    for grade in all_of_them:
        table.setdefault((grade.student, grade.id), {})[grade.exercise] = grade
    return table


def canvas(path: Path, all_of_them: list[Grade]) -> None:
    """Canvas's gradebook: Grades → Import.  It finds students by ID, and asks what a column is that it does not know."""
    most = {grade.exercise: grade.most for grade in all_of_them}
    write(path, [["Student", "ID", "SIS Login ID", "Section", *most], ["    Points Possible", "", "", "", *most.values()],
                 *([name, number, "", "", *(mine[e].total if e in mine else "" for e in most)] for (name, number), mine in by_student(all_of_them).items())])


def moodle(path: Path, all_of_them: list[Grade]) -> None:
    """Moodle: for one exercise its offline grading worksheet, for several the columns of Grades → Import."""
    exercises = list({grade.exercise: None for grade in all_of_them})
    heads = ["Grade", "Maximum Grade", "Feedback comments"] if len(exercises) == 1 else exercises

    def cells(mine):
        if len(exercises) > 1:
            return [mine[e].total if e in mine else "" for e in exercises]
        return [mine[exercises[0]].total, mine[exercises[0]].most, "; ".join(filter(None, (mine[exercises[0]].remark, mine[exercises[0]].lost)))]

    write(path, [["Identifier", "Full name", *heads],
                 *([f"Participant {number}" if number else "", name, *cells(mine)] for (name, number), mine in by_student(all_of_them).items())])


def gradescope(folder: Path, all_of_them: list[Grade], files: list[str]) -> None:
    """results.json, one for each student and exercise."""
    for grade, file in zip(all_of_them, files):
        tests = [{"name": name, "score": 0 if said else points, "max_score": points, "output": said, "visibility": "visible"}
                 for name, points, said in grade.checks]
        if grade.max_written:
            tests.append({"name": "written answers", "score": grade.written or 0, "max_score": grade.max_written, "visibility": "visible",
                          "output": "to be read by your teacher" if grade.written is None else ""})
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"score": grade.total, "output": grade.remark, "visibility": "visible", "tests": tests}, ensure_ascii=False, indent=1)
        (folder / f"{file}_{grade.exercise}.json").write_text(text, encoding="utf-8")
