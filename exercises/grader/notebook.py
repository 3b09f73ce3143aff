"""From a student's notebook to the one that is graded, and what nbgrader's `autograde` does with it: run it in the sandbox and not in a kernel."""

from collections.abc import Iterator
from typing import ClassVar

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Float

from .hand_ins import name_of
from .sandbox import Cell, Limits, Outcome, run

TIERS = "_silver", "_gold"                                      # `check_x_silver` and `check_x_gold` read what `check_x` has measured
RUBRIC = """**{points} points**, by the teacher:  4 what happens *and* why, in the quantities of the exercise, with a number or picture of the student's own
· 3 right, with the reason, without evidence · 2 what is seen, rightly, without a reason · 1 one right element among wrong ones
· 0 empty, or against the student's own figure

<details><summary>Model answer, and what counts</summary>

{answer}

</details>"""


def about(cell: NotebookNode) -> NotebookNode: return cell.metadata.get("nbgrader", NotebookNode())


def is_answer(cell: NotebookNode) -> bool: return about(cell).get("solution", False)


def is_check(cell: NotebookNode) -> bool: return cell.cell_type == "code" and about(cell).get("grade", False) and not is_answer(cell)


def is_written(cell: NotebookNode) -> bool: return about(cell).get("grade", False) and is_answer(cell)


def is_picture(cell: NotebookNode) -> bool: return "picture" in cell.metadata.get("tags", [])


def pictures_of(cell: NotebookNode) -> list[NotebookNode]:
    """What a student's cell showed, as it was handed in: pictures and plain text, and nothing that a browser would run."""
    kept = []
    for output in cell.get("outputs", []):
        data = {kind: what for kind, what in output.get("data", {}).items() if kind in ("image/png", "image/jpeg")}
        if data:
            kept.append(nbformat.v4.new_output("display_data", data={**data, "text/plain": "a picture of the student's, as handed in"}))
        elif output.output_type == "stream" and is_picture(cell):
            kept.append(nbformat.v4.new_output("stream", name="stdout", text=str(output.get("text", ""))[:4000]))
    return kept[:20]


def mended(ours: NotebookNode, theirs: NotebookNode) -> NotebookNode:
    """The teacher's notebook with the student's answers in it, and the student's own cells where they stood.  What was done to other cells is undone.

    A cell is known by nbgrader's name for it, or by its id, which is the same, where an editor has removed nbgrader's metadata.
    """
    def copied(cell):
        if cell.cell_type != "code":
            return nbformat.v4.new_markdown_cell(cell.source, **({"attachments": cell.attachments} if "attachments" in cell else {}))
        return nbformat.v4.new_code_cell(cell.source, metadata={"handed_in": pictures_of(cell)})

    known = {name_of(c): c for c in ours.cells if about(c)}
    last = {name_of(c): i for i, c in enumerate(theirs.cells)}  # a cell that was copied or split: the last part has the name
    texts = {name_of(c) for c in ours.cells} - set(known)
    answers, own, shown, place = {}, {}, {}, None
    for i, cell in enumerate(theirs.cells):
        name = name_of(cell)
        here = known.get(name)
        final = here is not None and last[name] == i
        if final and is_answer(here):
            answers[name] = cell
        elif final and is_picture(here):
            shown[name] = pictures_of(cell)
        elif (here is None or is_answer(here)) and name not in texts and cell.cell_type in ("code", "markdown"):
            own.setdefault(place, []).append(copied(cell))
        place = name if final or name in texts else place       # earlier parts stand before it, in their order
    cells = own.get(None, [])
    for cell in ours.cells:
        name = name_of(cell)
        if is_answer(cell):
            given = answers.get(name)
            cell.source = given.source if given is not None else "" if cell.cell_type == "markdown" else "raise NotImplementedError()"
            if given is not None and "attachments" in given and cell.cell_type == "markdown":
                cell.attachments = given.attachments
            if given is not None and cell.cell_type == "code":
                cell.metadata.handed_in = pictures_of(given)
        elif is_picture(cell):
            cell.metadata.handed_in = shown.get(name, [])
        cells.append(cell)
        cells += own.get(name, [])
    return NotebookNode({**ours, "cells": cells})


def named(notebook: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    """The code cells that are run, each with a name of its own."""
    seen: set[str] = set()
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and not is_picture(cell):
            name = name_of(cell) if name_of(cell) not in seen else f"cell {i}"
            seen.add(name)
            yield name, cell


def cells_of(notebook: NotebookNode, ours: dict[str, str], mine: dict[str, list[str]]) -> list[Cell]:
    """What is run.  Only a cell that is the teacher's to the letter (`ours`: name → source) is trusted.  Pictures are shown as they were handed in.

    `mine`: the functions of the package that an answer is to write anew (metadata of its cell, {"ddpm_tutorial": {"mine": […]}}); calling them is none.
    """
    cells, here, checks = [], [], {}                             # checks: name → where it stands
    for name, cell in named(notebook):
        if is_answer(cell):
            here = mine.get(name, [])
        trusted = ours.get(name) == cell.source and about(cell).get("locked")
        kind = "student" if not trusted else "locked" if not is_check(cell) else "tier" if name.endswith(TIERS) else "check"
        cells.append(Cell(name, kind, cell.source, tuple(here) if kind == "check" else ()))
        if kind == "check":
            checks[name] = len(cells) - 1
        elif kind == "tier" and (at := checks.get(name.rpartition("_")[0])) is not None:
            cells[at] = cells[at]._replace(tiers=(*cells[at].tiers, cells[-1]))
    return cells


def trusted_of(ours: NotebookNode) -> tuple[dict[str, str], dict[str, list[str]]]:
    locked = {name_of(c): c.source for c in ours.cells if about(c).get("locked")}
    return locked, {name_of(c): c.metadata.get("ddpm_tutorial", {}).get("mine", []) for c in ours.cells if is_answer(c)}


def filled(notebook: NotebookNode, outcomes: dict[str, Outcome], model: dict[str, str]) -> None:
    """Write what became of every cell into its outputs, as nbgrader expects it, and the rubric below each written answer."""
    for name, cell in named(notebook):
        outcome = outcomes.get(name, Outcome(""))
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=outcome.printed)] if outcome.printed else []
        if outcome.failed:
            cell.outputs.append(nbformat.v4.new_output("error", ename="Lost" if is_check(cell) else "Error", evalue=outcome.failed, traceback=[outcome.failed]))
    cells = []
    for cell in notebook.cells:
        handed_in = cell.metadata.pop("handed_in", [])
        if cell.cell_type == "code" and not is_check(cell):
            cell.outputs += [nbformat.from_dict(output) for output in handed_in]
        cells.append(cell)
        if is_written(cell):
            cells.append(nbformat.v4.new_markdown_cell(RUBRIC.format(points=about(cell).points, answer=model.get(name_of(cell), ""))))
    notebook.cells = cells


class Sandbox(NbGraderPreprocessor):
    """In the place of nbgrader's Execute."""

    cell_seconds = Float(Limits().cell, help="that a cell may run").tag(config=True)
    notebook_seconds = Float(Limits().notebook, help="that all cells of a notebook may run").tag(config=True)
    done: ClassVar[dict[tuple[str, str], dict[str, Outcome]]] = {}      # {(student, exercise): outcomes}: what grade.py has run already, several at a time

    def preprocess(self, nb, resources):
        from release import NAMES, source  # beside this folder; it needs nbgrader's settings, which need this

        student, exercise = resources["nbgrader"]["student"], resources["nbgrader"]["assignment"]
        ours = source(exercise) if exercise in NAMES else NotebookNode(cells=[])
        outcomes = self.done.pop((student, exercise), None)
        if outcomes is None:                                    # nbgrader's own command: its database knows the cells of its class
            with Gradebook(resources["nbgrader"]["db_url"]) as book:
                locked = {c.name: c.source for c in book.find_notebook(resources["nbgrader"]["notebook"], exercise).source_cells if c.locked}
            outcomes, remarks = run(cells_of(nb, locked, trusted_of(ours)[1]), Limits(self.cell_seconds, self.notebook_seconds))
            for remark in remarks:
                self.log.warning("%s, %s: %s", student, exercise, remark)
        filled(nb, outcomes, {name_of(c): c.source.partition("### BEGIN SOLUTION")[2].partition("### END SOLUTION")[0].strip()
                              for c in ours.cells if is_written(c)})
        return nb, resources
