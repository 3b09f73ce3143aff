"""Numbers about samples.  [1] Heusel et al. arXiv:1706.08500, [3] Salimans et al. arXiv:1606.03498, [4] Kynkäänniemi et al. arXiv:1904.06991,
[7] Dhariwal, Nichol arXiv:2105.05233, [8] Bińkowski et al. arXiv:1801.01401, [9] Chong, Forsyth arXiv:1911.07023."""

import ast
import math
from pathlib import Path
from statistics import NormalDist

import pytest
import torch
import torch.nn.functional as F

from ddpm_tutorial import classifier, clipped, cosine, data, dataset_denoiser, ddim_step, final, q_sample, sample
from ddpm_tutorial.evaluation import metrics
from ddpm_tutorial.evaluation.metrics import Classifier

SCHEDULE = cosine(1000)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits"), data.load("digits", "test")


@pytest.fixture(scope="module")
def judge(digits):
    train, _ = digits
    return metrics.train_classifier(data.normalise(train.images), train.y, epochs=8)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def diffuse(x_0):
    t = torch.randint(1, SCHEDULE.T + 1, (len(x_0),))
    return q_sample(SCHEDULE, x_0, torch.randn_like(x_0), t), t


@pytest.fixture(scope="module")
def timed(digits):
    train, _ = digits
    return metrics.train_classifier(data.normalise(train.images), train.y, epochs=4, diffuse=diffuse)


# The Fréchet distance.

def test_the_frechet_distance_is_the_textbook_formula():
    """[1] eq. 6 with scipy's matrix root: ‖μ_a-μ_b‖² + tr(Σ_a + Σ_b - 2(Σ_aΣ_b)^½)."""
    linalg = pytest.importorskip("scipy.linalg")
    a, b = randn(200, 5) @ randn(5, 5, seed=1), randn(150, 5, seed=2) @ randn(5, 5, seed=3) + 1
    root = torch.as_tensor(linalg.sqrtm((a.T.cov() @ b.T.cov()).numpy()).real)
    expected = (a.mean(0) - b.mean(0)).square().sum() + (a.T.cov() + b.T.cov() - 2 * root).trace()
    assert metrics.frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-6)
    assert metrics.frechet_distance(b, a) == pytest.approx(expected.item(), rel=1e-6)


def test_the_frechet_distance_is_that_of_torchmetrics(digits):
    """torchmetrics' FrechetInceptionDistance, with a feature extractor of our own in Inception's place."""
    fid = pytest.importorskip("torchmetrics.image.fid", reason="torchmetrics is not installed: it is in the test extra", exc_type=ImportError)
    net = Classifier(width=8).eval()
    theirs = fid.FrechetInceptionDistance(feature=Features(net), normalize=True, input_img_size=(1, 8, 8))
    a, b = data.normalise(digits[0].images[:300]), data.normalise(digits[1].images)
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    assert metrics.frechet_distance(metrics.features(net, a), metrics.features(net, b)) == pytest.approx(theirs.compute().item(), rel=1e-4)


class Features(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        with torch.no_grad():
            return self.net.features(x)


def test_the_frechet_distance_of_shifted_and_stretched_gaussians():
    """N(0, Σ) against N(m, k²Σ): ‖m‖² + (k-1)² tr Σ, in closed form; 0 for the same features, also with fewer points than dimensions."""
    a, m = randn(100, 4), torch.tensor([1.0, 0.0, -2.0, 0.5], dtype=torch.float64)
    a = a - a.mean(0)
    assert metrics.frechet_distance(a, a + m) == pytest.approx(1 + 4 + 0.25, rel=1e-9)
    assert metrics.frechet_distance(a, 3 * a + m) == pytest.approx(5.25 + 4 * a.T.cov().trace().item(), rel=1e-9)
    for same in (a, randn(5, 20)):
        assert metrics.frechet_distance(same, same) == pytest.approx(0, abs=1e-6)


def test_the_frechet_distance_of_one_feature():
    """In one dimension it is (μ_a - μ_b)² + (σ_a - σ_b)²."""
    a, b = torch.randn(300, 1, dtype=torch.float64), 2 * torch.randn(200, 1, dtype=torch.float64) + 1
    expected = (a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2
    assert metrics.frechet_distance(a, b) == pytest.approx(expected.item())


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


# To infinitely many images.

SPECTRUM = torch.tensor([9.0, 4, 4, 2, 1, 1, 0.5, 0.5], dtype=torch.float64)


def gaussian(n, seed, mean=0.0, stretch=1.0):
    return stretch * SPECTRUM.sqrt() * randn(n, 8, seed=seed) + mean


@pytest.mark.parametrize("mean, stretch", [(0.0, 1.0), (0.3, 1.0), (0.0, 1.2)])
def test_the_line_in_1_over_n_meets_the_known_distance(mean, stretch):
    """[9] on Gaussians: ‖m‖² + (k-1)² tr Σ is known.  Over 40 draws of 800 and 400 rows the extrapolation is within three standard errors of it,
    and the plain distance of the same rows is not, because its bias is added."""
    truth = 8 * mean**2 + (stretch - 1) ** 2 * SPECTRUM.sum().item()
    draws = [(gaussian(800, 2 * i, mean, stretch), gaussian(400, 2 * i + 1)) for i in range(40)]
    for distance, is_right in ((metrics.frechet_at_infinity, True), (metrics.frechet_distance, False)):
        values = torch.tensor([distance(a, b) for a, b in draws], dtype=torch.float64)
        assert ((values.mean() - truth).abs() < 3 * values.std() / math.sqrt(40)) == is_right, (distance, values.mean(), truth)


def test_a_ratio_to_the_floor_grows_with_n_and_a_difference_does_not():
    """One model at one true distance, 0.72, seen with 250 and with 4,000 rows: what is added must be subtracted."""
    def at(n):
        far, near = (sum(metrics.frechet_distance(gaussian(n, 2 * i, mean), gaussian(4000, 2 * i + 1)) for i in range(10)) / 10 for mean in (0.3, 0.0))
        return far - near, far / near

    (difference, ratio), (later_difference, later_ratio) = at(250), at(4000)
    assert difference == pytest.approx(0.72, abs=0.1) and later_difference == pytest.approx(0.72, abs=0.1)
    assert later_ratio > 3 * ratio


def test_classes_are_dealt_out_evenly():
    """Two classes far apart, 200 of each in either set: without their labels the parts differ in how many they have of each, a bias that the whole does not
    have, and the line ends far below the true distance, 0."""
    y = torch.arange(2).repeat(200)
    a, b = (randn(400, 4, seed=seed) + 20 * y[:, None] for seed in (0, 1))
    assert abs(metrics.frechet_at_infinity(a, b, y, y)) < 0.05 and metrics.frechet_at_infinity(a, b) < -0.1
    assert metrics.frechet_at_infinity(a, b, y, y) == metrics.frechet_at_infinity(a, b, y, y), "the same seed is the same cut"


# The kernel distance.

def expected_kernel(mean, cov, other_mean, other_cov):
    """E (x·y/d + 1)³ of independent Gaussians x and y, exactly: E (x·y)ᵖ is the inner product of their p-th moments, and the third of N(μ, Σ) is
    μμμ + the three ways to put Σ and μ together."""
    def moments(m, c):
        second = c + torch.outer(m, m)
        third = torch.einsum("i,j,k->ijk", m, m, m) + sum(torch.einsum(f"{pair},{one}->ijk", c, m) for pair, one in (("ij", "k"), ("ik", "j"), ("jk", "i")))
        return m, second, third

    p1, p2, p3 = ((a * b).sum() for a, b in zip(moments(mean, cov), moments(other_mean, other_cov)))
    d = len(mean)
    return (1 + 3 * p1 / d + 3 * p2 / d**2 + p3 / d**3).item()


@pytest.mark.parametrize("same", [False, True])
def test_the_kernel_distance_is_unbiased(same):
    """[8] on Gaussians whose MMD² is known in closed form: the mean over 500 draws of 20 and 30 rows lies within two standard errors of it, also where it
    is 0.  With the diagonals left in, as a first try has it, it would not."""
    d, generator = 4, torch.Generator().manual_seed(1)
    mean, root = torch.tensor([0.5, -1.0, 0.0, 0.3], dtype=torch.float64), randn(d, d, seed=5)
    other_mean, other_root = (mean, root) if same else (torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64))
    a, b = (mean, root @ root.T), (other_mean, other_root @ other_root.T)
    truth = expected_kernel(*a, *a) + expected_kernel(*b, *b) - 2 * expected_kernel(*a, *b)
    values = []
    for _ in range(500):
        x, y = (torch.randn(n, d, dtype=torch.float64, generator=generator) for n in (20, 30))
        values.append(metrics.kernel_distance(x @ root.T + mean, y @ other_root.T + other_mean)[0])
    values = torch.tensor(values, dtype=torch.float64)
    assert (values.mean() - truth).abs() < 2 * values.std() / math.sqrt(500) and (truth == 0) == same
    diagonals = (expected_diagonal(*a) - expected_kernel(*a, *a)) / 20 + (expected_diagonal(*b) - expected_kernel(*b, *b)) / 30
    assert diagonals > 10 * values.std() / math.sqrt(500)


def expected_diagonal(mean, cov, n=100_000):
    x = torch.distributions.MultivariateNormal(mean, cov).sample((n,))
    return ((x.square().sum(1) / len(mean) + 1) ** 3).mean().item()


def test_the_kernel_distance_is_that_of_torchmetrics(judge, digits):
    """torchmetrics' KernelInceptionDistance with a feature extractor of our own, and all images in its one subset."""
    kid = pytest.importorskip("torchmetrics.image.kid", reason="torchmetrics is not installed: it is in the test extra", exc_type=ImportError)
    theirs = kid.KernelInceptionDistance(feature=Features(judge), subsets=1, subset_size=300, normalize=True)
    a, b = data.normalise(digits[0].images[:300]), -data.normalise(digits[1].images[:300])
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    assert metrics.kernel_distance(metrics.features(judge, a), metrics.features(judge, b))[0] == pytest.approx(theirs.compute()[0].item(), rel=1e-3)


def test_the_kernel_distance_and_its_error_are_the_sums_they_say():
    """Pair by pair, without labels and with them: a class then counts as often as it should, though a row has one fellow less in its own."""
    def k(x, y):
        return (sum(p * q for p, q in zip(x, y)) / len(x) + 1) ** 3

    def by_hand(a, b, y_a, y_b):
        def fellows(x, y, i):
            """The mean over classes, in their proportions, of the mean kernel of row i with the other rows of the class."""
            total = 0.0
            for c in set(y):
                others = [k(x[i], x[j]) for j in range(len(x)) if j != i and y[j] == c]
                total += y.count(c) / len(y) * sum(others) / len(others)
            return total

        h = [fellows(a, y_a, i) - sum(k(a[i], q) for q in b) / len(b) for i in range(len(a))]
        g = [fellows(b, y_b, j) - sum(k(p, b[j]) for p in a) / len(a) for j in range(len(b))]
        error2 = 0.0
        for values, y in ((h, y_a), (g, y_b)):
            for c in set(y):
                mine = torch.tensor([v for v, label in zip(values, y) if label == c], dtype=torch.float64)
                error2 += 4 * len(mine) / len(y) ** 2 * mine.var().item()
        return sum(h) / len(h) + sum(g) / len(g), math.sqrt(error2)                    # -2 E k(a, b) is shared out to both

    a, b, y_a, y_b = randn(7, 2), randn(5, 2, seed=1) + 1, [0, 2, 0, 2, 2, 0, 0], [1, 0, 0, 1, 1]
    assert metrics.kernel_distance(a, b) == pytest.approx(by_hand(a.tolist(), b.tolist(), [0] * 7, [0] * 5))
    labels = torch.tensor(y_a), torch.tensor(y_b)
    assert metrics.kernel_distance(a, b, *labels) == pytest.approx(by_hand(a.tolist(), b.tolist(), y_a, y_b))


@pytest.mark.parametrize("shift, low, high", [(1.0, 0.9, 1.2), (0.0, 1.7, 2.2)])
def test_the_error_of_the_kernel_distance_is_right_or_cautious(shift, low, high):
    """Its square, on average over 1,500 draws, is the variance of the values where the distributions differ, and about twice that where they are equal."""
    both = torch.tensor([metrics.kernel_distance(randn(40, 3, seed=2 * i) + shift, randn(25, 3, seed=2 * i + 1)) for i in range(1500)], dtype=torch.float64)
    assert low < (both[:, 1].square().mean() / both[:, 0].var()).item() < high


def test_equal_numbers_of_each_class_are_no_chance():
    """Two classes 4 apart, 10 of each in both sets, from one distribution: with labels the mean over 300 draws is 0 within two standard errors.  Without them
    it is far below: one that does not meet itself meets 9 of its class and 10 of the other."""
    y = torch.arange(2).repeat(10)
    draws = [[randn(20, 2, seed=seed) + 4 * y[:, None] for seed in (2 * i, 2 * i + 1)] for i in range(300)]
    for labels, is_unbiased in (((y, y), True), ((), False)):
        values = torch.tensor([metrics.kernel_distance(a, b, *labels)[0] for a, b in draws], dtype=torch.float64)
        assert ((values.mean() / values.std()).abs().item() < 2 / math.sqrt(300)) == is_unbiased


# Variety.

def test_variety_is_the_mean_distance_of_two_different_images_of_a_class():
    """Pair by pair; each class in units of its own real images, and all classes alike."""
    x, real, y, y_real = randn(5, 1, 2, 2), randn(7, 1, 2, 2, seed=1), torch.tensor([0, 2, 0, 2, 2]), torch.tensor([0, 1, 2, 0, 2, 1, 0])

    def apart(images):
        images = images.flatten(1).tolist()
        distances = [math.dist(p, q) for i, p in enumerate(images) for q in images[:i]]
        return sum(distances) / len(distances)

    expected = sum(apart(x[y == k]) / apart(real[y_real == k]) for k in (0, 2)) / 2
    assert metrics.variety(x, y, real, y_real) == pytest.approx(expected)


def test_variety_does_not_depend_on_how_many_were_drawn():
    """Its expected value for 2 images of a class is that for 100, within three standard errors; a standard deviation's is not."""
    real, zeros = randn(100, 3), torch.zeros(100, dtype=torch.long)

    def mean_of(statistic, n):
        values = torch.tensor([statistic(randn(n, 3, seed=100 + i)) for i in range(300)], dtype=torch.float64)
        return values.mean().item(), values.std().item() / math.sqrt(300)

    few, error = mean_of(lambda x: metrics.variety(x, zeros[:len(x)], real, zeros), 2)
    many, _ = mean_of(lambda x: metrics.variety(x, zeros[:len(x)], real, zeros), 100)
    assert abs(few - many) < 3 * error and few == pytest.approx(1, abs=0.15)
    assert mean_of(lambda x: x.std(0).mean().item(), 2)[0] < 0.85 * mean_of(lambda x: x.std(0).mean().item(), 100)[0]


def test_variety_of_digits(digits):
    """New digits have that of digits; ten copies of one have none; fainter ones have less, in proportion; and noise is taken for variety."""
    (train, y, _), (test, y_test, _) = digits
    x, known = data.normalise(train), data.normalise(test)
    assert metrics.variety(x, y, known, y_test) == pytest.approx(1, abs=0.05)
    first = metrics.per_class(y, 1)
    assert metrics.variety(x[first].repeat(4, 1, 1, 1), y[first].repeat(4), known, y_test) == 0
    assert metrics.variety(known * 0.5, y_test, known, y_test) == pytest.approx(0.5, rel=1e-4)
    assert metrics.variety(known + 0.3 * torch.randn(known.shape), y_test, known, y_test) > 1.05


# The inception score.

@pytest.mark.parametrize("K", [2, 10])
def test_the_inception_score_lies_between_1_and_the_number_of_classes(K):
    """[3] section 4: 1 for a classifier that knows nothing and for samples of one class; K for sure answers in balance, m for m classes."""
    assert metrics.inception_score(torch.full((50, K), 1 / K)) == pytest.approx(1, abs=1e-6)
    assert metrics.inception_score(torch.eye(K)[[1] * 30]) == pytest.approx(1, abs=1e-9)
    assert metrics.inception_score(torch.eye(K).repeat(7, 1)) == pytest.approx(K, rel=1e-9)
    assert metrics.inception_score(torch.eye(K)[:2].repeat(7, 1)) == pytest.approx(2, rel=1e-9)


def test_the_inception_score_is_marginal_entropy_less_mean_entropy():
    """log IS = H(p(y)) - E H(p(y|x)): the other way to write it, by hand for two images."""
    def entropy(*p):
        return -sum(v * math.log(v) for v in p)

    expected = math.exp(entropy(0.55, 0.45) - (entropy(0.9, 0.1) + entropy(0.2, 0.8)) / 2)
    assert metrics.inception_score(torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("p", [torch.randn(5, 3), torch.ones(5, 3), torch.rand(5), torch.empty(0, 3)])
def test_logits_are_no_probabilities(p):
    """The commonest mistake would give a number, too: rows must be ≥ 0 and sum to 1."""
    with pytest.raises(ValueError, match="sum to 1"):
        metrics.inception_score(p)


# Precision and recall.

def by_hand(real, fake, k):
    """[4] eqs. 1-2, point by point."""
    def inside(point, others):
        for other in others:
            radius = sorted(math.dist(other, neighbour) for neighbour in others)[k]     # [0] is the point itself
            if math.dist(point, other) <= radius:
                return True
        return False

    real, fake = real.tolist(), fake.tolist()
    return sum(inside(p, real) for p in fake) / len(fake), sum(inside(p, fake) for p in real) / len(real)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_are_the_papers(k):
    """[4] eqs. 1-2 by brute force, for sets of different sizes that half overlap."""
    real, fake = randn(40, 2), 0.6 * randn(30, 2, seed=1) + 0.7
    expected = by_hand(real, fake, k)
    assert metrics.precision_recall(real, fake, k) == pytest.approx(expected) and 0.1 < min(expected) and expected[0] != expected[1]


def test_precision_and_recall_of_sets_of_which_the_answer_is_known():
    """The same set 1 and 1; far away 0 and 0; one of two modes: everything fake is right, and half of what is real is missing."""
    one, other = randn(100, 3), randn(100, 3, seed=1) + 50
    real = torch.cat([one, other])
    assert metrics.precision_recall(real, real) == (1, 1)
    assert metrics.precision_recall(real, real + 1000) == (0, 0)
    assert metrics.precision_recall(real, one) == (1, 0.5)
    precision, recall = metrics.precision_recall(real, one[:60])
    assert precision == 1 and 0.4 < recall <= 0.5
    assert metrics.precision_recall(one, real) == (0.5, 1)
    assert metrics.precision_recall(real, one[:1].expand(50, 3)) == pytest.approx((1, 1 / 200)), "a collapsed model covers one image"


def test_precision_and_recall_in_chunks_are_those_of_the_whole():
    """More than one chunk of both sets, against the whole distance matrices."""
    real, fake = randn(1300, 2), randn(1100, 2, seed=1) + 1

    def radii(x):
        return torch.cdist(x, x).sort(1).values[:, 3]

    distance = (fake[:, None] - real).norm(dim=2)
    expected = (distance <= radii(real)).any(1).double().mean().item(), (distance <= radii(fake)[:, None]).any(0).double().mean().item()
    assert metrics.precision_recall(real, fake) == pytest.approx(expected, abs=1e-6)


def test_precision_and_recall_need_neighbours():
    """k = 3 of three points would be the point itself, or nothing."""
    with pytest.raises(ValueError, match=r"\(3, 2\).*k = 3"):
        metrics.precision_recall(randn(9, 2), randn(3, 2))


# Intervals.

@pytest.mark.parametrize("successes, n", [(0, 10), (10, 10), (1, 1), (0, 1), (3, 7), (990, 1000), (5000, 10000)])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_wilsons_interval_is_scipys(successes, n, level):
    """Also for none and for all, where the textbook interval has no width."""
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    low, high = metrics.wilson(successes, n, NormalDist().inv_cdf((1 + level) / 2))
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12) and 0 <= low < high <= 1
    assert (low == 0) == (successes == 0) and (high == 1) == (successes == n)


def test_wilsons_interval_is_one_of_95_percent():
    """z = 1.96 unless told otherwise: 50 of 100 is 0.4038 … 0.5962."""
    assert metrics.wilson(50, 100) == pytest.approx((0.40383, 0.59617), abs=1e-5)


@pytest.mark.parametrize("successes, n", [(11, 10), (-1, 10), (0, 0)])
def test_no_interval_without_sense(successes, n):
    with pytest.raises(ValueError, match=f"{successes} successes of {n}"):
        metrics.wilson(successes, n)


def test_the_bootstrap_of_a_mean_is_the_textbook_interval():
    """x̄ ± 1.96 s/√n, and at half the level ± 0.67 s/√n."""
    x = randn(400) + 3
    error = (x.std() / math.sqrt(400)).item()
    for level, z in ((0.95, 1.96), (0.5, 0.674)):
        low, high = metrics.bootstrap(lambda x: x.mean().item(), x, n=2000, level=level)
        assert (low, high) == pytest.approx((x.mean().item() - z * error, x.mean().item() + z * error), abs=0.1 * error)


def test_the_bootstrap_draws_each_set_on_its_own():
    """The difference of two equal sets would not vary at all if the same rows were drawn from both; and rows stay whole."""
    x = randn(100, 2)
    low, high = metrics.bootstrap(lambda a, b: (a.mean() - b.mean()).item(), x, x)
    assert low < -0.1 and high > 0.1
    assert metrics.bootstrap(lambda a: (a[:, 0] - a[:, 1]).max().item(), x[:, :1].expand(-1, 2)) == (0, 0)


def test_the_bootstrap_within_classes_keeps_their_numbers():
    """50 rows of 0 and 150 of 100: with their labels the mean has no spread at all, without them that of the shares of the classes."""
    y = torch.tensor([0] * 50 + [1] * 150)
    assert metrics.bootstrap(lambda x: x.mean().item(), 100.0 * y, within=[y]) == (75, 75)
    low, high = metrics.bootstrap(lambda x: x.mean().item(), 100.0 * y, n=1000)
    assert (low, high) == pytest.approx((75 - 6, 75 + 6), abs=0.6), "1.96 · 100 · √(0.25 · 0.75 / 200)"


def test_the_bootstrap_of_a_frechet_distance_covers_what_is_to_be_expected():
    """Known truth: the mean distance of 100 new points to these 200, over many draws.  Of 60 intervals of 95 % at least 52 cover it, without
    being too wide; the plain percentiles of the same resamples would mostly miss, because duplicates push them up."""
    real, drawn = randn(200, 8), torch.Generator().manual_seed(2)

    def draw():
        return 1.1 * torch.randn(100, 8, dtype=torch.float64, generator=drawn) + 0.1

    truth = torch.tensor([metrics.frechet_distance(draw(), real) for _ in range(400)])
    values, covered, plain, width = [], 0, 0, 0.0

    def distance(x):
        values.append(metrics.frechet_distance(x, real))
        return values[-1]

    for seed in range(60):
        values.clear()
        low, high = metrics.bootstrap(distance, draw(), n=60, seed=seed)
        covered += low <= truth.mean() <= high
        raw = torch.tensor(values[:60]).quantile(torch.tensor([0.025, 0.975]))
        plain += (raw[0] <= truth.mean() <= raw[1]).item()
        width += (high - low) / 60
    assert covered >= 52 and plain < 40
    assert 0.7 < width / (2 * 1.96 * truth.std()) < 1.6


def test_the_bootstrap_is_a_function_of_its_seed():
    """And leaves the caller's random numbers alone."""
    x, before = randn(50), torch.get_rng_state()
    one, same, other = (metrics.bootstrap(lambda x: x.median().item(), x, seed=seed) for seed in (0, 0, 1))
    assert one == same != other and torch.equal(torch.get_rng_state(), before)


# The classifier: agreement, random numbers, sizes.

def test_the_judge_knows_digits_that_it_has_not_seen(judge, digits):
    """Trained on the train split only: at least 98 % of the test split."""
    _, test = digits
    x = data.normalise(test.images)
    assert metrics.accuracy(judge, x, test.y) >= 0.98
    p = metrics.probabilities(judge, x)
    assert p.dtype == torch.float64 and p.shape == (540, 10) and torch.allclose(p.sum(1), torch.ones(540).double())
    assert (p.argmax(1) == test.y).double().mean().item() == pytest.approx(metrics.accuracy(judge, x, test.y))


def test_agreement_with_shuffled_labels_is_chance(judge, digits):
    """The control: if the labels mean nothing, agreement is about 10 %, within 5 standard errors of 540 images."""
    _, test = digits
    shuffled = test.y[torch.randperm(len(test.y), generator=torch.Generator().manual_seed(0))]
    assert metrics.accuracy(judge, data.normalise(test.images), shuffled) == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / 540))


@pytest.mark.parametrize("how", [{}, {"diffuse": diffuse}])
def test_the_judge_leaves_the_callers_random_numbers_alone(digits, how):
    """Measuring in the middle of a notebook must not change what comes after; and the same seed is the same judge."""
    train, _ = digits
    before, x = torch.get_rng_state(), data.normalise(train.images[:64])
    one, two = (metrics.train_classifier(x, train.y[:64], epochs=1, **how) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before) and not one.training
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))


def test_few_images_are_one_batch(digits):
    """Fewer images than a batch must not mean no step at all."""
    train, _ = digits
    x, y = data.normalise(train.images[:20]), train.y[:20] % 2
    net = metrics.train_classifier(x, y, epochs=15, width=8)
    assert net.config == {"channels": 1, "num_classes": 2, "width": 8, "timed": False} and metrics.accuracy(net, x, y) >= 0.8


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("is_timed", [False, True])
def test_images_of_all_our_sizes_fit(shape, is_timed):
    """Digits, MNIST, CIFAR-10: logits and features of the same widths."""
    net, t = Classifier(shape[0], 7, width=4, timed=is_timed).eval(), (5,) if is_timed else ()
    assert net(torch.zeros(2, *shape), *t).shape == (2, 7) and net.features(torch.zeros(2, *shape), *t).shape == (2, 8)


# The classifier of noisy images.

def test_a_timed_classifier_knows_digits_under_little_noise_and_nothing_under_all(timed, digits):
    """[7]: at low t far above chance; at t = T there is nothing left to see, and its answer is "any of ten", log 10."""
    _, test = digits
    x_0 = data.normalise(test.images)
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))

    def noisy(t):
        x_t = q_sample(SCHEDULE, x_0, eps, t)
        return metrics.accuracy(lambda x_t: timed(x_t, t), x_t, test.y), -timed.log_prob(test.y)(x_t, t).mean().item()

    assert noisy(10)[0] > 0.6 and 0.25 < noisy(500)[0] < noisy(10)[0]
    assert noisy(1000)[0] == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / 540)) and noisy(1000)[1] == pytest.approx(math.log(10), abs=0.25)


def test_a_timed_classifier_is_told_the_time(timed):
    """An int is one time for all; (B,) gives each image its own; and it makes a difference."""
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([1, 400, 1000])
    with torch.no_grad():
        whole = timed(x, t)
        for i in range(3):
            torch.testing.assert_close(whole[i:i + 1], timed(x[i:i + 1], int(t[i])), atol=1e-5, rtol=1e-5)
        assert (timed(x, 1) - timed(x, 1000)).abs().max() > 0.1


def test_time_is_for_timed_classifiers_only():
    """Forgetting it, or giving it to the wrong one, is an error and no guess."""
    with pytest.raises(ValueError, match="give it their time"):
        Classifier(timed=True)(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"t is 3.*timed=True"):
        Classifier()(torch.zeros(1, 1, 8, 8), 3)


def test_guidance_takes_the_gradient_of_the_classifiers_log_prob():
    """[7] Algorithm 2: ε̂ - ε = -√(1-ᾱ_t)·scale·∇ log p(y | x_t), seen along a line by a finite difference in float64."""
    net, x, y, v = Classifier(width=4, timed=True).double().eval(), randn(2, 1, 8, 8), torch.tensor([3, 7]), randn(2, 1, 8, 8, seed=1)
    log_prob = net.log_prob(y)
    torch.testing.assert_close(log_prob(x, 300), net(x, 300).softmax(1)[[0, 1], y].log())
    bent = classifier(lambda x, t: torch.zeros_like(x), log_prob, SCHEDULE, 2.0)(x, 300)
    slope = (log_prob(x + 1e-5 * v, 300) - log_prob(x - 1e-5 * v, 300)) / 2e-5
    expected = -2 * math.sqrt(1 - SCHEDULE.alpha_bar[300].item()) * slope
    torch.testing.assert_close((bent * v).flatten(1).sum(1), expected.detach(), atol=1e-6, rtol=1e-6)


def test_guided_by_the_classifier_an_unconditional_denoiser_draws_what_is_asked_for(timed, judge, digits):
    """The perfect denoiser of the train images, without labels: chance.  Bent by log p(y | x_t): mostly the class that was asked for."""
    train, _ = digits
    eps, y = dataset_denoiser(data.normalise(train.images), SCHEDULE), torch.arange(10).repeat(8)
    x_T = torch.randn(80, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def agreement(denoiser):
        return metrics.accuracy(judge, final(sample(clipped(denoiser, SCHEDULE), SCHEDULE, x_T, ddim_step, steps=20)), y)

    assert agreement(eps) < 0.3 and agreement(classifier(eps, timed.log_prob(y), SCHEDULE, 5.0)) > 0.6


# Memorisation.

def test_memorisation_is_0_for_copies_and_about_1_for_new_images(digits):
    """Distance to the nearest training image, in units of a test image's."""
    train, test = (data.normalise(split.images) for split in digits)
    assert metrics.memorisation(train[:100], train, test) == 0
    assert metrics.memorisation(test, train, test) == 1
    assert metrics.memorisation(test[:100] + 0.01, train, test) > 0.7


def test_the_nearest_training_image_is_found():
    """By brute force, over the pixels."""
    x, train = randn(7, 1, 2, 2), randn(20, 1, 2, 2, seed=1)
    distance, which = metrics.nearest(x, train)
    for i in range(7):
        all_of_them = [(x[i] - other).square().sum().sqrt().item() for other in train]
        assert which[i] == all_of_them.index(min(all_of_them)) and distance[i].item() == pytest.approx(min(all_of_them))


def test_every_image_is_nearest_to_itself(digits):
    """At distance 0 and not at a rounding error's, although the search is by a rounded matrix product, and in chunks."""
    train = data.normalise(digits[0].images)
    distance, which = metrics.nearest(train, train)
    assert torch.equal(distance, torch.zeros(len(train))) and torch.equal(which, torch.arange(len(train)))


def test_per_class_takes_the_first_of_each():
    """So that a distance is measured at equal numbers."""
    assert metrics.per_class(torch.tensor([1, 0, 1, 0, 0, 1]), 2).tolist() == [1, 3, 0, 2]


def test_metrics_is_a_leaf():
    """It imports nothing of ours: whoever wants its numbers for another model can take this one file."""
    imports = [node for node in ast.walk(ast.parse(Path(metrics.__file__).read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    assert all(node.level == 0 and not node.module.startswith("ddpm") for node in imports)
