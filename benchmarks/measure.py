"""Speed, memory and quality, measured on one machine beside diffusers and lucidrains' denoising-diffusion-pytorch.

    python benchmarks/measure.py [speed sampling overhead startup memory scaling quality gpu | all | report] [--quick] [--write]

A section is a function that returns (columns, rows); its docstring is the sentence under its table.  "gpu" is gpu-training, gpu-sampling and
gpu-digits.  "report" measures nothing: it only shows again, or writes again, what results.json holds.
"""

import argparse
import csv
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module, metadata
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import torch
from contenders import CONTENDERS, DIGITS, LINES, MODEL, WALK, WHERE, diffusers, noise_data, ours, parameters, same_network, trained

from ddpm_tutorial import DDPM, TrainState, UNet, UNetConfig, classifier_free, clipped, cosine, data, denoiser, plots, train
from ddpm_tutorial.evaluation import metrics
from ddpm_tutorial.samplers import ddim_step, ddpm_step, final, sample, seeded_noise
from ddpm_tutorial.training import best_precision
from ddpm_tutorial.training.recipes import RECIPES

HERE = Path(__file__).resolve().parent
SIZES = {                                                       # (network, image size, batch): name
    (replace(DIGITS, blocks=2), 8, 128): "8×8, batch 128, 2 blocks per level",
    (DIGITS, 8, 128): "8×8, batch 128, the network of `make run`",     # takes the line above over, should that have 2 blocks
    (UNetConfig(num_classes=10), 28, 32): "28×28, batch 32",
    (UNetConfig(channels=3, base=64, mults=(1, 2, 2), num_classes=10), 32, 16): "32×32 RGB, batch 16",
}
BF16 = best_precision(WHERE) == "bfloat16"                       # native here, so that it is measured too
CIFAR = UNetConfig.cifar10(num_classes=10)
SETTINGS = {"float32": (False, False)} | ({"bfloat16": (True, False), "bfloat16, compiled": (True, True)} if BF16 else {})     # bf16, compiled
FULL = {"rounds": 15, "warmup": 3, "steps": 50, "starts": 5, "samples": 1000, "seconds": (15, 30, 60, 120), "large": 10_000, "shrink": 1,
        "lengths": (500, 1000, 2000, 3000, 4000, 6000, 8000)}
QUICK = {"rounds": 2, "warmup": 1, "steps": 3, "starts": 1, "samples": 50, "seconds": (1, 2), "large": 500, "shrink": 16, "lengths": (10, 20)}
GOAL = 0.99                                                     # of the samples are recognised


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; gpu: the last three; all (default); report")
    parser.add_argument("--quick", action="store_true", help="all small, to see that it runs; goes to a temporary folder")
    parser.add_argument("--write", action="store_true", help="write README.md from all results so far")
    parser.add_argument("--seeds", type=int, default=1, help="runs of ours in the section quality; the peers get one")
    parser.add_argument("--data-dir", type=Path, help="a folder with MNIST, as data.load keeps it: gpu-digits then measures MNIST too")
    parser.add_argument("--out", type=Path, help="folder for results, default: this file's, or a temporary one with --quick")
    parser.add_argument("--probe", help=argparse.SUPPRESS)      # one measurement of memory, in a process of its own
    args = parser.parse_args()
    if unknown := set(args.sections) - {*SECTIONS, "gpu", "all", "report"}:
        parser.error(f"unknown section {', '.join(unknown)}; choose from {', '.join(SECTIONS)}, gpu, all, report")
    for package in ("diffusers", "denoising_diffusion_pytorch", "psutil"):
        if find_spec(package) is None:
            sys.exit(f'measure.py: the package {package} is not installed; in the folder of the repository:  python -m pip install -e ".[benchmark]"')
    vars(args).update(QUICK if args.quick else FULL, precision=best_precision(WHERE))
    if args.probe:
        return print(json.dumps(probe(args.probe)))
    chosen = [name for name in SECTIONS if not args.sections or {"all", name, name.split("-")[0]} & {*args.sections}]
    if WHERE.type != "cuda" and (absent := [name for name in chosen if name.startswith("gpu")]):
        print(f"{', '.join(absent)}: measured on a CUDA GPU only; on a machine that has one:  python benchmarks/measure.py gpu --write")
        if absent == chosen:
            return
        chosen = [name for name in chosen if name not in absent]
    args.out = args.out or (Path(tempfile.mkdtemp()) if args.quick else HERE)
    args.out.mkdir(parents=True, exist_ok=True)
    kept = args.out / "results.json"
    results = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for name in chosen:
        began = time.perf_counter()
        columns, rows = SECTIONS[name][1](args)
        note = " ".join(SECTIONS[name][1].__doc__.split()).format(**vars(args))
        results[name] = {"columns": columns, "rows": rows, "note": note, "machine": machine(), "minutes": (time.perf_counter() - began) / 60}
        kept.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(markdown(name, results[name]), flush=True)
        print(f"{name}: {results[name]['minutes']:.1f} minutes", file=sys.stderr)
    if not chosen:
        print("\n".join(markdown(name, results[name]) for name in SECTIONS if name in results))
    if args.write:
        (args.out / "README.md").write_text(report(results, args.out), encoding="utf-8")
    print(f"results are in {args.out}", file=sys.stderr)


def turns(args, runs: dict[str, Callable], rounds: int | None = None) -> dict[str, float]:
    """Median milliseconds of each; they take turns, A B C A B C …, so that whatever else the machine does hits all of them."""
    taken = defaultdict(list)
    for turn in range(args.warmup + (rounds or args.rounds)):
        for name, run in runs.items():
            began = now()
            run()
            if turn >= args.warmup:
                taken[name].append(1000 * (now() - began))
    return {name: statistics.median(values) for name, values in taken.items()}


def now() -> float:
    if WHERE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


# The sections.


def speed(args):
    """One training step: draw a batch and noise, forward, loss, backward, gradient clip, optimizer (fused AdamW, AdamW, Adam), average of the
    weights (AveragedModel, EMAModel, ema_pytorch), the loss as a number. All three in float32, or all under autocast (bf16). Median of {rounds}
    rounds after {warmup} warm-up rounds, taking turns in one process. diffusers has the same architecture and weights (outputs agree to 1e-4 in
    float32); lucidrains has its own U-Net of about the same size."""
    return side_by_side(args, "train", 1)


def sampling(args):
    """One DDIM step (η = 0, no clipping, no guidance) and the one network evaluation it needs: each library's own loop over a few steps, divided
    by their number. Median of {rounds} rounds after {warmup} warm-up rounds, taking turns in one process; networks as above."""
    return side_by_side(args, "walk", WALK)


def side_by_side(args, what: str, steps: int):
    rows = []
    for bf16 in (False, True) if BF16 else (False,):
        for (config, size, batch), name in SIZES.items():
            three = {who: make(config, size, batch // args.shrink, bf16) for who, make in CONTENDERS.items()}
            same_network(three["ours"].net, three["diffusers"].net, config, size)
            ms = turns(args, {who: getattr(contender, what) for who, contender in three.items()})
            a, b, c = (ms[who] / steps for who in ("ours", "diffusers", "lucidrains"))
            rows.append([name + ", bf16" * bf16, a, b, c, b / a, c / a, parameters(three["ours"].net), parameters(three["lucidrains"].net)])
            progress(rows)
    return ["", "ours, ms", "diffusers, ms", "lucidrains, ms", "diffusers ÷ ours", "lucidrains ÷ ours", "parameters", "of lucidrains"], rows


def overhead(args):
    """A walk of {steps} steps against {steps} bare calls of its network on the same images (8×8): the time on top, in percent of the bare calls,
    and for guidance at scale 2 in percent of twice as many. Median of {rounds} rounds after {warmup} warm-up rounds, all taking turns in one
    process."""
    net, schedule, rows = UNet(DIGITS).to(WHERE).eval(), cosine(), []
    for batch in (1, 16, 250):
        x, y = noise_data(DIGITS, 8, batch)
        t = torch.full((batch,), 500, device=WHERE)
        cond, uncond = denoiser(net, schedule, y), denoiser(net, schedule, torch.full_like(y, 10))

        @torch.no_grad()
        def bare(x=x, t=t, y=y):
            for _ in range(args.steps):
                net(x, t, y)

        def walk(eps, step=ddim_step, noisy=False, x=x, batch=batch):
            return lambda: final(sample(eps, schedule, x, step, args.steps, noise=seeded_noise(0, range(batch), x.shape[1:]) if noisy else None))

        ms = turns(args, {"bare": bare, "DDIM": walk(cond), "DDPM": walk(cond, ddpm_step, True), "clipped": walk(clipped(cond, schedule)),
                          "scale 1": walk(classifier_free(cond, uncond, 1)), "scale 2": walk(classifier_free(cond, uncond, 2))})
        calls = {"DDIM": 1, "DDPM": 1, "clipped": 1, "scale 1": 1, "scale 2": 2}
        rows.append([batch, ms["bare"] / args.steps, *(100 * (ms[k] / ms["bare"] / n - 1) for k, n in calls.items())])
        progress(rows)
    return ["images", "bare call, ms", "DDIM, %", "DDPM, seeded noise, %", "DDIM clipped, %", "guided, scale 1, %", "guided, scale 2, %"], rows


def startup(args):
    """A fresh Python that does only this, wall clock, median of {starts} starts after {warmup} that do not count, taking turns. The training of
    `make run` is what its report says (runs/digits/figures.json), where there is one; it was asked to last 60 s."""
    with tempfile.TemporaryDirectory() as folder:
        weights = DDPM(MODEL).save(Path(folder) / "model.safetensors")
        programs = {
            "`pass`": "pass", "`import torch`": "import torch", "`import ddpm_tutorial`": "import ddpm_tutorial",
            "`from diffusers import DDIMScheduler, UNet2DModel`": "from diffusers import DDIMScheduler, UNet2DModel",
            "`import denoising_diffusion_pytorch`": "import denoising_diffusion_pytorch",
            "load weights, draw one image in 20 steps": "import sys; from ddpm_tutorial import DDPM; DDPM.load(sys.argv[1]).sample(1, 3, 'ddim', 20)"}

        def start(code):
            return lambda: subprocess.run([sys.executable, "-c", code, weights], check=True, capture_output=True)

        seconds = {name: ms / 1000 for name, ms in turns(args, {name: start(code) for name, code in programs.items()}, args.starts).items()}
    figures = HERE.parent / "runs" / "digits" / "figures.json"
    rows = [[name, value] for name, value in seconds.items()]
    rows.insert(3, ["ours alone, the difference of these two", seconds["`import ddpm_tutorial`"] - seconds["`import torch`"]])
    rows.append(["training within `make run`", json.loads(figures.read_text(encoding="utf-8"))["seconds"] if figures.exists() else None])
    return ["", "seconds"], rows


def memory(args):
    """The largest memory of a process that does only this: resident set of the process on a CPU, tensors on a GPU; and how much of it came on top
    of the same work with one image, which loads everything once. 8×8 images in float32, three training steps or four DDIM steps; `batch` is how
    many images `DDPM.sample` draws at a time."""
    draws = ((250, 250), (args.large, 250), (args.large, args.large // 4))
    rows = [[f"training at batch 128: {who}", f"{who} 128 128"] for who in CONTENDERS]
    rows += [[f"sampling {n:,} images, batch={batch:,}", f"sample {n} {batch}"] for n, batch in draws]
    for k, (what, code) in enumerate(rows):
        output = subprocess.run([sys.executable, __file__, "--probe", code], check=True, capture_output=True, text=True).stdout
        rows[k] = [what, *json.loads(output.splitlines()[-1])]
        progress(rows[:k + 1])
    return ["", "peak, MB", "above one image, MB"], rows


def probe(work: str) -> tuple[float, float]:
    what, n, batch = work.split()
    peaks = []
    for images in (1, int(n)):
        if what == "sample":
            model = DDPM(MODEL).to(WHERE)
            model.sample(images, torch.arange(images) % 10, "ddim", 4, batch=int(batch))
        else:
            step = CONTENDERS[what](DIGITS, 8, images).train
            for _ in range(3):
                step()
        peaks.append(peak_memory())
    return peaks[1], peaks[1] - peaks[0]


def peak_memory() -> float:
    """In MB, so far."""
    if WHERE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if status.exists():                                         # Linux knows it exactly (ru_maxrss would begin with the parent's)
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024 / 1e6
    info = import_module("psutil").Process().memory_info()
    return getattr(info, "peak_wset", info.rss) / 1e6           # so does Windows; elsewhere, what is held at the end


def scaling(args):
    """Time of one training step and one DDIM step of our network, in float32, as one thing grows, the others staying at batch 16, 8×8, width 32;
    and of drawing that many images in 5 steps, at most 250 at a time. Median of {rounds} rounds after {warmup} warm-up rounds."""
    rows, start = [], {"batch": 16, "image size": 8, "width": 32}
    for what, values in {"batch": (1, 4, 16, 64, 256), "image size": (8, 16, 32), "width": (16, 32, 64)}.items():
        for value in values:
            knobs = start | {what: value}
            us = ours(replace(DIGITS, base=knobs["width"]), knobs["image size"], knobs["batch"])
            ms = turns(args, {"train": us.train, "walk": us.walk})
            rows.append([what, value, ms["train"], ms["walk"] / WALK, None])
            progress(rows)
    model = DDPM(MODEL).to(WHERE)
    for n in (10, 30, 100, 300, 1000):
        rows.append(["samples", n, None, None, turns(args, {"draw": lambda n=n: model.sample(n, 3, "ddim", 5)})["draw"]])
        progress(rows)

    columns = ["what grows", "to", "training step, ms", "DDIM step, ms", "samples, ms"]
    figure, (panels,) = plots.axes(4, width=3.4, height=3)
    for axis, (what, points) in zip(panels, groupby(rows, lambda row: row[0])):
        _, values, *lines = zip(*points)
        for name, line, colour, style in zip(columns[2:], lines, plots.COLOURS, plots.STYLES):
            if line[0] is not None:
                axis.plot(values, line, style, marker="o", color=colour, label=name.removesuffix(", ms"))
        axis.set(xlabel=what, ylabel="milliseconds", xscale="log", yscale="log", xticks=values, xticklabels=values)
        axis.minorticks_off()
        axis.legend()
    figure.savefig(args.out / "scaling.png", dpi=100)
    return columns, rows


def quality(args):
    """The digits after so many seconds of training, in which each contender does as many steps as it can: {samples:,} samples in {steps} DDIM
    steps; a mean where there are several seeds. Agreement: share of samples that a classifier, trained on the train split, takes for their label. Fréchet
    distance: of its features to those of the test images; and what of it is above that of as many train images, which is what real images get.
    Memorisation: median distance to the nearest train image, over that of test images; about 1 for new images, 0 for copies. Both at scale 1.
    Time stands still while samples are drawn; where the learning rate depends on the end, each length is a run of its own. **Ours**: as in `make
    run`, which here trains in {precision}; the others train in float32. **diffusers**: our architecture in its UNet2DModel and its training
    tutorial (AdamW 1e-4, 500 warm-up steps, cosine, batch 16, ε, linear schedule, no EMA; labels dropped at 10 %), sampled by our DDIM (η = 0,
    clipped). **lucidrains**: classifier_free_guidance with its own and its Trainer's defaults (Adam 1e-4, batch 16, EMA 0.995, ε, cosine schedule,
    labels dropped at 50 %; no flips), sampled by its own DDIM (η = 1, clipped) with plain guidance, because its own fails at scale 1 and elsewhere
    drops the part of the update that is parallel to the output; or by our DDIM."""
    (images, y, classes), (test, _, _) = data.load("digits"), data.load("digits", "test")
    x, x_test, y = data.normalise(images).to(WHERE), data.normalise(test).to(WHERE), y.to(WHERE)
    judge = metrics.train_classifier(x, y)
    real, as_many = metrics.features(judge, x_test), metrics.per_class(y.cpu(), args.samples // len(classes))
    floor = metrics.frechet_distance(metrics.features(judge, x[as_many]), real)
    wanted = torch.arange(len(classes)).repeat_interleave(args.samples // len(classes))

    def measured(draw) -> list[float]:
        plain, guided = (torch.cat([draw(wanted[i:i + 250], scale, i) for i in range(0, len(wanted), 250)]) for scale in (1.0, 2.0))
        agreement = [metrics.accuracy(judge, images, wanted.to(WHERE)) for images in (plain, guided)]
        distance = metrics.frechet_distance(metrics.features(judge, plain), real)
        return [*agreement, distance, distance - floor, metrics.memorisation(plain, x, x_test)]

    runs, part = [], args.out / "quality.csv.part"              # gets its name when it is whole: what was interrupted is not taken for done
    with open(part, "w", newline="", encoding="utf-8") as file:
        names = "contender,seed,asked_seconds,seconds,steps,agreement_scale_1,agreement_scale_2,frechet,above_floor,memorisation"
        csv.writer(file).writerow(names.split(","))
        for seed in range(args.seeds):
            for name, mark, spent, steps, draw in trained(x, y, args.seconds, seed, args.steps, peers=seed == 0):
                runs.append([name, seed, mark, spent, steps, *measured(draw)])
                csv.writer(file).writerow(runs[-1])
                file.flush()
                progress(runs)
    part.replace(args.out / "quality.csv")
    columns = ["contender", "seeds", "seconds", "steps", "agreement, %, scale 1", "agreement, %, scale 2", "Fréchet distance", "above the floor",
               "memorisation"]
    same = defaultdict(list)
    for name, _, mark, *values in runs:
        spent, steps, plain, guided, *others = values
        same[name, mark].append([spent, steps, 100 * plain, 100 * guided, *others])
    rows = sorted(([name, len(values), *(statistics.mean(v) for v in zip(*values))] for (name, _), values in same.items()), key=lambda row: LINES.index(row[0]))
    rows.append([f"{args.samples:,} train images", None, None, None, 100 * metrics.accuracy(judge, x[as_many], wanted.to(WHERE)), None, floor, 0.0, 0.0])

    draw_quality(columns, rows, args.seconds).savefig(args.out / "quality.png", dpi=100)
    return columns, rows


def draw_quality(columns: list[str], rows: list, seconds: list[float]):
    figure, (panels,) = plots.axes(2)
    for axis, column in zip(panels, (4, 7)):
        for k, (name, points) in enumerate(groupby(rows[:-1], lambda row: row[0])):
            points = list(points)
            axis.plot([p[2] for p in points], [p[column] for p in points], plots.STYLES[k % 4], marker="o", color=plots.COLOURS[k % 7], label=name)
        axis.set(xlabel="seconds of training", ylabel=columns[column], xscale="log", xticks=seconds, xticklabels=seconds)
        axis.minorticks_off()
    panels[1].set(yscale="log")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


# On a GPU.


def gpu_training(args):
    """DDPM's network for CIFAR-10 (35.7 M parameters, and an embedding of the labels), batch 128, images of noise; a step is all that it is under
    "Training step". float32 is without TF32. Ours: TrainConfig's `precision` and `compile`, and nothing else. diffusers: the same weights in its
    UNet2DModel, at its best: channels_last, autocast, torch.compile, AdamW fused, EMAModel with foreach. What the GPU can do is told by the product
    of two 8192 × 8192 matrices, of the same type and in the same process; a step's work is counted as three forward passes ({gflop:.1f} GFLOP an
    image each). Median of {rounds} rounds after {warmup} warm-up rounds, taking turns in one process."""
    rows = []
    for name, batch, a, b, rate, ideal in at_their_best(args, "train", (128,)):
        rows.append([name, a, b, b / a, 1000 * batch / a, 1000 * batch / b, rate, 100 * 3 * ideal / a, 100 * 3 * ideal / b])
        progress(rows)
    return ["", "ours, ms", "diffusers, ms", "diffusers ÷ ours", "ours, images/s", "diffusers, images/s", "matrix product, TFLOP/s",
            "ours, % of it", "diffusers, % of it"], rows


def gpu_sampling(args):
    """One DDIM step (η = 0, no clipping, no guidance) of the same network: each library's own loop over a few steps, divided by their number.
    Compiled: torch.compile(mode="reduce-overhead"), which replays CUDA graphs. At the matrix rate: what the forward pass ({gflop:.1f} GFLOP an image)
    would take if all of it ran as fast as a large matrix product. Median of {rounds} rounds after {warmup} warm-up rounds, taking turns in one
    process."""
    rows = []
    for name, batch, a, b, _, ideal in at_their_best(args, "walk", (1, 16, 128)):
        rows.append([f"batch {batch}, {name}", a / WALK, b / WALK, b / a, ideal])
        progress(rows)
    return ["", "ours, ms", "diffusers, ms", "diffusers ÷ ours", "at the matrix rate, ms"], rows


def at_their_best(args, what: str, batches: tuple[int, ...]):
    """One after another: (setting, batch, ms of ours, ms of diffusers, matrix rate in TFLOP/s, ms of the forward pass at that rate)."""
    args.gflop = gflop(CIFAR, 32)
    rates = {bf16: matrix_rate(args, torch.bfloat16 if bf16 else torch.float32) for bf16, _ in SETTINGS.values()}
    for batch in (max(1, batch // args.shrink) for batch in batches):
        for name, (bf16, compiled) in SETTINGS.items():
            torch.compiler.reset()                              # or the next batch size would be compiled for all sizes
            us, them = ours(CIFAR, 32, batch, bf16, compiled), diffusers(CIFAR, 32, batch, bf16, compiled, best=True)
            same_network(us.net, them.net, CIFAR, 32)
            them.net.train(what == "train")                     # dropout, which ours switches itself
            ms = turns(args, {"ours": getattr(us, what), "diffusers": getattr(them, what)})
            yield name, batch, ms["ours"], ms["diffusers"], rates[bf16], batch * args.gflop / rates[bf16]


def matrix_rate(args, dtype: torch.dtype) -> float:
    """TFLOP/s of a large matrix product."""
    n = 8192 // args.shrink
    a = torch.randn(n, n, device=WHERE, dtype=dtype)
    return 2 * n**3 / 1e9 / turns(args, {"product": lambda: a @ a})["product"]


def gflop(config: UNetConfig, size: int) -> float:
    """Of one image's way through the network; a multiplication and its addition are two."""
    from torch.utils.flop_counter import FlopCounterMode
    with torch.device("meta"), FlopCounterMode(display=False) as counter:       # shapes only: nothing is computed
        UNet(config)(torch.empty(1, config.channels, size, size), torch.ones(1, dtype=torch.long))
    return counter.get_total_flops() / 1e9


def gpu_digits(args):
    """From nothing to a model of which a classifier, trained on the train split, recognises 99 % of {samples:,} samples as what they were asked to
    be (DDIM, {steps} steps). The learning rate falls to 0 at the end of a run, so every length is a run of its own, from seed 0; the first that
    gets there is the last. Digits: the recipe of `make run`. MNIST, where it is at hand (`--data-dir`): its recipe with a larger batch. Training is in
    {precision}. Seconds are those of training alone, after a few steps that load everything."""
    sets = [("digits", 128, 1.0, data.load("digits"))]
    if args.data_dir:
        sets.append(("mnist", 512, 2.0, data.load("mnist", folder=args.data_dir)))
    rows = []
    for name, batch, scale, (images, y, classes) in sets:
        (model, how), x, y = RECIPES[name], data.normalise(images).to(WHERE), y.to(WHERE)
        judge = metrics.train_classifier(x, y, epochs=15 if len(x) < 10_000 else 3)
        wanted = torch.arange(len(classes), device=WHERE).repeat_interleave(args.samples // len(classes))
        for steps in (args.warmup, *args.lengths):
            torch.manual_seed(0)
            state = TrainState(DDPM(model).to(WHERE), replace(how, steps=steps, batch=batch))
            began = now()
            deque(train(state, x, y), maxlen=0)                 # to its end
            seconds = now() - began
            samples = state.averaged_model().sample(len(wanted), wanted, "ddim", args.steps, scale=scale, seed=1)
            agreement = metrics.accuracy(judge, samples, wanted)
            if steps != args.warmup:
                rows.append([f"{name}, scale {scale:g}", batch, steps, seconds, steps * batch / seconds, 100 * agreement])
                progress(rows)
                if agreement >= GOAL:
                    break
    return ["", "batch", "steps", "seconds", "images/s", "agreement, %"], rows


SECTIONS = {
    "speed": ("Training step", speed), "sampling": ("Sampling step", sampling), "overhead": ("What the samplers cost", overhead),
    "startup": ("Start-up", startup), "memory": ("Memory", memory), "scaling": ("Scaling", scaling), "quality": ("Quality for a time", quality),
    "gpu-training": ("On a GPU: training step", gpu_training), "gpu-sampling": ("On a GPU: sampling step", gpu_sampling),
    "gpu-digits": ("On a GPU: until digits are recognised", gpu_digits),
}


# The report.


def progress(rows: list) -> None:
    print("  " + " | ".join(map(cell, rows[-1])), file=sys.stderr, flush=True)


def cell(value) -> str:
    match value:
        case None: return "—"
        case float(): return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
        case int(): return f"{value:,}"
        case _: return str(value)


def markdown(name: str, result: dict) -> str:
    lines = [result["columns"], ["---"] + ["--:"] * (len(result["columns"]) - 1), *([*map(cell, row)] for row in result["rows"])]
    return f"## {SECTIONS[name][0]}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{result['note']}\n"


def machine() -> str:
    psutil, cpuinfo = import_module("psutil"), Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.exists() else []
    parts = [torch.cuda.get_device_name()] if WHERE.type == "cuda" else []
    parts += [names[0] if names else platform.processor(), f"{psutil.cpu_count(logical=False)} cores"]
    parts += [f"{psutil.virtual_memory().total / 2**30:.0f} GiB"]
    parts += [f"{package} {metadata.version(package)}" for package in ("torch", "diffusers", "denoising-diffusion-pytorch")]
    return ", ".join([*parts, f"Python {platform.python_version()}", f"{torch.get_num_threads()} threads"])


def report(results: dict, out: Path) -> str:
    machines = {result["machine"] for result in results.values()}
    parts = ["# Benchmark\n", 'Written by `python benchmarks/measure.py --write`, after `python -m pip install -e ".[benchmark]"`.',
             "One section alone: `python benchmarks/measure.py speed --write`. In a column a ÷ b, more than 1 means that b is the faster.",
             "What a GPU does is measured by `python benchmarks/measure.py gpu --write`, on a machine that has one (CUDA); whether all is right there, "
             "by `bash benchmarks/gpu.sh`. How near a training step is to the machine's own limit: `python benchmarks/limit.py` "
             "([0.70 in float32](recipes.md#how-near-a-step-is-to-the-machines-limit)). "
             "Who trains better digits in two minutes: [the race](speedrun/README.md).\n"]
    parts += [f"Machine: {machine}.\n" for machine in machines if len(machines) == 1]
    for name in SECTIONS:
        if name in results:
            parts += [markdown(name, results[name])]
            parts += [f"Machine: {results[name]['machine']}.\n"] * (len(machines) > 1)
            parts += [f"![{SECTIONS[name][0]}, drawn]({name}.png)\n"] * (out / f"{name}.png").exists()
    return "\n".join(parts)


if __name__ == "__main__":
    main()
