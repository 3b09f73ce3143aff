"""A term is explained before it is used, or its first use in a notebook links to docs/glossary.md: the notebooks are read in their order, prose only.

In headings, code, formulas, and in the words of a link to anywhere else (a title), a term is a name and needs no explanation.
"""

import re
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

OPEN: set[int] = set()   # notebooks that still use a term before it is said; whoever mends one takes it off


class Entry(NamedTuple):
    """A term of the glossary: its words, and where it is explained."""

    name: str
    words: list[str]
    text: str
    notebook: str
    anchor: str


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub forms it."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)|[*`]", r"\1", heading).lower()).replace(" ", "-")


def entries(text: str) -> list[Entry]:
    found = []
    for block in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        name, _, body = block.partition("\n")
        also = re.search(r"^\*Also: (.+?)\.\*", body.strip())
        where = re.search(r"^First explained in \[[^\]]+\]\(\.\./notebooks/([\w.]+)#([^)\s]+)\)\. More: \[[^\]]+\]\(https://[^\s]+\)\.$", body, re.MULTILINE)
        assert where, f"{name}: 'First explained in [notebook, section](…). More: [title](https://…).' is missing"
        said = re.sub(r"^\*Also: .+?\.\* ?", "", body.strip()).split("\n\n")[0]
        found.append(Entry(name, [name, *(also[1].split(", ") if also else [])], said, where[1], where[2]))
    return found


GLOSSARY = entries(TEXT)


def prose(source: str) -> str:
    """What is left to be explained: links to the glossary stay as they are, other links lose their words."""
    source = re.sub(r"^```.*?^```|\$\$.*?\$\$|`[^`\n]*`|\$[^$\n]*\$|^#{1,6} [^\n]*$|<[^>]*>", " x ", source, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\[[^\]]*\]\((?!\.\./docs/glossary\.md)[^)]*\)", " x ", source)


def uses(entry: Entry, text: str) -> list[str]:
    """Each use of a term: "linked", or the words around it.   Capitals within a word and short words are taken as they are: SNR, and no "a bit"."""
    def pattern(word):
        exact = word[1:] != word[1:].lower() or len(word) < 4
        return rf"(?<![\w-]){re.escape(word)}(?![\w-])" if exact else rf"(?i:(?<![\w-]){re.escape(word)}(?![\w-]))"

    words = "|".join(map(pattern, sorted(entry.words, key=len, reverse=True)))
    link = rf"\[[^\]]*\]\(\.\./docs/glossary\.md#{re.escape(slug(entry.name))}\)"
    found = []
    for match in re.finditer(rf"(?P<link>{link})|\[[^\]]*\]\([^)]*\)|(?P<word>{words})", text):
        if match["link"]:
            found.append("linked")
        elif match["word"]:
            found.append(text[max(0, match.start() - 30):match.end() + 20].replace("\n", " "))
    return found


def too_early(cells: list[str], number: int, glossary: list[Entry]) -> list[str]:
    """The first unlinked use of each term that is explained later in this notebook or in a later one."""
    found = []
    for entry in glossary:
        home = int(entry.notebook[:2])
        if home < number:
            continue
        for source in cells:
            before, here = source, False
            if home == number:
                lines = source.splitlines()
                stop = next((i for i, line in enumerate(lines) if line.startswith("#") and slug(line.lstrip("#").strip()) == entry.anchor), None)
                before, here = ("\n".join(lines[:stop]), True) if stop is not None else (source, False)
            found_here = uses(entry, prose(before))
            if found_here and found_here[0] != "linked":
                found.append(f"{entry.name}: … {found_here[0]} …")
            if found_here or here:
                break
    return found


def markdown(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_term_is_used_before_it_is_said(path):
    """Unless its first use links to the glossary."""
    number = int(path.name[:2])
    found = too_early(markdown(path), number, GLOSSARY)
    if number in OPEN:
        assert found, f"{path.stem} is mended: take {number} off OPEN"
    else:
        assert not found, "\n".join(found)


@pytest.mark.parametrize("entry", GLOSSARY, ids=lambda entry: entry.name)
def test_an_entry_is_two_sentences_and_leads_to_its_section(entry):
    """Short enough to be read in passing; the rest is in the notebook."""
    assert len(re.findall(r"[.?](?=\s|$)", entry.text)) == 2, entry.text
    home = "\n".join(markdown(ROOT / "notebooks" / entry.notebook))
    assert entry.anchor in map(slug, re.findall(r"^#{2,6} +(.*?) *$", home, re.MULTILINE))


def test_no_word_is_explained_twice():
    words = [word.lower() for entry in GLOSSARY for word in entry.words]
    assert len(words) == len(set(words))
    assert [entry.name.lower().replace("é", "e") for entry in GLOSSARY] == sorted(entry.name.lower().replace("é", "e") for entry in GLOSSARY)


SMALL = entries("""
### Score

*Also: score function.* One. Two.

First explained in [03, 2. The score](../notebooks/03_x.ipynb#2-the-score). More: [x](https://x.org/x).

### Nat

*Also: nats.* One. Two.

First explained in [04, a](../notebooks/04_x.ipynb#a). More: [x](https://x.org/x).
""")


@pytest.mark.parametrize("cell, early", [
    ("the score is high", 1), ("the score function", 1), ("Scores? No: scored, a score-based model", 0), ("`score` and $score$", 0),
    ("# The score", 0),
    ("the [score](../docs/glossary.md#score), and the score again", 0), ("the score, and then the [score](../docs/glossary.md#score)", 1),
    ("the [score](../docs/glossary.md#nat)", 0), ("[Score matching](https://x.org)", 0), ("3 nats", 1), ("natural", 0),
    ("## 2. The score\\n\\nThe score is", 0),
    ("the score\\n\\n## 2. The score", 1), ("# A heading\\n\\nthe score", 1),
])
def test_the_reader_of_terms_is_right(cell, early):
    """In notebook 03, where the score is explained and the nat is not yet."""
    assert len(too_early([cell.replace("\\n", "\n")], 3, SMALL)) == early


def test_a_later_notebook_may_use_what_an_earlier_one_explained():
    assert too_early(["the score in nats"], 4, SMALL[:1]) == [] and len(too_early(["the score in nats"], 2, SMALL)) == 2
