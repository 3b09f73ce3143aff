"""A training run in a folder: progress bar, log, checkpoints.  Ctrl-C and SIGTERM lose nothing; a crash loses what came after the last checkpoint."""

import json
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from .. import data
from .checkpoint import save
from .devices import device, processes
from .loop import Progress, TrainState, train

CHECKPOINT_SECONDS = 20.0                                       # between checkpoints; more where writing one takes long
LOG_STEPS = 50                                                  # between lines of log.jsonl


@contextmanager
def together() -> Iterator[torch.device]:
    """The device of this process; started by torchrun, the processes find each other first."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield device()
        return
    where = device()
    if where.type == "cuda":
        where = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield where
    finally:
        dist.destroy_process_group()


def run(state: TrainState, images: Tensor, y: Tensor | None, folder: Path, stages: Sequence[tuple[int, int]] = (), tensorboard: bool = False) -> float:
    """Train to the end on uint8 images (N, C, H, W), or until Ctrl-C or SIGTERM, which wait for the step in progress and set state.stop.

    stages: (image size, steps) one after another, the same weights going on at the next size; default: one, at the images' own size.
    Writes folder/checkpoint.safetensors and folder/log.jsonl (the first of several processes does).   → seconds
    """
    chief, checkpoint = processes()[0] == 0, folder / "checkpoint.safetensors"
    log = _Log(folder, tensorboard) if chief else None

    def stop(*_):
        state.stop = True

    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    began, first, due = time.perf_counter(), state.step, CHECKPOINT_SECONDS
    try:
        with tqdm(total=state.config.steps, initial=first, unit="step", desc="training", mininterval=0.5, disable=not chief) as bar:
            for progress in _staged(state, images, y, stages):
                seconds = time.perf_counter() - began
                speed = (progress.step - first) * state.config.batch / seconds
                bar.total = progress.steps
                bar.set_postfix_str(f"loss {progress.loss:.3f}, {speed:,.0f} images/s", refresh=False)
                bar.update()
                if chief and (progress.step % LOG_STEPS == 0 or progress.step == progress.steps):
                    log.write(state, progress, seconds, speed)
                if chief and seconds > due:
                    save(state, checkpoint)
                    took = time.perf_counter() - began - seconds
                    due = seconds + took + max(CHECKPOINT_SECONDS, 50 * took)   # at most a fiftieth of the time
        seconds = time.perf_counter() - began
        if chief:
            save(state, checkpoint)                             # and a second Ctrl-C does not tear it off
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if chief:
            log.close()
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


class _Log:
    """One JSON line per interval; to TensorBoard as well where that is asked for."""

    def __init__(self, folder: Path, tensorboard: bool):
        self.board = summary_writer()(folder) if tensorboard else None
        self.file = open(folder / "log.jsonl", "a", encoding="utf-8")

    def write(self, state: TrainState, progress: Progress, seconds: float, speed: float) -> None:
        numbers = {"loss": float(np.mean(state.losses[-LOG_STEPS:])), "lr": progress.lr, "grad_norm": progress.grad_norm,
                   "images_per_second": round(speed, 1), "seconds": round(seconds, 1)}
        line = {"step": progress.step} | {k: _json(v) for k, v in numbers.items()} | {"loss_by_time": [_json(v) for v in state.loss_by_time.tolist()]}
        print(json.dumps(line), file=self.file, flush=True)
        if self.board:
            for name, value in numbers.items():
                self.board.add_scalar(name, value, progress.step)

    def close(self) -> None:
        self.file.close()
        if self.board:
            self.board.close()


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
