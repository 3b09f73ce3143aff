"""Everything on a GPU, on a machine that has none: nothing mixes devices, and nothing makes the GPU wait.

A GPU works behind Python's back: a call returns at once, and the device has a queue of work.  Whoever asks for a number (`.item()`, `if x > 0`, `.cpu()`)
waits until the queue is empty, and leaves the device with nothing to do.  See pretended.py for what the pretended one can and cannot see.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch

from pretended import CUDA, on_device, pretended_gpu
from tiny import IMAGES, LABELS, MODEL, RUN, UNET, fresh
from ddpm_tutorial import (DDPM, TrainState, classifier, classifier_free, clipped, ddim_step, ddpm_step, denoiser, dpm_solver_2m, final, invert, known, loss,
                           q_posterior, sample, seeded_noise, train, within)
from ddpm_tutorial import likelihood
from ddpm_tutorial.evaluation import judging, metrics


@pytest.fixture
def gpu(monkeypatch):
    with pretended_gpu(monkeypatch) as mode:
        yield mode


@pytest.fixture
def model(gpu):
    torch.manual_seed(0)
    model = DDPM(replace(MODEL, unet=replace(UNET, attention=(1,)))).to(CUDA).eval()
    assert all(map(on_device, model.parameters())) and model.device == CUDA
    return model


# That it is a test: what a GPU refuses is refused, and who waits is caught.

def test_two_devices_in_one_call_are_refused(gpu):
    """But for single numbers, which travel with the call."""
    x, y = torch.ones(2, device="cuda"), torch.ones(2)
    for call in (lambda: x + y, lambda: torch.cat([x, y]), lambda: y[torch.tensor([0], device=CUDA)], lambda: torch.where(x > 0, x, y), lambda: x.add_(y)):
        with pytest.raises(RuntimeError, match="same device"):
            call()
    assert all(map(on_device, (x + 1, x * torch.tensor(2.0), x.to(y.dtype), y.to(x), y.cuda(), torch.zeros_like(x), x.detach(), *x.chunk(2))))
    assert not any(map(on_device, (y.to("cpu"), y * 2, torch.zeros(1)))) and not gpu.waits


@pytest.mark.parametrize("ask", [lambda x: x.item(), lambda x: x.tolist(), lambda x: bool(x), float, int, lambda x: x.cpu(), lambda x: x.to("cpu"),
                                 lambda x: [1, 2][x], lambda x: x.view(1).nonzero(), lambda x: x.view(1)[x.view(1) > 0]])
def test_who_asks_for_a_number_waits(ask, gpu):
    ask(torch.tensor(1, device="cuda"))
    assert len(gpu.waits) == 1


# The subject.

WALKS = {"DDPM's": lambda: ddpm_step, "DDIM's": lambda: ddim_step, "DDIM's with noise": lambda: partial(ddim_step, eta=0.5), "the second-order": dpm_solver_2m}


@pytest.mark.parametrize("step", WALKS.values(), ids=WALKS)
def test_a_walk_never_waits(step, model, gpu):
    """The noise is drawn on the CPU and sent; all that comes back is the picture, when somebody wants to see it."""
    noise = seeded_noise(0, range(2), model.shape)
    x = final(sample(model.denoiser(torch.tensor([0, 1]), 2.0), model.schedule, noise(16).to(CUDA), step(), steps=4, noise=noise))
    assert on_device(x) and gpu.waits == []


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_a_model_draws_the_same_images_on_every_device(sampler, model, gpu):
    """It is one function of (seed, i); and the walk has no other device in it."""
    expected = DDPM(model.config)
    expected.load_state_dict({name: value.cpu() for name, value in model.state_dict().items()})
    gpu.waits.clear()
    x = model.sample(3, torch.tensor([0, 1, 1]), sampler, 4, scale=2.0)
    assert on_device(x) and gpu.waits == []
    torch.testing.assert_close(x.cpu(), expected.eval().sample(3, torch.tensor([0, 1, 1]), sampler, 4, scale=2.0))


def test_no_bend_of_a_denoiser_waits(model, gpu):
    """Guidance of all kinds, composed, at one time for all and at one for each image; inversion; the times may lie on either device."""
    y, schedule = torch.tensor([0, 1], device=CUDA), model.schedule
    eps = partial(denoiser, model.net, schedule, predict="v")
    judge = metrics.Classifier(num_classes=2, timed=True).to(CUDA).eval()
    x = torch.randn(2, *model.shape).to(CUDA)
    guided = within(classifier_free(eps(y), eps(), 2.0), eps(y), 3, 9)
    guided = classifier(guided, judge.log_prob(y), schedule, 0.5)
    guided = clipped(known(guided, schedule, torch.zeros(2, *model.shape), torch.rand(model.shape) > 0.5), schedule)
    for t in (5, torch.tensor([3, 12]), torch.tensor([3, 12], device=CUDA)):
        assert on_device(guided(x, t))
    assert on_device(final(invert(eps(y), schedule, x, steps=2))) and gpu.waits == []


@pytest.mark.parametrize("decoder", ["gaussian", "discretised"])
def test_the_bound_is_computed_where_the_images_are(decoder, model, gpu):
    x_0 = torch.rand(2, *model.shape, device=CUDA) * 2 - 1
    bound = likelihood.bits_per_dim(model.denoiser(), model.schedule, x_0, decoder=decoder)
    assert on_device(bound.total) and gpu.waits == []


def test_times_of_two_devices_are_a_sentence(model):
    """No kernel's message from the depths: both are named."""
    x, t, s = torch.zeros(2, *model.shape, device=CUDA), torch.tensor([3, 12]), torch.tensor([1, 2])
    for pair in ((t.to(CUDA), s), (t, s.to(CUDA))):
        with pytest.raises(ValueError, match=r"t is on c.* and s on c.*one device"):
            q_posterior(model.schedule, x, x, *pair)
    for pair in ((t, s), (t.to(CUDA), s.to(CUDA)), (3, 1)):
        assert all(map(on_device, q_posterior(model.schedule, x, x, *pair)))


def test_the_loss_never_waits(model, gpu):
    """Times on the CPU, where the schedule is, or on the device."""
    x_0, eps, y = torch.zeros(2, *model.shape, device=CUDA), torch.randn(2, *model.shape, device=CUDA), torch.tensor([0, 1], device=CUDA)
    for t in (torch.tensor([3, 12]), torch.tensor([3, 12], device=CUDA)):
        for predict in ("eps", "x0", "v", "velocity"):
            assert on_device(loss(model.net, model.schedule, x_0, eps, t, y, predict))
    assert on_device(model(torch.zeros(2, *model.shape), torch.tensor([0, 1]))) and gpu.waits == []


# The workshop.

def test_a_training_step_waits_once(gpu):
    """When loss, norm and the wish to stop are read, together.  And the weights are those of the CPU's run."""
    config = replace(RUN, steps=3, micro=3, flip=True)
    expected = fresh(config)
    list(train(expected, IMAGES, LABELS))
    begun = fresh(config)
    state = TrainState(begun.model.to(CUDA), config)
    waits = []
    for _ in train(state, IMAGES, LABELS):
        waits.append(list(gpu.waits))
        gpu.waits.clear()
    assert all(map(on_device, (*state.model.parameters(), *state.ema.module.parameters()))) and waits[1:] == [["cpu"], ["cpu"]]
    assert state.losses == expected.losses
    assert all(torch.equal(ours.cpu(), theirs) for ours, theirs in zip(state.ema.state_dict().values(), expected.ema.state_dict().values()))


def test_samples_are_measured_where_the_judge_is(model, gpu):
    """Numbers are wanted here, so there is waiting; but nothing is mixed."""
    x, y = torch.rand(24, 1, 4, 4).to(CUDA), torch.arange(24) % 2
    net = metrics.train_classifier(x, y.to(CUDA), epochs=1, batch=8)
    judge = judging.judge(net, x, y, x[:8] * 0.9, y[:8])
    for labels in (y[:8], y[:8].to(CUDA)):
        assert judging.measure(torch.rand(8, 1, 4, 4), labels, judge)["n"] == 8
    assert judging.floors(judge, 8)["agreement"] >= 0 and len(judging.panel(judge, (1,), epochs=1)) == 2
