"""Linear against cosine, and DDPM against DDIM, taken apart: over seeds, with intervals, and above the floor.

    python benchmarks/compare.py [schedules] [walks] [samplers] [--seeds 5] [--jobs 2] [--quick] [--estimate]

    schedules   trained under linear or cosine × walked under linear or cosine, by DDIM, DDPM and 2M, with training times drawn in two ways
    walks       the same walks with the exact denoiser of the training images, where nothing is trained and only the walk is left
    samplers    DDIM, DDPM with small and large variance, and 2M, on cosine models, 1,000 images each

The digits, the package's recipe, float32.  It first says how long it will take, and can be stopped at any time: finished trainings lie in
runs/compare/, finished measurements in compare.csv beside this file.

A schedule does two things: it says where training looks, and it says where a walk stops.  Measured together, neither is.

*Walking under another schedule.*  What a network learns under A is E[ε | x_t] for x_t = √ᾱ x_0 + √(1-ᾱ) ε.  That depends on ᾱ alone, or on the
noise level σ = √((1-ᾱ)/ᾱ); t is no more than the name by which the network knows σ.  Steps from t to s, too, hold ᾱ_t and ᾱ_s and nothing else.  So
a model trained under A walks under B as it is: x_t, the steps and x̂_0 are B's, and at B's time τ the network is told A's time of the same noise,

    t(τ) = argmin_t |log σ^A(t) - log σ^B(τ)|.

Where digits are made (0.02 < σ < 20) the two σ differ by less than 6 %; beyond that A's grid may be coarser, or end (linear at σ = 157, cosine at
20,000), and there every noise level looks the same to a network, because nothing is left of the image.  A test walks an exact denoiser so, and ends
where the one that knows B ends, to two hundredths of the width of a hill.

*Training times alike.*  t is drawn from p(t), so training sees log σ distributed as p(t) and the schedule together have it.  "matched": both see what
the recipe sees under cosine, t = T·sigmoid(N(0, 1.2²)); the model "trained under linear" is given the same noisy images, and is told the linear time
of the same σ, in the same way.  What is left of its schedule is the clock.  "uniform": t uniform in 1 … T under each schedule, as in the papers, so that the
schedule decides where training looks.

*What is compared.*  The Fréchet distance of 250 samples above its floor; means over blocks of 250 samples; differences paired by seed (the same first
weights, data order, ε and x_T); Student's t over seeds; Holm's correction over each family of comparisons.  Two are called equal if the whole interval
lies within a tenth of the floor.
"""

import argparse
import csv
import json
import math
import statistics
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import cache, partial
from itertools import groupby, product
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor, nn
from tqdm import tqdm

from ddpm_tutorial import DDPM, TrainState, UNet, data, dataset_denoiser, evaluation, train
from ddpm_tutorial.evaluation import metrics
from ddpm_tutorial.samplers import ddim_step, ddpm_step, dpm_solver_2m, final, sample, seeded_noise
from ddpm_tutorial.schedules import Schedule, by_name
from ddpm_tutorial.training.recipes import RECIPES
from ddpm_tutorial.weights import PRETRAINED

HERE = Path(__file__).resolve().parent
RUNS = HERE.parent / "runs" / "compare"                         # ignored by git
BLOCK = 250                                                     # images; the distance and the recall depend on how many, so they are means over blocks
STEPS = (5, 10, 20, 50, 250)
T = 1000
MARGIN = 0.1                                                    # of the floor: what is closer than this is called equal


class Point(NamedTuple):
    """One measurement: a model, how it draws, and which images of that seed."""

    trained: str                                                # linear or cosine; exact: no training, the exact denoiser of the training images
    times: str                                                  # of training: matched, uniform; none: no training
    seed: int                                                   # of the first weights, of training, and of the noise that the samples start from
    train_steps: int
    walked: str                                                 # linear or cosine
    sampler: str
    steps: int
    block: int                                                  # images number block·250 … block·250 + 249


# A new step for each walk: 2M remembers its last x̂_0.
SAMPLERS: dict[str, Callable[[], Callable]] = {
    "DDIM": lambda: ddim_step, "DDPM": lambda: partial(ddpm_step, variance="small"), "DDPM, large": lambda: partial(ddpm_step, variance="large"),
    "2M": dpm_solver_2m}
SCHEDULES, TIMES, COMPARED = ("linear", "cosine"), ("matched", "uniform"), ("schedules", "walks", "samplers")
MEASURED = ("agreement", "frechet", "above", "above_judge_1", "above_judge_2", "kernel", "precision", "recall", "variety", "memorisation")
COLUMNS = (*Point._fields, *MEASURED, "seconds", "cpu_seconds", "train_cpu_seconds")


def points(what: str, seeds: int = 5, train_steps: int = 700, steps: Iterable[int] = STEPS, blocks: int = 4) -> list[Point]:
    """All measurements of a comparison; where many models share the work, a quarter of the images of each."""
    walks = [name for name in SAMPLERS if name != "DDPM, large"]
    models, walked, names, blocks = {
        "schedules": ([*product(SCHEDULES, TIMES)], SCHEDULES, walks, max(1, blocks // 4)),
        "walks": ([("exact", "none")], SCHEDULES, walks, blocks),
        "samplers": ([("cosine", "matched")], ("cosine",), [*SAMPLERS], blocks)}[what]
    return [Point(*model, seed, 0 if model[0] == "exact" else train_steps, under, name, S, block)
            for model, seed, under, name, S, block in product(models, range(seeds), walked, names, steps, range(blocks))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparisons", nargs="*", metavar="COMPARISON", help=f"{', '.join(COMPARED)}; default: all")
    parser.add_argument("--seeds", type=int, default=5, help="models of each kind (default 5)")
    parser.add_argument("--train-steps", type=int, default=700, help="training steps of each model (default 700, a minute on two cores)")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help=f"sampling steps (default {' '.join(map(str, STEPS))})")
    parser.add_argument("--blocks", type=int, default=4, help="blocks of 250 images for each number (default 4); a quarter of that for schedules")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each (default 2)")
    parser.add_argument("--estimate", action="store_true", help="only say how long it would take")
    parser.add_argument("--quick", action="store_true", help="all small, to see that it runs; give it an --out of its own")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for compare.csv and the figures (default: this file's)")
    args = parser.parse_args()
    if unknown := set(args.comparisons) - set(COMPARED):
        parser.error(f"unknown comparison {', '.join(sorted(unknown))}; choose from {', '.join(COMPARED)}")
    if args.seeds < 2:
        parser.error(f"--seeds is {args.seeds}; an interval takes two at least")
    args.out = args.out.resolve()
    if args.quick:
        if args.out == HERE:
            parser.error("--quick measures models of 20 steps: give an --out, so that no real measurements are mixed with them")
        args.seeds, args.train_steps, args.steps, args.blocks = 2, 20, [2, 3], 2

    names = [name for name in COMPARED if name in (args.comparisons or COMPARED)]
    wanted = {name: points(name, args.seeds, args.train_steps, args.steps, args.blocks) for name in names}
    done = read(args.out / "compare.csv")
    todo = {point for name in names for point in wanted[name]} - done.keys()
    if todo:
        print(estimate(todo, args.jobs), flush=True)
    if args.estimate:
        return
    args.out.mkdir(parents=True, exist_ok=True)
    if todo:
        real()                                                  # trains the other judges, once and not in every process
        measure_all(todo, done, args)
    chosen = {point: done[point] for name in names for point in wanted[name]}
    print(report(chosen))
    (args.out / "compare.md").write_text(f"# {' '.join(__doc__.splitlines()[0].split())}\n\nWritten by `python benchmarks/compare.py {' '.join(names)}`, "
                                         f"PyTorch {torch.__version__.split('+')[0]}, {torch.backends.cpu.get_cpu_capability()}, one thread.\n\n"
                                         + report(chosen), encoding="utf-8")
    for name, figure in forests(differences(chosen)).items():
        figure.savefig(args.out / f"compare-{name}.png", dpi=110)
    for schedule in SCHEDULES if args.out == HERE and "schedules" in names else ():     # one of each is kept, for readers who want to draw anew
        DDPM.load(weights(schedule, "matched", 0, args.train_steps)).save(HERE / "weights" / f"{schedule}.safetensors", half=True)


def measure_all(todo: set[Point], done: dict, args: argparse.Namespace) -> None:
    bar = tqdm(total=sum(BLOCK * point.steps for point in todo), desc="images × steps", unit_scale=True)
    with bar, ProcessPoolExecutor(args.jobs, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for seed in range(args.seeds):                      # seed by seed, so that a command that was stopped has something to show
                mine = sorted((point for point in todo if point.seed == seed), key=lambda point: -point.steps)      # longest first: all end together
                models = {point[:4] for point in mine if point.trained != "exact"}
                for training in [pool.submit(trained, *model) for model in sorted(models)]:
                    training.result()
                for finished in as_completed([pool.submit(measured, point) for point in mine]):
                    point, done[point] = finished.result()
                    write(args.out / "compare.csv", done)
                    bar.update(BLOCK * point.steps)
        finally:
            pool.shutdown(cancel_futures=True)                  # after Ctrl-C or an error, not all the rest first


# The clock.

class Told(nn.Module):
    """A network that knows the times of one schedule, under another: it is told its own time of the same σ."""

    def __init__(self, net: nn.Module, known: Schedule, under: Schedule):
        super().__init__()
        self.net = net
        self.table = torch.cat([torch.zeros(1), (known.log_snr[1:, None] - under.log_snr[1:]).abs().argmin(0) + 1]).long()     # under's t → known's

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.net(x_t, self.table[t], y)


# A training, and a measurement; each runs in a process of its own, with one thread.

def weights(schedule: str, times: str, seed: int, steps: int) -> Path:
    return RUNS / f"{schedule}-{times}-{seed}-{steps}.safetensors"


def trained(schedule: str, times: str, seed: int, steps: int) -> Path:
    """The digits recipe under a schedule; the averaged weights, and beside them how many CPU seconds it took.  Once is enough."""
    path = weights(schedule, times, seed, steps)
    if path.is_file() and path.with_suffix(".json").is_file():
        return path
    (config, how), (images, y, _) = RECIPES["digits"], data.load("digits")
    drawn, under = ("logit-normal", "cosine") if times == "matched" else ("uniform", schedule)
    torch.manual_seed(seed)
    net = UNet(config.unet)
    net = net if schedule == under else Told(net, by_name(schedule, T), by_name(under, T))
    state = TrainState(DDPM(replace(config, schedule=under), net), replace(how, steps=steps, seed=seed, precision="float32", times=drawn))
    began = time.process_time()
    deque(train(state, data.normalise(images), y), maxlen=0)    # to its end
    seconds = time.process_time() - began
    net = state.averaged_model().net
    path.parent.mkdir(parents=True, exist_ok=True)
    DDPM(replace(config, schedule=schedule), net.net if isinstance(net, Told) else net).save(path)
    path.with_suffix(".json").write_text(json.dumps({"cpu_seconds": seconds}), encoding="utf-8")
    return path


def exact(schedule: Schedule, y: Tensor) -> Callable[[Tensor, int], Tensor]:
    """The exact denoiser of the training images of class y, image by image."""
    images, labels, _ = data.load("digits")
    of_class = {k: dataset_denoiser(data.normalise(images[labels == k]), schedule) for k in y.unique().tolist()}

    def eps(x_t: Tensor, t: int) -> Tensor:
        out = torch.empty_like(x_t)
        for k, denoiser in of_class.items():
            out[y == k] = denoiser(x_t[y == k], t)
        return out

    return eps


def draw(point: Point, n: int = BLOCK) -> tuple[Tensor, Tensor]:
    """The images of a point, and their labels.  Within a seed every model and every walk starts from the same noise: differences are sharper than either."""
    y, walked = torch.arange(n) % 10, by_name(point.walked, T)  # each block has as many of each class
    if point.trained == "exact":
        denoiser = exact(walked, y)
    else:
        model = DDPM.load(weights(*point[:4]))
        net = model.net if point.walked == point.trained else Told(model.net, model.schedule, walked)
        denoiser = DDPM(replace(model.config, schedule=point.walked), net).eval().denoiser(y)
    noise = seeded_noise(point.seed, range(point.block * BLOCK, point.block * BLOCK + n), (1, 8, 8))
    x_T, drawn = noise(T), point.sampler.startswith("DDPM")
    return final(sample(denoiser, walked, x_T, SAMPLERS[point.sampler](), point.steps, noise=noise if drawn else None)).clamp(-1, 1), y


def measured(point: Point) -> tuple[Point, dict[str, float]]:
    began, cpu = time.perf_counter(), time.process_time()
    samples, y = draw(point)
    spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu, "train_cpu_seconds": 0.0}
    if point.trained != "exact":
        spent["train_cpu_seconds"] = json.loads(weights(*point[:4]).with_suffix(".json").read_text(encoding="utf-8"))["cpu_seconds"]
    return point, quality(samples, y) | spent


@cache
def real() -> tuple[list[evaluation.Judge], list[float]]:
    """The package's judge of digits and two more; and the floor of each: the mean distance to the test images of blocks of train images."""
    (images, y, _), (test, y_test, _) = data.load("digits"), data.load("digits", "test")
    classifier, _ = evaluation.load_classifier(PRETRAINED["digits"].parent / "digits-classifier.safetensors")
    panel = evaluation.panel(evaluation.judge(classifier, data.normalise(images), y, data.normalise(test), y_test), (1, 2), RUNS / "judges")
    blocks = torch.stack([(y == k).nonzero().flatten()[:100] for k in range(10)], dim=1).flatten()      # 0, 1, … 9, 0, 1, …, 100 of each
    return panel, [statistics.mean(metrics.frechet_distance(judge.seen(judge.x_train[part]), judge.features) for part in blocks.split(BLOCK))
                   for judge in panel]


def quality(samples: Tensor, y: Tensor) -> dict[str, float]:
    """A block of 250 by the shipped judge; and what is above the floor by the two others, too."""
    panel, floor = real()
    judge, seen = panel[0], [judge.seen(samples) for judge in panel]
    frechet = [metrics.frechet_distance(features, other.features) for features, other in zip(seen, panel)]
    return dict(zip(MEASURED, (
        metrics.accuracy(judge.classifier, samples, y), frechet[0], *(value - least for value, least in zip(frechet, floor)),
        metrics.kernel_distance(seen[0], judge.features, y, judge.y_test)[0], *metrics.precision_recall(judge.features, seen[0]),
        metrics.variety(samples, y, judge.x_test, judge.y_test), (metrics.nearest(samples, judge.x_train)[0].median() / judge.apart.median()).item())))


def estimate(todo: set[Point], jobs: int) -> str:
    """How long it will take: what a training step and a denoised image cost here, on one thread, times how many are asked for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (config, how), (images, y, _) = RECIPES["digits"], data.load("digits")
    state = TrainState(DDPM(config), replace(how, steps=12, precision="float32"))
    steps = train(state, data.normalise(images), y)
    deque((next(steps) for _ in range(2)), maxlen=0)            # the first ones are slow
    began = time.process_time()
    deque(steps, maxlen=0)
    step = (time.process_time() - began) / 10
    cost = {}
    for kind, denoiser in (("model", state.model.denoiser(torch.arange(BLOCK) % 10)), ("exact", exact(by_name("cosine", T), torch.arange(BLOCK) % 10))):
        began = time.process_time()
        final(sample(denoiser, by_name("cosine", T), torch.randn(BLOCK, 1, 8, 8), steps=5))
        cost[kind] = (time.process_time() - began) / 5
    torch.set_num_threads(threads)
    models = {point[:4] for point in todo if point.trained != "exact" and not weights(*point[:4]).is_file()}
    training = sum(model[3] * step for model in models)
    drawing = sum(point.steps * cost["exact" if point.trained == "exact" else "model"] + 0.3 for point in todo)      # 0.3 s: judging a block
    return (f"{len(models)} trainings and {len(todo)} blocks of {BLOCK} images to go: about {training / 60:.0f} and {drawing / 60:.0f} minutes on one thread, "
            f"{(training + drawing) / 60 / jobs:.0f} in {jobs} processes")


# Rows on disk.

def read(path: Path) -> dict[Point, dict[str, float]]:
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kinds = Point.__annotations__
    return {Point(**{k: kinds[k](row[k]) for k in Point._fields}): {k: float(row[k]) for k in COLUMNS if k not in Point._fields} for row in rows}


def write(path: Path, rows: dict[Point, dict[str, float]]) -> None:
    """Whole or not at all: a command that is stopped leaves the old file or the new one."""
    beside = path.with_name(f".{path.name}")
    with open(beside, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerows([*point, *(f"{row[k]:.5g}" for k in COLUMNS if k not in Point._fields)] for point, row in sorted(rows.items()))
    beside.replace(path)


# What came out.

class Difference(NamedTuple):
    """One paired comparison of what is above the floor: the first minus the second, so that less than 0 is better for the first."""

    family: str
    what: str                                                   # … minus …, and under which circumstances
    sampler: str
    steps: int
    mean: float
    half: float                                                 # of the 95 % interval's length: Student's t over seeds
    holm: float                                                 # p, corrected for all comparisons of the family
    judges: tuple[float, float]                                 # the mean by the two other judges

    def verdict(self, floor: float) -> str:
        low, high = self.mean - self.half, self.mean + self.half
        if -MARGIN * floor < low and high < MARGIN * floor:
            return "equal"
        return "cannot tell" if low < 0 < high else ("better" if high < 0 else "worse") + ("" if self.holm < 0.05 else ", alone")


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half the length of its 95 % interval over seeds: Student's t, because a handful of values hardly know their own spread."""
    if len(values) < 2:
        raise ValueError(f"there are {len(values)} values; an interval takes two at least")
    return statistics.mean(values), stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def contrasts(rows: dict[Point, dict]) -> Iterable[tuple[str, str, Point, Point]]:
    """(family, what, first, second) of all pairs that differ in one thing; first and second stand for their seeds and blocks."""
    kinds = {point._replace(seed=0, block=0) for point in rows}
    for second in sorted(kinds):
        if second.trained == "cosine":
            yield "training", f"trained linear - cosine; {second.times}, walked {second.walked}", second._replace(trained="linear"), second
        if second.walked == "cosine":
            how = "exact denoiser" if second.trained == "exact" else f"{second.times}, trained {second.trained}"
            family = "walk-exact" if second.trained == "exact" else "walk"
            yield family, f"walked linear - cosine; {how}", second._replace(walked="linear"), second
        if (second.trained, second.times, second.walked, second.sampler) == ("cosine", "matched", "cosine", "DDIM"):
            for name in (name for name in SAMPLERS if name != "DDIM"):
                yield "samplers", f"{name} - DDIM", second._replace(sampler=name), second


def by_seed(rows: dict[Point, dict], kind: Point, key: str = "above") -> dict[int, dict[int, float]]:
    """{seed: {block: value}}"""
    values: dict[int, dict[int, float]] = defaultdict(dict)
    for point, row in rows.items():
        if point._replace(seed=0, block=0) == kind:
            values[point.seed][point.block] = row[key]
    return values


def differences(rows: dict[Point, dict]) -> list[Difference]:
    """Every comparison that the rows allow, seed by seed and block by block from the same noise."""
    index: dict[Point, dict[Point, dict]] = defaultdict(dict)   # rows of each kind, so that nothing is searched twice
    for point, row in rows.items():
        index[point._replace(seed=0, block=0)][point] = row
    found = []
    for family, what, first, second in contrasts(rows):
        means = []
        for key in ("above", "above_judge_1", "above_judge_2"):
            a, b = (by_seed(index.get(kind, {}), kind, key) for kind in (first, second))
            means.append([statistics.mean(a[seed][block] - b[seed][block] for block in a[seed].keys() & b[seed].keys())
                          for seed in sorted(a.keys() & b.keys()) if a[seed].keys() & b[seed].keys()])
        if len(means[0]) > 1:
            mean, half = interval(means[0])
            p = float(stats.ttest_1samp(means[0], 0).pvalue) if half else float(mean == 0)
            found.append(Difference(family, what, second.sampler if family != "samplers" else first.sampler, second.steps, mean, half, p,
                                    (statistics.mean(means[1]), statistics.mean(means[2]))))
    return [d._replace(holm=corrected) for _, group in groupby(sorted(found, key=lambda d: d.family), key=lambda d: d.family)
            for members in [list(group)] for d, corrected in zip(members, holm([d.holm for d in members]))]


def holm(p: list[float]) -> list[float]:
    """Holm's step-down correction: the k-th smallest of m is multiplied by m - k + 1, and none may be smaller than one before it."""
    order, corrected, largest = sorted(range(len(p)), key=p.__getitem__), [0.0] * len(p), 0.0
    for k, i in enumerate(order):
        largest = corrected[i] = max(largest, min(1.0, p[i] * (len(p) - k)))
    return corrected


def components(values: dict[int, dict[int, float]]) -> tuple[float, float]:
    """Standard deviation between trainings, and between blocks of samples of one training: the one-way random-effects analysis of variance.

    Within a training the blocks differ by their noise only: s²_sampling.  Means of B blocks differ between trainings by s²_training + s²_sampling/B.
    An estimate of the former that is below 0 is given as 0.
    """
    blocks = [list(row.values()) for row in values.values()]
    if len(blocks) < 2 or len({len(row) for row in blocks}) != 1 or len(blocks[0]) < 2:
        raise ValueError(f"there are {[len(row) for row in blocks]} blocks of {len(blocks)} trainings; it takes two of both at least, as many of each")
    sampling = statistics.mean(statistics.variance(row) for row in blocks)
    training = statistics.variance([statistics.mean(row) for row in blocks]) - sampling / len(blocks[0])
    return math.sqrt(max(0.0, training)), math.sqrt(sampling)


def report(rows: dict[Point, dict]) -> str:
    """Markdown: what is above the floor, the paired differences with their verdicts, and where the spread comes from."""
    floor = next(iter(rows.values()))["frechet"] - next(iter(rows.values()))["above"]
    seeds, kinds = len({point.seed for point in rows}), sorted({point._replace(seed=0, block=0) for point in rows})
    steps = sorted({kind.steps for kind in kinds})
    index = {kind: by_seed({p: r for p, r in rows.items() if p._replace(seed=0, block=0) == kind}, kind) for kind in kinds}
    parts = [f"Fréchet distance of {BLOCK} images above the floor, {floor:.2f}: mean ± 95 % interval over {seeds} seeds, Student's t\n",
             "| trained | times | walked | sampler | " + " | ".join(f"{S} steps" for S in steps) + " |", "|---|---|---|---|" + "---:|" * len(steps)]
    for key, group in groupby(sorted(kinds, key=lambda k: (*k[:2], k.walked, k.sampler)), key=lambda k: (*k[:2], k.walked, k.sampler)):
        cells = {kind.steps: "{:.2f} ± {:.2f}".format(*interval([statistics.mean(row.values()) for row in index[kind].values()])) for kind in group}
        parts.append("| " + " | ".join([*key, *(cells.get(S, "–") for S in steps)]) + " |")
    for family, group in groupby(differences(rows), key=lambda d: d.family):
        members = list(group)
        parts += [f"\n{family}: {len(members)} differences (less than 0: the first is better), p after Holm for all of them, [the two other judges]\n",
                  "| what | sampler | steps | difference | judges | p | the first is |", "|---|---|---:|---:|---:|---:|---|"]
        parts += [f"| {d.what} | {d.sampler} | {d.steps} | {d.mean:+.2f} ± {d.half:.2f} | [{d.judges[0]:+.2f} {d.judges[1]:+.2f}] | {d.holm:.2g} | "
                  f"{d.verdict(floor)} |" for d in members]
    parts += [f"\n*equal*: the whole interval is within {MARGIN:g} of the floor, ±{MARGIN * floor:.2f}.  *alone*: 0 is outside, but not after Holm.",
              "\nStandard deviation of what is above the floor, between trainings and between blocks of one training's samples\n",
              "| trained | times | walked | sampler | steps | trainings | samples |", "|---|---|---|---|---:|---:|---:|"]
    for kind in kinds:
        blocks = {len(row) for row in index[kind].values()}
        if kind.trained != "exact" and len(blocks) == 1 and min(blocks) > 1:
            training, sampling = components(index[kind])
            parts.append(f"| {kind.trained} | {kind.times} | {kind.walked} | {kind.sampler} | {kind.steps} | {training:.2f} | {sampling:.2f} |")
    cpu = sum(row["cpu_seconds"] for row in rows.values()) + sum({point[:4]: row["train_cpu_seconds"] for point, row in rows.items()}.values())
    return "\n".join([*parts, f"\n{len(rows)} blocks of {BLOCK} images; {cpu / 60:.0f} CPU minutes of training and drawing.\n"])


def forest(members: list[Difference], floor: float, title: str):
    """Paired differences with their intervals, one panel for each `what`; grey: within a tenth of the floor."""
    from ddpm_tutorial import plots

    panels = list(dict.fromkeys(d.what for d in members))
    alone = all(len({d.sampler for d in members if d.what == what}) == 1 for what in panels)        # a sampler a panel: its name is in the title

    def line(d: Difference) -> tuple:
        return (d.steps,) if alone else (d.steps, d.sampler)

    lines = sorted({line(d) for d in members}, reverse=True)
    figure, (row,) = plots.axes(len(panels), width=3.0 if len(panels) > 1 else 6.0, height=1.4 + 0.22 * len(lines), sharey=True, sharex=True)
    colours = dict(zip(SAMPLERS, plots.COLOURS))
    for axis, what in zip(row, panels):
        axis.axvspan(-MARGIN * floor, MARGIN * floor, color="grey", alpha=0.2, linewidth=0)
        axis.axvline(0, color="grey", linewidth=0.8)
        for d in (d for d in members if d.what == what):
            axis.errorbar(d.mean, lines.index(line(d)), xerr=d.half, fmt="o", capsize=2, markersize=4,
                          color=colours[d.sampler], markerfacecolor=colours[d.sampler] if d.holm < 0.05 else "white")
        axis.set_title(what.replace("; ", "\n").replace(" - ", " − "), fontsize=9)
        axis.set_xlabel("difference above the floor", fontsize=9)
    row[0].set_yticks(range(len(lines)), [f"{steps} steps" if alone else f"{sampler[0]}, {steps} steps" for steps, *sampler in lines], fontsize=8)
    figure.suptitle(f"{title}: full circles stand after Holm's correction", fontsize=10)
    return figure


def forests(found: list[Difference], floor: float | None = None) -> dict:
    """{family: Figure}, drawn from what `differences(read(\"compare.csv\"))` gives."""
    floor = real()[1][0] if floor is None else floor
    return {family: forest(list(group), floor, family) for family, group in groupby(found, key=lambda d: d.family)}


if __name__ == "__main__":
    sys.exit(main())
