"""The mutation gate: plant each bug of the catalogue in a copy of the package; the test file that it names must fail.

    python tests/mutants/gate.py            all of them, two at a time; exit status 1 if a bug survives
    python tests/mutants/gate.py NAME …     these only

What takes long is importing torch, so that is done once: each bug has a process that is forked from one where all is loaded but the package.  And each
test that noticed a bug must pass without one, or it would notice anything: those tests are tried again at the end, on a healthy copy.
"""

import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import time
from contextlib import redirect_stdout, suppress
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from catalogue import CATALOGUE, Mutant

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1800                                                    # seconds: a bug can make a loop endless, and a slow machine is slow
LOADED = ("torch", "numpy", "scipy.stats", "hypothesis", "sklearn.datasets", "sklearn.model_selection", "matplotlib.figure", "PIL.Image", "safetensors.torch",
          "tqdm", "diffusers", "torchmetrics")


class Trial(NamedTuple):
    """What pytest says of these tests on a copy with one bug planted, or none."""

    tests: tuple[str, ...]
    mutant: Mutant | None = None


class Verdict(NamedTuple):
    status: int                                                 # pytest's: 1 means that a test failed
    failed: str                                                 # the first of them
    seconds: float


class First:
    """A plugin that keeps the name of the first test that fails."""

    def __init__(self):
        self.failed = ""

    def pytest_runtest_logreport(self, report):
        self.failed = self.failed or report.nodeid * report.failed


def tried(trial: Trial, pipe) -> None:
    """In a process of its own, whose package is the copy."""
    began, first = time.perf_counter(), First()
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGALRM, lambda *_: pytest.exit(f"not ready after {LIMIT} s", 99))
        signal.alarm(LIMIT)
    with TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        copy = Path(folder)
        for part in ("ddpm_tutorial", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "mutants"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        if mutant := trial.mutant:
            path = copy / "ddpm_tutorial" / mutant.file
            text = path.read_text(encoding="utf-8")
            if text.count(mutant.right) != 1:
                pipe.send(Verdict(-1, f"the right text is {text.count(mutant.right)} times in {mutant.file}, and must be there once", 0.0))
                return
            path.write_text(text.replace(mutant.right, mutant.wrong), encoding="utf-8")
        os.environ |= {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        os.chdir(copy)
        sys.path.insert(0, folder)
        sys.dont_write_bytecode = True
        with redirect_stdout(nowhere):
            status = pytest.main(["-q", "-x", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist", *(f"tests/{test}" for test in trial.tests)], [first])
        if copy.resolve() not in Path(sys.modules["ddpm_tutorial"].__file__).resolve().parents:
            status = -1                                         # another package was tested
        os.chdir(ROOT)
        pipe.send(Verdict(int(status), first.failed.removeprefix("tests/"), time.perf_counter() - began))


def all_of(trials: list[Trial], at_once: int = 2):
    """Each trial and its verdict, as they come."""
    how = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    waiting, running = list(reversed(trials)), {}
    while waiting or running:
        while waiting and len(running) < at_once:
            trial = waiting.pop()
            ours, theirs = how.Pipe(duplex=False)
            process = how.Process(target=tried, args=(trial, theirs))
            process.start()
            theirs.close()                                      # of the two ends of it one is the child's: when that dies, we are told
            running[ours] = trial, process
        for pipe in wait(list(running)):
            trial, process = running.pop(pipe)
            try:
                verdict = pipe.recv()
            except EOFError:
                verdict = Verdict(-1, "its process died", 0.0)
            process.join()
            yield trial, verdict


def main(names: list[str]) -> int:
    chosen = [m for m in CATALOGUE if not names or m.name in names]
    if unknown := set(names) - {m.name for m in CATALOGUE}:
        sys.exit(f"there is no mutant {', '.join(sorted(unknown))}")
    for name in LOADED:
        with suppress(ImportError):
            importlib.import_module(name)
    assert "ddpm_tutorial" not in sys.modules, "each process has to import its own copy"

    print("| bug | planted in | | noticed by | s |\n|---|---|---|---|--:|", flush=True)
    noticed: dict[str, list[str]] = {}                          # test → the bugs that it noticed first
    for (_, mutant), (status, test, seconds) in all_of([Trial((m.test,), m) for m in chosen]):
        killed = status == 1                                    # other statuses mean that pytest could not even begin
        if killed:
            noticed.setdefault(test, []).append(mutant.name)
        print(f"| {mutant.name} | {mutant.file} | {'killed' if killed else 'SURVIVED'} | {test or mutant.test} | {seconds:.0f} |", flush=True)

    by_file: dict[str, list[str]] = {}
    for test in noticed:
        by_file.setdefault(test.split("::")[0], []).append(test)
    print(f"\nthe {len(noticed)} tests that noticed them, without a bug:", flush=True)
    killed = sum(map(len, noticed.values()))
    for trial, (status, test, seconds) in all_of([Trial(tuple(tests)) for tests in by_file.values()]):
        print(f"{trial.tests[0].split('::')[0]}: {len(trial.tests)} {'pass' if status == 0 else 'do NOT pass: ' + test} ({seconds:.0f} s)", flush=True)
        killed -= 0 if status == 0 else sum(len(noticed[test]) for test in trial.tests)
    print(f"\n{killed} of {len(chosen)} bugs were noticed by the test file that must notice them")
    return int(killed < len(chosen))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
