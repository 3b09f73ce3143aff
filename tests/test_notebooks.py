"""What is stored in notebooks/ keeps the course's promises: executed, checked, portable, complete.  (Running it is nbval's work.)

Every rule is shown to bite: a small notebook that keeps them all passes, and the same notebook with one defect is caught by that rule's name.
"""

import ast
import base64
import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import nbformat
import nbformat.reader
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

COURSE = Path(__file__).parents[1] / "notebooks"
LAST = 12                                                       # 00 … 12
LARGEST, MOVING = 1_500_000, 300_000                            # bytes of a notebook, and of a picture that moves
LINES, COLUMNS, PREDICTIONS = 15, 100, 4                        # of a cell; and "Predict, then run" of a notebook
WORDS, SECONDS = 180, 20                                        # read in a minute; needed for a line of code
BENCHES = {0: "digits", 1: "schedules", 2: "cloud", 3: "cloud", 5: "clinic", 6: "digits", 7: "cloud", 8: "digits"}    # of the laboratory

LONG = {                                                        # "number id": why this cell may be longer or wider; ten at most in the whole course
}

EACH, ALL = 2 * 60, 13 * 60                                     # seconds on two CPU cores

FIRST = """\
try:
    import ddpm_tutorial  # noqa: F401
except ModuleNotFoundError:      # a fresh environment, or Colab after cloning the repository and  %cd ddpm_tutorial/notebooks
    %pip install -q ..
%matplotlib inline
"""

MACHINES = re.compile(r"""
    (?<![\w.-])/(?:home|root|work|tmp|Users|opt|usr|var|private|mnt|srv)/ | \b[A-Z]:\\+(?:Users|Windows|Program|Temp|Python|Anaconda)
    | (?:site|dist)-packages | \\AppData\\ | ipykernel_\d""", re.VERBOSE)
REGISTRIES = re.compile(r"""
    pypi\.org | pythonhosted\.org | Looking\ in\ indexes | index-url | artifactory | jfrog | devpi
    | \b(?:127|10|192\.168|172\.(?:1[6-9]|2\d|3[01]))(?:\.\d{1,3}){2,3}(?::\d+|/)""", re.VERBOSE | re.IGNORECASE)


class Page(NamedTuple):
    """A notebook, and where it lies."""

    path: Path
    nb: nbformat.NotebookNode
    size: int

    @property
    def number(self) -> int:
        return int(self.path.name[:2])

    @property
    def code(self) -> list:
        return [cell for cell in self.nb.cells if cell.cell_type == "code"]

    @property
    def prose(self) -> list[str]:
        return [cell.source for cell in self.nb.cells if cell.cell_type == "markdown"]


def read(path: Path) -> Page:
    return Page(path, nbformat.reader.reads(path.read_text(encoding="utf-8")), path.stat().st_size)      # as it is: nbformat.read mends what it can


# The rules: each yields a sentence for everything that breaks it.

def valid(page: Page) -> Iterator[str]:
    """nbformat 4.5, so cells have ids, and the kernel is the one that every installation has."""
    if (page.nb.nbformat, page.nb.nbformat_minor) < (4, 5):
        yield f"nbformat {page.nb.nbformat}.{page.nb.nbformat_minor}: cells have ids from 4.5 on"
    yield from (str(error).splitlines()[0] for error in nbformat.validator.iter_validate(page.nb))
    ids = [cell.get("id") for cell in page.nb.cells]
    yield from (f"{ids.count(i)} cells have the id {i!r}" for i in sorted({i for i in ids if i and ids.count(i) > 1}))
    if (kernel := page.nb.metadata.get("kernelspec", {}).get("name")) != "python3":
        yield f"its kernel is {kernel!r}; every installation has python3"


def checked(page: Page) -> Iterator[str]:
    """At least one cell whose stored text nbval compares."""
    marked = [cell for cell in page.code if re.search(r"^# ?NBVAL_CHECK_OUTPUT\b", cell.source, re.MULTILINE)]
    if not marked:
        yield "no cell says # NBVAL_CHECK_OUTPUT"
    for cell in marked:
        if not any(output.get("text") or output.get("data", {}).get("text/plain") for output in cell.outputs):
            yield f"cell {_name(page, cell)} is to be checked, and stores no text to check"


def executed(page: Page) -> Iterator[str]:
    """Run once, from the top to the bottom, in a fresh kernel."""
    for expected, cell in enumerate(page.code, 1):
        if cell.execution_count is None:
            yield f"cell {_name(page, cell)} was not executed"
        elif cell.execution_count != expected:
            yield f"cell {_name(page, cell)} was executed as number {cell.execution_count}, and stands as number {expected}"
            return                                              # all that follow would be out of step too


def no_error(page: Page) -> Iterator[str]:
    for cell, output in _outputs(page):
        if output.output_type == "error":
            yield f"cell {_name(page, cell)} stores an error: {output.ename}"


def no_stderr(page: Page) -> Iterator[str]:
    """Warnings are to be mended or caught, and progress bars go to stdout."""
    for cell, output in _outputs(page):
        if output.get("name") == "stderr":
            yield f"cell {_name(page, cell)} wrote on stderr: {output.text[:60]!r}"


def no_machine(page: Page) -> Iterator[str]:
    """No path of the machine and no package registry, neither in sources nor in outputs nor in metadata."""
    texts = [(_name(page, cell), cell.source + json.dumps(cell.metadata)) for cell in page.nb.cells]
    texts += [(_name(page, cell), text) for cell, output in _outputs(page) for text in _texts(output)]
    for where, text in [*texts, ("metadata", json.dumps(page.nb.metadata))]:
        for what, pattern in (("a path of a machine", MACHINES), ("a package registry", REGISTRIES)):
            if found := pattern.search(text):
                yield f"cell {where} has {what}: {text[max(0, found.start() - 10):found.end() + 30]!r}"


def small(page: Page) -> Iterator[str]:
    if page.size > LARGEST:
        yield f"{page.size:,} bytes; at most {LARGEST:,}"


def links(page: Page) -> Iterator[str]:
    """Relative links lead to files that exist, and to headings that exist in them."""
    for cell in page.nb.cells:
        if cell.cell_type != "markdown":
            continue
        for target in _targets(cell.source):
            path, _, anchor = unquote(target).partition("#")
            if target.startswith("attachment:"):
                if target.removeprefix("attachment:") not in cell.get("attachments", {}):
                    yield f"cell {_name(page, cell)}: {target} is not attached"
                continue
            file = page.path.parent / path if path else page.path
            if path and not file.exists():
                yield f"cell {_name(page, cell)}: {path} does not exist"
            elif anchor and file.suffix in (".md", ".ipynb") and anchor not in _anchors("\n".join(page.prose) if not path else _markdown(file)):
                yield f"cell {_name(page, cell)}: {path or 'this notebook'} has no heading for #{anchor}"


def header(page: Page) -> Iterator[str]:
    """Title with its number, what one can do afterwards, the time on two CPU cores, the notation table, and the notebook to read first."""
    first = page.nb.cells[0]
    if first.cell_type != "markdown" or not re.match(rf"# {page.number:02d}\b", first.source):
        yield f"the first cell must be its header, beginning with '# {page.number:02d} ·'"
        return
    if not (re.search(r"you (will|can)\b", first.source, re.IGNORECASE) and len(re.findall(r"^- ", first.source, re.MULTILINE)) >= 2):
        yield "the header has no list of goals: 'You will learn to', and a line '- …' for each"
    if _stated_seconds(first.source) is None:
        yield "the header does not say how long it runs: '… s on two CPU cores'"
    if not any("#notation" in target or "notation.md" in target for target in _targets(first.source)):
        yield "the header does not link to the notation table"
    if page.number and not any(re.match(r"\d\d_\w+\.ipynb", target) for target in _targets(first.source)):
        yield "the header does not link to a notebook to read first"


def recap(page: Page) -> Iterator[str]:
    if not any(re.search(r"^#+ .*\brecap\b", text, re.MULTILINE | re.IGNORECASE) for text in page.prose):
        yield "no heading says 'Recap'"
    if not any(re.search(r"\*\*Exercises? to do next\b", text, re.IGNORECASE) for text in page.prose):
        yield "it names no exercise: '**Exercise to do next:**'"


def folded(page: Page) -> Iterator[str]:
    """Two questions at least, and each answer folded away, properly closed within its cell."""
    for text in page.prose:
        if not text.count("<details>") == text.count("</details>") == text.count("<summary>") == text.count("</summary>"):
            yield f"<details>, <summary> and their ends do not pair: {text[:60]!r}"
    questions, answers = (sum(text.count(what) for text in page.prose) for what in ("**Predict, then run", "<details>"))
    if questions < 2 or answers < questions:
        yield f"{questions} times 'Predict, then run' and {answers} folded answers (<details>); at least 2, and an answer for each"


def asserts(page: Page) -> Iterator[str]:
    if not any(re.search(r"^\s*(assert\b|[\w.]*\bassert_\w+\()", cell.source, re.MULTILINE) for cell in page.code):
        yield "no cell asserts anything"


def begins(page: Page) -> Iterator[str]:
    """The first code cell begins with the same lines everywhere."""
    if not page.code or not (page.code[0].source + "\n").startswith(FIRST):
        yield f"its first code cell must begin with\n{FIRST}"


def leads_on(page: Page) -> Iterator[str]:
    """Each links to the next."""
    following = f"{page.number + 1:02d}_"
    if page.number < LAST and not any(target.startswith(following) for text in page.prose for target in _targets(text)):
        yield f"no link to the next notebook, {following}….ipynb"


def short_cells(page: Page) -> Iterator[str]:
    """At most 15 lines of at most 100 columns; blank lines and the lines that every notebook begins with do not count."""
    for cell in page.code:
        if f"{page.number:02d} {cell.get('id')}" in LONG:
            continue
        if (lines := _lines(cell.source)) > LINES:
            yield f"cell {_name(page, cell)} has {lines} lines; at most {LINES}"
        if (widest := max(map(len, cell.source.removeprefix(FIRST).splitlines() or [""]))) > COLUMNS:
            yield f"cell {_name(page, cell)} is {widest} columns wide; at most {COLUMNS}"


def shows(page: Page) -> Iterator[str]:
    """Every code cell has an output, except definitions that the next cell uses, and the imports at the top, which any may use."""
    for cell, following in zip(page.code, [*page.code[1:], None]):
        if cell.outputs:
            continue
        names = _defined(cell.source)
        if names is None:
            yield f"cell {_name(page, cell)} shows nothing, and does more than define"
        elif cell is not page.code[0] and not (following and any(re.search(rf"\b{name}\b", following.source) for name in names)):
            yield f"cell {_name(page, cell)} shows nothing, and the next cell uses nothing of it"


def predictions(page: Page) -> Iterator[str]:
    if (found := sum(text.count("**Predict, then run") for text in page.prose)) > PREDICTIONS:
        yield f"{found} times 'Predict, then run'; at most {PREDICTIONS}"


def reading(page: Page) -> Iterator[str]:
    """The header's 'about N minutes to read' is computed."""
    found, wanted = re.search(r"\babout (\d+) minutes to read\b", page.nb.cells[0].source), _minutes(page)
    if not found or abs(int(found[1]) - wanted) > 1:
        yield f"the header must say 'about {wanted} minutes to read': {WORDS} words a minute, and {SECONDS} s for a line of code"


def ends(page: Page) -> Iterator[str]:
    """A recap of at most six lines, three small changes to try, the exercise, and three to six links with a sentence each."""
    text = "\n".join(page.prose)
    flags = re.DOTALL | re.MULTILINE | re.IGNORECASE
    parts = {name: re.search(rf"^#+ [\d. ]*{name}\b.*?\n(.*?)(?=^#|\*\*Exercises? to do|^\*\*Play|\Z)", text, flags)
             for name in ("recap", "try this", "further reading")}
    for name, part in parts.items():
        if not part:
            yield f"no heading says '{name.capitalize()}'"
    places = [part.start() for part in parts.values() if part]
    if places != sorted(places):
        yield "the end is in another order: Recap, Try this, Further reading"
    if (part := parts["recap"]) and len([line for line in part[1].splitlines() if line.strip()]) > 6:
        yield "the recap has more than six lines"
    if (part := parts["try this"]) and len(re.findall(r"^(?:- |\d\. )", part[1], re.MULTILINE)) != 3:
        yield "'Try this' must be a list of three small changes, and what to expect of each"
    if part := parts["further reading"]:
        items = re.findall(r"^- (.*)$", part[1], re.MULTILINE)
        why = [len(re.sub(r"\[.*?\]\(\S+\)", "", item).split()) for item in items if re.search(r"\]\(https://\S+\)", item)]
        if not 3 <= len(items) <= 6 or len(why) < len(items) or min(why) < 5:
            yield "'Further reading' must be a list of three to six links, each with one sentence on why"


def play(page: Page) -> Iterator[str]:
    """'**Play:** [what](../book/lab/index.html#bench=…)', where a bench of the laboratory belongs to the notebook."""
    found = re.findall(r"^\*\*Play:\*\* .*\(\.\./book/lab/index\.html#bench=(\w+)[^)]*\)", "\n".join(page.prose), re.MULTILINE)
    if (bench := BENCHES.get(page.number)) and bench not in found:
        yield f"no line '**Play:** [ … ](../book/lab/index.html#bench={bench})'"
    yield from (f"the laboratory has no bench {name!r}" for name in found if name not in BENCHES.values())


def light(page: Page) -> Iterator[str]:
    """What moves is small."""
    for cell, output in _outputs(page):
        for kind in ("image/png", "image/gif"):
            text = output.get("data", {}).get(kind, "")
            size, head = len(text) * 3 // 4, base64.b64decode(text[:min(len(text), 136) // 4 * 4])
            if size > MOVING and (b"acTL" in head or head[:3] == b"GIF"):
                yield f"cell {_name(page, cell)} shows a moving picture of {size:,} bytes; at most {MOVING:,}"


RULES: list[Callable[[Page], Iterator[str]]] = [
    valid, checked, executed, no_error, no_stderr, no_machine, small, links, header, recap, folded, asserts, begins, leads_on,
    short_cells, shows, predictions, reading, ends, play, light,
]


def complaints(page: Page) -> list[str]:
    return [f"{rule.__name__}: {sentence}" for rule in RULES for sentence in rule(page)]


def gaps(names: Sequence[str]) -> list[str]:
    """What is wrong with the numbering of a course of these files."""
    strange = [f"{name} is not called NN_words.ipynb" for name in names if not re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", name)]
    numbers = [int(name[:2]) for name in names if name[:2].isdigit()]
    missing = [f"there is no notebook {n:02d}" for n in range(LAST + 1) if n not in numbers]
    return strange + missing + [f"there are {numbers.count(n)} notebooks {n:02d}" for n in sorted(set(numbers)) if numbers.count(n) > 1 or n > LAST]


def over_budget(pages: Sequence[Page]) -> list[str]:
    """Which are slower than their budget, by the time that is stored with the cells, or else by what the header says."""
    times = {page.path.name: _stored_seconds(page) or _stated_seconds(page.nb.cells[0].source) or 0 for page in pages}
    slow = [f"{name} took {seconds:.0f} s; its budget is {EACH} s" for name, seconds in times.items() if seconds > EACH]
    return slow + [f"all together took {sum(times.values()):.0f} s; the budget is {ALL} s"] * (sum(times.values()) > ALL)


# What the rules look at.

def _name(page: Page, cell) -> str:
    return f"{page.nb.cells.index(cell)} ({cell.source.strip().splitlines()[0][:40] if cell.source.strip() else 'empty'})"


def _outputs(page: Page) -> Iterator[tuple]:
    return ((cell, output) for cell in page.code for output in cell.outputs)


def _texts(output) -> list[str]:
    """All of an output that somebody reads; pictures are base64, in which any letters occur."""
    data = [str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/") or kind == "image/svg+xml"]
    return [*data, output.get("text", ""), "\n".join(output.get("traceback", []))]


def _targets(text: str) -> list[str]:
    """Relative links and pictures; code and formulas are no links."""
    text = re.sub(r"```.*?```|``.*?``|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", "x", text, flags=re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r"^\[[^\]]+\]:\s+(\S+)", text, re.MULTILINE) + re.findall(r'\b(?:src|href)="([^"]+)"', text)
    return [target for target in found if not re.match(r"(https?|mailto|data):", target)]


def _markdown(file: Path) -> str:
    return "\n".join(read(file).prose) if file.suffix == ".ipynb" else file.read_text(encoding="utf-8")


def _lines(source: str) -> int:
    """Lines of a cell that somebody reads."""
    return sum(bool(line.strip()) for line in source.removeprefix(FIRST).splitlines())


def _minutes(page: Page) -> int:
    """How long a notebook takes to read.   The address of a link and the marks of a table are not read."""
    words = sum(len(re.findall(r"\S*\w\S*", re.sub(r"\]\([^)]*\)|<[^>]*>", " ", text))) for text in page.prose)
    return round(words / WORDS + sum(_lines(cell.source) for cell in page.code) * SECONDS / 60)


def _defined(source: str) -> set[str] | None:
    """The names that a cell of imports and definitions makes; None if it does more."""
    names = set()
    for node in ast.parse(re.sub(r"^(\s*)%.*$", r"\1pass", source.removeprefix(FIRST), flags=re.MULTILINE)).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.Lambda):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        else:
            return None
    return names


def _anchors(text: str) -> set[str]:
    """The anchors of the headings of a markdown text, as GitHub forms them and as Jupyter does."""
    headings = re.findall(r"^#{1,6} +(.*?) *$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)|[*`]", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain} | {heading.replace(" ", "-") for heading in plain}


def _stated_seconds(text: str) -> float | None:
    found = re.search(r"(\d+(?:\.\d+)?)\s*(s|seconds?|min|minutes?)\b[^.\n]*\b(?:two|2) CPU cores", text)
    return found and float(found[1]) * (1 if found[2].startswith("s") else 60)


def _stored_seconds(page: Page) -> float | None:
    """nbconvert notes when it sent each cell and when the kernel was idle again."""
    times = [cell.metadata.get("execution", {}) for cell in page.code]
    spans = [(t.get("iopub.execute_input"), t.get("iopub.status.idle")) for t in times]
    if not any(all(span) for span in spans):
        return None
    return sum((_moment(end) - _moment(begin)).total_seconds() for begin, end in filter(all, spans))


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 does not read the Z


# The course.

NOTEBOOKS = sorted(COURSE.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_keeps_every_rule(path):
    found = complaints(read(path))
    assert not found, "\n".join([path.name, *found])


def test_the_exceptions_are_few_and_are_cells():
    """Ten cells of the whole course may be longer or wider, and each says why."""
    cells = {f"{page.number:02d} {cell.get('id')}" for page in map(read, NOTEBOOKS) for cell in page.code}
    assert len(LONG) <= 10 and LONG.keys() <= cells and all(len(why) > 20 for why in LONG.values())


def test_every_bench_is_in_the_laboratory():
    """Under the name that its address has."""
    text = (COURSE.parent / "book" / "lab" / "index.html").read_text(encoding="utf-8")
    assert set(BENCHES.values()) == set(re.findall(r'data-bench="(\w+)"', text))


def test_the_course_has_every_number_once():
    assert not gaps([path.name for path in NOTEBOOKS])


def test_the_course_keeps_to_its_time():
    """Only a warning: how long a cell took says as much about the machine as about the cell."""
    for sentence in over_budget([read(path) for path in NOTEBOOKS]):
        warnings.warn(sentence, stacklevel=2)


# The rules bite.

HEADER = """\
# 03 · A small notebook

You will learn to

- write,
- read.

**Time:** runs in 5 s on two CPU cores; about 1 minutes to read.
**Read first:** [02](02_before.ipynb). **Letters:** the [notation table](../README.md#notation)."""

QUESTION = """\
**Predict, then run.** And now?

<details><summary>Answer</summary>

So.

</details>"""

END = """\
## Recap

It is over; what $f[0](x)$ and `[a](b)` say is no link.

**Play:** [the cloud](../book/lab/index.html#bench=cloud&t=3).

## Try this

- One.
- Two.
- Three.

**Exercise to do next:** 01.

## Further reading

- [A](https://example.org/a): it shows the same in pictures.
- [B](https://example.org/b): it shows the same in words.
- [C](https://example.org/c): it shows the same in code.

Next: [04](04_after.ipynb)."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small repository."""
    root = tmp_path_factory.mktemp("repository")
    (root / "README.md").write_text("# A title\n\n## Notation\n", encoding="utf-8")
    (root / "book" / "lab").mkdir(parents=True)
    (root / "book" / "lab" / "index.html").write_text("x", encoding="utf-8")
    (folder := root / "notebooks").mkdir()
    for name in ("02_before.ipynb", "04_after.ipynb"):
        nbformat.write(new_notebook(cells=[new_markdown_cell(f"# {name}\n\n## Section 2: *the end*")]), folder / name)
    return folder


@pytest.fixture
def page(folder) -> Page:
    """A small notebook that keeps every rule."""
    said = new_output("stream", name="stdout", text="4\n")
    drawn = new_output("display_data", data={"image/png": "aW1hZ2U/tmp/home/", "text/plain": "<Figure>"})
    cells = [new_markdown_cell(HEADER), new_code_cell(FIRST + "import torch", execution_count=1), new_markdown_cell(QUESTION),
             new_code_cell("# NBVAL_CHECK_OUTPUT\nprint(2 + 2)\nassert 2 + 2 == 4", execution_count=2, outputs=[said]),
             new_code_cell("draw()", execution_count=3, outputs=[drawn]), new_markdown_cell(QUESTION), new_markdown_cell(END)]
    nb = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    return Page(folder / "03_small.ipynb", nb, len(nbformat.writes(nb)))


def test_a_notebook_without_defects_passes(page):
    assert complaints(page) == []


def replaced(cell: int, old: str, new: str):
    """A defect: other words in a cell's source."""
    def spoil(nb):
        assert old in nb.cells[cell].source
        nb.cells[cell].source = nb.cells[cell].source.replace(old, new)
    return spoil


def said(text: str, name: str = "stdout", cell: int = 4):
    """A defect: a text among the outputs."""
    return lambda nb: nb.cells[cell].outputs.append(new_output("stream", name=name, text=text))


def also(cell: int, text: str):
    """A defect: more words in a cell."""
    return lambda nb: nb.cells[cell].update(source=nb.cells[cell].source + text)


def moved(nb):
    nb.cells[3], nb.cells[4] = nb.cells[4], nb.cells[3]


DEFECTS = {
    "ids": ("valid", lambda nb: nb.update(nbformat_minor=4)),
    "two cells with one id": ("valid", lambda nb: nb.cells[0].update(id=nb.cells[1].id)),
    "somebody's own kernel": ("valid", lambda nb: nb.metadata.kernelspec.update(name="my-env")),
    "nothing is checked": ("checked", replaced(3, "# NBVAL_CHECK_OUTPUT\n", "")),
    "a marker that nbval does not see": ("checked", replaced(3, "# NBVAL_CHECK_OUTPUT", "print()  # NBVAL_CHECK_OUTPUT")),
    "nothing stored to check": ("checked", lambda nb: nb.cells[3].update(outputs=[])),
    "not executed": ("executed", lambda nb: nb.cells[4].update(execution_count=None)),
    "executed out of order": ("executed", moved),
    "executed twice": ("executed", lambda nb: nb.cells[4].update(execution_count=4)),
    "an error": ("no_error", lambda nb: nb.cells[4].outputs.append(new_output("error", ename="ValueError", evalue="no", traceback=["no"]))),
    "a warning": ("no_stderr", said("FutureWarning", "stderr")),
    "a bar on stderr": ("no_stderr", said("100%|███|", "stderr", cell=1)),
    "a home": ("no_machine", said("saved in /home/ada/x.png")),
    "a home in a traceback": ("no_machine", said(f"File \"{'/'}root/x.py\", line 1")),
    "a folder in a source": ("no_machine", replaced(4, "draw()", "draw('/tmp/x.png')")),
    "a file URL": ("no_machine", said("file:///home/x")),
    "a Mac": ("no_machine", said("/Users/ada/x.png")),
    "Windows": ("no_machine", said(r"C:\Users\ada")),
    "where packages are": ("no_machine", said("lib/python3.11/site-packages/torch/x.py:3")),
    "a path in the metadata": ("no_machine", lambda nb: nb.metadata.update(interpreter="/opt/python/bin/python")),
    "a table with a path": ("no_machine", lambda nb: nb.cells[4].outputs[0].data.update({"text/html": "<td>/tmp/x</td>"})),
    "a registry": ("no_machine", said("Looking in indexes: https://example.org/simple")),
    "a registry in a source": ("no_machine", also(1, "\n%pip install -i https://pypi.org/simple x")),
    "a private address": ("no_machine", said("http://10.0.0.7:8080/x")),
    "a picture too large": ("small", said("x" * LARGEST)),
    "a link to nowhere": ("links", also(6, " [05](05_nowhere.ipynb)")),
    "a picture that is not there": ("links", also(6, " ![x](figures/x.png)")),
    "a picture that is not attached": ("links", also(6, " ![x](attachment:x.png)")),
    "an HTML link to nowhere": ("links", also(6, ' <img src="x.png">')),
    "no such heading in a page": ("links", also(6, " [x](../README.md#no-such)")),
    "no such heading in a notebook": ("links", also(6, " [x](04_after.ipynb#no-such)")),
    "no such heading here": ("links", also(6, " [x](#no-such)")),
    "no header": ("header", lambda nb: nb.cells.pop(0)),
    "another notebook's number": ("header", replaced(0, "# 03", "# 04")),
    "no goals": ("header", replaced(0, "- ", "")),
    "no time": ("header", replaced(0, "5 s", "fast")),
    "no notation": ("header", replaced(0, "#notation", "")),
    "nothing to read first": ("header", replaced(0, "02_before.ipynb", "../README.md")),
    "no recap": ("recap", replaced(6, "## Recap", "## The end")),
    "no exercise": ("recap", replaced(6, "**Exercise to do next:** 01.", "")),
    "an answer in the open": ("folded", replaced(5, "<details>", "")),
    "one question only": ("folded", lambda nb: nb.cells.pop(5)),
    "a fold without end": ("folded", replaced(2, "</details>", "")),
    "nothing is asserted": ("asserts", replaced(3, "assert 2", "2")),
    "asserted in a comment": ("asserts", replaced(3, "assert 2", "# assert 2")),
    "another first cell": ("begins", replaced(1, "ModuleNotFoundError", "ImportError")),
    "the first cell comes second": ("begins", lambda nb: nb.cells.insert(1, new_code_cell("1", execution_count=1))),
    "a long cell": ("short_cells", also(4, "\nx = 1" * 15)),
    "a wide cell": ("short_cells", also(4, "  # " + "x" * 100)),
    "a silent cell": ("shows", lambda nb: nb.cells[4].update(outputs=[])),
    "a silent number": ("shows", lambda nb: nb.cells[4].update(source="x = draw()", outputs=[])),
    "a definition that waits": ("shows", lambda nb: nb.cells[3].update(source="def f(): pass", outputs=[])),
    "five questions": ("predictions", also(5, QUESTION * 3)),
    "a wrong reading time": ("reading", replaced(0, "about 1 minutes", "about 9 minutes")),
    "no reading time": ("reading", replaced(0, "about 1 minutes", "some time")),
    "a long recap": ("ends", replaced(6, "It is over", "It\nis\nover\nand\nover\nand\nover")),
    "two things to try": ("ends", replaced(6, "- Three.", "")),
    "nothing to read": ("ends", replaced(6, "## Further reading", "")),
    "a link without a reason": ("ends", replaced(6, ": it shows the same in code.", ".")),
    "nothing to play": ("play", replaced(6, "**Play:**", "Play:")),
    "a bench that is not there": ("play", replaced(6, "bench=cloud&t=3", "bench=table")),
    "a heavy film": ("light", lambda nb: nb.cells[4].outputs[0].data.update({"image/png": base64.b64encode(b"GIF" + bytes(MOVING)).decode()})),
    "no way on": ("leads_on", replaced(6, "04_after.ipynb", "02_before.ipynb")),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_named(page, defect):
    rule, spoil = DEFECTS[defect]
    spoil(page.nb)
    found = complaints(page._replace(size=len(json.dumps(page.nb))))
    assert any(sentence.startswith(f"{rule}: ") for sentence in found), found


def test_no_rule_is_vacuous():
    assert {rule.__name__ for rule in RULES} == {rule for rule, _ in DEFECTS.values()}


@pytest.mark.parametrize("link", [
    "../README.md#a-title", "04_after.ipynb#section-2-the-end", "04_after.ipynb#Section-2:-the-end", "#recap", "https://arxiv.org/x", "../",
])
def test_a_link_that_leads_somewhere_is_no_defect(page, link):
    also(6, f" [x]({link})")(page.nb)
    assert complaints(page) == []


@pytest.mark.parametrize("text", ["https://example.org/home/x", "runs/tmp/model.safetensors", "../opt/x", "√ᾱ_t = 10.0.0", "1/10.5.2", "~/.cache/x"])
def test_a_harmless_text_is_no_path(page, text):
    said(text)(page.nb)
    assert complaints(page) == []


def test_a_gap_in_the_numbers_is_named():
    whole = [f"{n:02d}_words.ipynb" for n in range(LAST + 1)]
    assert gaps(whole) == []
    assert gaps(whole[:3] + whole[4:]) == ["there is no notebook 03"]
    assert gaps([*whole, "03_again.ipynb"]) == ["there are 2 notebooks 03"]
    assert gaps([*whole, "Untitled.ipynb"]) == ["Untitled.ipynb is not called NN_words.ipynb"]
    assert gaps([*whole, "13_more.ipynb"]) == ["there are 1 notebooks 13"]


def test_a_slow_notebook_is_named(page):
    """By the stored time where there is one, else by the header's."""
    assert over_budget([page]) == [] and _stated_seconds(page.nb.cells[0].source) == 5
    stamp = "2026-01-01T00:0{}:30.5Z"
    page.code[0].metadata["execution"] = {"iopub.execute_input": stamp.format(0), "iopub.status.idle": stamp.format(3)}
    assert over_budget([page]) == ["03_small.ipynb took 180 s; its budget is 120 s"]
    assert over_budget([page] * 5)[-1] == "03_small.ipynb took 180 s; its budget is 120 s"      # one name, counted once
    del page.code[0].metadata["execution"]
    replaced(0, "5 s", "3 minutes")(page.nb)
    slow = [page._replace(path=page.path.with_name(f"0{n}_x.ipynb")) for n in range(5)]
    assert over_budget(slow)[-1] == "all together took 900 s; the budget is 780 s"
