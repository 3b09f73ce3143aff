"""What every command needs of the machine it runs on: a terminal that fails no run, memory that is refused in time, and files that replace no other."""

import argparse
import ctypes
import json
import os
import platform
import re
import shutil
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryFile

import torch

# Words.

def sentence(error: Exception) -> str:
    """What a user is told; nobody should have to read a traceback."""
    text = " ".join(str(error).split()) or type(error).__name__
    if out_of_memory(error):
        return f"out of memory: fewer images, smaller images, or fewer at a time need less ({text:.200})"
    if isinstance(error, (ValueError, TypeError, OSError, ImportError, FloatingPointError, MemoryError)):
        return text
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"this should not have happened, please report it: {type(error).__name__} in {Path(where.filename).name}, line {where.lineno}: {text}"


def out_of_memory(error: Exception) -> bool:
    """CUDA has an error of its own for it; Apple's GPUs and the CPU say it in words."""
    words = "out of memory|not enough memory|(can't|cannot) allocate memory"
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and bool(re.search(words, str(error), re.IGNORECASE)))


class Steady:
    """A stream that may lose words, and never a run: some code pages lack letters, and a pipe may be closed at its other end."""

    def __init__(self, stream):
        self.stream = stream
        with suppress(AttributeError, ValueError):              # of a notebook; closed
            stream.reconfigure(errors="replace")

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        return self._tried("write", text)

    def flush(self):
        return self._tried("flush")

    def _tried(self, method, *text):
        with suppress(AttributeError, ValueError):              # there is none, as after 2>&-; closed
            try:
                return getattr(self.stream, method)(*text)
            except BlockingIOError:                             # a pipe that is full at the moment
                pass
            except OSError:                                     # and nothing is left that Python would try to write at its end
                with open(os.devnull, "w") as nowhere:
                    os.dup2(nowhere.fileno(), self.stream.fileno())


@contextmanager
def steady() -> Iterator[None]:
    """Words cannot fail, warnings are sentences; and a time limit's SIGTERM, or the end of the terminal, clears up as Ctrl-C does."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    mine = [n for n in numbers if signal.getsignal(n) == signal.SIG_DFL and threading.current_thread() is threading.main_thread()]
    form, warnings.formatwarning = warnings.formatwarning, lambda message, *_, **__: f"ddpm_tutorial: {message}\n"
    try:
        with redirect_stdout(Steady(sys.stdout)), redirect_stderr(Steady(sys.stderr)):           # type: ignore[type-var]
            for number in mine:
                signal.signal(number, signal.default_int_handler)
            yield
    finally:
        warnings.formatwarning = form
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


def tune_memory() -> None:
    """Let Linux' C library keep big blocks that were freed, instead of returning them and asking anew in every step: a tenth of the time on a CPU.

    And let Linux refuse what is not free, which is an error like any other: it would grant it, and kill some process when it is used.
    """
    if platform.libc_ver()[0] == "glibc":
        import resource

        keep, trim, mmap = 2**30, -1, -3                        # mallopt(3): M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        libc = ctypes.CDLL(None)
        libc.mallopt(trim, keep), libc.mallopt(mmap, keep)
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        free = free_memory()
        if free and soft == resource.RLIM_INFINITY and not torch.cuda.is_available():              # CUDA reserves addresses that it never uses
            resource.setrlimit(resource.RLIMIT_DATA, (_taken() + free * 9 // 10, hard))            # a tenth for everybody else


def _taken() -> int:
    """Bytes of data that this process has: the limit is on all of them, imports included, and not on what comes on top."""
    return 1024 * int(re.search(r"^VmData:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)[1])      # type: ignore[index]


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take: what Linux has, or what is left of the share of its container (of a control group, or of one above it)."""
    def found(pattern, *parts):
        with suppress(OSError):
            if match := re.search(pattern, root.joinpath(*parts).read_text(), re.MULTILINE):
                return int(match[1])

    available = found(r"^MemAvailable: *(\d+) kB", "proc/meminfo")
    left = [available * 1024] if available is not None else []
    for version, files in ((1, ("memory.limit_in_bytes", "memory.usage_in_bytes")), (2, ("memory.max", "memory.current"))):
        top = root / "sys/fs/cgroup" / ("memory" if version == 1 else "")
        for group in _groups(root, version):
            most, used = (found(r"^(\d+)", top, group, file) for file in files)                 # "max", where there is no limit
            if most is not None and used is not None:
                # Files that were read count as used, and are dropped as soon as somebody needs the room.
                left.append(max(0, most - used + (found(r"^(?:total_)?inactive_file (\d+)", top, group, "memory.stat") or 0)))
    return min(left, default=None)


def _groups(root: Path, version: int) -> Iterator[Path]:
    """The control group of this process for memory, and those above it; in a container the topmost is what limits it, whatever its name outside."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, kinds, name = line.split(":", 2)
            if (version == 2 and number == "0") or (version == 1 and "memory" in kinds.split(",")):
                group = Path(name.lstrip("/"))
                yield from (group, *group.parents)


# Options.

class Parser(argparse.ArgumentParser):
    """One sentence, instead of the whole usage before it."""

    def error(self, message):
        self.exit(2, f"ddpm_tutorial: {message}; see  {self.prog} --help\n")


def between(kind: type, least: float, most: float) -> Callable[[str], float]:
    """What argparse calls a type: int or float from least to most."""
    def number(text):
        with suppress(ValueError):
            if least <= kind(text) <= most:                     # and NaN is not
                return kind(text)
        raise argparse.ArgumentTypeError(f"{text!r} is no {'whole ' * (kind is int)}number, {least:,} … {most:,}")
    return number


# Files.

def unused(path: Path) -> Path:
    """The path itself, or with -2, -3, … if it is taken: nothing that exists is overwritten."""
    path = Path(os.path.abspath(path)) if path.name in ("", "..") else path
    if not path.name:
        raise ValueError(f"{path} is no name of a file or folder")
    taken, k = path, 2
    while os.path.lexists(taken):
        taken, k = path.with_name(f"{path.stem}-{k}{path.suffix}"), k + 1
    return taken


def new_file(path: Path, *suffixes: str) -> Path:
    """Where a file can be written, with one of these suffixes and over no other one; complains now, and not after the work."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file, such as {path / ('name' + suffixes[0])}")
    path = path if path.suffix else path.with_name(path.name + suffixes[0])
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{path} ends in {path.suffix}; it can be a {', '.join(suffixes)}")
    writable(path.parent)
    return unused(path)


def writable(folder: Path) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: make it, or name another")
    try:
        with TemporaryFile(dir=folder) as probe:
            probe.write(bytes(2**20))                            # a full disk takes the name, and not the bytes
    except OSError as error:
        raise OSError(f"nothing can be written into {folder}: {error}") from None


def beside(path: Path) -> Path:
    """Where this process writes what is to be moved to the path when it is whole; with the same suffix, which says how a picture is written."""
    return path.with_name(f".unfinished-{os.getpid()}-{path.name}")


def tidy(folder: str | Path, name: str = "*") -> None:
    """Clear away what a killed process was writing into this folder (under this name).  Nobody else may be writing there: see `run.alone_in`."""
    for torn in Path(folder).glob(f".unfinished-*-{name}"):
        shutil.rmtree(torn, ignore_errors=True) if torn.is_dir() else torn.unlink(missing_ok=True)


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A path beside it to write to, which then moves in: what fails on the way leaves nothing, or what was there."""
    place = beside(path)
    try:
        yield place
        os.replace(place, path)
    finally:
        place.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    with written(path) as place:
        place.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
