"""Data whose perfect denoiser is known in closed form: the exact denoisers against brute force.  [1] DDPM arXiv:2006.11239."""

import math

import numpy as np
import pytest
import torch

from ddpm_tutorial import Mixture, cosine, dataset_denoiser, ddim_step, ddpm_step, final, linear, ring, sample, seeded_noise, spiral

SCHEDULE = linear(100)
TIMES = [1, 2, 30, 100]
LINE = Mixture([[-1.0], [0.5], [2.0]], torch.tensor([0.1, 0.3, 0.01]), weights=torch.tensor([0.5, 0.2, 0.3]), labels=torch.tensor([0, 1, 0]))
PLANE = Mixture([[0.0, 1.0], [1.0, -1.0], [-1.0, 0.0]], torch.tensor([[[0.30, 0.12], [0.12, 0.10]], [[0.1, 0.0], [0.0, 0.4]], [[0.2, -0.1], [-0.1, 0.2]]]),
                weights=torch.tensor([1.0, 2.0, 1.0]), labels=torch.tensor([0, 1, 1]))

SIGMA = torch.tensor([[1.0, 0.5, -0.2], [0.5, 0.6, 0.1], [-0.2, 0.1, 0.3]], dtype=torch.float64)     # three dimensions: its axes are no symmetric matrix


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def density(x):
    """LINE's p(x_0), by hand; and the part of it that is class 0."""
    normal = [w * np.exp(-((x - m) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v) for w, m, v in ((0.5, -1, 0.1), (0.2, 0.5, 0.3), (0.3, 2, 0.01))]
    return sum(normal), normal[0] + normal[2]


def test_a_flat_covariance_is_allowed():
    """Points on a line in space: two eigenvalues are zero, and rounding must not make them negative."""
    flat = torch.outer(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0]))
    x_0, _ = Mixture(torch.zeros(1, 3), flat[None]).sample(100)
    torch.testing.assert_close(x_0, x_0[:, :1] * torch.tensor([1.0, 2.0, 3.0]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("y", [None, 0])
def test_the_denoiser_is_the_mean_noise_given_x_t(t, y):
    """ε*(x_t, t) = E[ε | x_t], the minimiser of [1] eq. 14, integrated over x_0 on a grid with Bayes' rule."""
    a, x_0 = SCHEDULE.alpha_bar[t].item(), np.linspace(-6, 6, 200_001)
    prior = density(x_0)[0 if y is None else 1]
    for x_t in (-2.0, -0.3, 0.9, 1.7):
        eps = (x_t - math.sqrt(a) * x_0) / math.sqrt(1 - a)
        posterior = prior * np.exp(-(eps**2) / 2)
        expected = (posterior * eps).sum() / posterior.sum()
        assert LINE.denoiser(SCHEDULE, y)(torch.tensor([[x_t]], dtype=torch.float64), t).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("t", [*TIMES, torch.tensor([1, 2, 30, 99, 100, 5])])
@pytest.mark.parametrize("y", [None, 0, 1, torch.tensor([0, 1, 1, 0, 1, 0])])
def test_the_denoiser_is_tweedies_formula(t, y):
    """ε*(x_t, t) = -√(1-ᾱ_t) ∇ log q_t(x_t): the score, by autograd through log_density; full covariances, and a class per point."""
    x = (2 * randn(6, 2)).requires_grad_()
    score, = torch.autograd.grad(PLANE.log_density(SCHEDULE, y)(x, t).sum(), x)
    noise = (1 - SCHEDULE.alpha_bar[t]).sqrt().view(-1, 1)
    torch.testing.assert_close(PLANE.denoiser(SCHEDULE, y)(x.detach(), t), -noise * score, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("t", TIMES)
def test_one_gaussian_is_a_linear_denoiser(t):
    """x_t ~ N(√ᾱ μ, ᾱΣ + (1-ᾱ)I), so ε* = √(1-ᾱ) (ᾱΣ + (1-ᾱ)I)⁻¹ (x_t - √ᾱ μ): with the inverse matrix instead of principal axes."""
    a, x, mu = SCHEDULE.alpha_bar[t].item(), randn(6, 3), torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)
    inverse = torch.linalg.inv(a * SIGMA + (1 - a) * torch.eye(3, dtype=torch.float64))
    expected = math.sqrt(1 - a) * (x - math.sqrt(a) * mu) @ inverse
    torch.testing.assert_close(Mixture(mu[None], SIGMA[None]).denoiser(SCHEDULE)(x, t), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("t", [0, 1, 30, 100])
@pytest.mark.parametrize("y", [None, 0, 1])
def test_log_density_is_a_density(t, y):
    """∫ q_t(x | y) dx = 1 at every t, on a line and (with full covariances) on a plane; t = 0 is the data's own."""
    line = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    assert LINE.log_density(SCHEDULE, y)(line[:, None], t).exp().sum().item() * 16 / 20_000 == pytest.approx(1, abs=1e-6)
    side = torch.linspace(-7, 7, 281, dtype=torch.float64)
    assert PLANE.log_density(SCHEDULE, y)(torch.cartesian_prod(side, side), t).exp().sum().item() * 0.05**2 == pytest.approx(1, abs=1e-6)


def test_log_density_at_0_is_the_data():
    """q_0 = p, compared with the sum of three bells written by hand."""
    x = np.linspace(-2, 3, 11)
    log_q = LINE.log_density(SCHEDULE)(torch.tensor(x)[:, None], 0)
    np.testing.assert_allclose(log_q, np.log(density(x)[0]), rtol=1e-6)


@pytest.mark.parametrize("t", TIMES)
def test_the_classes_share_the_probability(t):
    """Σ_y p(y | x_t) = 1, and Bayes: log p(y | x) = log q(x | y) + log p(y) - log q(x)."""
    x = 2 * randn(6, 2)
    log_p = torch.stack([PLANE.log_prob(SCHEDULE, y)(x, t) for y in (0, 1)])
    torch.testing.assert_close(log_p.exp().sum(0), torch.ones(6, dtype=torch.float64))
    for y, prior in enumerate((0.25, 0.75)):
        bayes = PLANE.log_density(SCHEDULE, y)(x, t) + math.log(prior) - PLANE.log_density(SCHEDULE)(x, t)
        torch.testing.assert_close(log_p[y], bayes, atol=1e-10, rtol=1e-10)


def test_labels_may_differ_from_point_to_point():
    """y (B,) is B questions in one call."""
    x, y = 2 * randn(5, 2), torch.tensor([0, 1, 1, 0, 1])
    for ask in (PLANE.denoiser, PLANE.log_prob, PLANE.log_density):
        whole = ask(SCHEDULE, y)(x, 30)
        for i in range(5):
            torch.testing.assert_close(whole[i:i + 1], ask(SCHEDULE, int(y[i]))(x[i:i + 1], 30))


def test_samples_have_the_moments_of_the_mixture():
    """Mean and covariance of a class, within 5 standard errors; the labels come in the proportion of the weights, and the seed decides."""
    mixture = Mixture([[0.0, 1.0, 2.0], [5.0, 5.0, 5.0]], torch.stack([SIGMA, 0.1 * SIGMA]), weights=torch.tensor([1.0, 3.0]))
    x, y = mixture.sample(40_000, seed=0)
    assert x.shape == (40_000, 3) and x.dtype == torch.float32
    assert abs((y == 0).double().mean().item() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 40_000)
    first, n = x[y == 0].double(), (y == 0).sum().item()
    assert (first.mean(0) - torch.tensor([0.0, 1.0, 2.0])).abs().max() < 5 * math.sqrt(1 / n)
    assert (first.T.cov() - SIGMA).abs().max() < 5 * math.sqrt(2 / n)
    assert torch.equal(x[:5], mixture.sample(40_000, seed=0)[0][:5]) and not torch.equal(x[:5], mixture.sample(40_000, seed=4)[0][:5])


@pytest.mark.parametrize("t", [1, 10, 50, 100])
def test_the_perfect_denoiser_of_a_finite_set_is_a_mixture_of_points(t):
    """E[ε | x_t] under the training set is a Mixture's with variance → 0; images come out in their own shape."""
    data = randn(20, 4)
    points, x = Mixture(data, 1e-13).denoiser(SCHEDULE), randn(6, 4, seed=1)
    torch.testing.assert_close(dataset_denoiser(data, SCHEDULE)(x, t), points(x, t), atol=1e-7, rtol=1e-7)
    images = dataset_denoiser(data.view(20, 1, 2, 2), SCHEDULE)(x.view(6, 1, 2, 2), t)
    torch.testing.assert_close(images.view(6, 4), points(x, t), atol=1e-7, rtol=1e-7)


def test_the_perfect_denoiser_of_a_finite_set_reproduces_it():
    """Walked down, every sample is a training image: generalising is what a network does wrong."""
    data, schedule = randn(10, 1, 4, 4).sign().float(), cosine(1000)
    x_T = seeded_noise(0, range(30), (1, 4, 4))(1000)
    distance = torch.cdist(final(sample(dataset_denoiser(data, schedule), schedule, x_T, ddim_step, 50)).flatten(1), data.flatten(1))
    assert distance.min(1).values.max() < 1e-3
    assert len(distance.argmin(1).unique()) >= 5


def test_the_perfect_denoiser_generates_the_ring():
    """[1] Algorithm 2 with no network at all: 400 points in 200 steps, all within five deviations of one of 8 centres, in all of them evenly."""
    schedule, data = cosine(200), ring()
    noise = seeded_noise(0, range(400), (2,))
    x_0 = final(sample(data.denoiser(schedule), schedule, noise(200), ddpm_step, noise=noise)).double()
    distance, nearest = torch.cdist(x_0, data.means).min(1)
    assert distance.max() < 0.5 and distance.square().mean().item() == pytest.approx(2 * 0.1**2, rel=0.25)
    assert (nearest.bincount(minlength=8) - 50).abs().max() < 5 * math.sqrt(400 / 8 * 7 / 8)


def test_one_class_of_the_ring_can_be_asked_for():
    """The conditional denoiser leads to component 3 and to no other."""
    schedule, data = cosine(100), ring()
    noise = seeded_noise(0, range(50), (2,))
    x_0 = final(sample(data.denoiser(schedule, 3), schedule, noise(100), ddpm_step, noise=noise)).double()
    assert (torch.cdist(x_0, data.means).argmin(1) == 3).all()


def test_the_toy_sets_lie_in_the_square():
    """[-1, 1] is where data live; same seed, same points."""
    points = spiral(500)
    assert points.shape == (500, 2) and points.dtype == torch.float32 and points.abs().max() <= 1
    assert torch.equal(points, spiral(500)) and not torch.equal(points, spiral(500, seed=1))
    torch.testing.assert_close(ring(6, radius=0.7).means.norm(dim=1), torch.full((6,), 0.7, dtype=torch.float64))
