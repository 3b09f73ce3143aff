"""The Gaussian algebra between x_0, x_t, ε and v.  [1] DDPM arXiv:2006.11239, [2] progressive distillation arXiv:2202.00512."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from ddpm_tutorial import (
    Mixture, cosine, ddim_step, denoiser, eps_from_x0, final, flow, linear, q_posterior, q_sample, q_step, sample, score, target, timesteps, to_eps,
    x0_from_eps,
)

SCHEDULES = [linear(1000), cosine(1000), linear(30)]


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def number(value):
    return torch.tensor([[value]], dtype=torch.float64)


@pytest.mark.parametrize("schedule", [linear(40), cosine(40)])
def test_the_chain_of_small_steps_is_the_closed_form(schedule):
    """[1] eq. 2 applied t times is eq. 4: x_t ~ N(√ᾱ_t x_0, 1-ᾱ_t).  Exact: mean and variance are pushed through each linear step."""
    mean, var, alpha_bar = 1.0, 0.0, 1.0
    for t in range(1, schedule.T + 1):
        a, b = q_step(schedule, number(1.0), number(0.0), t, t - 1).item(), q_step(schedule, number(0.0), number(1.0), t, t - 1).item()
        mean, var = a * mean, a**2 * var + b**2
        alpha_bar *= 1 - schedule.beta[t].item()
        assert mean == pytest.approx(math.sqrt(alpha_bar), rel=1e-10) and var == pytest.approx(1 - alpha_bar, rel=1e-10)
        assert q_sample(schedule, number(1.0), number(0.0), t).item() == pytest.approx(mean, rel=1e-10)
        assert q_sample(schedule, number(0.0), number(1.0), t).item() ** 2 == pytest.approx(var, rel=1e-10)


def test_a_long_step_is_the_chain_of_the_short_ones():
    """[1] eq. 2 from any s < t:  α = ᾱ_t/ᾱ_s, so signal multiplies and x_t ~ N(√α x_s, 1-α)."""
    schedule = linear(1000)
    for t, s in [(7, 2), (1000, 1), (900, 0), (500, 499)]:
        alpha = math.prod(1 - b for b in schedule.beta[s + 1:t + 1].tolist())
        assert q_step(schedule, number(1.0), number(0.0), t, s).item() == pytest.approx(math.sqrt(alpha), rel=1e-10)
        assert q_step(schedule, number(0.0), number(1.0), t, s).item() == pytest.approx(math.sqrt(1 - alpha), rel=1e-9)


def test_q_sample_leaves_the_data_alone_at_t_0():
    """ᾱ_0 = 1: x_0 is an entry of the table and no special case."""
    x_0, eps = randn(3, 2), randn(3, 2, seed=1)
    assert torch.equal(q_sample(SCHEDULES[0], x_0, eps, 0), x_0)


def test_each_image_of_a_batch_has_its_own_time():
    """t (B,) does to a batch what B calls with an int do, for images and for points."""
    for shape in [(4, 2), (4, 3, 5, 5)]:
        x, eps, t = randn(*shape).float(), randn(*shape, seed=1).float(), torch.tensor([1, 30, 7, 0])
        whole = q_sample(SCHEDULES[2], x, eps, t)
        for i in range(4):
            assert torch.equal(whole[i], q_sample(SCHEDULES[2], x[i:i + 1], eps[i:i + 1], int(t[i]))[0])


@pytest.mark.parametrize("t, s", [(2, 1), (10, 3), (500, 499), (700, 300), (1000, 1), (1000, 999)])
@pytest.mark.parametrize("schedule", SCHEDULES[:2])
def test_the_posterior_is_bayes_rule_on_a_grid(schedule, t, s):
    """[1] eqs. 6-7: q(x_s | x_t, x_0) ∝ q(x_t | x_s) q(x_s | x_0), integrated by brute force."""
    x_0, a_t, a_s = 0.8, schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
    x_t = math.sqrt(a_t) * x_0 + 0.7 * math.sqrt(1 - a_t)
    grid = math.sqrt(a_s) * x_0 + math.sqrt(1 - a_s) * np.linspace(-12, 12, 100_001)
    log_p = -((x_t - math.sqrt(a_t / a_s) * grid) ** 2) / (2 * (1 - a_t / a_s)) - (grid - math.sqrt(a_s) * x_0) ** 2 / (2 * (1 - a_s))
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    mean, var = q_posterior(schedule, number(x_t), number(x_0), t, s)
    assert mean.item() == pytest.approx((p * grid).sum(), rel=1e-6, abs=1e-9)
    assert var.item() == pytest.approx((p * grid**2).sum() - (p * grid).sum() ** 2, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_posterior_at_s_0_is_the_data_itself(schedule, dtype):
    """[1] eq. 7 with ᾱ_0 = 1: exactly (x_0, 0), which is why the last step draws no noise (labml's does)."""
    x_t, x_0 = randn(5, 2).to(dtype), randn(5, 2, seed=1).to(dtype)
    for t in {1, 2, 17, schedule.T}:
        mean, var = q_posterior(schedule, x_t, x_0, t, 0)
        assert torch.equal(mean, x_0) and (var == 0).all()


def test_the_posterior_variance_is_below_beta():
    """[1] section 3.2: β̃_t = (1-ᾱ_{t-1})/(1-ᾱ_t) β_t < β_t.  varun-ml PR #1: lost its denominator and nobody saw."""
    schedule = SCHEDULES[0]
    t = torch.arange(2, 1001)
    _, var = q_posterior(schedule, randn(999, 1), randn(999, 1), t, t - 1)
    beta, a = schedule.beta.numpy(), schedule.alpha_bar.numpy()
    np.testing.assert_allclose(var[:, 0], (1 - a[1:-1]) / (1 - a[2:]) * beta[2:], rtol=1e-12)
    assert (var[:, 0].numpy() < beta[2:]).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_noise_can_be_read_off_x_t(schedule):
    """[1] eq. 4 solved for ε with numpy: what was added is what the target is (lucidrains `immiscible` permuted one of the two)."""
    x_0, eps = randn(6, 3), randn(6, 3, seed=1)
    for t in (1, 2, 17, schedule.T):
        a = schedule.alpha_bar[t].item()
        x_t = q_sample(schedule, x_0, eps, t)
        np.testing.assert_allclose((x_t - math.sqrt(a) * x_0) / math.sqrt(1 - a), target(schedule, x_0, eps, t), atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_eps_x0_and_v_are_three_names_for_one_thing(schedule):
    """[1] eq. 15 and [2] section 4 (v = √ᾱ ε - √(1-ᾱ) x_0) undo each other in float64."""
    x_0, eps = randn(6, 3), randn(6, 3, seed=1)
    for t in (1, 2, 17, schedule.T):
        a = schedule.alpha_bar[t].item()
        x_t = q_sample(schedule, x_0, eps, t)
        torch.testing.assert_close(x0_from_eps(schedule, x_t, eps, t), x_0, atol=1e-11, rtol=0)
        torch.testing.assert_close(eps_from_x0(schedule, x_t, x_0, t), eps, atol=1e-11, rtol=0)
        v = target(schedule, x_0, eps, t, "v")
        torch.testing.assert_close(v, math.sqrt(a) * eps - math.sqrt(1 - a) * x_0, atol=1e-14, rtol=1e-14)
        torch.testing.assert_close(math.sqrt(a) * x_t - math.sqrt(1 - a) * v, x_0, atol=1e-11, rtol=0)


@pytest.mark.parametrize("predict", ["eps", "x0", "v", "velocity"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_perfect_network_is_read_as_the_noise_whatever_it_predicts(schedule, predict):
    """to_eps undoes target, for ints and for times (B,): a denoiser always returns ε.  Unless told otherwise, what comes out of a network is ε."""
    x_0, eps = randn(6, 3), randn(6, 3, seed=1)
    for t in (1, 17, schedule.T, torch.tensor([1, 2, 3, 17, 29, schedule.T])):
        x_t = q_sample(schedule, x_0, eps, t)
        torch.testing.assert_close(to_eps(schedule, x_t, target(schedule, x_0, eps, t, predict), t, predict), eps, atol=1e-11, rtol=0)
        assert torch.equal(to_eps(schedule, x_t, eps, t), eps)


@pytest.mark.parametrize("schedule", [flow(1000), linear(1000), cosine(50)])
def test_the_velocity_is_the_derivative_along_the_straight_path(schedule):
    """x = (1-u) x_0 + u ε: dx/du = ε - x_0.  And read back: ε = (x_t + √ᾱ u)/(√ᾱ + √(1-ᾱ)) under any schedule."""
    x_0, eps = randn(6, 3), randn(6, 3, seed=1)
    for t in (1, 17, schedule.T):
        a, b = math.sqrt(schedule.alpha_bar[t]), math.sqrt(1 - schedule.alpha_bar[t])
        velocity = target(schedule, x_0, eps, t, "velocity")
        np.testing.assert_allclose(velocity, eps - x_0)
        np.testing.assert_allclose((a * x_0 + b * eps + a * velocity) / (a + b), eps, atol=1e-12)


@pytest.mark.parametrize("schedule", [flow(1000), flow(20), cosine(1000)], ids=["flow-1000", "flow-20", "cosine"])
@pytest.mark.parametrize("S", [1, 4, 20])
def test_ddim_is_eulers_method_on_the_flows_equation(schedule, S):
    """X = x_t/(√ᾱ + √(1-ᾱ)) is the flow's own coordinate, u = √(1-ᾱ)/(√ᾱ + √(1-ᾱ)) its time, and X_s = X_t + (u_s - u_t)·velocity is DDIM, to 1e-12."""
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.5]], dtype=torch.float64)
    denoise, x, times = Mixture(means, 0.04).denoiser(schedule), randn(40, 2), timesteps(schedule.T, S)
    a, b = schedule.alpha_bar.sqrt(), (1 - schedule.alpha_bar).sqrt()
    u, X = b / (a + b), x / (a + b)[-1]
    for t, s in pairwise(times):
        eps = denoise(X * (a + b)[t], t)
        X = X + (u[s] - u[t]) * (eps - (X * (a + b)[t] - b[t] * eps) / a[t])
    torch.testing.assert_close(final(sample(denoise, schedule, x, ddim_step, times=times)), X, rtol=1e-12, atol=1e-12 * a[-1].item() ** -1)


@pytest.mark.parametrize("t", [1, 10, 500, 1000])
def test_the_score_is_the_gradient_of_the_log_density(t):
    """Tweedie's formula, [1] section 3.2 and Song et al.: ∇ log q_t by autograd, of an exact mixture."""
    schedule, x = cosine(1000), randn(20, 2).requires_grad_()
    mixture = Mixture([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]], [0.04, 0.2, 0.01])
    grad, = torch.autograd.grad(mixture.log_density(schedule)(x, t).sum(), x)
    torch.testing.assert_close(score(mixture.denoiser(schedule), schedule)(x.detach(), t), grad, rtol=1e-9, atol=1e-9)


# A network as a denoiser.

class Spy(nn.Module):
    """Answers zeros in `dtype`, and remembers what it was asked and in which mode."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.frozen, self.drop, self.dtype, self.seen = nn.BatchNorm1d(2).eval(), nn.Dropout(0.5), dtype, []

    def forward(self, x_t, t, y=None):
        self.seen.append((t, y, [m.training for m in self.modules()]))
        if self.dtype is None:
            raise RuntimeError("out of memory")
        return torch.zeros_like(x_t, dtype=self.dtype)


def test_a_network_is_in_eval_mode_for_the_call_and_gets_its_modes_back():
    """ethos-ares #20, SDGym #22: dropout was live while sampling; a submodule that was frozen stays frozen."""
    net = Spy()
    before = [m.training for m in net.modules()]
    assert before == [True, False, True]
    denoiser(net, linear(10))(torch.zeros(3, 2), 4)
    assert net.seen[0][2] == [False, False, False]
    assert [m.training for m in net.modules()] == before


def test_the_modes_come_back_after_an_exception():
    """A kernel interrupted in the middle of sampling must not leave a network that trains without dropout."""
    net = Spy(dtype=None)
    with pytest.raises(RuntimeError, match="out of memory"):
        denoiser(net, linear(10))(torch.zeros(3, 2), 4)
    assert [m.training for m in net.modules()] == [True, False, True]


@pytest.mark.parametrize("predict", ["eps", "x0", "v", "velocity"])
def test_a_denoiser_answers_in_the_type_of_the_image(predict):
    """A network may compute in bfloat16; ε comes back as float32, or every later step would be rounded to 8 bits."""
    x = torch.ones(3, 2)
    for t in (4, torch.tensor([1, 4, 10])):
        assert denoiser(Spy(torch.bfloat16), linear(10), predict=predict)(x, t).dtype == torch.float32


@pytest.mark.parametrize("t, arrives", [(4, [4, 4, 4]), (torch.tensor(4), [4, 4, 4]), (torch.tensor([1, 4, 10]), [1, 4, 10])])
def test_the_time_reaches_the_network_as_one_integer_per_image(t, arrives):
    """The same t that the caller named, 1 … T, and no fraction of T."""
    net = Spy()
    denoiser(net, linear(10))(torch.zeros(3, 2), t)
    assert net.seen[0][0].tolist() == arrives and net.seen[0][0].dtype == torch.int64


def test_labels_reach_the_network_and_no_labels_make_a_two_argument_call():
    """net(x_t, t, y) with labels, net(x_t, t) without: any function of two arguments is a network."""
    net, y = Spy(), torch.tensor([2, 0, 1])
    denoiser(net, linear(10), y)(torch.zeros(3, 2), 4)
    assert net.seen[0][1] is y
    assert torch.equal(denoiser(lambda x_t, t: 2 * x_t, linear(10))(torch.ones(3, 2), 4), torch.full((3, 2), 2.0))


@pytest.mark.parametrize("predict", ["eps", "x0", "v", "velocity"])
def test_a_denoiser_turns_the_networks_prediction_into_eps(predict):
    """A network that answers perfectly in its own language names the very ε that was added."""
    schedule, x_0, eps = cosine(100), randn(4, 2), randn(4, 2, seed=1)
    for t in (1, 50, 100):
        answer = target(schedule, x_0, eps, t, predict)
        x_t = q_sample(schedule, x_0, eps, t)
        torch.testing.assert_close(denoiser(lambda x, t, answer=answer: answer, schedule, predict=predict)(x_t, t), eps, atol=1e-11, rtol=0)
