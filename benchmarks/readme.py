"""The numbers of the README, the models' cards and notebook 09: measured again, and written where a table is marked for it.

    python benchmarks/readme.py all [--data-dir FOLDER]      measure what is missing, then write; goes on where it was stopped
    python benchmarks/readme.py minute digits                these parts only
    python benchmarks/readme.py write                        measure nothing: tables from the files as they are

    picture     the digits that form at the top of the README (docs/digits.png)
    minute      what so many seconds of training give, in five recipes (quality.csv); nothing else should run
    machines    the minute of `make run` on this machine, and on the same one without AVX-512 and bfloat16, in turns (machines.csv); nothing else should run
    digits      the digits' model that comes with the package, by three judges (evaluated-digits.json)
    mnist       the MNIST model by three judges (evaluated-mnist.json); MNIST must be at hand
    calls       samplers by their number of calls (calls-digits.csv, calls-mnist.csv)
    compare     schedules and samplers over five trainings (compare.csv)

What each part cost is kept in times.json, in minutes of a processor (round numbers there are older than this
count, and estimates).  To measure a part anew, delete its file and its line there.
A table stands between <!-- NAME … --> and <!-- end -->, and a test holds it to its file.
"""

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from itertools import groupby, product
from pathlib import Path

import torch

from ddpm_tutorial import DDPM, evaluation, plots

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGES = ("README.md", "ddpm_tutorial/weights/pretrained/README.md")
TIMES = HERE / "times.json"
WHAT = ("steps", "agreement_scale_1", "agreement_scale_2", "above_floor", "memorisation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=(*PARTS, "all", "write"), metavar="PART", help=", ".join((*PARTS, "all", "write")))
    parser.add_argument("--data-dir", type=Path, help="where MNIST is; default $DDPM_DATA, or a cache folder in your home")
    args = parser.parse_args()
    for part in PARTS if "all" in args.parts else [part for part in args.parts if part != "write"]:
        began = processor_minutes()
        try:
            PARTS[part](args)
        finally:                                                # it may be stopped, and go on later
            if (spent := processor_minutes() - began) > 0.3:    # else all was there
                times = json.loads(TIMES.read_text(encoding="utf-8"))
                times[part] = round(times.get(part, 0) + spent, 1)
                TIMES.write_text(json.dumps(times, indent=1) + "\n", encoding="utf-8")
        print(f"{part}: {spent:.0f} minutes of a processor", flush=True)
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        (ROOT / page).write_text(filled(text), encoding="utf-8")


def processor_minutes() -> float:
    """Of this process and of those that it has started and that have ended; 0 where the system does not count (Windows)."""
    try:
        import resource
    except ImportError:
        return 0.0
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))) / 60


# Measuring.

def minute(_) -> None:
    if not (HERE / "quality.csv").is_file():
        python("benchmarks/measure.py", "quality", "--seeds", "3", "--write")


def machines(_) -> None:
    """An older processor is not at hand, but this one can be told to be one: the libraries choose their kernels by what it is said to have."""
    path, names = HERE / "machines.csv", ("processor", "seed", "steps", "images_per_second", "agreement_scale_1", "above_floor")
    older = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    done = rows(path)
    for seed, (what, limits, precision) in product(range(2), (("as it is", {}, ()), ("AVX2, float32", older, ("--precision", "float32")))):
        if any((row["processor"], row["seed"]) == (what, str(seed)) for row in done):
            continue
        with tempfile.TemporaryDirectory() as folder:
            python("-m", "ddpm_tutorial", "train", "--data", "digits", "--seconds", "60", "--per-class", "100", "--seed", str(seed), *precision,
                   "--out", f"{folder}/run", **limits)
            found = json.loads(Path(folder, "run", "figures.json").read_text(encoding="utf-8"))
        done.append(dict(zip(names, (what, seed, found["steps"], found["images_per_second"], round(found["scale 1"]["agreement"], 4),
                                     round(found["scale 1"]["frechet_above"], 4)))))
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, names, lineterminator="\n").writeheader()
            csv.DictWriter(file, names, lineterminator="\n").writerows(done)


def evaluate(name: str, per_class: int, args) -> None:
    if not (path := HERE / f"evaluated-{name}.json").is_file():
        where = ["--data-dir", str(args.data_dir.resolve())] if args.data_dir and name != "digits" else []
        python("-m", "ddpm_tutorial", "evaluate", name, "--data", name, "--per-class", str(per_class), "--judges", "3", "--out", str(path), *where)


def picture(_) -> None:
    """Ten digits of the MNIST model, as they form in 26 steps of DDPM."""
    walk = DDPM.load("mnist").trajectory(10, torch.arange(10), "ddpm", 26, scale=2.0, seed=1)
    plots.animation([state.x_t for state in walk], seconds=4, path=ROOT / "docs" / "digits.png")


def calls(args) -> None:
    where = ["--data-dir", str(args.data_dir.resolve())] if args.data_dir else []
    python("benchmarks/calls.py", "digits")
    python("benchmarks/calls.py", "mnist", "--n", "100", *where)


def python(*command: str, **environment: str) -> None:
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, env=os.environ | environment)


PARTS = {"picture": picture, "minute": minute, "machines": machines, "digits": lambda args: evaluate("digits", 100, args),
         "mnist": lambda args: evaluate("mnist", 200, args), "calls": calls, "compare": lambda args: python("benchmarks/compare.py")}


# Writing.

def rows(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def minute_table() -> str:
    """Of `make run`'s recipe: means over seeds, by how long they were asked to train; and how fast other processors are."""
    ours = sorted((row for row in rows(HERE / "quality.csv") if row["contender"] == "ours"), key=lambda row: int(row["asked_seconds"]))
    lines = ["| seconds | steps | agreement, scale 1 | agreement, scale 2 | Fréchet distance above its floor | memorisation |",
             "|---:|---:|---:|---:|---:|---:|"]
    for seconds, same in groupby(ours, key=lambda row: int(row["asked_seconds"])):
        group = list(same)
        steps, plain, guided, above, memorisation = (statistics.mean(float(row[key]) for row in group) for key in WHAT)
        lines.append(f"| {seconds} | {steps:,.0f} | {plain:.1%} | {guided:.1%} | {above:.2f} | {memorisation:.2f} |")
    return "\n".join(lines)


def machines_table() -> str:
    lines = ["| the same processor | images/s | steps | seconds they took | agreement, scale 1 | Fréchet distance above its floor |",
             "|---|---:|---:|---:|---:|---:|"]
    for what, same in groupby(sorted(rows(HERE / "machines.csv"), key=lambda row: row["processor"], reverse=True), key=lambda row: row["processor"]):
        group = list(same)
        steps, speed, agreement, above = (statistics.mean(float(row[key]) for row in group)
                                          for key in ("steps", "images_per_second", "agreement_scale_1", "above_floor"))
        seconds = statistics.mean(128 * float(row["steps"]) / float(row["images_per_second"]) for row in group)         # the recipe's batch
        lines.append(f"| {what} | {speed:,.0f} | {steps:,.0f} | {seconds:.0f} | {agreement:.1%} | {above:.2f} |")
    return "\n".join(lines)


def evaluated(name: str) -> str:
    return evaluation.table(json.loads((HERE / f"evaluated-{name}.json").read_text(encoding="utf-8")))


def cost() -> str:
    times = json.loads(TIMES.read_text(encoding="utf-8"))
    return (f"`python benchmarks/readme.py all` makes the tables and figures of this page and of notebook 09 again, and goes on where it was stopped: "
            f"about {sum(times.values()) / 60:.0f} hours of a processor, half of that on two cores "
            f"(minutes, round ones estimated: {', '.join(f'{part} {minutes:g}' for part, minutes in times.items())}).")


TABLES = {"minute": minute_table, "machines": machines_table, "cost": cost, "digits": lambda: evaluated("digits"), "mnist": lambda: evaluated("mnist")}


def filled(text: str) -> str:
    """A page with its tables as the files have them."""
    return re.sub(r"(<!-- (\w+)[^>]*-->\n).*?(<!-- end -->)", lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text, flags=re.DOTALL)


if __name__ == "__main__":
    main()
