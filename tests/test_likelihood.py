"""The variational bound.  Expectations are Gauss-Hermite quadrature, exact for these polynomials; nothing here is Monte Carlo but where it says so."""

import math

import numpy as np
import pytest
import torch

from ddpm_tutorial import DDPM, cosine, data, ddpm_step, linear, q_posterior, q_sample
from ddpm_tutorial.likelihood import Bound, bits_per_dim, prior, terms

ENTROPY = 0.5 * math.log(2 * math.pi * math.e)                  # of N(0, 1), in nats


def quadrature(dims, n=12):
    """Nodes (n^dims, dims) and weights of the standard normal in so many dimensions."""
    x, w = np.polynomial.hermite_e.hermegauss(n)
    grid = torch.tensor(np.stack(np.meshgrid(*[x] * dims, indexing="ij"), -1).reshape(-1, dims))
    weights = torch.tensor(np.prod(np.stack(np.meshgrid(*[w / w.sum()] * dims, indexing="ij"), -1).reshape(-1, dims), axis=1))
    return grid, weights


def expected_bound(denoiser, schedule, x_0, eps, weights, **options):
    parts = [prior(schedule, x_0)] + [terms(denoiser, schedule, x_0, eps, t, **options) for t in range(1, schedule.T + 1)]
    return float(sum((part * weights).sum() for part in parts))


def gaussian_denoiser(schedule, mean, cov):
    """ε̂ = (x_t - √ᾱ E[x_0|x_t]) / √(1-ᾱ)  for data N(mean, cov), by the textbook formula for Gaussians."""
    def eps(x_t, t):
        a = float(schedule.alpha_bar[t])
        gain = math.sqrt(a) * cov @ torch.linalg.inv(a * cov + (1 - a) * torch.eye(len(cov), dtype=torch.float64))
        x_0 = mean + (x_t - math.sqrt(a) * mean) @ gain.T
        return (x_t - math.sqrt(a) * x_0) / math.sqrt(1 - a)
    return eps


def by_equation_3(schedule, m, v, variance):
    """DDPM eq. 3 for data N(m, v) in one dimension:  E[-log p(x_T) - Σ log p_θ(x_{t-1}|x_t) + Σ log q(x_t|x_{t-1})],  all moments in closed form.

    It shares no KL and no posterior with the package: the route by eq. 5 must arrive at the same number.
    """
    a = [float(x) for x in schedule.alpha_bar]
    total = 0.5 * (math.log(2 * math.pi) + a[-1] * (v + m * m) + 1 - a[-1])
    for t in range(1, schedule.T + 1):
        alpha = a[t] / a[t - 1]
        beta = 1 - alpha
        var = [a[s] * v + 1 - a[s] for s in (t - 1, t)]
        c_0, c_t = math.sqrt(a[t - 1]) * beta / (1 - a[t]), math.sqrt(alpha) * (1 - a[t - 1]) / (1 - a[t])
        slope = c_0 * math.sqrt(a[t]) * v / var[1] + c_t                        # of the model's mean in x_t
        offset = c_0 * (m - a[t] * v * m / var[1])
        error = math.sqrt(a[t - 1]) * m - slope * math.sqrt(a[t]) * m - offset
        square = var[0] - 2 * slope * math.sqrt(alpha) * var[0] + slope**2 * var[1] + error**2
        s = max(t, 2)
        sigma2 = beta if variance == "large" else (1 - a[s - 1]) / (1 - a[s]) * (1 - a[s] / a[s - 1])
        total += 0.5 * (math.log(2 * math.pi * sigma2) + square / sigma2) - 0.5 * math.log(2 * math.pi * math.e * beta)
    return total


@pytest.mark.parametrize("schedule", [linear(5), linear(50), cosine(20), linear(1)], ids=["linear 5", "linear 50", "cosine 20", "linear 1"])
def test_for_the_standard_normal_the_bound_is_the_entropy(schedule):
    """N(0, 1), exact denoiser, variance "large": each reverse step is the true one, nothing is lost:  0.5 ln 2πe.

    (tqch/ddpm-torch #20, a t that did not move along the loop, went unnoticed for want of this.)
    """
    x, w = quadrature(2, 20)
    one = torch.eye(1, dtype=torch.float64)
    bound = expected_bound(gaussian_denoiser(schedule, torch.zeros(1, dtype=torch.float64), one), schedule, x[:, :1], x[:, 1:], w)
    assert bound == pytest.approx(ENTROPY, abs=1e-9)


def test_with_the_small_variance_the_standard_normal_costs_more():
    """β̃_t is too small for data this wide: 1.9975 nats instead of 1.4189 at T = 1000."""
    schedule, (x, w) = linear(1000), quadrature(2, 6)
    exact = gaussian_denoiser(schedule, torch.zeros(1, dtype=torch.float64), torch.eye(1, dtype=torch.float64))
    assert expected_bound(exact, schedule, x[:, :1], x[:, 1:], w, variance="small") == pytest.approx(1.9975, abs=5e-5)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("m, std", [(0.0, 1.0), (0.3, 0.5), (-1.0, 0.05), (0.2, 2.0)])
@pytest.mark.parametrize("schedule", [linear(2), linear(30), cosine(10)], ids=["linear 2", "linear 30", "cosine 10"])
def test_the_sum_of_kls_is_the_papers_first_form_of_the_bound(schedule, m, std, variance):
    """Eq. 5 (KL divergences, what the package does) equals eq. 3 (log-ratios along the chain, written here), for other data too."""
    x, w = quadrature(2, 20)
    exact = gaussian_denoiser(schedule, torch.tensor([m], dtype=torch.float64), torch.tensor([[std**2]], dtype=torch.float64))
    bound = expected_bound(exact, schedule, m + std * x[:, :1], x[:, 1:], w, variance=variance)
    assert bound == pytest.approx(by_equation_3(schedule, m, std**2, variance), rel=1e-9)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_a_correlated_gaussian_is_the_sum_over_its_axes(variance):
    """In two dimensions, noise I: the bound is that of the two eigenvalues, one after the other; and it is above the entropy."""
    schedule, cov = linear(6), torch.tensor([[1.0, 0.8], [0.8, 1.3]], dtype=torch.float64)
    z, w = quadrature(4, 8)
    x_0, root = z[:, :2], torch.linalg.cholesky(cov)
    bound = expected_bound(gaussian_denoiser(schedule, torch.zeros(2, dtype=torch.float64), cov), schedule, x_0 @ root.T, z[:, 2:], w, variance=variance)
    axes = [by_equation_3(schedule, 0.0, float(v), variance) for v in torch.linalg.eigvalsh(cov)]
    assert bound == pytest.approx(sum(axes), rel=1e-9)
    assert bound > 2 * ENTROPY + 0.5 * float(torch.logdet(cov))


def test_a_worse_denoiser_has_a_higher_bound():
    """Each term but L_T notices it."""
    schedule, (x, w) = linear(10), quadrature(2)
    exact = gaussian_denoiser(schedule, torch.zeros(1, dtype=torch.float64), 0.25 * torch.eye(1, dtype=torch.float64))
    for t in range(1, 11):
        right, wrong = ((terms(eps, schedule, 0.5 * x[:, :1], x[:, 1:], t) * w).sum() for eps in (exact, lambda x_t, t: 0.9 * exact(x_t, t)))
        assert wrong > right


def test_the_prior_is_a_kl_of_gaussians():
    """L_T against torch's own, in nats, summed over the dimensions."""
    schedule, x_0 = linear(4), torch.randn(3, 1, 2, 2, dtype=torch.float64)
    a = float(schedule.alpha_bar[-1])
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(math.sqrt(a) * x_0, math.sqrt(1 - a)), normal(torch.zeros_like(x_0), 1.0)).sum((1, 2, 3))
    torch.testing.assert_close(prior(schedule, x_0), expected, rtol=1e-12, atol=1e-14)


def draw(seed=0):
    """Images, their noise, and what a network made of it."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 1, 2, 2, generator=generator, dtype=torch.float64) for _ in range(3)]


@pytest.mark.parametrize("t", [2, 3, 20])
def test_the_mean_of_a_step_in_terms_of_the_noise(t):
    """DDPM eqs. 9-11: (x_t - β_t/√(1-ᾱ_t) ε)/√α_t is the posterior's mean with the true noise, and the model's with its own."""
    schedule, (x_0, eps, guess) = cosine(20), draw()
    x_t, beta, a = q_sample(schedule, x_0, eps, t), float(schedule.beta[t]), float(schedule.alpha_bar[t])
    by_hand = [(x_t - beta / math.sqrt(1 - a) * e) / math.sqrt(1 - beta) for e in (eps, guess)]
    torch.testing.assert_close(by_hand[0], q_posterior(schedule, x_t, x_0, t, t - 1)[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(by_hand[1], ddpm_step(schedule, x_t, guess, t, t - 1, torch.zeros_like(x_t)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("t", [2, 3, 20])
def test_a_term_is_a_squared_error_of_the_mean(t, variance):
    """DDPM eq. 8: what a wrong guess adds to L_{t-1} is ‖μ̃ - μ_θ‖²/(2σ_t²), and the rest does not depend on the network."""
    schedule, (x_0, eps, guess) = cosine(20), draw()
    x_t, beta = q_sample(schedule, x_0, eps, t), float(schedule.beta[t])
    right, wrong = (terms(lambda *_, e=e: e, schedule, x_0, eps, t, variance) for e in (eps, guess))
    mean, small = q_posterior(schedule, x_t, x_0, t, t - 1)
    error = (mean - ddpm_step(schedule, x_t, guess, t, t - 1, torch.zeros_like(x_t))).square().flatten(1).sum(1)
    torch.testing.assert_close(wrong - right, error / (2 * (beta if variance == "large" else float(small))), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("t", [2, 3, 20])
def test_a_term_is_a_weighted_squared_error_of_the_noise(t, variance):
    """DDPM eq. 12: what a wrong guess adds to L_{t-1} is β_t²/(2σ_t² α_t (1-ᾱ_t)) ‖ε - ε_θ‖², the weight that L_simple drops."""
    schedule, (x_0, eps, guess) = cosine(20), draw()
    beta, a, before = (float(v) for v in (schedule.beta[t], schedule.alpha_bar[t], schedule.alpha_bar[t - 1]))
    right, wrong = (terms(lambda *_, e=e: e, schedule, x_0, eps, t, variance) for e in (eps, guess))
    sigma2 = beta if variance == "large" else (1 - before) / (1 - a) * beta
    weight = beta**2 / (2 * sigma2 * (1 - beta) * (1 - a))
    torch.testing.assert_close(wrong - right, weight * (eps - guess).square().flatten(1).sum(1), rtol=1e-9, atol=1e-12)


# The discretised decoder.

def levels_of(n):
    return torch.linspace(-1, 1, n, dtype=torch.float64)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("guess", [-1.0, 0.3, 0.999, 3.0])
def test_the_decoders_probabilities_sum_to_1(levels, guess):
    """[1] eq. 13 over all levels, wherever the guess is, however sharp: bins neither overlap nor leave gaps, and the outer ones reach to infinity."""
    schedule = linear(1000)
    x_0 = levels_of(levels)[:, None]

    def eps(x_t, t):                                            # whatever x_t is, it sees x_0 = guess
        return (x_t - math.sqrt(float(schedule.alpha_bar[t])) * guess) / math.sqrt(1 - float(schedule.alpha_bar[t]))

    for variance in ("small", "large"):
        nats = terms(eps, schedule, x_0, torch.zeros_like(x_0), 1, variance, "discretised", levels)
        assert (nats >= 0).all() and nats.isfinite().all()
        assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-9)


def test_the_decoder_is_the_mass_of_a_normal_in_a_bin():
    """Against Φ by math.erfc, for a middle level and both ends."""
    schedule, x_0 = linear(5), torch.tensor([[-1.0], [0.25], [1.0]], dtype=torch.float64)
    std, mean = math.sqrt(float(schedule.beta[1])), 0.2

    def eps(x_t, t):
        return (x_t - math.sqrt(float(schedule.alpha_bar[t])) * mean) / math.sqrt(1 - float(schedule.alpha_bar[t]))

    def phi(x):
        return 0.5 * math.erfc((mean - x) / std / math.sqrt(2))

    half = 1 / 16
    expected = [phi(-1 + half), phi(0.25 + half) - phi(0.25 - half), 1 - phi(1 - half)]
    nats = terms(eps, schedule, x_0, torch.ones_like(x_0), 1, decoder="discretised", levels=17)
    np.testing.assert_allclose((-nats).exp().numpy(), expected, rtol=1e-9)


def test_a_hopeless_guess_is_expensive_and_finite():
    """Hundreds of standard deviations off in float32: log-probabilities are subtracted, not probabilities."""
    schedule, x_0 = linear(1000), torch.full((1, 4), -1.0)
    nats = terms(lambda x_t, t: -1e4 * torch.ones_like(x_t), schedule, x_0, torch.zeros_like(x_0), 1, decoder="discretised")
    assert nats.isfinite().all() and (nats > 1e4).all()


# The whole bound.

def test_bits_per_dim_are_the_terms_in_bits():
    """L_T, every L_{t-1} and L_0, divided by ln 2 and the number of dimensions; image i draws the same ε alone and in company."""
    schedule, x_0 = linear(4), torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)

    def eps(x_t, t):
        return schedule.noise(t, x_t) * x_t

    bound = bits_per_dim(eps, schedule, x_0, "small", "discretised", 17, seed=3)
    assert isinstance(bound, Bound) and bound.L_T.shape == (3,) and bound.L.shape == (3, 4)
    torch.testing.assert_close(bound.L_T, prior(schedule, x_0) / (4 * math.log(2)))
    torch.testing.assert_close(bound.total, bound.L_T + bound.L[:, 0] + bound.L[:, 1] + bound.L[:, 2] + bound.L[:, 3])
    alone = bits_per_dim(eps, schedule, x_0[:1], "small", "discretised", 17, seed=3)
    torch.testing.assert_close(alone.total, bound.total[:1])
    assert not torch.equal(bits_per_dim(eps, schedule, x_0, "small", "discretised", 17, seed=4).total, bound.total)


def test_bits_of_the_standard_normal_are_its_entropy():
    """Monte Carlo, 4,000 points: within 5 standard errors of 0.5 log₂ 2πe."""
    schedule, x_0 = linear(50), torch.randn(4000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    total = bits_per_dim(lambda x_t, t: schedule.noise(t, x_t) * x_t, schedule, x_0, "large", "gaussian").total
    assert abs(float(total.mean()) - ENTROPY / math.log(2)) < 5 * float(total.std()) / math.sqrt(4000)


def test_the_shipped_digits_model_finds_digits_likelier_than_shuffled_pixels():
    """On held-out digits, 20 of 1,000 terms: every one of 32 images costs more when its pixels are shuffled (all by the same permutation)."""
    model = DDPM.load("digits")
    x_0 = data.normalise(data.load("digits", "test").images[:32])
    shuffled = x_0.flatten(1)[:, torch.randperm(64, generator=torch.Generator().manual_seed(0))].view_as(x_0)
    eps, eps_hat = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1)), model.denoiser(clip=False)
    costs = [sum(terms(eps_hat, model.schedule, x, eps, t, decoder="discretised", levels=17) for t in range(1, 1001, 50)) for x in (x_0, shuffled)]
    assert (costs[0] < costs[1]).all()


# Mistakes.

@pytest.mark.parametrize("change, said", [
    ({"t": 0}, "t is 0"), ({"t": 5}, "t is 5"), ({"t": 1.5}, r"t is 1\.5"), ({"variance": "medium"}, "medium.*small or large"),
    ({"decoder": "laplace"}, "laplace.*gaussian"), ({"levels": 1, "decoder": "discretised", "t": 1}, "levels is 1")], ids=str)
def test_mistakes_are_named(change, said):
    """What was given and what is allowed."""
    schedule, x_0 = linear(4), torch.zeros(1, 2)
    options = {"t": 2, "variance": "large", "decoder": "gaussian", "levels": 256} | change
    with pytest.raises((ValueError, TypeError), match=f"(?s){said}"):
        terms(lambda x_t, t: x_t, schedule, x_0, x_0, **options)
