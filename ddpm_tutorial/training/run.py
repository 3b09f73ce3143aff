"""A training run in a folder: progress bar, log, checkpoints.  What stops it costs nothing, or the seconds since the last checkpoint.

Ctrl-C, SIGTERM (a time limit) and SIGHUP (a closed terminal) wait for the step in progress and save.  A crash loses what came after the last
checkpoint.  A terminal that is gone loses nothing: first things are saved, then they are said, and saying never fails.
"""

import errno
import json
import math
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from .. import data
from ..terminal import Steady, tidy
from .checkpoint import save
from .devices import device, processes
from .loop import Progress, TrainState, train

CHECKPOINT_SECONDS = 20.0                                       # between checkpoints; more where writing one takes long
LOG_STEPS = 50                                                  # between lines of log.jsonl


@contextmanager
def together(name: str | None = None) -> Iterator[torch.device]:
    """The device of this process, by name or the best one; started by torchrun, the processes find each other first."""
    where = device(name)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield where
        return
    if where.type == "cuda":
        where = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield where
    finally:
        dist.destroy_process_group()


def run(state: TrainState, images: Tensor, y: Tensor | None, folder: Path, stages: Sequence[tuple[int, int]] = (), tensorboard: bool = False) -> float:
    """Train to the end on uint8 images (N, C, H, W), or until a signal, which waits for the step in progress and sets state.stop.

    stages: (image size, steps) one after another, the same weights going on at the next size; default: one, at the images' own size.
    Writes folder/checkpoint.safetensors and folder/log.jsonl (the first of several processes does).   → seconds
    """
    if processes()[0] != 0:
        with _signals(state):
            return _trained(state, images, y, stages, None, None)
    folder = Path(folder)
    with alone_in(folder), _signals(state):
        tidy(folder)
        check_room(state, folder)
        log = _Log(folder, state.step, tensorboard)
        try:
            return _trained(state, images, y, stages, folder / "checkpoint.safetensors", log)
        finally:
            log.close()


def _trained(state, images, y, stages, checkpoint, log):
    if log is not None and not state.step:
        save(state, checkpoint)                                 # of nothing yet: a process that dies before the next one leaves a run that can go on
    began, first, due = time.perf_counter(), state.step, CHECKPOINT_SECONDS
    with tqdm(total=state.config.steps, initial=first, unit="step", desc="training", mininterval=0.5, disable=log is None, file=Steady(sys.stderr)) as bar:
        for progress in _staged(state, images, y, stages):
            seconds = time.perf_counter() - began
            if log is None:
                continue
            speed = (progress.step - first) * state.config.batch / seconds
            if progress.step % LOG_STEPS == 0 or progress.step == progress.steps:
                log.write(state, progress, seconds, speed)
            if seconds > due:
                try:
                    save(state, checkpoint)
                except OSError as error:                        # somebody may make room before the last one is written
                    warnings.warn(f"{error}. The checkpoint of step {state.step} is not there; training goes on, and will try again", stacklevel=2)
                took = time.perf_counter() - began - seconds
                due = seconds + took + max(CHECKPOINT_SECONDS, 50 * took)       # at most a fiftieth of the time
            bar.total = progress.steps
            bar.set_postfix_str(f"loss {progress.loss:.3f}, {speed:,.0f} images/s", refresh=False)
            bar.update()
        seconds = time.perf_counter() - began
        if log is not None:
            save(state, checkpoint)                             # before the bar is closed, and a second Ctrl-C does not tear it off
    return seconds


def _staged(state: TrainState, images: Tensor, y: Tensor | None, stages: Sequence[tuple[int, float]]) -> Iterator[Progress]:
    end: float = 0
    for size, steps in stages or [(images.shape[-1], math.inf)]:
        end += steps
        if state.step >= end:                                   # a stage that was done before the run was resumed
            continue
        state.model.config = replace(state.model.config, image_size=size)
        yield from train(state, data.resize(images, size), y, until=end, transform=data.normalise)
        if state.step < end:                                    # stopped: the model stays at this size
            return


@contextmanager
def _signals(state: TrainState) -> Iterator[None]:
    """Whoever asks the process to end asks the run to stop.  Only a main thread can be asked: elsewhere, set state.stop."""
    def stop(*_):
        state.stop = True

    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if threading.current_thread() is threading.main_thread() else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # nohup has SIGHUP ignored, so that a run outlives its terminal: then it is not for us to hear it.
    before = {n: signal.signal(n, stop) for n in numbers if n != getattr(signal, "SIGHUP", None) or signal.getsignal(n) != signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


# One process in a folder, with room to write.

_held: dict[Path, int] = {}                                     # folder → the thread of this process that has it


@contextmanager
def alone_in(folder: str | Path) -> Iterator[None]:
    """Hold this folder: a second process is told so at once, instead of both writing one checkpoint.  A thread that holds it already may ask again.

    The lock is the operating system's, on log.jsonl: a process that is killed has it no longer, and leaves no file behind that says it had.
    """
    place, me = Path(folder).resolve(), threading.get_ident()
    if _held.get(place) == me:
        yield
        return
    with open(place / "log.jsonl", "ab") as file:
        if not _locked(file):
            raise OSError(f"another process is training in {folder}: wait for it, stop it, or choose another folder")
        _held[place] = me
        try:
            yield
        finally:
            del _held[place]


def _locked(file: IO[bytes]) -> bool:
    """Lock it until it is closed, or say that somebody else has."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(2**30)                                    # a byte far behind the end: the log can still be read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)   # some network folders have no locks: there it goes without
    return True


def check_room(state: TrainState, folder: str | Path) -> None:
    """Complain now, and not after an hour, of a disk that cannot hold the checkpoints: the last, the one before, and the one being written."""
    there = sum(path.stat().st_size for path in Path(folder).glob("checkpoint*.safetensors"))
    once = sum(value.nbytes for value in state.model.net.state_dict().values())
    need, free = max(3 * 4 * once - there, once), shutil.disk_usage(folder).free            # four: weights, average, and two moments of each
    if free < need:
        raise OSError(f"the disk of {folder} has {free / 1e6:,.0f} MB left, and the checkpoints of this run need {need / 1e6:,.0f} MB: "
                      "make room, or choose another folder")


class _Log:
    """One JSON line per interval; to TensorBoard as well where that is asked for."""

    def __init__(self, folder: Path, step: int, tensorboard: bool):
        self.board = summary_writer()(folder) if tensorboard else None
        self.path = folder / "log.jsonl"
        _repaired(self.path, step)
        self.file = open(self.path, "a", encoding="utf-8")

    def write(self, state: TrainState, progress: Progress, seconds: float, speed: float) -> None:
        numbers = {"loss": float(np.mean(state.losses[-LOG_STEPS:])), "lr": progress.lr, "grad_norm": progress.grad_norm,
                   "images_per_second": round(speed, 1), "seconds": round(seconds, 1)}
        line = {"step": progress.step} | {k: _json(v) for k, v in numbers.items()} | {"loss_by_time": [_json(v) for v in state.loss_by_time.tolist()]}
        with self._lossy():
            print(json.dumps(line), file=self.file, flush=True)
            if self.board:
                for name, value in numbers.items():
                    self.board.add_scalar(name, value, progress.step)

    def close(self) -> None:
        with self._lossy():
            self.file.close()
            if self.board:
                self.board.close()

    @contextmanager
    def _lossy(self) -> Iterator[None]:
        """A line that cannot be written is no reason to lose a run."""
        try:
            yield
        except OSError as error:
            warnings.warn(f"{self.path} could not be written ({error}); training goes on", stacklevel=3)


def _repaired(path: Path, step: int) -> None:
    """Take out what a kill tore, and what came after the checkpoint that the run goes on from: those steps will be done, and logged, again."""
    with open(path, "a+b") as file:
        file.seek(0)
        found, kept = file.read(), dict[int, bytes]()
        for line in found.splitlines(keepends=True):
            try:
                at = json.loads(line)["step"]
                good = line.endswith(b"\n") and 0 < at <= step
            except (ValueError, KeyError, TypeError):
                good = False
            if good:
                for later in [k for k in kept if k >= at]:      # logged twice, by a version that did not do this
                    del kept[later]
                kept[at] = line
        whole = b"".join(kept.values())
        if whole != found:
            file.truncate(0)                                    # in place: the lock is on this very file
            file.write(whole)


def _json(value: float) -> float | None:
    """JSON has no NaN (a time not met yet) and no infinity (a gradient that float16 could not hold)."""
    return value if math.isfinite(value) else None


def summary_writer() -> type:
    """TensorBoard's, or a sentence on how to get it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError("TensorBoard is not installed: python -m pip install tensorboard, or go without; log.jsonl has the same numbers") from None
    return SummaryWriter
