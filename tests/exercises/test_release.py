"""What students are given: in step with the source, and without a word of the solutions."""

import inspect
import re
import symtable
import sys
from itertools import pairwise

import nbformat
import pytest
from runner import HIDDEN, NAMES, RELEASE, SOLUTION, SOURCE, blank, read


@pytest.mark.parametrize("name", NAMES)
def test_the_release_is_in_step_with_the_source(name):
    again = "python exercises/release.py"
    source, release = (nbformat.read(folder / name / f"{name}.ipynb", as_version=4) for folder in (SOURCE, RELEASE))
    assert [blank(c) for c in read(name)] == [c.source.rstrip("\n") for c in read(name, RELEASE)], f"release/{name} is stale: {again}"
    for ours, theirs in zip(source.cells, release.cells):
        assert ours.id == theirs.id and ours.cell_type == theirs.cell_type, f"release/{name} is stale: {again}"
        assert ours.metadata.get("tags") == theirs.metadata.get("tags")
        for key, value in ours.metadata.get("nbgrader", {}).items():
            assert theirs.metadata.nbgrader[key] == value, f"release/{name} is stale: {again}"
        assert not theirs.get("outputs"), f"release/{name} has outputs"


@pytest.mark.parametrize("name", NAMES)
def test_no_solution_and_no_hidden_test_is_in_the_release(name):
    released = (RELEASE / name / f"{name}.ipynb").read_text(encoding="utf-8")
    text = "\n".join(cell.source for cell in nbformat.reads(released, as_version=4).cells)
    assert not re.search("BEGIN SOLUTION|END SOLUTION|HIDDEN TEST", released)
    for cell in read(name):
        for secret in (*SOLUTION.finditer(cell.source), *HIDDEN.finditer(cell.source)):
            for line in secret[0].splitlines()[1:-1]:
                line = line.strip()
                if len(line) > 20 and not line.startswith(("import ", "from ")):        # shorter ones say nothing: "return x"
                    assert line not in text, f"{cell.name}: {line!r} is a secret, and the release says it"


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_keeps_the_house_rules(name):
    cells = read(name)
    names = [c.name for c in cells if c.name]
    assert len(names) == len(set(names))
    assert [c.name for c in cells if c.kind == "code"].count("parameters") == 1
    parameters = next(c for c in cells if c.name == "parameters")
    assert parameters.source.startswith("CLASS_SEED = 0\n")
    for here, following in pairwise(cells):
        if here.kind == "answer":
            assert following.kind == "check", f"{here.name}: an answer is followed by its check"
    for cell in cells:
        if cell.kind == "check":
            assert cell.points > 0 and "assert" in blank(cell), f"{cell.name}: a check has points and visible checks"
            assert not cell.name.endswith(("_silver", "_gold")) or cell.name.rpartition("_")[0] in names, f"{cell.name}: a tier has a check that measures"
        elif cell.kind == "code":
            assert "cache" not in cell.source, f"{cell.name}: what a measurement remembers, a student could have it remember"
        elif cell.kind == "question":
            assert cell.points == 4, f"{cell.name}: a written answer counts, by the rubric of grader/notebook.py"


@pytest.mark.parametrize("name", NAMES)
def test_no_check_and_no_hint_writes_over_what_the_notebook_needs(name):
    """In a notebook all cells share their names, and a student goes back, runs a cell again, and tries the code of a hint."""
    def made(source):
        table = symtable.symtable(re.sub(r"(?m)^%.*$", "", source), "cell", "exec")
        return {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()} - {"_"}

    cells = read(name)
    needed = set().union(*(made(c.source) for c in cells if c.kind in ("code", "answer")))
    for cell in cells:
        written = [cell.source] if cell.kind in ("check", "picture") else re.findall(r"(?s)```python\n(.*?)```", cell.source) if cell.kind == "text" else []
        for source in written:
            assert not made(source) & needed, f"{cell.name or 'a hint'} writes over a name of another cell"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_the_students_to_write_is_a_function_of_the_package(name):
    """The grader looks for calls of these; a name that has changed there would forbid nothing, without a word."""
    import ddpm_tutorial

    modules = [ddpm_tutorial, *(module for key, module in sys.modules.items() if key.startswith("ddpm_tutorial."))]
    for cell in nbformat.read(SOURCE / name / f"{name}.ipynb", as_version=4).cells:
        for mine in cell.metadata.get("ddpm_tutorial", {}).get("mine", []):
            assert cell.metadata.nbgrader.solution and any(inspect.isfunction(getattr(module, mine, None)) for module in modules), f"{cell.id}: {mine}"


def test_the_seals_of_one_class_say_nothing_about_another():
    """Two classes have no seal in common, and the same answers behind them."""
    from runner import exercise

    of = [[dict(exercise("07_bug_clinic", seed).before[-1][f"SEALS_{ward}"]) for ward in (1, 2, 3)] for seed in (0, 1)]
    for ours, theirs in zip(*of):
        assert ours.keys() == theirs.keys() and not set(ours.values()) & set(theirs.values())
