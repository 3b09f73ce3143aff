"""How good a model of digits can two minutes of one processor make?  One submission, five seeds, the judge, and whether it is a record.

    python benchmarks/speedrun/run.py recipe                            benchmarks/speedrun/recipe.py; any path of a Python file will do
    python benchmarks/speedrun/run.py muon --set muon=0.01 lr=2e-3      with other settings than its own
    python benchmarks/speedrun/run.py table                             only the table of all that was tried

README.md beside this file has the rules.  Each seed is a process of one thread.  Results are added to tried.csv; what is in it is not run again.
"""

import argparse
import ast
import csv
import hashlib
import importlib
import math
import multiprocessing
import os
import platform
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import torch
from scipy import stats

from ddpm_tutorial import DDPM, data, evaluation
from ddpm_tutorial.evaluation import metrics
from ddpm_tutorial.weights import PRETRAINED

HERE = Path(__file__).resolve().parent
SECONDS, SAMPLES, SEEDS = 120.0, 1000, range(5)
AGREEMENT, MEMORISATION = 0.98, 0.95                            # what a record must have; its score is the distance
WORDS = ("submission", "settings", "code", "processor", "torch")
FIELDS = ("submission", "settings", "code", "seconds", "seed", "spent", "agreement_scale_1", "agreement_scale_2", "above_floor", "memorisation", "processor",
          "torch")


def code(path: Path) -> str:
    """The first eight digits of the SHA-256 of a file and of those beside it that it imports: an edited submission is another one, whatever its name."""
    text = path.read_text(encoding="utf-8")
    beside = sorted({name for name in re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE) if path.with_name(f"{name}.py").is_file()})
    return hashlib.sha256("".join([text, *(path.with_name(f"{name}.py").read_text(encoding="utf-8") for name in beside)]).encode()).hexdigest()[:8]


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    return f"{found[1] if found else platform.processor()}, {torch.backends.cpu.get_cpu_capability()}"


def spent_so_far() -> float:
    """Seconds of the processor, of all threads of this process and of the processes that it started and that have ended."""
    return sum(os.times()[:4])


def one(path: str, settings: dict, seed: int, seconds: float) -> dict:
    """Train with this seed and measure; in a process of its own."""
    torch.set_num_threads(1)
    (images, y, _), (test, y_test, _) = data.load("digits"), data.load("digits", "test")
    x, x_test = data.normalise(images), data.normalise(test)
    began = spent_so_far()
    sys.path.insert(0, str(Path(path).resolve().parent))
    train = importlib.import_module(Path(path).stem).train      # what is done on import counts, too
    model = train(x.clone(), y.clone(), seed, lambda: seconds - (spent_so_far() - began), **settings)
    for child in multiprocessing.active_children():
        child.join()
    spent = spent_so_far() - began
    if spent > 1.02 * seconds:
        raise RuntimeError(f"{path} took {spent:.1f} seconds of the processor; it has {seconds:g}")

    classifier, _ = evaluation.load_classifier(PRETRAINED["digits"].parent / "digits-classifier.safetensors")
    judge = evaluation.judge(classifier, x, y, x_test, y_test)
    wanted = torch.arange(SAMPLES) % 10
    plain, guided = (DDPM.sample(model, SAMPLES, wanted, scale=scale, seed=seed) for scale in (1.0, 2.0))
    floor = metrics.frechet_distance(judge.seen(x[metrics.per_class(y, SAMPLES // 10)]), judge.features)
    return {"spent": spent, "agreement_scale_1": metrics.accuracy(classifier, plain, wanted), "agreement_scale_2": metrics.accuracy(classifier, guided, wanted),
            "above_floor": metrics.frechet_distance(judge.seen(plain), judge.features) - floor,
            "memorisation": metrics.memorisation(plain, x, x_test), "processor": processor(), "torch": torch.__version__}


def read(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: value if name in WORDS else float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def by_name(rows: list[dict]) -> dict[str, dict[int, dict]]:
    """name with settings → seed → row; of full length only.  What a file gave before it was edited, and a file from elsewhere, stands with its code."""
    found: dict[str, dict[int, dict]] = defaultdict(dict)
    for row in rows:
        if row["seconds"] == SECONDS:
            here = HERE / f"{row['submission']}.py"
            edited = "" if here.is_file() and code(here) == row["code"] else f"({row['code']})"
            found[" ".join(filter(None, (row["submission"], row["settings"], edited)))][int(row["seed"])] = row
    return found


def better(seeds: dict[int, dict], record: dict[int, dict]) -> float:
    """p, if its distances were no smaller than the record's: Student's t, paired by seed on one processor, one-sided; NaN without two pairs."""
    both = sorted(k for k in seeds.keys() & record.keys() if seeds[k]["processor"] == record[k]["processor"])
    if len(both) < 2:
        return math.nan
    return float(stats.ttest_rel([seeds[k]["above_floor"] for k in both], [record[k]["above_floor"] for k in both], alternative="less").pvalue)


def counts(seeds: dict[int, dict]) -> bool:
    """All five seeds, and what a record must have besides a small distance."""
    return seeds.keys() >= set(SEEDS) and all(statistics.mean(seeds[k][key] for k in SEEDS) >= least
                                              for key, least in (("agreement_scale_1", AGREEMENT), ("memorisation", MEMORISATION)))


def is_record(seeds: dict[int, dict], record: dict[int, dict]) -> bool:
    """Of these five seeds and no others, of both, all on one processor: who may add seeds, or leave some out, until p is small will have it small some day."""
    if not (counts(seeds) and record.keys() >= set(SEEDS)) or len({row["processor"] for rows in (seeds, record) for row in map(rows.get, SEEDS)}) > 1:
        return False
    return better(*({k: rows[k] for k in SEEDS} for rows in (seeds, record))) < 0.05


def table(rows: list[dict], record: str) -> str:
    """Means over seeds ± standard deviation; the smallest distance first."""
    found = by_name(rows)
    lines = ["| submission | seeds | agreement, scale 1 | scale 2 | Fréchet distance above its floor | memorisation | counts | p, if no better |",
             "|---|---:|---:|---:|---:|---:|---|---:|"]
    for name, seeds in sorted(found.items(), key=lambda item: statistics.mean(row["above_floor"] for row in item[1].values())):
        def mean(key, seeds=seeds):
            return statistics.mean(row[key] for row in seeds.values())
        spread = f" ± {statistics.stdev(row['above_floor'] for row in seeds.values()):.2f}" if len(seeds) > 1 else ""
        p = "held against" if name == record else f"{better(seeds, found.get(record, {})):.3f}".replace("nan", "")
        lines.append(f"| {name} | {len(seeds)} | {mean('agreement_scale_1'):.2%} | {mean('agreement_scale_2'):.1%} | {mean('above_floor'):.2f}{spread} "
                     f"| {mean('memorisation'):.2f} | {'yes' if counts(seeds) else 'no'} | {p} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("submission", help="a name beside this file, or a path; or table")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of its function")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the processor; other lengths are not compared")
    parser.add_argument("--out", type=Path, default=HERE / "tried.csv")
    parser.add_argument("--record", default="recipe", help="what to compare with (default: recipe)")
    args = parser.parse_args()
    rows = read(args.out)
    if args.submission != "table":
        path = Path(args.submission) if args.submission.endswith(".py") else HERE / f"{args.submission}.py"
        if not path.is_file():
            parser.error(f"there is no {path}")
        settings = {name: ast.literal_eval(value) if value[:1] in "(-.0123456789" else value for name, value in (pair.split("=", 1) for pair in args.set)}
        key = {"submission": path.stem, "settings": " ".join(args.set), "code": code(path), "seconds": args.seconds}
        for seed in args.seeds:
            if any(all(row[name] == value for name, value in (key | {"seed": seed}).items()) for row in rows):
                continue
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row = key | {"seed": seed} | pool.apply(one, (str(path), settings, seed, args.seconds))
            new = not args.out.is_file()
            with open(args.out, "a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
                if new:
                    writer.writeheader()
                writer.writerow({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()})
            print(*(f"{name} {value:.3f}" for name, value in row.items() if isinstance(value, float)), flush=True)
            rows.append(row)
    print(table(rows, args.record))
    found = by_name(rows)
    for name, seeds in found.items():
        if name != args.record and args.record in found and is_record(seeds, found[args.record]):
            print(f"{name} beats {args.record}")


if __name__ == "__main__":
    main()
