"""Pages of "equation | code | test": each file of the subject, from top to bottom, with words and mathematics on the left and code on the right.

A function that computes an equation of docs/notation.md has the equation, as it stands in that table, above its explanation, and below its code the test that
proves it.  Nothing is typed twice, so nothing can drift: where the table names an equation, a function or a test that is not there, there is no book.
"""

import ast
import html
import inspect
import io
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = [f"ddpm_tutorial/{name}.py" for name in ("schedules", "forward", "samplers", "guidance", "unet", "ddpm", "exact", "likelihood")]
WIDTH = 76                                                      # columns of code that fit beside the words on a laptop,
WIDE = 124                                                      # and below them


class Gap(Exception):
    """Something that the table of equations promises is missing."""


@dataclass
class Row:
    tag: str                    # DDPM eq. 4
    equation: str               # x_t = √ᾱ_t x_0 + …
    code: str                   # q_sample
    proofs: list                # (the statement, its test's file)


def table(page: str, heading: str) -> list[list[str]]:
    if f"## {heading}\n" not in page:
        raise Gap(f'docs/notation.md has no "## {heading}"')
    lines = [line for line in page.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def notation(page: str) -> tuple[dict[str, str], list[Row]]:
    """Each paper's number on arXiv, and the equations."""
    papers = {short: re.search(r"https://arxiv\.org/abs/[\d.]+", paper)[0] for short, paper in table(page, "The papers")}
    rows = []
    for tag, equation, code, proofs in table(page, "The equations"):
        if re.split(r"[ ,]", tag)[0] not in papers:
            raise Gap(f"{tag}: the table of papers does not have this one")
        if not equation:
            raise Gap(f"{tag}: the table of equations has no equation")
        links = re.findall(r"\[([^]]+)\]\(\.\./([^)]+)\)", proofs)
        if not links:
            raise Gap(f"{tag}: the table of equations names no test")
        rows.append(Row(tag, equation, code.strip("`"), links))
    return papers, rows


def fold(line: str, width: int, within: bool = False) -> str:
    """A long line broken behind a comma, as a person would: in the outermost bracket that is still open where the room ends."""
    open_brackets, quote = [None] * within, ""                  # of each open bracket, where its last comma stands
    for i, letter in enumerate(line[:width]):
        if quote or letter in "\"'":
            quote = "" if letter == quote else quote or letter
        elif letter == "#":
            break
        elif letter in "([{":
            open_brackets.append(None)
        elif letter in ")]}" and open_brackets:
            open_brackets.pop()
        elif letter == "," and open_brackets:
            open_brackets[-1] = i + 1
    room = next(filter(None, open_brackets), None)
    if len(line) <= width or room is None:
        return line
    rest = " " * (len(line) - len(line.lstrip()) + 8) + line[room:].lstrip()
    return line[:room] + "\n" + (rest if len(rest) >= len(line) else fold(rest, width, within=True))


class Source:
    """A Python file, cut into its functions, with the words out of the code."""

    def __init__(self, path: Path):
        self.text = path.read_text(encoding="utf-8")
        self.lines = self.text.splitlines()
        self.tree = ast.parse(self.text)
        self.functions = {node.name: node for node in self.tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        tokens = list(tokenize.generate_tokens(io.StringIO(self.text).readline))
        self.behind = {t.start[0]: t.start[1] for t in tokens if t.type == tokenize.COMMENT and self.lines[t.start[0] - 1][:t.start[1]].strip()}

    def first(self, node: ast.AST) -> int:
        """Its first line, decorators and the comment right above it included."""
        line = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        while line > 1 and self.lines[line - 2].lstrip().startswith("#"):
            line -= 1
        return line

    def code(self, first: int, last: int, without: ast.AST | None = None, width: int = WIDTH) -> str:
        """Lines first … last, without a docstring, at the left margin; where they would be too wide, what stands behind a line moves above it."""
        numbers = [n for n in range(first, last + 1) if without is None or not without.lineno <= n <= without.end_lineno]
        indent = len(self.lines[first - 1]) - len(self.lines[first - 1].lstrip())
        split = {}
        for n in set(numbers) & set(self.behind):
            line, at = self.lines[n - 1], self.behind[n]
            split[n] = line[:at].rstrip(), re.sub(r"\s{3,}", "   ", line[at:])
        column = max((len(code) for code, _ in split.values()), default=0) + 2
        above = max((column + len(comment) for _, comment in split.values()), default=0) > width + indent
        out = []
        for n in numbers:
            code, comment = split.get(n, (self.lines[n - 1], ""))
            out += [code[:len(code) - len(code.lstrip())] + comment, code] if comment and above else [f"{code:{column}}{comment}" if comment else code]
        return "\n".join(fold(line[indent:], width) for line in out).strip("\n")

    def docstring(self, node: ast.AST) -> ast.AST | None:
        return node.body[0] if node.body and ast.get_docstring(node) is not None else None


def words(text: str, references: dict[str, str]) -> str:
    """A docstring as Markdown, its letters as they are: indented blocks are kept, [1] leads to the paper."""
    def prose(block: str) -> str:
        parts = re.split(r"(`[^`]+`)", re.sub(r"\n(?!- )", " ", block))
        for i in range(0, len(parts), 2):
            parts[i] = re.sub(r"([\\*_\[\]<>#$|{}])", r"\\\1", parts[i])
            parts[i] = re.sub(r"(?<![\w{])([A-Za-zα-ω\u1f00-\u1fff][\u0300-\u036f]?)\\_(\\\{.*?\\\}|[A-Za-zα-ω0-9∅]+)(?![\w(])",
                              lambda m: typeset(m[0].replace("\\", "")), parts[i])
            parts[i] = re.sub(r"(?<!\w)\\\*(\w[\w ’'-]*)\\\*(?!\w)", r"*\1*", parts[i])
            parts[i] = re.sub(r"\\\[(\d)\\\]", lambda m: f"[\\[{m[1]}\\]]({references[m[1]]})" if m[1] in references else m[0], parts[i])
        return "".join(parts)

    out = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if block.startswith(" "):
            out.append(f"``````{{code-block}} text\n{inspect.cleandoc(chr(10) + block)}\n``````")
        elif re.match(r"\[\d\] .*arXiv:", block):
            out.append("\n".join(f"- {prose(line)}" if line.startswith("[") else prose(line.strip()) for line in block.splitlines()))
        else:
            out.append(prose(block))
    return "\n\n".join(out)


TOKEN = re.compile(r"""
    (?P<index>[_^](?:\{[^}]*\} | \([^)]*\) | [A-Za-zα-ωΑ-Ω0-9∅∞½]+))
  | (?P<word>[A-Za-z]{2,} | (?<=')[a-z] | a(?=\ [a-z]{2}) | `[^`]*`)
  | (?P<letter>[A-HJ-Za-zα-ω\u1f00-\u1fff][\u0300-\u036f]?)
  | (?P<other>.)""", re.VERBOSE | re.DOTALL)


def typeset(equation: str) -> str:
    """x_t, p_{t−1} and e^{…} with real indices; a letter is a variable and slanted, a word is a word."""
    out = []
    for token in TOKEN.finditer(equation):
        text = token[0]
        match token.lastgroup:
            case "index":
                tag = "sub" if text[0] == "_" else "sup"
                out.append(f"<{tag}>{typeset(text[1:].strip('{}'))}</{tag}>")
            case "letter": out.append(f"<i>{text}</i>")
            case "word" if text[0] == "`": out.append(f"<code>{html.escape(text.strip('`'))}</code>")
            case _: out.append(html.escape(text, quote=False))
    return "".join(out)


def pair(left: str, right: str, kind: str = "pair") -> str:
    left = f"::::{{container}} words\n{left}\n::::\n" if left.strip() else ""
    return f":::::{{container}} {kind}\n{left}::::{{container}} code\n``````{{code-block}} python\n{right}\n``````\n::::\n:::::\n"


def find(row: Row, sources: dict[str, Source]) -> str | None:
    """The file of the subject that has this row's function; None for one of a wing, such as evaluation.metrics."""
    module, _, name = row.code.rpartition(".")
    if module and f"ddpm_tutorial/{module}.py" not in sources:
        path = ROOT / "ddpm_tutorial" / f"{module.replace('.', '/')}.py"
        if not path.exists() or name not in Source(path).functions:
            raise Gap(f"{row.tag}: there is no function {row.code}")
        return None
    for file, source in sources.items():
        if name in source.functions and module in ("", Path(file).stem):
            return file
    raise Gap(f"{row.tag}: no file of the subject has a function {row.code}")


def proof(statement: str, file: str, tests: dict[str, Source], tag: str) -> tuple[Source, ast.FunctionDef]:
    if file not in tests:
        if not (ROOT / file).exists():
            raise Gap(f"{tag}: there is no {file}")
        tests[file] = Source(ROOT / file)
    name = "test_" + "_".join(statement.split())
    if name not in tests[file].functions:
        raise Gap(f"{tag}: {file} has no test {name}")
    return tests[file], tests[file].functions[name]


def pages(page_of_notation: Path = ROOT / "docs" / "notation.md"):
    """(name, Markdown) of the pages of all files, and of the page that lists the equations."""
    papers, rows = notation(page_of_notation.read_text(encoding="utf-8"))
    sources = {file: Source(ROOT / file) for file in FILES}
    tests: dict[str, Source] = {}
    places = [(row, find(row, sources)) for row in rows]
    for row in rows:
        for statement, file in row.proofs:
            proof(statement, file, tests, row.tag)

    for file, source in sources.items():
        computed: dict[str, list[Row]] = {}
        for row, place in places:
            if place == file:
                computed.setdefault(name_of(row), []).append(row)
        yield f"{file}.md", page(file, source, computed, papers, tests)

    listed = "\n".join(
        f"| {linked_tag(row, papers)} | {typeset(row.equation).replace('|', chr(92) + '|')} | "
        + (f"[`{row.code}`]({place}#{name_of(row)})" if place else f"[`{row.code}`](ddpm_tutorial/{row.code.rpartition('.')[0].replace('.', '/')}.py)")
        + f" | {', '.join(f'[{statement}]({file})' for statement, file in row.proofs)} |" for row, place in places)
    each = "\n".join(f"{i}. [`{Path(file).name}`]({file}): {first_sentence(source)}" for i, (file, source) in enumerate(sources.items(), 1))
    toctree = "\n".join(f"{Path(file).name} <{file}>" for file in FILES)
    yield "equations.md", f"""# Equation | code | test

The subject, file by file, in the order in which to read it. On the left stand the equation and why it is so, on the right the lines that compute it;
below them the test that proves it.

{each}

## All equations

:::{{container}} equations

| tag | equation | code | proved in |
|---|---|---|---|
{listed}

:::

The letters, and the same letters in six papers: [notation](docs/notation.md).

```{{toctree}}
:hidden:

{toctree}
```
"""


def first_sentence(source: Source) -> str:
    return words(ast.get_docstring(source.tree).split("\n")[0], {})


def name_of(row: Row) -> str:
    return row.code.rpartition(".")[2]


def papers_of(text: str) -> dict[str, str]:
    """What [1], [2] … in a file stand for, by its header."""
    return {n: f"https://arxiv.org/abs/{number}" for n, number in re.findall(r"\[(\d)\] .*?arXiv:(\d{4}\.\d{5})", text)}


def linked_tag(row: Row, papers: dict[str, str]) -> str:
    return f"[{row.tag}]({papers[re.split(r'[ ,]', row.tag)[0]]})"


def page(file: str, source: Source, computed: dict[str, list[Row]], papers: dict[str, str], tests: dict[str, Source]) -> str:
    docstring = source.docstring(source.tree)
    references = papers_of(ast.get_docstring(source.tree))
    out = [f"---\nhide-toc: true\n---\n\n# {Path(file).name}\n", words(ast.get_docstring(source.tree), references), ""]
    shown: dict[str, str] = {}                                  # test → the function below which it stands
    level, loose = "##", []                                     # loose: lines that belong to no function, such as imports

    def flush() -> None:
        if loose:
            out.append(pair("", source.code(loose[0].lineno if loose[0] is not source.tree.body[1] else docstring.end_lineno + 1, loose[-1].end_lineno)))
            loose.clear()

    previous = docstring.end_lineno
    for node in source.tree.body[1:]:
        for title in titles(source.lines[previous:source.first(node) - 1]):
            flush()
            out.append(f"## {words(title, {})}\n")
            level = "###"
        previous = node.end_lineno
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            loose.append(node)
            continue
        flush()
        out.append(f"{level} `{node.name}`\n")
        rows = computed.get(node.name, [])
        equations = "".join(f'<p class="equation">{typeset(row.equation)}</p>\n\n{linked_tag(row, papers)}\n\n' for row in rows)
        methods = [part for part in node.body if isinstance(part, ast.FunctionDef)] if isinstance(node, ast.ClassDef) else []
        last = source.first(methods[0]) - 1 if methods else node.end_lineno
        out.append(pair(equations + words(ast.get_docstring(node) or "", references), source.code(source.first(node), last, source.docstring(node))))
        for method in methods:
            out.append(pair(words(ast.get_docstring(method) or "", references), source.code(source.first(method), method.end_lineno, source.docstring(method))))
        for row in rows:
            for statement, where in row.proofs:
                if statement in shown:
                    out.append(f"*Proved by* [{statement}](#{shown[statement].lower()}), above.\n" if shown[statement] != node.name else "")
                    continue
                shown[statement] = node.name
                test_source, test = proof(statement, where, tests, row.tag)
                left = f"*Proved by* [{statement}](../{where})\n\n{words(ast.get_docstring(test) or '', papers_of(ast.get_docstring(test_source.tree) or ''))}"
                out.append(pair(left, test_source.code(test_source.first(test), test.end_lineno, test_source.docstring(test), WIDE), "pair proof"))
    flush()
    return "\n".join(out)


def titles(lines: list[str]) -> list[str]:
    """Comments that stand alone, between two blank lines: what the functions below have in common."""
    blocks = re.split(r"\n\s*\n", "\n".join(["", *lines, ""]) + "\n")
    return [" ".join(line.lstrip("# ") for line in block.strip().splitlines()).rstrip(".") for block in blocks if block.strip().startswith("# ")]
