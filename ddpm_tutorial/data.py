"""Data sets as arrays: uint8 in memory, [-1, 1] at the model's door.

[1] Alpaydin, Kaynak. Optical Recognition of Handwritten Digits, UCI 1998: 1,797 digits, 8×8, 17 grey levels; part of scikit-learn.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Dataset(NamedTuple):
    """One split of a data set."""

    images: Tensor                                              # (N, C, H, W) uint8
    y: Tensor                                                   # (N,) int64 labels
    classes: tuple[str, ...]                                    # their names


def normalise(images: Tensor) -> Tensor:
    """uint8 0 … 255  →  float32 -1 … 1.  The only door in."""
    if images.dtype != torch.uint8:
        raise TypeError(f"images are {images.dtype}; they must be uint8, 0 … 255 (floats may be in [0, 1] or [-1, 1]: nobody can tell)")
    return images.float() / 127.5 - 1


def denormalise(x: Tensor) -> Tensor:
    """float -1 … 1  →  uint8 0 … 255, rounded and clamped.  The only door out; denormalise(normalise(u)) == u for all 256 values."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def load(name: str = "digits", split: str = "train") -> Dataset:
    """A data set by name.   split: "train", or "test", which nothing is ever trained on."""
    if split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}; choose train or test")
    if name not in LOADERS:
        raise ValueError(f"unknown data set {name!r}; choose one of {', '.join(LOADERS)}")
    return LOADERS[name](split)


def _digits(split: str) -> Dataset:
    """[1], split 70 % to 30 % within each class; comes with scikit-learn, so it needs no download."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, y = load_digits(return_X_y=True)                    # (1797, 64), levels 0 … 16
    parts = train_test_split(images, y, test_size=0.3, stratify=y, random_state=0)
    images, y = (parts[0], parts[2]) if split == "train" else (parts[1], parts[3])
    grey = torch.tensor(images).mul(255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
    return Dataset(grey, torch.tensor(y), tuple("0123456789"))


LOADERS = {"digits": _digits}
