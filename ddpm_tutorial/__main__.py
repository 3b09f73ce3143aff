"""The command line:  python -m ddpm_tutorial train | sample | evaluate | classifier | export | doctor."""

import argparse
import json
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from . import data
from .checks import PREDICTIONS, SAMPLERS
from .ddpm import DDPM
from .evaluation import judging, metrics
from .evaluation.report import beside_usual, measured, pictures
from .forward import q_sample
from .schedules import SCHEDULES, cosine
from .terminal import Parser, between, new_file, sentence, steady, tune_memory, unused, writable, write_json, written
from .training.checkpoint import resume
from .training.devices import device, processes
from .training.loop import TrainState, train
from .training.recipes import RECIPES, recipe
from .training.run import alone_in, run, summary_writer, together
from .weights import PRETRAINED


def main(argv: list[str] | None = None) -> None:
    """Do what the words say.  Whatever goes wrong is one sentence, and an exit status that is not 0."""
    with steady():
        args = _parser().parse_args(argv)
        tune_memory()
        try:
            args.run(args)
        except KeyboardInterrupt:
            sys.exit("ddpm_tutorial: stopped")
        except Exception as error:
            sys.exit(f"ddpm_tutorial: {sentence(error)}")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that names the defaults, where there are any."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


MANY, SIZE, SEED = between(int, 1, 1_000_000), between(int, 1, 1024), between(int, 0, 2**63 - 1)
SCALE = between(float, 0, 1000)
WEIGHTS = "the folder of a run, or its model.safetensors or checkpoint.safetensors; or digits or mnist, which come with the package"
SAMPLER: dict[str, Any] = {"default": "dpm++", "choices": SAMPLERS, "help": "how to walk from noise to data"}
STEPS: dict[str, Any] = {"type": MANY, "help": "steps of that walk, 1 … T, each a call of the network; default 20, and all T for ddpm"}
DEVICE: dict[str, Any] = {"choices": ("cpu", "cuda", "mps"), "help": "where it is computed; default: the best that is there"}
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m ddpm_tutorial",
        description="Train, sample and measure small diffusion models. Everything runs offline on a CPU; a GPU is used if there is one.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, help, description):
        p = commands.add_parser(name, help=help, description=description, formatter_class=_Help)
        p.set_defaults(run=run)
        return p.add_argument

    add = command("train", _train, "train a model, then measure it",
                  "Train a model, class-conditional where there are classes; write its weights, samples, a film strip and the loss curve; measure it.")
    add("--data", help="data set: " + ", ".join(data.LOADERS) + ", or a folder of images, whose sub-folders are the classes; default digits")
    add("--data-dir", type=Path, metavar="FOLDER", help="where data sets are, or are downloaded to; default $DDPM_DATA, or a cache folder in your home")
    add("--size", type=SIZE, help="resize the images to this many pixels")
    add("--seconds", type=between(float, 0, 1e8), help="train about this long: the speed of the first steps turns it into a number of steps; digits: 60")
    add("--steps", type=between(int, 1, 10**9), help="train this many steps instead; mnist and fashion-mnist: 11000, cifar10: 800000")
    add("--stages", type=_stages, metavar="SIZE:STEPS,…", help="grow the images: 8:500,16:1000,32:2000 trains the same weights at each size in turn")
    add("--out", type=Path, metavar="FOLDER", help="results; default runs/DATA. A folder that exists is left alone: the run goes to FOLDER-2, -3, …")
    add("--resume", type=Path, metavar="FOLDER",
        help="go on with the run in this folder, with the settings it was begun with; --data finds data that were moved, and --device, --precision, "
             "--compile and --micro may be others on another machine")
    add("--schedule", help=f"{', '.join(SCHEDULES)}; this and the next four: default as recipes.py has it for the data set")
    add("--timesteps", type=MANY, metavar="T", help="length of the chain")
    add("--predict", help="what the network predicts: " + ", ".join(PREDICTIONS))
    add("--batch", type=between(int, 1, 65_536), help="images per step")
    add("--lr", type=between(float, 0, 1000), help="learning rate")
    add("--micro", type=between(int, 1, 65_536), metavar="N", help="images at a time, where a batch needs too much memory; the batch stays what it is")
    add("--device", **DEVICE)
    add("--precision", choices=("float32", "bfloat16", "float16"), help="of the network's layers; default: what suits the device")
    add("--compile", action="store_true", default=None, help="torch.compile the network: a minute of waiting; for GPUs: on two CPU cores it did not pay")
    add("--tensorboard", action="store_true", help="log to TensorBoard as well as to log.jsonl")
    add("--seed", type=SEED, help="of everything random; default 0")
    add("--per-class", type=between(int, 0, 100_000), metavar="N",
        help="samples per class and scale for the measurement; 0 for none; default 50, or what the smallest class has")

    add = command("sample", _sample, "draw images from trained weights", "Draw images from trained weights into a PNG.")
    add("weights", help=WEIGHTS)
    add("--n", type=MANY, default=100, help="number of images")
    add("--y", metavar="CLASS", help="class of all of them, its name or number; default: one column per class")
    add("--sampler", **SAMPLER)
    add("--steps", **STEPS)
    add("--eta", type=between(float, 0, 1), default=0.0, help="noise of DDIM: 0 none … 1 as much as DDPM")
    add("--scale", type=SCALE, help="guidance: 0 unconditional, 1 conditional, more than 1 guided; default 2")
    add("--seed", type=SEED, default=0, help="of the noise")
    add("--device", **DEVICE)
    add("--out", type=Path, metavar="FILE", help="picture to write; default samples.png. One that exists is left alone: samples-2.png, …")
    add("--separate", type=Path, metavar="FOLDER", help="write each image into a file of its own, in a new folder")

    add = command("evaluate", _evaluate, "measure trained weights",
                  "Agreement, Fréchet distance above its floor, kernel distance, inception-style score, precision, recall and memorisation of samples "
                  "with intervals, beside what real images get.")
    add("weights", help=WEIGHTS)
    add("--sampler", **SAMPLER)
    add("--steps", **STEPS)
    add("--data", help="the data set that it was trained on; default: what the run says")
    add("--data-dir", type=Path, metavar="FOLDER", help="where data sets are; default $DDPM_DATA, or a cache folder in your home")
    add("--size", type=SIZE, help="resize the images to this many pixels")
    add("--per-class", type=between(int, 1, 100_000), default=100, metavar="N", help="samples per class")
    add("--scales", type=SCALE, nargs="+", help="guidance scales; default 1 and 2")
    add("--judges", type=between(int, 1, 100), default=1, metavar="N",
        help="classifiers that judge; the others are trained once, from seeds 1, 2, …, and kept in runs/judges")
    add("--seed", type=SEED, default=1, help="of the noise")
    add("--device", **DEVICE)
    add("--out", type=Path, metavar="FILE", help="write the numbers as JSON, too")

    add = command("classifier", _classifier, "train a classifier that judges samples, or guides them",
                  "Train the classifier that judges samples, on the train split; or, with --noisy, one of noisy images that guides them.")
    add("--data", default="digits", help="data set, or a folder of images")
    add("--data-dir", type=Path, metavar="FOLDER", help="where data sets are; default $DDPM_DATA, or a cache folder in your home")
    add("--noisy", action="store_true", help="of images at any t of a cosine schedule, T = 1000, for classifier guidance")
    add("--epochs", type=between(int, 1, 10_000), default=15, help="times over the data")
    add("--seed", type=SEED, default=0, help="of everything random")
    add("--out", type=Path, metavar="FILE", help="weights; default runs/DATA-classifier.safetensors; one that exists is left alone")

    add = command("export", _export, "write trained weights for other programs", "Write the network of trained weights as a graph that needs no Python.")
    add("weights", help=WEIGHTS)
    add("--onnx", type=Path, required=True, metavar="FILE", help="ONNX file to write; one that exists is left alone")

    command("doctor", _doctor, "say what this machine can do", "Print what this machine has, and try three training steps.")
    return parser


def _stages(text: str) -> list[tuple[int, int]]:
    try:
        stages = [(int(size), int(steps)) for size, steps in (stage.split(":") for stage in text.split(","))]
        if all(0 < size <= 1024 and steps > 0 for size, steps in stages):
            return stages
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no list of SIZE:STEPS, such as 8:500,16:1000,32:2000")


# Train.

OF_MODEL, OF_TRAINING, OF_MACHINE = ("timesteps", "schedule", "predict"), ("steps", "seconds", "batch", "lr", "seed"), ("micro", "precision", "compile")


def _train(args) -> None:
    from . import plots  # noqa: F401 (what is not installed is said now, and not after the training)

    with ExitStack() as held, together(args.device) as where:
        settings = _settings(args)
        dataset = data.load(settings["data"], folder=settings["data_dir"], size=settings["size"])
        settings |= _same(settings, dataset, _tests(settings), str(args.resume))
        changes = {name: getattr(args, name) for name in OF_MACHINE if getattr(args, name) is not None}
        begun = args.resume and resume(args.resume / "checkpoint.safetensors", where, **changes)
        state = begun or _begun(args, settings, dataset, where)
        name, y = Path(settings["data"]).name, dataset.y if state.model.config.num_classes else None
        per_class, unmeasured = _measurable(settings, dataset, args.per_class)
        if args.tensorboard:
            summary_writer()

        folder = args.resume or unused(args.out or Path("runs") / name)
        if processes()[0] == 0:
            held.enter_context(_alone(folder, state, bool(args.resume)))
            write_json(folder / "run.json", settings)
            size = sum(p.numel() for p in state.model.net.parameters())
            print(f"{len(dataset.images):,} images of {name}, {size:,} parameters, on {where} in {state.config.precision}; results go to {folder}", flush=True)
            for k, (label, count) in enumerate(zip(dataset.classes, torch.bincount(dataset.y).tolist())):
                print(f"  class {k}: {count:,} images, {label}", flush=True)
            if unmeasured:
                print(f"will not be measured: {unmeasured}", flush=True)
        first = state.step
        seconds = run(state, dataset.images, y, folder, settings["stages"], args.tensorboard)
        if processes()[0] == 0:
            if state.stop:
                sys.exit(f"stopped after step {state.step}; go on with:  python -m ddpm_tutorial train --resume {shlex.quote(str(folder))}")
            _results(state, settings, dataset, per_class, folder, state.step - first, seconds)


@contextmanager
def _alone(folder: Path, state: TrainState, resumed: bool) -> Iterator[None]:
    """The folder of a run, held until the results are in it.  A new one is taken away again if not one step could be done, for want of memory for example."""
    folder.mkdir(parents=True, exist_ok=resumed)
    try:
        writable(folder)
        with alone_in(folder):
            yield
    except Exception:
        if not resumed and not state.step:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _results(state: TrainState, settings: dict, dataset: data.Dataset, per_class: int, folder: Path, steps: int, seconds: float) -> None:
    """Save, and then say; draw and measure, and whatever becomes of that, say where everything is."""
    from . import plots

    model, failed = state.averaged_model(), []
    written = {"weights": model.save(folder / "model.safetensors"), "figures": folder / "figures.json"}
    speed = round(steps * state.config.batch / seconds)
    figures: dict[str, Any] = {"steps": state.step, "steps_timed": steps, "seconds": round(seconds, 1), "images_per_second": speed}
    write_json(written["figures"], figures)
    print(f"trained steps {state.step - steps + 1:,} to {state.step:,} in {seconds:.1f} s, {speed:,} images/s", flush=True)
    try:
        name, classes = plots.plain(Path(settings["data"]).name), tuple(map(plots.plain, dataset.classes))
        written |= pictures(model, state.losses, name, classes, folder)
    except Exception as error:
        failed.append(f"the pictures could not be drawn: {sentence(error)}")
    try:
        figures |= measured(model, settings, per_class, [1.0, 2.0], seed=1) if per_class else {}
        write_json(written["figures"], figures)
        if per_class:
            print(beside_usual(state, settings["data"], figures["scale 1"]), end="", flush=True)
    except Exception as error:
        failed.append(f"the samples could not be measured: {sentence(error)}")
    for what, path in written.items():
        print(f"{what:>12}: {path}")
    if failed:
        sys.exit(f"ddpm_tutorial: {'; '.join(failed)}")


def _settings(args) -> dict:
    """What a run needs besides its checkpoint; kept in run.json, so that --resume asks for nothing else."""
    if args.resume:
        if given := [f"--{name.replace('_', '-')}" for name in (*OF_MODEL, *OF_TRAINING, "size", "stages", "out") if getattr(args, name) is not None]:
            raise ValueError(f"--resume goes on with the settings that the run was begun with: leave out {', '.join(given)}")
        settings = _run_json(args.resume)
        if not settings:
            raise FileNotFoundError(f"{args.resume} is no folder of a run: there is no run.json in it")
    else:
        stages = args.stages or []
        if stages and (args.size, args.steps, args.seconds) != (None, None, None):
            raise ValueError("--stages says sizes and steps: leave out --size, --steps and --seconds")
        if None not in (args.steps, args.seconds):
            raise ValueError("give --steps or --seconds, not both")
        settings = {"data": "digits", "data_dir": None, "size": stages[-1][0] if stages else args.size, "stages": stages}
    return settings | _where(args, settings["data"])


def _where(args, otherwise: str) -> dict:
    """What --data and --data-dir say, the same from every folder."""
    named = otherwise if args.data is None else args.data
    if args.data_dir and named not in data.SOURCES:
        raise ValueError(f"--data-dir says where data sets are that can be downloaded ({', '.join(data.SOURCES)}), and {named} is none: leave it out")
    folder = named and named not in data.LOADERS and Path(named).is_dir()
    return {"data": str(Path(named).resolve()) if folder else named} | ({"data_dir": str(args.data_dir.resolve())} if args.data_dir else {})


def _tests(settings: dict) -> data.Dataset | None:
    """The images for testing; none, if the folder has too few to leave any."""
    try:
        return data.load(settings["data"], "test", settings["data_dir"], settings["size"])
    except data.NoneForTesting:
        return None


def _same(begun: dict, dataset: data.Dataset, tests: data.Dataset | None, what: str) -> dict:
    """What labels mean, what they are learnt from and measured with.

    Complains if a run was begun with other data: a class folder added since would shift all labels, and figures of other test images cannot be compared.
    """
    now: dict[str, Any] = {"classes": list(dataset.classes), "images": len(dataset.images), "sha256": data.fingerprint(dataset),
                           "test_images": len(tests.images) if tests else 0, "test_sha256": data.fingerprint(tests) if tests else ""}
    if any(begun.get(key, now[key]) != now[key] for key in now):
        said = [f"{some.get('images', '?')} images, SHA-256 {some.get('sha256', '?')[:12]}, and {some.get('test_images', '?')} for testing, "
                f"SHA-256 {some.get('test_sha256', '?')[:12]}, of {', '.join(some.get('classes', '?'))}" for some in (begun, now)]
        raise ValueError(f"{what} was begun with {said[0]}; the data are now {said[1]}: labels would not mean the same, or figures not be comparable. "
                         "Bring back the data of then; --data says where they are")
    return now


def _measurable(settings: dict, dataset: data.Dataset, asked: int | None) -> tuple[int, str]:
    """How many samples of a class are to be measured; if none, why.  Complains now, and not after hours, if what was asked for cannot be."""
    smallest = int(torch.bincount(dataset.y).min())
    n = min(50, smallest) if asked is None else asked
    try:
        if n > smallest:
            raise ValueError(f"--per-class is {n}; the smallest class has {smallest} images, and the floor is measured with as many")
        if n and len(dataset.classes) < 2:
            raise ValueError("there is one class, and a judge needs two to tell apart")
        if n and dataset.images.shape[-1] < 2:
            raise ValueError("the judge needs images of 2 pixels at least")
        if n:
            tests = len(data.load(settings["data"], "test", settings["data_dir"], settings["size"]).y)
            if min(tests, n * len(dataset.classes)) < 4:        # precision and recall look at the third neighbour
                raise ValueError(f"there are {tests} images for testing and {n * len(dataset.classes)} samples; 4 of each are needed")
    except ValueError as error:
        if asked:
            raise
        return 0, str(error)
    return n, ""


def _begun(args, settings: dict, dataset: data.Dataset, where: torch.device) -> TrainState:
    """A new run: the recipe of the data set, with the changes that were asked for."""
    def changed(config, names):
        return replace(config, **{name: getattr(args, name) for name in names if getattr(args, name) is not None})

    stages, (H, W) = settings["stages"], dataset.images.shape[2:]
    if H != W:
        raise ValueError(f"the images have {H} × {W} pixels: give --size, and the square in their middle is used")
    config, how = recipe(settings["data"], dataset.images, dataset.classes)
    if args.seconds is not None:
        how = replace(how, steps=None)
    config, how = changed(config, OF_MODEL), changed(how, (*OF_TRAINING, *OF_MACHINE))
    if config.num_classes:
        config = replace(config, classes=dataset.classes)
    if stages:
        how = replace(how, steps=sum(steps for _, steps in stages))
    least = 2 ** (len(config.unet.mults) - 1)
    if wrong := [size for size, _ in stages or [(W, 0)] if size % least]:
        option, fit = "--stages" if stages else "--size", max(least, round(wrong[0] / least) * least)
        raise ValueError(f"images have {', '.join(map(str, wrong))} pixels; this U-Net needs multiples of {least}: give {option} {fit}")
    torch.manual_seed(how.seed)                                 # of the first weights
    state = TrainState(DDPM(config).to(where), how)
    train(state, dataset.images, transform=data.normalise)      # complains now: no step is taken before one is asked for
    return state


# Sample and evaluate.

def _model(name: str, where: torch.device) -> DDPM:
    """Trained weights: by name, a file of weights or a checkpoint, the folder of a run, or one in diffusers' layout."""
    path = Path(name)
    if name not in PRETRAINED and (path / "run.json").is_file():
        path = next((path / kind for kind in ("model.safetensors", "checkpoint.safetensors") if (path / kind).is_file()), path / "model.safetensors")
    try:
        return DDPM.load(name if name in PRETRAINED else path).to(where)
    except ValueError:
        try:
            state = resume(path, where)                         # it may be a checkpoint
        except (ValueError, FileNotFoundError):
            state = None
        if state is None:
            raise
    if not state.step:
        raise ValueError(f"the run of {path} has not taken a step yet: there is nothing to draw or to measure")
    return state.averaged_model()


def _run_json(folder: Path) -> dict:
    """What a run was begun with; nothing, if this is no folder of a run."""
    path = folder / "run.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return {"data_dir": None, "size": None, "stages": []} | settings | {"data": settings["data"]} if settings else {}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'{path} is damaged ({type(error).__name__}: {error}); with {{"data": "digits"}}, or other data, in it the run goes on') from None


def _sample(args) -> None:
    from PIL import Image

    from . import plots

    model = _model(args.weights, device(args.device))
    K, names, y = model.config.num_classes, model.config.classes, None
    if K is None and (given := [f"--{name}" for name in ("y", "scale") if getattr(args, name) is not None]):
        raise ValueError(f"this model has no classes to be guided by: leave out {', '.join(given)}")
    if args.y is not None:
        known = names or tuple(map(str, range(K)))
        y = known.index(args.y) if args.y in known else int(args.y) if args.y.isdecimal() and int(args.y) < K else None
        if y is None:
            raise ValueError(f"--y is {args.y!r}; the classes are {', '.join(f'{name} (number {k})' for k, name in enumerate(known))}")
    columns = min(args.n, K if K and y is None else 10)
    picture = new_file(args.out or Path("samples.png"), *PICTURES) if args.out or not args.separate else None
    if picture and (rows := -(-args.n // columns)) * model.shape[1] > 2**16:
        raise ValueError(f"--n is {args.n}; that is {rows:,} rows, and a picture has at most {2**16:,} pixels a side: --separate FOLDER writes single files")
    folder, images = args.separate and unused(args.separate), []
    if folder:
        writable(folder.parent)
    if folder and folder == picture:
        raise ValueError(f"--out and --separate are both {folder}; one is a file and one a folder")
    for i in range(0, args.n, 250):
        n = min(250, args.n - i)
        labels = y if y is not None else (torch.arange(i, i + n) % K if K else None)
        x = model.sample(n, labels, args.sampler, args.steps, args.eta,
                         (2.0 if args.scale is None else args.scale) if K else 1.0, args.seed, first=i).cpu()
        if picture:
            images.append(x)
        if folder:
            folder.mkdir(exist_ok=True)
            for k, pixels in enumerate(data.denormalise(x).permute(0, 2, 3, 1).numpy(), start=i):
                Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(folder / f"{k:06}.png")
    if picture:
        titles = [plots.plain(name) for name in names[:columns]] if y is None else []
        figure = plots.grid(torch.cat(images), columns, titles, plots.plain(names[y]) if names and y is not None else "")
        with written(picture) as place:
            figure.savefig(place, dpi=150)
    print(*filter(None, (picture, folder)), sep="\n")


def _evaluate(args) -> None:
    path = Path(args.weights)
    begun = {} if args.weights in PRETRAINED else _run_json(path if path.is_dir() else path.parent)
    named = begun.get("data") or (args.weights if args.weights in PRETRAINED else None)
    if named is None and args.data is None:
        raise ValueError(f"there is no run.json beside {path} that says what it was trained on: give --data")
    settings = {"data_dir": None, "size": None} | begun | _where(args, named) | ({"size": args.size} if args.size else {})
    out = args.out and new_file(args.out, ".json")
    model = _model(args.weights, device(args.device))
    K, dataset = model.config.num_classes, data.load(settings["data"], folder=settings["data_dir"], size=settings["size"])
    if args.scales and K is None:
        raise ValueError("this model has no classes to be guided by: leave out --scales")
    if tuple(dataset.images.shape[1:]) == model.shape:          # or else they are of another data set, which `measured` says
        _same(({"classes": list(model.config.classes)} if model.config.classes else {}) | begun, dataset, _tests(settings), args.weights)
    if K not in (None, len(dataset.classes)):
        raise ValueError(f"the model has {K} classes ({', '.join(model.config.classes) or 'without names'}), and {settings['data']} has "
                         f"{len(dataset.classes)}: {', '.join(dataset.classes)}; name the data set that it was trained on with --data")
    _measurable(settings, dataset, args.per_class)
    rows = measured(model, settings, args.per_class, args.scales or [1.0, 2.0], args.seed, args.judges, args.sampler, args.steps)
    if out:
        write_json(out, rows)
        print(out)


# Everything else.

def _classifier(args) -> None:
    """Train, round to float16, and measure what is stored."""
    if args.data_dir:
        _where(args, args.data)
    if args.out is None:
        Path("runs").mkdir(exist_ok=True)
    path = new_file(args.out or Path("runs") / f"{Path(args.data).resolve().name}-{'noisy-' if args.noisy else ''}classifier", ".safetensors")
    train_set, test_set = (data.load(args.data, split, args.data_dir) for split in ("train", "test"))
    x, x_test = (data.normalise(d.images).to(device()) for d in (train_set, test_set))
    y, y_test = train_set.y.to(x.device), test_set.y.to(x.device)
    schedule = cosine(1000)

    def diffuse(x_0, t=None):
        t = torch.randint(1, schedule.T + 1, (len(x_0),)) if t is None else torch.full((len(x_0),), t)
        return q_sample(schedule, x_0, torch.randn_like(x_0), t), t.to(x_0.device)

    print(f"training on {len(x):,} images of {args.data} …", flush=True)
    began = time.perf_counter()
    net = metrics.train_classifier(x, y, args.epochs, seed=args.seed, diffuse=diffuse if args.noisy else None)
    seconds = time.perf_counter() - began
    stored = net.half().float()
    card: dict[str, Any] = {"data": args.data, "epochs": args.epochs, "seed": args.seed, "seconds": round(seconds, 1)}
    if args.noisy:
        torch.manual_seed(args.seed)
        card["test_accuracy_at"] = {}
        for t in (1, 250, 500, 750, 1000):
            x_t, times = diffuse(x_test, t)
            card["test_accuracy_at"][t] = metrics.accuracy(partial(stored, t=times[0]), x_t, y_test)
    else:
        card["test_accuracy"] = metrics.accuracy(stored, x_test, y_test)
    judging.save_classifier(stored, path, half=True, **card)
    print(f"{path}: SHA-256 {judging.sha256(path)}\n{json.dumps(card)}")


def _export(args) -> None:
    from .weights.onnx import export_onnx

    path, model = new_file(args.onnx, ".onnx"), _model(args.weights, torch.device("cpu"))
    with written(path) as place:
        export_onnx(model, place)
    print(path)


def _doctor(args) -> None:
    where = device()
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}; torch {torch.__version__}")
    print(f"device: {where}" + (f", {torch.cuda.get_device_name()}" if where.type == "cuda" else f", threads: {torch.get_num_threads()}"))
    images, y, _ = data.load("digits")
    config, how = RECIPES["digits"]
    state = TrainState(DDPM(config).to(where), replace(how, steps=3))
    began = time.perf_counter()
    losses = [progress.loss for progress in train(state, data.normalise(images), y)]
    print(f"three training steps: {time.perf_counter() - began:.1f} s, losses " + ", ".join(f"{value:.3f}" for value in losses))
    print("all is well: try  python -m ddpm_tutorial train")


if __name__ == "__main__":
    main()
