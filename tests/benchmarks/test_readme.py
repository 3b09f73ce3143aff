"""A number that a reader sees is the one that was measured."""

import re
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ddpm_tutorial import DDPM, TrainState
from ddpm_tutorial.evaluation.report import beside_usual
from ddpm_tutorial.training.recipes import DIGITS_GAVE, RECIPES, usual

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

    def difference(model: str, n: int, scale: float, spacing: str = "log-snr") -> str:
        found = calls.rows(ROOT / "benchmarks" / f"calls-{model}.csv")

        def of(*way):
            return {row["seed"]: float(row["frechet"]) for row in found if (row["calls"], row["sampler"], row["spacing"], row["scale"]) == (*way, str(scale))}

        best, here = of("50", "ddim", "even"), of(str(n), "dpm++", spacing)
        mean, half = calls.interval([here[seed] - best[seed] for seed in sorted(best.keys() & here.keys())])
        return f"{abs(mean):.2f} ± {half:.2f}"

    sentence = next(line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("**Few calls.**"))
    digits, mnist = sentence.split("on MNIST")
    assert [difference("digits", 8, scale) for scale in (1.0, 2.0)] == re.findall(r"[\d.]+ ± [\d.]+", digits)
    twenty, ten = [difference("mnist", 20, scale) for scale in (1.0, 2.0)], [difference("mnist", 10, scale, "log-snr to 4") for scale in (1.0, 2.0)]
    assert twenty + ten == re.findall(r"[\d.]+ ± [\d.]+", mnist)


def test_the_page_about_calls_is_what_was_measured(readme):
    """Its tables; and how far the list "to 4" is from the one within ±8, in 10 calls, seed by seed."""
    import calls

    page = (ROOT / "benchmarks" / "calls.md").read_text(encoding="utf-8")
    found = []
    for model in ("mnist", "digits"):
        assert calls.table(model) in page
        rows = [row for row in calls.rows(ROOT / "benchmarks" / f"calls-{model}.csv") if (row["sampler"], row["calls"]) == ("dpm++", "10")]
        for scale in ("1.0", "2.0"):
            four, eight = ({row["seed"]: float(row["frechet"]) for row in rows if (row["spacing"], row["scale"]) == (spacing, scale)}
                           for spacing in ("log-snr to 4", "log-snr"))
            mean, half = calls.interval([four[seed] - eight[seed] for seed in sorted(four)])
            assert (mean < 0) == (model == "mnist")
            found.append(f"{abs(mean):.2f} ± {half:.2f}")
    assert re.findall(r"[\d.]+ ± [\d.]+", page.partition("Against ±8")[2].partition("At scale 2")[0]) == found


def test_the_sentences_about_samplers_and_schedules_say_what_was_measured(readme):
    """Differences of what is above the floor, paired by seed; "equal" and "cannot be told" are the verdicts of benchmarks/compare.py."""
    import compare

    rows = compare.read(ROOT / "benchmarks" / "compare.csv")
    floor = next(row["frechet"] - row["above"] for row in rows.values())
    found = {(d.what, d.sampler, d.steps): d for d in compare.differences(rows)}
    text = next(line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("**Samplers and schedules"))

    exact, learnt = "walked linear - cosine; exact denoiser", "walked linear - cosine; matched, trained cosine"
    matched, uniform = (f"trained linear - cosine; {times}, walked cosine" for times in ("matched", "uniform"))
    chosen = {("2M - DDIM", "2M", 10): "better", ("DDPM - DDIM", "DDPM", 10): "worse", (exact, "DDIM", 5): "worse", (learnt, "DDIM", 5): "worse",
              (learnt, "DDIM", 10): "worse", (matched, "DDIM", 50): "cannot tell", (uniform, "DDIM", 50): "worse, alone",
              (uniform, "DDPM", 50): "cannot tell"}
    assert [f"{abs(found[key].mean):.2f} ± {found[key].half:.2f}" for key in chosen] == re.findall(r"[\d.]+ ± [\d.]+", text)
    assert [found[key].verdict(floor) for key in chosen] == list(chosen.values())
    assert {found["2M - DDIM", "2M", steps].verdict(floor) for steps in (50, 250)} == {"equal"}
    assert {found["DDPM - DDIM", "DDPM", steps].verdict(floor) for steps in (50, 250)} == {"cannot tell"}
    assert {found[exact, "DDIM", steps].verdict(floor) for steps in (10, 20, 50, 250)} == {"equal"}
    assert {found[learnt, "DDIM", steps].verdict(floor) for steps in (50, 250)} == {"equal"}
    assert len([d for d in found.values() if d.family == "training"]) == 60


# What `make run` says beside its own numbers.

def test_what_is_called_usual_is_what_was_measured(readme):
    """The package holds a copy of four means, because it has no benchmarks folder where it is installed."""
    ours = [row for row in readme.rows(ROOT / "benchmarks" / "quality.csv") if row["contender"] == "ours"]
    means = {}
    for asked in {row["asked_seconds"] for row in ours}:
        same = [row for row in ours if row["asked_seconds"] == asked]
        steps, agreement, above = (statistics.mean(float(row[key]) for row in same) for key in ("steps", "agreement_scale_1", "above_floor"))
        means[round(steps)] = (round(agreement, 3), round(above, 2))
    assert means == DIGITS_GAVE


def test_between_two_measured_lengths_a_straight_line_in_log_steps():
    """The measured lengths give themselves, the geometric mean of two of them their mean; beyond them nothing is known."""
    assert all(usual(steps) == pytest.approx(gave) for steps, gave in DIGITS_GAVE.items())
    low, high = sorted(DIGITS_GAVE)[:2]
    assert usual(round((low * high) ** 0.5)) == pytest.approx([(a + b) / 2 for a, b in zip(DIGITS_GAVE[low], DIGITS_GAVE[high])], rel=0.01)
    for steps in (low - 1, max(DIGITS_GAVE) + 1):
        with pytest.raises(ValueError, match=f"steps is {steps}"):
            usual(steps)


@pytest.mark.parametrize("steps, said", [(100, "not done"), (376, "usual after so many: 96.4% and 0.62"), (5000, "many or more: 98.6% and 0.19")])
def test_a_run_hears_what_its_steps_usually_give(steps, said):
    """A slow machine's 94 % is no mistake of the reader's; of another recipe nothing is said."""
    config, how = RECIPES["digits"]
    state, row = TrainState(DDPM(config), replace(how, steps=steps)), {"agreement": 0.942, "frechet_above": 1.234}
    state.step = steps
    line = beside_usual(state, "digits", row)
    assert line.startswith(f"{steps:,} steps gave 94.2% and 1.23 above the floor") and said in line
    state.config = replace(how, steps=steps, lr=1e-3)
    assert beside_usual(state, "digits", row) == beside_usual(state, "mnist", row) == ""
