"""Data sets as arrays: uint8 in memory, [-1, 1] at the model's door.

[1] Alpaydin, Kaynak. Optical Recognition of Handwritten Digits, UCI 1998: 1,797 digits, 8×8, 17 grey levels; part of scikit-learn.
[2] LeCun, Cortes, Burges. The MNIST database of handwritten digits, 1998: 60,000 + 10,000 digits, 28×28.
[3] Xiao, Rasul, Vollgraf. Fashion-MNIST. arXiv:1708.07747: the same numbers and sizes, clothes.
[4] Krizhevsky. Learning Multiple Layers of Features from Tiny Images, 2009: CIFAR-10, 50,000 + 10,000 colour images, 32×32.
"""

import hashlib
import os
import shutil
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .checks import described, integer

# In a folder, a file is what its content says; Pillow would open forty formats, and start Ghostscript for one of them.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
CLAIMS = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")  # a file that is called so and is none is broken
RAW = (".dng", ".nef", ".cr2", ".arw", ".orf", ".pef", ".rw2")  # of cameras: they open as TIFF, and show a thumbnail
TRAIN, TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation", "dev", "eval")  # what splits are called, in capitals too
TIMEOUT = 30.0                                                  # seconds without a byte, after which a download has failed


class Dataset(NamedTuple):
    """One split of a data set."""

    images: Tensor                                              # (N, C, H, W) uint8
    y: Tensor                                                   # (N,) int64 labels
    classes: tuple[str, ...]                                    # their names


class NoneForTesting(ValueError):
    """A folder of images, of which too few are there to keep some back."""


def normalise(images: Tensor) -> Tensor:
    """uint8 0 … 255  →  float32 -1 … 1.  The only door in."""
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        raise TypeError(f"images are {described(images)}; they must be uint8, 0 … 255 (floats may be in [0, 1] or [-1, 1]: nobody can tell)")
    return images.float() / 127.5 - 1


def denormalise(x: Tensor) -> Tensor:
    """float -1 … 1  →  uint8 0 … 255, rounded and clamped.  The only door out; denormalise(normalise(u)) == u for all 256 values."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"x is {described(x)}; it must be floats in [-1, 1] (uint8 images are what comes out)")
    if not x.is_cuda and x.isnan().any():
        raise ValueError("x holds NaN, which is no grey")
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def load(name: str | Path = "digits", split: str = "train", folder: str | Path | None = None, size: int | None = None) -> Dataset:
    """A data set by name, or the images of a folder by its path.

    name    digits, mnist, fashion-mnist or cifar10; or a path: class folders become labels 0, 1, … in sorted order. A Path is always a path.
            What is left out of a folder, or read otherwise than it may be meant, is said in a warning.
    split   "train", or "test", which nothing is ever trained on.
    folder  where downloads are kept, see `cache`; digits need none.
    size    pixels: images become size×size, see `resize`; without it they stay as they are.

    ValueError: an unknown name, a damaged data set, a folder that makes no data set.  ConnectionError: a download failed.
    """
    if split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}; choose train or test")
    if size is not None:
        integer(size, "size")                                   # complains now, and not after the download
    if isinstance(name, str) and name in LOADERS:
        images, y, classes = LOADERS[name](split, folder)
    elif str(name) and (path := Path(os.path.expanduser(name))).is_dir():
        images, y, classes = _folder(path, split, size)
    else:
        raise ValueError(f"unknown data set {str(name)!r}; choose one of {', '.join(LOADERS)}, or give the path of a folder of images")
    return Dataset(images if size is None else resize(images, size), y, classes)


def cache(folder: str | Path | None = None) -> Path:
    """Where downloads are kept: `folder`, else $DDPM_DATA, else .cache/ddpm_tutorial at home, beside torch's own, on Windows and macOS too."""
    return Path(folder or os.environ.get("DDPM_DATA") or Path.home() / ".cache" / "ddpm_tutorial").expanduser()


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 of images and labels: two data sets with one fingerprint are the same."""
    digest = hashlib.sha256(str(tuple(dataset.images.shape)).encode())
    for part in (dataset.images, dataset.y):
        digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()


# Resolution.

def resize(images: Tensor, size: int) -> Tensor:
    """Crop the middle square; then every new pixel is the mean of the area that it covers.   (N, C, H, W) uint8  →  (N, C, size, size) uint8

    So nothing aliases, integer factors give block means, and enlarging by an integer factor and shrinking again gives back the same image."""
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4:
        raise TypeError(f"images are {described(images)}; they must be uint8 (N, C, H, W)")
    integer(size, "size")
    H, W = images.shape[2:]
    n = min(H, W)
    top, left = (H - n) // 2, (W - n) // 2
    images = images[:, :, top:top + n, left:left + n]
    if n == size:
        return images
    edge = torch.arange(size + 1, dtype=torch.float64)[:, None] * n / size                         # new pixel i covers edge_i … edge_{i+1} …
    old = torch.arange(n)                                                                          # … and old pixel j covers j … j+1
    share = (torch.minimum(edge[1:], old + 1) - torch.maximum(edge[:-1], old)).clamp(min=0) * size / n     # (size, n), rows sum to 1
    share = share.float().to(images.device)
    return torch.cat([(share @ part.float() @ share.T).round().to(torch.uint8) for part in images.split(1000)])    # in parts: floats are 4 times larger


# Embedded.

def _digits(split: str, folder: str | Path | None = None) -> Dataset:
    """[1], split 70 % to 30 % within each class; comes with scikit-learn, so it needs no download."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, y = load_digits(return_X_y=True)                    # (1797, 64), levels 0 … 16
    parts = train_test_split(images, y, test_size=0.3, stratify=y, random_state=0)
    images, y = (parts[0], parts[2]) if split == "train" else (parts[1], parts[3])
    grey = torch.tensor(images).mul(255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
    return Dataset(grey, torch.tensor(y), tuple("0123456789"))


# Downloaded.

class _Source(NamedTuple):
    """How torchvision lays a data set out; paths are relative to its root, our cache."""

    kind: str                                                   # its class
    place: str                                                  # the data set's own folder
    files: tuple[str, ...]                                      # what it reads
    archives: tuple[str, ...]                                   # what it fetches and unpacks


def _idx(kind: str) -> _Source:
    files = tuple(f"{kind}/raw/{part}-ubyte" for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"))
    return _Source(kind, kind, files, tuple(f"{file}.gz" for file in files))


_BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch", "batches.meta")
SOURCES = {
    "mnist": _idx("MNIST"),
    "fashion-mnist": _idx("FashionMNIST"),
    "cifar10": _Source("CIFAR10", "cifar-10-batches-py", tuple(f"cifar-10-batches-py/{file}" for file in _BATCHES), ("cifar-10-python.tar.gz",)),
}


def _torchvision(name: str, split: str, folder: str | Path | None = None) -> Dataset:
    """[2], [3] or [4], read by torchvision from the cache, and downloaded first if files are missing there."""
    from torchvision import datasets

    source, folder = SOURCES[name], cache(folder)
    kind = getattr(datasets, source.kind)
    if _missing(source, folder):
        _fetch(name, kind, folder)
    try:
        data = kind(str(folder), train=split == "train")
        images, y = torch.as_tensor(data.data), torch.as_tensor(data.targets)
        if len(images) != len(y) or y.min() < 0 or y.max() >= len(data.classes):
            raise ValueError(f"{len(images)} images, {len(y)} labels {y.min()} … {y.max()}")
    except (OSError, MemoryError):
        raise
    except Exception as error:                                  # a cut file makes torchvision raise half a dozen different ones
        raise ValueError(f"{name} in {folder / source.place} is damaged ({type(error).__name__}: {error}); "
                         f"delete that folder, and it will be downloaded again") from error
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)      # (N, H, W) or (N, H, W, 3)
    return Dataset(images, y, tuple(c.split(" - ")[0] for c in data.classes))             # "3 - three" is our "3"


def _missing(source: _Source, folder: Path) -> bool:
    return not all((folder / file).is_file() for file in source.files)


def _fetch(name: str, kind: Any, folder: Path) -> None:
    """Download beside the place and move in when complete: a cut line, Ctrl-C or a second process leave all of it there, or nothing."""
    source, before = SOURCES[name], socket.getdefaulttimeout()
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        socket.setdefaulttimeout(TIMEOUT)                       # torchvision sets none: a server that never answers would be waited for for ever
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{name}-", dir=folder, ignore_cleanup_errors=True) as beside:
            for archive in source.archives:                     # brought by hand: torchvision checks them and fetches the others only
                if (folder / archive).is_file():
                    (beside / Path(archive)).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(folder / archive, beside / Path(archive))
            kind(beside, download=True)
            try:
                os.rename(Path(beside, source.place), folder / source.place)
            except OSError:                                     # something is there: a faster process's data set, or a part of one, which we complete
                for file in source.files if _missing(source, folder) else ():
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(Path(beside, file), folder / file)
    except Exception as error:
        reason, url = " ".join(str(error).split()), getattr(kind, "url", None) or kind.mirrors[0]
        raise ConnectionError(
            f"{name} could not be downloaded from {url} into {folder}: {type(error).__name__}: {reason}\n"
            f"To go on offline, put these into {folder}, packed as they are: {', '.join(source.archives)}; or name a folder that has them in $DDPM_DATA. "
            f"Or use the embedded digits (--data digits), which always work.") from error
    finally:
        socket.setdefaulttimeout(before)
        for place in missing:
            with suppress(OSError):                             # not empty: it was a success
                place.rmdir()


# A folder of images.

def _folder(root: Path, split: str, size: int | None) -> Dataset:
    """Images as they lie in root/train and root/test, or else split 90 % to 10 % within each class: every tenth file, by sorted names, is for testing."""
    said: dict[str, list[Path]] = {}                            # what is not as expected: about which files
    given, root, alone = root, _inner(root, said), root.resolve().name
    train_folder, test_folder = _splits(root, said)
    if train_folder and test_folder:
        train, test = (_by_class(_inner(folder, said), alone, said) for folder in (train_folder, test_folder))
    else:
        both = _by_class(root, alone, said)
        train = {name: {path: mode for i, (path, mode) in enumerate(paths.items()) if i % 10 != 4} for name, paths in both.items()}
        test = {name: dict(list(paths.items())[4::10]) for name, paths in both.items()}            # from the fifth on: 10 %, rounded
    if strange := sorted(set(test) - set(train)):
        raise ValueError(f"{test_folder} has classes that {train_folder} has not: {', '.join(strange)}")
    if said:
        warnings.warn(f"{given}: {_told(said, given)}", stacklevel=2)
    names = list(train)
    labelled = [(path, names.index(name)) for name, paths in (train if split == "train" else test).items() for path in paths]
    if not labelled:
        raise NoneForTesting(f"{root} has no class of 5 images or more, so none are left for testing; add images, or make folders train and test in it")

    # Both splits together decide about colour and size, so that they fit one model.
    everything = {path: mode for part in (train, test) for paths in part.values() for path, mode in paths.items()}
    colour = not set(everything.values()) <= {"1", "L", "LA"}   # by the file's mode, not its pixels: a grey picture saved as RGB has colour
    chosen, images = next(iter(everything)), []
    first = _pixels(chosen, colour, size)
    for path, _ in labelled:
        images.append(_pixels(path, colour, size))
        if images[-1].shape != first.shape:
            (H, W), (h, w) = first.shape[1:], images[-1].shape[1:]
            raise ValueError(f"{chosen} is {H}×{W} and {path} is {h}×{w} (height × width); give a size, and all are cropped and resized to it")
    return Dataset(torch.stack(images), torch.tensor([k for _, k in labelled]), tuple(names))


def _visible(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)


def _inner(root: Path, said: dict[str, list[Path]]) -> Path:
    """The folder itself, or the one folder in it where the class folders are: archives are often packed so."""
    match [path for path in _visible(root) if path.is_dir()]:
        case [only] if not any(_claims(path) for folder in (root, only) for path in _visible(folder)) and sum(p.is_dir() for p in _visible(only)) > 1:
            said.setdefault("the classes are one level deeper", []).append(only)
            return _inner(only, said)
    return root


def _splits(root: Path, said: dict[str, list[Path]]) -> tuple[Path | None, Path | None]:
    """The folders for training and testing, whatever the case of their names; or none, if there are neither."""
    folders = {path.name.lower(): path for path in _visible(root) if path.is_dir()}
    train, test = (next((folders[name] for name in names if name in folders), None) for names in (TRAIN, TEST))
    if (train is None) != (test is None):
        there = train or test
        raise ValueError(f"{root} has a folder {there.name} only, which is called like a split; it must have both train and test, or neither: "
                         f"give {there} to have that one split, or rename it if it is a class")
    if train and (beside := [path for path in _visible(root) if path not in (train, test)]):
        said[f"left out, because beside {train.name} and {test.name}"] = beside
    return train, test


def _by_class(root: Path, alone: str, said: dict[str, list[Path]]) -> dict[str, dict[Path, str]]:
    """Of each class folder, in sorted order, its images in sorted order and their modes; without class folders, one class called `alone`."""
    found: dict[str, dict[Path, str]] = {}
    for path in _below(root):
        folders, (mode, remark) = path.relative_to(root).parts[:-1], _mode(path)
        if mode and any(name.lower() in TRAIN + TEST for name in folders[1:]):
            raise ValueError(f"{path} lies in a folder that is called like a split, within a class; put train and test above the classes, or rename it")
        if mode:
            found.setdefault(folders[0] if folders else "", {})[path] = mode
            remark = remark or "taken for the class, but one level deeper" * (len(folders) > 1)
        if remark:
            said.setdefault(remark, []).append(path)
    told, known = f" ({_told(said, root)})" if said else "", {path for paths in said.values() for path in paths}
    if empty := [path for path in _visible(root) if path.is_dir() and path.name not in found and path not in known]:
        raise ValueError(f"there are no images in the class folder {empty[0]}{told}; add some, or take it away")
    if not found:
        raise ValueError(f"there are no images ({', '.join(FORMATS)}) in {root}{told}")
    if "" in found and len(found) > 1:
        loose = next(iter(found[""])).name
        raise ValueError(f"{root} has both images ({loose}) and folders of images ({max(found)}); put all into class folders, or all into one")
    return {alone: found[""]} if "" in found else found


def _mode(path: Path) -> tuple[str | None, str]:
    """Pillow's mode of an image, None of what is left out; and what is to be said of it."""
    if path.name.startswith("."):
        return None, "left out, because hidden"
    if not path.is_file():
        return None, "left out, because the link leads back" if path.is_dir() else "left out, because no file"
    if path.suffix.lower() in RAW:
        return None, "left out, because raw; save them as PNG or JPEG"
    try:
        with _opened(path) as image:                            # MPO: a photograph and its preview
            return image.mode, "only the first frame taken" if getattr(image, "is_animated", False) and image.format != "MPO" else ""
    except ValueError:
        if _claims(path):
            raise
        return None, f"left out, because not {', '.join(FORMATS[:-1])} or {FORMATS[-1]}; save pictures as one of these"


def _below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Everything below a folder but the folders, by sorted names, the same on every system; links are followed, but not in circles."""
    here = (*above, folder.resolve())
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.is_dir() and not path.name.startswith(".") and path.resolve() not in here:
            yield from _below(path, here)
        else:
            yield path


def _claims(path: Path) -> bool:
    return path.suffix.lower() in CLAIMS


def _told(said: dict[str, list[Path]], root: Path) -> str:
    """In one line: what is to be said, about how many, of which suffix, with an example."""
    lines = []
    for what, paths in said.items():
        kinds: dict[str, list[Path]] = {}
        for path in paths:
            kinds.setdefault("folder" if path.is_dir() else path.suffix.lower() or "without suffix", []).append(path)
        lines.append(f"{what}: " + ", ".join(f"{len(some)} {kind} ({os.path.relpath(some[0], root)})" for kind, some in kinds.items()))
    return "; ".join(lines)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except Exception as error:                                  # Pillow raises OSError, SyntaxError, ValueError, … by format
        raise ValueError(f"{path} cannot be read as an image ({error}); mend it or take it away") from error


def _pixels(path: Path, colour: bool, size: int | None) -> Tensor:
    """One image, turned as the camera was, transparency on white, resized if asked.   →  (1 or 3, H, W) uint8"""
    from PIL import Image, ImageOps

    with _opened(path) as file:
        if file.mode[0] in "IF":
            raise ValueError(f"mode {file.mode}: save it with 8 bits per channel")                 # Pillow would clip 16 bits to 255
        image = ImageOps.exif_transpose(file)
        if image.mode.endswith("A") or "transparency" in image.info:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        pixels = torch.tensor(np.array(image.convert("RGB" if colour else "L")))                   # (H, W) or (H, W, 3)
    x = pixels.view(*pixels.shape[:2], -1).permute(2, 0, 1)
    return x if size is None else resize(x[None], size)[0]


LOADERS: dict[str, Callable[..., Dataset]] = {"digits": _digits, **{name: partial(_torchvision, name) for name in SOURCES}}
