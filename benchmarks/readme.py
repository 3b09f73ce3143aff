"""The numbers of the README, the models' cards and notebook 09: measured again, and written where a table is marked for it.

    python benchmarks/readme.py all [--data-dir FOLDER]      measure what is missing, then write; goes on where it was stopped
    python benchmarks/readme.py minute digits                these parts only
    python benchmarks/readme.py write                        measure nothing: tables from the files as they are

    picture     the digits that form at the top of the README (docs/digits.png)
    minute      what so many seconds of training give, in five recipes (quality.csv); nothing else should run
    digits      the digits' model that comes with the package, by three judges (evaluated-digits.json)
    mnist       the MNIST model (evaluated-mnist.json); MNIST must be at hand.  Its table in the README is older, of one judge, and not marked yet
    calls       samplers by their number of calls (calls-digits.csv, calls-mnist.csv)
    compare     schedules and samplers over five trainings (compare.csv)

To measure a part anew, delete its file.  A table stands between <!-- NAME … --> and <!-- end -->, and a test holds it to its file.
"""

import argparse
import csv
import json
import re
import statistics
import subprocess
import sys
import time
from itertools import groupby
from pathlib import Path

import torch

from ddpm_tutorial import DDPM, evaluation, plots

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGES = ("README.md", "ddpm_tutorial/weights/pretrained/README.md")
WHAT = ("steps", "agreement_scale_1", "agreement_scale_2", "above_floor", "memorisation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=(*PARTS, "all", "write"), metavar="PART", help=", ".join((*PARTS, "all", "write")))
    parser.add_argument("--data-dir", type=Path, help="where MNIST is; default $DDPM_DATA, or a cache folder in your home")
    args = parser.parse_args()
    for part in PARTS if "all" in args.parts else [part for part in args.parts if part != "write"]:
        began = time.perf_counter()
        PARTS[part](args)
        print(f"{part}: {(time.perf_counter() - began) / 60:.0f} minutes", flush=True)
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        (ROOT / page).write_text(filled(text), encoding="utf-8")


# Measuring.

def minute(_) -> None:
    if not (HERE / "quality.csv").is_file():
        python("benchmarks/measure.py", "quality", "--seeds", "3", "--write")


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


def python(*command: str) -> None:
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


PARTS = {"picture": picture, "minute": minute, "digits": lambda args: evaluate("digits", 100, args),
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


def evaluated(name: str) -> str:
    return evaluation.table(json.loads((HERE / f"evaluated-{name}.json").read_text(encoding="utf-8")))


TABLES = {"minute": minute_table, "digits": lambda: evaluated("digits"), "mnist": lambda: evaluated("mnist")}


def filled(text: str) -> str:
    """A page with its tables as the files have them."""
    return re.sub(r"(<!-- (\w+)[^>]*-->\n).*?(\n<!-- end -->)", lambda found: found[1] + TABLES[found[2]]() + found[3], text, flags=re.DOTALL)


if __name__ == "__main__":
    main()
