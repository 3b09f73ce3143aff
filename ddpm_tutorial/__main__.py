"""The command line:  python -m ddpm_tutorial train | sample | evaluate | doctor."""

import argparse
import json
import platform
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from . import data, metrics
from .ddpm import DDPM
from .training import RECIPES, TrainState, device, resume, save, train

CHECKPOINT_SECONDS = 20


def main(argv: list[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (ValueError, TypeError, FileNotFoundError, FloatingPointError) as error:
        sys.exit(f"ddpm_tutorial: {error}")


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

    add = command("train", _train, "train a class-conditional model, then measure it",
                  "Train a class-conditional model; write its weights, samples, a film strip and the loss curve; measure it.")
    add("--data", default="digits", help="data set: " + ", ".join(data.LOADERS))
    add("--seconds", type=float, default=60.0, help="train about this long: the speed of the first steps turns it into a number of steps")
    add("--steps", type=int, help="train this many steps instead")
    add("--out", type=Path, metavar="FOLDER", help="results; default runs/DATA. A folder that exists is left alone: the run goes to FOLDER-2, -3, …")
    add("--resume", type=Path, metavar="FOLDER", help="go on with the run in this folder, with the settings it was begun with")
    add("--schedule", help="linear, cosine, sigmoid or quadratic; this and the next four: default as training.RECIPES has it for the data set")
    add("--timesteps", type=int, metavar="T", help="length of the chain")
    add("--predict", help="what the network predicts: eps, x0 or v")
    add("--batch", type=int, help="images per step")
    add("--lr", type=float, help="learning rate")
    add("--seed", type=int, default=0, help="of everything random")
    add("--per-class", type=int, default=100, metavar="N", help="samples per class for the measurement; 0 for none")

    add = command("sample", _sample, "draw images from trained weights", "Draw images from trained weights into a PNG.")
    add("weights", type=Path, help="model.safetensors of a run")
    add("--n", type=int, default=100, help="number of images")
    add("--y", type=int, help="class of all of them; default: one column per class")
    add("--sampler", default="ddim", choices=("ddpm", "ddim"), help="how to walk from noise to data")
    add("--steps", type=int, default=50, help="steps of that walk, 1 … T")
    add("--eta", type=float, default=0.0, help="noise of DDIM: 0 none … 1 as much as DDPM")
    add("--scale", type=float, default=2.0, help="guidance: 0 unconditional, 1 conditional, more than 1 guided")
    add("--seed", type=int, default=0, help="of the noise")
    add("--out", type=Path, default=Path("samples.png"), help="picture to write; one that exists is left alone: samples-2.png, …")

    add = command("evaluate", _evaluate, "measure trained weights",
                  "Agreement, Fréchet distance and memorisation of samples (DDIM, 50 steps), beside what real images get.")
    add("weights", type=Path, help="model.safetensors of a run")
    add("--data", default="digits", help="the data set that it was trained on")
    add("--per-class", type=int, default=100, metavar="N", help="samples per class")
    add("--scales", type=float, nargs="+", default=[1.0, 2.0], help="guidance scales")
    add("--seed", type=int, default=1, help="of the noise")

    command("doctor", _doctor, "say what this machine can do", "Print what this machine has, and try three training steps.")
    return parser


def _train(args) -> None:
    state, name, folder = _continued(args.resume) if args.resume else _begun(args)
    images, y, classes = data.load(name)
    size = sum(p.numel() for p in state.model.net.parameters())
    print(f"{len(images):,} images of {name}, {size:,} parameters, on {state.model.device}; results go to {folder}", flush=True)

    if args.per_class:
        metrics.per_class(y, args.per_class)                    # complains now, and not after a minute

    # Train, with a bar; whatever happens, what was done is kept.
    stop = []                                                   # Ctrl-C and SIGTERM wait until the step in progress is done
    before = {s: signal.signal(s, lambda number, frame: stop.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    checkpoint, first, began = folder / "checkpoint.safetensors", state.step, time.perf_counter()
    saved = began
    try:
        with tqdm(total=state.config.steps, initial=first, unit="step", desc="training", mininterval=0.5) as bar:
            for progress in train(state, data.normalise(images), y):
                now = time.perf_counter()
                bar.total = progress.steps
                bar.set_postfix_str(f"loss {progress.loss:.3f}, {(progress.step - first) * state.config.batch / (now - began):,.0f} images/s", refresh=False)
                bar.update()
                if stop:
                    break
                if now - saved > CHECKPOINT_SECONDS:
                    save(state, checkpoint)
                    saved = now
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    seconds = time.perf_counter() - began
    save(state, checkpoint)
    if stop:
        sys.exit(f"stopped after step {state.step}; go on with:  python -m ddpm_tutorial train --resume {folder}")
    figures = {"steps": state.step, "seconds": round(seconds, 1), "images_per_second": round((state.step - first) * state.config.batch / seconds)}
    print(f"trained to step {state.step:,} in {seconds:.1f} s, {figures['images_per_second']:,} images/s", flush=True)

    # Draw, measure, and say where everything is.
    model = state.averaged_model()
    written = {"weights": model.save(folder / "model.safetensors")} | _pictures(model, state.losses, name, classes, folder)
    if args.per_class:
        figures |= _measure(model, name, args.per_class, [1.0, 2.0], seed=1)
    written["figures"] = folder / "figures.json"
    written["figures"].write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    for what, path in written.items():
        print(f"{what:>12}: {path}")


def _begun(args) -> tuple[TrainState, str, Path]:
    def changed(config, **changes):
        return replace(config, **{k: v for k, v in changes.items() if v is not None})

    data.load(args.data)                                        # complains of an unknown name
    config, how = RECIPES[args.data]
    config = changed(config, timesteps=args.timesteps, schedule=args.schedule, predict=args.predict)
    how = changed(how, steps=args.steps, seconds=args.seconds, batch=args.batch, lr=args.lr, seed=args.seed)
    torch.manual_seed(args.seed)                                # of the first weights
    state = TrainState(DDPM(config).to(device()), how)
    folder = _unused(args.out or Path("runs") / args.data)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"data": args.data}), encoding="utf-8")
    return state, args.data, folder


def _continued(folder: Path) -> tuple[TrainState, str, Path]:
    state = resume(folder / "checkpoint.safetensors", device())
    return state, json.loads((folder / "run.json").read_text(encoding="utf-8"))["data"], folder


def _pictures(model: DDPM, losses: list[float], name: str, classes: tuple[str, ...], folder: Path) -> dict[str, Path]:
    from . import plots

    K, steps = len(classes), min(50, model.schedule.T)
    samples = model.sample(10 * K, torch.arange(K).repeat(10), "ddim", steps, scale=2.0)
    walk = list(model.trajectory(K, torch.arange(K), "ddpm", min(100, model.schedule.T), scale=2.0, seed=1))
    figures = {
        "samples": plots.grid(samples, K, classes, f"{name}: guided samples, DDIM, {steps} steps, scale 2"),
        "film_strip": plots.film_strip(walk, image=3, title=f"from noise to a {classes[3]}: DDPM, {len(walk) - 1} steps, scale 2"),
        "loss": plots.loss_curve(losses, max(1, len(losses) // 50), f"training on {name}"),
    }
    for what, figure in figures.items():
        figure.savefig(folder / f"{what}.png", dpi=150)
    written = {what.replace("_", " "): folder / f"{what}.png" for what in figures}
    return written | {"animation": plots.gif([state.x_t for state in walk[::2]], folder / "denoising.gif", columns=K)}


def _measure(model: DDPM, name: str, per_class: int, scales: list[float], seed: int) -> dict[str, float]:
    """Print and return what samples get, beside what real images get."""
    train_set, test_set = data.load(name), data.load(name, "test")
    x, x_test = (data.normalise(d.images).to(model.device) for d in (train_set, test_set))
    print("training the judge: a small classifier, on the train split only …", flush=True)
    judge = metrics.train_classifier(x, train_set.y.to(x.device))
    figures = {"classifier_test_accuracy": metrics.accuracy(judge, x_test, test_set.y.to(x.device))}
    real = metrics.features(judge, x_test)
    as_many = metrics.per_class(train_set.y, per_class)
    figures["frechet_floor"] = metrics.frechet_distance(metrics.features(judge, x[as_many]), real)
    print(f"  its accuracy on {len(x_test)} test images: {figures['classifier_test_accuracy']:.4f}")
    print(f"  Fréchet distance, {len(as_many)} train images against the test images: {figures['frechet_floor']:.3f}, the floor")

    y, steps = torch.arange(len(train_set.classes)).repeat_interleave(per_class), min(50, model.schedule.T)
    for scale in scales:
        parts = tqdm(range(0, len(y), 250), desc=f"{len(y):,} samples, scale {scale:g}", unit="batch", leave=False)
        samples = torch.cat([model.sample(len(y[i:i + 250]), y[i:i + 250], "ddim", steps, scale=scale, seed=seed, first=i) for i in parts])
        agreement = metrics.accuracy(judge, samples, y.to(samples.device))
        distance = metrics.frechet_distance(metrics.features(judge, samples), real)
        nearest = metrics.memorisation(samples, x, x_test)
        figures |= {f"agreement_scale_{scale:g}": agreement, f"frechet_scale_{scale:g}": distance, f"memorisation_scale_{scale:g}": nearest}
        print(f"  {len(y):,} samples, DDIM {steps} steps, scale {scale:g}: agreement {agreement:.3f}, Fréchet distance {distance:.3f} "
              f"({distance / figures['frechet_floor']:.2f} × floor), memorisation ratio {nearest:.2f}")
    return figures


def _evaluate(args) -> None:
    _measure(DDPM.load(args.weights).to(device()), args.data, args.per_class, args.scales, args.seed)


def _sample(args) -> None:
    from . import plots

    model = DDPM.load(args.weights).to(device())
    classes = model.config.num_classes
    y = args.y if args.y is not None else torch.arange(args.n) % classes if classes else None
    images = model.sample(args.n, y, args.sampler, args.steps, args.eta, args.scale if y is not None else 1.0, args.seed)
    path = _unused(args.out)
    plots.grid(images, classes if classes and args.y is None else 10).savefig(path, dpi=150)
    print(path)


def _doctor(args) -> None:
    where = device()
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}; torch {torch.__version__}")
    print(f"device: {where}" + (f", {torch.cuda.get_device_name()}" if where.type == "cuda" else f", {torch.get_num_threads()} threads"))
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
