"""Arrays in [-1, 1], and numbers about samples."""

import math

import pytest
import torch
import torch.nn.functional as F

from ddpm_tutorial import data, metrics


@pytest.fixture(scope="module")
def digits():
    return data.load("digits"), data.load("digits", "test")


@pytest.fixture(scope="module")
def judge(digits):
    train, _ = digits
    return metrics.train_classifier(data.normalise(train.images), train.y)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Data.

def test_every_grey_value_survives_the_way_in_and_out():
    """denormalise(normalise(u)) == u for all 256: rounding and not truncation (dome272's `.type(uint8)` loses a level)."""
    grey = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(data.denormalise(data.normalise(grey)), grey)


def test_images_live_in_minus_1_to_1():
    """DDPM section 3.3: "{0, 1, …, 255} scaled linearly to [-1, 1]" (TeaPearce, labml: left in [0, 1])."""
    x = data.normalise(torch.arange(256, dtype=torch.uint8))
    assert x.dtype == torch.float32 and x[0] == -1 and x[255] == 1
    torch.testing.assert_close(x.diff(), torch.full((255,), 2 / 255))


def test_what_lies_outside_the_range_is_clamped_on_the_way_out():
    """A sample of 1.3 is white and not 37 (overflow of uint8)."""
    assert data.denormalise(torch.tensor([-7.0, -1.001, 1.001, 1.3])).tolist() == [0, 0, 255, 255]


def test_the_digits_are_split_70_to_30_within_each_class(digits):
    """1,797 images, 8×8, of ten classes; every class has its share in both splits."""
    train, test = digits
    assert train.images.shape[1:] == test.images.shape[1:] == (1, 8, 8) and train.images.dtype == torch.uint8
    assert len(train.images) == len(train.y) and len(test.images) == len(test.y) and len(train.y) + len(test.y) == 1797
    assert train.classes == tuple("0123456789") and train.y.dtype == torch.int64
    for k in range(10):
        ours, theirs = (train.y == k).sum().item(), (test.y == k).sum().item()
        assert ours / (ours + theirs) == pytest.approx(0.7, abs=0.01)


def test_the_splits_share_no_image_and_lose_none(digits):
    """Together they are scikit-learn's 1,797, each once; so no test image was trained on."""
    from sklearn.datasets import load_digits

    def rows(images, y):
        return sorted((*row, k) for row, k in zip(images, y))

    train, test = digits
    whole = torch.tensor(load_digits().images).mul(255 / 16).round().long()
    both = torch.cat([train.images, test.images]).long()
    assert rows(both.flatten(1).tolist(), torch.cat([train.y, test.y]).tolist()) == rows(whole.flatten(1).tolist(), load_digits().target.tolist())
    assert whole.flatten(1).unique(dim=0).shape[0] == 1797, "two equal images could hide in both splits"


def test_the_split_is_fixed(digits):
    """The same images in the same order every time."""
    assert all(torch.equal(a, b) for a, b in zip(digits[0][:2], data.load("digits", "train")[:2]))


def test_the_digits_have_17_grey_levels_from_black_to_white(digits):
    """0 … 16, stretched over 0 … 255."""
    assert torch.cat([split.images for split in digits]).unique().tolist() == [round(k * 255 / 16) for k in range(17)]


# The Fréchet distance.

def test_the_frechet_distance_is_the_textbook_formula():
    """Heusel et al. eq. 6 with scipy's matrix root: ‖μ_a-μ_b‖² + tr(Σ_a + Σ_b - 2(Σ_aΣ_b)^½)."""
    linalg = pytest.importorskip("scipy.linalg")
    a, b = randn(200, 5) @ randn(5, 5, seed=1), randn(150, 5, seed=2) @ randn(5, 5, seed=3) + 1
    root = torch.as_tensor(linalg.sqrtm((a.T.cov() @ b.T.cov()).numpy()).real)
    expected = (a.mean(0) - b.mean(0)).square().sum() + (a.T.cov() + b.T.cov() - 2 * root).trace()
    assert metrics.frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-6)
    assert metrics.frechet_distance(b, a) == pytest.approx(expected.item(), rel=1e-6)


def test_the_frechet_distance_of_shifted_and_stretched_gaussians():
    """N(0, Σ) against N(m, k²Σ): ‖m‖² + (k-1)² tr Σ, in closed form; 0 for the same features, also with fewer points than dimensions."""
    a, m = randn(100, 4), torch.tensor([1.0, 0.0, -2.0, 0.5], dtype=torch.float64)
    a = a - a.mean(0)
    assert metrics.frechet_distance(a, a + m) == pytest.approx(1 + 4 + 0.25, rel=1e-9)
    assert metrics.frechet_distance(a, 3 * a + m) == pytest.approx(5.25 + 4 * a.T.cov().trace().item(), rel=1e-9)
    for same in (a, randn(5, 20)):
        assert metrics.frechet_distance(same, same) == pytest.approx(0, abs=1e-6)


def test_the_frechet_distance_rises_when_images_get_worse(judge, digits):
    """Real against real is the floor; fainter, shifted or blurred images lie above it (pytorch-fid #3: wrong preprocessing went unseen)."""
    train, test = (data.normalise(split.images) for split in digits)
    real = metrics.features(judge, test)

    def distance(x):
        return metrics.frechet_distance(metrics.features(judge, x), real)

    floor = distance(train[:540])
    worse = {"fainter": test * 0.5, "brighter": test + 0.3, "blurred": F.avg_pool2d(test, 3, 1, 1), "inverted": -test}
    assert floor > 0 and distance(test) == pytest.approx(0, abs=1e-4)
    for name, x in worse.items():
        assert distance(x) > 1.2 * floor, name


# Agreement, memorisation.

def test_the_judge_knows_digits_that_it_has_not_seen(judge, digits):
    """Trained on the train split only: at least 98 % of the test split."""
    _, test = digits
    assert metrics.accuracy(judge, data.normalise(test.images), test.y) >= 0.98


def test_agreement_with_shuffled_labels_is_chance(judge, digits):
    """The control: if the labels mean nothing, agreement is about 10 %, within 5 standard errors of 540 images."""
    _, test = digits
    shuffled = test.y[torch.randperm(len(test.y), generator=torch.Generator().manual_seed(0))]
    assert metrics.accuracy(judge, data.normalise(test.images), shuffled) == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / 540))


def test_the_judge_leaves_the_callers_random_numbers_alone(digits):
    """Measuring in the middle of a notebook must not change what comes after; and the same seed is the same judge."""
    train, _ = digits
    before, x = torch.get_rng_state(), data.normalise(train.images[:64])
    one, two = (metrics.train_classifier(x, train.y[:64], epochs=1) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before) and not one.training
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))


def test_memorisation_is_0_for_copies_and_about_1_for_new_images(digits):
    """Distance to the nearest training image, in units of a test image's."""
    train, test = (data.normalise(split.images) for split in digits)
    assert metrics.memorisation(train[:100], train, test) == pytest.approx(0, abs=1e-3)
    assert metrics.memorisation(test, train, test) == 1
    assert metrics.memorisation(test[:100] + 0.01, train, test) > 0.7


def test_the_nearest_training_image_is_found():
    """By brute force, over the pixels."""
    x, train = randn(7, 1, 2, 2), randn(20, 1, 2, 2, seed=1)
    distance, which = metrics.nearest(x, train)
    for i in range(7):
        all_of_them = [(x[i] - other).square().sum().sqrt().item() for other in train]
        assert which[i] == all_of_them.index(min(all_of_them)) and distance[i].item() == pytest.approx(min(all_of_them))


def test_per_class_takes_the_first_of_each():
    """So that a distance is measured at equal numbers."""
    assert metrics.per_class(torch.tensor([1, 0, 1, 0, 0, 1]), 2).tolist() == [1, 3, 0, 2]
