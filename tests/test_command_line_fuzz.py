"""Hundreds of command lines that nobody would write: each does what it says, or ends in one sentence and an exit status that is not 0."""

import itertools
import json
import random
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import ddpm_tutorial.__main__ as cli
from ddpm_tutorial import DDPM, DDPMConfig, TrainConfig, TrainState, UNetConfig, save, train
from ddpm_tutorial.evaluation import metrics

TINY = UNetConfig(base=4, mults=(1, 2), blocks=1, attention=(), num_classes=10, groups=2)
MODEL = DDPMConfig(image_size=8, channels=1, timesteps=4, schedule="cosine", num_classes=10, unet=TINY)

NUMBERS = ["0", "1", "2", "3", "-1", "1.5", "0.5", "1e300", "-1e300", "nan", "inf", "None", "", " ", "1_0", "0x10", "٣", str(2**63), str(2**64), "9" * 400]
PLACES = ["{tmp}/new", "{tmp}/new.png", "{tmp}/new.json", "{tmp}/new.safetensors", "{tmp}", "{tmp}/file", "{tmp}/file/below", "{tmp}/nowhere/x.png", "", ".",
          "..", "{tmp}/$x_{{", "{tmp}/a b.png", "{tmp}/" + "x" * 300, "/", "{tmp}/new.", "{tmp}/.png", "~nobody/x.png", "{tmp}/猫.png"]
DATA = ["digits", "{tmp}/photos", "{tmp}/one", "{tmp}/empty", "{tmp}/broken", "{tmp}/file", "", "digit", "Digits", "~nobody", ".", "{tmp}/photos/cats"]
WEIGHTS = ["{tmp}/run", "{tmp}/model.safetensors", "{tmp}/plain.safetensors", "{tmp}/run/checkpoint.safetensors", "{tmp}/file", "{tmp}", "{tmp}/empty", "",
           "nothing", "{tmp}/cut.safetensors", "{tmp}/photos", "{tmp}/broken_run"]
DEVICES = ["cpu", "cuda:7", "gpu", "", "CPU"]
WORDS = ["linear", "cosine", "eps", "v", "x0", "custom", "Cosine", "", "ddim", "ddpm", "dpm++", "float16", "float32", "None"]
STAGES = ["8:1", "4:1,8:1", "5:1", "8:0", ":", "8:1,", "2000:1", "8:1:1", "4:1,6:1"]

# What each command takes, and values for it.  Training is always short: what comes last counts.
OPTIONS = {
    "train": {"--data": DATA, "--data-dir": PLACES, "--size": NUMBERS, "--seconds": NUMBERS[:1] + NUMBERS[4:], "--stages": STAGES, "--out": PLACES,
              "--resume": WEIGHTS, "--schedule": WORDS, "--timesteps": NUMBERS, "--predict": WORDS, "--batch": NUMBERS, "--lr": NUMBERS, "--micro": NUMBERS,
              "--precision": WORDS, "--seed": NUMBERS, "--per-class": NUMBERS, "--device": DEVICES, "--tensorboard": None, "--nonsense": WORDS},
    "sample": {"--n": NUMBERS[:6] + NUMBERS[7:], "--y": NUMBERS + WORDS, "--sampler": WORDS, "--steps": NUMBERS, "--eta": NUMBERS, "--scale": NUMBERS,
               "--seed": NUMBERS, "--out": PLACES, "--separate": PLACES, "--device": DEVICES},
    "evaluate": {"--data": DATA, "--data-dir": PLACES, "--size": NUMBERS, "--per-class": NUMBERS, "--scales": NUMBERS, "--seed": NUMBERS, "--out": PLACES,
                 "--judges": NUMBERS, "--device": DEVICES},
    "classifier": {"--data": DATA, "--data-dir": PLACES, "--noisy": None, "--epochs": ["1", *NUMBERS[4:]], "--seed": NUMBERS, "--out": PLACES},
}
SHORT = {"train": {"--out": "{tmp}/new", "--steps": "1", "--batch": "2", "--timesteps": "2", "--per-class": "0"},
         "sample": {"--n": "2", "--steps": "1", "--out": "{tmp}/new.png"},
         "evaluate": {"--data": "digits", "--per-class": "1", "--scales": "1", "--out": "{tmp}/new.json"},
         "classifier": {"--epochs": "1", "--out": "{tmp}/new"}}


def lines(seed=0, pairs=20):
    """Every value of every option alone, and some pairs; with the weights that a command needs."""
    choose = random.Random(seed)
    for command, options in OPTIONS.items():
        alone = [{name: value} for name, values in options.items() for value in values or [None]]
        some = [choose.choice(alone) | choose.choice(alone) for _ in range(pairs)]
        first = [{"": weights} for weights in WEIGHTS] if command in ("sample", "evaluate") else []
        for changes in itertools.chain(first, alone, some):
            weights = [changes.get("", choose.choice(WEIGHTS[:3]))] if command in ("sample", "evaluate") else []
            given = SHORT[command] | {name: value for name, value in changes.items() if name}
            if "--resume" in given:
                given = {name: value for name, value in given.items() if name in changes or name == "--per-class"}
            if "--stages" in given or "--seconds" in given:
                given.pop("--steps", None)
            yield [command, *weights, *itertools.chain(*((name,) if value is None else (name, value) for name, value in given.items()))]


def images(folder, counts):
    for name, n in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / name / f"{i}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Good and bad weights, runs and data."""
    tmp = tmp_path_factory.mktemp("fuzz")
    DDPM(MODEL).save(tmp / "model.safetensors")
    DDPM(replace(MODEL, num_classes=None, unet=replace(TINY, num_classes=None))).save(tmp / "plain.safetensors")
    (tmp / "cut.safetensors").write_bytes((tmp / "model.safetensors").read_bytes()[:700])
    (tmp / "file").write_text("text")
    for folder in ("run", "empty", "broken_run", "broken/cats"):
        (tmp / folder).mkdir(parents=True)
    state = TrainState(DDPM(MODEL), TrainConfig(steps=1, batch=2))
    list(train(state, torch.zeros(4, 1, 8, 8), torch.arange(4)))            # a run that has taken no step is refused by sample and evaluate
    save(state, tmp / "run" / "checkpoint.safetensors")
    (tmp / "run" / "run.json").write_text(json.dumps({"data": "digits", "data_dir": None, "size": None, "stages": []}))
    (tmp / "broken_run" / "run.json").write_text('{"data": 3')
    (tmp / "broken" / "cats" / "x.png").write_text("no image")
    images(tmp / "photos", {"cats": 6, "dogs": 6})
    images(tmp / "one", {"cats": 6})
    return tmp


def whole(path):
    """A file that can be read to its end; nothing that somebody was still writing."""
    assert not re.search(r"^\.unfinished|tmp", path.name), f"{path.name} was left behind"
    if path.suffix in (".png", ".gif"):
        Image.open(path).load()
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            assert all(file.get_tensor(k).isfinite().all() or "loss" in k for k in file.keys())
    return True


@pytest.fixture
def quick(monkeypatch):
    """A network of a few hundred parameters, a classifier that has seen a few images once, no pictures of the run."""
    config, how = cli.RECIPES["digits"]
    monkeypatch.setitem(cli.RECIPES, "digits", (replace(config, unet=TINY), how))
    monkeypatch.setattr(cli, "recipe", lambda name, x, classes: (replace(
        MODEL, image_size=x.shape[-1], num_classes=len(classes), unet=replace(TINY, num_classes=len(classes))), TrainConfig(steps=1)))
    monkeypatch.setattr(cli, "pictures", lambda *args: {})
    train_classifier = metrics.train_classifier
    monkeypatch.setattr(metrics, "train_classifier", lambda x, y, epochs=1, **options: train_classifier(x[:200], y[:200], min(epochs, 1), **options))
    monkeypatch.setattr(metrics, "bootstrap", partial(metrics.bootstrap, n=2))


LINES = list(lines())[::3]


@pytest.mark.parametrize("part", range(4))
@pytest.mark.filterwarnings("ignore")
def test_a_command_line_does_what_it_says_or_ends_in_a_sentence(part, place, quick, monkeypatch, tmp_path, capsys):
    """No traceback, no status 0 for what was not done, no half of a file, and nothing that was there before is changed."""
    def kept():
        return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}

    before, there, faults, done = kept(), set(place.rglob("*")), [], 0
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for words in LINES[part::4]:
        words, code = [word.format(tmp=place) for word in words], 0
        try:
            cli.main(words)
        except SystemExit as stop:
            code = stop.code
        except BaseException as error:
            faults.append((words, repr(error)))
        told = code if isinstance(code, str) else capsys.readouterr().err
        if code and not re.fullmatch(r"ddpm_tutorial: [^\n]{8,}\n?", told.split("\r")[-1] if isinstance(code, int) else told):
            faults.append((words, told))
        if code is None or "should not have happened" in str(told):
            faults.append((words, told))
        done += code == 0
        for path in sorted({*place.rglob("*"), *tmp_path.rglob("*")} - there, reverse=True):         # what lies in a folder before the folder
            if path.is_dir():
                path.rmdir()
            elif whole(path):
                path.unlink()
        if (now := kept()) != before and "--resume" not in words:
            faults.append((words, f"changed {[path.name for path in before if before[path] != now.get(path)]}"))
        for path, content in before.items():
            path.write_bytes(content)
    assert not faults, "\n".join(f"{' '.join(words)}\n    {what}" for words, what in faults)
    assert 0.1 < done / len(LINES[part::4]) < 0.6, "some can be done, and some cannot; or else this test tests little"


def test_there_are_hundreds_of_them():
    assert len(LINES) > 250
