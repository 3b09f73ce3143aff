"""The book: notebooks, documents and exercises as they are committed, pages of "equation | code | test", quizzes, and the laboratory.  Nothing is executed.

    python book/build.py            →  book/_build/html/index.html, which opens from disk, without a server and without a network

All pages are first gathered under _build/source, where every file lies as it does in the repository, so links between them hold.  A link to a file that is
no page (a module, a test, the Dockerfile) gets a page with its text.  Then Sphinx makes HTML of it; a warning is an error.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote

import equations
import quizzes
from headings import translated

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
SOURCE, HTML = BOOK / "_build" / "source", BOOK / "_build" / "html"

PAGES = ["README.md", "CONTRIBUTING.md", "docs/*.md", "notebooks/*.ipynb", "exercises/README.md", "exercises/release/*/*.ipynb", "benchmarks/*.md",
         "ddpm_tutorial/README.md", "ddpm_tutorial/weights/pretrained/README.md", "book/lab/README.md"]

PLAY = {                                                        # the bench that belongs to a notebook: its address in the laboratory, and what to do there
    "00": ("bench=digits", "let the network in this page draw a digit"),
    "01": ("bench=schedules", "two schedules side by side, and a picture that dissolves under both"),
    "02": ("bench=cloud&walk=forward", "a cloud of points on its way into noise"),
    "03": ("bench=cloud&sampler=small", "a cloud that forms out of noise, with the perfect denoiser and no network"),
    "04": ("bench=digits&steps=8", "what a U-Net believes to see, call by call"),
    "05": ("bench=clinic", "bugs from public code, each with the number that finds it"),
    "06": ("bench=cloud&sampler=large", "both variances, and what few steps cost"),
    "07": ("bench=cloud&sampler=ddim&steps=10&eta=0", "fewer steps, more η, and back into noise"),
    "08": ("bench=cloud&y=1&scale=3", "the scale of guidance, on a ring of eight classes"),
    "09": ("bench=digits&scale=4", "does a larger scale draw better digits, or more alike ones?"),
    "10": ("bench=schedules&a=flow", "the straight path beside the other schedules"),
    "12": ("bench=cloud&sampler=2m&spacing=snr", "the second-order step, and its distance to the ODE's end"),
}
LABORATORY = "book/lab/index.html"
PLACES = {"book/quizzes": "/quizzes/index.md", "book/equations.py": "/equations.md", "book/index.md": "/index.md", "book/play.md": "/play.md"}    # made here
LINK = re.compile(r"(\]\()([^()\s]+)(\))")
PICTURES = {".png", ".gif", ".svg", ".webp", ".jpg"}
LANGUAGES = {".py": "python", ".toml": "toml", ".sh": "bash", ".yml": "yaml", ".js": "javascript", ".css": "css", ".csv": "text"}


class Book:
    """The pages that are gathered, and the files that they want a page for."""

    def __init__(self):
        self.pages = {path.relative_to(ROOT).as_posix() for pattern in PAGES for path in ROOT.glob(pattern)}
        self.waiting: list[str] = []                            # files linked to that are no pages yet
        self.sources = set(equations.FILES)
        self.written: set[Path] = set()

    def write(self, name: str, text: str) -> None:
        """Sphinx reads anew what is newer than last time, so what has not changed is left alone."""
        path = SOURCE / name
        self.written.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")

    def linked(self, text: str, home: str) -> str:
        """The text of a page that stands at `home` in the repository, with links that hold in the book."""
        def target(link: re.Match) -> str:
            path, hash, anchor = link[2].partition("#")
            if not path and anchor:
                return f"{link[1]}#{translated(ROOT / home, unquote(anchor))}{link[3]}"
            if not path or re.match(r"/|[a-z]+:", path):
                return link[0]
            there = Path(os.path.normpath(ROOT / Path(home).parent / path))
            anchor = translated(there, unquote(anchor)) if anchor and there.is_file() else anchor
            name = there.relative_to(ROOT).as_posix() if there.is_relative_to(ROOT) else path
            if name == LABORATORY:
                up = "../" * home.count("/") if home != "book/index.md" else ""
                return f"{link[1]}{up}{name}{hash}{anchor}{link[3]}{{.external}}"
            if name in PLACES:
                return f"{link[1]}{PLACES[name]}{hash}{anchor}{link[3]}"
            if there.is_dir() and f"{name}/README.md" in self.pages:
                name += "/README.md"
            elif there.suffix in PICTURES and there.exists():
                (SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(there, SOURCE / name)
                self.written.add(SOURCE / name)
            elif there.is_file() and name not in self.pages:
                if name not in self.sources:
                    self.sources.add(name)
                    self.waiting.append(name)
                name += ".md"
            return f"{link[1]}/{name}{hash}{anchor}{link[3]}"
        parts = re.split(r"(```.*?```|`[^`\n]*`)", text, flags=re.S)                     # what is code is no link
        return "".join(part if i % 2 else LINK.sub(target, part) for i, part in enumerate(parts))

    def page(self, name: str) -> None:
        text = (ROOT / name).read_text(encoding="utf-8")
        if name == "exercises/README.md":
            text += "\n```{toctree}\n:hidden:\n:glob:\n\nrelease/*/*\n```\n"
        self.write(name, self.notebook(name, text) if name.endswith(".ipynb") else self.linked(text, name))

    def notebook(self, name: str, text: str) -> str:
        notebook = json.loads(text)
        cells = notebook["cells"]
        for cell in cells:
            if cell["cell_type"] == "markdown":
                cell["source"] = self.linked("".join(cell["source"]), name)
            for output in cell.get("outputs", []):
                if "text/markdown" in output.get("data", {}):
                    output["data"]["text/markdown"] = self.linked("".join(output["data"]["text/markdown"]), name)
        if (number := Path(name).name[:2]) in PLAY and name.startswith("notebooks/"):
            address, words = PLAY[number]
            if LABORATORY not in text:                          # else the notebook says it itself
                cells.insert(1, _text("beside-play", f":::{{container}} beside\n**Play:** [{words}](../{LABORATORY}#{address}){{.external}}\n:::"))
        if (quizzes.FOLDER / f"{number}.yaml").exists() and name.startswith("notebooks/"):
            cells.append(_text("beside-quiz", f":::{{container}} beside\n**Five questions:** [the quiz of this notebook](/quizzes/{number}.md)\n:::"))
        return json.dumps(notebook, ensure_ascii=False)

    def source(self, name: str) -> None:
        """A page with the text of a file."""
        language = LANGUAGES.get(Path(name).suffix, "text")
        text = (ROOT / name).read_text(encoding="utf-8")
        self.write(f"{name}.md", f"---\norphan: true\nhide-toc: true\n---\n\n# `{name}`\n\n``````{{code-block}} {language}\n{text}\n``````\n")


def _text(name: str, source: str) -> dict:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def gather() -> None:
    book = Book()
    picture = re.search(r"!\[(.*?)\]\((.*?)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    index = (BOOK / "index.md").read_text(encoding="utf-8").replace("{the README's first picture}", f"![{picture[1]}](../{picture[2]})")
    book.write("index.md", book.linked(index, "book/index.md"))
    book.write("play.md", book.linked((BOOK / "play.md").read_text(encoding="utf-8"), "book/index.md"))
    for name in sorted(book.pages):
        book.page(name)
    for name, text in equations.pages():
        book.write(name, book.linked(text, name.removesuffix(".md")))
    for name, text in quizzes.pages():
        book.write(name, text)
    while book.waiting:
        book.source(book.waiting.pop())
    for path in SOURCE.rglob("*"):
        if path.is_file() and path not in book.written:
            path.unlink()


def laboratory() -> None:
    """A copy of the page beside the book, with links to the book's notebooks."""
    there = HTML / "book" / "lab"
    shutil.copytree(BOOK / "lab", there, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py", "*.md", "__pycache__"))
    page = (there / "index.html").read_text(encoding="utf-8")
    pattern = 'content="../../notebooks/{}.ipynb"'
    assert pattern in page, f"book/lab/index.html has no {pattern}: where do its links to the notebooks point now?"
    (there / "index.html").write_text(page.replace(pattern, 'content="../../notebooks/{}.html"'), encoding="utf-8")


def main() -> int:
    from sphinx.cmd.build import main as sphinx
    gather()
    memory = BOOK / "_build" / "doctrees"
    status = sphinx(["-b", "html", "-W", "--keep-going", "-q", "-j", "2", "-c", str(BOOK), "-d", str(memory), str(SOURCE), str(HTML)])
    laboratory()
    if status:
        shutil.rmtree(memory)                                   # or the next build would not read, and not complain of, the same page again
    else:
        print((HTML / "index.html").as_uri())
    return status


if __name__ == "__main__":
    sys.exit(main())
