"""Whatever a hand-in is called and packed in, it is found; and it is the student's own notebook that is."""

import io
import os
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from runner import NAMES, RELEASE, ROOT, SOURCE

pytest.importorskip("nbgrader", reason='nbgrader is the teacher\'s extra: pip install -e ".[teach]"')
sys.path.insert(0, str(ROOT / "exercises"))

from grader import hand_ins

FIRST, SECOND = NAMES[:2]
GIVEN = {name: nbformat.read(RELEASE / name / f"{name}.ipynb", as_version=4) for name in NAMES}


def worked(name: str, how: str = "pass") -> bytes:
    notebook = nbformat.read(RELEASE / name / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = how
    return nbformat.writes(notebook).encode()


def untouched(name: str, folder: Path = RELEASE) -> bytes: return (folder / name / f"{name}.ipynb").read_bytes()


def zipped(files: dict[str, bytes], times: dict[str, tuple] = {}) -> bytes:  # noqa: B006
    with zipfile.ZipFile(data := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, times.get(name, (2026, 1, 1, 0, 0, 0))), content)
    return data.getvalue()


CLONE = {f"course/exercises/{made}/{name}/{name}.ipynb": untouched(name, folder)
         for made, folder in (("source", SOURCE), ("release", RELEASE)) for name in NAMES}
CLONE |= {"course/notebooks/01_noise_schedules.ipynb": (ROOT / "notebooks" / "01_noise_schedules.ipynb").read_bytes(), "course/README.md": b"text"}

FILES = {  # what was handed in: (the files, student, the file that is graded, a word of the remark)
    "a folder for each student": ({f"kim/{FIRST}.ipynb": worked(FIRST)}, "kim", f"kim/{FIRST}.ipynb", ""),
    "named after the student": ({f"kim_{FIRST}.ipynb": worked(FIRST)}, "kim", f"kim_{FIRST}.ipynb", ""),
    "a name that says nothing": ({"kim/hw1 final (2).ipynb": worked(FIRST)}, "kim", "kim/hw1 final (2).ipynb", ""),
    "a name that says nothing, in a flat folder": ({"hw1 final (2).ipynb": worked(FIRST)}, "hw1 final (2)", "hw1 final (2).ipynb", ""),
    "a name of another exercise": ({f"kim/{SECOND}.ipynb": worked(FIRST)}, "kim", f"kim/{SECOND}.ipynb", ""),
    "a folder for each exercise": ({f"{FIRST}/kim.ipynb": worked(FIRST)}, "kim", f"{FIRST}/kim.ipynb", ""),
    "Canvas": ({"kimjin_LATE_4711_889900_hw1-2.ipynb": worked(FIRST)}, "kimjin", "kimjin_LATE_4711_889900_hw1-2.ipynb", ""),
    "Moodle": ({"Jin Kim_1234567_assignsubmission_file/hw.ipynb": worked(FIRST)}, "Jin Kim", "Jin Kim_1234567_assignsubmission_file/hw.ipynb", ""),
    "a zip": ({"kim.zip": zipped({"homework/hw.ipynb": worked(FIRST)})}, "kim", "kim.zip/homework/hw.ipynb", ""),
    "a zip of zips": ({"kim.zip": zipped({"all/inner.zip": zipped({"hw.ipynb": worked(FIRST)})})}, "kim", "kim.zip/all/inner.zip/hw.ipynb", ""),
    "Canvas's zip of a zip": ({"kimjin_4711_889900_hw.zip": zipped({"hw.ipynb": worked(FIRST)})}, "kimjin", "kimjin_4711_889900_hw.zip/hw.ipynb", ""),
    "a clone with work in release": ({f"kim/{k}": v for k, v in CLONE.items()} | {f"kim/course/exercises/release/{FIRST}/{FIRST}.ipynb": worked(FIRST)},
                                     "kim", f"kim/course/exercises/release/{FIRST}/{FIRST}.ipynb", "has the solutions in it"),
    "a zip of a clone with work beside": ({"kim.zip": zipped(CLONE | {"course/exercises/my.ipynb": worked(FIRST)})},
                                          "kim", "kim.zip/course/exercises/my.ipynb", "the only one with answers"),
    "a clone": ({f"kim/{k}": v for k, v in CLONE.items()}, "kim", f"kim/course/exercises/release/{FIRST}/{FIRST}.ipynb", "has the solutions in it"),
    "a solution, under another name": ({"kim/mine.ipynb": untouched(FIRST, SOURCE)}, "kim", "kim/mine.ipynb", "has the solutions in it"),
    "two versions": ({"kim.zip": zipped({"a.ipynb": worked(FIRST), "b.ipynb": worked(FIRST, "1")}, {"a.ipynb": (2026, 3, 1, 0, 0, 0)})},
                     "kim", "kim.zip/a.ipynb", "the newest"),
    "checkpoints and what a Mac adds": ({"kim.zip": zipped({"hw.ipynb": worked(FIRST), "__MACOSX/._hw.ipynb": b"x",
                                                            ".ipynb_checkpoints/hw.ipynb": worked(FIRST, "1")})},
                                        "kim", "kim.zip/hw.ipynb", ""),
    "not a notebook": ({f"kim/{FIRST}.ipynb": b"%PDF-1.7"}, "kim", f"kim/{FIRST}.ipynb", "is not a notebook that can be read"),
    "a PDF": ({f"kim/{FIRST}.pdf": b"%PDF-1.7"}, "kim", f"kim/{FIRST}.pdf", "is not a notebook"),
    "a zip that is none": ({f"kim_{FIRST}.zip": b"PK nothing"}, "kim", f"kim_{FIRST}.zip", "no archive that can be read"),
}


def lay(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("what", FILES)
def test_the_students_own_notebook_is_found(tmp_path, what):
    files, student, file, remark = FILES[what]
    lay(tmp_path, files)
    students, _ = hand_ins.found(tmp_path, GIVEN)
    assert [who.name for who in students] == [student]
    [mine] = students.values()
    assert mine[FIRST].file == file and remark in mine[FIRST].remark
    assert bool(mine[FIRST].remark) == bool(remark)
    assert (mine[FIRST].notebook is None) == (what in ("a solution, under another name", "not a notebook", "a PDF", "a zip that is none"))


def test_the_worked_copy_counts_and_not_a_newer_untouched_one(tmp_path):
    lay(tmp_path, {"kim/old.ipynb": worked(FIRST), "kim/new.ipynb": untouched(FIRST)})
    os.utime(tmp_path / "kim" / "old.ipynb", (1, 1))
    [mine] = hand_ins.found(tmp_path, GIVEN)[0].values()
    assert mine[FIRST].file == "kim/old.ipynb" and "the only one with answers" in mine[FIRST].remark


def test_the_numbers_of_canvas_and_moodle_are_kept(tmp_path):
    files = "kimjin_4711_889900_a.ipynb", "kimjin_4712_889901_a.ipynb", "Jin Kim_123456_assignsubmission_file/a.ipynb"
    lay(tmp_path, dict.fromkeys(files, worked(FIRST)))
    assert {(s.name, s.id, s.system) for s in hand_ins.found(tmp_path, GIVEN)[0]} == {
        ("kimjin", "4711", "canvas"), ("kimjin", "4712", "canvas"), ("Jin Kim", "123456", "moodle")}


def test_a_class_comes_as_one_archive_too_and_a_student_can_be_named(tmp_path):
    (tmp_path / "submissions.zip").write_bytes(zipped({f"kim/{FIRST}.ipynb": worked(FIRST), "lee_7000_80000_x.ipynb": worked(SECOND)}))
    students, _ = hand_ins.found(tmp_path / "submissions.zip", GIVEN)
    assert {who.name: list(mine) for who, mine in students.items()} == {"kim": [FIRST], "lee": [SECOND]}
    students, _ = hand_ins.found(tmp_path / "submissions.zip", GIVEN, one="somebody")
    assert {who.name: sorted(mine) for who, mine in students.items()} == {"somebody": [FIRST, SECOND]}


def test_an_empty_folder_is_a_student_and_strange_files_are_named(tmp_path):
    (tmp_path / "kim").mkdir()
    lay(tmp_path, {"lee/notes.txt": b"", f"lee/{SECOND}.ipynb": worked(SECOND), "lee/other.ipynb": nbformat.writes(nbformat.v4.new_notebook()).encode()})
    students, strange = hand_ins.found(tmp_path, GIVEN)
    assert {who.name: list(mine) for who, mine in students.items()} == {"kim": [], "lee": [SECOND]}
    assert sorted(strange) == ["lee/notes.txt", "lee/other.ipynb"]


def test_an_archive_leads_nowhere_and_does_not_explode(tmp_path, monkeypatch):
    """Names with .. and absolute ones are names only: nothing is unpacked.  A bomb is refused when it says its size, and when it lies about it."""
    monkeypatch.setattr(hand_ins, "MOST_BYTES", 10**7)
    (tmp_path / "class").mkdir()
    nested = b""
    for depth in range(6):
        nested = zipped({f"{depth}.zip": nested})
    lay(tmp_path / "class", {"kim.zip": zipped({"../../evil.ipynb": worked(FIRST), "/etc/evil.txt": b"x"}), "bomb.zip": zipped({"a.ipynb": bytes(2 * 10**7)}),
                             "nested.zip": nested})
    lie = bytearray(zipped({"a.ipynb": bytes(10**6)}))
    for at in range(len(lie) - 4):
        if lie[at:at + 4] in (b"PK\x03\x04", b"PK\x01\x02"):
            size = at + (22 if lie[at + 2] == 3 else 24)
            lie[size:size + 4] = (10).to_bytes(4, "little")
    (tmp_path / "class" / "liar.zip").write_bytes(lie)
    before = sorted(tmp_path.rglob("*"))
    students, strange = hand_ins.found(tmp_path / "class", GIVEN)
    assert sorted(tmp_path.rglob("*")) == before
    graded = {who.name: [h.file for h in mine.values()] for who, mine in students.items()}
    assert graded == {"kim": ["kim.zip/evil.ipynb"], "bomb": [], "nested": [], "liar": []}
    assert sum("no archive that can be read" in said for said in strange) == 3
