"""Algorithm 1, and one object that puts the pieces together, for people in a hurry.

[1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. arXiv:2006.11239
[2] Ho, Salimans. Classifier-Free Diffusion Guidance. arXiv:2207.12598
[3] Song, Meng, Ermon. Denoising Diffusion Implicit Models. arXiv:2010.02502
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from .checks import a_schedule, described, integer, number
from .forward import PREDICTIONS, Denoiser, alike, denoiser, functions, noisy, q_sample, target
from .guidance import classifier_free, clipped
from .samplers import State, ddim_step, ddpm_step, final, invert, sample, seeded_noise, slerp, timesteps
from .schedules import Schedule, by_name
from .unet import UNet, UNetConfig
from .weights import PRETRAINED, diffusers_layout
from .weights.files import load_weights, read, stored, write


def loss(net: Callable, schedule: Schedule, x_0: Tensor, eps: Tensor, t: Tensor, y: Tensor | None = None, predict: str = "eps") -> Tensor:
    """[1] eq. 14, Algorithm 1 line 5: the mean squared error of each image, (B,); with "eps" it is ‖ε - ε_θ(x_t, t)‖² / dim.

    The caller draws t (B,), eps and the dropped labels, so that one batch or four micro-batches are the same run.
    """
    functions(net=net)
    if not isinstance(t, Tensor):
        raise TypeError(f"t is {t!r}; the loss takes one time for each image, a tensor (B,)")
    noisy(t)                                                    # randint(0, T) draws it: x_t = x_0 then, and there is no ε to be found
    x_t = q_sample(schedule, x_0, eps, t)
    times = t.to(x_t.device, non_blocking=x_t.is_cuda)
    out = net(x_t, times) if y is None else net(x_t, times, y)
    wanted = target(schedule, x_0, eps, t, predict)
    alike(out=out, target=wanted)
    wanted = wanted.to(torch.promote_types(wanted.dtype, torch.float32))        # squares are summed in float32 at least, and float64 stays what it is
    return (out - wanted).square().flatten(1).mean(1)


def drop_labels(y: Tensor, dropped: Tensor, null: int) -> Tensor:
    """[2] Algorithm 1 line 3: the null label where `dropped` (B,) is true, one decision per image."""
    if not isinstance(y, Tensor) or not isinstance(dropped, Tensor) or dropped.shape != y.shape or dropped.dtype != torch.bool:
        raise ValueError(f"dropped is {described(dropped)} and y {described(y)}; there must be one bool for each label, in tensors (B,)")
    null = integer(null, "null", 0)
    return y.masked_fill(dropped, null)


@dataclass(frozen=True)
class DDPMConfig:
    """What a model is; stored as JSON in the header of its weights."""

    image_size: int = 32
    channels: int = 3
    timesteps: int = 1000
    schedule: str = "linear"                                    # linear, cosine, sigmoid, quadratic; "custom" when one is passed in
    predict: str = "eps"                                        # what the network predicts: eps, x0 or v
    clip: bool = True                                           # clamp x̂_0 to [-1, 1] while sampling
    num_classes: int | None = None
    p_uncond: float = 0.1                                       # share of labels dropped in training, for classifier-free guidance
    unet: UNetConfig | None = None                              # default: UNetConfig(channels=…, num_classes=…)

    def __post_init__(self):
        unet = self.unet or UNetConfig(channels=self.channels, num_classes=self.num_classes)
        object.__setattr__(self, "unet", UNetConfig(**unet) if isinstance(unet, dict) else unet)
        if self.predict not in PREDICTIONS:
            raise ValueError(f"unknown prediction {self.predict!r}; choose one of {', '.join(PREDICTIONS)}")
        if not isinstance(self.unet, UNetConfig):
            raise TypeError(f"unet is {self.unet!r}; it must be a UNetConfig")
        number(self.p_uncond, "p_uncond", 0, 1)
        if (self.unet.channels, self.unet.num_classes) != (self.channels, self.num_classes):
            raise ValueError(f"the U-Net is for {self.unet.channels} channels and {self.unet.num_classes} classes, "
                             f"the model for {self.channels} and {self.num_classes}")
        integer(self.image_size, "image_size")


class DDPM(nn.Module):
    """`model(x_0, y)` is the loss, `model.sample(n, y)` draws images.  It adds no mathematics to the other files.

    net: your own noise model net(x_t, t), or net(x_t, t, y) with labels;  schedule: your own Schedule.
    """

    def __init__(self, config: DDPMConfig = DDPMConfig(), net: nn.Module | None = None, schedule: Schedule | None = None):
        super().__init__()
        if not isinstance(config, DDPMConfig):
            raise TypeError(f"config is {config!r}; it must be a DDPMConfig (DDPM.load opens a file, or one that comes with the package)")
        if schedule is not None:
            a_schedule(schedule)
        self.schedule = by_name(config.schedule, config.timesteps) if schedule is None else schedule
        self.config = config if schedule is None else replace(config, schedule="custom", timesteps=schedule.T)
        least = 2 ** (len(config.unet.mults) - 1)
        if net is None and config.image_size % least:
            raise ValueError(f"image_size is {config.image_size}; the U-Net's {len(config.unet.mults)} levels need a multiple of {least}")
        self.net = UNet(config.unet) if net is None else net

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.config.channels, self.config.image_size, self.config.image_size

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.net.parameters()), torch.device("cpu"))

    # Training.

    def forward(self, x_0: Tensor, y: Tensor | None = None) -> Tensor:
        """The training loss of a batch x_0 (B, C, H, W) in [-1, 1]: draws t, ε and the dropped labels.   → ()"""
        x_0 = self._images(x_0)
        t = torch.randint(1, self.schedule.T + 1, (len(x_0),))                  # on the CPU, where the schedule is; both ends are drawn
        y = self._labels(len(x_0), y)
        if y is not None:
            y = drop_labels(y, torch.rand(len(y), device=y.device) < self.config.p_uncond, self.config.num_classes)
        return loss(self.net, self.schedule, x_0, torch.randn_like(x_0), t, y, self.config.predict).mean()

    def add_noise(self, x_0: Tensor, t: int | Tensor, eps: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Diffuse x_0 to time t: (x_t, the ε that was added)."""
        eps = torch.randn_like(x_0) if eps is None and x_0.is_floating_point() else eps
        return q_sample(self.schedule, x_0, eps, t), eps

    # Sampling.

    def denoiser(self, y: Tensor | None = None, scale: float = 1.0, clip: bool | None = None) -> Denoiser:
        """This model as a function of (x_t, t): with labels y (B,), guided by `scale`, clipped unless told otherwise."""
        if y is None and scale not in (0, 1):
            raise ValueError(f"scale is {scale}, but there are no labels to be guided by: pass y")
        y = None if y is None else self._labels(torch.as_tensor(y).numel(), y)
        make = partial(denoiser, self.net, self.schedule, predict=self.config.predict)
        if y is None:
            eps = make()
        else:
            eps = classifier_free(make(y), make(torch.full_like(y, self.config.num_classes)), scale)
        return clipped(eps, self.schedule) if (self.config.clip if clip is None else clip) else eps

    def sample(self, n: int, y: int | Tensor | None = None, sampler: str = "ddpm", steps: int | None = None, eta: float = 0.0,
               scale: float = 1.0, seed: int = 0, clip: bool | None = None, variance: str = "small", first: int = 0, batch: int = 250) -> Tensor:
        """Images number first … first+n-1 of this seed, (n, C, H, W) in [-1, 1].

        Image i is a function of (seed, i, y_i) and of nothing else: `batch` only bounds the memory.
        """
        n, batch, first = integer(n, "n"), integer(batch, "batch"), integer(first, "first", least=0)
        y = self._labels(n, y)
        images = []
        for i in range(0, n, batch):
            part = slice(i, min(i + batch, n))
            walk = self._walk(range(first + part.start, first + part.stop), None if y is None else y[part], sampler, steps, eta, scale, seed, clip, variance)
            images.append(final(walk))
        return torch.cat(images).clamp(-1, 1)

    def trajectory(self, n: int, y: int | Tensor | None = None, sampler: str = "ddpm", steps: int | None = None, eta: float = 0.0,
                   scale: float = 1.0, seed: int = 0, clip: bool | None = None, variance: str = "small") -> Iterator[State]:
        """The same walk as `sample`, state by state: `final(trajectory(…))` is what `sample` returns, but for its last clamp."""
        n = integer(n, "n")
        return self._walk(range(n), self._labels(n, y), sampler, steps, eta, scale, seed, clip, variance)

    def interpolate(self, a: Tensor, b: Tensor, n: int = 9, y: int | Tensor | None = None, sampler: str = "ddim", steps: int | None = None,
                    t: int | None = None, seed: int = 0) -> Tensor:
        """n images from a (C, H, W) to b, (n, C, H, W).

        ddim: invert both to x_T, walk along the arc between them, and come back ([3] section 5.3), in `steps` steps each way.
        ddpm: noise both to time t (default T/2), mix linearly, and denoise every mixture with the same z ([1] Figure 8).  Both get the
        same ε, where the paper draws two: so the mixture keeps its variance.
        """
        if (t if _sampler(sampler) == "ddim" else steps) is not None:
            raise ValueError("steps belongs to sampler='ddim' (steps each way), t to sampler='ddpm' (how far to noise, and every step back)")
        alike(a=a, b=b)
        n = integer(n, "n")
        both, weight, y = self._images(torch.stack([a, b])), torch.linspace(0, 1, n), self._labels(n, y)
        if sampler == "ddim":
            ends = final(invert(self.denoiser(None if y is None else y[[0, -1]], clip=False), self.schedule, both, steps))
            x_T = slerp(ends[0], ends[1], weight)
            return final(sample(self.denoiser(y, clip=False), self.schedule, x_T, ddim_step, steps)).clamp(-1, 1)
        t = (self.schedule.T + 1) // 2 if t is None else t
        same = seeded_noise(seed, [0], self.shape)
        x_t, _ = self.add_noise(both, t, same(t).to(both).expand_as(both))
        mixed = torch.lerp(x_t[:1].expand(n, -1, -1, -1), x_t[1:].expand(n, -1, -1, -1), weight.to(both).view(-1, 1, 1, 1))
        walk = sample(self.denoiser(y), self.schedule, mixed, ddpm_step, times=range(t, -1, -1), noise=lambda t: same(t).expand(n, -1, -1, -1))
        return final(walk).clamp(-1, 1)

    def _walk(self, indices, y, sampler, steps, eta, scale, seed, clip, variance):
        if sampler == "ddpm" and eta:
            raise ValueError("eta belongs to sampler='ddim'; DDPM's own noise is eta = 1")
        if sampler == "ddim" and variance != "small":
            raise ValueError("variance belongs to sampler='ddpm'; DDIM's noise is eta")
        timesteps(self.schedule.T, steps)                       # complains before anything is drawn
        eta = number(eta, "eta", 0, 1)
        if variance not in ("small", "large"):
            raise ValueError(f"unknown variance {variance!r}; choose small (β̃) or large (β)")
        noise = seeded_noise(seed, indices, self.shape)
        x_T = noise(self.schedule.T).to(self.device)
        step = {"ddpm": partial(ddpm_step, variance=variance), "ddim": partial(ddim_step, eta=eta)}[_sampler(sampler)]
        return sample(self.denoiser(y, scale, clip), self.schedule, x_T, step, steps, noise=noise if sampler == "ddpm" or eta else None)

    # Checks.

    def _images(self, x_0):
        if not isinstance(x_0, Tensor) or x_0.shape[1:] != self.shape or not x_0.is_floating_point():
            raise ValueError(f"images are {described(x_0)}; this model takes float (B, {', '.join(map(str, self.shape))}) "
                             "in [-1, 1]: see data.normalise")
        if not x_0.is_cuda and not x_0.isfinite().all():
            raise ValueError("the images hold NaN or infinity")
        if not x_0.is_cuda and len(x_0) and (most := x_0.abs().max().item()) > 1.5:
            raise ValueError(f"the images reach ±{most:.3g}; this model takes [-1, 1]: see data.normalise")
        return x_0.to(self.device)

    def _labels(self, n: int, y: int | Tensor | None) -> Tensor | None:
        """Labels as (n,) int64 on the model's device, or None."""
        if y is None:
            return None
        if self.config.num_classes is None:
            raise ValueError("labels were given, but this model has num_classes=None")
        y = torch.as_tensor(y)
        y = y.expand(n) if y.ndim == 0 else y
        if y.shape != (n,) or y.is_floating_point():
            raise ValueError(f"y is {y.dtype} {tuple(y.shape)}; it must be one integer label, or {n} of them")
        if not y.is_cuda and not (0 <= y.min() and y.max() <= self.config.num_classes):
            raise ValueError(f"labels must lie in 0 … {self.config.num_classes - 1} ({self.config.num_classes} is the null label); "
                             f"given {y.min()} … {y.max()}")
        return y.long().to(self.device)

    # Weights.

    def save(self, path: str | Path, half: bool = False) -> Path:
        """Write weights and config to one safetensors file; half: in float16, half as large, each weight to three digits."""
        tensors = {f"net.{k}": v for k, v in stored(self.net.state_dict(), half).items()}
        if self.config.schedule == "custom":
            tensors["alpha_bar"] = self.schedule.alpha_bar
        header = {"config": asdict(self.config), "net": type(self.net).__name__}
        return write(path, tensors, "weights", header)

    @classmethod
    def load(cls, path: str | Path, net: nn.Module | None = None) -> "DDPM":
        """The model that `save` wrote, in float32 on the CPU; or one that comes with the package, by name: "digits" or "mnist".

        A folder is taken for a model in diffusers' layout, such as google/ddpm-cifar10-32: see `weights.diffusers_layout`.
        A model with your own network needs that network: load(path, net=…).
        """
        path = PRETRAINED.get(path, path)
        if Path(path).is_dir():
            settings, schedule, weights = diffusers_layout.read(path)
        else:
            tensors, header = read(path, "weights")
            if header["net"] != "UNet" and net is None:
                raise ValueError(f"{path} holds the weights of your own network {header['net']}: build it, and pass it as net=…")
            schedule = Schedule(tensors.pop("alpha_bar")) if "alpha_bar" in tensors else None
            settings, weights = header["config"], {k.removeprefix("net."): v for k, v in tensors.items()}
        model = cls(DDPMConfig(**settings), net, schedule)
        load_weights(model.net, weights, path)
        return model.eval()


def _sampler(name: str) -> str:
    if name not in ("ddpm", "ddim"):
        raise ValueError(f"unknown sampler {name!r}; choose ddpm or ddim")
    return name
