"""A run in a folder: whatever stops it, what was done is kept."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tiny import LABELS, MODEL, PIXELS, RUN, UNLABELLED, Line, assert_same, fresh, fresh_line
from ddpm_tutorial import DDPM, TrainState, data, resume, save, train
from ddpm_tutorial.terminal import Steady
from ddpm_tutorial.training import run
from ddpm_tutorial.training import Progress

STAGES = [(4, 3), (8, 4)]
SEVEN = replace(RUN, steps=7)


@pytest.fixture
def whole(tmp_path):
    """Three steps at 4×4 and four at 8×8, never stopped."""
    state = fresh(SEVEN)
    (tmp_path / "whole").mkdir()
    run.run(state, PIXELS, LABELS, tmp_path / "whole", STAGES)
    return state


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def stop_at(state, steps):
    """Ask the run to stop in the middle of the step after `steps`."""
    def forward(net, args):
        if state.step == steps - 1:
            signal.raise_signal(signal.SIGINT)

    return state.model.net.register_forward_pre_hook(forward)


# Killed.  The same file is the process that is killed: PYTHONPATH=tests python tests/training/test_run.py train FOLDER PRECISION.

ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))}     # tiny.py
KILLED = replace(RUN, steps=24, batch=4, micro=3, flip=True, times="logit-normal")
GROWING = [(4, 10), (8, 14)]


def killable(precision):
    return fresh(replace(KILLED, precision=precision), dropout=0.3)


def train_and_say_so(folder, precision):
    """Go on with the run in the folder, or begin it; save after every step, and print the step before."""
    def saving(state, path):
        print(state.step, flush=True)
        save(state, path)

    torch.set_num_threads(1)
    checkpoint = folder / "checkpoint.safetensors"
    state = resume(checkpoint) if any(folder.glob("checkpoint*")) else killable(precision)
    run.save, run.time = saving, SimpleNamespace(perf_counter=lambda: 100.0 * state.step)       # by this clock, every step is due for a checkpoint
    run.run(state, PIXELS, LABELS, folder, GROWING)


def killed(folder, precision, at, after):
    """Start it in a process of its own, wait until it saves step `at`, and kill it `after` so many seconds."""
    command = [sys.executable, "-W", "ignore", __file__, "train", str(folder), precision]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        for line in process.stdout:
            if int(line) >= at:
                break
        time.sleep(after)
        process.kill()
        return process.stderr.read()


def assert_survived(folder, precision, at, uninterrupted):
    state = resume(folder / "checkpoint.safetensors")
    assert at - 1 <= state.step <= 24
    run.run(state, PIXELS, LABELS, folder, GROWING)
    assert_same(state, uninterrupted)
    assert {path.name for path in folder.iterdir()} == {"checkpoint.safetensors", "checkpoint-previous.safetensors", "log.jsonl"}


@pytest.mark.filterwarnings("ignore:.*Going on from the checkpoint beside it")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_that_is_killed_goes_on_as_if_nothing_had_happened(precision, folder, tmp_path):
    """SIGKILL at a random moment, most of which are inside a save: weights, average, optimizer and losses are bit for bit those of the run that was
    never killed, through stages, micro-batches, flips and dropout."""
    uninterrupted, chance = killable(precision), random.Random()
    (tmp_path / "whole").mkdir()
    run.run(uninterrupted, PIXELS, LABELS, tmp_path / "whole", GROWING)
    at = chance.randint(2, 20)
    assert not killed(folder, precision, at, chance.uniform(0, 0.03)).count("Error")
    assert_survived(folder, precision, at, uninterrupted)


def kill_many(times=20):
    """PYTHONPATH=tests python tests/training/test_run.py kill: the same, many times over, and now and then twice in one run."""
    from tempfile import TemporaryDirectory

    torch.set_num_threads(1)
    for precision in ("float32", "bfloat16"):
        uninterrupted = killable(precision)
        with TemporaryDirectory() as whole:
            run.run(uninterrupted, PIXELS, LABELS, Path(whole), GROWING)
        for seed in range(times // 2):
            chance = random.Random(seed)
            with TemporaryDirectory() as folder:
                at = sorted(chance.sample(range(2, 24), 1 + seed % 2))
                for step in at:
                    killed(Path(folder), precision, step, chance.uniform(0, 0.05))
                found = sorted(path.name for path in Path(folder).iterdir())
                assert_survived(Path(folder), precision, at[-1], uninterrupted)
                print(f"{precision}, killed at {' and '.join(map(str, at))}: the same; it had left {', '.join(found)}", flush=True)


# Asked to stop.

@pytest.mark.parametrize("at", [1, 3, 4, 6])
def test_a_run_that_was_stopped_in_any_stage_goes_on_where_it_was(at, whole, folder):
    """Bit for bit; and what was saved is a model of the size that it was being trained at."""
    state = fresh(SEVEN)
    stop_at(state, at)
    run.run(state, PIXELS, LABELS, folder, STAGES)
    again = resume(folder / "checkpoint.safetensors")
    assert state.stop and again.step == state.step == at
    if at != 3:                                                 # at 3, one stage is done and the other not begun
        assert again.model.config.image_size == (4 if at < 3 else 8)
    run.run(again, PIXELS, LABELS, folder, STAGES)
    assert again.model.config == whole.model.config and again.model.config.image_size == 8
    assert_same(again, whole)


def test_stages_train_the_same_weights_at_each_size(whole):
    """Three steps on the images at 4×4, then four at 8×8, by hand."""
    state = fresh(SEVEN)
    for size, until in ((4, 3), (8, 7)):
        state.model.config = replace(MODEL, image_size=size)
        list(train(state, data.normalise(data.resize(PIXELS, size)), LABELS, until=until))
    assert_same(whole, state)


def test_a_run_that_is_done_stays_as_it_is(whole, tmp_path):
    """Resumed at its end, it takes no step and keeps its size."""
    again = resume(tmp_path / "whole" / "checkpoint.safetensors")
    run.run(again, PIXELS, LABELS, tmp_path / "whole", STAGES)
    assert_same(again, whole)
    assert again.model.config.image_size == 8 and resume(tmp_path / "whole" / "checkpoint.safetensors").step == 7


def test_a_signal_while_it_saves_does_not_tear_the_last_checkpoint(folder, monkeypatch):
    """An impatient second Ctrl-C, or torchrun's SIGTERM after it; and afterwards the signals mean what they meant before."""
    def impatient(state, path):
        for number in both if state.step else ():
            signal.raise_signal(number)
        save(state, path)

    both, came = (signal.SIGINT, signal.SIGTERM), []
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in both}
    try:
        monkeypatch.setattr(run, "save", impatient)
        state = fresh_line()
        stop_at(state, 2)
        run.run(state, data.resize(PIXELS, 4), None, folder)
        assert resume(folder / "checkpoint.safetensors", net=Line()).step == 2 and not came
        for number in both:
            signal.raise_signal(number)
        assert came == list(both)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_an_error_leaves_the_signals_and_the_last_checkpoint_alone(folder, monkeypatch):
    """A loss that is not finite at step 3: what is on disk is of step 2 or before, and Ctrl-C works again."""
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0)
    with pytest.raises(FloatingPointError, match="step 3"):
        run.run(fresh_line(breaks_at=3), data.resize(PIXELS, 4), None, folder)
    assert resume(folder / "checkpoint.safetensors", net=Line()).step <= 3 and signal.getsignal(signal.SIGINT) == before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="terminals do not hang up here")
@pytest.mark.parametrize("heard", [True, False], ids=["a terminal is closed", "nohup"])
def test_a_closed_terminal_is_a_request_to_stop_unless_it_was_to_be_outlived(heard, folder):
    """SIGHUP saves, as SIGTERM does; under nohup, which has it ignored, the run goes on to its end."""
    def forward(net, args):
        if state.step == 2:
            signal.raise_signal(signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL if heard else signal.SIG_IGN)
    try:
        state = fresh_line()
        state.model.net.register_forward_pre_hook(forward)
        run.run(state, data.resize(PIXELS, 4), None, folder)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert resume(folder / "checkpoint.safetensors", net=Line()).step == state.step == (3 if heard else 12)


def test_a_run_works_in_a_thread(folder):
    """Signals come to the main thread only, and may be set up there only; in another, state.stop is what stops a run."""
    state, whole = fresh_line(), fresh_line()
    (folder / "whole").mkdir()
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=run.run, args=(state, data.resize(PIXELS, 4), None, folder))
    thread.start()
    thread.join()
    run.run(whole, data.resize(PIXELS, 4), None, folder / "whole")
    assert_same(resume(folder / "checkpoint.safetensors", net=Line()), whole)
    assert signal.getsignal(signal.SIGINT) == before


# A terminal that is gone.

def closed_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    return open(writing, "w")


def closed_file():
    file = open(os.devnull, "w")
    file.close()
    return file


TERMINALS = {"a pipe that nobody reads": closed_pipe, "a closed file": closed_file, "none at all": lambda: None}
if Path("/dev/full").exists():
    TERMINALS["a full disk"] = lambda: open("/dev/full", "w")


@pytest.mark.parametrize("terminal", TERMINALS.values(), ids=TERMINALS)
def test_a_terminal_that_is_gone_costs_nothing(terminal, folder, monkeypatch):
    """`| tee` killed by the same Ctrl-C, 2>&-, a log on a full disk: a bar that could not be drawn once cost the last checkpoint."""
    stream = terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    state = fresh_line()
    run.run(state, data.resize(PIXELS, 4), None, folder)
    monkeypatch.undo()
    assert resume(folder / "checkpoint.safetensors", net=Line()).step == 12


def test_a_letter_that_the_terminal_does_not_have_is_a_question_mark(tmp_path):
    """Code pages lose no run."""
    with open(tmp_path / "said", "w", encoding="cp437") as file:
        print("5 pictures of 書 and ε", file=Steady(file), flush=True)
    assert (tmp_path / "said").read_text(encoding="cp437") == "5 pictures of ? and ε\n"


# One process in a folder.

def test_a_second_process_in_the_same_folder_is_told_so_at_once(folder):
    """Instead of both writing one checkpoint; a process that is killed holds it no longer, and leaves no file that says it does."""
    code = ("import sys, time; from ddpm_tutorial.training.run import alone_in\n"
            f"with alone_in({str(folder)!r}):\n"
            "    print('here', flush=True); time.sleep(600)\n")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as other:
        try:
            assert other.stdout.readline() == "here\n"
            state = fresh_line()
            with pytest.raises(OSError, match=r"another process is training in .*run: wait.*another folder"):
                run.run(state, data.resize(PIXELS, 4), None, folder)
            assert state.step == 0
        finally:
            other.kill()
    run.run(state, data.resize(PIXELS, 4), None, folder)
    assert state.step == 12 and {path.name for path in folder.iterdir()} == {"checkpoint.safetensors", "checkpoint-previous.safetensors", "log.jsonl"}


def test_a_folder_may_be_held_for_longer_than_the_run(folder):
    """The command line holds it until the pictures are drawn: the same thread may ask again, another one may not."""
    said = []

    def other():
        try:
            with run.alone_in(folder):
                pass
        except OSError as error:
            said.append(error)

    with run.alone_in(folder):
        run.run(fresh_line(), data.resize(PIXELS, 4), None, folder)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(said) == 1
    other()
    assert len(said) == 1


def test_a_full_disk_is_noticed_before_the_first_step(folder, monkeypatch):
    """With what there is and what is needed; room for one more checkpoint is enough where the others are there already."""
    once = sum(value.nbytes for value in fresh().model.net.state_dict().values())
    monkeypatch.setattr(run.shutil, "disk_usage", lambda where: SimpleNamespace(free=11 * once))
    state = fresh()
    with pytest.raises(OSError, match=r"the disk of .*run has .* MB left.*need .* MB.*make room"):
        run.run(state, PIXELS, LABELS, folder)
    assert state.step == 0
    for name in ("checkpoint.safetensors", "checkpoint-previous.safetensors"):
        (folder / name).write_bytes(bytes(4 * once))
    run.check_room(state, folder)


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(folder, clock, monkeypatch):
    """Hours of work are in memory still, and somebody may make room; the last one has to be written, or it is an error."""
    def saving(state, path):
        clock.saved.append(state.step)
        if state.step in (21, 70):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "save", saving)
    with pytest.warns(UserWarning, match=r"No space left.*checkpoint of step 21 is not there"):
        run.run(fresh_line(config=replace(RUN, steps=60)), data.resize(PIXELS, 4), None, folder)
    assert clock.saved == [0, 21, 42, 60]
    with pytest.raises(OSError, match="No space"):
        run.run(fresh_line(config=replace(RUN, steps=70)), data.resize(PIXELS, 4), None, folder)


def test_what_killed_processes_left_is_cleared_away(folder):
    """Checkpoints, weights and tables that were being written: as large as the whole, and nobody would find them, since their names begin with a dot."""
    (folder / ".unfinished-123-checkpoint-new.safetensors").mkdir()
    (folder / ".unfinished-123-checkpoint-new.safetensors" / ".tmp4Rf").write_bytes(bytes(1000))
    for name in ("run.json", "samples.png"):
        (folder / f".unfinished-123-{name}").write_text("{")
    (folder / ".keep").write_text("mine")
    run.run(fresh_line(), data.resize(PIXELS, 4), None, folder)
    assert {path.name for path in folder.iterdir()} == {"checkpoint.safetensors", "checkpoint-previous.safetensors", "log.jsonl", ".keep"}


# Checkpoints and log, by a clock of our own.

@pytest.fixture
def clock(monkeypatch):
    """A step takes a second, a checkpoint clock.save of them."""
    clock = SimpleNamespace(now=0.0, save=0.0, saved=[])

    def steps(state, images, y, until, transform):
        while state.step < state.config.steps:
            clock.now += 1
            state.step += 1
            state.losses.append(float(state.step))
            yield Progress(state.step, state.config.steps, state.losses[-1], 1e-3, 0.5)

    def saving(state, path):
        clock.now += clock.save
        clock.saved.append(state.step)

    monkeypatch.setattr(run, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(run, "train", steps)
    monkeypatch.setattr(run, "save", saving)
    return clock


def test_checkpoints_take_at_most_a_fiftieth_of_the_time(clock, folder):
    """Every 20 seconds where writing is quick; where it takes 3 seconds, only every 150, and one at the end."""
    run.run(fresh_line(config=replace(RUN, steps=100)), data.resize(PIXELS, 4), None, folder)
    assert clock.saved == [0, 21, 42, 63, 84, 100]
    clock.now, clock.save, clock.saved = 0.0, 3.0, []
    seconds = run.run(fresh_line(config=replace(RUN, steps=2000)), data.resize(PIXELS, 4), None, folder)
    assert len(clock.saved) > 10 and 3.0 * (len(clock.saved) - 2) <= seconds / 50 + 3.0


def test_the_log_is_one_json_line_per_interval(clock, folder):
    """Every 50 steps and at the end: the mean loss since the line before, learning rate, gradient norm, speed, and the loss at each tenth of t."""
    state = fresh_line(config=replace(RUN, steps=120))
    state.loss_by_time[3] = 0.25
    run.run(state, data.resize(PIXELS, 4), None, folder)
    assert lines(folder) == [
        {"step": step, "loss": loss, "lr": 1e-3, "grad_norm": 0.5, "images_per_second": 4.0, "seconds": seconds,
         "loss_by_time": [None, None, None, 0.25] + 6 * [None]} for step, loss, seconds in ((50, 25.5, 50.0), (100, 75.5, 100.0), (120, 95.5, 120.0))]


def test_the_log_goes_on_after_a_resume(folder, monkeypatch):
    """The same file, the next step; and every line is JSON to everyone, whatever float16 could not hold."""
    monkeypatch.setattr(run, "LOG_STEPS", 2)
    state = fresh(replace(SEVEN, precision="float16"))
    hook = stop_at(state, 3)
    state.model.net.conv_in.weight.register_hook(lambda grad: grad * float("inf") if state.step == 1 else grad)
    run.run(state, data.resize(PIXELS, 4), LABELS, folder)
    hook.remove()
    run.run(resume(folder / "checkpoint.safetensors"), data.resize(PIXELS, 4), LABELS, folder)
    assert [line["step"] for line in lines(folder)] == [2, 4, 6, 7]
    assert lines(folder)[0]["grad_norm"] is None and "Infinity" not in (folder / "log.jsonl").read_text() and lines(folder)[1]["grad_norm"] > 0


def test_the_log_has_each_step_once_whatever_was_killed(folder, monkeypatch):
    """Lines that came after the last checkpoint are done again, and the half line that a kill left is taken out; nothing else is."""
    monkeypatch.setattr(run, "LOG_STEPS", 2)
    state = fresh_line()
    list(train(state, data.normalise(data.resize(PIXELS, 4)), until=5))
    before = [json.dumps({"step": step, "loss": loss}) for step, loss in ((2, 0.5), (4, 0.4), (6, 0.3), (8, 0.2))]
    for found in ("\n".join(before) + '\n{"step": 1', "\n".join([*before, *before]) + "\n", "\n".join([*before[:2], "no JSON", "[]"]) + "\n"):
        (folder / "log.jsonl").write_text(found)
        run._repaired(folder / "log.jsonl", 5)
        assert (folder / "log.jsonl").read_text() == "\n".join(before[:2]) + "\n"
    run.run(state, data.resize(PIXELS, 4), None, folder)
    assert [line["step"] for line in lines(folder)] == [2, 4, 6, 8, 10, 12] and lines(folder)[1] == {"step": 4, "loss": 0.4}


def test_a_log_that_cannot_be_written_costs_nothing_but_the_log(folder, monkeypatch):
    """It is said, and training goes on."""
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "print", full, raising=False)
    with pytest.warns(UserWarning, match=r"log\.jsonl could not be written .*No space.*training goes on"):
        run.run(fresh_line(), data.resize(PIXELS, 4), None, folder)
    assert resume(folder / "checkpoint.safetensors", net=Line()).step == 12


def test_tensorboard_gets_the_same_numbers(clock, folder, monkeypatch):
    """Where it is installed and asked for."""
    class Writer:
        def __init__(self, where):
            self.where, self.scalars, self.closed = where, [], False
            boards.append(self)

        def add_scalar(self, *args):
            self.scalars.append(args)

        def close(self):
            self.closed = True

    boards = []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    run.run(fresh_line(config=replace(RUN, steps=50)), data.resize(PIXELS, 4), None, folder, tensorboard=True)
    board, = boards
    assert board.where == folder and board.closed
    assert sorted(board.scalars) == [("grad_norm", 0.5, 50), ("images_per_second", 4.0, 50), ("loss", 25.5, 50), ("lr", 1e-3, 50), ("seconds", 50.0, 50)]


def test_tensorboard_that_is_not_installed_is_one_sentence(folder, monkeypatch):
    """What to install, and that the log has the numbers anyway."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"TensorBoard is not installed.*pip install tensorboard.*log\.jsonl"):
        run.run(fresh_line(), data.resize(PIXELS, 4), None, folder, tensorboard=True)


def test_the_progress_bar_counts_what_was_done_before(folder, capsys):
    """A resumed run begins at its step, of all steps."""
    state = TrainState(DDPM(UNLABELLED, Line()), RUN)
    list(train(state, data.normalise(data.resize(PIXELS, 4)), until=5))
    run.run(state, data.resize(PIXELS, 4), None, folder)
    bar = capsys.readouterr().err
    assert "5/12" in bar and "12/12" in bar and "loss" in bar and "images/s" in bar


if __name__ == "__main__":
    train_and_say_so(Path(sys.argv[2]), sys.argv[3]) if sys.argv[1] == "train" else kill_many()
