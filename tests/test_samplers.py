"""The two steps and the loop.  [1] DDPM arXiv:2006.11239, [2] DDIM arXiv:2010.02502 (its α_t is our ᾱ_t).

[3] DPM-Solver++ arXiv:2211.01095.

The data of most tests is N(m, c²), whose perfect denoiser is a line in x.  Then every step is  a·x + b + σ·z,  and a, b, σ can be read
off three probes and compared with the papers' formulas to ten digits: no training, no Monte Carlo.  A noise that is added in the last
step changes the final standard deviation by 1e-4, which no test on 100,000 samples would see.
"""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from ddpm_tutorial import (
    Mixture, classifier_free, clipped, cosine, ddim_step, ddpm_step, dpm_solver_2m, final, flow, invert, linear, q_posterior, quadratic, ring, sample,
    seeded_noise, sigmoid, slerp, timesteps, timesteps_in_log_snr, x0_from_eps,
)

M, C = 0.3, 0.5                                                 # mean and standard deviation of the data
SCHEDULES = {"linear-1000": linear(1000), "cosine-1000": cosine(1000), "sigmoid-100": sigmoid(100), "quadratic-100": quadratic(100)}
WALKS = [1, 2, 3, 7, 10, 13, 30, 50, None]                      # None: all T steps


def gaussian_eps(a, m=M, c=C):
    """ε*(x) = e_1 x + e_0 at ᾱ = a: x_t ~ N(√a m, a c² + 1-a), and ε* = -√(1-a) ∇ log q."""
    e_1 = math.sqrt(1 - a) / (a * c**2 + 1 - a)
    return e_1, -e_1 * math.sqrt(a) * m


def line_denoiser(schedule, m=M, c=C):
    def eps(x_t, t):
        e_1, e_0 = gaussian_eps(schedule.alpha_bar[t].item(), m, c)
        return e_1 * x_t + e_0

    return eps


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def probe(step, schedule, t, s):
    """The step as a·x + b + σ·z: its answers to (x, z) = (0, 0), (1, 0), (0, 1)."""
    x, z = column(0, 1, 0), column(0, 0, 1)
    e_1, e_0 = gaussian_eps(schedule.alpha_bar[t].item())
    at_0, at_1, at_z = step(schedule, x, e_1 * x + e_0, t, s, z).flatten().tolist()
    return at_1 - at_0, at_0, at_z - at_0


def pairs(T):
    """Every (t, s) that one of the WALKS goes."""
    return sorted({pair for S in WALKS if S is None or S <= T for pair in pairwise(timesteps(T, S))})


def agree(measured, expected, where):
    for name, ours, papers in zip(("a", "b", "σ"), measured, expected, strict=True):
        assert abs(ours - papers) <= 1e-10 * max(1, abs(papers)), f"{name} is {ours}, the paper says {papers}, at (t, s) = {where}"


# The affine probe.

@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("variance", ["small", "large"])
def test_a_ddpm_step_is_algorithm_2(schedule, variance):
    """[1] eq. 11: x_s = 1/√α (x_t - β/√(1-ᾱ_t) ε) + σz, σ² = β̃ or β, none at s = 0.  diffusers #12633, #11347: stride for look-up."""
    for t, s in pairs(schedule.T):
        a_t, a_s = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
        alpha, (e_1, e_0) = a_t / a_s, gaussian_eps(a_t)
        beta = 1 - alpha
        slope, shift = (1 - beta / math.sqrt(1 - a_t) * e_1) / math.sqrt(alpha), -beta / math.sqrt(1 - a_t) * e_0 / math.sqrt(alpha)
        sigma = 0 if s == 0 else math.sqrt(beta if variance == "large" else (1 - a_s) / (1 - a_t) * beta)
        agree(probe(partial(ddpm_step, variance=variance), schedule, t, s), (slope, shift, sigma), (t, s))


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("eta", [0, 0.3, 1])
def test_a_ddim_step_is_equation_12(schedule, eta):
    """[2] eqs. 12 and 16.  Guards CoursIA #16158 (σ as direction), the slip √(1-ᾱ_s) without -σ², and lucidrains #81 (wrong s)."""
    for t, s in pairs(schedule.T):
        a_t, a_s = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
        e_1, e_0 = gaussian_eps(a_t)
        sigma = eta * math.sqrt((1 - a_s) / (1 - a_t)) * math.sqrt(1 - a_t / a_s)
        direction = math.sqrt(1 - a_s - sigma**2)
        slope = math.sqrt(a_s) * (1 - math.sqrt(1 - a_t) * e_1) / math.sqrt(a_t) + direction * e_1
        shift = math.sqrt(a_s) * (0 - math.sqrt(1 - a_t) * e_0) / math.sqrt(a_t) + direction * e_0
        agree(probe(partial(ddim_step, eta=eta), schedule, t, s), (slope, shift, sigma), (t, s))


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_line_is_the_perfect_denoiser_of_gaussian_data(schedule):
    """ε* = -√(1-ᾱ_t) ∇ log q_t(x_t): the package's Mixture of one component says the same as the two lines above."""
    exact, x = Mixture([[M]], C**2).denoiser(schedule), column(-2, 0, 0.1, 5)
    for t in (1, 2, 50, schedule.T):
        torch.testing.assert_close(exact(x, t), line_denoiser(schedule)(x, t), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_step_up_is_the_same_equation_with_s_above_t(schedule):
    """[2] eq. 14 read backwards: η = 0 needs no order of t and s, and from t = 0 on x̂_0 is x itself."""
    for s, t in pairs(schedule.T)[::7]:
        a_t, a_s = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
        x, eps = column(1, 0), column(0, 1)
        on_x, on_eps = ddim_step(schedule, x, eps, t, s).flatten().tolist()
        ratio = math.sqrt(a_s / a_t)
        agree((on_x, on_eps, 0), (ratio, math.sqrt(1 - a_s) - ratio * math.sqrt(1 - a_t), 0), (t, s))


# Identities between the steps.

@pytest.mark.parametrize("schedule", [linear(50), cosine(50)])
def test_ddim_with_eta_1_and_all_steps_is_ddpm(schedule):
    """[2] section 4.1: "when σ_t = √((1-α_{t-1})/(1-α_t)) √(1-α_t/α_{t-1}) … the generative process becomes a DDPM"."""
    x, eps, z = randn(8, 3), randn(8, 3, seed=1), randn(8, 3, seed=2)
    for t, s in [*pairwise(timesteps(50)), (50, 20), (33, 1)]:
        torch.testing.assert_close(ddim_step(schedule, x, eps, t, s, z, eta=1.0), ddpm_step(schedule, x, eps, t, s, z), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("step", [ddpm_step, partial(ddpm_step, variance="large"), ddim_step, partial(ddim_step, eta=0.3), partial(ddim_step, eta=1)])
def test_the_last_step_is_the_predicted_data_bit_for_bit(step, dtype):
    """[1] Algorithm 2: z = 0 at t = 1, whatever z is passed.  Guards labml (always adds noise) and diffusers' set_alpha_to_one."""
    x, eps, z = (randn(8, 3, seed=i).to(dtype) for i in range(3))
    for schedule in (linear(1000), cosine(1000)):
        for t in (1, 2, 20, 1000):
            expected = x0_from_eps(schedule, x, eps, t)
            assert torch.equal(step(schedule, x, eps, t, 0, z), expected) and torch.equal(step(schedule, x, eps, t, 0), expected)


@pytest.mark.parametrize("step", [ddpm_step, ddim_step, partial(ddim_step, eta=0.3), partial(ddim_step, eta=1)])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_with_the_true_noise_a_step_lands_on_the_forward_process(schedule, step):
    """[2] Lemma 1: if ε is the noise in x_t, then x_s ~ N(√ᾱ_s x_0, (1-ᾱ_s) I) for every η, read off as coefficients of x_0, ε, z."""
    x_0, eps, z = column(1, 0, 0), column(0, 1, 0), column(0, 0, 1)
    for t, s in pairs(schedule.T)[::5]:
        a_t, a_s = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
        on_x_0, on_eps, on_z = step(schedule, math.sqrt(a_t) * x_0 + math.sqrt(1 - a_t) * eps, eps, t, s, z).flatten().tolist()
        assert on_x_0 == pytest.approx(math.sqrt(a_s), abs=1e-10)
        assert on_eps**2 + on_z**2 == pytest.approx(1 - a_s, abs=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_large_variance_is_right_for_normal_data_until_the_last_step(schedule):
    """[1] section 3.2: σ² = β is "optimal for x_0 ~ N(0, I)": Var x_t stays 1, and the noiseless last step ends at 1-β_1."""
    e_step, var = partial(ddpm_step, variance="large"), 1.0
    for t, s in pairwise(timesteps(schedule.T)):
        eps = math.sqrt(1 - schedule.alpha_bar[t].item())       # ε* = √(1-ᾱ_t) x
        slope, sigma = e_step(schedule, column(1, 0), column(eps, 0), t, s, column(0, 1)).flatten().tolist()
        var = slope**2 * var + sigma**2
        assert var == pytest.approx(1 if s > 0 else schedule.alpha_bar[1].item(), abs=1e-10)


@pytest.mark.parametrize("S", [1, 5, 10, 50])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_ddim_on_normal_data_shrinks_by_a_product_of_cosines(schedule, S):
    """x_t = cos φ x_0 + sin φ ε with φ = arccos √ᾱ_t: each step of an η = 0 walk multiplies by cos Δφ (to 11 digits)."""
    phi = [math.acos(math.sqrt(schedule.alpha_bar[t].item())) for t in timesteps(schedule.T, S)]
    expected = math.prod(math.cos(before - after) for before, after in pairwise(phi))
    end = final(sample(line_denoiser(schedule, m=0, c=1), schedule, column(1.0), ddim_step, S))
    assert end.item() == pytest.approx(expected, abs=1e-11)


def test_inverting_and_coming_back_gets_better_with_more_steps():
    """[2] section 5.4, Table 2: the reconstruction error falls with S.  Guards diffusers #10695 and Stability-AI PR #226 (index mix-ups)."""
    schedule, x_0 = linear(1000), M + C * torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    eps, errors = line_denoiser(schedule), []
    for S in (10, 20, 50, 100, 200):
        x_T = final(invert(eps, schedule, x_0, S))
        errors.append((final(sample(eps, schedule, x_T, ddim_step, S)) - x_0).square().mean().item())
    assert all(more < less / 1.5 for less, more in pairwise(errors)), errors
    assert errors[0] < 0.2 and errors[-1] < 2e-3, errors


@pytest.mark.parametrize("schedule", [linear(200), cosine(200)])
def test_inverted_data_looks_like_noise(schedule):
    """The walk up maps N(m, c²) to about N(0, 1), because every schedule ends in noise."""
    lower, upper = final(invert(line_denoiser(schedule), schedule, column(M - C, M + C))).flatten().tolist()
    assert (lower + upper) / 2 == pytest.approx(0, abs=0.05) and (upper - lower) / 2 == pytest.approx(1, abs=0.05)


# Times.

def test_times_fall_evenly_from_T_to_0_for_every_T_and_S():
    """S steps are S+1 times; diffusers #2585, arXiv:2305.08891: "leading" spacing never starts at T."""
    for T in range(1, 61):
        for S in range(1, T + 1):
            times = timesteps(T, S)
            strides = [t - s for t, s in pairwise(times)]
            assert times[0] == T and times[-1] == 0 and len(times) == S + 1
            assert min(strides) >= 1 and max(strides) - min(strides) <= 1
        assert timesteps(T) == list(range(T, -1, -1))


# The loop.

class Recorder:
    """A denoiser, a step and a noise that write down what they are asked."""

    def __init__(self, step=ddim_step, shape=(2, 1)):
        self.denoised, self.stepped, self.drawn, self.inner, self.shape = [], [], [], step, shape

    def denoiser(self, x_t, t):
        self.denoised.append(t)
        return 0.5 * x_t

    def step(self, schedule, x_t, eps, t, s, z=None):
        self.stepped.append((t, s))
        return self.inner(schedule, x_t, eps, t, s, z)

    def noise(self, t):
        self.drawn.append(t)
        return torch.full(self.shape, float(len(self.drawn)))


@pytest.mark.parametrize("S", [1, 2, 7, 10, None])
def test_a_walk_asks_at_each_time_once_and_steps_along_the_list(S):
    """The first call is at T and s is the next entry of the list, never t - T/S: diffusers #12633; dome272 never visits its first index."""
    spy, schedule = Recorder(), linear(10)
    times = timesteps(10, S)
    states = list(sample(spy.denoiser, schedule, torch.ones(2, 1), spy.step, S))
    assert [state.t for state in states] == times
    assert spy.denoised == times[:-1]
    assert spy.stepped == list(pairwise(times))


def test_noise_is_asked_only_for_steps_that_use_it():
    """σ = 0 at s = 0: one draw for each step t → s with t > s > 0, none for the last one and none on the way up."""
    spy = Recorder(ddpm_step)
    list(sample(spy.denoiser, linear(10), torch.ones(2, 1), spy.step, 4, noise=spy.noise))
    assert spy.drawn == timesteps(10, 4)[:-2]
    up = Recorder()
    list(sample(up.denoiser, linear(10), torch.ones(2, 1), up.step, times=range(11), noise=up.noise))
    assert up.drawn == []


def test_the_noise_that_was_drawn_is_the_noise_that_is_added():
    """Algorithm 2 line 3: two walks that differ in one z differ by σ times it in the next x."""
    schedule, x = linear(10), torch.zeros(2, 1, dtype=torch.float64)
    quiet, loud = (list(sample(lambda x, t: 0 * x, schedule, x, ddpm_step, times=[10, 5, 2], noise=lambda t, k=k: torch.full((2, 1), k))) for k in (0.0, 1.0))
    _, var = q_posterior(schedule, x, x, 10, 5)
    torch.testing.assert_close(loud[1].x_t - quiet[1].x_t, var.sqrt().expand(2, 1))


@pytest.mark.parametrize("step", [ddpm_step, ddim_step])
def test_every_state_is_a_consistent_pair(step):
    """[1] eq. 15: x_0 is what the denoiser sees from this very x_t, not from the one before."""
    schedule, x = cosine(20), randn(4, 1)
    eps = line_denoiser(schedule)
    states = list(sample(eps, schedule, x, step, noise=seeded_noise(0, range(4), (1,))))
    for state in states[:-1]:
        a = schedule.alpha_bar[state.t].item()
        torch.testing.assert_close(state.x_0, (state.x_t - math.sqrt(1 - a) * eps(state.x_t, state.t)) / math.sqrt(a), atol=1e-9, rtol=1e-9)
    assert torch.equal(states[0].x_t, x) and states[-1].t == 0 and torch.equal(states[-1].x_0, states[-1].x_t)
    assert torch.equal(states[-1].x_t, states[-2].x_0)


def test_a_state_is_yielded_before_it_is_left():
    """So that a reader who stops at t has paid for no step beyond it."""
    spy = Recorder()
    walk = sample(spy.denoiser, linear(10), torch.ones(2, 1), spy.step)
    assert spy.denoised == []
    for k in range(5):
        next(walk)
        assert len(spy.stepped) == k and len(spy.denoised) == k + 1


def test_a_walk_may_have_its_own_times():
    """Any falling list, also one that stops before the data; its last state is then seen through the denoiser once more."""
    schedule, eps = linear(100), line_denoiser(linear(100))
    assert [state.t for state in sample(eps, schedule, column(1.0), times=[100, 60, 7, 0])] == [100, 60, 7, 0]
    last = list(sample(eps, schedule, column(1.0), times=[100, 60]))[-1]
    a = schedule.alpha_bar[60].item()
    assert last.t == 60
    torch.testing.assert_close(last.x_0, (last.x_t - math.sqrt(1 - a) * eps(last.x_t, 60)) / math.sqrt(a), atol=1e-12, rtol=1e-12)


def test_a_walk_up_ends_at_T_and_never_asks_the_denoiser_at_0():
    """Inversion begins at the data, where no denoiser is trained: it is asked at t = 1, and x̂_0 is x itself."""
    spy = Recorder()
    states = list(sample(spy.denoiser, linear(10), torch.ones(2, 1), spy.step, times=[0, 3, 10]))
    assert [state.t for state in states] == [0, 3, 10] and spy.stepped == [(0, 3), (3, 10)]
    assert spy.denoised == [1, 3, 10]
    assert torch.equal(states[0].x_0, states[0].x_t)
    assert [state.t for state in invert(spy.denoiser, linear(10), torch.ones(2, 1), 2)] == [0, 5, 10]


def test_sample_complains_at_the_call_and_not_at_the_first_next():
    """A generator function would check nothing until it is walked; by then the traceback is in somebody else's cell."""
    spy, schedule, x = Recorder(), linear(10), torch.ones(2, 1)
    for bad in ({"steps": 0}, {"steps": 11}, {"times": [5]}, {"times": [0, 5, 5]}, {"times": [11, 0]}, {"times": [5, -1]}, {"steps": 2, "times": [10, 0]}):
        with pytest.raises(ValueError):
            sample(spy.denoiser, schedule, x, **bad)
    assert spy.denoised == []


def test_a_walk_builds_no_graph_and_leaves_the_callers_grad_mode():
    """Sampling is inference; between two states the caller's own autograd works as ever."""
    weight = torch.ones(1, requires_grad=True)
    for state in sample(lambda x, t: weight * x, linear(5), torch.ones(2, 1)):
        assert not state.x_t.requires_grad and not state.x_0.requires_grad
        assert torch.is_grad_enabled()


def test_final_is_the_last_x_t():
    """Walk to the end; an iterator that was already walked is an error, not a stale answer."""
    walk = sample(line_denoiser(linear(5)), linear(5), column(1.0))
    states = list(sample(line_denoiser(linear(5)), linear(5), column(1.0)))
    assert torch.equal(final(walk), states[-1].x_t)
    with pytest.raises(ValueError, match="once"):
        final(walk)


# The second order.

@pytest.mark.parametrize("schedule", [linear(1000), cosine(1000), flow(1000), cosine(7)], ids=["linear", "cosine", "flow", "cosine-7"])
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_second_order_step_is_the_papers_formula(schedule, steps):
    """[3] Algorithm 2, in its own letters: x_s = σ_s/σ_t x_t - α_s (e^{-h} - 1) D, with D = (1 + 1/2r) x̂_0 - 1/2r x̂_0,last and r = h_last/h.

    The first step and the last, at s = 0, are DDIM's.
    """
    times, step, x = timesteps(schedule.T, steps), dpm_solver_2m(), randn(5, 2)
    alpha, sigma = schedule.alpha_bar.sqrt().tolist(), (1 - schedule.alpha_bar).sqrt().tolist()
    lam = [math.inf if s == 0 else math.log(a / s) for a, s in zip(alpha, sigma)]
    last = None
    for k, (t, s) in enumerate(pairwise(times)):
        eps = line_denoiser(schedule)(x, t)
        x_0 = D = (x - sigma[t] * eps) / alpha[t]
        if 0 < k and s > 0:
            r = (lam[t] - lam[times[k - 1]]) / (lam[s] - lam[t])
            D = (1 + 1 / (2 * r)) * x_0 - 1 / (2 * r) * last
        expected = D if s == 0 else sigma[s] / sigma[t] * x - alpha[s] * math.expm1(-(lam[s] - lam[t])) * D
        x, last = step(schedule, x, eps, t, s), x_0
        torch.testing.assert_close(x, expected, rtol=1e-8, atol=1e-9)


def test_halving_the_second_order_steps_divides_the_error_by_four_and_ddims_by_two():
    """On N(m, c²) the walk's end is known: (x_t - √ᾱ_t m)/√(ᾱ_t c² + 1 - ᾱ_t) never changes.

    Measured between two noise levels, so that no last step is mixed in.
    """
    schedule, x = cosine(64_000), column(-1.0, 0.5, 2.0)
    high, low = 48_000, 8_000

    def spread(t):
        return math.sqrt(schedule.alpha_bar[t] * C**2 + 1 - schedule.alpha_bar[t])

    end = schedule.alpha_bar[low].sqrt() * M + spread(low) / spread(high) * (x - schedule.alpha_bar[high].sqrt() * M)
    orders = {}
    for name, make in {"ddim": lambda: ddim_step, "2m": dpm_solver_2m}.items():
        errors = [(final(sample(line_denoiser(schedule), schedule, x, make(), times=[high - i * (high - low) // S for i in range(S + 1)])) - end).norm().item()
                  for S in (20, 40, 80, 160)]
        orders[name] = [a / b for a, b in pairwise(errors)]
    assert all(ratio > 3.4 for ratio in orders["2m"]) and all(1.8 < ratio < 2.2 for ratio in orders["ddim"]), orders


def test_on_the_ring_few_second_order_steps_are_better_than_many_of_ddim():
    """An exact mixture, times even in log SNR: 25 calls of DPM-Solver++(2M) end nearer to the ODE's end than 50 of DDIM on either list of times."""
    schedule, x = cosine(1000), randn(500, 2)
    denoise = ring().denoiser(schedule)

    def end(step, times):
        return final(sample(denoise, schedule, x, step, times=times))

    ode = end(dpm_solver_2m(), timesteps(1000))
    error = {(name, S): (end(make(), times) - ode).norm(dim=1).square().mean().sqrt().item() for name, make, S, times in (
        ("2m", dpm_solver_2m, 25, timesteps_in_log_snr(schedule, 25)), ("ddim", lambda: ddim_step, 50, timesteps(1000, 50)),
        ("ddim in log SNR", lambda: ddim_step, 50, timesteps_in_log_snr(schedule, 50)))}
    assert error["2m", 25] < 0.6 * min(error["ddim", 50], error["ddim in log SNR", 50]), error


@pytest.mark.parametrize("S", [3, 8, 20])
def test_the_second_order_walk_is_diffusers(S):
    """DPMSolverMultistepScheduler, dpmsolver++, order 2, midpoint, on the same β and the same times (theirs are ours minus 1).

    Under linear: their tables are float32, in which cosine's last ᾱ, 2e-9, has three digits left.
    """
    diffusers = pytest.importorskip("diffusers")
    schedule, times = linear(1000), timesteps(1000, S)
    theirs = diffusers.DPMSolverMultistepScheduler(
        num_train_timesteps=1000, trained_betas=schedule.beta[1:].tolist(), algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint",
        final_sigmas_type="zero", lower_order_final=False)
    theirs.set_timesteps(timesteps=[t - 1 for t in times[:-1]])
    x, denoise = randn(6, 2).float(), ring().denoiser(schedule)
    for state in sample(denoise, schedule, x, dpm_solver_2m(), times=times):
        torch.testing.assert_close(x, state.x_t, rtol=2e-5, atol=2e-5)
        if state.t:
            x = theirs.step(denoise(x, state.t), state.t - 1, x, return_dict=False)[0]


def test_guided_and_clipped_denoisers_walk_in_second_order_too():
    """A step sees ε and nothing else: with a clipped denoiser the last step ends within the bounds, and with a guided one at scale 1 nothing changes."""
    schedule, mixture, x = cosine(1000), ring(), randn(50, 2)
    cond, uncond = mixture.denoiser(schedule, y=2), mixture.denoiser(schedule)
    box = clipped(classifier_free(cond, uncond, 4.0), schedule, -0.5, 0.5)
    assert final(sample(box, schedule, x, dpm_solver_2m(), steps=10)).abs().max() <= 0.5 + 1e-12
    once, twice = (final(sample(eps, schedule, x, dpm_solver_2m(), steps=10)) for eps in (cond, classifier_free(cond, uncond, 1.0)))
    assert torch.equal(once, twice)


def test_a_step_that_remembers_is_for_one_walk_and_walks_down():
    """The x̂_0 of another walk would be mixed in silently; up, from t = 0, where λ is infinite, the line cannot be drawn."""
    schedule, x, step = cosine(10), column(1.0), dpm_solver_2m()
    final(sample(line_denoiser(schedule), schedule, x, step, steps=3))
    with pytest.raises(ValueError, match=r"stands at t = 0.*go on from t = 10.*new dpm_solver_2m"):
        final(sample(line_denoiser(schedule), schedule, x, step, steps=3))
    with pytest.raises(ValueError, match="this step goes down"):
        final(sample(line_denoiser(schedule), schedule, x, dpm_solver_2m(), times=[1, 5, 10]))


@pytest.mark.parametrize("make", [linear, cosine, sigmoid, quadratic, flow])
@pytest.mark.parametrize("T", [1, 2, 3, 10, 100])
def test_times_in_log_snr_fall_strictly_from_T_to_0_for_every_number_of_steps(make, T):
    """S + 1 integers, whatever the schedule: where two of them would be one, the later moves down."""
    schedule = make(T)
    for S in range(1, T + 1):
        times = timesteps_in_log_snr(schedule, S)
        assert len(times) == S + 1 and times[0] == T and times[-1] == 0 and all(s < t for t, s in pairwise(times))
        assert all(type(t) is int for t in times)
    assert timesteps_in_log_snr(schedule) == list(range(T, -1, -1))


@pytest.mark.parametrize("make, last", [(linear, 8.0), (cosine, 8.0), (flow, 8.0), (cosine, 4.0)])
def test_times_in_log_snr_are_even_in_it(make, last):
    """Between -8 and `last`, each within half the gap to the next integer time of where it should be."""
    schedule, S = make(1000), 12
    times = timesteps_in_log_snr(schedule, S, last)[1:-1]
    ends = schedule.log_snr[[-1, 1]].clamp(-8, last)
    for wanted, t in zip(torch.linspace(*ends.tolist(), S)[1:], times):
        gaps = (schedule.log_snr[max(t - 1, 1)] - schedule.log_snr[t]).abs(), (schedule.log_snr[t] - schedule.log_snr[t + 1]).abs()
        assert abs(schedule.log_snr[t] - wanted) <= max(gaps) / 2 + 1e-6


# Noise.

def test_image_i_gets_the_same_noise_alone_in_a_batch_and_in_another_order():
    """As EDM's StackedRandomGenerator: a sample is a function of (seed, i), so the batch size changes nothing."""
    batch, alone, shuffled = seeded_noise(5, range(8), (3, 2)), seeded_noise(5, [6], (3, 2)), seeded_noise(5, [7, 6, 0], (3, 2))
    for t in (10, 9, 1):
        whole, one, three = batch(t), alone(t), shuffled(t)
        assert torch.equal(whole[6], one[0]) and torch.equal(whole[[7, 6, 0]], three)
        assert whole.dtype == torch.float32 and whole.device.type == "cpu" and whole.shape == (8, 3, 2)


def test_seeds_and_images_have_streams_of_their_own():
    """Also seeds that differ by 2**32, which a torch CPU generator cannot tell apart, and (seed, i) is not seed + i."""
    draws = [seeded_noise(seed, [i], (4,))(1) for seed in (0, 1, 2, 2**32, 2**32 + 1, 2**63) for i in (0, 1, 2, 2**32)]
    assert len({tuple(z.flatten().tolist()) for z in draws}) == len(draws)


def test_each_step_draws_fresh_standard_normal_numbers():
    """z ~ N(0, I), new for every t: mean 0, variance 1 and no correlation from step to step, within 5 standard errors."""
    noise = seeded_noise(0, range(100), (100,))
    a, b = noise(2).double(), noise(1).double()
    for value in (a.mean(), b.mean(), (a * b).mean(), (a.square().mean() - 1) / math.sqrt(2), (a[:, 1:] * a[:, :-1]).mean(), (a[1:] * a[:-1]).mean()):
        assert abs(value.item()) < 5 / 100


@pytest.mark.parametrize("shape", [(6,), (1, 4, 4)])
def test_slerp_walks_on_an_arc_from_end_to_end(shape):
    """[2] section 5.3: sin((1-w)Ω)/sin Ω a + sin(wΩ)/sin Ω b.  Equal-norm ends keep their norm, and equal w are equal angles."""
    a, b = randn(*shape), randn(*shape, seed=1)
    b = b * a.norm() / b.norm()
    arc = slerp(a, b, torch.linspace(0, 1, 5))
    torch.testing.assert_close(arc[0], a, atol=1e-15, rtol=1e-14)
    torch.testing.assert_close(arc[-1], b, atol=1e-15, rtol=1e-14)
    torch.testing.assert_close(arc.flatten(1).norm(dim=1), a.norm().expand(5), rtol=1e-12, atol=0)
    angles = [torch.acos((p.flatten() @ q.flatten()) / a.norm() ** 2) for p, q in pairwise(arc)]
    np.testing.assert_allclose(angles, angles[0], rtol=1e-6)


def test_slerp_between_equal_points_stands_still():
    """Ω = 0 would be 0/0: the arc is a straight line there."""
    a = randn(5)
    torch.testing.assert_close(slerp(a, a, torch.linspace(0, 1, 4)), a.expand(4, 5))


def test_slerp_survives_a_cosine_that_rounding_puts_above_one():
    """a·b/(‖a‖‖b‖) of parallel vectors is 1 + 1e-7 now and then, in float32, and acos of that is NaN."""
    above = below = 0
    for seed in range(50):
        a = torch.randn(5, generator=torch.Generator().manual_seed(seed))
        cosine = torch.dot(a, 3 * a) / (a.norm() * (3 * a).norm())
        above, below = above + (cosine > 1).item(), below + (-cosine < -1).item()
        assert slerp(a, 3 * a, torch.linspace(0, 1, 4)).isfinite().all() and slerp(a, -3 * a, torch.linspace(0, 1, 4)).isfinite().all()
    assert above and below, "no pair of these is rounded beyond ±1: the test tests nothing"
