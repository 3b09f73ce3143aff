"""Formulas as MathML, which every browser has drawn by itself since 2023: no script, no picture, nothing to download, and screen readers can read it.

`math-core` (MIT) turns the TeX into MathML and refuses what it does not know, so a formula is right or the build fails.  The font comes with the book
(`static/mathematics.css`, made by `font.py`), since phones and many Linux machines have none for mathematics.
"""

import html
import re

from docutils import nodes
from math_core import LatexToMathML

convert = LatexToMathML(fancy_error=False).convert_with_local_state

BRACKET = re.compile(r"\\[bB]igg?[lr]?\s*(\\[lr]?[vV]ert|\\[{}|lr]?(?:floor|ceil)?|[()\[\]|])")
CLOSES = {"(": ")", "[": "]", r"\{": r"\}", r"\lVert": r"\rVert", r"\lvert": r"\rvert", r"\|": r"\|", "|": "|"}


def stretched(tex: str) -> str:
    r"""\big( … \big)^2 as \left( … \right)^2, and \big\lVert likewise: browsers do not enlarge a bracket that carries an exponent, and have few sizes of ‖."""
    waiting, pairs = [], []
    for bracket in BRACKET.finditer(tex):
        if waiting and CLOSES.get(waiting[-1][1]) == bracket[1]:
            pairs.append((waiting.pop(), bracket))
        elif bracket[1] in CLOSES:
            waiting.append(bracket)
    chosen = {}
    for left, right in pairs:
        if tex[right.end():].lstrip().startswith("^") or "Vert" in left[1]:
            chosen |= {left.start(): rf"\left{left[1]} ", right.start(): rf"\right{right[1]} "}
    return BRACKET.sub(lambda bracket: chosen.get(bracket.start(), bracket[0]), tex)


def mathml(tex: str, display: bool) -> str:
    return convert(stretched(tex.strip()), displaystyle=display)


def inline(writer, node: nodes.math) -> None:
    writer.body.append(mathml(node.astext(), display=False))
    raise nodes.SkipNode


def block(writer, node: nodes.math_block) -> None:
    """Wide ones can be scrolled on a phone."""
    name = f' id="{html.escape(node["ids"][0])}"' if node.get("ids") else ""
    writer.body.append(f'<div class="formula" tabindex="0"{name}>{mathml(node.astext(), display=True)}</div>\n')
    raise nodes.SkipNode


def setup(app) -> dict:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
