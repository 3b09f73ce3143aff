"""Find what students have handed in, whatever it is called and whatever it is packed in.

    students, strange = found(folder, ids, names)

A notebook belongs to the exercise whose answer and check cells it has, by nbgrader's names for them or by the cells' ids.  Archives are read and never
unpacked, so that no name in them can lead anywhere.  Of several notebooks the student's newest one is taken: never one from source/, never one with a
solution in it, and a worked one before an untouched one.
"""

import io
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat

MOST_BYTES, MOST_FILES, DEEPEST = 200 * 2**20, 5000, 4          # of an archive, with the archives in it
LARGEST_NOTEBOOK = 30 * 2**20
SOLUTION = ("BEGIN SOLUTION", "BEGIN HIDDEN TESTS")
CANVAS = re.compile(r"(?P<name>[^_]+)_(?:LATE_)?(?P<id>\d{2,})_\d{3,}_(?P<file>.+)")                 # kimjin_LATE_4711_889900_hw1-2.ipynb
MOODLE = re.compile(r"(?P<name>[^_]+)_(?P<id>\d{3,})_assignsubmission_file_?(?P<file>.*)")               # Jin Kim_1234567_assignsubmission_file_


class File(NamedTuple):
    path: tuple[str, ...]                                       # below the folder; an archive is a folder
    time: float
    read: Callable[[], bytes]


class Student(NamedTuple):
    name: str
    id: str = ""                                                # Canvas's or Moodle's number, where the name of a file or folder tells it
    system: str = ""                                            # "canvas" or "moodle"


class HandIn(NamedTuple):
    file: str
    time: float
    notebook: nbformat.NotebookNode | None                      # None: it cannot be read
    answered: int                                               # answer cells that are not as they were given out
    remark: str = ""


def name_of(cell) -> str: return cell.metadata.get("nbgrader", {}).get("grade_id") or cell.get("id", "")


class TooMuch(Exception): pass


def unpacked(path: tuple[str, ...], data: bytes, depth: int, left: list[int]) -> Iterator[File]:
    """The files of an archive, and of the archives in it.  `left`: how many bytes and files more it may have."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            if entry.is_dir():
                continue
            left[0], left[1] = left[0] - entry.file_size, left[1] - 1
            if min(left) < 0 or depth > DEEPEST:
                raise TooMuch(f"more than {MOST_BYTES >> 20} MB, {MOST_FILES} files or {DEEPEST} archives in one another: this is no homework")
            parts = tuple(part for part in entry.filename.replace("\\", "/").split("/") if part not in ("", ".", ".."))
            try:
                when = time.mktime((*entry.date_time, 0, 0, -1))
            except (ValueError, OverflowError):
                when = 0.0

            if entry.filename.lower().endswith((".zip", ".ipynb")):
                with archive.open(entry) as file:               # the size that the archive states may be a lie
                    content = file.read(entry.file_size + 1)
                if len(content) > entry.file_size:
                    raise TooMuch("an entry that is larger than it says")
                if entry.filename.lower().endswith(".zip"):
                    yield from unpacked((*path, *parts), content, depth + 1, left)
                    continue
                yield File((*path, *parts), when, lambda content=content: content)
            else:
                yield File((*path, *parts), when, lambda: b"")


def files(folder: Path) -> Iterator[File | tuple[tuple[str, ...], str]]:
    """Every file below, in archives too; or its path and why it cannot be looked into."""
    everything = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    for path in everything:
        parts = () if path == folder else path.relative_to(folder).parts
        if any(part.startswith((".", "__")) for part in parts) or path.is_dir() or path.is_symlink():
            continue
        if path.suffix.lower() == ".zip":
            try:
                if path.stat().st_size > MOST_BYTES:
                    raise TooMuch(f"it has more than {MOST_BYTES >> 20} MB")
                yield from unpacked(parts, path.read_bytes(), 1, [MOST_BYTES, MOST_FILES])
            except (TooMuch, zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
                yield parts, f"{path.name} is no archive that can be read ({error})"
        else:
            yield File(parts, path.stat().st_mtime, path.read_bytes)


def student_of(parts: tuple[str, ...], names: list[str]) -> Student:
    """Whose file this is, by its path: a folder or an archive per student, a folder per exercise with files named after students, or one flat folder."""
    def stem(part): return re.sub(r"(?i)\.(zip|ipynb)$", "", part)

    if len(parts) > 1 and any(name in parts[0] for name in names) and not MOODLE.fullmatch(parts[0]):
        parts = parts[1:]                                       # 01_noise_schedules/kim.ipynb
    for system, pattern in (("moodle", MOODLE), ("canvas", CANVAS)):
        if who := pattern.fullmatch(parts[0]):
            return Student(who["name"].strip(), who["id"], system)
    name = stem(parts[0])
    for exercise in names:
        name = name.replace(exercise, "")
    return Student(name.strip(" _-.") or stem(parts[0]))


def found(folder: Path, exercises: dict[str, nbformat.NotebookNode], only: str | None = None, one: str | None = None
          ) -> tuple[dict[Student, dict[str, HandIn]], list[str]]:
    """{student: {exercise: what is graded}}, and what belongs to no exercise.

    `exercises`: the notebooks as they were given out; `only`: the one that is asked for; `one`: everything is this student's.
    """
    names = list(exercises)
    given = {name: {name_of(c): c.source.strip() for c in notebook.cells if c.metadata.get("nbgrader")} for name, notebook in exercises.items()}
    telling = {name: {i for i in ids if sum(i in other for other in given.values()) == 1} for name, ids in given.items()}
    open_cells = {name: [name_of(c) for c in notebook.cells if c.metadata.get("nbgrader", {}).get("solution")] for name, notebook in exercises.items()}
    candidates: dict[tuple[Student, str], list[HandIn]] = {}
    passed_over: dict[tuple[Student, str], list[str]] = {}
    people: dict[Student, None] = {}
    strange = []
    if folder.is_dir() and not one:
        people |= {student_of((path.name,), names): None for path in sorted(folder.iterdir())
                   if path.is_dir() and not path.name.startswith((".", "__")) and not any(name in path.name for name in names)}
    for file in files(folder):
        parts, broken = (file.path, "") if isinstance(file, File) else file
        if any(part.startswith((".", "__")) for part in parts):
            continue
        who = Student(one) if one else student_of(parts or (folder.name,), names)
        label = "/".join(parts) or folder.name
        by_name = next((name for name in names if name in label.rsplit("/", 1)[-1]), None) or next((name for name in names if name in label), None)
        if broken or not label.lower().endswith(".ipynb"):
            strange.append(f"{label}: {broken}" if broken else label)
            people.setdefault(who)
            if (broken or by_name) and (name := by_name or only):
                candidates.setdefault((who, name), []).append(HandIn(label, 0, None, -1, broken or f"{parts[-1]} is not a notebook"))
            continue
        try:
            data = file.read()
            if len(data) > LARGEST_NOTEBOOK:
                raise ValueError("too large")
            notebook = nbformat.reads(data.decode("utf-8-sig"), as_version=4)
            ids = {name_of(c) for c in notebook.cells}
            sources = {name_of(c): c.source.strip() for c in notebook.cells}
        except Exception as error:                              # not JSON, cut off, no right to read it, …
            people.setdefault(who)
            if name := by_name or only:
                candidates.setdefault((who, name), []).append(
                    HandIn(label, file.time, None, -1, f"{label.rsplit('/', 1)[-1]} is not a notebook that can be read ({type(error).__name__})"))
            else:
                strange.append(label)
            continue
        name = max(names, key=lambda n: len(ids & telling[n]))
        if len(ids & telling[name]) < 2:
            name = by_name or only                              # nothing left of its cells: its name has to do
            if name is None or any(part in ("notebooks", "tests") for part in parts[:-1]):
                strange.append(label)
                continue
        people.setdefault(who)
        if f"source/{name}/" in f"/{label}" or any(marker in text for marker in SOLUTION for text in sources.values()):
            passed_over.setdefault((who, name), []).append(label)
            continue
        answered = sum(i in sources and sources[i] != given[name][i] and sources[i] != "" for i in open_cells[name])
        candidates.setdefault((who, name), []).append(HandIn(label, file.time, notebook, answered))
    students: dict[Student, dict[str, HandIn]] = {who: {} for who in people}
    for who, name in sorted({*candidates, *passed_over}, key=str):
        if only and name != only:
            continue
        mine, solutions = candidates.get((who, name), []), passed_over.get((who, name), [])
        remark = f"not looked at, since it has the solutions in it: {solutions[0]}" if solutions else ""
        if not mine:
            students[who][name] = HandIn(solutions[0], 0, None, -1, remark)
            continue
        taken = max(mine, key=lambda h: (h.notebook is not None, h.answered > 0, h.time, h.answered))
        if sum(h.notebook is not None for h in mine) > 1:
            others = [h for h in mine if h is not taken and h.notebook is not None]
            why = "the only one with answers" if taken.answered > 0 and not any(h.answered > 0 for h in others) else "the newest"
            remark = f"of {len(others) + 1} notebooks {taken.file} is graded, {why}" + (f"; {remark}" if remark else "")
        students[who][name] = taken._replace(remark="; ".join(filter(None, (taken.remark, remark))))
    return students, strange
