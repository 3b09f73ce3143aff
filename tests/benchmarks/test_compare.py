"""The comparisons of benchmarks/compare.py: that they compare what they say, that nothing is measured twice, and that the statistics are right."""

import csv
import math
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

from ddpm_tutorial import DDPM, cosine, data, denoiser, final, linear, ring, sample, seeded_noise, x0_from_eps

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def compare(tmp_path_factory):
    spec = spec_from_file_location("compare", ROOT / "benchmarks" / "compare.py")
    module = sys.modules["compare"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.RUNS = tmp_path_factory.mktemp("runs")
    return module


@pytest.fixture
def rows(compare):
    """Made up: linear costs 1 in training and 2 on the walk, noise costs 3; seeds and blocks differ by much, and what is paired by a little."""
    points = sorted({p for what in compare.COMPARED for p in compare.points(what, 3, 20, (2, 3), 2)})

    def row(p, little):
        above = (p.trained == "linear") + 2 * (p.walked == "linear") + 3 * p.sampler.startswith("DDPM") + 10 * p.seed + p.block + p.seed / p.steps + little
        seen = dict.fromkeys(compare.COLUMNS[len(compare.Point._fields):], 0.5)
        return seen | {"frechet": above + 1, "above": above, "above_judge_1": above, "above_judge_2": above}

    littles = 0.01 * torch.randn(len(points), generator=torch.Generator().manual_seed(0))
    return {p: row(p, little) for p, little in zip(points, littles.tolist())}


# What is measured.

def test_schedules_are_a_two_by_two_by_two(compare):
    """Trained × times × walked, every walk, every number of steps, every seed; and not the variance that is not compared."""
    points = compare.points("schedules")
    walks = {name for name in compare.SAMPLERS if name != "DDPM, large"}
    assert len(points) == len({*points}) == 2 * 2 * 2 * len(walks) * 5 * 5
    assert {p.trained for p in points} == {p.walked for p in points} == {"linear", "cosine"} and {p.times for p in points} == {"matched", "uniform"}
    assert {p.sampler for p in points} == walks >= {"DDIM", "DDPM"} and {p.steps for p in points} == {5, 10, 20, 50, 250}


def test_samplers_get_a_thousand_images_at_every_number_of_steps(compare):
    points = compare.points("samplers")
    for name in compare.SAMPLERS:
        for steps in compare.STEPS:
            assert compare.BLOCK * sum((p.sampler, p.steps, p.seed) == (name, steps, 0) for p in points) == 1000
    assert {*compare.points("schedules")} & {*points}, "what both need is measured once"
    assert compare.BLOCK % 10 == 0, "as many of each class in every block"


def test_with_the_exact_denoiser_nothing_is_trained(compare):
    points = compare.points("walks")
    assert {(p.trained, p.times, p.train_steps) for p in points} == {("exact", "none", 0)} and {p.walked for p in points} == {"linear", "cosine"}


# Walking under another schedule.

class Exact(torch.nn.Module):
    """A perfect network for the ring, trained under a schedule: it predicts x_0, and knows σ by that schedule's time alone."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.eps = schedule, ring().denoiser(schedule)

    def forward(self, x_t, t, y=None):
        return x0_from_eps(self.schedule, x_t, self.eps(x_t, t), t)


@pytest.mark.parametrize("sampler", ["DDIM", "DDPM"])
@pytest.mark.parametrize("known, walked", [(linear(1000), cosine(1000)), (cosine(1000), linear(1000))], ids=["linear walks cosine", "cosine walks linear"])
def test_walking_under_another_schedule_loses_nothing(compare, known, walked, sampler):
    """A perfect network of one schedule, told its own times, ends where a perfect network of the walk's schedule ends: within 0.002 in the median, where a
    hill of the ring has a width of 0.1 and the two schedules' own walks, in five steps, end a hundred times as far apart."""
    def end(net, schedule, steps):
        noise = seeded_noise(0, range(500), (2,))
        return final(sample(denoiser(net, schedule, predict="x0"), schedule, noise(1000), compare.SAMPLERS[sampler](), steps, noise=noise))

    for steps in (5, 50, 250):
        told = end(compare.Told(Exact(known), known, walked), walked, steps)
        assert (told - end(Exact(walked), walked, steps)).norm(dim=1).median() < 0.002, steps
    assert (end(Exact(known), known, 5) - end(Exact(walked), walked, 5)).norm(dim=1).median() > 0.2


def test_the_clock_tells_the_nearest_noise(compare):
    """Its own times to a network of the same schedule; another's to less than 6 % of σ where digits are made, and the end of the table beyond it."""
    one, other = linear(1000), cosine(1000)
    assert torch.equal(compare.Told(torch.nn.Identity(), one, one).table, torch.arange(1001))
    for known, under in ((one, other), (other, one)):
        table, sigma = compare.Told(torch.nn.Identity(), known, under).table, under.snr ** -0.5
        near = (sigma > 0.02) & (sigma < 20)
        assert ((known.snr[table] ** -0.5 / sigma - 1).abs()[near] < 0.06).all() and (table[1:].diff() >= 0).all() and table[1:].min() >= 1
    assert compare.Told(torch.nn.Identity(), one, other).table[1000] == 1000


def test_matched_training_times_are_one_distribution_of_noise(compare):
    """The header's reason: drawn logit-normally in t, log σ is 0.02 ± 0.98 under cosine and 1.35 ± 1.46 under linear.  Told the linear time of cosine's
    draws, a network under linear sees what cosine sees."""
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    t = ((1.2 * torch.special.ndtri(u)).sigmoid() * 1000).long().clamp(0, 999) + 1

    def seen(schedule, t):
        log_sigma = -schedule.log_snr[t] / 2
        return log_sigma.mean().item(), log_sigma.std().item()

    assert seen(cosine(1000), t) == pytest.approx((0.02, 0.98), abs=0.01) and seen(linear(1000), t) == pytest.approx((1.35, 1.46), abs=0.01)
    assert seen(linear(1000), compare.Told(torch.nn.Identity(), linear(1000), cosine(1000)).table[t]) == pytest.approx((0.02, 0.98), abs=0.01)


def test_a_model_is_trained_as_it_says_and_walks_both_ways(compare):
    """Three steps of training: the four kinds are four models, each knows its schedule, and a walk under the own schedule needs no clock."""
    models = {(schedule, times): DDPM.load(compare.trained(schedule, times, 0, 3)) for schedule in compare.SCHEDULES for times in compare.TIMES}
    assert all(model.config.schedule == schedule for (schedule, _), model in models.items())
    learnt = [torch.cat([p.flatten() for p in model.net.parameters()]) for model in models.values()]
    assert not any(torch.equal(a, b) for i, a in enumerate(learnt) for b in learnt[:i])
    point = compare.Point("cosine", "matched", 0, 3, "cosine", "DDIM", 2, 0)
    images, y = compare.draw(point, 20)
    torch.testing.assert_close(images, models["cosine", "matched"].sample(20, y, "ddim", 2))
    across, _ = compare.draw(point._replace(walked="linear"), 20)
    assert across.shape == images.shape and not torch.equal(across, images)


def test_blocks_are_other_images_of_the_same_seed(compare):
    """So that they are draws of their own, and any of them can be measured again alone."""
    point = compare.Point("exact", "none", 0, 0, "cosine", "DDIM", 3, 0)
    one, other = (compare.draw(point._replace(block=block), 20)[0] for block in (0, 1))
    assert not torch.equal(one, other) and torch.equal(one, compare.draw(point, 20)[0])


def test_the_exact_denoiser_draws_training_images_of_the_class_that_was_asked_for(compare):
    images, y = compare.draw(compare.Point("exact", "none", 0, 0, "cosine", "DDIM", 50, 0), 20)
    train, labels, _ = data.load("digits")
    apart = torch.cdist(images.flatten(1), data.normalise(train).flatten(1))
    assert (apart.min(1).values < 0.05).all() and torch.equal(labels[apart.argmin(1)], y)


def test_train_images_are_at_the_floor_and_not_new(compare):
    """For all three judges; copies of train images have a memorisation of 0, and a negative is far above the floor."""
    images, y, _ = data.load("digits")
    block = torch.stack([(y == k).nonzero().flatten()[:25] for k in range(10)], dim=1).flatten()     # 250: one block of the floor's four
    panel, floor = compare.real()
    copies, negative = (compare.quality(sign * data.normalise(images)[block], y[block]) for sign in (1, -1))
    for key, least in zip(("above", "above_judge_1", "above_judge_2"), floor):
        assert abs(copies[key]) < 0.5 * least and negative[key] > 20 * least, key
    assert len(panel) == 3 and copies["agreement"] > 0.98 and copies["memorisation"] == 0 and copies["variety"] == pytest.approx(1, abs=0.1)


# Rows on disk.

def test_rows_survive_the_disk(compare, rows, tmp_path):
    rows = {point: {key: float(f"{value:.5g}") for key, value in row.items()} for point, row in rows.items()}
    compare.write(tmp_path / "compare.csv", rows)
    assert compare.read(tmp_path / "compare.csv") == rows
    assert [path.name for path in tmp_path.iterdir()] == ["compare.csv"] and compare.read(tmp_path / "nothing.csv") == {}


def test_what_was_measured_is_not_measured_again(compare, tmp_path, monkeypatch, capsys):
    """A second start with a complete file trains nothing, draws nothing, and shows tables and figures; a row of other settings stays, and is not shown."""
    wanted = [p for what in compare.COMPARED for p in compare.points(what, 2, 20, (2, 3), 2)]
    row = dict.fromkeys(compare.COLUMNS[len(compare.Point._fields):], 0.5)
    rows = {p: row | {"frechet": 1.5 + p.seed + p.block, "above": 0.5 + p.seed + p.block} for p in [*wanted, wanted[0]._replace(steps=1000)]}
    compare.write(tmp_path / "compare.csv", rows)
    before = (tmp_path / "compare.csv").read_bytes()
    monkeypatch.setattr(compare, "trained", None)
    monkeypatch.setattr(compare, "measured", None)
    monkeypatch.setattr(compare, "real", lambda: ([], [1.0]))
    monkeypatch.setattr(sys, "argv", ["compare.py", "--quick", "--out", str(tmp_path)])
    compare.main()
    shown = capsys.readouterr().out
    assert (tmp_path / "compare.csv").read_bytes() == before and "1000" not in shown and "over 2 seeds" in shown
    assert {path.name for path in tmp_path.glob("*.png")} == {f"compare-{family}.png" for family in ("samplers", "training", "walk", "walk-exact")}


def test_a_run_that_was_stopped_goes_on(compare, tmp_path, monkeypatch, capsys):
    """Of a whole file half of the rows are taken away: only those are asked for."""
    wanted = sorted({p for what in compare.COMPARED for p in compare.points(what, 2, 20, (2, 3), 2)})
    row = dict.fromkeys(compare.COLUMNS[len(compare.Point._fields):], 0.5)
    compare.write(tmp_path / "compare.csv", {p: row for p in wanted[::2]})
    asked = []
    monkeypatch.setattr(compare, "measure_all", lambda todo, done, args: asked.extend(todo) or done.update({p: row for p in todo}))
    monkeypatch.setattr(compare, "estimate", lambda todo, jobs: f"{len(todo)} to go")
    monkeypatch.setattr(compare, "real", lambda: ([], [1.0]))
    monkeypatch.setattr(sys, "argv", ["compare.py", "--quick", "--out", str(tmp_path)])
    compare.main()
    assert sorted(asked) == wanted[1::2] and f"{len(wanted[1::2])} to go" in capsys.readouterr().out


def test_the_estimate_says_what_is_left_and_for_how_many_processes(compare):
    todo = {p for p in compare.points("schedules", 2, 700, (5,), 2)}
    text = compare.estimate(todo, 2)
    assert text.startswith(f"8 trainings and {len(todo)} blocks of 250 images to go: about ") and text.endswith("in 2 processes")


def test_a_quick_run_does_not_mix_with_real_measurements(compare, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare.py", "--quick"])
    with pytest.raises(SystemExit):
        compare.main()
    assert "--out" in capsys.readouterr().err


def test_the_committed_measurements_are_those_of_the_command(compare):
    """Five seeds, every point, no other settings: the notebook's tables are what the command would print.  A comparison is there whole, or not at all."""
    path = ROOT / "benchmarks" / "compare.csv"
    rows, whole = compare.read(path), {what: {*compare.points(what)} for what in compare.COMPARED}
    there = [what for what in compare.COMPARED if whole[what] <= rows.keys()]
    assert {*there} >= {"walks", "samplers"} and rows.keys() == set().union(*(whole[what] for what in there))
    with open(path, newline="", encoding="utf-8") as file:
        assert tuple(next(csv.reader(file))) == compare.COLUMNS
    text = (ROOT / "benchmarks" / "compare.md").read_text(encoding="utf-8")
    assert text.endswith(compare.report(rows)) and f"compare.py {' '.join(there)}`" in text


# What came out.

def test_differences_are_paired_and_find_what_was_put_in(compare, rows):
    """Training 1, walk 2 and noise 3 to a few hundredths, although seeds differ by 10: within a seed and a block both start from the same noise."""
    found, put_in = compare.differences(rows), {"training": 1, "walk": 2, "samplers": 3}
    assert {d.family for d in found} == {*put_in, "walk-exact"}
    for d in found:
        expected = 2 if d.family == "walk-exact" else 0 if d.sampler == "2M" and d.family == "samplers" else put_in[d.family]
        assert d.mean == pytest.approx(expected, abs=0.05) and d.half < 0.15, d
        assert d.judges == pytest.approx((d.mean, d.mean))
    assert len(found) == len({d[:4] for d in found})


def test_a_difference_says_what_the_interval_allows(compare):
    """Equal within a tenth of the floor, better or worse, alone if Holm takes it back, and otherwise: cannot tell."""
    def verdict(mean, half, holm=0.01):
        return compare.Difference("walk", "", "DDIM", 5, mean, half, holm, (mean, mean)).verdict(floor=1.0)

    assert verdict(0.02, 0.05) == "equal" and verdict(0.05, 0.04) == "equal", "not 0, but no more than a tenth of the floor"
    assert verdict(0.02, 0.2) == "cannot tell" and verdict(-0.3, 0.1) == "better" and verdict(0.3, 0.1) == "worse"
    assert verdict(0.3, 0.1, holm=0.2) == "worse, alone"


def test_the_interval_is_students(compare):
    """Two values: half their distance times 12.706; the textbook's quantile for one degree of freedom."""
    assert compare.interval([1.0, 2.0]) == pytest.approx((1.5, 12.7062 * 0.5), rel=1e-4)
    with pytest.raises(ValueError, match="there are 1 values"):
        compare.interval([1.0])


def test_holms_correction_is_the_step_down_one(compare):
    """By hand: 0.01·4, then 0.02·3, then 0.03·2 raised to what came before it, and 0.5."""
    assert compare.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert compare.holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])


def test_variance_between_trainings_is_told_from_variance_between_samplings(compare):
    """400 trainings of 4 blocks, made with standard deviations of 2 and 1; and without any difference between trainings, where the plain
    spread of the means would still be a half of sampling's."""
    generator = torch.Generator().manual_seed(0)
    for training in (2.0, 0.0):
        values = training * torch.randn(400, 1, generator=generator) + torch.randn(400, 4, generator=generator)
        found = compare.components({seed: dict(enumerate(row)) for seed, row in enumerate(values.tolist())})
        assert found == pytest.approx((training, 1.0), abs=0.25 if training else 0.3)
        assert math.hypot(found[0], found[1] / 2) == pytest.approx(values.mean(1).std().item(), abs=0.06)
    with pytest.raises(ValueError, match=r"\[1, 1\] blocks of 2 trainings"):
        compare.components({0: {0: 1.0}, 1: {0: 2.0}})


def test_the_forest_draws_every_difference_with_its_interval(compare, rows):
    """One panel for each pair of circumstances, one line for each sampler and number of steps; full where Holm leaves it standing."""
    found = [d for d in compare.differences(rows) if d.family == "walk"]
    figure = compare.forest(found, 1.0, "walk")
    panels = figure.get_axes()
    assert len(panels) == len({d.what for d in found}) == 4
    drawn = sorted(line.get_xdata()[0] for axis in panels for container in axis.containers for line in [container[0]])
    assert drawn == pytest.approx(sorted(d.mean for d in found))
    lines = sorted({(d.steps, d.sampler) for d in found}, reverse=True)
    assert [text.get_text() for text in panels[0].get_yticklabels()] == [f"{sampler}, {steps} steps" for steps, sampler in lines]
