"""The command line, in this process; and what `import ddpm_tutorial` costs, in another."""

import contextlib
import io
import json
import platform
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from torch.optim.swa_utils import AveragedModel

import ddpm_tutorial.__main__ as cli
from ddpm_tutorial import DDPM, DDPMConfig, TrainConfig, TrainState, UNet, UNetConfig, data, plots, resume, save, terminal, train
from ddpm_tutorial.evaluation import metrics
from ddpm_tutorial.training import run as training_run
from ddpm_tutorial.training.devices import device
from ddpm_tutorial.training.run import alone_in
from ddpm_tutorial.weights import files

SMALL = UNetConfig(base=8, mults=(1, 2), blocks=1, attention=(), num_classes=10, groups=4)
CONFIG = DDPMConfig(image_size=8, channels=1, timesteps=20, schedule="cosine", num_classes=10, unet=SMALL)
TRAIN = ["train", "--steps", "3", "--batch", "8", "--timesteps", "20", "--per-class", "0"]
COMMANDS = ["train", "sample", "evaluate", "classifier", "export", "doctor"]


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    """The real commands with a network of a few thousand parameters; and the signal handler that they set is taken back."""
    config, how = cli.RECIPES["digits"]
    monkeypatch.setitem(cli.RECIPES, "digits", (replace(config, unet=SMALL), how))
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return DDPM(CONFIG).save(tmp_path_factory.mktemp("w") / "model.safetensors")


@pytest.fixture
def no_pictures(monkeypatch):
    """Drawing takes most of the time; one test looks at the pictures."""
    monkeypatch.setattr(cli, "pictures", lambda *args: {})


@pytest.fixture
def quick_measurement(monkeypatch):
    """A classifier that has seen the images once, and two resamples: what is measured is another file's business."""
    train_classifier = metrics.train_classifier
    monkeypatch.setattr(metrics, "train_classifier", lambda x, y, **options: train_classifier(x, y, **options | {"epochs": 1}))
    monkeypatch.setattr(metrics, "bootstrap", partial(metrics.bootstrap, n=2))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A model without labels."""
    return DDPM(replace(CONFIG, num_classes=None, unet=replace(SMALL, num_classes=None))).save(tmp_path_factory.mktemp("p") / "model.safetensors")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of eight images, 8×8."""
    folder_of_images(folder := tmp_path_factory.mktemp("photos"), {"cats": 8, "dogs": 8})
    return folder


def everything(folder):
    """Every file below a folder, byte for byte."""
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("words", [["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_explains_and_exits_with_0(words, capsys):
    """For the whole and for each command, with every option's default."""
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS) if words == ["--help"] else words[0] in text
    assert "SUPPRESS" not in text and "default: None" not in text


def test_train_writes_the_files_that_it_names(tmp_path, capsys):
    """Weights, samples, film strip, loss curve, figures and a checkpoint; `figures.json` holds numbers, the weights can be sampled."""
    cli.main([*TRAIN, "--out", str(tmp_path / "run")])
    named = re.findall(r"(\S+/run/\S+)", capsys.readouterr().out.replace("\\", "/"))
    written = contents(tmp_path / "run")
    assert {"model.safetensors", "samples.png", "film_strip.png", "loss.png", "figures.json", "checkpoint.safetensors"} <= written.keys()
    assert {path.rsplit("/", 1)[1] for path in named} >= {"model.safetensors", "samples.png", "film_strip.png", "loss.png"}
    assert all(written[name].startswith(b"\x89PNG") for name in written if name.endswith(".png"))
    assert all(isinstance(value, int | float) for value in json.loads(written["figures.json"]).values())
    assert DDPM.load(tmp_path / "run" / "model.safetensors").sample(1, 3, steps=2).shape == (1, 1, 8, 8)


def test_a_second_run_leaves_the_first_alone(tmp_path, no_pictures):
    """The same --out goes to -2: nothing that exists is overwritten."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(b"three hours of work")
    before = contents(tmp_path / "run")
    cli.main([*TRAIN, "--out", str(tmp_path / "run")])
    assert contents(tmp_path / "run") == before
    assert "model.safetensors" in contents(tmp_path / "run-2")


def interrupted(folder, steps=5, at=2):
    """A run of `steps` steps that was stopped after step `at`."""
    state = TrainState(DDPM(CONFIG), TrainConfig(steps=steps, batch=8))
    images, y, _ = data.load("digits")
    for progress in train(state, data.normalise(images), y):
        if progress.step == at:
            break
    save(state, folder / "checkpoint.safetensors")
    (folder / "run.json").write_text(json.dumps({"data": "digits", "data_dir": None, "size": None, "stages": []}))


def test_resume_goes_on_in_the_same_folder(tmp_path, no_pictures):
    """Three steps are left of five: they are done, and no second folder appears."""
    interrupted(tmp_path)
    cli.main(["train", "--resume", str(tmp_path), "--per-class", "0"])
    state = resume(tmp_path / "checkpoint.safetensors")
    assert state.step == 5 and len(state.losses) == 5 and "model.safetensors" in contents(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(number, tmp_path, monkeypatch):
    """The signal comes in the middle of a step; nothing is lost or torn: the run that goes on is the run that was never stopped."""
    monkeypatch.setattr(cli, "pictures", lambda *args: {})
    cli.main([*TRAIN, "--out", str(tmp_path / "whole")])

    update = AveragedModel.update_parameters

    def interrupted(self, net):
        if self.n_averaged == 1:                                # in the second step, after the optimizer and before the average
            signal.raise_signal(number)
        update(self, net)

    monkeypatch.setattr(AveragedModel, "update_parameters", interrupted)
    with pytest.raises(SystemExit, match=r"step 2.*--resume .*run"):
        cli.main([*TRAIN, "--out", str(tmp_path / "run")])
    assert resume(tmp_path / "run" / "checkpoint.safetensors").step == 2
    monkeypatch.setattr(AveragedModel, "update_parameters", update)
    cli.main(["train", "--resume", str(tmp_path / "run"), "--per-class", "0"])
    whole, run = (DDPM.load(tmp_path / name / "model.safetensors").state_dict() for name in ("whole", "run"))
    assert all(torch.equal(whole[k], run[k]) for k in whole)


def test_a_second_resume_of_a_run_in_stages_is_the_run_that_was_never_stopped(tmp_path, no_pictures, monkeypatch):
    """--stages 4:3,8:4, stopped in the first stage and in the second: --resume needs no other word; the model that is saved has the last size."""
    words = ["train", "--batch", "8", "--timesteps", "20", "--per-class", "0", "--stages", "4:3,8:4", "--out"]
    cli.main([*words, str(tmp_path / "whole")])
    update = AveragedModel.update_parameters

    def interrupted(self, net):
        update(self, net)
        if self.n_averaged in (2, 5):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(AveragedModel, "update_parameters", interrupted)
    for step, again in ((2, [*words, str(tmp_path / "run")]), (5, ["train", "--resume", str(tmp_path / "run"), "--per-class", "0"])):
        with pytest.raises(SystemExit, match=f"step {step}"):
            cli.main(again)
        assert resume(tmp_path / "run" / "checkpoint.safetensors").model.config.image_size == {2: 4, 5: 8}[step]
    cli.main(["train", "--resume", str(tmp_path / "run"), "--per-class", "0"])
    whole, run = (DDPM.load(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert whole.config == run.config and run.config.image_size == 8
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), run.state_dict().values()))


def test_a_second_process_is_told_so_before_anything_is_changed(tmp_path, no_pictures):
    """Not only while it trains: the folder is held from before run.json is written until the results are in it."""
    interrupted(tmp_path)
    before, said = contents(tmp_path), []

    def second():
        with pytest.raises(SystemExit, match="another process is training in") as stop:
            cli.main(["train", "--resume", str(tmp_path), "--per-class", "0"])
        said.append(stop.value.code)

    with alone_in(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(said) == 1 and contents(tmp_path) == before | {"log.jsonl": b""}


def test_pictures_are_drawn_in_the_folder_that_is_still_held(tmp_path, monkeypatch):
    """A second process could otherwise go on with the run while its results are being written."""
    held = []
    monkeypatch.setattr(cli, "pictures", lambda *args: held.append(Path(args[-1]).resolve() in training_run._held) or {})
    cli.main([*TRAIN, "--out", str(tmp_path / "run")])
    assert held == [True] and not training_run._held


def test_a_run_that_could_not_take_a_step_leaves_no_folder(tmp_path, monkeypatch):
    """There is nothing in it to go on with; the next try has its name."""
    def too_much(self, *args):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(UNet, "forward", too_much)
    with pytest.raises(SystemExit, match=r"out of memory with 1 images at a time.*smaller network"):
        cli.main([*TRAIN, "--out", str(tmp_path / "run")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["train"], ["train", "--resume", "{run}"], ["sample", "digits"], ["evaluate", "digits"]], ids=" ".join)
def test_a_device_that_is_not_there_is_a_sentence(words, tmp_path, monkeypatch):
    """Said before anything is made; one that is there is taken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    interrupted(tmp_path)
    before = everything(tmp_path)
    with pytest.raises(SystemExit, match=r"^ddpm_tutorial: PyTorch finds no device 'cuda' on this machine; choose .*cpu$"):
        cli.main([*(word.format(run=tmp_path) for word in words), "--device", "cuda"])
    assert everything(tmp_path) == before


def test_the_device_that_is_asked_for_is_taken(weights, tmp_path, monkeypatch):
    """Where there is a better one, too."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cli.main(["sample", str(weights), "--device", "cpu", "--n", "1", "--steps", "1", "--out", str(tmp_path / "x.png")])
    assert (tmp_path / "x.png").is_file() and device("cpu") == torch.device("cpu") and device() == torch.device("cuda")


def test_what_is_asked_for_is_what_is_trained(tmp_path, no_pictures):
    """Every option of train reaches the run, and stays with it."""
    cli.main([*TRAIN, "--micro", "3", "--lr", "0.001", "--precision", "float16", "--schedule", "linear", "--predict", "x0", "--seed", "4", "--size", "12",
              "--out", str(tmp_path / "run")])
    state = resume(tmp_path / "run" / "checkpoint.safetensors")
    how, model = state.config, state.model.config
    assert (how.steps, how.batch, how.micro, how.lr, how.precision, how.seed) == (3, 8, 3, 0.001, "float16", 4)
    assert (model.timesteps, model.schedule, model.predict, model.image_size) == (20, "linear", "x0", 12)


def test_a_model_without_labels_is_trained_and_measured(tmp_path, no_pictures, quick_measurement, monkeypatch, capsys):
    """As the paper's CIFAR-10 model is: nothing is asked for, so there is no agreement; the rest is measured, at the size that was trained last."""
    config, how = cli.RECIPES["digits"]
    monkeypatch.setitem(cli.RECIPES, "digits", (replace(config, num_classes=None, unet=replace(SMALL, num_classes=None)), how))
    cli.main(["train", "--stages", "4:1,10:1", "--batch", "8", "--timesteps", "5", "--per-class", "2", "--out", str(tmp_path / "run")])
    assert "scale 1" in capsys.readouterr().out
    figures = json.loads((tmp_path / "run" / "figures.json").read_text())
    assert figures["scale 1"]["frechet"] > 0 and "agreement" not in figures["scale 1"] and "scale 2" not in figures


def test_a_folder_of_images_is_trained_and_measured(tmp_path, no_pictures, quick_measurement, capsys):
    """Its classes are its sub-folders, and its judge is trained on it: no other data set's is taken, whatever the folder is called."""
    digits = data.load("digits")
    for k in (0, 1):
        (tmp_path / "digits" / str(k)).mkdir(parents=True)
        for i, image in enumerate(digits.images[digits.y == k][:40]):
            Image.fromarray(image[0].numpy()).save(tmp_path / "digits" / str(k) / f"{i:02}.png")
    cli.main(["train", "--data", str(tmp_path / "digits"), "--steps", "1", "--batch", "4", "--timesteps", "3", "--per-class", "3",
              "--out", str(tmp_path / "run")])
    assert "training the judge" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "figures.json").read_text())["scale 2"]["n"] == 6


def folder_of_images(folder, counts, size=(8, 8)):
    for name, n in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(np.random.default_rng(i).integers(0, 256, size, dtype=np.uint8)).save(folder / name / f"{i:02}.png")


def test_small_classes_are_measured_with_as_many_as_they_have(tmp_path, no_pictures, quick_measurement, capsys):
    """Nobody asked for fifty samples a class: where the smallest has fewer images, fewer are drawn."""
    folder_of_images(tmp_path / "photos", {"cats": 20, "dogs": 30})
    few = torch.bincount(data.load(str(tmp_path / "photos")).y).min().item()
    cli.main(["train", "--data", str(tmp_path / "photos"), "--steps", "1", "--batch", "4", "--timesteps", "3", "--out", str(tmp_path / "run")])
    assert few < 50 and json.loads((tmp_path / "run" / "figures.json").read_text())["scale 1"]["n"] == 2 * few


def test_one_class_is_trained_and_not_judged(tmp_path, no_pictures, capsys):
    """A classifier of one class learns nothing, so its features would be the random ones it began with."""
    folder_of_images(tmp_path / "photos", {"cats": 12})
    cli.main(["train", "--data", str(tmp_path / "photos"), "--steps", "1", "--batch", "4", "--timesteps", "3", "--out", str(tmp_path / "run")])
    assert "will not be measured: there is one class" in capsys.readouterr().out
    assert "scale 1" not in json.loads((tmp_path / "run" / "figures.json").read_text())
    with pytest.raises(SystemExit, match="one class"):
        cli.main(["evaluate", str(tmp_path / "run" / "model.safetensors"), "--data", str(tmp_path / "photos"), "--per-class", "2"])


def test_images_that_are_not_square_ask_for_a_size(tmp_path, no_pictures):
    folder_of_images(tmp_path / "photos", {"cats": 4, "dogs": 4}, size=(8, 12))
    with pytest.raises(SystemExit, match=r"8 × 12.*--size"):
        cli.main(["train", "--data", str(tmp_path / "photos"), "--steps", "1", "--out", str(tmp_path / "run")])


def test_a_short_chain_is_sampled_in_all_its_steps(weights, tmp_path):
    """Twenty steps are the default, and a chain of fewer has no twenty."""
    cli.main(["sample", str(weights), "--n", "2", "--out", str(tmp_path / "two.png")])
    assert (tmp_path / "two.png").is_file()


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_goes_on(tmp_path, no_pictures):
    """Both of the last two damaged: one line, and the folder stays as it is."""
    for at in (2, 3):
        interrupted(tmp_path, at=at)
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"cut short.*checkpoint-previous\.safetensors, step 2"):
        cli.main(["train", "--resume", str(tmp_path), "--per-class", "0"])
    assert resume(checkpoint).step == 5

    for path in tmp_path.glob("checkpoint*"):
        path.write_bytes(path.read_bytes()[:1000])
    before = contents(tmp_path)
    with pytest.raises(SystemExit, match=r"^ddpm_tutorial: [^\n]*cut short[^\n]*$"):
        cli.main(["train", "--resume", str(tmp_path), "--per-class", "0"])
    assert contents(tmp_path) == before


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    """And what the writer began is taken away."""
    def full(*args, **kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(SystemExit, match=r"^ddpm_tutorial: [^\n]*checkpoint[^\n]*No space left[^\n]*$"):
        cli.main([*TRAIN, "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists(), "the first checkpoint, of nothing yet, could not be written, and no step was taken"


@pytest.mark.parametrize("text", ["8", "8:", "8:500,", "8x500", "8:0", "0:500", "-8:500", "8:500:2", "8:500;16:200", "8:5.5", ""])
def test_stages_that_are_none_are_refused_in_one_line(text, capsys):
    """With an example of what they look like."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", f"--stages={text}"])
    assert stop.value.code == 2
    said = r"ddpm_tutorial: argument --stages: .* is no list of SIZE:STEPS, such as 8:500,16:1000,32:2000; see .*--help\n"
    assert re.fullmatch(said, capsys.readouterr().err)


def test_sample_writes_a_picture_and_never_over_another(weights, tmp_path, capsys):
    """samples.png, then samples-2.png, then samples-3.png; the path is what it prints."""
    out = tmp_path / "samples.png"
    for name in ("samples.png", "samples-2.png", "samples-3.png"):
        before = contents(tmp_path)
        cli.main(["sample", str(weights), "--n", "3", "--steps", "2", "--out", str(out)])
        assert capsys.readouterr().out.strip().endswith(name)
        assert contents(tmp_path)[name].startswith(b"\x89PNG")
        assert {k: v for k, v in contents(tmp_path).items() if k != name} == before


@pytest.mark.parametrize("options", [["--y", "3"], ["--sampler", "ddpm"], ["--sampler", "ddim", "--eta", "0.5"], ["--scale", "0"]], ids=" ".join)
def test_sample_takes_the_options_of_the_model(weights, tmp_path, options):
    """Class, sampler, noise and guidance."""
    cli.main(["sample", str(weights), "--n", "2", "--steps", "2", "--out", str(tmp_path / "s.png"), *options])
    assert (tmp_path / "s.png").exists()


def test_evaluate_measures_samples_beside_real_images(weights, capsys, quick_measurement):
    """Agreement, Fréchet distance and memorisation at each scale, and the floor that train images get."""
    cli.main(["evaluate", str(weights), "--data", "digits", "--per-class", "2", "--scales", "0", "3"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("real images", "above the floor", "| scale 0 |", "| scale 3 |", "agreement", "Fréchet", "memorisation"))
    assert "nan" not in out


def test_several_judges_are_asked_and_kept(weights, tmp_path, capsys, quick_measurement, monkeypatch):
    """One number by one judge may be that judge's taste: beside it stand the lowest and the highest; the second judge is trained once."""
    monkeypatch.chdir(tmp_path)
    for trained in (True, False):
        kept = tmp_path / "runs" / "judges" / "digits-8"
        before = contents(kept) if kept.exists() else {}
        cli.main(["evaluate", str(weights), "--data", "digits", "--per-class", "2", "--scales", "1", "--judges", "2"])
        assert "lowest … highest of 2 judges" in capsys.readouterr().out
        assert contents(kept).keys() == {"judge-1.safetensors"} and (contents(kept) != before) == trained


def test_doctor_describes_the_machine_and_tries_three_steps(capsys):
    """What a student pastes into a question."""
    cli.main(["doctor"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("Python", "torch", "device", "losses")) and len(re.findall(r"\d\.\d{3}", out)) >= 3


MISTAKES = [
    # Files.
    (["sample", "{tmp}/nothing.safetensors"], r"nothing\.safetensors"),
    (["sample", "{tmp}/text.safetensors"], r"text\.safetensors"),
    (["evaluate", "{tmp}/text.safetensors", "--data", "digits"], r"text\.safetensors"),
    (["sample", "{tmp}"], r"{tmp}"),
    (["train", "--resume", "{tmp}/nowhere"], "nowhere.*no run.json"),
    (["train", "--resume", "{tmp}"], r"no run\.json"),
    (["train", "--resume", "{tmp}/damaged"], r"damaged.run\.json is damaged"),
    (["evaluate", "{tmp}/damaged"], r"damaged.run\.json is damaged"),

    # Numbers.
    *[([*words, option, number], rf"{option}: '{re.escape(number)}' is no (whole )?number, [01] … ") for words, options in (
        (["train", "--out", "{tmp}/run"], ("--steps", "--timesteps", "--batch", "--micro", "--size", "--per-class", "--seconds", "--lr")),
        (["sample", "{weights}", "--out", "{tmp}/s.png"], ("--n", "--steps")), (["evaluate", "{weights}", "--data", "digits"], ("--per-class", "--judges")),
        (["classifier", "--out", "{tmp}/c"], ("--epochs",))) for option in options for number in ("-1", "1e300", "None")],
    *[([*words, "--seed", seed], "no whole number, 0 … 9,223,372,036,854,775,807") for seed in ("-1", str(2**64), "1.5")
      for words in (["train", "--out", "{tmp}/run"], ["sample", "{weights}"], ["evaluate", "digits"], ["classifier"])],
    *[(["sample", "{weights}", "--scale", scale], "no number, 0 … 1,000") for scale in ("1e300", "nan", "-2", "inf")],
    (["sample", "{weights}", "--n", "0", "--steps", "2"], "--n: '0' is no whole number, 1 … 1,000,000"),
    (["sample", "{weights}", "--n", "2", "--steps", "2", "--eta", "3"], "--eta: '3' is no number, 0 … 1"),
    (["sample", "{weights}", "--steps", "21"], "21.*20"),
    (["train", "--per-class", "200", "--out", "{tmp}/run"], "--per-class is 200.*smallest class has"),
    (["sample", "{weights}", "--n", "1000000"], r"100,000 rows.*--separate"),

    # Sizes.
    (["train", "--size", "9", "--out", "{tmp}/run"], "images have 9 pixels.*multiples of 2: give --size 8"),
    (["train", "--stages", "5:10,8:10", "--out", "{tmp}/run"], "images have 5 pixels.*multiples of 2: give --stages 4"),
    (["train", "--data", "{photos}", "--size", "33", "--out", "{tmp}/run"], "33 pixels.*--size 32"),

    # Words.
    (["train", "--data", "mnits"], "mnits.*digits"), (["train", "--data", ""], "unknown data set ''"),
    (["train", "--schedule", "cosinus", "--out", "{tmp}/run"], "cosinus.*cosine"),
    (["train", "--predict", "noise", "--out", "{tmp}/run"], "noise.*eps"),
    (["sample", "{weights}", "--y", "11", "--steps", "2"], r"--y is '11'; the classes are 0 \(number 0\), 1 \(number 1\)"),
    (["sample", "{weights}", "--y", "-1"], "--y is '-1'"), (["sample", "{weights}", "--y", ""], "--y is ''"),
    (["sample", "{weights}", "--y", "10"], "--y is '10'"),

    # Options that would be swallowed.
    (["train", "--resume", "{tmp}", "--lr", "0.1", "--steps", "9"], "leave out --steps, --lr"),
    (["train", "--resume", "{tmp}", "--seed", "3"], "leave out --seed"),
    (["train", "--stages", "4:3,8:4", "--steps", "3", "--out", "{tmp}/run"], "leave out --size, --steps and --seconds"),
    (["train", "--stages", "4:3,8:4", "--seconds", "3", "--out", "{tmp}/run"], "leave out --size, --steps and --seconds"),
    *[(["train", "--steps", "5", "--seconds", seconds, "--out", "{tmp}/run"], "--steps or --seconds, not both") for seconds in ("3", "0")],
    (["train", "--data-dir", "{tmp}", "--out", "{tmp}/run"], "--data-dir.*mnist.*digits is none: leave it out"),
    (["classifier", "--data-dir", "{tmp}", "--out", "{tmp}/c"], "--data-dir.*leave it out"),
    (["sample", "{plain}", "--scale", "1"], "no classes.*leave out --scale"), (["sample", "{plain}", "--y", "1"], "no classes.*leave out --y"),
    (["evaluate", "{plain}", "--data", "digits", "--scales", "1"], "no classes.*leave out --scales"),
    (["evaluate", "{weights}"], "give --data"),

    # Places.
    (["sample", "{weights}", "--out", "{tmp}"], "is a folder: name a file"),
    (["sample", "{weights}", "--out", "."], "is a folder: name a file"),
    (["sample", "{weights}", "--out", "{tmp}/nowhere/s.png"], "there is no folder .*nowhere"),
    (["sample", "{weights}", "--separate", "{tmp}/nowhere/s"], "there is no folder .*nowhere"),
    (["sample", "{weights}", "--out", "{tmp}/s.png", "--separate", "{tmp}/s.png"], "--out and --separate are both"),
    (["sample", "{weights}", "--out", "{tmp}/s.docx"], r"ends in .docx; it can be a .png"),
    (["evaluate", "{weights}", "--data", "digits", "--out", "{tmp}/nowhere/n.json"], "there is no folder .*nowhere"),
    (["evaluate", "{weights}", "--data", "digits", "--out", "{tmp}/n.csv"], "ends in .csv; it can be a .json"),
    (["classifier", "--out", "{tmp}/nowhere/c.safetensors"], "there is no folder .*nowhere"),
    (["export", "{weights}", "--onnx", "{tmp}/nowhere/m.onnx"], "there is no folder .*nowhere"),
    (["export", "{weights}", "--onnx", "{tmp}/m.pt"], "ends in .pt; it can be a .onnx"), (["export", "{weights}"], "required: --onnx"),
    (["train", "--out", "{tmp}/text.safetensors/run"], "text.safetensors"),
    (["train", "--out", "/"], "no name of a file or folder"),

    # Data.
    (["evaluate", "{weights}", "--data", "{photos}"], "10 classes.*2: cats, dogs.*--data"),
    (["evaluate", "digits", "--data", "digits", "--size", "16"], r"makes images \(1, 8, 8\).*digits.*--data"),
    (["train", "--tensorboard", "--out", "{tmp}/run"], "TensorBoard is not installed.*pip install"),
]


@pytest.mark.parametrize("words, said", MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_line_and_a_failure(words, said, weights, plain, photos, tmp_path, monkeypatch, capsys):
    """No traceback: a sentence on stderr, an exit status that is not 0, and nothing left behind or changed."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.safetensors").write_text("404: not found")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text("")
    before, places = everything(tmp_path), {"tmp": tmp_path, "weights": weights, "plain": plain, "photos": photos}
    with pytest.raises(SystemExit) as stop:
        cli.main([word.format(**places) for word in words])
    line = stop.value.code if isinstance(stop.value.code, str) else capsys.readouterr().err
    assert stop.value.code and "\n" not in line.strip() and line.startswith("ddpm_tutorial: ") and "should not have happened" not in line
    assert re.search(said.format(**{name: re.escape(str(place)) for name, place in places.items()}) if "{tmp}" in said else said, line), line
    assert everything(tmp_path) == before


def test_no_command_and_unknown_options_are_refused(capsys):
    """One sentence, what there is instead, and exit status 2."""
    for words, said in ([], "COMMAND"), (["dream"], "dream.*train.*sample"), (["train", "--stepz", "3"], "--stepz"):
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
        assert stop.value.code == 2 and re.fullmatch(f"ddpm_tutorial: .*{said}.*; see .*--help\n", capsys.readouterr().err)


# What labels mean, and what a run was begun with.

SHORT = ["--steps", "2", "--batch", "4", "--timesteps", "3", "--per-class", "0"]


@pytest.fixture
def trained(tmp_path, no_pictures, small_networks):
    """A run on three classes, and their folder."""
    folder_of_images(tmp_path / "photos", {"cats": 8, "dogs": 6, "owls": 7})
    cli.main(["train", "--data", str(tmp_path / "photos"), *SHORT, "--out", str(tmp_path / "run")])
    return tmp_path / "run", tmp_path / "photos"


def test_names_are_said_with_their_counts_and_kept(trained, capsys):
    """In run.json and in the weights: whoever opens them knows what label 2 is."""
    run, photos = trained
    settings, dataset = json.loads((run / "run.json").read_text()), data.load(photos)
    assert settings["classes"] == ["cats", "dogs", "owls"] and settings["images"] == 18 and settings["sha256"] == data.fingerprint(dataset)
    assert DDPM.load(run / "model.safetensors").config.classes == ("cats", "dogs", "owls")
    cli.main(["train", "--data", str(photos), *SHORT, "--out", str(run)])
    assert re.search("class 0: 7 images, cats\n *class 1: 5 images, dogs\n *class 2: 6 images, owls\n", capsys.readouterr().out)


def test_a_class_is_asked_for_by_its_name(trained, tmp_path, monkeypatch):
    """Or by its number; the pictures are the same."""
    asked, sample = [], DDPM.sample
    monkeypatch.setattr(DDPM, "sample", lambda self, n, y, *args, **options: asked.append(y) or sample(self, n, y, *args, **options))
    for y in ("owls", "2", "cats"):
        cli.main(["sample", str(trained[0]), "--n", "1", "--steps", "1", "--y", y, "--out", str(tmp_path / "x.png")])
    assert asked == [2, 2, 0] and (tmp_path / "x.png").read_bytes() == (tmp_path / "x-2.png").read_bytes()
    with pytest.raises(SystemExit, match=r"--y is 'owl'; the classes are cats \(number 0\), dogs \(number 1\), owls \(number 2\)"):
        cli.main(["sample", str(trained[0]), "--y", "owl"])


def test_data_that_changed_since_are_refused_with_both_lists(trained):
    """A class folder added before --resume would shift the labels after it; one pixel, and it is another run."""
    run, photos = trained
    before = everything(run)
    for command in (["train", "--resume", str(run)], ["evaluate", str(run), "--per-class", "2"]):
        folder_of_images(photos, {"bats": 6})
        with pytest.raises(SystemExit, match=r"18 images, SHA-256 .*, of cats, dogs, owls; the data are now 23 images, SHA-256 .*, of bats, cats, dogs, owls"):
            cli.main(command)
        shutil.rmtree(photos / "bats")
    image = Image.open(photos / "owls" / "00.png").copy()
    image.putpixel((0, 0), 255 - image.getpixel((0, 0)))
    image.save(photos / "owls" / "00.png")
    with pytest.raises(SystemExit, match=r"18 images.*the data are now 18 images.*--data says where"):
        cli.main(["train", "--resume", str(run)])
    assert everything(run) == before


def test_test_images_that_changed_are_refused_too(trained):
    """Figures of other test images would stand beside the old ones as if they could be compared."""
    run, photos = trained
    tests = data.load(photos, "test")
    settings = json.loads((run / "run.json").read_text())
    assert settings["test_images"] == 3 and settings["test_sha256"] == data.fingerprint(tests)
    image = Image.open(photos / "cats" / "04.png").copy()       # the fifth of each class is for testing
    image.putpixel((0, 0), 255 - image.getpixel((0, 0)))
    image.save(photos / "cats" / "04.png")
    assert data.fingerprint(data.load(photos)) == settings["sha256"]
    for command in (["train", "--resume", str(run)], ["evaluate", str(run), "--per-class", "2"]):
        with pytest.raises(SystemExit, match=r"18 images, SHA-256 (\w+), and 3 for testing, .*the data are now 18 images, SHA-256 \1, and 3 for testing"):
            cli.main(command)


def test_a_run_that_dies_before_its_first_checkpoint_can_go_on(tmp_path, no_pictures, monkeypatch):
    """Seconds after it began: there is a checkpoint of nothing, and the run that goes on is the run that never died.  Until then there is nothing to draw."""
    class Killed(BaseException):
        """Nobody catches it, as nobody can catch SIGKILL."""

    def kill(self, net):
        if self.n_averaged == 1:
            raise Killed
        update(self, net)

    cli.main([*TRAIN, "--out", str(tmp_path / "whole")])
    update = AveragedModel.update_parameters
    monkeypatch.setattr(AveragedModel, "update_parameters", kill)
    with pytest.raises(Killed):
        cli.main([*TRAIN, "--out", str(tmp_path / "run")])
    monkeypatch.setattr(AveragedModel, "update_parameters", update)
    for command in ("sample", "evaluate"):
        with pytest.raises(SystemExit, match="has not taken a step yet"):
            cli.main([command, str(tmp_path / "run")])
    cli.main(["train", "--resume", str(tmp_path / "run"), "--per-class", "0"])
    whole, run = (DDPM.load(tmp_path / name / "model.safetensors").state_dict() for name in ("whole", "run"))
    assert all(torch.equal(whole[k], run[k]) for k in whole)


def test_resume_finds_data_that_were_moved(trained, tmp_path, no_pictures):
    """And remembers where; other data under that name are refused."""
    run, photos = trained
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(SystemExit, match=r"unknown data set.*photos"):
        cli.main(["train", "--resume", str(run), "--per-class", "0"])
    with pytest.raises(SystemExit, match=r"run was begun with 18 images.*the data are now 1257 images"):
        cli.main(["train", "--resume", str(run), "--data", "digits", "--per-class", "0"])
    cli.main(["train", "--resume", str(run), "--data", str(tmp_path / "elsewhere"), "--per-class", "0"])
    assert json.loads((run / "run.json").read_text())["data"] == str(tmp_path / "elsewhere")


def test_a_run_goes_on_on_another_machine(tmp_path, no_pictures):
    """In another precision and with fewer images at a time; the step counts on."""
    interrupted(tmp_path, steps=6, at=2)
    for precision in ("float16", "bfloat16", "float32"):
        with contextlib.suppress(SystemExit):
            cli.main(["train", "--resume", str(tmp_path), "--per-class", "0", "--precision", precision, "--micro", "4"])
        config = resume(tmp_path / "checkpoint.safetensors").config
        assert (config.precision, config.micro, config.batch) == (precision, 4, 8)
    assert resume(tmp_path / "checkpoint.safetensors").step == 6


@pytest.mark.parametrize("name", ["", "model.safetensors", "checkpoint.safetensors"])
def test_a_run_is_sampled_and_measured_by_its_folder_or_any_of_its_files(name, trained, tmp_path, quick_measurement, capsys):
    """And measured on the data that it was begun with, which nobody has to name."""
    run, _ = trained
    cli.main(["sample", str(run / name), "--n", "2", "--steps", "1", "--out", str(tmp_path / "x.png")])
    with pytest.raises(SystemExit, match="there are 3 images for testing and 6 samples; 4 of each"):
        cli.main(["evaluate", str(run / name), "--per-class", "2"])
    assert (tmp_path / "x.png").is_file()


def test_of_a_run_that_has_not_ended_the_checkpoint_is_sampled(tmp_path):
    interrupted(tmp_path)
    cli.main(["sample", str(tmp_path), "--n", "2", "--steps", "1", "--out", str(tmp_path / "x.png")])
    assert (tmp_path / "x.png").is_file()


# Nothing of the user's is overwritten, and nothing is lost.

def test_a_picture_without_a_suffix_is_a_png_and_leaves_another_one_alone(weights, tmp_path, capsys):
    """matplotlib adds the suffix without asking: --out pic would write over pic.png."""
    (tmp_path / "pic.png").write_bytes(b"mine")
    cli.main(["sample", str(weights), "--n", "2", "--steps", "1", "--out", str(tmp_path / "pic")])
    assert (tmp_path / "pic.png").read_bytes() == b"mine" and (tmp_path / "pic-2.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.strip() == str(tmp_path / "pic-2.png")


def test_separate_images_are_those_of_the_picture(weights, plain, tmp_path, capsys):
    """As many files, exact to the grey value, in a new folder; a picture only if one is asked for."""
    for k, options in enumerate(([], ["--out", str(tmp_path / "x.png")])):
        cli.main(["sample", str(weights), "--n", "3", "--steps", "2", "--separate", str(tmp_path / "single"), *options])
        folder = tmp_path / ("single", "single-2")[k]
        assert sorted(contents(folder)) == ["000000.png", "000001.png", "000002.png"] and (tmp_path / "x.png").exists() == bool(options)
    seen = torch.stack([torch.tensor(np.array(Image.open(folder / f"{i:06}.png"))) for i in range(3)])
    assert torch.equal(seen[:, None], data.denormalise(DDPM.load(weights).sample(3, torch.arange(3), steps=2, scale=2.0)))


def test_many_images_are_drawn_in_parts(weights, tmp_path, monkeypatch):
    """Image number i is the same however many there are."""
    parts, sample = [], DDPM.sample
    monkeypatch.setattr(DDPM, "sample", lambda self, n, *args, **options: parts.append((n, options["first"])) or sample(self, n, *args, **options))
    cli.main(["sample", str(weights), "--n", "260", "--steps", "1", "--separate", str(tmp_path / "single")])
    assert parts == [(250, 0), (10, 250)] and len(contents(tmp_path / "single")) == 260


@pytest.mark.parametrize("broken", ["pictures", "measured"])
def test_what_fails_after_training_keeps_nothing_from_being_written(broken, tmp_path, monkeypatch, capsys, no_pictures):
    """Weights, figures and the list of results are there; the failure is a sentence and an exit status."""
    def fails(*args, **options):
        raise RuntimeError("the font is damaged")

    monkeypatch.setattr(cli, "measured", lambda *args, **options: {"scale 1": {"n": 10}})
    monkeypatch.setattr(cli, broken, fails)
    with pytest.raises(SystemExit, match=f"the {'pictures' if broken == 'pictures' else 'samples'} could not be .*the font is damaged"):
        cli.main([*TRAIN[:-1], "1", "--out", str(tmp_path / "run")])
    out, figures = capsys.readouterr().out, json.loads((tmp_path / "run" / "figures.json").read_text())
    assert "weights: " in out and "figures: " in out and DDPM.load(tmp_path / "run" / "model.safetensors")
    assert figures["steps"] == 3 and ("scale 1" in figures) == (broken == "pictures")


@pytest.mark.parametrize("counts, size, said", [
    ({"cats": 12, "dogs": 4}, 8, "1 images for testing"), ({"cats": 4, "dogs": 4}, 8, "no class of 5 images"),
    ({"cats": 30, "dogs": 30}, 1, "2 pixels at least"),
], ids=["one test image", "none", "one pixel"])
def test_what_cannot_be_measured_is_known_before_the_training(counts, size, said, tmp_path, no_pictures, capsys):
    """Said before the first step; asked for, refused before the first step; and trained nevertheless."""
    folder_of_images(tmp_path / "photos", counts, (size, size))
    words = ["train", "--data", str(tmp_path / "photos"), "--steps", "1", "--batch", "4", "--timesteps", "3", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match=said):
        cli.main([*words, "--per-class", "2"])
    assert not (tmp_path / "run").exists()
    cli.main(words)
    out = capsys.readouterr().out
    assert out.index("will not be measured: ") < out.index("trained steps") and said in out and (tmp_path / "run" / "model.safetensors").is_file()


def test_images_of_any_size_that_can_be_halved_are_trained(tmp_path, no_pictures):
    """30 pixels make two levels and not three."""
    folder_of_images(tmp_path / "photos", {"cats": 5, "dogs": 5}, (30, 30))
    cli.main(["train", "--data", str(tmp_path / "photos"), *SHORT, "--out", str(tmp_path / "run")])
    assert len(DDPM.load(tmp_path / "run" / "model.safetensors").config.unet.mults) == 2


# Any terminal.

NAMES = ["5$ or 10$", "$x_{$", "it's", "a b", "猫"]


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_of_any_kind_are_drawn_and_quoted(tmp_path, monkeypatch):
    """No formula, no word that the shell would split: the line that goes on can be copied."""
    folder_of_images(tmp_path / "it's $mine$", dict.fromkeys(NAMES, 3))
    out, shown = tmp_path / "a $run$'s folder", {}
    monkeypatch.setattr(cli, "pictures", lambda model, losses, name, classes, folder: shown.update(name=name, classes=classes) or {})
    words = ["train", "--data", str(tmp_path / "it's $mine$"), "--steps", "2", "--batch", "2", "--timesteps", "3", "--per-class", "0", "--out", str(out)]
    update = AveragedModel.update_parameters
    monkeypatch.setattr(AveragedModel, "update_parameters", lambda self, net: update(self, net) or signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    monkeypatch.setattr(AveragedModel, "update_parameters", update)
    line = stop.value.code.split("go on with:  python -m ddpm_tutorial ")[1]
    cli.main([*shlex.split(line), "--per-class", "0"])
    assert shown["name"] == r"it's \$mine\$" and shown["classes"] == tuple(plots.plain(name) for name in sorted(NAMES))
    cli.main(["sample", str(out), "--n", "5", "--steps", "1", "--out", str(tmp_path / "x.png")])
    cli.main(["sample", str(out), "--n", "5", "--steps", "1", "--y", "5$ or 10$", "--out", str(tmp_path / "x.png")])
    assert (tmp_path / "x-2.png").is_file()


class Gone(io.StringIO):
    """A pipe whose other end was closed."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("stream", [None, Gone(), io.TextIOWrapper(io.BytesIO(), encoding="ascii")], ids=["none", "a closed pipe", "an old code page"])
def test_a_terminal_can_fail_no_run(stream, tmp_path, monkeypatch, no_pictures):
    """| head, 2>&-, a terminal without Greek letters: the work is done and saved."""
    folder_of_images(tmp_path / "photos", {"猫": 5, "собака": 5})
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("ddpm_tutorial.terminal.os.dup2", lambda *args: None)                     # a StringIO has no number, and pytest needs its own
    cli.main(["train", "--data", str(tmp_path / "photos"), *SHORT, "--out", str(tmp_path / "run")])
    assert {"model.safetensors", "checkpoint.safetensors", "figures.json"} <= contents(tmp_path / "run").keys()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_full_disk_behind_stdout_is_no_error_of_python(weights, tmp_path):
    """Neither while printing nor when the interpreter empties its buffers at its end."""
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "ddpm_tutorial", "sample", str(weights), "--n", "1", "--steps", "1", "--out", str(tmp_path / "x.png")],
                              stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "x.png").is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_drawing_ends_in_a_sentence_and_leaves_nothing(number, weights, tmp_path, monkeypatch):
    """A time limit's SIGTERM as well as Ctrl-C; the handlers are the caller's afterwards."""
    before, ctrl_c = signal.getsignal(signal.SIGTERM), signal.signal(signal.SIGINT, signal.default_int_handler)     # ignored, where a shell started us with &
    monkeypatch.setattr("ddpm_tutorial.plots.grid", lambda *args: signal.raise_signal(number))
    try:
        with pytest.raises(SystemExit, match="ddpm_tutorial: stopped"):
            cli.main(["sample", str(weights), "--n", "1", "--steps", "1", "--out", str(tmp_path / "x.png")])
    finally:
        signal.signal(signal.SIGINT, ctrl_c)
    assert list(tmp_path.iterdir()) == [] and signal.getsignal(signal.SIGTERM) == before


def test_a_warning_is_a_sentence(tmp_path, capsys, no_pictures, monkeypatch):
    """Not a line of the package's source; after the command, warnings are what they were."""
    folder_of_images(tmp_path / "photos", {"cats": 5, "dogs": 5})
    (tmp_path / "photos" / "notes.txt").write_text("")
    form = warnings.formatwarning
    monkeypatch.setattr(warnings, "showwarning", lambda *shown: sys.stderr.write(warnings.formatwarning(*shown[:4])))       # Python's own, and not pytest's
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        cli.main(["train", "--data", str(tmp_path / "photos"), *SHORT, "--out", str(tmp_path / "run")])
    assert re.search(r"(?m)^ddpm_tutorial: .*photos: left out, because not PNG.*: 1 \.txt \(notes\.txt\)$", capsys.readouterr().err)
    assert warnings.formatwarning is form


def test_memory_that_is_not_there_is_a_sentence():
    """The CPU's allocator has no error of its own: a RuntimeError with its source line."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert terminal.sentence(caught.value).startswith("out of memory: fewer images") and "\n" not in terminal.sentence(caught.value)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or torch.cuda.is_available(), reason="Linux without a GPU")
def test_memory_is_refused_and_not_granted_until_something_is_killed():
    """The commands run with a limit of what the machine has, in a process of its own."""
    code = """if True:
        import os, torch
        from ddpm_tutorial.terminal import tune_memory
        tune_memory()
        more_than_half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 5 // 8
        kept = torch.empty(more_than_half, dtype=torch.uint8)
        torch.empty(more_than_half, dtype=torch.uint8)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "can't allocate memory" in done.stderr


@pytest.mark.parametrize("version, limited, inactive, free", [
    (2, {"job": 3000}, 0, 2000), (2, {".": 3000, "job": "max"}, 0, 2000), (2, {".": 9000, "job": 3000}, 500, 2500), (2, {"job": "max"}, 0, 8 * 1024),
    (1, {"job": 3000}, 0, 2000), (1, {"job": 2**63 - 4096}, 0, 8 * 1024), (2, {"job": 500}, 0, 0), (2, {}, 0, 8 * 1024)])
def test_the_memory_of_a_container_is_what_the_container_may_take(version, limited, inactive, free, tmp_path):
    """A machine of 64 GB says 60 are free to each of the containers on it; the kernel kills the one that believes it."""
    maximum, current, top = (("memory.limit_in_bytes", "memory.usage_in_bytes", "memory"), ("memory.max", "memory.current", ""))[version - 1]
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:  64 kB\nMemAvailable:     8 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text("4:cpu,memory:/job\n" if version == 1 else "0::/job\n")
    for group, limit in limited.items():
        folder = tmp_path / "sys" / "fs" / "cgroup" / top / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in ((maximum, limit), (current, 1000), ("memory.stat", f"active_file 7\n{'total_' * (version == 1)}inactive_file {inactive}")):
            (folder / name).write_text(f"{text}\n")
    assert terminal.free_memory(tmp_path) == free


def test_memory_that_nobody_tells_is_not_limited(tmp_path):
    assert terminal.free_memory(tmp_path) is None


def test_what_nobody_has_foreseen_is_a_sentence_too(monkeypatch):
    """With the place, so that it can be reported."""
    monkeypatch.setattr(cli, "device", lambda: {}["nothing"])
    with pytest.raises(SystemExit, match=r"^ddpm_tutorial: this should not have .*report it: KeyError in test_command_line\.py, line \d+: 'nothing'$"):
        cli.main(["doctor"])


def test_the_import_is_light():
    """`import ddpm_tutorial` loads neither torchvision, scikit-learn nor matplotlib: they cost a second or two, and are imported where they are used."""
    code = "import sys, ddpm_tutorial; print(sorted({'torchvision', 'sklearn', 'matplotlib', 'diffusers'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert (out.returncode, out.stdout.strip(), out.stderr) == (0, "[]", "")


@pytest.mark.filterwarnings("ignore:'ddpm_tutorial.__main__' found in sys.modules")
def test_the_module_can_be_run(monkeypatch, capsys):
    """python -m ddpm_tutorial."""
    monkeypatch.setattr(sys, "argv", ["ddpm_tutorial", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("ddpm_tutorial", run_name="__main__")
    assert stop.value.code == 0 and "python -m ddpm_tutorial" in capsys.readouterr().out
