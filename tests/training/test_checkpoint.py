"""A run on disk: it goes on as if it had never stopped, and nothing that can happen to a disk costs more than the last few seconds."""

import errno
import os
import sys
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tiny import IMAGES, LABELS, MODEL, RUN, UNLABELLED, Line, assert_same, fresh, fresh_line
from ddpm_tutorial import DDPM, TrainState, cosine, resume, save, train
from ddpm_tutorial.training import checkpoint
from ddpm_tutorial.weights import files
from ddpm_tutorial.training.checkpoint import previous


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def trained(steps, config=RUN):
    """The smallest run, after so many steps."""
    state = fresh_line(config=config)
    list(train(state, IMAGES, until=steps))
    return state


def resumed(path):
    """The step of the run that is found there, and the warning."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        state = resume(path, net=Line())
    assert len(said) <= 1
    return state.step, "".join(str(warning.message) for warning in said)


@pytest.fixture
def path(tmp_path):
    """Two checkpoints, of steps 2 and 3."""
    path = tmp_path / "run" / "checkpoint.safetensors"
    for steps in (2, 3):
        save(trained(steps), path)
    return path


# It goes on as if it had never stopped.

@pytest.mark.parametrize("changes", [{}, {"precision": "bfloat16"}, {"precision": "float16"},
                                     {"dropout": 0.5, "flip": True, "micro": 3, "times": "logit-normal"}], ids=str)
def test_a_resumed_run_is_the_run_that_was_never_stopped(changes, tmp_path):
    """12 steps = 5 + save + resume + 7, bit for bit: weights, average, optimizer and losses (accelerate #4195, #3996: inexact resume)."""
    changes = dict(changes)
    unet = {"dropout": changes.pop("dropout", 0.0)}
    config = replace(RUN, **changes)
    whole, parts = fresh(config, **unet), fresh(config, **unet)
    list(train(whole, IMAGES, LABELS))
    for progress in train(parts, IMAGES, LABELS):
        if progress.step == 5:
            break
    path = save(parts, tmp_path / "checkpoint.safetensors")
    torch.manual_seed(99)                                       # the caller's random numbers are of no consequence
    again = resume(path)
    assert again.step == 5 and again.config == config and again.model.config == whole.model.config
    assert_same(again, parts)
    list(train(again, IMAGES, LABELS))

    assert_same(again, whole)
    assert again.optimizer.state_dict()["param_groups"] == whole.optimizer.state_dict()["param_groups"]
    assert again.scaler.state_dict() == whole.scaler.state_dict() and bool(again.scaler.state_dict()) == (config.precision == "float16")


def test_your_own_network_and_schedule_can_be_resumed(tmp_path):
    """The schedule is in the checkpoint; the network has to be brought."""
    state = TrainState(DDPM(UNLABELLED, Line(), cosine(9)), replace(RUN, steps=2))
    list(train(state, IMAGES))
    path = save(state, tmp_path / "checkpoint.safetensors")
    again = resume(path, net=Line())
    assert torch.equal(again.model.schedule.alpha_bar, state.model.schedule.alpha_bar) and again.model.net.w == state.model.net.w
    with pytest.raises(ValueError, match=r"own network Line.*net="):
        resume(path)


def test_what_was_decided_once_is_kept(tmp_path, monkeypatch):
    """The precision that suited the first machine, the steps that seconds became, the micro-batch that fitted: a resumed run decides nothing anew."""
    monkeypatch.setattr("ddpm_tutorial.training.state.best_precision", lambda where: "bfloat16")
    state = trained(3, replace(RUN, precision=None, steps=None, seconds=1.0))
    state.config = replace(state.config, steps=7, micro=2)      # as `train` does
    save(state, tmp_path / "checkpoint.safetensors")
    monkeypatch.setattr("ddpm_tutorial.training.state.best_precision", lambda where: "float32")
    again = resume(tmp_path / "checkpoint.safetensors", net=Line())
    assert again.config == state.config and (again.config.precision, again.config.steps, again.config.micro) == ("bfloat16", 7, 2)


def test_saving_does_not_disturb_the_run(tmp_path):
    """A checkpoint after every step changes nothing, and leaves the last two and no litter."""
    quiet, busy = fresh(replace(RUN, steps=4)), fresh(replace(RUN, steps=4))
    list(train(quiet, IMAGES, LABELS))
    for progress in train(busy, IMAGES, LABELS):
        path = save(busy, tmp_path / "checkpoint.safetensors")
        assert names(tmp_path) == ["checkpoint-previous.safetensors", "checkpoint.safetensors"][progress.step == 1:]
    assert_same(busy, quiet)
    assert [resume(p).step for p in (path, previous(path))] == [4, 3] and resume(path).model.config == MODEL


# What can happen to a disk.

def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["save_file", "fsync", "chmod", "replace"])
def test_a_full_disk_costs_neither_checkpoint_and_leaves_no_litter(where, path, monkeypatch):
    """Whatever fails first, what was there is there still (Lightning #688, again #19970; cs249r_book #2068)."""
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    monkeypatch.setattr(files if where == "save_file" else os, where, no_space)
    with pytest.raises(OSError, match="No space left"):
        save(trained(4), path)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before
    assert resumed(path) == (3, "")


@pytest.mark.skipif(sys.platform == "win32", reason="no limit to a file's size can be set")
def test_a_file_that_cannot_be_written_to_its_end_is_an_oserror_and_leaves_no_litter(path):
    """A real one: the system refuses to write more than 1,000 bytes.  (safetensors has an error of its own for that, which is no OSError.)"""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    state = trained(4)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(OSError, match=r"(?s)checkpoint.*could not be written"):
            save(state, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(path.parent) == ["checkpoint-previous.safetensors", "checkpoint.safetensors"] and resumed(path) == (3, "")


class Killed(BaseException):
    """What nobody catches."""


@pytest.mark.parametrize("last, done, step", [("whole", 0, 3), ("whole", 1, 3), ("whole", 2, 4), ("damaged", 0, 2), ("damaged", 1, 4), ("damaged", 2, 4)])
def test_a_kill_between_any_two_moves_leaves_a_whole_checkpoint(last, done, step, path, monkeypatch):
    """written → new, last → previous, new → last: killed after so many of them, a whole one is found; even where the last one had been damaged,
    and is about to become the previous one."""
    if last == "damaged":
        path.write_bytes(path.read_bytes()[:-1])
    moves, replace = [], os.replace

    def kill(*args):
        if len(moves) == done:
            raise Killed
        moves.append(replace(*args))

    monkeypatch.setattr(os, "replace", kill)
    with pytest.raises(Killed):
        save(trained(4), path)
    monkeypatch.undo()
    found, said = resumed(path)
    assert found == step and (f"step {step}" in said or not said)
    save(trained(5), path)                                      # and the run goes on as ever
    assert resumed(path) == (5, "") and names(path.parent) == ["checkpoint-previous.safetensors", "checkpoint.safetensors"]


def test_what_a_killed_process_was_writing_is_cleared_away(path):
    """howervoo/speechturn #15: killed while it writes, a process cannot tidy up; the next save does."""
    torn = path.with_name(".checkpoint-new.safetensors.12345")
    torn.write_bytes(b"half a checkpoint")
    save(trained(4), path)
    assert names(path.parent) == ["checkpoint-previous.safetensors", "checkpoint.safetensors"]


@pytest.mark.parametrize("tenth", range(10))
def test_a_cut_checkpoint_is_refused_and_the_previous_one_is_taken(tenth, path):
    """With a warning that names both files and the step; without a previous one, with one line that says what is wrong."""
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) * tenth // 10])
    step, said = resumed(path)
    assert step == 2 and all(word in said for word in (str(path), "cut short", str(previous(path)), "step 2"))
    previous(path).unlink()
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is no whole safetensors file .*cut short") as refused:
        resume(path, net=Line())
    assert "\n" not in str(refused.value)


def test_a_foreign_file_is_refused_and_a_missing_one_is_named(path, tmp_path):
    """Weights, somebody else's safetensors, a text, a folder: each is told apart from a checkpoint; the previous one is taken where there is one."""
    DDPM(MODEL).save(tmp_path / "weights.safetensors")
    save_file({"net.w": torch.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("404: not found")
    (tmp_path / "folder.safetensors").mkdir()
    for name, said in (("weights", "not checkpoint of ddpm_tutorial .*'weights'"), ("other", "not checkpoint .*nothing"), ("text", "no whole safetensors"),
                       ("folder", "there is no file"), ("nowhere", r"there is no file .*nowhere.*train")):
        with pytest.raises((ValueError, FileNotFoundError), match=said) as refused:
            resume(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(refused.value) and name in str(refused.value)
    path.write_bytes((tmp_path / "weights.safetensors").read_bytes())
    step, said = resumed(path)
    assert step == 2 and "not checkpoint" in said
    path.unlink()
    step, said = resumed(path)
    assert step == 2 and "there is no file" in said


def test_two_damaged_checkpoints_are_one_error_about_the_last(path):
    """Nothing is guessed."""
    for p in (path, previous(path)):
        p.write_bytes(p.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"/checkpoint\.safetensors is no whole" if os.sep == "/" else "is no whole"):
        resume(path, net=Line())


def test_nothing_is_ever_unpickled():
    """A checkpoint may come from anywhere: there is no torch.load and no pickle in what reads it."""
    for module in (checkpoint, files):
        with open(module.__file__, encoding="utf-8") as file:
            text = file.read()
        assert "torch.load" not in text and "pickle." not in text and "import pickle" not in text
