"""Functions that bend a denoiser.  [1] Dhariwal, Nichol arXiv:2105.05233, [2] Ho, Salimans arXiv:2207.12598."""

import math

import pytest
import torch

from ddpm_tutorial import (
    Mixture, classifier, classifier_free, clipped, cosine, ddim_step, ddpm_step, denoiser, final, known, linear, q_posterior, sample, within, x0_from_eps,
)
from ddpm_tutorial.guidance import DOUBLE_UP_TO

SCHEDULE = cosine(100)
MIXTURE = Mixture(
    means=[[0.0, 1.0], [1.0, 0.0], [-1.0, -0.5], [0.3, 0.3]], labels=torch.tensor([0, 1, 0, 2]), weights=torch.tensor([1.0, 2.0, 3.0, 0.5]),
    cov=torch.tensor([[[0.30, 0.10], [0.10, 0.20]], [[0.05, 0.0], [0.0, 0.4]], [[0.1, -0.05], [-0.05, 0.1]], [[0.02, 0.0], [0.0, 0.01]]]))


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Classifier-free guidance.

class Counting:
    """A denoiser with a constant answer that counts its calls."""

    def __init__(self, answer):
        self.answer, self.calls = answer, 0

    def __call__(self, x_t, t):
        self.calls += 1
        return self.answer


def test_scale_0_is_unconditional_and_scale_1_conditional():
    """[2] eq. 6 with scale = 1 + w: not "about" the one denoiser but the very same object, one network call a step (lucidrains #155, labml #177)."""
    cond, uncond = Counting(randn(2, 3)), Counting(randn(2, 3, seed=1))
    assert classifier_free(cond, uncond, 1) is cond and classifier_free(cond, uncond, 1.0) is cond
    assert classifier_free(cond, uncond, 0) is uncond and classifier_free(cond, uncond, 0.0) is uncond


@pytest.mark.parametrize("scale", [-1.0, 0.25, 0.999, 1.5, 2, 7.5])
def test_guidance_is_a_line_through_the_two_answers(scale):
    """[2] eq. 6: ε̂ = ε_∅ + scale·(ε_y - ε_∅), from one call of each."""
    cond, uncond = Counting(randn(2, 3)), Counting(randn(2, 3, seed=1))
    out = classifier_free(cond, uncond, scale)(randn(2, 3, seed=2), 5)
    torch.testing.assert_close(out, uncond.answer + scale * (cond.answer - uncond.answer), atol=1e-13, rtol=1e-13)
    assert (cond.calls, uncond.calls) == (1, 1)


def test_guidance_changes_every_channel():
    """DiT #41: a left-over from GLIDE guided only three of the channels, and was copied into four other projects."""
    cond, uncond = Counting(randn(2, 4, 3, 3)), Counting(randn(2, 4, 3, 3, seed=1))
    difference = classifier_free(cond, uncond, 2.0)(randn(2, 4, 3, 3, seed=2), 5) - cond.answer
    assert (difference.abs().amin(dim=(0, 2, 3)) > 0).all()


@pytest.mark.parametrize("predict", ["eps", "x0", "v"])
@pytest.mark.parametrize("t", [7, torch.tensor(7), torch.tensor([1, 7, 100])])
def test_one_network_asked_for_two_labels_answers_as_if_asked_twice(t, predict):
    """Both halves may go through the network in one doubled batch: the same numbers, and each image is shown to it twice and no more."""
    asked = []

    def net(x_t, times, y):
        asked.append(len(x_t))
        return (times / 100 + y).view(-1, 1) * x_t

    x, y, null = randn(3, 2), torch.tensor([0, 1, 2]), torch.full((3,), 5)
    cond, uncond = (denoiser(net, SCHEDULE, labels, predict) for labels in (y, null))
    expected = uncond(x, t) + 2.5 * (cond(x, t) - uncond(x, t))
    asked.clear()
    torch.testing.assert_close(classifier_free(cond, uncond, 2.5)(x, t), expected, atol=1e-12, rtol=1e-12)
    assert sum(asked) == 6


def affine(x_t, times, y=None):
    """A network whose answer depends on everything that it is told."""
    return (times / 100 + (0.5 if y is None else y)).view(-1, 1) * x_t


@pytest.mark.parametrize("n, asked", [(1, [2]), (DOUBLE_UP_TO, [2 * DOUBLE_UP_TO]), (DOUBLE_UP_TO + 1, [DOUBLE_UP_TO + 1] * 2)])
def test_few_images_go_in_one_doubled_batch_and_many_in_two(n, asked):
    """Whichever is faster on a CPU; the answer is the same."""
    seen = []

    def net(x_t, times, y):
        seen.append(len(x_t))
        return affine(x_t, times, y)

    x, y = randn(n, 2), torch.arange(n) % 5
    cond, uncond = denoiser(net, SCHEDULE, y), denoiser(net, SCHEDULE, torch.full((n,), 5))
    out = classifier_free(cond, uncond, 2.5)(x, 7)
    assert seen == asked
    torch.testing.assert_close(out, uncond(x, 7) + 2.5 * (cond(x, 7) - uncond(x, 7)), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("other", [
    {"net": lambda x_t, times, y=None: 2 * affine(x_t, times, y)}, {"schedule": linear(100)}, {"predict": "v"}, {"y": None}, None],
    ids=["another network", "another chain", "another prediction", "no label", "no network"])
@pytest.mark.parametrize("turned", [False, True])
def test_what_is_not_one_network_asked_twice_is_not_doubled(other, turned):
    """Another network, chain or prediction, no label, or no network at all: each is asked for itself, with its own x_t and t."""
    one = {"net": affine, "schedule": SCHEDULE, "y": torch.tensor([0, 1, 2]), "predict": "eps"}
    pair = [denoiser(**one), MIXTURE.denoiser(SCHEDULE) if other is None else denoiser(**one | other)]
    (cond, uncond), x, t = reversed(pair) if turned else pair, randn(3, 2), torch.tensor([1, 7, 100])
    expected = uncond(x, t) + 2.5 * (cond(x, t) - uncond(x, t))
    torch.testing.assert_close(classifier_free(cond, uncond, 2.5)(x, t), expected, atol=1e-10, rtol=1e-10)


# Classifier guidance.

@pytest.mark.parametrize("t", [1, 2, 17, 50, 100])
@pytest.mark.parametrize("y", [0, 1, 2, torch.tensor([0, 1, 2, 2, 1, 0])])
def test_classifier_guidance_at_scale_1_is_bayes_rule(t, y):
    """[1] Algorithm 2: ∇ log q(x|y) = ∇ log q(x) + ∇ log p(y|x), so on an exact mixture it is the conditional denoiser itself."""
    x = 1.5 * randn(6, 2)
    guided = classifier(MIXTURE.denoiser(SCHEDULE), MIXTURE.log_prob(SCHEDULE, y), SCHEDULE, 1.0)
    torch.testing.assert_close(guided(x, t), MIXTURE.denoiser(SCHEDULE, y)(x, t), atol=1e-9, rtol=1e-9)


def test_classifier_guidance_takes_its_gradient_at_x_t():
    """[1] Algorithm 2: ε̂ = ε - √(1-ᾱ_t)·scale·∇ log p, with log p = -‖x - c‖²/2 by hand (guided-diffusion #51: gradient elsewhere)."""
    x, c, a = randn(6, 2), torch.tensor([1.0, -2.0], dtype=torch.float64), SCHEDULE.alpha_bar[30].item()
    parts = (lambda x, t: 0.1 * x, lambda x, t: -(x - c).square().sum(1) / 2, SCHEDULE)
    for scale, guided in ((3, classifier(*parts, 3.0)), (1, classifier(*parts))):
        torch.testing.assert_close(guided(x, 30), 0.1 * x + scale * math.sqrt(1 - a) * (x - c), atol=1e-13, rtol=1e-13)


def test_each_image_of_a_batch_is_guided_by_its_own_time():
    """t may be (B,): the same as one call per image."""
    guided, x, t = classifier(MIXTURE.denoiser(SCHEDULE), MIXTURE.log_prob(SCHEDULE, 1), SCHEDULE, 2.0), randn(3, 2), torch.tensor([1, 40, 100])
    whole = guided(x, t)
    for i in range(3):
        torch.testing.assert_close(whole[i:i + 1], guided(x[i:i + 1], int(t[i])), atol=1e-12, rtol=1e-12)


def test_guidance_and_clipping_keep_the_type_and_leak_no_graph():
    """Also inside `sample`, which switches autograd off: the gradient of the classifier must still be taken."""
    x, eps = randn(4, 2).float(), MIXTURE.denoiser(SCHEDULE)
    bent = clipped(classifier(eps, MIXTURE.log_prob(SCHEDULE, 0), SCHEDULE, 2.0), SCHEDULE)
    assert bent(x, 7).dtype == torch.float32 and not bent(x, 7).requires_grad and not x.requires_grad
    with torch.no_grad():
        inside = bent(x, 7)
    assert torch.equal(inside, bent(x, 7))
    assert [state.x_t.dtype for state in sample(bent, SCHEDULE, x, steps=3)] == [torch.float32] * 4


# Clipping.

def tolerance(schedule, x, t):
    """Rounding of ε to float32, seen through the division by √ᾱ_t."""
    return 4e-7 * x.abs().clamp(min=1) / math.sqrt(schedule.alpha_bar[t].item())


@pytest.mark.parametrize("schedule", [linear(1000), cosine(1000)])
@pytest.mark.parametrize("t", [1, 10, 500, 999, 1000])
def test_a_clipped_denoiser_sees_data_within_the_range_and_still_explains_x_t(schedule, t):
    """ε is formed anew from the clamped x̂_0, so √ᾱ x̂_0 + √(1-ᾱ) ε = x_t: lucidrains PR #84, improved-diffusion #110 kept the old ε."""
    x = 2 * randn(64, 3).float()
    answer = randn(64, 3, seed=1).float()
    eps, a = clipped(lambda x, t: answer, schedule)(x, t), schedule.alpha_bar[t].item()
    unclipped = (x.double() - math.sqrt(1 - a) * answer.double()) / math.sqrt(a)
    assert (unclipped.abs() > 1).any(), "this test needs something to clip"
    assert ((x0_from_eps(schedule, x, eps, t) - unclipped.clamp(-1, 1)).abs() <= tolerance(schedule, x, t)).all()
    assert ((math.sqrt(a) * unclipped.clamp(-1, 1) + math.sqrt(1 - a) * eps - x).abs() <= 4e-7 * x.abs().clamp(min=1)).all()


@pytest.mark.parametrize("t", [1, 10, 500, 1000])
def test_inside_the_range_clipping_changes_nothing_but_rounding(t):
    """A model whose x̂_0 lies in [-1, 1] is left alone."""
    schedule, x_0, eps = linear(1000), randn(8, 3).tanh(), randn(8, 3, seed=1)
    a = schedule.alpha_bar[t].item()
    x_t = math.sqrt(a) * x_0 + math.sqrt(1 - a) * eps
    torch.testing.assert_close(clipped(lambda x, t: eps, schedule)(x_t, t), eps, atol=1e-11, rtol=0)


@pytest.mark.parametrize("step", [ddpm_step, ddim_step])
def test_clipping_really_changes_the_step(step):
    """explainingai clamps x̂_0 and then builds the mean from the raw ε: computed but unused."""
    x, wild, z = randn(4, 2), lambda x, t: -5 * x, randn(4, 2, seed=1)
    raw, tame = (step(SCHEDULE, x, eps(x, 50), 50, 40, z) for eps in (wild, clipped(wild, SCHEDULE)))
    assert (raw - tame).abs().min() > 1e-3


@pytest.mark.parametrize("value", [1e6, -1e30, math.inf])
def test_a_wild_network_is_kept_finite(value):
    """1/√ᾱ_T = 2·10⁴ for cosine: without clipping the first step explodes (guided-diffusion #42, improved-diffusion #105)."""
    schedule, x = cosine(1000), randn(4, 2).float()
    states = list(sample(clipped(lambda x, t: torch.full_like(x, value), schedule), schedule, x, steps=50))
    assert all(state.x_t.isfinite().all() and state.x_t.abs().max() < 10 for state in states)
    assert states[-1].x_t.abs().max() <= 1 + 1e-4


def test_the_range_can_be_chosen():
    """Data in [0, 2], say: low and high are the clamp's."""
    schedule, x = cosine(100), 5 * randn(50, 2)
    eps = clipped(lambda x, t: 0 * x, schedule, low=0.0, high=2.0)
    x_0 = x0_from_eps(schedule, x, eps(x, 3), 3)
    assert x_0.min().item() == pytest.approx(0, abs=1e-9) and x_0.max().item() == pytest.approx(2)


# Algorithm 1 of [1], beside Algorithm 2.

def test_moving_the_mean_of_a_step_is_not_the_exact_conditional_and_bending_epsilon_is():
    """[1] Algorithm 1 shifts the mean by Σ∇log p(y|μ).

    On an exact mixture the ε-form is the conditional's step to rounding; the shifted mean is off by hundredths.
    """
    schedule, t, s, y, x = cosine(1000), 400, 300, 1, randn(200, 2)
    uncond, cond = MIXTURE.denoiser(schedule), MIXTURE.denoiser(schedule, y)
    log_prob = MIXTURE.log_prob(schedule, y)

    def mean_and_variance(eps):
        return q_posterior(schedule, x, x0_from_eps(schedule, x, eps, t), t, s)

    exact, variance = mean_and_variance(cond(x, t))
    bent, _ = mean_and_variance(classifier(uncond, log_prob, schedule)(x, t))
    torch.testing.assert_close(bent, exact, rtol=0, atol=1e-12)
    mu, _ = mean_and_variance(uncond(x, t))
    at = mu.detach().requires_grad_()
    grad, = torch.autograd.grad(log_prob(at, s).sum(), at)
    off = (mu + variance * grad - exact).norm(dim=1)
    assert 0.01 < off.median() < 0.2, off.median()


# In an interval.

def test_within_an_interval_one_denoiser_answers_and_outside_the_other():
    """Both ends belong to it, and for an int only one of the two is asked."""
    inside, outside = Counting(1.0), Counting(2.0)
    bent, x = within(inside, outside, 20, 40), randn(3, 2)
    assert [bent(x, t) for t in (19, 20, 40, 41)] == [2.0, 1.0, 1.0, 2.0] and (inside.calls, outside.calls) == (2, 2)


def test_within_an_interval_each_image_has_its_own_time():
    """A batch at several times gets each image's own answer, as the images would alone."""
    bent = within(lambda x, t: x + 1, lambda x, t: x - 1, 20, 40)
    x, t = randn(4, 2), torch.tensor([19, 20, 40, 41])
    together = bent(x, t)
    for i in range(4):
        assert torch.equal(together[i:i + 1], bent(x[i:i + 1], int(t[i])))


# Known pixels.

def test_known_pixels_come_out_as_they_are_and_the_pair_explains_x_t():
    """x̂_0 holds the known values, the others are the denoiser's, and ε belongs to that x̂_0; at the end of a walk they are exact."""
    schedule, x_0, mask = cosine(100), randn(1, 2), torch.tensor([[True, False]])
    plain, bent, x = MIXTURE.denoiser(schedule), known(MIXTURE.denoiser(schedule), schedule, x_0, mask), randn(50, 2, seed=1)
    for t in (1, 30, 100):
        guess, kept = (x0_from_eps(schedule, x, eps(x, t), t) for eps in (plain, bent))
        torch.testing.assert_close(kept[:, 0], x_0[:, 0].expand(50), rtol=1e-9, atol=1e-9 / schedule.alpha_bar[t].sqrt().item())
        torch.testing.assert_close(kept[:, 1], guess[:, 1], rtol=1e-9, atol=1e-9 / schedule.alpha_bar[t].sqrt().item())
    for step in (ddim_step, ddpm_step):
        walked = final(sample(bent, schedule, x, step, steps=20, noise=lambda t: randn(50, 2, seed=t)))
        torch.testing.assert_close(walked[:, 0], x_0[:, 0].expand(50), rtol=0, atol=1e-12)


@pytest.mark.parametrize("step, mean, std", [(ddim_step, 0.670, 0.72), (ddpm_step, 0.94, 0.60)], ids=["ddim", "ddpm"])
def test_filling_in_is_not_the_exact_conditional_and_by_how_much(step, mean, std):
    """Two numbers with correlation 0.9, the first known to be 1.5: the second is N(1.35, 0.44²), and comes out further from it and wider.

    By as much as the docstring says.
    """
    schedule = cosine(1000)
    pair = Mixture([[0.0, 0.0]], [[[1.0, 0.9], [0.9, 1.0]]])
    bent = known(pair.denoiser(schedule), schedule, torch.tensor([[1.5, 0.0]], dtype=torch.float64), torch.tensor([[True, False]]))
    generator = torch.Generator().manual_seed(0)
    walked = final(sample(bent, schedule, randn(20_000, 2), step, steps=250, noise=lambda t: torch.randn(20_000, 2, generator=generator)))[:, 1]
    assert walked.mean().item() == pytest.approx(mean, abs=0.03) and walked.std().item() == pytest.approx(std, abs=0.02)
    assert abs(walked.mean().item() - 1.35) > 0.3 and walked.std().item() > 1.2 * math.sqrt(1 - 0.9**2)


# A weak model as the one to go away from.

def test_autoguidance_is_the_same_line_and_sharpens_where_the_weak_model_is_wider():
    """Karras et al.: good + (scale-1)(good - weak).  Weak: the same mixture seen through more blur.

    Guided samples lie closer to the means than the good model's own.
    """
    schedule, x = cosine(1000), randn(2000, 2)
    good = Mixture([[1.0, 0.0], [-1.0, 0.0]], 0.04).denoiser(schedule)
    weak = Mixture([[1.0, 0.0], [-1.0, 0.0]], 0.16).denoiser(schedule)
    spread = {}
    for scale in (0.0, 1.0, 2.0):
        ends = final(sample(classifier_free(good, weak, scale), schedule, x, steps=50))
        spread[scale] = (ends - torch.stack([ends[:, 0].sign(), torch.zeros(2000)], 1)).square().mean().sqrt().item()
    assert spread[0.0] == pytest.approx(0.4, rel=0.1) and spread[1.0] == pytest.approx(0.2, rel=0.1) and spread[2.0] < 0.75 * spread[1.0], spread
