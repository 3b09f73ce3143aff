"""The mutation gate: plant each bug of the catalogue in a copy of the package; the test file that it names must fail.

    python tests/mutants/gate.py            all of them, two at a time; exit status 1 if a bug survives
    python tests/mutants/gate.py NAME …     these only
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from catalogue import CATALOGUE, Mutant

ROOT = Path(__file__).resolve().parents[2]


def tried(test: str, mutant: Mutant | None = None) -> tuple[int, str, float]:
    """pytest's exit status, its last lines, and the seconds it took, on a copy of the package with one bug planted, or none."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("ddpm_tutorial", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "mutants"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        if mutant:
            path = copy / "ddpm_tutorial" / mutant.file
            text = path.read_text(encoding="utf-8")
            if text.count(mutant.right) != 1:
                return -1, f"the right text is {text.count(mutant.right)} times in {mutant.file}, and must be there once", 0.0
            path.write_text(text.replace(mutant.right, mutant.wrong), encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        run = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider", f"tests/{test}"],
                             cwd=copy, env=environment, capture_output=True, text=True, timeout=1800)
    failed = [line.split("::", 1)[1].split(" - ")[0] for line in run.stdout.splitlines() if line.startswith("FAILED")]
    return run.returncode, failed[0] if failed else run.stdout.strip().splitlines()[-1], time.perf_counter() - began


def main(names: list[str]) -> int:
    chosen = [m for m in CATALOGUE if not names or m.name in names]
    if unknown := set(names) - {m.name for m in CATALOGUE}:
        sys.exit(f"there is no mutant {', '.join(sorted(unknown))}")
    tests = sorted({m.test for m in chosen})
    with ThreadPoolExecutor(2) as two:
        healthy = list(two.map(tried, tests))
        for test, (status, said, seconds) in zip(tests, healthy):
            print(f"healthy: {test} {'passes' if status == 0 else 'FAILS: ' + said} ({seconds:.0f} s)", flush=True)
        if any(status for status, *_ in healthy):
            return 1
        print("\n| bug | planted in | | noticed by | s |\n|---|---|---|---|--:|", flush=True)
        survivors = 0
        for mutant, (status, said, seconds) in zip(chosen, two.map(lambda m: tried(m.test, m), chosen)):
            killed = status == 1                                # a test failed; other statuses mean that pytest could not even begin
            survivors += not killed
            print(f"| {mutant.name} | {mutant.file} | {'killed' if killed else 'SURVIVED'} | {mutant.test}: {said} | {seconds:.0f} |", flush=True)
    print(f"\n{len(chosen) - survivors} of {len(chosen)} bugs were noticed by the test file that must notice them")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
