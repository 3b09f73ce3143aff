"""The two comparisons of benchmarks/compare.py: what they measure, and that nothing is measured twice."""

import csv
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
import sys

import pytest
import torch

from ddpm_tutorial import DDPM, data

HERE = Path(__file__).resolve().parents[1]                      # tests/, beside benchmarks/


@pytest.fixture(scope="module")
def compare():
    spec = spec_from_file_location("compare", HERE.parent / "benchmarks" / "compare.py")
    module = sys.modules["compare"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def rows(compare):
    """Made up: a distance that falls with the steps, and differs between seeds by 1."""
    def row(point):
        return dict.fromkeys(compare.COLUMNS[len(compare.Point._fields):], 0.5) | {"frechet_ratio": 100 // point.steps + point.seed}

    return {name: [(point, row(point)) for point in sorted(compare.points(name, 2, 20, (2, 3)))] for name in compare.COMPARED}


def test_every_seed_draws_with_every_sampler_in_every_number_of_steps(compare):
    points = compare.points("samplers", 5, 700)
    assert len(points) == len({*points}) == 5 * 4 * 7
    assert {(p.sampler, p.eta, p.variance) for p in points} == {*compare.SAMPLERS.values()}
    assert {p.schedule for p in compare.points("schedules", 5, 700)} == {"linear", "cosine"}


def test_the_comparisons_share_what_both_need(compare):
    """The cosine models' rows of "schedules" are rows of "samplers": measured once."""
    cosine = {p for p in compare.points("schedules", 5, 700) if p.schedule == "cosine"}
    assert cosine and cosine < {*compare.points("samplers", 5, 700)}


def test_every_point_is_made_of_whole_blocks_with_as_many_of_each_class(compare):
    """Distances, precisions and recalls compare at equal numbers only."""
    for what in compare.COMPARED:
        assert all(p.n % compare.BLOCK == 0 for p in compare.points(what, 2, 20))
    assert compare.BLOCK % 10 == 0


def test_ddim_with_eta_1_need_not_be_drawn():
    """It is DDPM with the small variance, image by image: DDIM eq. 16 is DDPM's β̃."""
    model, y = DDPM.load("digits"), torch.arange(10)
    torch.testing.assert_close(model.sample(10, y, "ddpm", 5), model.sample(10, y, "ddim", 5, eta=1.0), atol=1e-4, rtol=0)


def test_the_interval_is_students(compare):
    stats = pytest.importorskip("scipy.stats")
    for n in range(2, len(compare.STUDENT) + 2):
        values = torch.randn(n, generator=torch.Generator().manual_seed(n)).tolist()
        mean, half = compare.interval(values)
        low, high = stats.t.interval(0.95, n - 1, mean, stats.sem(values))
        assert (mean, half) == pytest.approx(((low + high) / 2, (high - low) / 2), rel=2e-4)


@pytest.mark.parametrize("n", [0, 1, 11])
def test_an_interval_needs_two_values_and_a_known_quantile(compare, n):
    with pytest.raises(ValueError, match=f"there are {n} values"):
        compare.interval([1.0] * n)


def test_train_images_are_at_the_floor_and_not_new(compare):
    """Blocks of real images get ratios about 1; copies of train images a memorisation of 0."""
    images, y, _ = data.load("digits")
    block = torch.stack([(y == k).nonzero().flatten()[:50] for k in range(10)], dim=1).flatten()     # 500: two blocks of the floor's four
    copies = compare.quality(data.normalise(images)[block], y[block])
    assert 0.5 < copies["frechet_ratio"] < 2 and copies["agreement"] > 0.99 and copies["memorisation"] == 0
    assert copies["precision"] > 0.8 and copies["recall"] > 0.7
    negative = compare.quality(-data.normalise(images)[block], y[block])
    assert negative["frechet_ratio"] > 20 and negative["agreement"] < 0.5


def test_rows_survive_the_disk(compare, rows, tmp_path):
    compare.write(tmp_path / "samplers.csv", rows["samplers"])
    assert list(compare.read(tmp_path / "samplers.csv").items()) == rows["samplers"]
    assert [path.name for path in tmp_path.iterdir()] == ["samplers.csv"]
    assert compare.read(tmp_path / "nothing.csv") == {}


def test_what_was_measured_is_not_measured_again(compare, rows, tmp_path, monkeypatch, capsys):
    """A second start with complete files trains nothing, draws nothing, and shows the tables; a row of other settings stays, and is not shown."""
    other, row = rows["samplers"][0]
    rows["samplers"].append((other._replace(steps=1000), row))
    rows["samplers"].sort()
    for name in compare.COMPARED:
        compare.write(tmp_path / f"{name}.csv", rows[name])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(compare, "trained", None)
    monkeypatch.setattr(compare, "measured", None)
    monkeypatch.setattr(sys, "argv", ["compare.py", "--quick", "--out", str(tmp_path)])
    compare.main()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    shown = capsys.readouterr().out
    assert "# schedules: mean of 2 seeds" in shown and "| linear: DDIM, η = 0 | 50.50 ± 6.35 |" in shown and "1000" not in shown


def test_a_quick_run_does_not_mix_with_real_measurements(compare, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare.py", "--quick"])
    with pytest.raises(SystemExit):
        compare.main()
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["schedules", "samplers"])
def test_the_committed_measurements_are_those_of_the_command(compare, what):
    """Five seeds, every point, no other settings: the notebook's table is what the command would print."""
    path = HERE.parent / "benchmarks" / f"{what}.csv"
    assert [*compare.read(path)] == sorted(compare.points(what, 5, 700))
    with open(path, newline="", encoding="utf-8") as file:
        assert tuple(next(csv.reader(file))) == compare.COLUMNS
