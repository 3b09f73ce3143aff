"""Quizzes: five questions for each of the first nine notebooks, from quizzes/NN.yaml, as pages that need no script.

Every choice is folded, and opening it is choosing it: it says whether it is right, and a wrong one names the misconception behind it, answers it, and leads
to the section of the notebook that refutes it.  A choice without an answer, or a section that is not there (any more), is an error.
"""

import html
import re
from pathlib import Path

import yaml
from headings import headings, in_the_book
from mathematics import mathml

FOLDER = Path(__file__).resolve().parent / "quizzes"
NOTEBOOKS = FOLDER.parents[1] / "notebooks"


def section(words: str, number: str) -> str:
    """A Markdown link to the section whose heading has these words: of this notebook, or of another when they begin with its number, as in "02: One step"."""
    if match := re.match(r"(\d\d): ", words):
        number, words = match[1], words.removeprefix(match[0])
    notebook, = NOTEBOOKS.glob(f"{number}_*.ipynb")
    titles = {heading: re.sub(r"^\d+\. ", "", heading) for heading in headings(notebook)[1:]}
    found = [heading for heading, title in titles.items() if words == title or (words in title and words not in titles.values())]
    if len(found) != 1:
        raise ValueError(f'quiz {number}: {len(found)} headings of {notebook.name} have "{words}" in them; they are: ' + "; ".join(titles))
    return f"[{number}, {found[0]}](/notebooks/{notebook.name}#{in_the_book(found[0])})"


def inline(text: str) -> str:
    """A line of Markdown as HTML: formulas, code and emphasis, which is all that a choice needs."""
    parts = re.split(r"(\$[^$]+\$|`[^`]+`)", text.strip())
    parts[::2] = [re.sub(r"\*([^*]+)\*", r"<em>\1</em>", html.escape(part, quote=False)) for part in parts[::2]]
    parts[1::2] = [mathml(part.strip("$"), display=False) if part[0] == "$" else f"<code>{html.escape(part.strip('`'))}</code>" for part in parts[1::2]]
    return "".join(parts)


def choice(entry: dict, number: str) -> str:
    kind = "right" if "right" in entry else "wrong"
    missing = {kind, "answer", "see", *(["belief"] if kind == "wrong" else [])} ^ set(entry)
    if missing:
        raise ValueError(f"quiz {number}: a choice needs {kind}, answer, see{', belief' if kind == 'wrong' else ''}; look at {sorted(missing)} in {entry}")
    verdict = "**Right.**" if kind == "right" else f"**No.** *{entry['belief'].strip()}:*"
    return (f'<details class="{kind}"><summary><span>{inline(entry[kind])}</span></summary>\n\n'
            f"{verdict} {entry['answer'].strip()} {section(entry['see'], number)}.\n\n</details>\n")


def pages():
    """(name, Markdown) of every quiz, and of the page that lists them."""
    titles = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        number = file.stem
        notebook, = NOTEBOOKS.glob(f"{number}_*.ipynb")
        titles[number] = headings(notebook)[0]
        questions = yaml.safe_load(file.read_text(encoding="utf-8"))
        out = [f"# Quiz {titles[number]}\n\nFive questions about [the notebook](/notebooks/{notebook.name}). Choose, then open what you chose.\n"]
        for i, question in enumerate(questions, 1):
            if sum("right" in entry for entry in question["choices"]) != 1:
                raise ValueError(f"quiz {number}, question {i}: exactly one choice must be right")
            choices = "\n".join(choice(entry, number) for entry in question["choices"])
            out.append(f"## Question {i}\n\n{question['ask'].strip()}\n\n:::{{container}} choices\n\n{choices}\n:::\n")
        yield f"quizzes/{number}.md", "\n".join(out)
    listed = "\n".join(f"- [{title}]({number}.md)" for number, title in titles.items())
    yield "quizzes/index.md", f"""# Quizzes

Five questions for each of the first nine notebooks. A wrong choice is no shame: each is what somebody once believed, most of them in public code or in a
thread of questions. Opening it says what is the case, and where it is shown.

{listed}

```{{toctree}}
:hidden:
:glob:

[0-9]*
```
"""
