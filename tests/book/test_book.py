"""The book: built once, from what is committed, and then every page of it is read."""

import collections
import functools
import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import Browser, found
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
HTML = BOOK / "_build" / "html"

needs_sphinx = pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in ("sphinx", "myst_nb", "furo", "math_core")),
                                  reason='the book needs Sphinx and its kin: pip install -e ".[book]"')
pytestmark = needs_sphinx
sys.path.insert(0, str(BOOK))

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """What a page loads, where its links lead, what can be linked to, and its text outside of scripts and code."""

    def __init__(self, path: Path):
        super().__init__()
        self.loads, self.links, self.names, self.text, self.within = [], [], set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        here = dict(attributes)
        if tag not in VOID:
            self.within.append(tag)
        self.names |= {here[key] for key in ("id", "name") if here.get(key)}
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.loads.append(here.get("src"))
        elif tag == "link" and here.get("rel") not in ("canonical", "next", "prev", "search", "index"):
            self.loads.append(here.get("href"))
        elif tag == "a" and here.get("href"):
            self.links.append(here["href"])
        self.loads += re.findall(r"url\(\s*['\"]?([^'\")]+)", here.get("style") or "")

    def handle_endtag(self, tag):
        while tag in self.within and self.within.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style", "pre", "code", "math", "title"} & set(self.within):
            self.text.append(data)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """The build's exit status and what it said.  Of two processes that test at a time the first one builds, and the other waits: half a minute on a quiet
    machine, and some seconds where little has changed since the last build."""
    folder = tmp_path_factory.getbasetemp()
    report = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "book.txt"
    with FileLock(f"{report}.lock"):
        if not report.exists():
            build = subprocess.run([sys.executable, str(BOOK / "build.py")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT,
                                   encoding="utf-8", errors="replace")
            report.write_text(f"{build.returncode}\n{build.stdout}", encoding="utf-8")
    status, _, said = report.read_text(encoding="utf-8").partition("\n")
    return int(status), said


@pytest.fixture(scope="module")
def pages(log):
    return {path.relative_to(HTML).as_posix(): Page(path) for path in sorted(HTML.rglob("*.html"))}


def test_sphinx_has_no_complaint(log):
    """-W makes an error of every warning: a formula that cannot be set, a link that leads nowhere, a page that is in no table of contents."""
    status, said = log
    assert status == 0 and not re.search("warning|error", said, flags=re.I), said[-3000:]


def test_everything_is_in_it(pages):
    """Every notebook, document and exercise has its page, and so has every file of the subject."""
    wanted = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("docs/*.md"), *ROOT.glob("exercises/release/*/*.ipynb")]
    missing = [path.name for path in wanted if path.relative_to(ROOT).with_suffix(".html").as_posix() not in pages]
    assert not missing
    import equations
    assert not [file for file in equations.FILES if f"{file}.html" not in pages]
    assert "book/lab/index.html" in pages


def test_nothing_comes_from_elsewhere(pages):
    """No script, style, font, image or frame from another place: a page that is read on a train is whole.  (Links may lead there.)"""
    loaded = {(name, address) for name, page in pages.items() for address in page.loads if address and not address.startswith("data:")}
    assert not {(name, address) for name, address in loaded if urlsplit(address).scheme or address.startswith("//")}
    for style in HTML.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.findall(r"@import|url\(\s*['\"]?(?:https?:)?//", text), style.name
    assert not {(name, address) for name, address in loaded if not ((HTML / name).parent / urlsplit(address).path).exists()}


def test_every_link_within_the_book_leads_somewhere(pages):
    """To a file of the book and, behind #, to something on that page.  (The laboratory reads its own #.)"""
    broken = []
    for name, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or not (parts.path or parts.fragment):
                continue
            target = ((HTML / name).parent / unquote(parts.path)).resolve() if parts.path else HTML / name
            there = target.relative_to(HTML).as_posix() if target.is_relative_to(HTML) else None
            if there is None or not target.is_file():
                broken.append((name, link))
            elif parts.fragment and there in pages and "book/lab/" not in there and unquote(parts.fragment) not in pages[there].names:
                broken.append((name, link))
    assert not broken


def test_no_formula_is_left_as_tex(pages):
    r"""Outside of code no page has a \command or a $$: all formulas are MathML, which a browser draws without a script."""
    raw = {(name, match[0]) for name, page in pages.items() if not name.startswith("book/lab/")
           for match in re.finditer(r"\$\$|\\[a-zA-Z]{3,}|\\begin|(?<!\w)\$[^$\s][^$\n]*[\\_^][^$\n]*\$", "".join(page.text))}
    assert not raw
    assert "<math" in (HTML / "notebooks" / "02_the_forward_process.html").read_text(encoding="utf-8")


def test_the_book_is_small(log):
    """40 MB at most, and the laboratory 3."""
    def megabytes(folder):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    assert megabytes(HTML) <= 40 and megabytes(HTML / "book" / "lab") <= 3


@pytest.mark.parametrize("before, after, gap", [
    ("`q_step` |", "`q_stride` |", "no file of the subject has a function q_stride"),
    ("| DDPM eq. 14 | L_simple = E ‖ε − ε_θ(x_t, t)‖² |", "| DDPM eq. 14 | |", "has no equation"),
    ("[a ddpm step is algorithm 2]", "[a ddpm step is quite right]", "has no test test_a_ddpm_step_is_quite_right"),
    ("`evaluation.metrics.kernel_distance`", "`evaluation.metrics.kernel_length`", "there is no function"),
    ("| DDIM eq. 14 |", "| DDIMM eq. 14 |", "does not have this one"),
])
def test_a_gap_in_the_table_of_equations_stops_the_book(tmp_path, before, after, gap):
    """A function, an equation or a test that is promised and not there: no page is written, so none can be wrong."""
    import equations
    text = (ROOT / "docs" / "notation.md").read_text(encoding="utf-8")
    assert before in text
    table = tmp_path / "notation.md"
    table.write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(equations.Gap, match=gap):
        list(equations.pages(table))


def test_every_equation_stands_on_a_page_with_its_function_and_its_test(pages):
    """On the page of the function's file: the equation, its tag, and the test's own lines."""
    import equations
    _, rows = equations.notation((ROOT / "docs" / "notation.md").read_text(encoding="utf-8"))
    sources = {file: equations.Source(ROOT / file) for file in equations.FILES}
    for row in rows:
        if file := equations.find(row, sources):
            html = (HTML / f"{file}.html").read_text(encoding="utf-8")
            assert equations.typeset(row.equation) in html and f">{row.tag}<" in html, row.tag
            assert all("Proved by</em> <a" in html and statement in html for statement, _ in row.proofs), row.tag


def test_a_long_line_is_folded_within_its_brackets():
    """What is shown of a line is the line: only its breaks differ, and no string is cut."""
    import equations
    line = '    assert f(a, "b, c and a longer string, with commas", [1, 2, 3]) == g(first=alpha, second=beta, third=gamma, fourth=delta)'
    folded = equations.fold(line, 60)
    assert max(map(len, folded.splitlines())) <= 80 and "".join(folded.split()) == "".join(line.split())
    assert '"b, c and a longer string, with commas"' in folded


def test_an_anchor_is_found_however_it_is_spelt():
    """GitHub's way and Jupyter's, with a formula in the heading, which the book leaves out of the name."""
    import headings
    page = next(ROOT.glob("notebooks/01_*.ipynb"))
    heading = next(heading for heading in headings.headings(page) if "$" in heading)
    for spelt in headings.slug(heading), heading.replace(" ", "-"):
        assert headings.translated(page, spelt) == headings.in_the_book(heading)
    assert headings.translated(page, "no-such-heading") == "no-such-heading"


@functools.cache
def questions():
    import yaml
    return [(file.stem, question) for file in sorted((BOOK / "quizzes").glob("*.yaml")) for question in yaml.safe_load(file.read_text(encoding="utf-8"))]


def test_each_of_the_first_nine_notebooks_has_five_questions():
    """00 to 08, three or four choices each, one of them right."""
    counts = collections.Counter(number for number, _ in questions())
    assert counts == {f"0{n}": 5 for n in range(9)}
    assert all(len(question["choices"]) in (3, 4) and sum("right" in choice for choice in question["choices"]) == 1 for _, question in questions())


def test_every_choice_is_answered_and_leads_to_a_section(pages):
    """Folded, so that a question is a question, without a script; a wrong choice names the belief behind it."""
    for number in {number for number, _ in questions()}:
        html = (HTML / "quizzes" / f"{number}.html").read_text(encoding="utf-8")
        folded = re.findall(r'<details class="(right|wrong)">(.*?)</details>', html, flags=re.S)
        assert len(folded) == sum(len(question["choices"]) for n, question in questions() if n == number)
        assert "<details open" not in html
        for kind, text in folded:
            answer = text.split("</summary>")[1]
            assert "Right." in answer if kind == "right" else "No.</strong> <em>" in answer
            assert re.search(r'href="\.\./notebooks/[^"]+\.html#[^"]+"', answer), text


def test_a_quiz_with_a_hole_is_refused():
    """A choice without its answer, or a section that the notebook does not have."""
    import quizzes
    with pytest.raises(ValueError, match="a choice needs wrong, answer, see, belief"):
        quizzes.choice({"wrong": "no", "answer": "because", "see": "One step"}, "02")
    with pytest.raises(ValueError, match="0 headings"):
        quizzes.section("A section that is not there", "02")


@pytest.mark.skipif(found() is None, reason="there is no Chromium here that a pipe can drive; apt-get install chromium, or name one in $CHROMIUM")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_opens_the_pages_from_disk(pages, width):
    """Nothing in the console, nothing asked of a network, nothing wider than a phone, and formulas that are as high as formulas."""
    with Browser(width, 860, phone=width < 500) as browser:
        for name in ("index", "notebooks/03_the_reverse_process_and_the_bound", "ddpm_tutorial/samplers.py", "quizzes/02", "play", "docs/notation", "search"):
            browser.call("Page.navigate", url=(HTML / f"{name}.html").as_uri())
            browser.wait(f"document.readyState === 'complete' && location.pathname.endsWith('{name}.html')")
            assert browser.errors == [], name
            assert browser.run("document.documentElement.scrollWidth") <= width, name
        browser.call("Page.navigate", url=(HTML / "ddpm_tutorial" / "forward.py.html").as_uri())
        browser.wait("document.readyState === 'complete'")
        beside = browser.run("(() => { const [a, b] = document.querySelector('.pair > .words').parentElement.children; "
                             "return a.getBoundingClientRect().right <= b.getBoundingClientRect().left })()")
        assert beside == (width > 1000)                         # two columns on a laptop, one on a phone
