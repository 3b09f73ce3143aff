"""The command line:  python -m ddpm_tutorial train | sample | evaluate | classifier | doctor."""

import argparse
import ctypes
import json
import platform
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from . import data
from .ddpm import DDPM
from .evaluation import judging, metrics
from .evaluation.report import measured, pictures
from .forward import q_sample
from .schedules import cosine
from .training.checkpoint import resume
from .training.devices import device, processes
from .training.loop import TrainState, train
from .training.recipes import RECIPES, recipe
from .training.run import run, summary_writer, together


def main(argv: list[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    _keep_memory()
    try:
        args.run(args)
    except (ValueError, TypeError, OSError, FloatingPointError, MemoryError, torch.OutOfMemoryError) as error:
        sys.exit(f"ddpm_tutorial: {error}")


def _keep_memory() -> None:
    """Let Linux' C library keep big blocks that were freed, instead of returning them and asking anew in every step: a tenth of the time on a CPU."""
    if platform.libc_ver()[0] == "glibc":
        keep, trim, mmap = 2**30, -1, -3                        # mallopt(3): M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        libc = ctypes.CDLL(None)
        libc.mallopt(trim, keep), libc.mallopt(mmap, keep)


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that names the defaults, where there are any."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ddpm_tutorial",
        description="Train, sample and measure small diffusion models. Everything runs offline on a CPU; a GPU is used if there is one.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, help, description):
        p = commands.add_parser(name, help=help, description=description, formatter_class=_Help)
        p.set_defaults(run=run)
        return p.add_argument

    add = command("train", _train, "train a model, then measure it",
                  "Train a model, class-conditional where there are classes; write its weights, samples, a film strip and the loss curve; measure it.")
    add("--data", default="digits", help="data set: " + ", ".join(data.LOADERS) + ", or a folder of images, whose sub-folders are the classes")
    add("--data-dir", type=Path, metavar="FOLDER", help="where data sets are, or are downloaded to; default $DDPM_DATA, or a cache folder in your home")
    add("--size", type=int, help="resize the images to this many pixels")
    add("--seconds", type=float, help="train about this long: the speed of the first steps turns it into a number of steps; digits: 60")
    add("--steps", type=int, help="train this many steps instead; mnist and fashion-mnist: 11000, cifar10: 800000")
    add("--stages", type=_stages, metavar="SIZE:STEPS,…", help="grow the images: 8:500,16:1000,32:2000 trains the same weights at each size in turn")
    add("--out", type=Path, metavar="FOLDER", help="results; default runs/DATA. A folder that exists is left alone: the run goes to FOLDER-2, -3, …")
    add("--resume", type=Path, metavar="FOLDER", help="go on with the run in this folder, with the settings it was begun with")
    add("--schedule", help="linear, cosine, sigmoid or quadratic; this and the next four: default as recipes.py has it for the data set")
    add("--timesteps", type=int, metavar="T", help="length of the chain")
    add("--predict", help="what the network predicts: eps, x0 or v")
    add("--batch", type=int, help="images per step")
    add("--lr", type=float, help="learning rate")
    add("--micro", type=int, metavar="N", help="images at a time, where a batch needs too much memory; the batch stays what it is")
    add("--precision", choices=("float32", "bfloat16", "float16"), help="of the network's layers; default: what suits the device")
    add("--compile", action="store_true", default=None, help="torch.compile the network: a minute of waiting; for GPUs: on two CPU cores it did not pay")
    add("--tensorboard", action="store_true", help="log to TensorBoard as well as to log.jsonl")
    add("--seed", type=int, help="of everything random; default 0")
    add("--per-class", type=int, metavar="N", help="samples per class and scale for the measurement; 0 for none; default 50, or what the smallest class has")

    add = command("sample", _sample, "draw images from trained weights", "Draw images from trained weights into a PNG.")
    add("weights", help="model.safetensors of a run; or digits or mnist, which come with the package")
    add("--n", type=int, default=100, help="number of images")
    add("--y", type=int, help="class of all of them; default: one column per class")
    add("--sampler", default="ddim", choices=("ddpm", "ddim"), help="how to walk from noise to data")
    add("--steps", type=int, help="steps of that walk, 1 … T; default 50, or T if that is less")
    add("--eta", type=float, default=0.0, help="noise of DDIM: 0 none … 1 as much as DDPM")
    add("--scale", type=float, default=2.0, help="guidance: 0 unconditional, 1 conditional, more than 1 guided")
    add("--seed", type=int, default=0, help="of the noise")
    add("--out", type=Path, default=Path("samples.png"), help="picture to write; one that exists is left alone: samples-2.png, …")

    add = command("evaluate", _evaluate, "measure trained weights",
                  "Agreement, Fréchet distance, inception-style score, precision, recall and memorisation of samples (DDIM, 50 steps), with intervals, "
                  "beside what real images get.")
    add("weights", help="model.safetensors of a run; or digits or mnist, which come with the package")
    add("--data", default="digits", help="the data set that it was trained on")
    add("--data-dir", type=Path, metavar="FOLDER", help="where data sets are; default $DDPM_DATA, or a cache folder in your home")
    add("--size", type=int, help="resize the images to this many pixels")
    add("--per-class", type=int, default=100, metavar="N", help="samples per class")
    add("--scales", type=float, nargs="+", default=[1.0, 2.0], help="guidance scales")
    add("--seed", type=int, default=1, help="of the noise")
    add("--out", type=Path, metavar="FILE", help="write the numbers as JSON, too")

    add = command("classifier", _classifier, "train a classifier that judges samples, or guides them",
                  "Train the classifier that judges samples, on the train split; or, with --noisy, one of noisy images that guides them.")
    add("--data", default="digits", help="data set")
    add("--data-dir", type=Path, metavar="FOLDER", help="where data sets are; default $DDPM_DATA, or a cache folder in your home")
    add("--noisy", action="store_true", help="of images at any t of a cosine schedule, T = 1000, for classifier guidance")
    add("--epochs", type=int, default=15, help="times over the data")
    add("--seed", type=int, default=0, help="of everything random")
    add("--out", type=Path, metavar="FILE", help="weights; default runs/DATA-classifier.safetensors; one that exists is left alone")

    command("doctor", _doctor, "say what this machine can do", "Print what this machine has, and try three training steps.")
    return parser


def _stages(text: str) -> list[tuple[int, int]]:
    try:
        stages = [(int(size), int(steps)) for size, steps in (stage.split(":") for stage in text.split(","))]
        if all(size > 0 and steps > 0 for size, steps in stages):
            return stages
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no list of SIZE:STEPS, such as 8:500,16:1000,32:2000")


def _train(args) -> None:
    with together() as where:
        settings = _settings(args)
        dataset = data.load(settings["data"], folder=settings["data_dir"], size=settings["size"])
        state = resume(args.resume / "checkpoint.safetensors", where) if args.resume else _begun(args, dataset, settings["stages"], where)
        name, y = Path(settings["data"]).name, dataset.y if state.model.config.num_classes else None
        judged, smallest = len(dataset.classes) > 1, int(torch.bincount(dataset.y).min())
        per_class = (min(50, smallest) if args.per_class is None else args.per_class) if judged else 0
        if per_class > smallest:                                # complains now, and not after a minute
            raise ValueError(f"--per-class is {per_class}; the smallest class has {smallest} images, and the floor is measured with as many")
        if args.tensorboard:
            summary_writer()

        chief, folder = processes()[0] == 0, args.resume or _unused(args.out or Path("runs") / name)
        if chief and not args.resume:
            folder.mkdir(parents=True)
            (folder / "run.json").write_text(json.dumps(settings), encoding="utf-8")
        if chief:
            size = sum(p.numel() for p in state.model.net.parameters())
            print(f"{len(dataset.images):,} images of {name}, {size:,} parameters, on {where} in {state.config.precision}; results go to {folder}", flush=True)
        first = state.step
        seconds = run(state, dataset.images, y, folder, settings["stages"], args.tensorboard)
        if state.stop and chief:
            sys.exit(f"stopped after step {state.step}; go on with:  python -m ddpm_tutorial train --resume {folder}")
        if not chief or state.stop:
            return

    speed = round((state.step - first) * state.config.batch / seconds)
    figures: dict[str, Any] = {"steps": state.step, "steps_timed": state.step - first, "seconds": round(seconds, 1), "images_per_second": speed}
    print(f"trained steps {first + 1:,} to {state.step:,} in {seconds:.1f} s, {speed:,} images/s", flush=True)

    # Draw, measure, and say where everything is.
    model = state.averaged_model()
    written = {"weights": model.save(folder / "model.safetensors")} | pictures(model, state.losses, name, dataset.classes, folder)
    if per_class:
        figures |= measured(model, settings, per_class, [1.0, 2.0], seed=1)
    elif not judged:
        print("not measured: there is one class, and a judge needs two to tell apart")
    written["figures"] = folder / "figures.json"
    written["figures"].write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    for what, path in written.items():
        print(f"{what:>12}: {path}")


def _settings(args) -> dict:
    """What a run needs besides its checkpoint; kept in run.json, so that --resume asks for nothing else."""
    if args.resume:
        if given := [f"--{name.replace('_', '-')}" for name in (*OF_MODEL, *OF_TRAINING, "data_dir", "size", "stages", "out")
                 if getattr(args, name) is not None]:
            raise ValueError(f"--resume goes on with the settings that the run was begun with: leave out {', '.join(given)}")
        if not (args.resume / "run.json").is_file():
            raise FileNotFoundError(f"{args.resume} is no folder of a run: there is no run.json in it")
        return json.loads((args.resume / "run.json").read_text(encoding="utf-8"))
    stages = args.stages or []
    if stages and (args.size or args.steps or args.seconds):
        raise ValueError("--stages says sizes and steps: leave out --size, --steps and --seconds")
    if args.steps and args.seconds:
        raise ValueError("give --steps or --seconds, not both")
    folder = args.data not in data.LOADERS and Path(args.data).is_dir()
    return {"data": str(Path(args.data).resolve()) if folder else args.data, "data_dir": args.data_dir and str(args.data_dir.resolve()),
            "size": stages[-1][0] if stages else args.size, "stages": stages}


OF_MODEL, OF_TRAINING = ("timesteps", "schedule", "predict"), ("steps", "seconds", "batch", "micro", "lr", "precision", "compile", "seed")


def _begun(args, dataset: data.Dataset, stages: list[tuple[int, int]], where: torch.device) -> TrainState:
    """A new run: the recipe of the data set, with the changes that were asked for."""
    def changed(config, names):
        return replace(config, **{name: getattr(args, name) for name in names if getattr(args, name) is not None})

    if dataset.images.shape[2] != dataset.images.shape[3]:
        raise ValueError(f"the images have {dataset.images.shape[2]} × {dataset.images.shape[3]} pixels: give --size, and the square in their middle is used")
    config, how = recipe(args.data, dataset.images, dataset.classes)
    if args.seconds is not None:
        how = replace(how, steps=None)
    config, how = changed(config, OF_MODEL), changed(how, OF_TRAINING)
    if stages:
        how = replace(how, steps=sum(steps for _, steps in stages))
    least = 2 ** (len(config.unet.mults) - 1)
    if any(size % least for size, _ in stages):
        raise ValueError(f"stages have {', '.join(str(size) for size, _ in stages)} pixels; this U-Net needs multiples of {least}")
    torch.manual_seed(how.seed)                                 # of the first weights
    state = TrainState(DDPM(config).to(where), how)
    train(state, dataset.images, transform=data.normalise)      # complains now: no step is taken before one is asked for
    return state


def _evaluate(args) -> None:
    settings = {"data": args.data, "data_dir": args.data_dir, "size": args.size}
    rows = measured(DDPM.load(args.weights).to(device()), settings, args.per_class, args.scales, args.seed)
    if args.out:
        path = _unused(args.out)
        path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        print(path)


def _classifier(args) -> None:
    """Train, round to float16, and measure what is stored."""
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
    path = _unused(args.out or Path("runs") / f"{Path(args.data).name}-{'noisy-' if args.noisy else ''}classifier.safetensors")
    judging.save_classifier(stored, path, half=True, **card)
    print(f"{path}: SHA-256 {judging.sha256(path)}\n{json.dumps(card)}")


def _sample(args) -> None:
    from . import plots

    model = DDPM.load(args.weights).to(device())
    classes = model.config.num_classes
    y = args.y if args.y is not None else torch.arange(args.n) % classes if classes else None
    steps = min(50, model.schedule.T) if args.steps is None else args.steps
    images = model.sample(args.n, y, args.sampler, steps, args.eta, args.scale if y is not None else 1.0, args.seed)
    path = _unused(args.out)
    plots.grid(images, classes if classes and args.y is None else 10).savefig(path, dpi=150)
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


def _unused(path: Path) -> Path:
    """The path itself, or with -2, -3, … if it is taken: nothing that exists is overwritten."""
    taken, k = path, 2
    while taken.exists():
        taken, k = path.with_name(f"{path.stem}-{k}{path.suffix}"), k + 1
    return taken


if __name__ == "__main__":
    main()
