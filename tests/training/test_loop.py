"""The training loop: one run, however it is cut into processes' shares, micro-batches and sittings."""

import copy
import math
import threading
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from tiny import IMAGES, LABELS, MODEL, PIXELS, RUN, UNLABELLED, Line, assert_same, fresh, fresh_line, tensors
from ddpm_tutorial import DDPM, Schedule, TrainConfig, TrainState, data, train
from ddpm_tutorial.training import best_precision, draw, gradient, learning_rate


# One run.

def test_the_loss_falls():
    """Two images learnt by heart: the last losses are less than half of the first (the cheapest sign that the whole machine turns)."""
    state = fresh(replace(RUN, steps=80, batch=16, warmup=10))
    losses = [progress.loss for progress in train(state, IMAGES[:2], LABELS[:2])]
    assert losses == state.losses and len(losses) == 80
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


def spoilt(state, at, value=math.inf):
    """The gradient of one weight is not finite in the steps `at`."""
    weight = state.model.net.conv_in.weight
    weight.register_hook(lambda grad: grad * value if state.step in at else grad)
    return weight


def test_a_gradient_that_is_not_finite_stops_the_run_too():
    """The loss may still look well: norm, step and learning rate are named, and no weight or average has seen it (pytorch #46849: clipping passes NaN on)."""
    state = fresh()
    spoilt(state, at={2}, value=math.nan)
    before = None
    with pytest.raises(FloatingPointError, match=r"(?s)loss 0\.\d+, gradient norm nan at step 2, learning rate 0\.01.*averaged weights"):
        for _ in train(state, IMAGES, LABELS):
            before = {k: v.clone() for k, v in tensors(state).items()}
    assert state.step == len(state.losses) == 2
    assert all(torch.equal(v, before[k]) for k, v in tensors(state).items())


def test_float16_skips_a_step_whose_gradient_it_cannot_hold():
    """The scaled gradient overflows: the weights stay, the scale is halved, the run goes on (PyTorch's automatic mixed precision)."""
    state = fresh(replace(RUN, precision="float16"))
    weight, scale, kept = spoilt(state, at={0, 2}), [], []
    before = weight.detach().clone()
    for progress in train(state, IMAGES, LABELS):
        assert math.isfinite(progress.grad_norm) == (progress.step not in (1, 3))
        scale.append(state.scaler.get_scale())
        kept.append(torch.equal(weight, before))
        before = weight.detach().clone()
    assert kept == [True, False, True] + 9 * [False] and scale == 2 * [2.0**15] + 10 * [2.0**14]
    assert all(v.isfinite().all() for v in tensors(state).values())


def test_stop_ends_the_run_after_the_step_in_progress():
    """Set between two steps or in the middle of one; taken back, the run goes on."""
    state, update = fresh_line(), AveragedModel.update_parameters
    for progress in train(state, IMAGES):
        state.stop = progress.step == 3
    assert state.step == 3 and list(train(state, IMAGES)) == []
    state.stop = False

    def during(self, net):
        state.stop = True
        update(self, net)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AveragedModel, "update_parameters", during)
        list(train(state, IMAGES))
    assert state.step == 4


def test_a_stop_that_comes_while_the_gpu_is_waited_for_is_not_lost(monkeypatch):
    """Most of a GPU's step is that wait, so most signals come then: what was asked before it must not overwrite it."""
    state, gathered = fresh_line(), gradient.gathered

    def waiting(x):
        told = gathered(x)
        state.stop = state.step == 2                            # the signal handler runs when the wait is over
        return told

    monkeypatch.setattr(gradient, "gathered", waiting)
    list(train(state, IMAGES))
    assert state.stop and state.step == 3


def test_seconds_become_a_number_of_steps_once():
    """From the speed of the first steps; the number is stored, and from then on the run is a function of the step."""
    state = fresh_line(config=TrainConfig(steps=None, seconds=0.2, batch=2, warmup=5))
    counts = [progress.steps for progress in train(state, IMAGES)]
    known = [count for count in counts if count is not None]
    assert counts[0] is None and len(set(known)) == 1 and known[0] == state.config.steps == state.step == len(counts)


def test_images_may_stay_uint8_in_memory():
    """transform=data.normalise is the run on normalised floats, bit for bit, in a quarter of the memory."""
    bytes_, floats = fresh(), fresh()
    pixels = data.resize(PIXELS, 4)
    list(train(bytes_, pixels, LABELS, transform=data.normalise))
    list(train(floats, data.normalise(pixels), LABELS))
    assert_same(bytes_, floats)
    with pytest.raises(ValueError, match=r"uint8.*\[-1, 1\].*data\.normalise"):
        train(fresh(), pixels, LABELS)


# Micro-batches, and memory that does not suffice.

EIGHT = replace(RUN, batch=8, lr=1e-3)


@pytest.fixture(scope="module")
def whole():
    """The run that takes its batches of 8 whole."""
    state = fresh(EIGHT)
    list(train(state, IMAGES, LABELS))
    return state


@pytest.mark.parametrize("micro", [1, 3, 4, 100])
def test_micro_batches_are_the_same_run(micro, whole):
    """8 = 3 + 3 + 2 images at a time: what the optimizer sees is the mean over the batch, not a sum or a mean of means (mlx-lm #1413, VeOmni #963)."""
    state, sizes = fresh(replace(EIGHT, micro=micro)), []
    state.model.net.register_forward_pre_hook(lambda net, args: sizes.append(len(args[0])))
    list(train(state, IMAGES, LABELS))
    assert sizes[:len(sizes) // 12] == {1: 8 * [1], 3: [3, 3, 2], 4: [4, 4], 100: [8]}[micro]
    assert_same(state, whole, tolerance=1e-5)


CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")


def cramped(state, room, error=CUDA):
    """More than `room` images at a time do not fit into memory.  → the sizes that were tried"""
    tried = []

    def forward(net, args):
        tried.append(len(args[0]))
        if len(args[0]) > room:
            raise error

    state.model.net.register_forward_pre_hook(forward)
    return tried


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_batch(whole):
    """8, 4, then 2 at a time, with the draws of the same step: the run with micro = 2 from the start, bit for bit (EuroEval #69: an automatic
    batch size that did not add gradients up instead)."""
    state, given = fresh(EIGHT), fresh(replace(EIGHT, micro=2))
    tried = cramped(state, room=3)
    list(train(state, IMAGES, LABELS))
    list(train(given, IMAGES, LABELS))
    assert tried[:6] == [8, 4, 2, 2, 2, 2] and set(tried[2:]) == {2} and state.config == given.config
    assert_same(state, given)
    assert_same(state, whole, tolerance=1e-5)


@pytest.mark.parametrize("words", ["MPS backend out of memory (MPS allocated: 9.00 GB)", "[enforce fail] DefaultCPUAllocator: can't allocate memory",
                                   "[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."])
def test_apple_and_the_cpu_say_it_in_words(words, whole):
    """Their error is a plain RuntimeError; any other one is not swallowed."""
    state = fresh(EIGHT)
    tried = cramped(state, room=4, error=RuntimeError(words))
    list(train(state, IMAGES, LABELS))
    assert tried[:3] == [8, 4, 4]
    assert_same(state, whole, tolerance=1e-5)
    cramped(state := fresh(EIGHT), room=4, error=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        list(train(state, IMAGES, LABELS))


def test_out_of_memory_in_the_middle_of_a_run_repeats_only_that_step(whole):
    """Someone else took the GPU's memory at step 5, when a half of the micro-batches was already done: no gradient is counted twice."""
    state, calls = fresh(replace(EIGHT, micro=4)), []

    def forward(net, args):
        calls.append(len(args[0]))
        if len(calls) == 12:                                    # the second half of the sixth step
            raise torch.OutOfMemoryError

    state.model.net.register_forward_pre_hook(forward)
    list(train(state, IMAGES, LABELS))
    assert calls[9:17] == [4, 4, 4, 2, 2, 2, 2, 2] and state.config.micro == 2
    assert_same(state, whole, tolerance=1e-5)


def test_when_one_image_is_too_much_the_error_says_what_to_do():
    """The weights are those of the last step that fitted."""
    state = fresh(EIGHT)
    tried = cramped(state, room=0)
    with pytest.raises(MemoryError, match=r"1 images? at a time.*smaller network"):
        list(train(state, IMAGES, LABELS))
    assert tried == [8, 4, 2, 1] and state.step == 0 and not state.losses
    assert all(p.grad is None for p in state.model.net.parameters())


# Precision.

@pytest.fixture(scope="module")
def full():
    """50 steps in float32, and the norm of the gradient at each."""
    state = fresh(replace(RUN, batch=8, steps=50, lr=3e-3))
    return state, [progress.grad_norm for progress in train(state, IMAGES, LABELS)]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_trains_like_float32(precision, full):
    """50 steps: the loss is within 5 %, and so is the norm of the gradient, which is clipped, at first.  The layers compute in half precision; weights,
    average and moments stay float32, or small updates would be lost (diffae #16: an average in float16 stands still)."""
    state, norms = full
    half, layers = fresh(replace(state.config, precision=precision)), set()
    half.model.net.conv_in.register_forward_hook(lambda layer, args, out: layers.add(out.dtype))
    half_norms = [progress.grad_norm for progress in train(half, IMAGES, LABELS)]
    assert layers == {getattr(torch, precision)} and half.losses != state.losses
    np.testing.assert_allclose(half.losses, state.losses, rtol=0.05)
    np.testing.assert_allclose(half_norms[:5], norms[:5], rtol=0.05)
    assert {v.dtype for v in tensors(half).values() if v.is_floating_point()} == {torch.float32}
    assert half.averaged_model().sample(2, 1, steps=2).dtype == torch.float32


def test_the_precision_is_chosen_for_the_device_and_kept(monkeypatch):
    """bfloat16 where it is native; float16 on older GPUs, with the scaler that it needs; else float32."""
    assert best_precision(torch.device("cpu")) in ("float32", "bfloat16") and best_precision(torch.device("mps")) == "float32"
    for native, precision in ((True, "bfloat16"), (False, "float16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, native=native: native or including_emulation)
        assert best_precision(torch.device("cuda")) == precision
    for native, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native, raising=False)
        assert best_precision(torch.device("cpu")) == precision == fresh_line(config=replace(RUN, precision=None)).config.precision
    assert [fresh_line(config=replace(RUN, precision=p)).scaler.is_enabled() for p in ("float32", "bfloat16", "float16")] == [False, False, True]
    with pytest.raises(ValueError, match=r"int8.*float32 or bfloat16 or float16"):
        replace(RUN, precision="int8")


# Dropout.

def test_sampling_in_one_thread_while_another_trains_changes_neither():
    """A notebook draws a picture while a run goes on.  Dropout must not run in the one nor stand still in the other, and both are modes of one network:
    so each has the network to itself while it relies on its mode.  Weights and averages are bit for bit those of the run alone; images of a copy, too."""
    alone, watched, modes = fresh(replace(RUN, steps=12), dropout=0.5), fresh(replace(RUN, steps=12), dropout=0.5), set()
    copied = copy.deepcopy(watched.model)
    expected, pictures = copied.sample(2, 1, "ddim", 4), []
    list(train(alone, IMAGES, LABELS))
    trainer = threading.get_ident()

    def forward(layer, args):
        modes.add((threading.get_ident() == trainer, layer.training))
        time.sleep(0.001)                                       # in the middle of the network: the other thread's turn

    watched.model.net.middle[0].dropout.register_forward_pre_hook(forward)
    done = threading.Event()

    def draw_pictures():
        while not done.is_set() or not pictures:
            watched.model.sample(2, 1, "ddim", 4)
            pictures.append(copied.sample(2, 1, "ddim", 4))

    thread = threading.Thread(target=draw_pictures)
    thread.start()
    try:
        list(train(watched, IMAGES, LABELS))
    finally:
        done.set()
        thread.join()
    assert modes == {(True, True), (False, False)}
    assert_same(watched, alone)
    assert all(torch.equal(x, expected) for x in pictures)


def test_dropout_is_a_function_of_seed_and_step_and_leaves_the_callers_random_numbers_alone():
    """Two runs are the same whatever the caller draws in between; two steps drop differently (transformers #17032: resumed with other masks)."""
    runs = []
    for noise in (1, 2):
        state, dropped = fresh(replace(RUN, steps=4), dropout=0.5), []
        layer = state.model.net.middle[0].dropout
        layer.register_forward_hook(lambda layer, args, out, dropped=dropped: dropped.append(out == 0))
        torch.manual_seed(noise)
        steps = train(state, IMAGES, LABELS)
        for _ in range(4):
            torch.rand(100)
            before = torch.get_rng_state()
            next(steps)
            assert torch.equal(torch.get_rng_state(), before)
        runs.append((state, dropped))
    assert_same(runs[0][0], runs[1][0])
    for first, second in pairwise(runs[0][1]):
        assert 0.3 < first.float().mean() < 0.7 and 0.3 < (first != second).float().mean() < 0.7


# Flips.

class Seen(nn.Module):
    """Remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.w, self.shown = nn.Parameter(torch.tensor(0.0)), []

    def forward(self, x_t, t, y):
        self.shown.append((x_t.detach(), y))
        return self.w * x_t


def shown(config):
    """What reaches the network in each step, with hardly any noise: which image (B,), its label (B,), and whether it is mirrored (B,)."""
    level = torch.linspace(0.1, 1.0, 10).view(10, 1, 1, 1)
    images = torch.cat([level.expand(10, 1, 4, 2), -level.expand(10, 1, 4, 2)], dim=3)      # bright on the left: image i by (i+1)/10
    model = DDPM(replace(MODEL, num_classes=10, p_uncond=0.0, unet=replace(MODEL.unet, num_classes=10)), Seen(),
                 Schedule(torch.tensor([1.0, 1 - 1e-8], dtype=torch.float64)))
    list(train(TrainState(model, config), images, torch.arange(10)))
    steps = []
    for part in range(config.steps):
        parts = len(model.net.shown) // config.steps
        x, y = (torch.cat(values) for values in zip(*model.net.shown[part * parts:(part + 1) * parts]))
        left, right = x[..., :2].mean((1, 2, 3)), x[..., 2:].mean((1, 2, 3))
        torch.testing.assert_close(left, -right, rtol=0, atol=1e-3)
        steps.append(((left.abs() * 10).round().long() - 1, y, left < 0))
    return [torch.stack(values) for values in zip(*steps)]


@pytest.mark.filterwarnings("ignore:this schedule ends")
def test_flips_mirror_every_other_image_and_labels_stay_with_their_images():
    """Which ones is a function of (seed, step), the same for every micro-batch; without flip, none."""
    config = replace(RUN, steps=50, batch=8, flip=True)
    image, label, mirrored = shown(config)
    assert torch.equal(image, label)
    assert abs(mirrored.double().mean().item() - 0.5) < 5 * 0.5 / math.sqrt(400)
    expected = torch.stack([draw(step, 10, 1, (1, 4, 4), config).flip < 0.5 for step in range(50)])
    assert torch.equal(mirrored, expected) and all(not torch.equal(a, b) for a, b in pairwise(mirrored))
    for again, theirs in ((replace(config, micro=3), True), (replace(config, seed=6), False)):
        assert torch.equal(shown(again)[2], mirrored) is theirs
    image, label, mirrored = shown(replace(config, flip=False))
    assert torch.equal(image, label) and not mirrored.any()


def test_a_dropped_label_is_the_null_label():
    """Ho & Salimans Algorithm 1: with probability p_uncond, one decision per image."""
    state = TrainState(DDPM(MODEL, Seen()), replace(RUN, steps=100, batch=8))
    list(train(state, IMAGES, LABELS))
    for step, (_, y) in enumerate(state.model.net.shown):
        drawn = draw(step, 10, 16, (1, 4, 4), state.config)
        assert torch.equal(y, torch.where(drawn.drop < 0.1, 2, LABELS[drawn.rows]))
    assert abs((torch.cat([y for _, y in state.model.net.shown]) == 2).double().mean().item() - 0.1) < 5 * math.sqrt(0.09 / 800)


# The loss at different times.

def test_the_loss_is_recorded_for_each_tenth_of_t(monkeypatch):
    """By hand: the mean of the images of a band in a step, then m ← m + (mean - m)/20; NaN before a band was met."""
    seen, loss = [], gradient.loss

    def recording(net, schedule, x_0, eps, t, y, predict):
        per_image = loss(net, schedule, x_0, eps, t, y, predict)
        seen.extend(zip(t.tolist(), per_image.tolist()))
        return per_image

    monkeypatch.setattr(gradient, "loss", recording)
    state, by_hand, met = fresh(replace(RUN, batch=3, micro=2, steps=30, times="logit-normal")), [math.nan] * 10, []
    assert state.loss_by_time.isnan().all()
    for _ in train(state, IMAGES, LABELS):
        for band in range(10):
            values = [value for t, value in seen if 16 * band / 10 <= t - 1 < 16 * (band + 1) / 10]
            if values:
                mean = sum(values) / len(values)
                by_hand[band] = mean if math.isnan(by_hand[band]) else by_hand[band] + (mean - by_hand[band]) / 20
        seen.clear()
        met.append(10 - int(state.loss_by_time.isnan().sum()))
        np.testing.assert_allclose(state.loss_by_time, by_hand, rtol=1e-5)
    assert met[0] <= 3 and max(met) > 6


@pytest.mark.parametrize("T, last", [(1000, [100 * k for k in range(1, 11)]), (10, list(range(1, 11))), (20, [2 * k for k in range(1, 11)])])
def test_the_bands_of_t_are_tenths(T, last):
    """The first holds t = 1 … T/10, the last one T."""
    state, t = TrainState(DDPM(replace(UNLABELLED, timesteps=T), Line()), RUN), torch.arange(1, T + 1)
    state.remember(t, t.float())
    np.testing.assert_allclose(state.loss_by_time, [(a + 1 + b) / 2 for a, b in pairwise([0, *last])], rtol=1e-5)


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
    index, t, eps, dropped, flipped = first
    assert index.shape == t.shape == dropped.shape == flipped.shape == (4,) and eps.shape == (4, 1, 4, 4) and t.dtype == torch.int64


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
