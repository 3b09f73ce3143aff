"""The two comparisons that every class makes: linear against cosine schedule, and DDPM against DDIM, over seeds, with intervals.

    python benchmarks/compare.py [schedules] [samplers] [--seeds 5] [--jobs 2] [--quick]

Ten small models, five of each schedule, are trained on the digits with the package's recipe: the same network, data, learning rates and number
of steps, in float32.  Then each draws digits in few and in many steps, and the package's judge measures them.  About forty minutes on
two CPU cores.  It can be stopped at any time: finished trainings lie in runs/compare/, finished measurements in the CSV files beside this one.
"""

import argparse
import csv
import json
import math
import statistics
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import cache
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ddpm_tutorial import DDPM, TrainState, data, evaluation, train
from ddpm_tutorial.evaluation import metrics
from ddpm_tutorial.training.recipes import RECIPES
from ddpm_tutorial.weights import PRETRAINED

HERE = Path(__file__).resolve().parent
RUNS = HERE.parent / "runs" / "compare"                         # ignored by git
BLOCK = 250                                                     # images; the distance and the recall depend on how many, so they are means over blocks
STEPS = (5, 10, 20, 50, 100, 250, 1000)


class Point(NamedTuple):
    """One measurement: a model, and how it draws."""

    schedule: str
    seed: int                                                   # of the first weights, of training, and of the noise that the samples start from
    train_steps: int
    sampler: str
    steps: int
    eta: float                                                  # DDPM's own noise is η = 1
    variance: str                                               # small, β̃, which DDIM's σ is with η = 1; or large, β
    n: int


# Sampler, η, variance.  DDIM with η = 1 is not drawn: it is DDPM's "small", image by image.
SAMPLERS = {"DDIM, η = 0": ("ddim", 0.0, "small"), "DDIM, η = 0.5": ("ddim", 0.5, "small"),
            "DDPM, small σ (DDIM, η = 1)": ("ddpm", 1.0, "small"), "DDPM, large σ": ("ddpm", 1.0, "large")}
COMPARED = {"samplers": [("cosine", name) for name in SAMPLERS],
            "schedules": [(schedule, name) for schedule in ("linear", "cosine") for name in ("DDIM, η = 0", "DDPM, small σ (DDIM, η = 1)")]}
MEASURED = ("agreement", "frechet", "frechet_ratio", "precision", "recall", "memorisation")
COLUMNS = (*Point._fields, *MEASURED, "seconds", "cpu_seconds", "train_cpu_seconds")
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)     # 97.5 % quantile of Student's t with 1, 2, … degrees of freedom


def points(what: str, seeds: int, train_steps: int, steps: Iterable[int] = STEPS) -> list[Point]:
    """All measurements of a comparison; where steps are cheap, twice the images."""
    return [Point(schedule, seed, train_steps, sampler, S, eta, variance, BLOCK * (2 if S <= 20 else 1))
            for schedule, name in COMPARED[what] for sampler, eta, variance in [SAMPLERS[name]]
            for S in steps if what == "samplers" or S <= 250 for seed in range(seeds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparisons", nargs="*", metavar="COMPARISON", help=f"{' or '.join(COMPARED)}; default: both")
    parser.add_argument("--seeds", type=int, default=5, help="models of each schedule (default 5)")
    parser.add_argument("--train-steps", type=int, default=700, help="training steps of each model (default 700, a minute on two cores)")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help=f"sampling steps (default {' '.join(map(str, STEPS))})")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each (default 2)")
    parser.add_argument("--quick", action="store_true", help="all small, to see that it runs; give it an --out of its own")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the CSV files (default: this file's)")
    args = parser.parse_args()
    if unknown := set(args.comparisons) - set(COMPARED):
        parser.error(f"unknown comparison {', '.join(sorted(unknown))}; choose from {', '.join(COMPARED)}")
    if not 2 <= args.seeds <= len(STUDENT) + 1:
        parser.error(f"--seeds is {args.seeds}; an interval takes 2 … {len(STUDENT) + 1}")
    args.out = args.out.resolve()
    if args.quick:
        if args.out == HERE:
            parser.error("--quick measures models of 20 steps: give an --out, so that no real measurements are mixed with them")
        args.seeds, args.train_steps, args.steps = 2, 20, [2, 3]

    wanted = {name: points(name, args.seeds, args.train_steps, args.steps) for name in COMPARED if name in (args.comparisons or COMPARED)}
    kept = {name: read(args.out / f"{name}.csv") for name in COMPARED}
    done = {**kept["schedules"], **kept["samplers"]}            # a row of the one may serve the other
    todo = {*chain(*wanted.values())} - done.keys()

    def rows(name):
        return sorted((kept[name] | {point: done[point] for point in wanted[name] if point in done}).items())

    args.out.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=sum(point.n * point.steps for point in todo), desc="images × steps", unit_scale=True, disable=not todo)
    with bar, ProcessPoolExecutor(args.jobs, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for seed in range(args.seeds):                      # seed by seed, so that a command that was stopped has something to show
                mine = sorted((point for point in todo if point.seed == seed), key=lambda point: -point.steps)      # longest first: all end together
                for training in [pool.submit(trained, *model) for model in {(point.schedule, seed, args.train_steps) for point in mine}]:
                    training.result()
                for finished in as_completed([pool.submit(measured, point) for point in mine]):
                    point, done[point] = finished.result()
                    for name in wanted:
                        write(args.out / f"{name}.csv", rows(name))
                    bar.update(point.n * point.steps)
        finally:
            pool.shutdown(cancel_futures=True)                  # after Ctrl-C or an error, not all the rest first

    for name in wanted:
        write(args.out / f"{name}.csv", rows(name))             # also where nothing was left to do: the other comparison may have measured it
        print(report(name, [(point, done[point]) for point in wanted[name]]))
    for schedule in {point.schedule for point in todo} if args.out == HERE else ():     # one of each is kept, for readers who want to draw anew
        DDPM.load(weights(schedule, 0, args.train_steps)).save(HERE / "weights" / f"{schedule}.safetensors", half=True)


# A training, and a measurement; each runs in a process of its own, with one thread.

def weights(schedule: str, seed: int, steps: int) -> Path:
    return RUNS / f"{schedule}-{seed}-{steps}.safetensors"


def trained(schedule: str, seed: int, steps: int) -> Path:
    """The digits recipe with another schedule; the averaged weights, and beside them how many CPU seconds it took.  Once is enough."""
    path = weights(schedule, seed, steps)
    if path.is_file():
        return path
    (config, how), (images, y, _) = RECIPES["digits"], data.load("digits")
    torch.manual_seed(seed)
    state = TrainState(DDPM(replace(config, schedule=schedule)), replace(how, steps=steps, seed=seed, precision="float32"))
    began = time.process_time()
    deque(train(state, data.normalise(images), y), maxlen=0)    # to its end
    seconds = time.process_time() - began
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps({"cpu_seconds": seconds}), encoding="utf-8")
    return state.averaged_model().save(path)


def measured(point: Point) -> tuple[Point, dict[str, float]]:
    """Within a seed every sampler starts from the same noise, so that differences between them are sharper than either."""
    path = weights(point.schedule, point.seed, point.train_steps)
    y = torch.arange(point.n) % 10                              # each block has as many of each class
    began, cpu = time.perf_counter(), time.process_time()
    eta = {"eta": point.eta} if point.sampler == "ddim" else {"variance": point.variance}
    samples = DDPM.load(path).sample(point.n, y, point.sampler, point.steps, seed=point.seed, **eta)
    spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    spent["train_cpu_seconds"] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["cpu_seconds"]
    return point, quality(samples, y) | spent


@cache
def real() -> tuple[evaluation.Judge, float]:
    """The package's judge of digits, and the floor: the mean distance to the test images of blocks of train images, with as many of each class."""
    (images, y, _), (test, y_test, _) = data.load("digits"), data.load("digits", "test")
    classifier, _ = evaluation.load_classifier(PRETRAINED["digits"].parent / "digits-classifier.safetensors")
    judge = evaluation.judge(classifier, data.normalise(images), y, data.normalise(test), y_test)
    blocks = torch.stack([(y == k).nonzero().flatten()[:100] for k in range(10)], dim=1).flatten()      # 0, 1, … 9, 0, 1, …, 100 of each
    seen = metrics.features(classifier, judge.x_train[blocks]).split(BLOCK)
    return judge, statistics.mean(metrics.frechet_distance(part, judge.features) for part in seen)


def quality(samples: Tensor, y: Tensor) -> dict[str, float]:
    """Agreement and memorisation of all samples; distance, precision and recall as means over blocks of 250."""
    judge, floor = real()
    seen = metrics.features(judge.classifier, samples)
    frechet = statistics.mean(metrics.frechet_distance(part, judge.features) for part in seen.split(BLOCK))
    precision, recall = (statistics.mean(values) for values in zip(*(metrics.precision_recall(judge.features, part) for part in seen.split(BLOCK))))
    memorisation = (metrics.nearest(samples, judge.x_train)[0].median() / judge.apart.median()).item()
    return dict(zip(MEASURED, (metrics.accuracy(judge.classifier, samples, y), frechet, frechet / floor, precision, recall, memorisation)))


# Rows on disk.

def read(path: Path) -> dict[Point, dict[str, float]]:
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kinds = Point.__annotations__
    return {Point(**{k: kinds[k](row[k]) for k in Point._fields}): {k: float(row[k]) for k in COLUMNS if k not in Point._fields} for row in rows}


def write(path: Path, rows: list[tuple[Point, dict[str, float]]]) -> None:
    """Whole or not at all: a command that is stopped leaves the old file or the new one."""
    beside = path.with_name(f".{path.name}")
    with open(beside, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerows([*point, *(f"{row[k]:.5g}" for k in COLUMNS if k not in Point._fields)] for point, row in rows)
    beside.replace(path)


# What came out.

def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half the length of its 95 % interval over seeds: Student's t, because a handful of values hardly know their own spread."""
    if not 2 <= len(values) <= len(STUDENT) + 1:
        raise ValueError(f"there are {len(values)} values; an interval takes 2 … {len(STUDENT) + 1}")
    return statistics.mean(values), STUDENT[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values))


TABLES = (("Fréchet distance ÷ floor", "frechet_ratio", 2), ("agreement", "agreement", 3), ("recall", "recall", 2), ("memorisation", "memorisation", 2))


def report(what: str, rows: list[tuple[Point, dict[str, float]]]) -> str:
    """Markdown: one table per number, samplers down and steps across."""
    names, seeds = {setting: name for name, setting in SAMPLERS.items()}, defaultdict(list)
    for point, row in rows:
        seeds[point.schedule, names[point.sampler, point.eta, point.variance], point.steps].append(row)
    across, n = sorted({steps for *_, steps in seeds}), sorted({point.n for point, _ in rows})
    parts = [f"# {what}: mean of {len({point.seed for point, _ in rows})} seeds ± 95 % interval (Student's t), {' to '.join(map(str, n))} images each\n"]
    for title, key, digits in TABLES:
        parts.append(f"{title}\n\n| steps | " + " | ".join(map(str, across)) + " |\n|---|" + "---:|" * len(across))
        for schedule, name in COMPARED[what]:
            cells = [interval([row[key] for row in seeds[schedule, name, S]]) for S in across]
            parts.append(f"| {schedule}: {name} | " + " | ".join(f"{mean:.{digits}f} ± {half:.{digits}f}" for mean, half in cells) + " |")
        parts.append("")
    cpu = sum(row["cpu_seconds"] for _, row in rows) + sum({(p.schedule, p.seed): row["train_cpu_seconds"] for p, row in rows}.values())
    return "\n".join([*parts, f"{len(rows)} measurements; {cpu / 60:.0f} CPU minutes of training and drawing.\n"])


if __name__ == "__main__":
    sys.exit(main())
