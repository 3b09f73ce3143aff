"""Headings, and what they are called behind the # of a link: by GitHub, by Jupyter, and in the book, where MyST leaves the formulas out."""

import functools
import json
import re
from pathlib import Path


@functools.cache
def headings(path: Path) -> list[str]:
    """All headings of a notebook or of a page of Markdown, the title first."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
    return re.findall(r"^#+ +(.+?) *$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.M)


def slug(text: str) -> str:
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def in_the_book(heading: str) -> str:
    return slug(re.sub(r"\$[^$]*\$|[`*]", "", heading))


def translated(path: Path, anchor: str) -> str:
    """The anchor in the book for one that GitHub or Jupyter would find; an unknown one stays what it is, and Sphinx will complain of it."""
    for heading in headings(path) if path.suffix in (".md", ".ipynb") else ():
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)|[*`]", r"\1", heading)
        if anchor in (slug(plain), plain.replace(" ", "-")):
            return in_the_book(heading)
    return anchor
