"""What samples get, beside what real images get; and the judges as files."""

import ast
import hashlib
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ddpm_tutorial import data, evaluation
from ddpm_tutorial.evaluation import judging, metrics
from ddpm_tutorial.evaluation.metrics import Classifier
from ddpm_tutorial.weights import files


@pytest.fixture(scope="module")
def digits():
    return [(data.normalise(split.images), split.y) for split in (data.load("digits"), data.load("digits", "test"))]


@pytest.fixture(scope="module")
def judge(digits):
    (x, y), (x_test, y_test) = digits
    return evaluation.judge(metrics.train_classifier(x, y, epochs=6, width=16), x, y, x_test, y_test)


@pytest.fixture(scope="module")
def perfect(judge):
    """Nothing can be better than the test images themselves."""
    return evaluation.measure(judge.x_test, judge.y_test, judge)


# Measuring.

def test_perfect_samples_get_perfect_numbers(perfect, judge):
    """The test images as samples: distance 0, everything covered, as far from the train images as new images are, agreement = accuracy."""
    assert perfect["n"] == 540 and perfect["agreement"] > 0.9
    assert perfect["agreement"] == pytest.approx(metrics.accuracy(judge.classifier, judge.x_test, judge.y_test))
    assert perfect["frechet"] == pytest.approx(0, abs=1e-4) and perfect["frechet_above"] == pytest.approx(-perfect["frechet_floor"], abs=1e-4)
    assert (perfect["precision"], perfect["recall"], perfect["memorisation"]) == (1, 1, 1)
    assert 6 < perfect["inception_score"] <= 10, "smoothed labels keep the classifier from being quite sure"


def test_with_shuffled_labels_perfect_samples_agree_by_chance(perfect):
    """The control: about 1/K, or the agreement means nothing."""
    assert perfect["control"] == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / 540))


def test_copies_of_train_images_are_found_out(judge):
    """Perfect to look at, and with a distance at the floor; but their memorisation is 0, and its interval has no width."""
    first = metrics.per_class(judge.y_train, 50)
    row = evaluation.measure(judge.x_train[first], judge.y_train[first], judge)
    assert row["memorisation"] == 0 and row["memorisation_interval"] == (0, 0) and row["agreement"] > 0.9
    assert row["frechet_above"] == 0, "these are the very images of the floor"
    assert row["frechet"] == pytest.approx(evaluation.floors(judge, 500)["frechet"])


def test_noise_gets_bad_numbers(judge):
    """Chance agreement, a distance far above the floor, few digits covered, and farther from the train images than digits are.

    Precision is not among them: in our features noise falls into the large balls of a few odd digits (0.1 … 0.7, seen with six judges)."""
    noise, y = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1, torch.arange(10).repeat(20)
    row = evaluation.measure(noise, y, judge)
    low, high = row["agreement_interval"]
    assert low < 0.1 < high and row["frechet_above_interval"][0] > 10 * row["frechet_floor"] and row["recall"] < 0.3 and row["memorisation"] > 1.5


def test_a_collapsed_model_is_found_out(judge):
    """Real threes and nothing else, as asked for: agreement and precision are fine; score, recall and distance are not."""
    threes = judge.x_test[judge.y_test == 3]
    row = evaluation.measure(threes, torch.full((len(threes),), 3), judge)
    assert row["agreement"] > 0.85 and row["precision"] == 1
    assert row["inception_score"] < 1.5 and 0.08 < row["recall"] < 0.4 and row["frechet"] > 10 * evaluation.floors(judge, 500)["frechet"]


def test_the_floor_is_measured_at_as_many_images(judge):
    """The first n/K train images of each class, against the test images; fewer images, a higher floor; and `measure` compares with the same."""
    def distance(first):
        return metrics.frechet_distance(metrics.features(judge.classifier, judge.x_train[first]), metrics.features(judge.classifier, judge.x_test))

    rows = {n: evaluation.floors(judge, n) for n in (100, 1000)}
    for n, row in rows.items():
        assert row["n"] == n and row["frechet"] == row["frechet_floor"] and row["frechet_above"] == 0 and row["memorisation"] == 1
        assert row["frechet"] == pytest.approx(distance(metrics.per_class(judge.y_train, n // 10)))
    assert rows[100]["frechet"] > 1.3 * rows[1000]["frechet"]
    sample = evaluation.measure(judge.x_test[:100] * 0.9, torch.arange(10).repeat(10), judge)
    assert sample["frechet_floor"] == pytest.approx(rows[100]["frechet"])
    assert sample["frechet_above"] == pytest.approx(sample["frechet"] - rows[100]["frechet"])
    of_train = metrics.precision_recall(metrics.features(judge.classifier, judge.x_test),
                                        metrics.features(judge.classifier, judge.x_train[metrics.per_class(judge.y_train, 100)]))
    assert (rows[1000]["precision"], rows[1000]["recall"]) == of_train


def test_floors_of_agreement_and_score_are_the_test_images(perfect, judge):
    """They answer to the classifier alone, however many train images are asked for."""
    row = evaluation.floors(judge, 100)
    for key in ("agreement", "agreement_interval", "control", "inception_score", "inception_score_interval"):
        assert row[key] == perfect[key], key
    assert row["agreement_interval"] == metrics.wilson(round(row["agreement"] * 540), 540)


def test_intervals_hold_their_numbers(judge):
    """low ≤ value ≤ high, none below 0 but what is left of a difference, and the caller's random numbers stay as they are."""
    before = torch.get_rng_state()
    rows = [evaluation.floors(judge, 100), evaluation.measure(judge.x_test[:70] * 0.8, judge.y_test[:70], judge)]
    assert torch.equal(torch.get_rng_state(), before)
    assert set(rows[0]) == set(rows[1]) - {"memorisation_interval"}
    for row in rows:
        for key in (key for key in row if f"{key}_interval" in row):
            low, high = row[f"{key}_interval"]
            assert low < row[key] < high and (low >= 0 or key == "frechet_above"), key


def test_what_is_left_above_the_floor_is_nothing_for_real_images(judge):
    """Other train images than the floor's, 30 of each class: the interval holds 0, and the kernel distance is 0 within three of its errors; both see faint
    images, which keep their shape and nearly all of their agreement."""
    order = torch.cat([(judge.y_train == k).nonzero().flatten()[60:90] for k in range(10)])
    x, y = judge.x_train[order], judge.y_train[order]
    real, faint = evaluation.measure(x, y, judge), evaluation.measure(0.7 * x - 0.3, y, judge)
    low, high = real["frechet_above_interval"]
    assert low < 0 < high and abs(real["kernel"]) < 3 * real["kernel_error"]
    assert faint["frechet_above_interval"][0] > 0 and faint["kernel"] > 3 * faint["kernel_error"] and faint["agreement"] > 0.8


def test_with_one_image_of_a_class_there_is_no_kernel_distance(judge):
    """How alike the images of that class are cannot be told from one; all else can, and the table has a dash."""
    first = metrics.per_class(judge.y_test, 1)
    row = evaluation.measure(judge.x_test[first], judge.y_test[first], judge)
    assert "kernel" not in row and "kernel_error" not in row and row["frechet"] > 0
    assert evaluation.table({"ten": row}).split("\n")[-1].split("|")[8].strip() == "–"
    assert "kernel" in evaluation.measure(judge.x_test[:100], judge.y_test[:100], judge)


def test_the_interval_above_the_floor_knows_that_the_floor_is_chance_too(judge):
    """It is wider than that of the samples' distance alone."""
    row = evaluation.measure(0.9 * judge.x_test[:200] - 0.1, judge.y_test[:200], judge)
    wide, narrow = (high - low for low, high in (row["frechet_above_interval"], row["frechet_interval"]))
    assert wide > 1.05 * narrow


# A panel of judges.

@pytest.fixture(scope="module")
def judges(judge, tmp_path_factory):
    folder = tmp_path_factory.mktemp("judges")
    return evaluation.panel(judge, seeds=(1, 2), folder=folder, epochs=4), folder


def test_a_panel_is_the_judge_and_others_with_other_seeds(judges, judge):
    """Different networks that know digits as well, with features of the first one's total variance on the test images."""
    panel, _ = judges
    assert panel[0] is judge and len(panel) == 3
    weights = [next(j.classifier.parameters()) for j in panel]
    assert not any(a.shape == b.shape and torch.equal(a, b) for a, b in ((weights[0], weights[1]), (weights[1], weights[2])))
    for other in panel[1:]:
        assert metrics.accuracy(other.classifier, other.x_test, other.y_test) > 0.9
        assert other.features.var(0).sum().item() == pytest.approx(judge.features.var(0).sum().item())
        torch.testing.assert_close(other.seen(other.x_test), other.features)


def test_a_panel_is_trained_once(judges, judge, monkeypatch):
    """Its files are found again, and give the same judges; trained on other images, or for longer, they would be others, and are refused."""
    panel, folder = judges
    monkeypatch.setattr(metrics, "train_classifier", None)
    again = evaluation.panel(judge, seeds=(1, 2), folder=folder, epochs=4)
    assert all(torch.equal(a.features, b.features) for a, b in zip(panel, again))
    with pytest.raises(ValueError, match=r"judge-1\.safetensors.*not for 5 epochs"):
        evaluation.panel(judge, seeds=(1,), folder=folder, epochs=5)
    with pytest.raises(ValueError, match="trained on other images"):
        evaluation.panel(judge._replace(x_train=-judge.x_train), seeds=(1,), folder=folder, epochs=4)


def test_a_panel_says_the_lowest_and_the_highest(judges):
    """Beside the first judge's row, which stays what it is."""
    panel, _ = judges
    x, y = panel[0].x_test[:100] * 0.8, panel[0].y_test[:100]
    rows, row = [evaluation.measure(x, y, judge) for judge in panel], evaluation.measure_by(x, y, panel)
    assert {key: row[key] for key in rows[0]} == rows[0]
    for key in judging.JUDGED:
        assert row[f"{key}_judges"] == (min(r[key] for r in rows), max(r[key] for r in rows)), key
    assert row["frechet_above_judges"][0] < row["frechet_above_judges"][1]
    line = evaluation.table({"faint": row}).split("\n")[-1]
    assert line.count("[") == len(judging.JUDGED) and "[{:.2f} … {:.2f}]".format(*row["recall_judges"]) in line


def test_what_cannot_be_measured_is_refused(judge):
    """With a sentence that says what was given and what is allowed."""
    x, y = judge.x_test[:20], judge.y_test[:20]
    for samples, labels, message in ((x, y[:19], "20, 1, 8, 8.*19 labels"), (x[..., :7], y, r"20, 1, 8, 7.*\(N, 1, 8, 8\)"), (x / 0, y, "NaN"),
                                     (x[:1].expand(200, -1, -1, -1), torch.full((200,), 3), "200 samples of class 3, but 1[0-9]{2} train images")):
        with pytest.raises(ValueError, match=message):
            evaluation.measure(samples, labels, judge)
    for n in (105, 0, -10):
        with pytest.raises(ValueError, match=f"n is {n}.*multiple of the 10 classes"):
            evaluation.floors(judge, n)


# The table.

def test_the_table_is_markdown_that_can_be_read():
    """One line per row, as many cells in each, shares in per cent, intervals in brackets."""
    row = {"n": 1000, "agreement": 0.98765, "agreement_interval": (0.979, 0.9926), "control": 0.1, "frechet": 0.70512, "frechet_interval": (0.6, 0.812),
           "frechet_floor": 0.357, "frechet_above": 0.348, "frechet_above_interval": (-0.05, 0.5), "kernel": 0.0123, "kernel_error": 0.004,
           "inception_score": 9.8765, "inception_score_interval": (9.8, 9.95), "precision": 0.912, "recall": 0.8765, "memorisation": 1.0}
    head, rule, real, line = evaluation.table({"real images": row, "scale 1": row | {"memorisation_interval": (0.96, 1.04)}}).split("\n")
    assert line == ("| scale 1 | 1,000 | 98.8 (97.9 … 99.3) | 10.0 | 0.71 (0.60 … 0.81) | 0.36 | 0.35 (-0.05 … 0.50) | 0.012 ± 0.004 | "
                    "9.88 (9.80 … 9.95) | 0.91 | 0.88 | 1.00 (0.96 … 1.04) |")
    assert real.startswith("| real images | 1,000 |") and real.endswith("| 1.00 |")
    assert head.count("|") == rule.count("|") == real.count("|") == line.count("|") == 13


def test_the_table_takes_what_was_measured(perfect, judge):
    """Floors and measurements side by side."""
    lines = evaluation.table({"real images": evaluation.floors(judge, 100), "perfect": perfect}).split("\n")
    assert len(lines) == 4 and "FID" not in lines[0] and "nan" not in "".join(lines)


# Judges as files.

@pytest.mark.parametrize("half", [False, True])
def test_a_judge_comes_back_from_its_file_with_its_card(judge, digits, tmp_path, half):
    """float32 and in eval mode; exact, or in half the bytes with the same opinions."""
    path = evaluation.save_classifier(judge.classifier, tmp_path / "judge.safetensors", half=half, data="digits", test_accuracy=0.991)
    net, card = evaluation.load_classifier(path)
    assert card == {"data": "digits", "test_accuracy": 0.991} and not net.training and net.config == judge.classifier.config
    assert all(p.dtype == torch.float32 for p in net.parameters())
    ours, theirs = (metrics.probabilities(n, digits[1][0]) for n in (judge.classifier, net))
    assert torch.equal(ours, theirs) or (half and (ours - theirs).abs().max() < 0.01)
    tensors = files.read(path, "classifier")[0]
    assert {v.dtype for v in tensors.values() if v.is_floating_point()} == {torch.float16 if half else torch.float32}


def test_a_timed_judge_of_colour_images_comes_back(tmp_path):
    """Every setting is in the file."""
    net = Classifier(3, 7, 4, timed=True).eval()
    back, _ = evaluation.load_classifier(evaluation.save_classifier(net, tmp_path / "timed.safetensors"))
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(back(x, 17), net(x, 17))


def test_a_damaged_or_foreign_file_is_no_judge(tmp_path):
    """Cut anywhere, of another kind, or with other weights than it says: refused by name."""
    path = evaluation.save_classifier(Classifier(width=4), tmp_path / "judge.safetensors", data="digits")
    whole = path.read_bytes()
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"judge\.safetensors"):
            evaluation.load_classifier(path)
    files.write(path, {}, "weights", {})
    with pytest.raises(ValueError, match="classifier"):
        evaluation.load_classifier(path)
    files.write(path, {"head.weight": torch.zeros(10, 8)}, "classifier", {"config": Classifier(width=4).config, "card": {}})
    with pytest.raises(ValueError, match="do not fit"):
        evaluation.load_classifier(path)
    with pytest.raises(FileNotFoundError):
        evaluation.load_classifier(tmp_path / "none.safetensors")


@pytest.mark.parametrize("value, half, message", [(1e6, True, "too large for float16"), (math.nan, False, "head.bias.*not finite")])
def test_weights_that_a_file_would_spoil_are_not_written(tmp_path, value, half, message):
    """float16 ends at 65504: infinity would come back."""
    net = Classifier(width=2)
    torch.nn.init.constant_(net.head.bias, value)
    with pytest.raises(ValueError, match=message):
        evaluation.save_classifier(net, tmp_path / "judge.safetensors", half=half)
    assert not list(tmp_path.iterdir())


def test_a_file_has_its_fingerprint(tmp_path):
    """FIPS 180-2's example: SHA-256 of "abc"; one other byte is another file."""
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"abd")
    assert evaluation.sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert evaluation.sha256(str(tmp_path / "b")) == hashlib.sha256(b"abd").hexdigest()


# FID.

COLOUR = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)


def test_fid_without_torch_fidelity_says_what_to_install(monkeypatch):
    """And that nothing else may carry the name."""
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ImportError, match=r"pip install torch-fidelity.*only number here that may be called FID"):
        evaluation.torch_fidelity_fid(COLOUR, COLOUR)


def test_fid_without_weights_says_where_to_put_them_and_downloads_nothing(monkeypatch, tmp_path):
    """Then, with a file in that place, torch-fidelity is asked with it and with both sets of images."""
    asked = {}

    def calculate_metrics(**how):
        asked.update(how)
        return {"frechet_inception_distance": 3.17}

    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace(calculate_metrics=calculate_metrics))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"weights-inception-2015-12-05-6726825d\.pth.*checkpoints.*may be called FID"):
        evaluation.torch_fidelity_fid(COLOUR, COLOUR)
    assert not asked
    weights = tmp_path / "checkpoints" / judging.INCEPTION
    weights.parent.mkdir()
    weights.touch()
    assert evaluation.torch_fidelity_fid(COLOUR, COLOUR[:3] + 1) == 3.17
    assert asked["fid"] is True and asked["feature_extractor_weights_path"] == str(weights)
    assert [len(asked["input1"]), len(asked["input2"])] == [4, 3] and torch.equal(asked["input2"][0], COLOUR[0] + 1)


@pytest.mark.parametrize("images", [COLOUR.float(), COLOUR[:, :1], COLOUR[0]])
def test_fid_is_for_colour_images_in_uint8(images):
    with pytest.raises(ValueError, match=r"uint8 \(N, 3, H, W\)"):
        evaluation.torch_fidelity_fid(COLOUR, images)


def test_judging_stands_on_metrics_and_files_only():
    """It measures images, whoever drew them: no model, no data set, no sampler."""
    imports = [node for node in ast.walk(ast.parse(Path(judging.__file__).read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    assert {(node.level, node.module) for node in imports if node.level} == {(1, None), (1, "metrics"), (2, "weights.files")}
    assert [alias.name for node in imports if node.level and node.module is None for alias in node.names] == ["metrics"]
