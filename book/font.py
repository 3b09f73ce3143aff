"""Writes static/mathematics.css: the part of STIX Two Math (SIL Open Font License, static/OFL.txt) that the book needs, within the stylesheet itself.

    pip install ziamath          # which carries the font
    python book/font.py

A font in a file of its own would not reach the reader: Firefox loads none for a page that was opened from disk.
Under a name of its own, as the licence asks of a changed font, and changed it is: Chromium makes room for the *widest* root sign of a font, and in this one
large roots are half as wide again as small ones, so all of them are narrowed to the width of the smallest; else a gap follows every root.
"""

import base64
import io
from importlib.resources import files
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

NAME = "Tutorial Math"
LETTERS = [(0x20, 0x7E), (0xA0, 0xFF), (0x2B0, 0x2FF), (0x300, 0x338), (0x391, 0x3F6), (0x2010, 0x2044), (0x2061, 0x2064), (0x2070, 0x209C), (0x20D0, 0x20EF),
           (0x2102, 0x2135), (0x2190, 0x21D5), (0x2200, 0x22FF), (0x2308, 0x230B), (0x23B4, 0x23E1), (0x27E8, 0x27FF), (0x1D434, 0x1D467), (0x1D49C, 0x1D4CF),
           (0x1D538, 0x1D56B), (0x1D6A8, 0x1D6E1), (0x1D6E2, 0x1D71B), (0xFE00, 0xFE00)]


def narrow_roots(font: TTFont) -> None:
    smallest = font.getBestCmap()[ord("√")]
    width = font["hmtx"][smallest][0]
    for name in font.getGlyphOrder():
        if name.startswith(smallest + ".") and (wide := font["hmtx"][name][0]) > width:
            glyph = font["glyf"][name]
            glyph.coordinates.scale((width / wide, 1))
            glyph.coordinates.toInt()
            glyph.recalcBounds(font["glyf"])
            font["hmtx"][name] = width, glyph.xMin


def main() -> None:
    with (files("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf").open("rb") as file:
        font = TTFont(io.BytesIO(file.read()))
    options = subset.Options(hinting=False, notdef_outline=True, layout_features=["ssty", "dtls", "flac"])
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=[letter for first, last in LETTERS for letter in range(first, last + 1)])
    subsetter.subset(font)
    narrow_roots(font)
    for number, text in ((1, NAME), (3, f"{NAME}, a changed part of STIX Two Math"), (4, NAME), (6, NAME.replace(" ", ""))):
        font["name"].setName(text, number, 3, 1, 0x409)
    font.flavor = "woff"
    file = io.BytesIO()
    font.save(file)
    style = ('/* Written by font.py. A changed part of STIX Two Math, Copyright 2001-2020 The STIX Fonts Project Authors; SIL OFL 1.1, see OFL.txt */\n'
             f'@font-face {{ font-family: "{NAME}"; src: url("data:font/woff;base64,{base64.b64encode(file.getvalue()).decode()}") format("woff"); }}\n'
             f'math {{ font-family: "{NAME}", math; font-size: 1.12em; }}\n')
    Path(__file__).with_name("static").joinpath("mathematics.css").write_text(style, encoding="utf-8")
    print(f"{len(style):,} characters")


if __name__ == "__main__":
    main()
