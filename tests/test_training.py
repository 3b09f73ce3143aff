"""The training loop and its book-keeping."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from ddpm_tutorial import DDPM, DDPMConfig, TrainConfig, TrainState, UNetConfig, cosine, resume, save, train
from ddpm_tutorial.training import draw, learning_rate

UNET = UNetConfig(channels=1, base=8, mults=(1, 2), blocks=1, attention=(), num_classes=2, groups=4)
MODEL = DDPMConfig(image_size=4, channels=1, timesteps=16, schedule="cosine", predict="v", num_classes=2, unet=UNET)
RUN = TrainConfig(steps=12, batch=4, lr=1e-2, warmup=3, ema=0.3, seed=5)
IMAGES = torch.rand(10, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
LABELS = torch.arange(10) % 2


def fresh(config=RUN):
    torch.manual_seed(0)
    return TrainState(DDPM(MODEL), config)


class Line(nn.Module):
    """The smallest network: ε = w·x_t, and a buffer that counts the calls.  At step `breaks_at` it answers infinity."""

    def __init__(self, breaks_at=None):
        super().__init__()
        self.w, self.breaks_at = nn.Parameter(torch.tensor(1.0)), breaks_at
        self.register_buffer("calls", torch.tensor(0.0))

    def forward(self, x_t, t):
        self.calls += 1
        return self.w * x_t * (math.inf if self.calls - 1 == self.breaks_at else 1)


def fresh_line(breaks_at=None, config=RUN):
    return TrainState(DDPM(replace(MODEL, num_classes=None, unet=replace(UNET, num_classes=None)), Line(breaks_at)), config)


# One run.

def test_a_resumed_run_is_the_run_that_was_never_stopped(tmp_path):
    """12 steps = 5 + save + resume + 7, bit for bit: weights, average, optimizer and losses (accelerate #4195, #3996: inexact resume)."""
    whole, parts = fresh(), fresh()
    list(train(whole, IMAGES, LABELS))
    for progress in train(parts, IMAGES, LABELS):
        if progress.step == 5:
            break
    torch.manual_seed(99)                                       # the caller's random numbers are of no consequence
    resumed = resume(save(parts, tmp_path / "checkpoint.safetensors"))
    assert resumed.step == 5 and resumed.config == RUN and resumed.model.config == MODEL
    list(train(resumed, IMAGES, LABELS))

    assert resumed.step == whole.step == 12 and resumed.losses == whole.losses
    for ours, theirs in ((resumed.model, whole.model), (resumed.ema, whole.ema)):
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values()))
    ours, theirs = resumed.optimizer.state_dict(), whole.optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert all(torch.equal(ours["state"][i][k], value) for i, moments in theirs["state"].items() for k, value in moments.items())


def test_your_own_network_and_schedule_can_be_resumed(tmp_path):
    """The schedule is in the checkpoint; the network has to be brought."""
    state = TrainState(DDPM(replace(MODEL, num_classes=None, unet=replace(UNET, num_classes=None)), Line(), cosine(9)), replace(RUN, steps=2))
    list(train(state, IMAGES))
    again = resume(save(state, tmp_path / "checkpoint.safetensors"), net=Line())
    assert torch.equal(again.model.schedule.alpha_bar, state.model.schedule.alpha_bar) and again.model.net.w == state.model.net.w


def test_saving_does_not_disturb_the_run(tmp_path):
    """A checkpoint after every step changes nothing, and leaves one whole file and no litter."""
    quiet, busy = fresh(replace(RUN, steps=4)), fresh(replace(RUN, steps=4))
    list(train(quiet, IMAGES, LABELS))
    for _ in train(busy, IMAGES, LABELS):
        save(busy, tmp_path / "checkpoint.safetensors")
    assert busy.losses == quiet.losses and [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_the_loss_falls():
    """Four images learnt by heart: the last losses are less than half of the first (the cheapest sign that the whole machine turns)."""
    state = fresh(replace(RUN, steps=150, batch=16, warmup=10))
    losses = [progress.loss for progress in train(state, IMAGES[:4], LABELS[:4])]
    assert losses == state.losses and len(losses) == 150
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:10])


def test_the_same_seed_is_the_same_run_and_another_seed_another():
    """And the global random numbers, which a notebook may have used in any order, do not matter."""
    runs = []
    for seed, noise in ((5, 1), (5, 2), (6, 1)):
        state = fresh(replace(RUN, steps=3, seed=seed))
        torch.manual_seed(noise)
        list(train(state, IMAGES, LABELS))
        runs.append(state.losses)
    assert runs[0] == runs[1] != runs[2]


def test_a_loss_that_is_not_finite_stops_the_run_before_the_average_is_touched():
    """Step, learning rate and gradient norm are named; weights and average are those of the last good step (imagen-pytorch #129)."""
    state, good = fresh_line(breaks_at=3), None
    with pytest.raises(FloatingPointError, match=r"(?s)norm.*step 3.*learning rate 0\.01"):
        for _ in train(state, IMAGES):
            good = (state.model.net.w.item(), state.ema.module.w.item(), state.step, len(state.losses))
    assert good == (state.model.net.w.item(), state.ema.module.w.item(), 3, 3)
    assert state.step == 3 and len(state.losses) == 3


def test_seconds_become_a_number_of_steps_once():
    """From the speed of the first steps; the number is stored, and from then on the run is a function of the step."""
    state = fresh_line(config=TrainConfig(steps=None, seconds=0.2, batch=2, warmup=5))
    counts = [progress.steps for progress in train(state, IMAGES)]
    known = [count for count in counts if count is not None]
    assert counts[0] is None and len(set(known)) == 1 and known[0] == state.config.steps == state.step == len(counts)


# The average.

def test_the_average_is_ema_with_a_warm_up():
    """θ̄ ← dθ̄ + (1-d)θ, d = min(0.3, (1+n)/(10+n)), from θ̄ = θ_1 on, by hand (improved-diffusion #59: without warm-up, early samples are noise)."""
    state, by_hand = fresh_line(), None
    for progress in train(state, IMAGES):
        n, theta = progress.step - 1, state.model.net.w.item()
        d = min(0.3, (1 + n) / (10 + n))
        by_hand = theta if by_hand is None else d * by_hand + (1 - d) * theta
        assert state.ema.module.w.item() == pytest.approx(by_hand, rel=1e-6)      # so the step is yielded after the average has seen it
    assert by_hand != theta and (1 + 1) / (10 + 1) < 0.3 < (1 + n) / (10 + n), "both branches of the minimum must have been used"


def test_buffers_are_copied_and_not_averaged():
    """lucidrains #136: an averaged buffer (there it was ᾱ) blackened every image."""
    state = fresh_line()
    for progress in train(state, IMAGES):
        assert state.ema.module.calls == state.model.net.calls == progress.step


def test_the_averaged_model_samples_with_the_averaged_weights():
    """Same config, same schedule, θ̄ for weights, in eval mode."""
    state = fresh(replace(RUN, steps=3))
    list(train(state, IMAGES, LABELS))
    model = state.averaged_model()
    assert model.config == MODEL and not model.training
    assert torch.equal(model.schedule.alpha_bar, state.model.schedule.alpha_bar)
    assert all(torch.equal(a, b) for a, b in zip(model.net.parameters(), state.ema.module.parameters()))
    assert any(not torch.equal(a, b) for a, b in zip(model.net.parameters(), state.model.net.parameters()))


# Everything random is a function of (seed, step).

def test_the_random_part_is_a_function_of_seed_and_step():
    """Drawn twice it is the same; another step or seed gives another; the caller's generator is left alone (torchdata #1437, #1440)."""
    before = torch.get_rng_state()
    first, again, later = (draw(step, 10, 16, (1, 4, 4), RUN) for step in (7, 7, 8))
    other = draw(7, 10, 16, (1, 4, 4), replace(RUN, seed=6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    for different in (later, other):
        assert not any(torch.equal(a, b) for a, b in zip(first[2:], different[2:]))
    index, t, eps, dropped = first
    assert index.shape == t.shape == dropped.shape == (4,) and eps.shape == (4, 1, 4, 4) and t.dtype == torch.int64


@pytest.mark.parametrize("T, batch", [(16, 8), (1000, 8), (16, 16), (3, 8), (1, 4)])
def test_times_are_uniform_from_1_to_T(T, batch):
    """DDPM Algorithm 1 line 3: each t in {1 … T} with probability 1/T, within 5 standard errors; both ends are drawn."""
    steps = 1000
    t = torch.cat([draw(step, 10, T, (1,), replace(RUN, batch=batch))[1] for step in range(steps)])
    assert t.min() >= 1 and t.max() <= T
    n, bins = len(t), min(T, 8)
    counts = ((t - 1) * bins // T).bincount(minlength=bins).double()
    share = torch.tensor([((torch.arange(T) * bins // T) == k).double().mean() for k in range(bins)], dtype=torch.float64)
    assert ((counts - n * share).abs() <= 5 * (n * share * (1 - share)).sqrt()).all()
    if T <= 16:
        assert t.unique().tolist() == list(range(1, T + 1))


def test_times_are_spread_evenly_within_a_batch():
    """One t from each of B equal parts of 1 … T: the loss of a batch varies less, and its mean is the same."""
    for step in range(50):
        t = draw(step, 10, 1000, (1,), replace(RUN, batch=8))[1]
        assert sorted(((t - 1) * 8 // 1000).tolist()) == list(range(8))


def test_logit_normal_times_are_the_sigmoid_of_a_normal():
    """Esser et al. (2403.03206) section 3.1, with standard deviation 1.2: P(t/T ≤ sigmoid(1.2 z)) = Φ(z).

    Drawn evenly, so that one batch hits it to 1/B and a bin of t.
    """
    t = draw(0, 10, 1000, (1,), replace(RUN, batch=1000, times="logit-normal"))[1].double() / 1000
    for z in (-2.0, -1.0, 0.0, 0.5, 1.5):
        share = (t <= 1 / (1 + math.exp(-1.2 * z))).double().mean().item()
        assert abs(share - 0.5 * (1 + math.erf(z / math.sqrt(2)))) < 0.003
    assert t.min() > 0 and t.max() <= 1
    with pytest.raises(ValueError, match=r"(?s)normal.*uniform or logit-normal"):
        replace(RUN, times="normal")


def test_the_noise_and_the_dropping_numbers_are_what_they_claim():
    """ε ~ N(0, I) and u ~ U[0, 1), within 5 standard errors, and unrelated from step to step."""
    draws = [draw(step, 10, 16, (5,), RUN) for step in range(500)]
    eps, u = torch.stack([d[2] for d in draws]).double(), torch.stack([d[3] for d in draws]).double()
    assert abs(eps.mean().item()) < 5 / math.sqrt(eps.numel()) and abs(eps.var().item() - 1) < 5 * math.sqrt(2 / eps.numel())
    assert abs((eps[1:] * eps[:-1]).mean().item()) < 5 / math.sqrt(eps[1:].numel())
    assert 0 <= u.min() and u.max() < 1 and abs(u.mean().item() - 0.5) < 5 * math.sqrt(1 / 12 / u.numel())


@pytest.mark.parametrize("N, batch", [(10, 4), (12, 4), (3, 8), (7, 7)])
def test_every_epoch_sees_every_image_once(N, batch):
    """The batches read one permutation after another, across their ends, and no two epochs have the same order."""
    config = replace(RUN, batch=batch)
    index = torch.cat([draw(step, N, 16, (1,), config)[0] for step in range(6 * N // batch + 1)])
    epochs = index[:6 * N].view(6, N)
    assert (epochs.sort(1).values == torch.arange(N)).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 1


# The learning rate.

def test_the_learning_rate_warms_up_and_comes_down_along_a_cosine():
    """lr·(step+1)/warmup, then lr·½(1 + cos πu) for u from 0 on, towards 0 at the end; it never rises again."""
    config = TrainConfig(steps=100, lr=0.5, warmup=10)
    rates = [learning_rate(step, config) for step in range(100)]
    np.testing.assert_allclose(rates[:10], [0.05 * k for k in range(1, 11)], rtol=1e-12)
    np.testing.assert_allclose(rates[10:], [0.25 * (1 + math.cos(math.pi * k / 90)) for k in range(90)], rtol=1e-9)
    assert max(rates) == 0.5 and rates[-1] < 1e-3 and all(a >= b for a, b in pairwise(rates[9:]))


def test_the_learning_rate_reaches_the_optimizer():
    """What is reported is what was used; before the number of steps is known, it only warms up."""
    state = fresh_line()
    for progress in train(state, IMAGES):
        assert progress.lr == learning_rate(progress.step - 1, RUN) == state.optimizer.param_groups[0]["lr"]
    assert [learning_rate(step, TrainConfig(steps=None, lr=1.0, warmup=4)) for step in (0, 1, 3, 4, 50)] == [0.25, 0.5, 1.0, 1.0, 1.0]
