"""Our schedules and samplers beside diffusers', which is an oracle here and nothing else.   `python tests/test_diffusers.py` prints every deviation.

Their times count from 0 and ours from 1, so their alphas_cumprod[t-1] is our ᾱ_t.  Walks are compared at every state, from equal noise, in
float64 and with our table in their scheduler: what is left is the steps.  How far the rounding of their own float32 takes them is measured apart.
[1] DDPM arXiv:2006.11239, [2] DDIM arXiv:2010.02502.
"""

import math
from functools import partial
from itertools import pairwise, product
from unittest import mock

import pytest
import torch

from ddpm_tutorial import (
    clipped, cosine, ddim_step, ddpm_step, denoiser, linear, q_sample, quadratic, sample, sigmoid, target, timesteps, x0_from_eps,
)

diffusers = pytest.importorskip("diffusers")
DDIMScheduler, DDPMScheduler = diffusers.DDIMScheduler, diffusers.DDPMScheduler

PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}                   # ours, theirs
STRIDE = "huggingface/diffusers #12633, #11347: DDIMScheduler.step takes s = t - T // S and not the next time of its own list"
LOUD = "DDPMScheduler.step adds noise wherever its t > 0, so also in the last step of a walk that does not end at its t = 0"


# Two walks from equal noise.

def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network(schedule, predict):
    """Something to walk with: the exact denoiser of N(1.1, 0.4²), most of whose data lie beyond 1, read as ε, x_0 or v."""
    def net(x_t, t):
        a = schedule.at(t).item()
        eps = math.sqrt(1 - a) / (a * 0.4**2 + 1 - a) * (x_t - math.sqrt(a) * 1.1)
        return target(schedule, x0_from_eps(schedule, x_t, eps, t), eps, t, predict)

    return net


def scheduler_of(kind, schedule, exact=True, predict="eps", **options):
    """Their scheduler on our betas, which it rounds to float32; exact: with our table in the place of its own."""
    scheduler = kind(num_train_timesteps=schedule.T, trained_betas=schedule.beta[1:].tolist(), prediction_type=PREDICTIONS[predict], **options)
    if exact:
        scheduler.alphas_cumprod = schedule.alpha_bar[1:]
    return scheduler


def their_walk(scheduler, net, x, **options):
    """Every x of their loop, as their pipelines write it.  DDPMScheduler draws its z inside: there, its random numbers are ours."""
    walk = [x]
    for t in scheduler.timesteps.tolist():
        z = randn(*x.shape, seed=t + 1).to(x)
        with mock.patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *args, z=z, **kwargs: z):
            noise = {"variance_noise": z} if options.get("eta") else {}
            x = scheduler.step(net(x, t + 1), t, x, **noise, **options).prev_sample
        walk.append(x)
    return torch.stack(walk)


def our_walk(schedule, net, x, step, times, predict="eps", clip=False):
    eps = denoiser(lambda x_t, t: net(x_t, int(t[0])), schedule, predict=predict)
    states = sample(clipped(eps, schedule) if clip else eps, schedule, x, step, times=times, noise=lambda t: randn(*x.shape, seed=t).to(x))
    return torch.stack([state.x_t for state in states])


def deviation(ours, theirs):
    """The largest difference at any state of two walks, in units of the larger of 1 and the walk's own size."""
    assert ours.shape == theirs.shape and theirs.isfinite().all()
    return ((ours - theirs).abs().max() / ours.abs().max().clamp(min=1)).item()


def ddpm_deviation(schedule, variance="small", clip=False, predict="eps", spacing="leading", steps=None, exact=True, dtype=torch.float64):
    net, x = network(schedule, predict), randn(6, 2).to(dtype)
    scheduler = scheduler_of(DDPMScheduler, schedule, exact, predict, variance_type=f"fixed_{variance}", clip_sample=clip, timestep_spacing=spacing)
    scheduler.set_timesteps(steps or schedule.T)
    times = [t + 1 for t in scheduler.timesteps.tolist()] + [0]
    return deviation(our_walk(schedule, net, x, partial(ddpm_step, variance=variance), times, predict, clip), their_walk(scheduler, net, x))


def ddim_deviation(schedule, eta=0.0, clip=False, predict="eps", spacing="trailing", offset=0, steps=10, exact=True, dtype=torch.float64):
    net, x = network(schedule, predict), randn(6, 2).to(dtype)
    scheduler = scheduler_of(DDIMScheduler, schedule, exact, predict, clip_sample=clip, timestep_spacing=spacing, steps_offset=offset)
    scheduler.set_timesteps(steps)
    times = [t + 1 for t in scheduler.timesteps.tolist()] + [0]
    theirs = their_walk(scheduler, net, x, eta=eta, use_clipped_model_output=True)
    return deviation(our_walk(schedule, net, x, partial(ddim_step, eta=eta), times, predict, clip), theirs)


# Schedules.

SHARED = {
    **{f"linear({T})": (linear(T), {"beta_schedule": "linear", "beta_start": 0.1 / T, "beta_end": 20 / T}) for T in (100, 1000, 2000)},
    **{f"quadratic({T})": (quadratic(T), {"beta_schedule": "scaled_linear", "beta_start": 0.1 / T, "beta_end": 20 / T}) for T in (100, 1000, 2000)},
    **{f"cosine({T})": (cosine(T), {"beta_schedule": "squaredcos_cap_v2"}) for T in (10, 100, 1000, 2000)},
}


def table_deviation(schedule, options):
    theirs = DDPMScheduler(num_train_timesteps=schedule.T, **options).alphas_cumprod
    return (theirs.double() - schedule.alpha_bar[1:]).abs().max().item()


@pytest.mark.parametrize("name", SHARED)
def test_the_shared_schedules_are_the_same_tables(name):
    """Their float32 ᾱ is ours, one place further, to 1e-6; where T is not 1000 they are told the β that ours rescales by 1000/T."""
    assert table_deviation(*SHARED[name]) < 1e-6


def test_quadratic_with_their_betas_is_stable_diffusions_schedule():
    """scaled_linear from 0.00085 to 0.012, which leaves √ᾱ_T = 0.068 of the signal: ours says so (arXiv:2305.08891 measures the harm)."""
    with pytest.warns(UserWarning, match="0.068 of the signal left"):
        ours = quadratic(1000, 0.00085, 0.012)
    assert table_deviation(ours, {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}) < 1e-6


def test_their_sigmoid_is_another_curve():
    """GeoDiff's: β, and not ᾱ, follows a sigmoid.  Two public schedules of one name, up to 0.1 apart in ᾱ and more."""
    assert table_deviation(sigmoid(1000), {"beta_schedule": "sigmoid"}) > 0.1


@pytest.mark.parametrize("make", [linear, cosine, quadratic])
def test_the_forward_process_and_v_are_theirs(make):
    """[1] eq. 4 is add_noise, and v is get_velocity: at all times at once, one per image."""
    schedule, x_0, eps, t = make(1000), randn(1000, 2), randn(1000, 2, seed=1), torch.arange(1, 1001)
    theirs = scheduler_of(DDPMScheduler, schedule)
    torch.testing.assert_close(q_sample(schedule, x_0, eps, t), theirs.add_noise(x_0, eps, t - 1), rtol=0, atol=1e-14)
    torch.testing.assert_close(target(schedule, x_0, eps, t, "v"), theirs.get_velocity(x_0, eps, t - 1), rtol=0, atol=1e-14)


# DDPM.

SHORT = {"linear": linear(100), "cosine": cosine(100), "quadratic": quadratic(100)}
ALL_STEPS = list(product(SHORT, ("small", "large"), (False, True), PREDICTIONS))


@pytest.mark.parametrize("name, variance, clip, predict", ALL_STEPS)
def test_all_steps_of_ddpm_are_theirs(name, variance, clip, predict):
    """[1] Algorithm 2 from T to 0 at every state: both variances, clipped or not, for a network of ε, x_0 or v."""
    assert ddpm_deviation(SHORT[name], variance, clip, predict) < 1e-9


@pytest.mark.parametrize("make", [linear, cosine, quadratic])
def test_a_thousand_steps_of_ddpm_are_theirs(make):
    """The papers' length, clipped, as their pipelines sample."""
    assert ddpm_deviation(make(1000), clip=True) < 1e-9


STRIDED = [(spacing, S, "small") for spacing, S in product(("leading", "trailing", "linspace"), (2, 7, 10, 30))]
STRIDED += [(spacing, S, "large") for spacing, S in product(("leading", "linspace"), (2, 7, 10, 30))]


@pytest.mark.parametrize("spacing, S, variance", STRIDED)
def test_fewer_steps_of_ddpm_are_theirs(spacing, S, variance):
    """Their DDPM looks s up in its list since #9384 (which left DDIM as it was): so it agrees on every spacing, whether S divides T or not."""
    assert ddpm_deviation(linear(100), variance, True, spacing=spacing, steps=S) < 1e-9


@pytest.mark.xfail(strict=True, raises=AssertionError, reason=LOUD)
@pytest.mark.parametrize("S", [2, 7, 10])
def test_large_variance_ends_without_noise_there_too(S):
    """[1] Algorithm 2 line 3: z = 0 in the last step.  "trailing" ends at their t = T/S - 1 > 0, and "fixed_large" adds √(1-ᾱ) z to it."""
    assert ddpm_deviation(linear(100), "large", True, spacing="trailing", steps=S) < 1e-9


def test_that_noise_is_the_whole_difference():
    """Their last image minus ours is √(1-ᾱ_τ) z at the last time τ: 10 steps of 100 leave a third of a unit of noise on it."""
    schedule, net, x = linear(100), network(linear(100), "eps"), randn(6, 2)
    scheduler = scheduler_of(DDPMScheduler, schedule, variance_type="fixed_large", clip_sample=True, timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    ours = our_walk(schedule, net, x, partial(ddpm_step, variance="large"), timesteps(100, 10), clip=True)
    theirs = their_walk(scheduler, net, x)
    torch.testing.assert_close(ours[:-1], theirs[:-1], rtol=0, atol=1e-9)
    torch.testing.assert_close(theirs[-1] - ours[-1], (1 - schedule.at(10)).sqrt() * randn(6, 2, seed=10), rtol=0, atol=1e-9)


# DDIM.

RIGHT = [("trailing", 0, S) for S in (1, 10, 50, 100)] + [("leading", 0, S) for S in (1, 7, 10, 30, 100)] + [("leading", 1, 10), ("linspace", 0, 100)]
WRONG = [("trailing", 0, S) for S in (7, 13, 30)] + [("linspace", 0, S) for S in (2, 7, 10, 50)]
ETAS = (0.0, 0.5, 1.0)
DDIM_WALKS = list(product(SHORT, ETAS, (False, True), PREDICTIONS))


@pytest.mark.parametrize("spacing, offset, S", RIGHT)
@pytest.mark.parametrize("eta", ETAS)
def test_ddim_is_theirs_where_their_stride_is_right(spacing, offset, S, eta):
    """[2] eqs. 12 and 16.  "leading" is made of the stride T // S, whatever S; "trailing" needs an S that divides T."""
    assert ddim_deviation(linear(100), eta, True, "v", spacing, offset, S) < 1e-9


@pytest.mark.parametrize("name, eta, clip, predict", DDIM_WALKS)
def test_ddim_is_theirs_for_every_prediction(name, eta, clip, predict):
    """Clipped or not, for a network of ε, x_0 or v; clipped with `use_clipped_model_output`, see below."""
    assert ddim_deviation(SHORT[name], eta, clip, predict) < 1e-9


@pytest.mark.parametrize("make", [linear, cosine, quadratic])
def test_ddim_in_50_of_a_thousand_steps_is_theirs(make):
    """What most people run: S = 50, η = 0, clipped, "trailing", which is our own spacing."""
    assert ddim_deviation(make(1000), clip=True, steps=50) < 1e-9


@pytest.mark.xfail(strict=True, raises=AssertionError, reason=STRIDE)
@pytest.mark.parametrize("spacing, offset, S", WRONG)
def test_ddim_is_theirs_on_every_spacing(spacing, offset, S):
    """It is not, today: strict, so that the day they look s up in their list is noticed here."""
    assert ddim_deviation(linear(100), 0.0, False, "eps", spacing, offset, S) < 1e-9


@pytest.mark.parametrize("spacing, offset, S", WRONG)
@pytest.mark.parametrize("eta", ETAS)
def test_where_they_differ_they_step_to_another_time_than_the_next(spacing, offset, S, eta):
    """The deviation is the stride and nothing else: each of their steps is ours to s = t - T // S, which is not the next of their own list."""
    schedule, x, eps, z = linear(100), randn(6, 2), randn(6, 2, seed=1), randn(6, 2, seed=2)
    scheduler = scheduler_of(DDIMScheduler, schedule, clip_sample=False, timestep_spacing=spacing)
    scheduler.set_timesteps(S)
    strayed = 0
    for t, following in pairwise([t + 1 for t in scheduler.timesteps.tolist()] + [0]):
        s = max(t - schedule.T // S, 0)
        theirs = scheduler.step(eps, t - 1, x, eta=eta, variance_noise=z if eta else None).prev_sample
        torch.testing.assert_close(theirs, ddim_step(schedule, x, eps, t, s, z, eta), rtol=0, atol=1e-12)
        strayed += s != following
    assert strayed >= 1


def test_clipping_x_0_alone_leaves_a_pair_that_does_not_explain_x_t():
    """Their default keeps the old ε beside the clipped x̂_0 (lucidrains PR #84, improved-diffusion #110); ours forms it anew: another image."""
    schedule, net, x = linear(100), network(linear(100), "eps"), randn(6, 2)
    scheduler = scheduler_of(DDIMScheduler, schedule, clip_sample=True, timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    ours = our_walk(schedule, net, x, ddim_step, timesteps(100, 10), clip=True)
    assert deviation(ours, their_walk(scheduler, net, x, use_clipped_model_output=True)) < 1e-9
    assert deviation(ours, their_walk(scheduler, net, x, use_clipped_model_output=False)) > 0.01


def test_clipping_does_something_in_these_walks():
    """Or the comparisons above would compare nothing: the data reach beyond ±1, and a clipped walk ends elsewhere."""
    schedule, net, x = linear(100), network(linear(100), "eps"), randn(6, 2)
    free, held = (our_walk(schedule, net, x, ddim_step, timesteps(100, 10), clip=clip) for clip in (False, True))
    assert free[-1].abs().max() > 1.2 and held[-1].abs().max() <= 1


def test_trailing_is_our_spacing():
    """Their "trailing" times, counted from 1, are `timesteps(T, S)`; where S does not divide T, a tie may be rounded the other way.

    They count down by the float T / S, and for some S, such as 61, arrive a hair above 0: one time too many, t = -1, which indexes ᾱ_T.
    """
    too_many, scheduler = [], DDIMScheduler(timestep_spacing="trailing")
    for S in range(1, 1001):
        scheduler.set_timesteps(S)
        theirs, ours = [t + 1 for t in scheduler.timesteps.tolist()], timesteps(1000, S)[:-1]
        if len(theirs) > S:
            too_many.append(S)
            assert theirs.pop() == 0
        assert theirs == ours if 1000 % S == 0 else max(abs(a - b) for a, b in zip(theirs, ours, strict=True)) <= 1
    assert 61 in too_many


# As they come: their own tables, their own float32.

AS_THEY_COME = {"linear": linear(1000), "cosine": cosine(1000), "quadratic": quadratic(1000)}


@pytest.mark.parametrize("name", AS_THEY_COME)
def test_in_float32_with_their_own_tables_they_stay_close(name):
    """Clipped, a thousand steps of DDPM and fifty of DDIM; the gap is the rounding of 1 - ᾱ_t, which they form in float32."""
    assert ddpm_deviation(AS_THEY_COME[name], clip=True, exact=False, dtype=torch.float32) < 1e-3
    assert ddim_deviation(AS_THEY_COME[name], clip=True, steps=50, exact=False, dtype=torch.float32) < 1e-3


if __name__ == "__main__":
    def worst(values):
        return f"{max(values):.1e}"

    print("| compared with diffusers", diffusers.__version__, "| largest deviation |\n|---|--:|")
    for name in ("linear", "quadratic", "cosine"):
        print(f"| ᾱ of {name} |", worst(table_deviation(*row) for key, row in SHARED.items() if key.startswith(name)), "|")
    print("| ᾱ of sigmoid, which is another curve |", worst([table_deviation(sigmoid(1000), {"beta_schedule": "sigmoid"})]), "|")
    print("| DDPM, all steps |", worst(ddpm_deviation(SHORT[n], v, c, p) for n, v, c, p in ALL_STEPS), "|")
    print("| DDPM, 1000 steps |", worst(ddpm_deviation(schedule, clip=True) for schedule in AS_THEY_COME.values()), "|")
    print("| DDPM, fewer steps |", worst(ddpm_deviation(linear(100), v, True, spacing=p, steps=S) for p, S, v in STRIDED), "|")
    print("| DDIM, where the stride is right |", worst(
        [*(ddim_deviation(linear(100), e, True, "v", *where) for where, e in product(RIGHT, ETAS)),
         *(ddim_deviation(SHORT[n], *options) for n, *options in DDIM_WALKS)]), "|")
    print("| DDIM, 50 of 1000 steps |", worst(ddim_deviation(schedule, clip=True, steps=50) for schedule in AS_THEY_COME.values()), "|")
    for spacing, _, S in WRONG:
        print(f"| DDIM, {spacing}, S = {S} of T = 100: stride for look-up |", worst([ddim_deviation(linear(100), spacing=spacing, steps=S)]), "|")
    for S in (2, 7, 10):
        deviations = [ddpm_deviation(linear(100), "large", True, spacing="trailing", steps=S)]
        print(f"| DDPM, large, trailing, S = {S} of T = 100: noise in the last step |", worst(deviations), "|")
    for name, schedule in AS_THEY_COME.items():
        print(f"| {name}, their own float32: DDPM, 1000 steps |", worst([ddpm_deviation(schedule, clip=True, exact=False, dtype=torch.float32)]), "|")
        print(f"| {name}, their own float32: DDIM, 50 steps |", worst([ddim_deviation(schedule, clip=True, steps=50, exact=False, dtype=torch.float32)]), "|")
