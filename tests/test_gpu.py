"""What a GPU computes is what the CPU computes.  `pytest -m gpu` runs the real ones; benchmarks/gpu.sh does so, and measures.

Where there is no GPU, these tests run on the pretended one of pretended.py all the same: it computes nothing that a GPU would, but knows what belongs where,
so no test fails for a slip on the day on which there is one.
"""

from dataclasses import replace

import pytest
import torch

from pretended import CUDA, on_device, pretended_gpu
from tiny import IMAGES, LABELS, MODEL, RUN, UNET, assert_same, fresh
from ddpm_tutorial import DDPM, TrainState, UNet, resume, save, train

ABSENT = "there is no CUDA GPU on this machine; where there is one, `bash benchmarks/gpu.sh` runs this test"
REAL = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason=ABSENT)]


@pytest.fixture(params=["pretended", pytest.param("real", marks=REAL)])
def gpu(request, monkeypatch):
    """TF32 keeps ten bits of a number's fraction, and convolutions use it unless told not to."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    if request.param == "real":
        yield CUDA
    else:
        with pretended_gpu(monkeypatch):
            yield CUDA


def awake(net):
    """A network that is new answers 0, whatever it is asked."""
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    return net.eval()


def both(gpu):
    """The same model on the CPU and on the GPU."""
    model = DDPM(replace(MODEL, timesteps=100, unet=replace(UNET, attention=(1,))))
    awake(model.net)
    other = DDPM(model.config)
    other.load_state_dict(model.state_dict())
    return model.eval(), other.to(gpu).eval()


def there(state, gpu):
    """The same run, begun on the GPU."""
    return TrainState(state.model.to(gpu), state.config)


# Part a: the subject.

def test_the_network_answers_as_on_the_cpu(gpu):
    """To 1e-5, with attention and labels."""
    net = awake(UNet(replace(UNET, attention=(0, 1))))
    x, t, y = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 50, 100]), torch.tensor([0, 1, 2])
    with torch.no_grad():
        expected = net(x, t, y)
        answer = net.to(gpu)(x.to(gpu), t.to(gpu), y.to(gpu))
    torch.testing.assert_close(answer.cpu(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler, eta", [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 0.5), ("dpm++", 0.0)])
def test_a_guided_walk_of_50_steps_ends_at_the_same_images(sampler, eta, gpu):
    """To 1e-3: rounding grows on the way."""
    on_cpu, on_gpu = both(gpu)
    expected, x = (model.sample(2, torch.tensor([0, 1]), sampler, 50, eta, scale=2.0, seed=3) for model in (on_cpu, on_gpu))
    assert x.is_cuda
    torch.testing.assert_close(x.cpu(), expected, rtol=1e-3, atol=1e-3)


def test_an_image_is_the_same_alone_and_in_a_batch(gpu):
    """Image number 5 is a function of seed and number, up to what kernels for another batch size round otherwise."""
    _, model = both(gpu)
    together, alone = model.sample(6, 1, "ddim", 20), model.sample(1, 1, "ddim", 20, first=5)
    torch.testing.assert_close(together[5:].cpu(), alone.cpu(), rtol=1e-3, atol=1e-3)


# Part b: training.

def test_a_run_goes_on_where_it_was(gpu, tmp_path):
    """Saved after five steps of twelve, and taken up by another process, as far as it can know."""
    whole, state = there(fresh(), gpu), there(fresh(), gpu)
    list(train(whole, IMAGES, LABELS))
    list(train(state, IMAGES, LABELS, until=5))
    again = resume(save(state, tmp_path / "checkpoint.safetensors"), gpu)
    assert all(p.is_cuda for p in (*again.model.parameters(), *again.ema.parameters()))
    list(train(again, IMAGES, LABELS))
    torch.testing.assert_close(torch.tensor(again.losses), torch.tensor(whole.losses), rtol=1e-4, atol=1e-4)


def test_a_run_may_move_to_the_cpu(gpu, tmp_path):
    """The GPU was lent for a day."""
    state = there(fresh(), gpu)
    list(train(state, IMAGES, LABELS, until=5))
    again = resume(save(state, tmp_path / "checkpoint.safetensors"), "cpu")
    assert not any(map(on_device, again.model.parameters())) and again.model.device.type == "cpu"
    assert len(list(train(again, IMAGES, LABELS))) == 7


def real(test):
    for mark in REAL:
        test = mark(test)
    return test


@real
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_every_precision_learns_the_same(precision, compiled):
    """The losses of twelve steps stay near those of the CPU in float32; float16 has its scaler."""
    expected, state = fresh(), there(fresh(replace(RUN, precision=precision, compile=compiled)), CUDA)
    assert state.scaler.is_enabled() == (precision == "float16")
    list(train(expected, IMAGES, LABELS))
    list(train(state, IMAGES, LABELS))
    tolerance = 1e-3 if precision == "float32" else 0.1
    torch.testing.assert_close(torch.tensor(state.losses), torch.tensor(expected.losses), rtol=tolerance, atol=tolerance)


@real
def test_memory_that_does_not_suffice_halves_what_is_done_at_a_time():
    """A batch that needs more than the share that this process may take; what is learnt is what the whole batch teaches."""
    images = torch.randn(4096, 1, 32, 32)
    config = replace(RUN, steps=2, batch=4096)
    expected, state = there(fresh(config), CUDA), there(fresh(config), CUDA)
    list(train(expected, images, torch.arange(4096) % 2))
    used = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.6 * used / torch.cuda.get_device_properties(0).total_memory)
    try:
        list(train(state, images, torch.arange(4096) % 2))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert state.config.micro < 4096
    assert_same(state, expected, 1e-3)
