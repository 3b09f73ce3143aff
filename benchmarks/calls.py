"""How many calls of the network does a picture need?  DDIM and DPM-Solver++(2M), both lists of times, on the models that come with the package.

    python benchmarks/calls.py digits            writes benchmarks/calls-digits.csv, a row for each cell and noise seed; goes on where it was stopped
    python benchmarks/calls.py mnist --n 100 --calls 10 20       MNIST must be at hand: --data-dir FOLDER, or $DDPM_DATA
    python benchmarks/calls.py table             the table of both, with paired 95 % intervals

A row: the share of samples in which the judge sees the class that was asked for, and the Fréchet distance of their features to the test images'.  All
samplers start from the same x_T of a seed, so differences are taken seed by seed.  Distances compare at equal n only; the floor is that of as many
training images.
"""

import argparse
import csv
import itertools
import math
import time
from pathlib import Path

import torch

from ddpm_tutorial import DDPM, data, timesteps_in_log_snr
from ddpm_tutorial.evaluation import load_classifier, metrics
from ddpm_tutorial.training import best_precision
from ddpm_tutorial.weights import PRETRAINED

HERE = Path(__file__).parent
CALLS, SCALES, SEEDS = (5, 8, 10, 15, 20, 50), (1.0, 2.0), range(5)
WAYS = [*itertools.product(("ddim", "dpm++"), ("even", "log-snr")), ("dpm++", "log-snr to 4")]      # and the end of the list is one step
REFERENCE = (50, "ddim", "even")
FIELDS = ("model", "n", "sampler", "spacing", "calls", "scale", "seed", "agreement", "frechet", "floor", "seconds")
T_95 = {3: 4.303, 4: 3.182, 5: 2.776}                           # Student's t of 95 %, by the number of seeds


def measure(name: str, n: int, chosen: list[int], folder: Path | None) -> None:
    """Fill in what is missing in the CSV file; DDIM with 50 even steps, which all others are held against, is always measured."""
    path, model = HERE / f"calls-{name}.csv", DDPM.load(name)
    done = {tuple(row[f] for f in FIELDS[1:7]) for row in rows(path)}
    judge, _ = load_classifier(PRETRAINED[name].with_name(f"{name}-classifier.safetensors"))
    train, test = (data.load(name, split, folder) for split in ("train", "test"))
    real = metrics.features(judge, data.normalise(test.images))
    floor = metrics.frechet_distance(metrics.features(judge, data.normalise(train.images[metrics.per_class(train.y, n // 10)])), real)
    y, precision = torch.arange(10).repeat(n // 10), best_precision(model.device)
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if not done and not path.stat().st_size:
            writer.writerow(FIELDS)
        for seed, calls, scale, (sampler, spacing) in itertools.product(SEEDS, CALLS, SCALES, WAYS):
            key = tuple(map(str, (n, sampler, spacing, calls, scale, seed)))
            if key in done or (calls not in chosen and (calls, sampler, spacing) != REFERENCE):
                continue
            began = time.perf_counter()
            with torch.autocast("cpu", getattr(torch, precision), enabled=precision != "float32"):
                if spacing == "log-snr to 4":
                    x = model.sample(n, y, sampler, scale=scale, seed=seed, times=timesteps_in_log_snr(model.schedule, calls, last=4.0))
                else:
                    x = model.sample(n, y, sampler, calls, scale=scale, seed=seed, spacing=spacing)
            seconds = time.perf_counter() - began
            distance = metrics.frechet_distance(metrics.features(judge, x), real)
            writer.writerow([name, *key, f"{metrics.accuracy(judge, x, y):.4f}", f"{distance:.4f}", f"{floor:.4f}", f"{seconds:.1f}"])
            file.flush()


def rows(path: Path) -> list[dict]:
    """What was measured so far."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half the width of Student's 95 % interval of it."""
    x = torch.tensor(values, dtype=torch.float64)
    return x.mean().item(), (T_95[len(x)] * x.std() / math.sqrt(len(x))).item() if len(x) in T_95 else math.nan


def table(name: str) -> str:
    """Markdown: agreement and distance above the floor of each way, and its paired difference to DDIM with 50 even steps."""
    found = rows(HERE / f"calls-{name}.csv")
    lines = ["| scale | sampler | times | " + " | ".join(f"{calls} calls" for calls in CALLS) + " |", "|---|---|---|" + "---|" * len(CALLS)]
    for scale, (sampler, spacing) in itertools.product(SCALES, WAYS):
        def of(calls, sampler=sampler, spacing=spacing, scale=scale):
            chosen = [r for r in found if (r["sampler"], r["spacing"], r["calls"], r["scale"]) == (sampler, spacing, str(calls), str(scale))]
            return {r["seed"]: r for r in chosen}

        best, cells = of(50, "ddim", "even"), []
        for calls in CALLS:
            here = of(calls)
            seeds = sorted(here.keys() & best.keys())
            if not seeds:
                cells.append("–")
                continue
            agreement = sum(float(here[s]["agreement"]) for s in seeds) / len(seeds)
            above, _ = interval([float(here[s]["frechet"]) - float(here[s]["floor"]) for s in seeds])
            more, half = interval([float(here[s]["frechet"]) - float(best[s]["frechet"]) for s in seeds])
            cells.append(f"{agreement:.1%}, {above:.2f} ({more:+.2f} ± {half:.2f})")
        lines.append(f"| {scale:g} | {sampler} | {spacing} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("digits", "mnist", "table"))
    parser.add_argument("--n", type=int, default=500, help="images for each cell and seed, a multiple of 10")
    parser.add_argument("--calls", type=int, nargs="+", default=CALLS, choices=CALLS)
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    if args.what != "table":
        measure(args.what, args.n, args.calls, args.data_dir)
    for name in ("digits", "mnist"):
        if (HERE / f"calls-{name}.csv").is_file():
            print(f"\n{name}: agreement, distance above the floor (paired difference to DDIM with 50 even steps, 95 %)\n\n{table(name)}")
