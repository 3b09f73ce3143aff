"""docs/troubleshooting.md: its numbers are the measured ones, its pictures exist, and its measurements run."""

import contextlib
import csv
import io
import re
from itertools import groupby
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
with (DOCS / "sick" / "measured.csv").open(encoding="utf-8") as file:
    MEASURED = list(csv.DictReader(file))
HEADINGS = {"alike": "All alike", "smooth": "Too smooth", "NaN": "NaN"}
SECTIONS = {HEADINGS.get(symptom, symptom.capitalize()): list(rows) for symptom, rows in groupby(MEASURED, lambda row: row["symptom"]) if symptom != "labels"}


@pytest.mark.parametrize("heading, rows", SECTIONS.items())
def test_the_numbers_of_a_section_are_those_that_were_measured(heading, rows):
    """`python benchmarks/sick.py` writes the file; a number that was changed by hand, or a file that was made anew, is seen here: all, and no others."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    pairs = re.findall(r"\| ([^\s|][^|]*) \| ([^\s|][^|]*) \|$", section, re.MULTILINE)
    assert sorted(pair for pair in pairs if pair != ("healthy", "sick")) == sorted((row["healthy"], row["sick"]) for row in rows)


@pytest.mark.parametrize("cause", {row["cause"]: None for row in MEASURED if row["symptom"] == "labels"})
def test_the_table_of_labels_is_the_measured_one(cause):
    cells = [f"{row['healthy']}, {row['sick']}" for row in MEASURED if row["cause"] == cause]
    assert f"| {cause} | {' | '.join(cells)} |" in PAGE


def test_every_picture_of_the_page_is_there_and_says_what_it_shows():
    """With an alternative text, for whoever cannot see it; and no picture lies about unused."""
    shown = dict(reversed(pair) for pair in re.findall(r"!\[([^\]]*)\]\(sick/(\w+)\.png\)", PAGE))
    assert set(shown) == {path.stem for path in (DOCS / "sick").glob("*.png")}
    assert all(len(text) > 40 for text in shown.values())


def test_its_measurements_run_and_say_healthy_of_a_healthy_model():
    """Every block of the page, in order, on the model that comes with the package: a measurement that fails on the healthy measures nothing."""
    world, said = {}, io.StringIO()
    with contextlib.redirect_stdout(said):
        for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
            exec(block, world)
    asked, largest, both, edges, dropped = said.getvalue().splitlines()
    variety, memorisation = map(float, both.split())
    assert float(asked) < 0.2 and float(re.search(r"[\d.]+", largest)[0]) < 2
    assert variety > 0.8 and memorisation > 0.8 and 0.7 < float(edges) < 1.3
    assert 0 < int(dropped.split()[0]) and int(dropped.split()[1]) < 40
    state = list(world["model"].trajectory(1, steps=2))[-1]
    assert state.t == 0 and world["x_0"].min() == -1 and world["x_0"].max() == 1
