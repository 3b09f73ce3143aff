"""A number that a reader sees is the one that was measured."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def readme():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import readme

    yield readme
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.mark.parametrize("page", ["README.md", "ddpm_tutorial/weights/pretrained/README.md"])
def test_the_tables_of_a_page_are_those_of_the_files(readme, page):
    """Whoever measures again writes again: `python benchmarks/readme.py write`."""
    assert page in readme.PAGES
    text = (ROOT / page).read_text(encoding="utf-8")
    tables = re.findall(r"<!-- (\w+): python benchmarks/readme.py (\w+) -->\n", text)
    assert tables and all(name == part for name, part in tables)
    assert len(tables) == text.count("<!-- end -->"), "every table ends"
    assert readme.filled(text) == text


def test_another_number_is_noticed(readme):
    """Each digit of each table: the check above must be able to fail."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for table in re.finditer(r"<!-- \w+: .*?-->\n(.*?)\n<!-- end -->", text, re.DOTALL):
        for digit in re.finditer(r"\d", table[1]):
            at = table.start(1) + digit.start()
            other = text[:at] + str((int(digit[0]) + 1) % 10) + text[at + 1:]
            assert readme.filled(other) == text


def test_the_sentence_about_few_calls_says_what_was_measured(readme):
    """Distances of DPM-Solver++(2M), even in log SNR, minus that of DDIM in 50 even calls, seed by seed."""
    import calls

    def difference(model: str, n: int, scale: float) -> str:
        found = calls.rows(ROOT / "benchmarks" / f"calls-{model}.csv")

        def of(*way):
            return {row["seed"]: float(row["frechet"]) for row in found if (row["calls"], row["sampler"], row["spacing"], row["scale"]) == (*way, str(scale))}

        best, here = of("50", "ddim", "even"), of(str(n), "dpm++", "log-snr")
        mean, half = calls.interval([here[seed] - best[seed] for seed in sorted(best.keys() & here.keys())])
        return f"{abs(mean):.2f} ± {half:.2f}"

    sentence = next(line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("**Few calls.**"))
    digits, mnist = sentence.split("on MNIST")
    assert [difference("digits", 8, scale) for scale in (1.0, 2.0)] == re.findall(r"[\d.]+ ± [\d.]+", digits)
    assert [difference("mnist", 20, scale) for scale in (1.0, 2.0)] == re.findall(r"[\d.]+ ± [\d.]+", mnist)
