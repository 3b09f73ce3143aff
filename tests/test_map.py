"""The package's map, ddpm_tutorial/README.md, is the package: no file is missing on it, and nothing on it is gone; and no arrow goes where none may go."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ddpm_tutorial"
MAP = (PACKAGE / "README.md").read_text(encoding="utf-8")
SUBJECT = ("schedules", "forward", "samplers", "guidance", "unet", "ddpm", "exact", "likelihood")
WINGS = ("training", "evaluation", "weights")
FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def imported(path):
    """The modules of ours that a file imports: schedules, training.loop, …"""
    here = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*here[:len(here) - node.level + 1], *(node.module.split(".") if node.module else [])]
            for name in node.names:
                deeper = [*base, name.name]
                found = deeper if (PACKAGE.joinpath(*deeper).with_suffix(".py")).is_file() or PACKAGE.joinpath(*deeper).is_dir() else base
                yield ".".join(found) or "__init__"


def test_every_link_on_the_map_leads_somewhere():
    """A file that was renamed is not left on the map."""
    links = re.findall(r"\]\(([\w/.]+)\)", MAP)
    assert links and [link for link in links if not (PACKAGE / link).exists()] == []


def test_every_file_of_the_ground_floor_and_every_wing_is_on_the_map():
    """And the eight files of the subject stand first, in reading order."""
    links = re.findall(r"\]\(([\w/.]+)\)", MAP)
    assert tuple(link.removesuffix(".py") for link in links[:8]) == SUBJECT
    ground = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert ground - set(links) == set()
    wings = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert wings == set(WINGS) and all(f"{wing}/__init__.py" in links for wing in wings)


def test_each_wing_says_what_is_in_it():
    """Its __init__.py names every file of the wing."""
    for wing in WINGS:
        text = ast.get_docstring(ast.parse((PACKAGE / wing / "__init__.py").read_text(encoding="utf-8")))
        assert [path.name for path in (PACKAGE / wing).glob("*.py") if path.name != "__init__.py" and path.name not in text] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_go_only_as_drawn(path):
    """The ground floor uses no wing, except that DDPM.load and save open the door of weights/; leaves use nothing; plots alone knows matplotlib."""
    name, ours = path.relative_to(PACKAGE), set(imported(path))
    if str(name) in ("checks.py", "modes.py", "terminal.py"):
        assert ours == set()
    if str(name) == "unet.py":
        assert ours <= {"checks"}
    if len(name.parts) == 1 and name.stem in (*SUBJECT, "data", "plots", "checks"):
        wings = {module for module in ours if module.split(".")[0] in WINGS}
        assert {module.split(".")[0] for module in wings} <= ({"weights"} if name.stem == "ddpm" else set()), wings
    if name.stem != "plots":
        assert "matplotlib" not in path.read_text(encoding="utf-8").replace("knows matplotlib", "")


def test_there_is_no_circle_of_imports():
    """Not even through a function's own import: what two files need of each other belongs into a third."""
    def module(path):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "__init__"

    arrows = {module(path): set(imported(path)) - {module(path)} for path in FILES if path.name not in ("__init__.py", "__main__.py")}
    remaining = dict(arrows)
    while free := {name for name, to in remaining.items() if not to & remaining.keys()}:
        remaining = {name: to for name, to in remaining.items() if name not in free}
    assert remaining == {}
