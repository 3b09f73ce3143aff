"""What happens in other people's hands: situations from public bug reports, what is said in each, and whether what was there is still there.

    python tests/situations.py                      try all of them, each in a process of its own, and print the table
    python tests/situations.py --package FOLDER     the same with another copy of the package, an older one for example

Each is a function: what lies in a folder, `yield`, and what somebody does then.  Beside it stands a part of the sentence that they must be told; none,
where it simply has to work.  Kept: what was prepared is as it was, byte for byte (but for paths that are yielded: of runs that go on), nothing
half-written lies beside it, and what the function asserts is true.  test_situations.py tries the same list, so that it cannot say what is not so.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unittest import mock

SITUATIONS: list["Situation"] = []


class Situation(NamedTuple):
    what: str
    says: str                                                   # a regular expression
    do: Callable


class Outcome(NamedTuple):
    said: str
    lost: str                                                   # "" where all was kept
    right: bool


def situation(what, says=""):
    def add(do):
        SITUATIONS.append(Situation(what, says, do))
        return do
    return add


def cli(*words):
    from ddpm_tutorial.__main__ import main

    main([str(word) for word in words])


def photos(folder, size=8, **classes):
    import numpy as np
    from PIL import Image

    for name, n in (classes or {"cats": 8, "dogs": 8}).items():
        (folder / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(np.random.default_rng(i).integers(0, 256, (size, size), dtype=np.uint8)).save(folder / name / f"{i}.png")
    return folder


SHORT = ("--steps", 2, "--batch", 4, "--timesteps", 3, "--per-class", 0)


def trained(folder):
    """A run of two steps on two classes."""
    with mock.patch("ddpm_tutorial.__main__.pictures", lambda *args: {}):
        cli("train", "--data", photos(folder / "photos"), *SHORT, "--out", folder / "run")
    return folder / "run"


def repainted(path):
    from PIL import Image

    image = Image.open(path).copy()
    image.putpixel((0, 0), 255 - image.getpixel((0, 0)))
    image.save(path)


def stopped(folder):
    """A run of twelve steps, stopped after three; its checkpoint, without the one before it."""
    from ddpm_tutorial import save, train
    from tiny import IMAGES, LABELS, fresh

    state = fresh()
    list(train(state, IMAGES, LABELS, until=3))
    return save(state, folder / "checkpoint.safetensors")


def forged(path, change):
    """The same file with its content changed, as somebody's own program would write it: no checksum."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, "pt") as file:
        meta, tensors = dict(file.metadata()), {k: file.get_tensor(k).clone() for k in file.keys()}
    header = json.loads(meta["header"])
    change(tensors, header)
    save_file(tensors, path, metadata={"ddpm_tutorial": meta["ddpm_tutorial"], "header": json.dumps(header)})
    return path


def go_on(path):
    from ddpm_tutorial import resume, train
    from tiny import IMAGES, LABELS

    list(train(resume(path), IMAGES, LABELS))


# Labels.

@situation("labels 1 … K instead of 0 … K-1", "do your labels begin at 1.*given 1 … 2")
def _(folder):
    from ddpm_tutorial import train
    from tiny import IMAGES, LABELS, fresh

    yield
    list(train(fresh(), IMAGES, LABELS + 1))


@situation("a class folder is added, and the run resumed", "of cats, dogs; the data are now .* of bats, cats, dogs")
def _(folder):
    run = trained(folder)
    photos(folder / "photos", bats=8)
    yield
    cli("train", "--resume", run)


@situation("one pixel of one image has changed since", "the data are now")
def _(folder):
    run = trained(folder)
    repainted(folder / "photos" / "cats" / "0.png")
    yield
    cli("train", "--resume", run)


@situation("one pixel of an image for testing has changed since", "and 2 for testing, .* the data are now")
def _(folder):
    run = trained(folder)
    repainted(folder / "photos" / "cats" / "4.png")
    yield
    cli("evaluate", run, "--per-class", 2)


@situation("an image for testing has lost its end since", "4.png cannot be read as an image")
def _(folder):
    run = trained(folder)
    image = folder / "photos" / "cats" / "4.png"
    image.write_bytes(image.read_bytes()[:-30])                 # its size can still be read
    yield
    cli("evaluate", run, "--per-class", 2)


@situation("weights of 2 classes are measured on 3", "of cats, dogs; the data are now .* of cats, dogs, owls")
def _(folder):
    run = trained(folder)
    photos(folder / "more", cats=8, dogs=8, owls=8)
    yield
    cli("evaluate", run / "model.safetensors", "--data", folder / "more", "--per-class", 2)


@situation("a class is asked for by its name")
def _(folder):
    run = trained(folder)
    yield
    cli("sample", run, "--y", "dogs", "--n", 1, "--out", folder / "x.png")


# Folders.

@situation("PostScript that is called x.png", r"photos.cats.x\.png cannot be read as an image \((?!.*Ghostscript)")
def _(folder):
    (photos(folder / "photos") / "cats" / "x.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    yield
    cli("train", "--data", folder / "photos", *SHORT, "--out", folder / "run")


if hasattr(os, "mkfifo"):
    @situation("a named pipe among the images", r"left out, because no file: 1 \.png")
    def _(folder):
        os.mkfifo(photos(folder / "photos") / "cats" / "pipe.png")
        yield
        cli("train", "--data", folder / "photos", *SHORT, "--out", folder / "run")

    @situation("a link from a class to its own folder", "the link leads back")
    def _(folder):
        (photos(folder / "photos") / "cats" / "again").symlink_to(folder / "photos")
        yield
        cli("train", "--data", folder / "photos", *SHORT, "--out", folder / "run")


@situation("pictures of a telephone among the images", r"left out, because not PNG, .*save pictures as one of these: 1 \.heic")
def _(folder):
    (photos(folder / "photos") / "cats" / "x.heic").write_bytes(b"\0\0\0\x18ftypheic")
    yield
    cli("train", "--data", folder / "photos", *SHORT, "--out", folder / "run")


@situation("a class folder without images", "no images in the class folder .*owls")
def _(folder):
    (photos(folder / "photos") / "owls").mkdir()
    yield
    cli("train", "--data", folder / "photos", *SHORT, "--out", folder / "run")


@situation("a folder train, and none for testing", "train only, which is called like a split")
def _(folder):
    photos(folder / "photos", train=8, cats=8)
    yield
    cli("train", "--data", folder / "photos", *SHORT, "--out", folder / "run")


@situation("the classes lie one folder deeper", "the classes are one level deeper")
def _(folder):
    photos(folder / "photos" / "inner")
    yield
    cli("train", "--data", folder / "photos", *SHORT, "--out", folder / "run")


@situation("images of 30 × 30 pixels, which three levels cannot halve")
def _(folder):
    photos(folder / "photos", 30)
    yield
    cli("train", "--data", folder / "photos", *SHORT, "--out", folder / "run")


@situation("--size 33", "images of 33 pixels can be halved 0 times only.*give --size 32")
def _(folder):
    photos(folder / "photos")
    yield
    cli("train", "--data", folder / "photos", "--size", 33, *SHORT, "--out", folder / "run")


# Checkpoints and weights.

@situation("one bit of the weights has flipped", "its checksum is not that of its content")
def _(folder):
    path = trained(folder) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1000] ^= 4
    path.write_bytes(content)
    yield
    cli("sample", path, "--n", 1, "--out", folder / "x.png")


@situation("a moment of another shape in a checkpoint", "the moments of .* are")
def _(folder):
    def change(tensors, header):
        key = next(k for k, v in tensors.items() if k.startswith("optimizer") and k.endswith("exp_avg_sq") and v.ndim == 4)
        tensors[key] = tensors[key][:1].clone()

    path = forged(stopped(folder), change)
    yield
    go_on(path)


@situation("NaN among a checkpoint's weights", "not finite")
def _(folder):
    def change(tensors, header):
        tensors[next(k for k in tensors if k.startswith("ema.module"))].fill_(float("nan"))

    path = forged(stopped(folder), change)
    yield
    go_on(path)


@situation("a step of 2.5 in a checkpoint", r"checkpoint\.safetensors.*2\.5")
def _(folder):
    path = forged(stopped(folder), lambda tensors, header: header.update(step=2.5))
    yield
    go_on(path)


@situation("a checkpoint's header has lost a word, and there is the one before it", "Going on from the checkpoint beside it")
def _(folder):
    from ddpm_tutorial import resume, save

    path = stopped(folder)
    save(resume(path), path)
    forged(path, lambda tensors, header: header.pop("train"))
    yield
    go_on(path)


@situation("weights of a newer version", r"model\.safetensors has settings that this version does not know .*: patches")
def _(folder):
    path = forged(trained(folder) / "model.safetensors", lambda tensors, header: header.get("config", header).update(patches=2))
    yield
    cli("sample", path, "--n", 1, "--out", folder / "x.png")


# Work.

@situation("stdout is a full disk while it trains")
def _(folder):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    photos(folder / "photos")
    terminal = io.StringIO()
    terminal.write = terminal.flush = full
    yield
    with mock.patch("ddpm_tutorial.__main__.pictures", lambda *args: {}), contextlib.redirect_stdout(terminal):
        try:
            cli("train", "--data", folder / "photos", *SHORT, "--out", folder / "run")
        finally:
            assert (folder / "run" / "model.safetensors").is_file(), "the weights"


if hasattr(signal, "SIGHUP"):
    @situation("the terminal is closed while it trains", "stopped after step 1; go on with: .*--resume")
    def _(folder):
        photos(folder / "photos")
        yield
        try:
            with raised_in_the_first_step(lambda: signal.raise_signal(signal.SIGHUP)):
                cli("train", "--data", folder / "photos", *SHORT, "--out", folder / "run")
        finally:
            assert (folder / "run" / "checkpoint.safetensors").is_file(), "the checkpoint"


@situation("the process is killed before its first checkpoint, and the run resumed")
def _(folder):
    class Killed(BaseException):
        """Nobody catches it, as nobody can catch SIGKILL."""

    def kill():
        raise Killed

    photos(folder / "photos")
    with raised_in_the_first_step(kill), contextlib.suppress(Killed):
        cli("train", "--data", folder / "photos", *SHORT, "--out", folder / "run")
    yield folder / "run"
    cli("train", "--resume", folder / "run", "--per-class", 0)
    assert (folder / "run" / "model.safetensors").is_file(), "the weights"


@contextlib.contextmanager
def raised_in_the_first_step(do):
    from torch.optim.swa_utils import AveragedModel

    update, done = AveragedModel.update_parameters, []

    def then(self, net):
        update(self, net)
        if not done:
            done.append(do())

    with mock.patch.object(AveragedModel, "update_parameters", then), mock.patch("ddpm_tutorial.__main__.pictures", lambda *args: {}):
        yield


@situation("run.json is empty after a crash", r"run\.json is damaged")
def _(folder):
    run = trained(folder)
    (run / "run.json").write_text("")
    yield
    cli("train", "--resume", run)


@situation("a folder too small to be measured", "will not be measured: there are 2 images for testing")
def _(folder):
    photos(folder / "photos", cats=5, dogs=5)
    yield
    with mock.patch("ddpm_tutorial.__main__.pictures", lambda *args: {}):
        try:
            cli("train", "--data", folder / "photos", *SHORT[:-2], "--out", folder / "run")
        finally:
            assert (folder / "run" / "figures.json").is_file(), "the figures"


@situation("the pictures cannot be drawn after the training", "the pictures could not be drawn: .*the font is damaged")
def _(folder):
    photos(folder / "photos")
    yield
    with mock.patch("ddpm_tutorial.__main__.pictures", mock.Mock(side_effect=RuntimeError("the font is damaged"))):
        try:
            cli("train", "--data", folder / "photos", *SHORT, "--out", folder / "run")
        finally:
            assert (folder / "run" / "model.safetensors").is_file(), "the weights"
            assert (folder / "run" / "figures.json").is_file(), "the figures"


@situation("the data were moved, and the run resumed with --data")
def _(folder):
    run = trained(folder)
    (folder / "photos").rename(folder / "elsewhere")
    yield run
    with mock.patch("ddpm_tutorial.__main__.pictures", lambda *args: {}):
        cli("train", "--resume", run, "--data", folder / "elsewhere", "--per-class", 0)


@situation("two layers share their weights")
def _(folder):
    from torch import nn
    from ddpm_tutorial import DDPM, TrainState, save, train
    from tiny import IMAGES, RUN, UNLABELLED

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = self.b = nn.Conv2d(1, 1, 1)

        def forward(self, x_t, t):
            return self.b(self.a(x_t))

    state = TrainState(DDPM(UNLABELLED, Shared()), RUN)
    list(train(state, IMAGES, until=1))
    yield
    save(state, folder / "checkpoint.safetensors")


# What was asked for, and what belongs to somebody.

@situation("--out pic, where pic.png is somebody's")
def _(folder):
    (folder / "pic.png").write_bytes(b"mine")
    yield
    cli("sample", "digits", "--n", 1, "--steps", 1, "--out", folder / "pic")


@situation("--out is a folder", "is a folder: name a file")
def _(folder):
    (folder / "pictures").mkdir()
    yield
    cli("sample", "digits", "--n", 1, "--steps", 1, "--out", folder / "pictures")


@situation("--out lies in a folder that is not there", "there is no folder")
def _(folder):
    yield
    cli("sample", "digits", "--n", 1, "--steps", 1, "--out", folder / "nowhere" / "x.png")


@situation("a checkpoint is saved to the name of a folder", "is a folder")
def _(folder):
    from ddpm_tutorial import save
    from tiny import fresh

    (folder / "run").mkdir()
    (folder / "run" / "thesis.txt").write_text("three years")
    yield
    save(fresh(), folder / "run")


@situation("--resume with other data", "run was begun with 14 images.*the data are now 1257 images")
def _(folder):
    run = trained(folder)
    yield
    cli("train", "--resume", run, "--data", "digits")


@situation("--resume with another learning rate", "leave out --lr")
def _(folder):
    run = trained(folder)
    yield
    cli("train", "--resume", run, "--lr", 0.1)


@situation("single pictures are wanted")
def _(folder):
    yield
    cli("sample", "digits", "--n", 2, "--steps", 1, "--separate", folder / "single")
    assert len(list((folder / "single").iterdir())) == 2, "two files"


# Any terminal, any name, any thread.

@situation("a class is called $x_{")
def _(folder):
    with mock.patch("ddpm_tutorial.__main__.pictures", lambda *args: {}):
        cli("train", "--data", photos(folder / "photos", **{"$x_{$": 8, "it's": 8}), *SHORT, "--out", folder / "run")
    yield
    cli("sample", folder / "run", "--n", 2, "--steps", 1, "--out", folder / "x.png")


@situation("a terminal of 1963, and a class in Cyrillic letters")
def _(folder):
    photos(folder / "photos", **{"собака": 8, "cats": 8})
    yield
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "ascii")), mock.patch("ddpm_tutorial.__main__.pictures", lambda *args: {}):
        cli("train", "--data", folder / "photos", *SHORT, "--out", folder / "run")


@situation("a run in a thread")
def _(folder):
    from tiny import LABELS, PIXELS, fresh
    try:
        from ddpm_tutorial.training.run import run
    except ImportError:                                         # an older copy
        from ddpm_tutorial.run import run

    errors = []

    def work():
        try:
            run(fresh(), PIXELS, LABELS, folder)
        except Exception as error:
            errors.append(error)

    yield
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


# Sentences.

@situation("--scale 1e300", "'1e300' is no number, 0 … 1,000")
def _(folder):
    yield
    cli("sample", "digits", "--n", 1, "--steps", 1, "--scale", "1e300", "--out", folder / "x.png")


@situation("--seed 18446744073709551616", "is no whole number, 0 … ")
def _(folder):
    yield
    cli("sample", "digits", "--n", 1, "--steps", 1, "--seed", 2**64, "--out", folder / "x.png")


@situation("a chain of 10¹² steps", "T is 1000000000000; it must be ≤ 1000000")
def _(folder):
    from ddpm_tutorial import cosine

    yield
    cosine(10**12)


@situation("images as a numpy array", "images are .*they must be a tensor")
def _(folder):
    from ddpm_tutorial import train
    from tiny import IMAGES, LABELS, fresh

    yield
    list(train(fresh(), IMAGES.numpy(), LABELS))


@situation("a function instead of a network", "net is .*Module")
def _(folder):
    from ddpm_tutorial import DDPM
    from tiny import UNLABELLED

    yield
    DDPM(UNLABELLED, lambda x_t, t: x_t)


@situation("weights of 16 steps get a chain of 1,000", "trained with T = 16 times, and is now asked at 1 … 1000")
def _(folder):
    from ddpm_tutorial import cosine, train
    from tiny import IMAGES, LABELS, fresh

    state = fresh()
    list(train(state, IMAGES, LABELS, until=1))
    yield
    state.model.schedule = cosine(1000)
    state.model.eval().sample(1, 0, "ddpm")


@situation("t on a GPU, s on the CPU", "t is on cuda:0 and s on cpu")
def _(folder):
    import pytest
    import torch
    from ddpm_tutorial import cosine, q_posterior
    from pretended import CUDA, pretended_gpu

    yield
    with pytest.MonkeyPatch.context() as patch, pretended_gpu(patch):
        x = torch.zeros(2, 1, device=CUDA)
        q_posterior(cosine(16), x, x, torch.tensor([3, 12], device=CUDA), torch.tensor([1, 2]))


# Trying them.

SENTENCES = (ValueError, TypeError, OSError, FloatingPointError, MemoryError, SystemExit)       # the errors that are meant for a user


def snapshot(folder, but=()):
    return {path: path.read_bytes() if path.is_file() and not path.is_symlink() else None
            for path in sorted(folder.rglob("*")) if not any(path.is_relative_to(some) for some in but)}


def tried(one: Situation, folder: Path) -> Outcome:
    """Try it in this process, in an empty folder."""
    import ddpm_tutorial.__main__ as main
    from tiny import UNET

    config, how = main.RECIPES["digits"]
    small = replace(config, unet=replace(UNET, num_classes=10))
    said, lost, failed, before = io.StringIO(), "", None, os.getcwd()
    os.chdir(folder)
    try:
        with mock.patch.dict(main.RECIPES, digits=(small, how)), contextlib.redirect_stdout(io.StringIO()) as printed, \
                contextlib.redirect_stderr(said), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            steps = one.do(folder)
            may_change = next(steps)
            there = snapshot(folder, [may_change] if may_change else [])
            for text in (said, printed):
                text.seek(0), text.truncate()
            warned.clear()
            try:
                next(steps, None)
            except BaseException as error:
                failed = error
            if isinstance(failed, AssertionError):
                lost, failed = str(failed).split("\n")[0] or "an assertion", failed.__context__
            now = snapshot(folder)
            lost = lost or ", ".join(path.name for path, content in there.items() if now.get(path, ...) != content)
            lost = lost or ", ".join(path.name for path in now if re.match(r"\.unfinished|\.tmp", path.name))
    finally:
        os.chdir(before)
    lines = [*(str(warning.message) for warning in warned if issubclass(warning.category, UserWarning)), *printed.getvalue().splitlines()]
    lines += [line for line in said.getvalue().splitlines() if not re.search("training: |step/s", line)]
    if isinstance(failed, SENTENCES):
        lines.append(str(failed))
    elif failed is not None:
        lines.append(f"traceback: {type(failed).__name__}: {str(failed).splitlines()[0] if str(failed) else ''}")
    lines = [" ".join(line.split()).replace(str(folder) + os.sep, "").replace(str(folder), "folder").strip() for line in lines]
    found = [line for line in lines if one.says and re.search(one.says, line)]
    right = bool(found) if one.says else failed is None
    shown = found[0] if found else "done" if failed is None and not lines[-1:] else lines[-1] if failed is not None or one.says else "done"
    return Outcome(shown, lost, right and not lost)


def apart(one: Situation, seconds: float = 120) -> Outcome:
    """Try it in a process of its own, which may crash or hang."""
    how = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    ours, theirs = how.Pipe()
    with TemporaryDirectory() as folder:
        process = how.Process(target=_child, args=(SITUATIONS.index(one), Path(folder).resolve(), theirs))
        process.start()
        theirs.close()
        try:
            outcome = ours.recv() if ours.poll(seconds) else Outcome("hangs", "", False)
        except EOFError:
            process.join()
            outcome = Outcome(f"the process dies of signal {-process.exitcode}", "", False)
        process.kill()
        process.join()
    return outcome


def _child(i, folder, pipe):
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)    # ignored, where a shell started us with &
    try:
        pipe.send(tried(SITUATIONS[i], folder))
    except Exception as error:
        pipe.send(Outcome(f"could not be tried: {traceback.format_exception_only(error)[-1].strip()}", "", False))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, default=Path(__file__).parents[1], help="the folder in which ddpm_tutorial lies")
    place = parser.parse_args().package.resolve()
    sys.path[:0] = [str(place), str(Path(__file__).parent)]
    import ddpm_tutorial.__main__ as package
    import tiny  # noqa: F401 (imported before the processes are forked, and not in each)

    if place not in Path(package.__file__).resolve().parents:
        sys.exit(f"there is no ddpm_tutorial in {place}")
    print("| situation | said | kept | |\n|---|---|---|---|", flush=True)
    right = 0
    for one in SITUATIONS:
        outcome = apart(one)
        right += outcome.right
        said = outcome.said if len(outcome.said) <= 150 else outcome.said[:149] + "…"
        print(f"| {one.what} | {said.replace('|', ' ')} | {'LOST: ' + outcome.lost if outcome.lost else 'yes'} | {'' if outcome.right else '✗'} |", flush=True)
    print(f"\n{right} of {len(SITUATIONS)} are as they must be")
    return right < len(SITUATIONS)


if __name__ == "__main__":
    sys.exit(main())
