"""What a trained model is worth, for the command line: pictures, and a table of numbers beside what real images get."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from .. import data
from ..ddpm import DDPM
from ..terminal import written
from ..training.devices import best_precision
from ..training.recipes import DIGITS_GAVE, RECIPES, usual
from ..training.state import TrainState
from ..weights import PRETRAINED
from . import judging, metrics


def pictures(model: DDPM, losses: list[float], name: str, classes: tuple[str, ...], folder: Path) -> dict[str, Path]:
    """Samples, a film strip, the loss curve and an animation, written into the folder: {what it is: path}."""
    from .. import plots

    T = min(100, model.schedule.T)
    labelled = model.config.num_classes is not None
    columns, scale, how = (len(classes), 2.0, "guided samples, scale 2") if labelled else (10, 1.0, "samples")
    y = torch.arange(columns) if labelled else None
    with _fast(model):
        samples = model.sample(10 * columns, y.repeat(10) if labelled else None, scale=scale)
        walk = list(model.trajectory(columns, y, "ddpm", T, scale=scale, seed=1))
    shown = min(3, columns - 1)
    figures = {
        "samples": plots.grid(samples, columns, classes if labelled else (), f"{name}: {how}"),
        "film_strip": plots.film_strip(walk, image=shown, title=f"from noise to {classes[shown] if labelled else 'an image'}: DDPM, {T} steps"),
        "loss": plots.loss_curve(losses, max(1, len(losses) // 50), f"training on {name}"),
    }
    for what, figure in figures.items():
        with written(folder / f"{what}.png") as place:
            figure.savefig(place, dpi=150)
    with written(folder / "denoising.gif") as place:
        plots.gif([state.x_t for state in walk[::2]], place, columns=columns)
    return {what.replace("_", " "): folder / f"{what}.png" for what in figures} | {"animation": folder / "denoising.gif"}


def measured(model: DDPM, settings: dict, per_class: int, scales: list[float], seed: int, judges: int = 1, sampler: str = "dpm++",
             steps: int | None = None) -> dict[str, dict]:
    """Print and return what samples get, beside what real images get.

    judges: ask so many; the others are trained from the seeds 1, 2, …, once, and kept in runs/judges, one folder for each data set.
    """
    train_set, test_set = (data.load(settings["data"], split, settings["data_dir"], settings["size"]) for split in ("train", "test"))
    x, x_test = (data.normalise(d.images).to(model.device) for d in (train_set, test_set))
    if x.shape[1:] != model.shape:
        raise ValueError(f"the model makes images {model.shape}, and those of {settings['data']} are {tuple(x.shape[1:])}: name the data set that it was "
                         "trained on with --data, and --size if they were resized")
    judge = judging.judge(_judge_for(settings, x, train_set.y), x, train_set.y, x_test, test_set.y)
    kept = Path("runs") / "judges" / f"{Path(settings['data']).name}-{x.shape[-1]}"
    panel = judging.panel(judge, range(1, judges), kept, _epochs(x))
    K, walk = len(train_set.classes), f"{sampler}, {steps or (model.schedule.T if sampler == 'ddpm' else min(20, model.schedule.T))} steps"
    y = torch.arange(K).repeat_interleave(per_class)
    rows = {f"real images ({len(x_test):,} for testing)": judging.floors(judge, len(y))}
    for scale in scales if model.config.num_classes else [1.0]:
        samples = []
        for i in tqdm(range(0, len(y), 250), desc=f"{len(y):,} samples, scale {scale:g}", unit="batch", leave=False):
            labels = y[i:i + 250]
            with _fast(model):
                samples.append(model.sample(len(labels), labels if model.config.num_classes else None, sampler, steps, scale=scale, seed=seed, first=i))
        row = rows[f"scale {scale:g}"] = judging.measure_by(torch.cat(samples), y, panel) if judges > 1 else judging.measure(torch.cat(samples), y, judge)
        if not model.config.num_classes:                        # nothing was asked for
            for key in [key for key in row if key.startswith("agreement") or key == "control"]:
                del row[key]
        if x.shape[1] == 3:
            try:
                row["fid"] = judging.torch_fidelity_fid(data.denormalise(torch.cat(samples)), test_set.images)
                print(f"FID (Inception) of {len(y):,} samples at scale {scale:g}: {row['fid']:.2f}")
            except (ImportError, FileNotFoundError) as missing:
                print(missing)
    asked = f" [lowest … highest of {judges} judges]" if judges > 1 else ""
    print(f"\n{walk}, {best_precision(model.device)}, noise seed {seed} (95 % intervals) ± standard error{asked}:\n\n"
          f"{judging.table(rows)}\n", flush=True)
    return rows


def beside_usual(state: TrainState, name: str, row: dict) -> str:
    """One line for who trained the digits' recipe: what so many steps usually give.  A slower machine makes fewer steps of a minute, and gets less."""
    if name != "digits" or replace(state.model.config, classes=()) != RECIPES[name][0] or state.config != replace(
            RECIPES[name][1], **{key: getattr(state.config, key) for key in ("steps", "seconds", "seed", "precision", "micro", "compile")}):
        return ""
    got = f"{row['agreement']:.1%} and {row['frechet_above']:.2f} above the floor at scale 1"
    if state.step < min(DIGITS_GAVE):
        return f"{state.step:,} steps gave {got}; with fewer than {min(DIGITS_GAVE)} this recipe is not done: train longer, with --seconds 240 say\n"
    agreement, above = usual(min(state.step, max(DIGITS_GAVE)))
    return (f"{state.step:,} steps gave {got}; usual after so many{' or more' if state.step > max(DIGITS_GAVE) else ''}: {agreement:.1%} and {above:.2f}. "
            f"How many steps a minute has is the machine's doing\n")


def _fast(model: DDPM) -> torch.autocast:
    """The network's layers in what suits the device.  On the digits bfloat16 saves a third of the time, and the table stays what it is."""
    precision = best_precision(model.device)
    return torch.autocast(model.device.type, getattr(torch, precision), enabled=precision != "float32")


def _judge_for(settings: dict, x: Tensor, y: Tensor) -> metrics.Classifier:
    """The judge: the one that comes with the package, or else trained now."""
    if not y.any():
        raise ValueError(f"{settings['data']} has one class: a classifier learns nothing from that, and cannot judge; measuring takes two classes")
    path = PRETRAINED["digits"].parent / f"{settings['data']}-classifier.safetensors"
    if settings["data"] in data.LOADERS and path.is_file() and settings["size"] is None:
        net, card = judging.load_classifier(path)
        print(f"the judge: {path.name}, SHA-256 {judging.sha256(path)[:16]}…, test accuracy {card['test_accuracy']:.4f}", flush=True)
        return net.to(x.device)
    print("training the judge: a small classifier, on the train split only …", flush=True)
    return metrics.train_classifier(x, y.to(x.device), epochs=_epochs(x))


def _epochs(x: Tensor) -> int:
    return 15 if len(x) < 10_000 else 3
