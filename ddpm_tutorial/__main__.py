"""The command line:  python -m ddpm_tutorial train | sample | evaluate | doctor."""

import argparse
import json
import platform
import signal
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from . import data
from .ddpm import DDPM, DDPMConfig
from .training import TrainConfig, TrainState, device, resume, save, train

CHECKPOINT_SECONDS = 20


def main(argv: list[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (ValueError, TypeError, FileNotFoundError, FloatingPointError) as error:
        sys.exit(f"ddpm_tutorial: {error}")


def _parser() -> argparse.ArgumentParser:
    new = {"formatter_class": argparse.ArgumentDefaultsHelpFormatter}
    parser = argparse.ArgumentParser(prog="python -m ddpm_tutorial", description="Train, sample and measure small diffusion models. Everything runs offline on a CPU; a GPU is used if there is one.")
    commands = parser.add_subparsers(required=True, metavar="command")

    p = commands.add_parser("train", help="train a class-conditional model and measure it", description="Train a class-conditional model, then write its weights, samples, a film strip and the loss curve, and measure it.", **new)
    p.add_argument("--data", default="digits", help="data set: " + ", ".join(data.LOADERS))
    length = p.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=60.0, help="train about this long: turned into a number of steps by the speed of the first ones")
    length.add_argument("--steps", type=int, help="train this many steps")
    p.add_argument("--out", type=Path, help="folder for the results; default runs/DATA. An existing folder is left alone: the run goes to OUT-2, OUT-3, …")
    p.add_argument("--resume", type=Path, metavar="FOLDER", help="go on with the run in this folder; its own settings count, and the others given here are ignored")
    p.add_argument("--schedule", default="cosine", help="linear, cosine, sigmoid or quadratic")
    p.add_argument("--timesteps", type=int, default=1000, help="T, the length of the chain")
    p.add_argument("--predict", default="v", help="what the network predicts: eps, x0 or v")
    p.add_argument("--batch", type=int, default=TrainConfig.batch, help="images per step")
    p.add_argument("--lr", type=float, default=TrainConfig.lr, help="learning rate")
    p.add_argument("--seed", type=int, default=0, help="of everything random")
    p.add_argument("--per-class", type=int, default=100, metavar="N", help="samples per class for the measurement; 0 for none")
    p.set_defaults(run=_train)

    p = commands.add_parser("sample", help="draw images from trained weights", description="Draw images from trained weights into a PNG.", **new)
    p.add_argument("weights", type=Path, help="model.safetensors of a run")
    p.add_argument("--n", type=int, default=100, help="number of images")
    p.add_argument("--y", type=int, help="class of all of them; default: one column per class")
    p.add_argument("--sampler", default="ddim", choices=("ddpm", "ddim"))
    p.add_argument("--steps", type=int, default=50, help="network calls per image, 1 … T")
    p.add_argument("--eta", type=float, default=0.0, help="noise of DDIM: 0 none, 1 as much as DDPM")
    p.add_argument("--scale", type=float, default=2.0, help="guidance: 0 unconditional, 1 conditional, more than 1 guided")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=Path("samples.png"), help="picture to write; an existing one is left alone: samples-2.png, …")
    p.set_defaults(run=_sample)

    p = commands.add_parser("evaluate", help="measure trained weights", description="Agreement, Fréchet distance and memorisation of samples (50-step DDIM), beside what real images get.", **new)
    p.add_argument("weights", type=Path, help="model.safetensors of a run")
    p.add_argument("--data", default="digits", help="the data set that it was trained on")
    p.add_argument("--per-class", type=int, default=100, metavar="N", help="samples per class")
    p.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0], help="guidance scales")
    p.add_argument("--seed", type=int, default=0)
    p.set_defaults(run=lambda args: _measure(DDPM.load(args.weights).to(device()), args.data, args.per_class, args.scales, args.seed))

    p = commands.add_parser("doctor", help="say what this machine can do", description="Print what this machine has, and try three training steps.", **new)
    p.set_defaults(run=_doctor)
    return parser


def _train(args) -> None:
    from . import plots

    if args.resume:
        folder = args.resume
        state = resume(folder / "checkpoint.safetensors")
        name = json.loads((folder / "run.json").read_text())["data"]
    else:
        name, folder = args.data, None
    images, y, classes = data.load(name)
    if folder is None:
        channels, size = images.shape[1], images.shape[2]
        torch.manual_seed(args.seed)                            # of the first weights
        model = DDPM(DDPMConfig(image_size=size, channels=channels, timesteps=args.timesteps, schedule=args.schedule, predict=args.predict, num_classes=len(classes)))
        state = TrainState(model.to(device()), TrainConfig(steps=args.steps, seconds=args.seconds, batch=args.batch, lr=args.lr, seed=args.seed))
        folder = _unused(args.out or Path("runs") / name)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"data": name}))
    where = state.model.device
    size = sum(p.numel() for p in state.model.net.parameters())
    print(f"{len(images):,} images of {name}, {size:,} parameters, on {where}; results go to {folder}")

    # Train, with a bar; whatever happens, what was done is kept.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began, first, saved = time.perf_counter(), state.step, time.perf_counter()
    try:
        with tqdm(total=state.config.steps, initial=first, unit="step", desc="training", mininterval=0.5) as bar:
            for progress in train(state, data.normalise(images), y):
                bar.total = progress.steps
                seconds = time.perf_counter() - began
                bar.set_postfix_str(f"loss {progress.loss:.3f}, {(progress.step - first) * state.config.batch / seconds:,.0f} images/s", refresh=False)
                bar.update(progress.step - bar.n)
                if time.perf_counter() - saved > CHECKPOINT_SECONDS:
                    save(state, folder / "checkpoint.safetensors")
                    saved = time.perf_counter()
    except KeyboardInterrupt:
        save(state, folder / "checkpoint.safetensors")
        sys.exit(f"\nstopped after step {state.step}; go on with:  python -m ddpm_tutorial train --resume {folder}")
    seconds = time.perf_counter() - began
    save(state, folder / "checkpoint.safetensors")
    model = state.averaged_model()

    # Write what a person wants to see.
    columns = len(classes)
    labels = torch.arange(columns).repeat(10)
    samples = model.sample(10 * columns, labels, "ddim", 50, scale=2.0)
    states = list(model.trajectory(1, labels[3], "ddpm", steps=min(100, model.schedule.T), scale=2.0, seed=1))
    window = max(1, len(state.losses) // 50)
    written = {
        "weights": model.save(folder / "model.safetensors"),
        "samples": _write(plots.grid(samples, columns, classes, f"guided samples of {name}: scale 2, DDIM, 50 steps"), folder / "samples.png"),
        "film strip": _write(plots.film_strip(states, title="from noise to a digit: DDPM, 100 steps, scale 2"), folder / "film_strip.png"),
        "loss curve": _write(plots.loss_curve(state.losses, window, f"training on {name}"), folder / "loss.png"),
    }
    figures = {"seconds": round(seconds, 1), "images_per_second": round((state.step - first) * state.config.batch / seconds)}
    print(f"trained {state.step - first} steps in {figures['seconds']} s, {figures['images_per_second']:,} images/s")
    if args.per_class:
        figures |= _measure(model, name, args.per_class, [1.0, 2.0], seed=1)
    (folder / "figures.json").write_text(json.dumps(figures, indent=2))
    for what, path in written.items():
        print(f"{what:>11}: {path}")


def _measure(model: DDPM, name: str, per_class: int, scales: list[float], seed: int) -> dict[str, float]:
    """Print and return what samples get, beside what real images get."""
    from . import metrics

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

    y = torch.arange(len(train_set.classes)).repeat_interleave(per_class)
    for scale in scales:
        parts = tqdm(range(0, len(y), 250), desc=f"{len(y):,} samples, scale {scale:g}", unit="batch", leave=False)
        samples = torch.cat([model.sample(len(y[i:i + 250]), y[i:i + 250], "ddim", 50, scale=scale, seed=seed, first=i) for i in parts])
        agreement = metrics.accuracy(judge, samples, y.to(samples.device))
        distance = metrics.frechet_distance(metrics.features(judge, samples), real)
        nearest = metrics.memorisation(samples, x, x_test)
        figures |= {f"agreement_scale_{scale:g}": agreement, f"frechet_scale_{scale:g}": distance, f"memorisation_scale_{scale:g}": nearest}
        print(f"  {len(y):,} samples, DDIM 50 steps, scale {scale:g}: agreement {agreement:.3f}, "
              f"Fréchet distance {distance:.3f} ({distance / figures['frechet_floor']:.1f} × floor), distance to the nearest training image {nearest:.2f} × a test image's")
    return figures


def _sample(args) -> None:
    from . import plots

    model = DDPM.load(args.weights).to(device())
    classes = model.config.num_classes
    columns = classes if classes and args.y is None else 10
    y = args.y if args.y is not None else torch.arange(args.n) % classes if classes else None
    images = model.sample(args.n, y, args.sampler, args.steps, args.eta, args.scale if y is not None else 1.0, args.seed)
    print(_write(plots.grid(images, columns), _unused(args.out)))


def _doctor(args) -> None:
    where = device()
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}; torch {torch.__version__}")
    print(f"device: {where}" + (f", {torch.cuda.get_device_name()}" if where.type == "cuda" else f", {torch.get_num_threads()} threads"))
    images, y, classes = data.load("digits")
    state = TrainState(DDPM(DDPMConfig(image_size=8, channels=1, num_classes=len(classes))).to(where), TrainConfig(steps=3))
    began = time.perf_counter()
    losses = [progress.loss for progress in train(state, data.normalise(images), y)]
    print(f"three training steps: {time.perf_counter() - began:.1f} s, losses " + ", ".join(f"{value:.3f}" for value in losses))
    print("all is well: try  python -m ddpm_tutorial train")


def _write(figure, path: Path) -> Path:
    figure.savefig(path, dpi=150)
    return path


def _unused(path: Path) -> Path:
    """The path itself, or with -2, -3, … if it is taken: nothing that exists is overwritten."""
    taken, k = path, 2
    while taken.exists():
        taken, k = path.with_name(f"{path.stem}-{k}{path.suffix}"), k + 1
    return taken


if __name__ == "__main__":
    main()
