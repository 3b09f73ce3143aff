"""docs/notation.md is the one table of equations: every number that a docstring or a notebook cites is in it, and everything in it resolves."""

import ast
import functools
import inspect
import json
import re
from pathlib import Path

import pytest
import torch

import ddpm_tutorial
import ddpm_tutorial.evaluation.metrics
import ddpm_tutorial.likelihood
from ddpm_tutorial import classifier_free, cosine

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "notation.md").read_text(encoding="utf-8")
NUMBERS = r"(?P<kind>[Ee]qs?\.|[Ee]quations?|Algorithms?)\s\(?(?P<numbers>\d+(?:(?:\s?[-–,]\s?|\sand\s)\d+)*)"


def rows(heading):
    """The table under a heading, as lists of cells."""
    lines = [line for line in PAGE.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


PAPERS = {short: re.search(r"\[(\d{4}\.\d{5})\]", paper)[1] for short, paper in rows("The papers")}
SPELT_OUT = {"improved DDPM": "iDDPM", "Improved DDPM": "iDDPM", "Dhariwal & Nichol": "DN", "Karras et al.": "EDM"}
EQUATIONS = rows("The equations")


def expanded(kind, numbers):
    """'eqs.', '6-7, 12'  →  ['eq. 6', 'eq. 7', 'eq. 12']"""
    found = []
    for part in re.split(r",|\sand\s", numbers):
        first, *last = (int(n) for n in re.split(r"[-–]", part.strip()))
        found += range(first, (last[0] if last else first) + 1)
    return [f"{'Algorithm' if kind.startswith('A') else 'eq.'} {n}" for n in found]


def tags(cell):
    """'DDIM eqs. 12, 13'  →  ['DDIM eq. 12', 'DDIM eq. 13']; one that is known by a name, 'KID, the unbiased estimator', has no number to be cited by."""
    if ", the " in cell:
        return []
    short, rest = cell.split(" ", 1)
    match = re.fullmatch(NUMBERS, rest)
    return [f"{short} {tag}" for tag in expanded(match["kind"], match["numbers"])]


IN_TABLE = {tag for row in EQUATIONS for tag in tags(row[0])}


def cited_in_docstrings():
    """(file, tag): [n] in front of a number is the n-th paper in the file's header; without one it is the nearest before it on the line, or else the first,
    or ? in a file without a list of papers, such as a wing's __init__."""
    by_arxiv = {number: short for short, number in PAPERS.items()}
    for path in sorted((ROOT / "ddpm_tutorial").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        header = ast.get_docstring(tree) or ""
        sources = {int(n): by_arxiv.get(arxiv) for n, arxiv in re.findall(r"\[(\d+)\].*?arXiv:(\d{4}\.\d{5})", header)}
        documented = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)]
        for line in "\n".join(ast.get_docstring(node) or "" for node in documented).splitlines():
            for match in re.finditer(NUMBERS, line):
                before = re.findall(r"\[(\d+)\]", line[:match.start()])
                short = sources.get(int(before[-1]) if before else 1) if sources else "?"
                yield from ((str(path.relative_to(ROOT)), f"{short} {tag}") for tag in expanded(match["kind"], match["numbers"]))


def cited_in_notebooks():
    """(notebook, tag): with its paper's short name where that is in front of the number, and otherwise ? for any paper."""
    names = "|".join(map(re.escape, [*SPELT_OUT, *PAPERS]))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for match in re.finditer(rf"(?:(?P<paper>\b(?:{names}))[,:’'s]*\s(?:\([^)]*\),?\s)?)?{NUMBERS}", "".join(cell["source"])):
                short = SPELT_OUT.get(match["paper"], match["paper"] or "?")
                yield from ((path.name, f"{short} {tag}") for tag in expanded(match["kind"], match["numbers"]))


def test_every_equation_that_is_cited_is_in_the_table():
    """In docstrings with its paper; in notebooks with its paper, or, where that was named before, as a number that some paper in the table has."""
    anyone = {f"? {tag.split(' ', 1)[1]}" for tag in IN_TABLE}
    cited = [*cited_in_docstrings(), *cited_in_notebooks()]
    assert len(cited) > 50                                      # the search finds something
    assert [(where, tag) for where, tag in cited if tag not in IN_TABLE | anyone] == []


def test_every_equation_in_the_table_is_cited_somewhere():
    """By a docstring or a notebook, with its paper's name or without."""
    cited = {tag for _, tag in [*cited_in_docstrings(), *cited_in_notebooks()]}
    assert [tag for tag in sorted(IN_TABLE) if tag not in cited and f"? {tag.split(' ', 1)[1]}" not in cited] == []


@pytest.mark.parametrize("row", [row for row in EQUATIONS if not tags(row[0])], ids=lambda row: row[0])
def test_the_paper_of_an_equation_without_a_number_is_cited_where_it_is_computed(row):
    """By its arXiv number in the file's header, and in the function's docstring by its place there."""
    code = functools.reduce(getattr, re.findall(r"`([\w.]+)`", row[2])[0].split("."), ddpm_tutorial)
    place = re.search(rf"\[(\d+)\][^\n]*arXiv:{re.escape(PAPERS[row[0].split(',')[0]])}", inspect.getmodule(code).__doc__)
    assert place and code.__doc__.startswith(f"[{place[1]}]")


@pytest.mark.parametrize("row", EQUATIONS, ids=lambda row: row[0])
def test_code_and_test_of_each_equation_exist(row):
    """The function can be imported, and the test that is said to prove it is in the file that the link names."""
    for code in re.findall(r"`([\w.]+)`", row[2]):
        assert callable(functools.reduce(getattr, code.split("."), ddpm_tutorial))
    links = re.findall(r"\[([^]]+)\]\(\.\./(tests/[\w/]+\.py)\)", row[3])
    assert links and re.search(r"`[\w.]+`", row[2])
    for name, path in links:
        assert f"def test_{name.replace(' ', '_')}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path} has no test of that name"


def test_the_letters_of_every_paper_are_translated():
    """One column per paper of the method, no cell left empty; and the translations that cost people their time are true."""
    head = PAGE.split("## The same thing in the papers' letters\n")[1].split("\n|")[1]
    assert [cell.strip() for cell in head.split("|")][2:-1] == ["DDPM", "DDIM", "iDDPM", "DN", "CFG", "EDM"]
    assert all(cell for row in rows("The same thing in the papers' letters") for cell in row)

    schedule, t = cosine(20), 7
    alpha_bar, sigma2 = schedule.alpha_bar[t], 1 / schedule.snr[t]                              # EDM's σ²
    torch.testing.assert_close(alpha_bar, 1 / (1 + sigma2))
    torch.testing.assert_close(schedule.log_snr[t], -sigma2.log())                              # CFG's λ
    torch.testing.assert_close(schedule.beta[t], 1 - alpha_bar / schedule.alpha_bar[t - 1])     # with DDIM's α
    cond, uncond, w = torch.tensor([3.0]), torch.tensor([1.0]), 0.5
    guided = classifier_free(lambda *_: cond, lambda *_: uncond, scale=1 + w)
    torch.testing.assert_close(guided(torch.zeros(1), 1), (1 + w) * cond - w * uncond)          # CFG eq. 6 as it is printed
