"""The tables.  [1] DDPM arXiv:2006.11239, [2] improved DDPM arXiv:2102.09672, [3] Jabri et al. arXiv:2212.11972, [4] latent diffusion arXiv:2112.10752."""

import math
import warnings

import numpy as np
import pytest
import torch

from ddpm_tutorial import Schedule, cosine, flow, from_betas, linear, quadratic, sigmoid

ALL = [linear, cosine, sigmoid, quadratic, flow]
LENGTHS = [1, 2, 3, 10, 50, 1000, 2000]


def linear_betas(T):
    """[1] section 4, written with a loop: β_1 = 1e-4 … β_T = 0.02, times 1000/T."""
    return np.array([min(0.999, (1e-4 + (0.02 - 1e-4) * (t - 1) / (T - 1)) * 1000 / T) for t in range(1, T + 1)])


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("make", ALL)
def test_a_schedule_is_one_decreasing_sequence_from_exactly_1(make, T):
    """1 = ᾱ_0 > ᾱ_1 > … > ᾱ_T > 0, in float64.  Every table has an entry for t = 0 (lucidrains #18: a hand-padded one was shifted)."""
    alpha_bar = make(T).alpha_bar
    assert alpha_bar.dtype == torch.float64 and alpha_bar.shape == (T + 1,) and make(T).T == T
    assert alpha_bar[0] == 1
    assert (alpha_bar[1:] < alpha_bar[:-1]).all() and alpha_bar[-1] > 0


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("make", ALL)
def test_alpha_bar_is_the_cumulative_product_of_the_betas(make, T):
    """[1] above eq. 4: ᾱ_t = ∏(1-β_s), also after β was capped; β finite and in (0, 1) (MONAI GenerativeModels #489: NaN)."""
    schedule = make(T)
    beta = schedule.beta.numpy()
    assert beta.shape == (T + 1,) and beta[0] == 0
    assert (beta[1:] > 0).all() and (beta[1:] <= 0.999 + 1e-12).all()
    np.testing.assert_allclose(np.cumprod(1 - beta), schedule.alpha_bar, rtol=1e-11)


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("make", ALL)
def test_every_schedule_of_every_length_ends_in_noise(make, T):
    """√ᾱ_T < 0.05, so that sampling may start from N(0, I), and nobody is warned."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = make(T)
    assert math.sqrt(schedule.alpha_bar[-1]) < 0.05


def test_linear_has_the_papers_betas_at_1000():
    """[1] section 4: "constants increasing linearly from β_1 = 1e-4 to β_T = 0.02"."""
    beta = linear(1000).beta[1:]
    assert beta[0].item() == pytest.approx(1e-4, rel=1e-10) and beta[-1].item() == pytest.approx(0.02, rel=1e-10)
    np.testing.assert_allclose(beta, linear_betas(1000), rtol=1e-9)


@pytest.mark.parametrize("T", [50, 200, 500, 2000])
def test_other_lengths_rescale_beta_by_1000_over_T(T):
    """As improved-diffusion does; without it T = 50 ends with ᾱ_T = 0.603, as in tiny-diffusion."""
    np.testing.assert_allclose(linear(T).beta[1:], linear_betas(T), rtol=1e-9)
    root = np.array([math.sqrt(1e-4) + (math.sqrt(0.02) - math.sqrt(1e-4)) * (t - 1) / (T - 1) for t in range(1, T + 1)])
    np.testing.assert_allclose(quadratic(T).beta[1:], root**2 * 1000 / T, rtol=1e-9)


def test_quadratic_is_linear_in_the_root_of_beta():
    """[4], "scaled linear": the differences of √β_t are all equal, and the ends are DDPM's."""
    root = quadratic(1000).beta[1:].sqrt()
    np.testing.assert_allclose(root.diff(), (math.sqrt(0.02) - math.sqrt(1e-4)) / 999, rtol=1e-6)
    assert root[0].item() == pytest.approx(0.01) and root[-1].item() == pytest.approx(math.sqrt(0.02))


@pytest.mark.parametrize("T", [10, 50, 1000])
def test_cosine_is_the_papers_curve_but_for_the_capped_last_step(T):
    """[2] eq. 17: ᾱ_t = f(t)/f(0), f(t) = cos²((t/T+s)/(1+s)·π/2).  Guards lilianweng #9, which forgot the square."""
    def f(t):
        return math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2

    alpha_bar = cosine(T).alpha_bar
    np.testing.assert_allclose(alpha_bar[:T], [f(t) / f(0) for t in range(T)], rtol=1e-10)
    assert (alpha_bar[T] / alpha_bar[T - 1]).item() == pytest.approx(1 - 0.999, rel=1e-9)


def test_cosine_caps_exactly_one_beta_at_1000():
    """[2] section 3.2: β_t ≤ 0.999, "to prevent singularities at the end of the diffusion process near t = T"."""
    assert (cosine(1000).beta > 0.999 - 1e-9).nonzero().flatten().tolist() == [1000]


@pytest.mark.parametrize("start, end, tau", [(-3, 3, 1), (0, 3, 0.7)])
def test_sigmoid_is_the_papers_curve_but_for_the_capped_last_step(start, end, tau):
    """[3]: γ(t) = (σ(end/τ) - σ((start+(end-start)t)/τ)) / (σ(end/τ) - σ(start/τ))."""
    def s(u):
        return 1 / (1 + math.exp(-u / tau))

    T = 100
    gamma = [(s(end) - s(start + (end - start) * t / T)) / (s(end) - s(start)) for t in range(T)]
    np.testing.assert_allclose(sigmoid(T, start, end, tau).alpha_bar[:T], gamma, rtol=1e-10)


@pytest.mark.parametrize("T", [10, 1000])
def test_flow_has_the_signal_to_noise_ratio_of_the_straight_path(T):
    """Lipman et al.: (1-u) x_0 + u ε has SNR ((1-u)/u)², u = t/T, but for the last step, which is capped like the others' (u = 1 would leave no signal)."""
    schedule = flow(T)
    u = np.arange(1, T) / T
    np.testing.assert_allclose(schedule.snr[1:T], ((1 - u) / u) ** 2, rtol=1e-9)
    assert schedule.beta[T].item() == pytest.approx(0.999, rel=1e-9)


@pytest.mark.parametrize("T, said", [(50, "0.776"), (200, "0.364")])
def test_betas_that_were_not_rescaled_are_warned_about_with_the_number(T, said):
    """√ᾱ_T of the signal is left at the end (tiny-diffusion's default T = 50): the reader is told how much."""
    beta = torch.linspace(1e-4, 0.02, T)
    left = math.sqrt(math.prod(1 - b for b in beta.tolist()))
    assert f"{left:.3f}" == said
    with pytest.warns(UserWarning, match=f"√ᾱ_T = {said}"):
        from_betas(beta)


@pytest.mark.parametrize("make", ALL)
def test_snr_is_signal_over_noise(make):
    """λ_t = log(ᾱ_t/(1-ᾱ_t)), falling, and infinite at t = 0."""
    schedule = make(100)
    a = schedule.alpha_bar.numpy()[1:]
    assert schedule.snr[0] == math.inf and schedule.log_snr[0] == math.inf
    np.testing.assert_allclose(schedule.snr[1:], a / (1 - a), rtol=1e-12)
    np.testing.assert_allclose(schedule.log_snr[1:], np.log(a) - np.log(1 - a), rtol=1e-9, atol=1e-12)
    assert (schedule.log_snr.diff() < 0).all()


@pytest.mark.parametrize("make", ALL)
def test_signal_and_noise_lie_on_a_circle(make):
    """[1] eq. 4: (√ᾱ_t)² + (√(1-ᾱ_t))² = 1, the variance is preserved."""
    schedule, x, t = make(100), torch.zeros(101, 1, dtype=torch.float64), torch.arange(101)
    signal, noise = schedule.signal(t, x), schedule.noise(t, x)
    np.testing.assert_allclose(signal**2 + noise**2, 1, rtol=1e-14)
    np.testing.assert_allclose(signal[:, 0], schedule.alpha_bar.sqrt(), rtol=1e-15)


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 3, 8, 8)])
def test_coefficients_are_shaped_to_multiply_the_batch(shape):
    """An int gives (1, 1, …), times (B,) give (B, 1, …): never a (B,) that would broadcast over the last axis."""
    schedule, x, ones = linear(10), torch.zeros(shape), [1] * (len(shape) - 1)
    for coefficient in (schedule.signal, schedule.noise):
        assert coefficient(3, x).shape == (1, *ones)
        assert coefficient(torch.tensor(3), x).shape == (1, *ones)
        assert coefficient(torch.tensor([1, 2, 3, 4]), x).shape == (4, *ones)
        assert coefficient(torch.tensor([3]), x).shape == (1, *ones)            # one time for all of them, as a tensor
    assert [schedule.at(t) for t in (0, 3, 10)] == schedule.alpha_bar[[0, 3, 10]].tolist()
    assert schedule.at(np.int64(3)) == schedule.alpha_bar[3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_coefficients_have_the_type_of_the_image(dtype):
    """So that a float32 image is not promoted to float64 (pytorch #122602: Apple GPUs have none)."""
    x = torch.zeros(1, 2, dtype=dtype)
    assert linear(10).signal(3, x).dtype == linear(10).noise(3, x).dtype == dtype


@pytest.mark.parametrize("t", [1, 2, 3, 4, 5])
def test_coefficients_are_formed_in_float64_and_rounded_once(t):
    """√(1-ᾱ_t) in float32 is the float32 nearest to the true value; casting ᾱ first would be off in the fourth digit at t = 1."""
    true = math.sqrt(-math.expm1(sum(math.log1p(-b) for b in linear_betas(1000)[:t])))
    assert linear(1000).noise(t, torch.zeros(1)).item() == np.float32(true)
    cast_first = np.sqrt(np.float32(1) - np.float32(1 - linear_betas(1000)[0]))
    assert abs(cast_first / math.sqrt(1e-4) - 1) > 5e-5


def test_a_schedule_can_be_any_decreasing_sequence():
    """The four curves are only names: 1, 0.5, 0.001 is a diffusion of two steps."""
    schedule = Schedule(torch.tensor([1, 0.5, 0.001], dtype=torch.float64))
    assert schedule.T == 2
    np.testing.assert_allclose(schedule.beta, [0, 0.5, 0.998], rtol=1e-12)


@pytest.mark.parametrize("make, theirs", [(linear, "linear"), (quadratic, "scaled_linear"), (cosine, "squaredcos_cap_v2")])
def test_tables_equal_diffusers(make, theirs):
    """Our t is diffusers' t-1: alphas_cumprod[t-1] = ᾱ_t."""
    pytest.importorskip("diffusers")
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule=theirs, beta_start=1e-4, beta_end=0.02)
    np.testing.assert_allclose(make(1000).alpha_bar[1:], scheduler.alphas_cumprod.double(), atol=1e-6)


@pytest.mark.parametrize("t", [-1, 11, torch.tensor([1, -1]), torch.tensor([11])], ids=str)
def test_times_outside_the_chain_are_refused(t):
    """A negative index would count from the noisy end, silently."""
    with pytest.raises(ValueError, match="0 … "):
        linear(10).at(t)
