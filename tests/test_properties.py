"""What holds for every schedule, length, shape, type, number of steps and η: Hypothesis looks for a case in which it does not.

[1] DDPM arXiv:2006.11239, [2] DDIM arXiv:2010.02502, [3] progressive distillation arXiv:2202.00512.  The same cases are tried every time.
"""

import math
from functools import lru_cache, partial
from itertools import pairwise

import pytest
import torch

from ddpm_tutorial import (
    clipped, ddim_step, ddpm_step, denoiser, eps_from_x0, final, q_posterior, q_sample, q_step, sample, seeded_noise, target, timesteps, to_eps, x0_from_eps,
)
from ddpm_tutorial.schedules import SCHEDULES, by_name

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import assume, given, settings, strategies as st    # noqa: E402

hypothesis.settings.register_profile("the same everywhere", derandomize=True, deadline=None, database=None, max_examples=100)
hypothesis.settings.load_profile("the same everywhere")

by_name = lru_cache(maxsize=None)(by_name)
schedules = st.builds(by_name, st.sampled_from(sorted(SCHEDULES)), st.integers(1, 2000))
shapes = st.one_of(st.tuples(st.integers(1, 4), st.integers(1, 5)), st.tuples(*[st.integers(1, 4)] * 4))       # points (B, D), images (B, C, H, W)
etas = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
predictions = st.sampled_from(["eps", "x0", "v"])


@st.composite
def moves(draw, least_s=0):
    """A schedule and two of its times, t > s."""
    schedule = draw(schedules.filter(lambda schedule: schedule.T > least_s))
    t = draw(st.integers(least_s + 1, schedule.T))
    return schedule, t, draw(st.integers(least_s, t - 1))


def randn(shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


# Tables.

@given(schedules)
def test_every_schedule_is_one_finite_sequence_that_falls_from_exactly_1(schedule):
    """1 = ᾱ_0 > ᾱ_1 > … > ᾱ_T > 0 in float64, β in (0, 1), and the SNR is finite from t = 1 on; at the data it is infinite."""
    alpha_bar, beta = schedule.alpha_bar, schedule.beta
    assert alpha_bar.dtype == torch.float64 and alpha_bar.shape == (schedule.T + 1,) and alpha_bar[0] == 1
    assert alpha_bar.isfinite().all() and (alpha_bar.diff() < 0).all() and alpha_bar[-1] > 0
    assert beta[0] == 0 and (beta[1:] > 0).all() and (beta < 1).all()
    assert schedule.snr[0] == math.inf and schedule.snr[1:].isfinite().all() and (schedule.snr[1:].diff() < 0).all()
    assert schedule.log_snr[0] == math.inf and schedule.log_snr[1:].isfinite().all()


@given(schedules, st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_every_coefficient_is_formed_in_float64_and_rounded_once(schedule, dtype):
    """signal(t) and noise(t) at all times: the numbers nearest to √ᾱ_t and √(1-ᾱ_t) in x's type, finite, within 0 … 1, and no noise at t = 0."""
    t, x = torch.arange(schedule.T + 1), torch.ones(schedule.T + 1, 1, dtype=dtype)
    for c, exact in ((schedule.signal(t, x), schedule.alpha_bar.sqrt()), (schedule.noise(t, x), (1 - schedule.alpha_bar).sqrt())):
        assert c.dtype == dtype and c.shape == (schedule.T + 1, 1) and c.isfinite().all()
        assert torch.equal(c[:, 0], exact.to(dtype)) and 0 <= c.min() and c.max() <= 1
    assert schedule.signal(0, x).item() == 1 and schedule.noise(0, x).item() == 0


@given(st.data())
def test_the_times_fall_strictly_from_T_to_0_in_S_steps(data):
    """T = τ_S > … > τ_0 = 0, S + 1 of them, as even as integers can be."""
    T = data.draw(st.integers(1, 2000))
    S = data.draw(st.integers(1, T))
    times = timesteps(T, S)
    strides = [t - s for t, s in pairwise(times)]
    assert times[0] == T and times[-1] == 0 and len(times) == S + 1
    assert min(strides) >= 1 and max(strides) - min(strides) <= 1 and all(type(t) is int for t in times)


# The algebra of x_0, x_t, ε and v.

@given(schedules, shapes, st.integers(0, 99), st.data())
def test_there_and_back_between_eps_x0_and_v(schedule, shape, seed, data):
    """[1] eq. 4 and [3] section 4, solved for each of the three, one time t ≥ 1 per image.

    In float64; solving for x_0 divides the rounding by √ᾱ_t, for ε by √(1-ᾱ_t), and v is a rotation, which divides by nothing.
    """
    t = torch.tensor(data.draw(st.lists(st.integers(1, schedule.T), min_size=shape[0], max_size=shape[0])))
    x_0, eps = randn(shape, seed), randn(shape, seed + 100)
    x_t = q_sample(schedule, x_0, eps, t)
    unit = 1e-15 * (1 + x_0.abs().max() + eps.abs().max())
    from_signal, from_noise = (4 * unit / c for c in (schedule.signal(t, x_0), schedule.noise(t, x_0)))
    assert ((x0_from_eps(schedule, x_t, eps, t) - x_0).abs() <= from_signal).all()
    assert ((eps_from_x0(schedule, x_t, x_0, t) - eps).abs() <= from_noise).all()
    for predict, allowed in (("eps", 0), ("x0", from_noise), ("v", 4 * unit)):
        assert ((to_eps(schedule, x_t, target(schedule, x_0, eps, t, predict), t, predict) - eps).abs() <= allowed).all()


@given(schedules, shapes, st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]), st.data())
def test_every_function_of_x_keeps_its_shape_and_its_type(schedule, shape, dtype, data):
    """(B, *D) in, (B, *D) out, in x's own type: no float64 coefficient leaks, whether t is one int or one per image."""
    t = data.draw(st.one_of(st.integers(1, schedule.T), st.lists(st.integers(1, schedule.T), min_size=shape[0], max_size=shape[0]).map(torch.tensor)))
    a, b, z = (randn(shape, seed, dtype) for seed in range(3))
    answers = [q_sample(schedule, a, b, t), q_step(schedule, a, b, t, 0), q_posterior(schedule, a, b, t, 0)[0], x0_from_eps(schedule, a, b, t),
               eps_from_x0(schedule, a, b, t), *(f(schedule, a, b, t, p) for f in (target, to_eps) for p in ("eps", "x0", "v"))]
    if isinstance(t, int):
        s = data.draw(st.integers(0, t - 1))
        answers += [ddpm_step(schedule, a, b, t, s, z), ddpm_step(schedule, a, b, t, s, z, "large"), ddim_step(schedule, a, b, t, s, z, eta=0.5)]
    assert all(answer.shape == shape and answer.dtype == dtype for answer in answers)


@given(moves(), st.data())
def test_two_steps_of_noising_are_one(move, data):
    """[1] eqs. 2 and 4: from 0 to r and from r to t is from 0 to t; the coefficients of x_0 multiply, and the variances add up to 1-ᾱ_t."""
    schedule, t, r = move
    x_0, first, second = column(1, 0, 0), column(0, 1, 0), column(0, 0, 1)
    on_x_0, on_first, on_second = q_step(schedule, q_sample(schedule, x_0, first, r), second, t, r).flatten().tolist()
    assert on_x_0 == pytest.approx(math.sqrt(schedule.at(t)), rel=1e-12)
    assert on_first**2 + on_second**2 == pytest.approx(1 - schedule.at(t).item(), rel=1e-12)


# Steps.

def rounding(schedule, t, s):
    return 4e-15 * (math.sqrt(schedule.at(s) / schedule.at(t)) + 1 / (1 - schedule.at(t).item()))


@pytest.mark.parametrize("step", ["ddim", "small"])
@given(move=moves(), eta=etas)
def test_with_the_true_noise_a_step_keeps_the_marginal(step, move, eta):
    """[2] Lemma 1, for any t > s: the step from x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε is √ᾱ_s x_0 + n, n ~ N(0, (1-ᾱ_s) I), for DDIM at every η and "small".

    Read off as coefficients of x_0, ε and z: no sample is drawn.  Roundings are forgiven, and what √ᾱ_t and 1-ᾱ_t in a denominator make of them.
    """
    schedule, t, s = move
    x_0, eps, z = column(1, 0, 0), column(0, 1, 0), column(0, 0, 1)
    step = partial(ddim_step, eta=eta) if step == "ddim" else ddpm_step
    on_x_0, on_eps, on_z = step(schedule, q_sample(schedule, x_0, eps, t), eps, t, s, z).flatten().tolist()
    assert abs(on_x_0 - math.sqrt(schedule.at(s))) <= rounding(schedule, t, s)
    assert abs(on_eps**2 + on_z**2 - (1 - schedule.at(s))) <= rounding(schedule, t, s)


@given(move=moves(least_s=1))
def test_large_keeps_normal_data_normal_while_there_is_noise(move):
    """[1] section 3.2: for x_0 ~ N(0, I), whose denoiser is ε* = √(1-ᾱ_t) x, a "large" step leaves Var x = 1 wherever s > 0."""
    schedule, t, s = move
    x, z = column(1, 0), column(0, 1)
    slope, sigma = ddpm_step(schedule, x, schedule.noise(t, x) * x, t, s, z, variance="large").flatten().tolist()
    assert slope**2 + sigma**2 == pytest.approx(1, abs=rounding(schedule, t, s))


@given(moves(), etas, st.integers(0, 99))
def test_a_noisier_ddim_step_only_exchanges_old_noise_for_new(move, eta, seed):
    """[2] eq. 12: σ² grows as η² and what is kept of ε shrinks, never below zero: no √ of a negative number at any η, t, s."""
    schedule, t, s = move
    x, eps, z = column(0, 0), column(1, 0), column(0, 1)
    x_t = schedule.noise(t, x) * eps                            # x_0 = 0, so that ε alone is seen
    kept, sigma = ddim_step(schedule, x_t, eps, t, s, z, eta).flatten().tolist()
    _, var = q_posterior(schedule, x, x, t, s)
    assert math.isfinite(kept) and kept >= -1e-9 and sigma == pytest.approx(eta * math.sqrt(var), rel=1e-9, abs=1e-12)


# Walks.

BIGGEST = torch.finfo(torch.float32).max
outputs = st.one_of(st.sampled_from([0.0, -0.0, 1.0, BIGGEST, -BIGGEST, 1e20, -1e20, 1e-40]), st.floats(-BIGGEST, BIGGEST, width=32))


@settings(max_examples=150)
@given(schedules, shapes, st.lists(outputs, min_size=1, max_size=8), predictions, etas, st.integers(1, 12), st.sampled_from(["ddim", "small", "large"]))
def test_with_clipping_a_walk_stays_finite_whatever_the_network_says(schedule, shape, said, predict, eta, S, step):
    """guided-diffusion #42, improved-diffusion #105: cosine divides by √ᾱ_T = 5e-5.  Clipped, every x_t is finite, and the last in [-1, 1].

    In float32, up to its rounding, for any finite answers up to the largest number that there is, other ones for every pixel and time.
    """
    numbers = torch.tensor(said)

    def net(x_t, t):
        i = torch.arange(x_t.numel()) + t[0]
        return numbers[i % len(numbers)].view(x_t.shape)

    step = {"ddim": partial(ddim_step, eta=eta), "small": ddpm_step, "large": partial(ddpm_step, variance="large")}[step]
    noise = seeded_noise(0, range(shape[0]), shape[1:])
    held = clipped(denoiser(net, schedule, predict=predict), schedule)
    states = list(sample(held, schedule, noise(schedule.T), step, min(S, schedule.T), noise=noise))
    assert all(state.x_t.isfinite().all() for state in states)
    last = states[-2]                                           # whose step to 0 gives x̂_0, read back from ε: so far ε's rounding reaches
    assert states[-1].x_t.abs().max() <= 1 + 4e-7 * last.x_t.abs().max().clamp(min=1) / schedule.signal(last.t, last.x_t)


@given(schedules, shapes, st.integers(1, 12), etas, st.integers(0, 3))
def test_image_i_comes_out_the_same_whoever_is_in_its_batch(schedule, shape, S, eta, i):
    """A sample is a function of (seed, i): alone, or with others, for every shape and walk."""
    assume(i < shape[0])
    eps, steps = denoiser(lambda x_t, t: x_t.tanh(), schedule, predict="v"), min(S, schedule.T)

    def walk(indices):
        noise = seeded_noise(7, indices, shape[1:])
        return final(sample(eps, schedule, noise(schedule.T), partial(ddim_step, eta=eta), steps, noise=noise))

    torch.testing.assert_close(walk(range(shape[0]))[i:i + 1], walk([i]), rtol=1e-4, atol=1e-4)
