"""Make executed notebooks small: 256 colours are enough for a plot, and a third of the bytes.   python notebooks/slim.py NOTEBOOK …

Chosen for the farthest one (MAXCOVERAGE), and not for the many (Pillow's default): the yellow end of a colour map fills few pixels, and would turn orange.
"""

import base64
import io
import sys
from pathlib import Path

import nbformat
from PIL import Image

for path in map(Path, sys.argv[1:]):
    notebook = nbformat.read(path, as_version=4)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        png = output.get("data", {}).get("image/png")
        picture = png and Image.open(io.BytesIO(base64.b64decode(png)))
        if picture is None or picture.format != "PNG" or picture.is_animated:                   # a GIF may travel under this name; what moves is left alone
            continue
        small = io.BytesIO()
        picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
        if len(small.getvalue()) < len(base64.b64decode(png)):
            output["data"]["image/png"] = base64.b64encode(small.getvalue()).decode()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)                    # when each cell was run, on whose clock
        joined = []
        for output in cell.get("outputs", []):                  # a busy machine sends what is printed in pieces
            if joined and output.output_type == joined[-1].output_type == "stream" and output.name == joined[-1].name:
                joined[-1].text += output.text
            else:
                joined.append(output)
        if joined:
            cell.outputs = joined
    nbformat.write(notebook, path)
