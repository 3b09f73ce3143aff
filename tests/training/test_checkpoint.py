"""A run on disk: it goes on as if it had never stopped, and nothing that can happen to a disk costs more than the last few seconds."""

import errno
import json
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from tiny import IMAGES, LABELS, MODEL, RUN, UNLABELLED, Line, assert_same, fresh, fresh_line
from ddpm_tutorial import DDPM, TrainState, cosine, resume, save, train
from ddpm_tutorial.training import checkpoint
from ddpm_tutorial.training.checkpoint import previous
from ddpm_tutorial.weights import files


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
    torn = path.with_name(".unfinished-12345-checkpoint-new.safetensors")
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


# A checkpoint is checked whole.

def forged(path, change):
    """The file with something else in it, and a checksum that is right: what is in it has to be looked at."""
    tensors, header = files.read(path, "checkpoint")
    header = change(tensors, header) or header
    files.write(path, tensors, "checkpoint", header)


def put(name, value):
    return lambda tensors, header: tensors.update({name: value(tensors[name])})


def without(name):
    return lambda tensors, header: tensors.__delitem__(name)


def head(**values):
    return lambda tensors, header: header.update(values)


def config(**values):
    return lambda tensors, header: header["model"].update(values)


FORGED = {
    "all moments of a weight are missing": (lambda tensors, header: [tensors.pop(f"optimizer.w.{k}") for k in ("step", "exp_avg", "exp_avg_sq")] and None,
                                            "moments of w are missing"),
    "one moment is missing": (without("optimizer.w.exp_avg_sq"), r"moments of w .*exp_avg \(\)"),
    "a moment too many": (lambda tensors, header: tensors.update({"optimizer.w.max": torch.tensor(1.0)}), "moments of w .*max"),
    "a moment of nobody": (lambda tensors, header: tensors.update({"optimizer.b.step": torch.tensor(1.0)}), "moments of b"),
    "a moment of another shape": (put("optimizer.w.exp_avg", lambda v: torch.zeros(3)), r"moments of w .*\(3,\)"),
    "a moment of another type": (put("optimizer.w.exp_avg", torch.Tensor.double), r"moments of w .*float64"),
    "a moment that is not finite": (put("optimizer.w.exp_avg", lambda v: v * torch.inf), "not finite"),
    "a negative second moment": (put("optimizer.w.exp_avg_sq", lambda v: -v - 1), "negative square"),
    "a moment after 2.5 steps": (put("optimizer.w.step", lambda v: v - 0.5), "step 2.5 of 3"),
    "a moment of a later step": (put("optimizer.w.step", lambda v: v + 1), "step 4.* of 3"),
    "a weight that is not finite": (put("net.w", lambda v: v * torch.nan), "not finite: w"),
    "a weight of another shape": (put("net.w", lambda v: v[None]), r"w has shape \(1,\), not \(\)"),
    "a weight of another type": (put("net.w", torch.Tensor.double), "w is torch.float64, not torch.float32"),
    "no weights": (without("net.w"), "without w"),
    "no average": (without("ema.module.w"), "without module.w"),
    "an average that is not finite": (put("ema.module.w", lambda v: v * torch.nan), "averaged weights .*not finite"),
    "an average of -1 weights": (put("ema.n_averaged", lambda v: -v), "average is one of -3"),
    "no losses": (without("losses"), "losses"),
    "more losses than steps": (put("losses", lambda v: torch.cat([v, v])), "losses are .* at step 3"),
    "a loss that is not finite": (put("losses", lambda v: v * torch.nan), "losses .*not finite"),
    "eleven tenths": (put("loss_by_time", lambda v: torch.zeros(11)), r"loss_by_time is .*\(11,\)"),
    "a tensor that nobody knows": (lambda tensors, header: tensors.update(secret=torch.zeros(3)), "holds secret"),
    "step 2.5": (head(step=2.5), "step is 2.5; it must be an integer"),
    "step -1": (head(step=-1), "step is -1"),
    "step '3'": (head(step="3"), "step is '3'"),
    "no step": (lambda tensors, header: {k: v for k, v in header.items() if k != "step"}, "damaged"),
    "an empty header": (lambda tensors, header: header.clear(), "damaged"),
    "a key of the future": (head(moon=1), "newer version.*moon"),
    "a format of the future": (head(format=3), "newer version.*format 3"),
    "a setting of the future": (config(moon=1), "newer version.*moon|not know.*moon"),
    "a setting that cannot be": (config(timesteps="many"), "many"),
    "a training setting of the future": (lambda tensors, header: header["train"].update(moon=1), "not know.*TrainConfig: moon"),
    "half a scaler": (head(scaler={"scale": 2.0}), "its scaler is"),
    "a scale that is not finite": (head(scaler=torch.amp.GradScaler("cpu").state_dict() | {"scale": float("inf")}), "its scaler is"),
    "an image that cannot be": (config(image_size=-4), "image_size is -4"),
    "a model that is no model": (head(model=None), "DDPMConfig is None"),
}


@pytest.mark.parametrize("change, words", FORGED.values(), ids=FORGED)
def test_whatever_is_wrong_with_the_newest_checkpoint_the_previous_one_is_taken(change, words, path):
    """Each of these was loaded, or ended in a KeyError or a crash; without a previous one it is one sentence with the file's name."""
    forged(path, change)
    step, said = resumed(path)
    assert step == 2 and str(previous(path)) in said
    previous(path).unlink()
    with pytest.raises(ValueError, match=f"(?s){words}") as refused:
        resume(path, net=Line())
    assert str(path) in str(refused.value)


def test_every_flipped_bit_is_noticed(path):
    """In weights, moments, names, numbers of the header or its padding: the checksum is over all that the file says.

    (One in 23, which is every place in a byte; all of them take a minute, and were noticed.)
    """
    whole = path.read_bytes()
    for i in range(0, 8 * len(whole), 23):
        flipped = bytearray(whole)
        flipped[i // 8] ^= 1 << i % 8
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="checkpoint"):
            files.read(path, "checkpoint")


def test_a_network_that_was_brought_is_left_alone_by_a_checkpoint_that_is_refused(path):
    """Everything is looked at before anything is changed."""
    previous(path).unlink()
    forged(path, put("optimizer.w.exp_avg_sq", lambda v: -v - 1))
    net = Line()
    with pytest.raises(ValueError, match="negative"):
        resume(path, net=net)
    assert net.w == 1.0 and net.calls == 0


def test_a_small_file_cannot_ask_for_a_large_network(tmp_path, monkeypatch):
    """Shapes are compared where they take no memory: 476 bytes once took 1.7 GiB, a billion blocks would take for ever."""
    path, built = save(fresh(replace(RUN, steps=1)), tmp_path / "checkpoint.safetensors"), []
    monkeypatch.setattr(checkpoint, "DDPM", lambda *args: built.append(args))
    for change in ({"base": 4096}, {"base": 2**40}, {"blocks": 10**9}):
        forged(path, lambda tensors, header, change=change: header["model"]["unet"].update(change))
        with pytest.raises(ValueError, match=r"checkpoint\.safetensors"):
            resume(path)
    assert not built


# Files of version 0.1.

def test_a_checkpoint_of_version_0_1_goes_on():
    """The file beside this test was written by that version, after 3 steps: no checksum, moments by index."""
    state, whole = resume(Path(__file__).with_name("version-0.1.safetensors"), net=Line()), trained(12)
    assert state.step == 3
    list(train(state, IMAGES))
    assert_same(state, whole, tolerance=1e-5)


def as_before(path):
    """Rewrite a checkpoint as version 0.1 wrote it."""
    with safe_open(path, "pt") as file:
        header, tensors = json.loads(file.metadata()["header"]), {k: file.get_tensor(k).clone() for k in file.keys()}
    del header["format"]
    names = list(dict(fresh().model.net.named_parameters()))
    for key in [k for k in tensors if k.startswith("optimizer.")]:
        name, moment = key.removeprefix("optimizer.").rsplit(".", 1)
        tensors[f"optimizer.{names.index(name)}.{moment}"] = tensors.pop(key)
    save_file(tensors, path, metadata={"ddpm_tutorial": "checkpoint", "header": json.dumps(header)})
    return tensors, header


def test_moments_by_index_are_the_same_moments(tmp_path):
    """And a moment of another shape is refused there as well: the fused AdamW would write past its end."""
    state = fresh()
    list(train(state, IMAGES, LABELS, until=3))
    path = save(state, tmp_path / "checkpoint.safetensors")
    tensors, header = as_before(path)
    assert_same(resume(path), state)
    tensors["optimizer.0.exp_avg"], tensors["optimizer.1.exp_avg"] = tensors["optimizer.1.exp_avg"], tensors["optimizer.0.exp_avg"]
    save_file(tensors, path, metadata={"ddpm_tutorial": "checkpoint", "header": json.dumps(header)})
    with pytest.raises(ValueError, match=r"does not fit.*moments of"):
        resume(path)


# Networks of one's own.

class Two(nn.Module):
    """Two weights of one shape, in an order to be chosen; `shared`: they are one."""

    def __init__(self, order="ab", shared=False):
        super().__init__()
        for name in order:
            setattr(self, name, nn.Parameter(torch.tensor(1.0 if name == "a" else 0.5)))
        if shared:
            self.b = self.a

    def forward(self, x_t, t):
        return self.a * x_t + self.b * x_t.abs()


def trained_two(steps, **options):
    state = TrainState(DDPM(UNLABELLED, Two(**options)), RUN)
    list(train(state, IMAGES, until=steps))
    return state


def test_moments_go_with_the_name_and_not_with_the_order(tmp_path):
    """The same network, its layers registered in another order: by index, each weight would get the other's moments, silently where shapes agree."""
    path = save(trained_two(5), tmp_path / "checkpoint.safetensors")
    again, whole = resume(path, net=Two("ba")), trained_two(12)
    list(train(again, IMAGES))
    assert again.model.net.a == whole.model.net.a and again.model.net.b == whole.model.net.b


def test_shared_weights_are_stored_once(tmp_path):
    """safetensors refuses them: after an hour of training, that was the end of it."""
    path = save(trained_two(5, shared=True), tmp_path / "checkpoint.safetensors")
    with safe_open(path, "pt") as file:
        assert len({"net.a", "net.b"} & set(file.keys())) == 1
    again, whole = resume(path, net=Two(shared=True)), trained_two(12, shared=True)
    list(train(again, IMAGES))
    assert again.model.net.a is again.model.net.b and again.model.net.a == whole.model.net.a


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager"), lambda net: nn.DataParallel(nn.DataParallel(net))],
                         ids=["DataParallel", "compile", "twice"])
def test_a_wrapped_network_is_saved_as_what_it_is(wrap, tmp_path):
    """Without `module.` and `_orig_mod.` before each name: it goes on in the plain network, and the other way round."""
    state = TrainState(DDPM(UNLABELLED, wrap(Line())), RUN)
    list(train(state, IMAGES, until=5))
    path = save(state, tmp_path / "checkpoint.safetensors")
    assert json.loads(safe_open(path, "pt").metadata()["header"])["net"] == "Line"
    for net in (Line(), wrap(Line())):
        again = resume(path, net=net)
        list(train(again, IMAGES))
        assert torch.equal(files.unwrapped(again.model.net).w, trained(12).model.net.w)


# Elsewhere, and otherwise.

def test_precision_may_change_on_another_machine(tmp_path):
    """Into float16, which needs a scaler that was not there, and out of it; the rest of the run may not."""
    for old, new in (("float32", "float16"), ("float16", "bfloat16"), ("float16", "float16")):
        state = trained(3, replace(RUN, precision=old))
        again = resume(save(state, tmp_path / "checkpoint.safetensors"), net=Line(), precision=new, compile=False)
        assert again.config == replace(state.config, precision=new) and again.scaler.is_enabled() == (new == "float16")
        assert len(list(train(again, IMAGES))) == 9
    with pytest.raises(TypeError, match="seed cannot be changed"):
        resume(tmp_path / "checkpoint.safetensors", net=Line(), seed=1)


def test_a_chain_of_another_length_is_another_run(path):
    """t = 8 of 16 is half-way, t = 8 of 1,000 is hardly any noise: trained on, the network would unlearn the one and sample by the other."""
    state = resume(path, net=Line())
    state.model.schedule = cosine(1000)
    with pytest.raises(ValueError, match=r"began with 16 timesteps.*now has 1000"):
        train(state, IMAGES)


def test_nothing_is_ever_unpickled():
    """A checkpoint may come from anywhere: there is no torch.load and no pickle in what reads it."""
    for module in (checkpoint, files):
        with open(module.__file__, encoding="utf-8") as file:
            text = file.read()
        assert "torch.load" not in text and "pickle." not in text and "import pickle" not in text
