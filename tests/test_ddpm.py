"""Algorithm 1, and the object that puts the pieces together.  [1] DDPM arXiv:2006.11239, [2] classifier-free guidance arXiv:2207.12598."""

import json
import math
from dataclasses import asdict

import pytest
import torch
from torch import nn

from ddpm_tutorial import DDPM, DDPMConfig, Schedule, UNetConfig, cosine, ddim_step, drop_labels, final, loss, q_sample, sample

UNET = UNetConfig(channels=1, base=8, mults=(1, 2), blocks=1, attention=(), num_classes=3, groups=4)
CONFIG = DDPMConfig(image_size=4, channels=1, timesteps=10, schedule="cosine", num_classes=3, unet=UNET)


def perturbed(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * torch.randn(p.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return perturbed(DDPM(CONFIG))


class Spy(nn.Module):
    """Any network of the reader's own: a line in x_t whose slope knows t and y.  It remembers what it was asked."""

    def __init__(self):
        super().__init__()
        self.slope, self.asked = nn.Parameter(torch.tensor(0.3)), []

    def forward(self, x_t, t, y=None):
        self.asked.append((x_t.detach(), t, y))
        slope = self.slope + t / 100 + (0 if y is None else 0.02 * y)
        return slope.view(-1, *[1] * (x_t.ndim - 1)) * x_t


def spied(**changes):
    return DDPM(DDPMConfig(**{"image_size": 4, "channels": 1, "timesteps": 10, "schedule": "cosine", "num_classes": 3, **changes}), Spy())


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# The loss.

@pytest.mark.parametrize("predict", ["eps", "x0", "v"])
def test_the_loss_is_the_mean_square_error_of_each_image(predict):
    """[1] eq. 14, Algorithm 1 line 5, by hand: one number per image, so that it can be weighted or plotted over t."""
    net, schedule, x_0, eps, t = Spy(), cosine(100), randn(5, 1, 4, 4), randn(5, 1, 4, 4, seed=1), torch.tensor([1, 2, 50, 99, 100])
    y = torch.tensor([0, 1, 2, 3, 0])
    out = loss(net, schedule, x_0, eps, t, y, predict)
    assert out.shape == (5,)
    for i in range(5):
        a = schedule.alpha_bar[t[i]].item()
        x_t = math.sqrt(a) * x_0[i] + math.sqrt(1 - a) * eps[i]
        wanted = {"eps": eps[i], "x0": x_0[i], "v": math.sqrt(a) * eps[i] - math.sqrt(1 - a) * x_0[i]}[predict]
        answer = (0.3 + t[i] / 100 + 0.02 * y[i]) * x_t
        assert out[i].item() == pytest.approx((answer - wanted).square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("predict", ["eps", "x0", "v"])
def test_the_model_called_on_images_is_their_loss(predict):
    """model(x_0, y): what the network was shown must be x_t of the very ε that it is measured against (lucidrains `immiscible`)."""
    model, x_0, y = spied(predict=predict), randn(6, 1, 4, 4).tanh().double(), torch.tensor([0, 1, 2, 0, 1, 2])
    model.double()
    value = model(x_0, y)
    (x_t, t, labels), = model.net.asked
    a = model.schedule.alpha_bar[t].view(-1, 1, 1, 1)
    eps = (x_t - a.sqrt() * x_0) / (1 - a).sqrt()               # recovered from what the network saw
    wanted = {"eps": eps, "x0": x_0, "v": a.sqrt() * eps - (1 - a).sqrt() * x_0}[predict]
    answer = (0.3 + t / 100 + 0.02 * labels).view(-1, 1, 1, 1) * x_t
    assert value.shape == () and value.item() == pytest.approx((answer - wanted).square().mean().item(), rel=1e-4)
    assert eps.abs().max() < 6 and eps.std().item() == pytest.approx(1, abs=0.4)


def test_the_same_seed_is_the_same_loss(model):
    """Everything random comes from torch's own generator: t, then the dropped labels, then ε."""
    x_0, y, values = randn(6, 1, 4, 4).tanh(), torch.tensor([0, 1, 2, 0, 1, 2]), []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        values.append(model(x_0, y).item())
    assert values[0] == values[1] != values[2]


def test_training_visits_every_time_from_1_to_T():
    """[1] Algorithm 1 line 3: t ~ Uniform({1 … T}), both ends included (dome272 never draws its first index)."""
    model = spied(timesteps=4)
    model(randn(256, 1, 4, 4).clamp(-1, 1))
    assert model.net.asked[0][1].unique().tolist() == [1, 2, 3, 4]


def test_labels_are_dropped_image_by_image():
    """[2] Algorithm 1: one decision per image with p_uncond, null label num_classes (dome272 drops whole batches; beso #1 single elements)."""
    model = spied(p_uncond=0.25)
    y = torch.arange(4000) % 3
    model(torch.zeros(4000, 1, 4, 4), y)
    labels = model.net.asked[0][2]
    null = labels == 3
    assert torch.equal(labels[~null], y[~null])
    assert abs(null.double().mean().item() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 4000)
    for p, expected in ((0.0, y), (1.0, torch.full_like(y, 3))):
        always = spied(p_uncond=p)
        always(torch.zeros(4000, 1, 4, 4), y)
        assert torch.equal(always.net.asked[0][2], expected)


def test_drop_labels_replaces_exactly_what_it_is_told_to():
    """The caller draws the mask, so that one process and eight make the same run; the labels given are not changed in place."""
    y, dropped = torch.tensor([0, 1, 2, 1]), torch.tensor([True, False, False, True])
    assert drop_labels(y, dropped, 3).tolist() == [3, 1, 2, 3] and y.tolist() == [0, 1, 2, 1]


def test_add_noise_is_equation_4(model):
    """[1] eq. 4, with the ε that it used given back; with an ε of one's own, that one."""
    x_0, eps, a = randn(3, 1, 4, 4), randn(3, 1, 4, 4, seed=1), model.schedule.alpha_bar[7].item()
    x_t, same = model.add_noise(x_0, 7, eps)
    assert same is eps
    torch.testing.assert_close(x_t, math.sqrt(a) * x_0 + math.sqrt(1 - a) * eps)
    x_t, drawn = model.add_noise(x_0, 7)
    torch.testing.assert_close(x_t, math.sqrt(a) * x_0 + math.sqrt(1 - a) * drawn)


# Sampling.

WAYS = [{}, {"steps": 3}, {"sampler": "ddim", "steps": 4}, {"sampler": "ddim", "eta": 0.5}, {"y": 1, "scale": 2.0},
        {"y": 2, "sampler": "ddim", "scale": 0.5, "clip": False}]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_samples_are_images_in_the_range_and_a_function_of_the_seed(model, way):
    """(n, C, H, W) in [-1, 1] (unless clipping is off), the same for the same seed and others for another."""
    images = model.sample(3, seed=1, **way)
    assert images.shape == (3, 1, 4, 4) and images.dtype == torch.float32 and images.isfinite().all()
    assert way.get("clip") is False or images.abs().max() <= 1
    assert torch.equal(images, model.sample(3, seed=1, **way))
    assert not torch.allclose(images, model.sample(3, seed=2, **way), atol=1e-3)
    assert not torch.allclose(images[0], images[1], atol=1e-3)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_image_i_does_not_depend_on_the_batch_it_was_drawn_in(model, way):
    """Alone, in eights, all at once, or as number `first`: a sample is a function of (seed, i, y_i) (EDM's StackedRandomGenerator)."""
    whole = model.sample(24, **way)
    rounding = 1e-4 * whole.abs().max()                         # of the network, 1/√ᾱ_T times larger in x̂_0; another z would be 10,000 times that
    assert (model.sample(24, **way, batch=8) - whole).abs().max() < rounding
    assert (model.sample(10, **way, first=14, batch=3) - whole[14:24]).abs().max() < rounding
    for i in (0, 11, 23):
        assert (model.sample(1, **way, first=i) - whole[i:i + 1]).abs().max() < rounding


def test_each_image_may_have_its_own_label(model):
    """y (n,): the same images as one call per label, in any chunks."""
    y = torch.tensor([0, 1, 2, 2, 1])
    whole = model.sample(5, y, "ddim", 3, scale=1.5, batch=2)
    for i in range(5):
        torch.testing.assert_close(whole[i:i + 1], model.sample(1, int(y[i]), "ddim", 3, scale=1.5, first=i), atol=1e-4, rtol=1e-4)


def test_labels_reach_the_network():
    """The label asked for, with the null label beside it when guided (DiffGui #5: the unconditional pass used the real label)."""
    model, y = spied(), torch.tensor([2, 0])
    model.sample(2, y, "ddim", 3)
    assert all(labels.tolist() == [2, 0] for _, _, labels in model.net.asked)
    model.net.asked.clear()
    model.sample(2, y, "ddim", 3, scale=0.0)
    assert all(labels is None or labels.tolist() == [3, 3] for _, _, labels in model.net.asked)
    model.net.asked.clear()
    model.sample(2, y, "ddim", 3, scale=2.0)
    assert sorted(label for _, _, labels in model.net.asked for label in labels.tolist()) == sorted(3 * [2, 0, 3, 3])


@pytest.mark.parametrize("scale, images_per_step", [(0.0, 1), (1.0, 1), (2.0, 2)])
def test_guidance_costs_a_second_pass_and_nothing_else_does(scale, images_per_step):
    """[2]: every step shows each image to the network once for scale 0 and 1, and twice for any other."""
    model = spied()
    model.sample(4, 1, "ddpm", 5, scale=scale)
    assert sum(len(x_t) for x_t, _, _ in model.net.asked) == 4 * 5 * images_per_step


def test_guided_samples_are_those_of_the_guided_noise():
    """[2] eq. 6 inside the whole machine: one DDIM step from x_T to the data, by hand."""
    model, a = spied(clip=False), cosine(10).alpha_bar[10].item()
    x_T = next(iter(model.trajectory(2, 1, "ddim", 1, scale=3.0))).x_t
    cond, uncond = ((0.3 + 0.1 + 0.02 * y) * x_T for y in (1, 3))
    eps = uncond + 3 * (cond - uncond)
    torch.testing.assert_close(final(model.trajectory(2, 1, "ddim", 1, scale=3.0)), (x_T - math.sqrt(1 - a) * eps) / math.sqrt(a), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_trajectory_ends_in_what_sample_returns(model, way):
    """The same walk, state by state: but for the last clamp."""
    states = list(model.trajectory(3, seed=1, **way))
    assert states[0].t == 10 and states[-1].t == 0 and len(states) == (way.get("steps") or 10) + 1
    assert torch.equal(states[-1].x_t.clamp(-1, 1), model.sample(3, seed=1, **way))


def test_a_trajectory_starts_from_standard_normal_noise(model):
    """x_T ~ N(0, I), [1] Algorithm 2 line 1, within 5 standard errors."""
    x_T = next(iter(model.trajectory(200))).x_t.double()
    n = x_T.numel()
    assert abs(x_T.mean().item()) < 5 / math.sqrt(n) and abs(x_T.var().item() - 1) < 5 * math.sqrt(2 / n)


def test_ddpm_sampling_is_ddim_with_all_its_noise():
    """[2010.02502] section 4.1: sampler="ddpm" and sampler="ddim", eta=1 draw the same images from the same seed."""
    model = spied(timesteps=20)
    for steps in (None, 7):
        torch.testing.assert_close(model.sample(3, sampler="ddpm", steps=steps), model.sample(3, sampler="ddim", eta=1.0, steps=steps), atol=1e-4, rtol=1e-4)


class Wild(nn.Module):
    """A network that is wrong by a factor."""

    def forward(self, x_t, t):
        return -5 * x_t


def test_clipping_is_the_configs_unless_the_call_says_otherwise():
    """clip=None asks the config; True and False are obeyed."""
    wild = DDPM(DDPMConfig(image_size=4, channels=1, timesteps=10, schedule="cosine", clip=False), Wild())
    tame = DDPM(DDPMConfig(image_size=4, channels=1, timesteps=10, schedule="cosine"), Wild())

    def last(model, clip=None):
        return final(model.trajectory(2, clip=clip))

    assert last(wild).abs().max() > 1.01 and last(wild, clip=True).abs().max() < 1.0001
    assert torch.equal(last(tame), last(wild, clip=True)) and torch.equal(last(tame, clip=False), last(wild))
    assert wild.sample(2).abs().max() <= 1                      # what `sample` returns is an image, whatever happened on the way


@pytest.mark.parametrize("training", [True, False])
def test_sampling_leaves_the_model_in_its_mode(model, training):
    """A picture in the middle of training must not switch dropout off for the rest of it."""
    model.train(training)
    model.sample(1, steps=2)
    assert model.net.training == training


# Between two images.

class NormalData(nn.Module):
    """The perfect network for N(0, I) data: ε = √(1-ᾱ_t) x_t."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.asked = schedule, []

    def forward(self, x_t, t):
        self.asked.append(t)
        return (1 - self.schedule.alpha_bar[t]).sqrt().view(-1, 1, 1, 1).float() * x_t


def between(T=200):
    schedule = cosine(T)
    return DDPM(DDPMConfig(image_size=4, channels=1), NormalData(schedule), schedule), randn(1, 4, 4).tanh(), randn(1, 4, 4, seed=1).tanh()


def test_interpolation_by_ddim_begins_near_a_and_ends_near_b():
    """[2010.02502] section 5.3: invert, walk along the arc, come back; a round trip loses ∏ cos² Δφ, here 1 - (π/2)²/T."""
    model, a, b = between()
    images = model.interpolate(a, b, n=5, steps=200)
    assert images.shape == (5, 1, 4, 4) and images.abs().max() <= 1
    torch.testing.assert_close(images[0], a, atol=0.03, rtol=0)
    torch.testing.assert_close(images[-1], b, atol=0.03, rtol=0)
    gaps = (images.diff(dim=0)).flatten(1).norm(dim=1)
    assert gaps.max() < 1.5 * gaps.min() and gaps.sum() < 1.5 * (a - b).norm()


def test_interpolation_by_ddpm_begins_near_a_and_ends_near_b():
    """[1] Figure 8: noise both to t with the same ε, mix linearly, denoise; for a small t little is lost."""
    model, a, b = between()
    images, noise = model.interpolate(a, b, n=5, sampler="ddpm", t=4), math.sqrt(1 - model.schedule.alpha_bar[4].item())
    assert images.shape == (5, 1, 4, 4) and images.abs().max() <= 1 and noise < 0.1
    assert (images[0] - a).abs().max() < 5 * noise and (images[-1] - b).abs().max() < 5 * noise
    torch.testing.assert_close(images[2], (images[0] + images[-1]) / 2, atol=1e-5, rtol=1e-5)      # this network and this mix are linear
    assert torch.equal(images, model.interpolate(a, b, n=5, sampler="ddpm", t=4))


@pytest.mark.parametrize("t", [1, 4, 200])
def test_interpolation_by_ddpm_asks_first_at_the_time_it_noised_to(t):
    """lucidrains `interpolate` noises to t and then loops from t - 1."""
    model, a, b = between()
    model.interpolate(a, b, n=2, sampler="ddpm", t=t)
    assert [times[0].item() for times in model.net.asked] == list(range(t, 0, -1))


def test_interpolation_takes_labels(model):
    """A conditional model moves between two images of a class."""
    a, b = randn(1, 4, 4).tanh(), randn(1, 4, 4, seed=1).tanh()
    for sampler in ("ddim", "ddpm"):
        with_label, without = model.interpolate(a, b, 3, y=1, sampler=sampler), model.interpolate(a, b, 3, sampler=sampler)
        assert with_label.shape == (3, 1, 4, 4) and not torch.allclose(with_label, without, atol=1e-3)


# Weights.

@pytest.mark.parametrize("dtype, summed", [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)])
def test_the_loss_is_summed_in_float32_at_least(dtype, summed):
    """A network in 16 bits must not have its squares added up in 16 bits; and one in float64 must not be rounded."""
    x_0, eps = (torch.randn(4, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in (0, 1))
    out = loss(lambda x_t, t: 0.5 * x_t, cosine(10), x_0, eps, torch.tensor([1, 4, 7, 10]))
    x_t = q_sample(cosine(10), x_0, eps, torch.tensor([1, 4, 7, 10]))
    assert out.dtype == summed
    expected = ((0.5 * x_t).to(summed) - eps.to(summed)).square().flatten(1).mean(1)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-15 if summed == torch.float64 else 1e-6)


def test_half_precision_leaves_counters_alone_and_refuses_what_it_cannot_hold(tmp_path):
    """BatchNorm counts its batches in an integer, and 100,001 in float16 is infinity."""
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(1)

        def forward(self, x, t):
            return self.norm(x)

    model = DDPM(DDPMConfig(image_size=8, channels=1, timesteps=10), Net())
    model.net.norm.num_batches_tracked += 100_001
    path = model.save(tmp_path / "weights.safetensors", half=True)
    assert DDPM.load(path, Net()).net.norm.num_batches_tracked == 100_001
    torch.nn.init.constant_(model.net.norm.weight, 1e6)
    with pytest.raises(ValueError, match=r"norm\.weight.*float16"):
        model.save(path, half=True)


def test_saved_weights_draw_the_same_images(model, tmp_path):
    """save, load, sample: bit for bit."""
    loaded = DDPM.load(model.save(tmp_path / "deep" / "model.safetensors"))
    assert loaded.config == model.config and not loaded.training
    assert torch.equal(loaded.sample(3, 1, "ddim", 4, scale=2.0), model.sample(3, 1, "ddim", 4, scale=2.0))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model.safetensors"]


def test_your_own_network_and_your_own_schedule_come_back(tmp_path):
    """A net(x_t, t) and a Schedule that no name stands for: the schedule is in the file, the network has to be brought."""
    own = Schedule(torch.tensor([1, 0.9, 0.3, 0.001], dtype=torch.float64))
    model = DDPM(DDPMConfig(image_size=4, channels=1), Spy(), own)
    assert (model.config.schedule, model.config.timesteps) == ("custom", 3)
    with torch.no_grad():
        model.net.slope.fill_(0.7)
    path = model.save(tmp_path / "mine.safetensors")
    loaded = DDPM.load(path, net=Spy())
    assert torch.equal(loaded.schedule.alpha_bar, own.alpha_bar) and loaded.net.slope.item() == model.net.slope.item()
    assert torch.equal(loaded.sample(2), model.sample(2))
    with pytest.raises(ValueError, match="Spy"):
        DDPM.load(path)


def test_the_schedule_is_no_weight(model):
    """lucidrains #136: ᾱ was a buffer, was averaged with the weights, and the images went black."""
    assert all(name.startswith("net.") for name in model.state_dict())
    before = model.schedule.alpha_bar.clone()
    model.half().float()
    assert torch.equal(model.schedule.alpha_bar, before) and model.schedule.alpha_bar.dtype == torch.float64


@pytest.mark.parametrize("config", [DDPMConfig(), CONFIG, DDPMConfig(image_size=32, unet=UNetConfig.cifar10())], ids=["default", "small", "cifar10"])
def test_a_config_survives_json(config):
    """It is stored as JSON in the header of the weights: tuples come back as tuples."""
    assert DDPMConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_the_object_adds_no_mathematics():
    """DDIM through the object is DDIM by hand from the same x_T."""
    model = spied(clip=False)
    x_T = next(iter(model.trajectory(2))).x_t
    by_hand = final(sample(lambda x, t: (0.3 + t / 100) * x, cosine(10), x_T, ddim_step, 5))
    torch.testing.assert_close(final(model.trajectory(2, sampler="ddim", steps=5)), by_hand, atol=1e-4, rtol=1e-4)
