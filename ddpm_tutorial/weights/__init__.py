"""The store: models as files.

`files.py` writes tensors and a JSON header to one file, whole or not at all, and reads them back without unpickling anything;
`diffusers_layout.py` knows the same network under the names of the library diffusers; `onnx.py` writes it as a graph that needs no Python, and takes such
a file for a denoiser; `pretrained/` is what comes with the package, and its README.md has the cards.
"""

from pathlib import Path

PRETRAINED: dict[str | Path, Path] = {name: Path(__file__).parent / "pretrained" / f"{name}.safetensors" for name in ("digits", "mnist")}
