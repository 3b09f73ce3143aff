"""The command line, in this process; and what `import ddpm_tutorial` costs, in another."""

import json
import re
import runpy
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from torch.optim.swa_utils import AveragedModel

import ddpm_tutorial.__main__ as cli
from ddpm_tutorial import DDPM, DDPMConfig, TrainConfig, TrainState, UNetConfig, data, resume, save, train
from ddpm_tutorial.evaluation import metrics
from ddpm_tutorial.weights import files

SMALL = UNetConfig(base=8, mults=(1, 2), blocks=1, attention=(), num_classes=10, groups=4)
CONFIG = DDPMConfig(image_size=8, channels=1, timesteps=20, schedule="cosine", num_classes=10, unet=SMALL)
TRAIN = ["train", "--steps", "3", "--batch", "8", "--timesteps", "20", "--per-class", "0"]
COMMANDS = ["train", "sample", "evaluate", "doctor"]


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
    assert "not measured: there is one class" in capsys.readouterr().out
    assert "scale 1" not in json.loads((tmp_path / "run" / "figures.json").read_text())
    with pytest.raises(SystemExit, match="one class"):
        cli.main(["evaluate", str(tmp_path / "run" / "model.safetensors"), "--data", str(tmp_path / "photos"), "--per-class", "2"])


def test_images_that_are_not_square_ask_for_a_size(tmp_path, no_pictures):
    folder_of_images(tmp_path / "photos", {"cats": 4, "dogs": 4}, size=(8, 12))
    with pytest.raises(SystemExit, match=r"8 × 12.*--size"):
        cli.main(["train", "--data", str(tmp_path / "photos"), "--steps", "1", "--out", str(tmp_path / "run")])


def test_a_short_chain_is_sampled_in_all_its_steps(weights, tmp_path):
    """Fifty steps are the default, and T = 20 has no fifty."""
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
    assert contents(tmp_path / "run").keys() == {"run.json", "log.jsonl"}


@pytest.mark.parametrize("text", ["8", "8:", "8:500,", "8x500", "8:0", "0:500", "-8:500", "8:500:2", "8:500;16:200", "8:5.5", ""])
def test_stages_that_are_none_are_refused_in_one_line(text, capsys):
    """With an example of what they look like."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", f"--stages={text}"])
    assert stop.value.code == 2
    assert re.search(r"--stages: .* is no list of SIZE:STEPS, such as 8:500,16:1000,32:2000$", capsys.readouterr().err.strip())


def test_sample_writes_a_picture_and_never_over_another(weights, tmp_path, capsys):
    """samples.png, then samples-2.png, then samples-3.png; the path is what it prints."""
    out = tmp_path / "samples.png"
    for name in ("samples.png", "samples-2.png", "samples-3.png"):
        before = contents(tmp_path)
        cli.main(["sample", str(weights), "--n", "3", "--steps", "2", "--out", str(out)])
        assert capsys.readouterr().out.strip().endswith(name)
        assert contents(tmp_path)[name].startswith(b"\x89PNG")
        assert {k: v for k, v in contents(tmp_path).items() if k != name} == before


@pytest.mark.parametrize("options", [["--y", "3"], ["--sampler", "ddpm"], ["--eta", "0.5"], ["--scale", "0"]], ids=" ".join)
def test_sample_takes_the_options_of_the_model(weights, tmp_path, options):
    """Class, sampler, noise and guidance."""
    cli.main(["sample", str(weights), "--n", "2", "--steps", "2", "--out", str(tmp_path / "s.png"), *options])
    assert (tmp_path / "s.png").exists()


def test_evaluate_measures_samples_beside_real_images(weights, capsys, quick_measurement):
    """Agreement, Fréchet distance and memorisation at each scale, and the floor that train images get."""
    cli.main(["evaluate", str(weights), "--per-class", "2", "--scales", "0", "3"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("real images", "above the floor", "| scale 0 |", "| scale 3 |", "agreement", "Fréchet", "memorisation"))
    assert "nan" not in out


def test_doctor_describes_the_machine_and_tries_three_steps(capsys):
    """What a student pastes into a question."""
    cli.main(["doctor"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("Python", "torch", "device", "losses")) and len(re.findall(r"\d\.\d{3}", out)) >= 3


@pytest.mark.parametrize("words, said", [
    (["sample", "{tmp}/nothing.safetensors"], r"nothing\.safetensors"),
    (["sample", "{tmp}/text.safetensors"], r"text\.safetensors"),
    (["evaluate", "{tmp}/text.safetensors"], r"text\.safetensors"),
    (["sample", "{tmp}/checkpoint.safetensors"], "not weights"),
    (["sample", "{weights}", "--y", "11", "--steps", "2"], "11"),
    (["sample", "{weights}", "--steps", "21"], "21.*20"),
    (["sample", "{weights}", "--n", "0", "--steps", "2"], "n is 0"),
    (["sample", "{weights}", "--n", "2", "--steps", "2", "--eta", "3"], "eta is 3"),
    (["train", "--resume", "{tmp}/nowhere"], "nowhere"),
    (["train", "--resume", "{tmp}", "--lr", "0.1", "--steps", "9"], "leave out --steps, --lr"),
    (["train", "--stages", "4:3,8:4", "--steps", "3", "--out", "{tmp}/run"], "leave out --size, --steps and --seconds"),
    (["train", "--stages", "4:3,8:4", "--seconds", "3", "--out", "{tmp}/run"], "leave out --size, --steps and --seconds"),
    (["train", "--steps", "5", "--seconds", "3", "--out", "{tmp}/run"], "--steps or --seconds, not both"),
    (["train", "--resume", "{tmp}", "--seed", "3"], "leave out --seed"),
    (["evaluate", "mnist"], r"makes images \(1, 28, 28\).*digits.*--data"),
    (["train", "--data", "mnits"], "mnits.*digits"),
    (["train", "--schedule", "cosinus", "--out", "{tmp}/run"], "cosinus.*cosine"),
    (["train", "--predict", "noise", "--out", "{tmp}/run"], "noise.*eps"),
    (["train", "--steps", "0", "--out", "{tmp}/run"], "steps"),
    (["train", "--timesteps", "0", "--out", "{tmp}/run"], "T is 0"),
    (["train", "--batch", "0", "--out", "{tmp}/run"], "batch is 0"),
    (["train", "--micro", "0", "--out", "{tmp}/run"], "micro is 0"),
    (["train", "--size", "0", "--out", "{tmp}/run"], "size is 0"),
    (["train", "--size", "9", "--out", "{tmp}/run"], "image_size is 9.*multiple of 2"),
    (["train", "--stages", "5:10,8:10", "--out", "{tmp}/run"], "5, 8 pixels.*multiples of 2"),
    (["train", "--per-class", "200", "--out", "{tmp}/run"], "200"),
    (["train", "--tensorboard", "--out", "{tmp}/run"], "TensorBoard is not installed.*pip install"),
    (["train", "--resume", "{tmp}"], r"run\.json"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_mistake_is_one_line_and_a_failure(words, said, weights, tmp_path, monkeypatch):
    """No traceback: a sentence on stderr, an exit status that is not 0, and no folder left behind."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    save(TrainState(DDPM(CONFIG), TrainConfig(steps=1)), tmp_path / "checkpoint.safetensors")
    (tmp_path / "text.safetensors").write_text("404: not found")
    with pytest.raises(SystemExit) as stop:
        cli.main([word.format(tmp=tmp_path, weights=weights) for word in words])
    assert isinstance(stop.value.code, str) and "\n" not in stop.value.code.strip() and stop.value.code.startswith("ddpm_tutorial: ")
    assert re.search(said, stop.value.code)
    assert not (tmp_path / "run").exists()


def test_no_command_and_unknown_options_are_refused():
    """argparse's own answer: usage, and exit status 2."""
    for words in ([], ["dream"], ["train", "--stepz", "3"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
        assert stop.value.code == 2


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
