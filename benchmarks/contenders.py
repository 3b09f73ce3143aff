"""The contenders: our network and training loop, diffusers' and lucidrains', each as its own documentation sets it up.

[1] https://huggingface.co/docs/diffusers/tutorials/basic_training (diffusers' recipe)
[2] https://github.com/lucidrains/denoising-diffusion-pytorch: Trainer, and classifier_free_guidance.py (lucidrains' recipe)

Peers are imported where they are used: a process that measures our memory must not hold theirs.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_tutorial import DDPM, TrainState, UNet, UNetConfig, denoiser, final, sample, train
from ddpm_tutorial.training import device
from ddpm_tutorial.training.recipes import RECIPES
from ddpm_tutorial.weights.diffusers_layout import diffusers_config, to_diffusers

WHERE = device()
MODEL, RECIPE = RECIPES["digits"]                               # what `make run` trains
DIGITS = MODEL.unet
WALK = 5                                                        # sampling steps per timed walk
torch.backends.cudnn.allow_tf32 = False                         # or a GPU would round float32 to 10 bits before it multiplies


# Adapters.


class Diffusers(nn.Module):
    """diffusers' UNet2DModel of the same architecture, as a net(x_t, t, y) of ours: t counts from 1, the null label is num_classes."""

    def __init__(self, config: UNetConfig, size: int):
        super().__init__()
        from diffusers import UNet2DModel
        self.unet = UNet2DModel(**diffusers_config(config, size))

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.unet(x_t, t - 1, class_labels=y).sample


def plain_guidance(net, x, t, classes, cond_scale=1.0, rescaled_phi=0.0):
    """Guidance as in the paper, for lucidrains' GaussianDiffusion.  Its own fails at scale 1 (one value where two are unpacked), and at other
    scales it always takes away the part of the update that is parallel to the conditional output, which `sample` cannot switch off."""
    cond = net(x, t, classes, cond_drop_prob=0.0)
    return (cond if cond_scale == 1 else torch.lerp(net(x, t, classes, cond_drop_prob=1.0), cond, cond_scale)), None


def lucidrains_unet(config: UNetConfig) -> nn.Module:
    """lucidrains' class-conditional Unet with as many levels as ours, as wide as gives the nearest number of parameters."""
    from denoising_diffusion_pytorch.classifier_free_guidance import Unet
    plain = type("Unet", (Unet,), {"forward_with_cond_scale": plain_guidance})

    def unet(dim: int) -> nn.Module:
        return plain(dim=dim, num_classes=config.num_classes, dim_mults=config.mults, channels=config.channels)

    with torch.device("meta"):                                  # shapes only: nothing is allocated
        dim = min(range(16, 129, 8), key=lambda dim: abs(parameters(unet(dim)) - parameters(UNet(config))))
    return unet(dim)


class LucidrainsView(nn.Module):
    """lucidrains' Unet as a net(x_t, t, y) of ours."""

    def __init__(self, unet: nn.Module, null: int):
        super().__init__()
        self.unet, self.null = unet, null

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.unet(x_t, t - 1, y.clamp(max=self.null - 1), cond_keep_mask=y != self.null)


class InLucidrains(nn.Module):
    """A net of ours as a network for lucidrains' GaussianDiffusion."""

    random_or_learned_sinusoidal_cond, cond_drop_prob, forward_with_cond_scale = False, 0.5, plain_guidance

    def __init__(self, net: UNet):
        super().__init__()
        self.net, self.channels, self.out_dim = net, net.config.channels, net.config.channels

    def forward(self, x: Tensor, time: Tensor, classes: Tensor, cond_drop_prob: float = 0.5) -> Tensor:
        dropped = torch.rand(len(x), device=x.device) < cond_drop_prob
        return self.net(x, time + 1, classes.masked_fill(dropped, self.net.config.num_classes))


# Recipes.


def diffusers_recipe(net: nn.Module, x: Tensor, y: Tensor, batch: int, null: int, ema: bool, best: bool = False) -> Callable[[float], float]:
    """One step of [1], told how far the run has come (0 … 1): AdamW 1e-4, 500 warm-up steps then half a cosine, ε, linear schedule; labels dropped
    at 10 %.  The tutorial has no EMA; where `ema` asks for one, it is EMAModel as diffusers' own training script sets it.  best: all parameters at
    once, in optimizer and EMA."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel
    scheduler, optimizer = DDPMScheduler(num_train_timesteps=1000), torch.optim.AdamW(net.parameters(), lr=1e-4, fused=best or None)
    average, count = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, power=0.75, foreach=best) if ema else None, 0
    warm = 0.0                                                  # how far the run had come when the learning rate was at its top

    def step(progress: float = 0.0) -> float:
        nonlocal count, warm
        count, warm = count + 1, progress if count < 500 else warm
        i = torch.randint(len(x), (batch,), device=x.device)
        noise, t = torch.randn_like(x[i]), torch.randint(0, 1000, (batch,), device=x.device)
        labels = y[i].masked_fill(torch.rand(batch, device=x.device) < 0.1, null)
        loss = F.mse_loss(net(scheduler.add_noise(x[i], noise, t), t + 1, labels), noise)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-4 * (count / 500 if count <= 500 else 0.5 + 0.5 * math.cos(math.pi * (progress - warm) / (1 - warm)))
        optimizer.step()
        optimizer.zero_grad()
        if average:
            average.step(net.parameters())
        return loss.item()

    return step


def lucidrains_recipe(net: nn.Module, x: Tensor, y: Tensor, batch: int, **options) -> tuple[Callable, nn.Module]:
    """One step of [2], and the averaged model that samples: Adam 1e-4, betas (0.9, 0.99), EMA 0.995 every 10 steps, ε, cosine schedule, labels
    dropped at 50 %, all its defaults; without the horizontal flip, which is wrong for digits.  Its Trainer takes no labels, so its loop is here."""
    from denoising_diffusion_pytorch import classifier_free_guidance as lucidrains
    from ema_pytorch import EMA
    lucidrains.tqdm = lambda pairs, **_: pairs                  # no bars
    diffusion = lucidrains.GaussianDiffusion(net, image_size=x.shape[-1], **options).to(x.device)
    optimizer, average = torch.optim.Adam(diffusion.parameters(), lr=1e-4, betas=(0.9, 0.99)), EMA(diffusion, beta=0.995, update_every=10)
    x = (x + 1) / 2                                             # it wants [0, 1]

    def step(progress: float = 0.0) -> float:
        i = torch.randint(len(x), (batch,), device=x.device)
        loss = diffusion(x[i], classes=y[i])
        loss.backward()
        nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        return loss.item()

    return step, average.ema_model


# Side by side: a training step, and a walk of WALK DDIM steps without clipping.


class Contender(NamedTuple):
    train: Callable[[], float]
    walk: Callable[[], Tensor]
    net: nn.Module


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def noise_data(config: UNetConfig, size: int, n: int) -> tuple[Tensor, Tensor]:
    return torch.rand(n, config.channels, size, size, device=WHERE) * 2 - 1, torch.randint(config.num_classes, (n,), device=WHERE)


def ours(config: UNetConfig, size: int, batch: int, bf16: bool = False, compiled: bool = False) -> Contender:
    (x, y), (x_T, labels) = noise_data(config, size, 1000), noise_data(config, size, batch)
    model = DDPM(replace(MODEL, image_size=size, channels=config.channels, num_classes=config.num_classes, unet=config)).to(WHERE)
    for p in model.net.parameters():
        p.data.add_(0.02 * torch.randn_like(p))                 # so that zero-initialised layers hide no difference
    precision = "bfloat16" if bf16 else "float32"
    steps = train(TrainState(model, replace(RECIPE, steps=10**6, batch=batch, precision=precision, compile=compiled)), x, y)
    in_bf16(model.net, bf16)                                    # for the walk: training sees to it itself
    eps = denoiser(with_graphs(model.net.eval(), compiled), model.schedule, labels)
    return Contender(lambda: next(steps).loss, lambda: final(sample(eps, model.schedule, x_T, steps=WALK)), model.net)


def diffusers(config: UNetConfig, size: int, batch: int, bf16: bool = False, compiled: bool = False, best: bool = False) -> Contender:
    """best: what its documentation does not set up, but a GPU is faster with."""
    from diffusers import DDIMScheduler
    (x, y), (x_T, labels) = noise_data(config, size, 1000), noise_data(config, size, batch)
    net = Diffusers(config, size).to(WHERE, memory_format=torch.channels_last if best else torch.preserve_format).eval()
    step = diffusers_recipe(torch.compile(net) if compiled else net, x, y, batch, config.num_classes, ema=True, best=best)
    in_bf16(net, bf16)
    scheduler, sampling_net = DDIMScheduler(clip_sample=False), with_graphs(net, compiled)
    scheduler.set_timesteps(WALK)                               # on the CPU, as its pipelines have them: on a GPU every step would wait
    times = (scheduler.timesteps + 1).to(WHERE)

    @torch.no_grad()
    def walk() -> Tensor:
        x_t = x_T
        for t, time_of_net in zip(scheduler.timesteps, times):
            x_t = scheduler.step(sampling_net(x_t, time_of_net, labels), t, x_t).prev_sample
        return x_t

    return Contender(step, walk, net)


def lucidrains(config: UNetConfig, size: int, batch: int, bf16: bool = False) -> Contender:
    (x, y), (x_T, labels) = noise_data(config, size, 1000), noise_data(config, size, batch)
    net = lucidrains_unet(config).to(WHERE)
    step, average = lucidrains_recipe(net, x, y, batch, sampling_timesteps=WALK, ddim_sampling_eta=0.0)
    in_bf16(net, bf16)
    in_bf16(average.model, bf16)
    return Contender(step, lambda: average.ddim_sample(labels, x_T.shape, 1.0, 0.0, clip_denoised=False), net)


CONTENDERS = {"ours": ours, "diffusers": diffusers, "lucidrains": lucidrains}


def in_bf16(net: nn.Module, wanted: bool) -> None:
    """Let the forward pass run in bfloat16 where autocast deems it safe.  After the average has copied the net, which must not share this."""
    if wanted:
        forward = torch.autocast(WHERE.type, torch.bfloat16)(net.forward)
        net.forward = lambda *args, **kwargs: forward(*args, **kwargs).float()


def with_graphs(net: nn.Module, wanted: bool) -> nn.Module:
    """Compiled, and on a GPU replayed as CUDA graphs."""
    return torch.compile(net, mode="reduce-overhead") if wanted else net


@torch.no_grad()
def same_network(net: nn.Module, theirs: nn.Module, config: UNetConfig, size: int) -> None:
    """Give diffusers our weights, and see that the outputs are the same: in float32, whatever in_bf16 has made of `forward`."""
    theirs.unet.load_state_dict(to_diffusers(net.state_dict()))
    x, y = noise_data(config, size, 4)
    t = torch.tensor([1, 10, 500, 1000], device=WHERE)
    torch.testing.assert_close(*(type(n).forward(n, x, t, y) for n in (net, theirs)), rtol=1e-4, atol=1e-4)


# Over time.


LINES = ["ours", "diffusers", "lucidrains", "lucidrains, our DDIM", "our network, diffusers' recipe", "our network, lucidrains' recipe"]


def trained(x: Tensor, y: Tensor, marks: tuple[float, ...], seed: int, walk: int, peers: bool = True) -> Iterator[tuple]:
    """(line, mark, seconds spent, steps done, draw(y, scale, first)) of every contender, or of ours alone, at every mark; `walk` DDIM steps."""
    eps_linear, eps_cosine = (replace(MODEL, timesteps=1000, schedule=schedule, predict="eps") for schedule in ("linear", "cosine"))

    def by_us(config, net):
        model = DDPM(config, net).eval()
        return lambda labels, scale, first: model.sample(len(labels), labels, "ddim", walk, scale=scale, seed=1, first=first)

    for mark in marks:
        torch.manual_seed(seed)
        state, began = TrainState(DDPM(MODEL).to(WHERE), replace(RECIPE, seconds=mark, seed=seed)), time.perf_counter()
        for _ in train(state, x, y):
            pass
        yield LINES[0], mark, time.perf_counter() - began, state.step, by_us(MODEL, state.averaged_model().net)
    if not peers:
        return

    for line, make in ((LINES[1], lambda: Diffusers(DIGITS, 8)), (LINES[4], lambda: UNet(DIGITS))):
        for mark in marks:
            torch.manual_seed(seed)
            net = make().to(WHERE)
            for spent, steps in along(diffusers_recipe(net, x, y, 16, 10, ema=False), [mark]):
                yield line, mark, spent, steps, by_us(eps_linear, net)

    for line, make in ((LINES[2], lambda: lucidrains_unet(DIGITS)), (LINES[5], lambda: InLucidrains(UNet(DIGITS)))):
        torch.manual_seed(seed)
        step, average = lucidrains_recipe(make().to(WHERE), x, y, 16, sampling_timesteps=walk)

        def by_them(labels, scale, first, average=average):
            torch.manual_seed(1 + first)
            return average.eval().sample(labels.to(WHERE), cond_scale=scale, rescaled_phi=0.0) * 2 - 1

        for mark, (spent, steps) in zip(marks, along(step, marks)):
            yield line, mark, spent, steps, by_them
            if line == LINES[2]:
                yield LINES[3], mark, spent, steps, by_us(eps_cosine, LucidrainsView(average.model, 10))


def along(step: Callable[[float], float], marks: list[float]) -> Iterator[tuple[float, int]]:
    """Call step(progress 0 … 1) up to each mark, in seconds, and yield (seconds, steps); while the caller measures, the clock stands still."""
    spent, steps = 0.0, 0
    for mark in marks:
        while spent < mark:
            began = time.perf_counter()
            step(spent / marks[-1])
            spent, steps = spent + time.perf_counter() - began, steps + 1
        yield spent, steps
