"""Algorithm 1, and one object that puts the pieces together, for people in a hurry.

Training, in one breath: take an image x_0, draw a time t and noise ε, make x_t, ask the network for the
noise, and move its weights a little towards the right answer (`loss`).  Nothing is ever walked: the
closed form of forward.py jumps to any t.

    x_0, t, ε  ──►  x_t = q_sample  ──►  net(x_t, t, y)  ──►  ‖target - answer‖²

`DDPM` holds what belongs to one trained model, a network, a schedule, and what the network predicts,
and offers the other files as methods:

    model(x_0, y)      its loss           model.denoiser(y, scale)      itself as a function (x_t, t) → ε̂
    model.sample(n)    images             model.trajectory(n)           the same walk, state by state
    model.add_noise    the forward process    model.interpolate(a, b)   from one image to another
    model.save, DDPM.load                 one file, or a folder in diffusers' layout

It adds no mathematics to them: whatever it does can be written with the functions of the subject, in a
line or two, and the notebooks do so. training/ fits it, evaluation/ measures it, weights/ stores it.

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

from . import checks
from .checks import checked
from .forward import Denoiser, denoiser, q_sample, target
from .guidance import classifier_free, clipped
from .samplers import State, ddim_step, ddpm_step, dpm_solver_2m, final, invert, sample, seeded_noise, slerp, timesteps, timesteps_in_log_snr
from .schedules import Schedule, by_name
from .unet import UNet, UNetConfig
from .weights import PRETRAINED, diffusers_layout
from .weights.files import check_unet, configured, load_weights, read, stored, unwrapped, write


@checked
def loss(net: Callable, schedule: Schedule, x_0: Tensor, eps: Tensor, t: Tensor, y: Tensor | None = None, predict: str = "eps") -> Tensor:
    """[1] eq. 14, Algorithm 1 line 5: the mean squared error of each image, (B,); with "eps" it is ‖ε - ε_θ(x_t, t)‖² / dim.

    It is the bound of likelihood.py with the weight of every t set to 1 ("simple"): the bound cares
    most for the smallest t, where the differences cannot be seen; equal weights make better pictures.
    The best answer to a squared error is an average: of all ε that may have led to this x_t.  So the
    loss does not fall to 0, and how low it can get depends on t far more than on the network.

    The caller draws t (B,), eps and the dropped labels, so that one batch or four micro-batches are the
    same run.  t is 1 … T: `randint(0, T)`, a frequent slip, trains on t = 0, where x_t = x_0 holds no
    noise to be found, and never on T, where every walk begins.
    """
    checks.noisy(t)
    x_t = q_sample(schedule, x_0, eps, t)                                                       # (B, *D)
    times = t.to(x_t.device, non_blocking=x_t.is_cuda)
    out = net(x_t, times) if y is None else net(x_t, times, y)                                  # (B, *D), maybe in 16 bits
    wanted = target(schedule, x_0, eps, t, predict)                                             # (B, *D)
    checks.alike(out=out, target=wanted)                        # or (B, 1) - (B,) would broadcast to (B, B), and train nothing
    wanted = wanted.to(torch.promote_types(wanted.dtype, torch.float32))        # squares are summed in float32 at least; float64 stays
    return (out - wanted).square().flatten(1).mean(1)                                           # (B,)


@checked
def drop_labels(y: Tensor, dropped: Tensor, null: int) -> Tensor:
    """[2] Algorithm 1 line 3: the null label where `dropped` (B,) is true, one decision per image.

    So one network learns both ε_y and ε_∅, which guidance compares.  One decision for the whole batch
    has the same mean and other gradients: a tenth of all steps would see no labels at all.  And the
    null label is a label of its own: with 0 in its place, "nothing" would mean the first class.
    """
    return y.masked_fill(dropped, null)


@dataclass(frozen=True)
class DDPMConfig:
    """What a model is; stored as JSON in the header of its weights.   The defaults are the paper's."""

    image_size: int = 32
    channels: int = 3
    timesteps: int = 1000
    schedule: str = "linear"                                    # linear, cosine, sigmoid, quadratic, flow; "custom" when one is passed in
    predict: str = "eps"                                        # what the network predicts: eps, x0, v or velocity
    clip: bool = True                                           # clamp x̂_0 to [-1, 1] while sampling
    num_classes: int | None = None
    p_uncond: float = 0.1                                       # share of labels dropped in training, for classifier-free guidance
    unet: UNetConfig | None = None                              # default: UNetConfig(channels=…, num_classes=…)
    classes: tuple[str, ...] = ()                               # names of the labels 0, 1, …

    def __post_init__(self):
        unet = self.unet or UNetConfig(channels=self.channels, num_classes=self.num_classes)
        object.__setattr__(self, "unet", UNetConfig(**unet) if isinstance(unet, dict) else unet)
        object.__setattr__(self, "classes", tuple(self.classes))                # a list, as JSON gives it
        checks.ddpm_config(self, UNetConfig)


class DDPM(nn.Module):
    """`model(x_0, y)` is the loss, `model.sample(n, y)` draws images.  It adds no mathematics to the other files.

    net: your own noise model net(x_t, t), or net(x_t, t, y) with labels;  schedule: your own Schedule.
    """

    def __init__(self, config: DDPMConfig = DDPMConfig(), net: nn.Module | None = None, schedule: Schedule | None = None):
        super().__init__()
        if not isinstance(config, DDPMConfig):
            raise TypeError(f"config is {config!r}; it must be a DDPMConfig (DDPM.load opens a file, or one that comes with the package)")
        checks.model(config, net, schedule)
        self.schedule = by_name(config.schedule, config.timesteps) if schedule is None else schedule
        self.config = config if schedule is None else replace(config, schedule="custom", timesteps=schedule.T)
        self.net = UNet(config.unet) if net is None else net

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.config.channels, self.config.image_size, self.config.image_size

    @property
    def device(self) -> torch.device:
        """Where the network is; what comes from outside is brought there."""
        return next((p.device for p in self.net.parameters()), torch.device("cpu"))

    # Training.

    def forward(self, x_0: Tensor, y: Tensor | None = None) -> Tensor:
        """The training loss of a batch x_0 (B, C, H, W) in [-1, 1]: draws t, ε and the dropped labels.   → ()"""
        x_0 = self._images(x_0)
        t = torch.randint(1, self.schedule.T + 1, (len(x_0),))                  # on the CPU, where the schedule is; both ends are drawn
        y = self._labels(len(x_0), y, null=False)
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
        checks.guided(y, scale)
        checks.same_chain(unwrapped(self.net), self.schedule.T)
        make = partial(denoiser, self.net, self.schedule, predict=self.config.predict)
        y = None if y is None else self._labels(torch.as_tensor(y).numel(), y)
        eps = make() if y is None else classifier_free(make(y), make(torch.full_like(y, self.config.num_classes)), scale)
        return clipped(eps, self.schedule) if (self.config.clip if clip is None else clip) else eps

    @checked
    def sample(self, n: int, y: int | Tensor | None = None, sampler: str = "ddpm", steps: int | None = None, eta: float = 0.0, scale: float = 1.0,
               seed: int = 0, clip: bool | None = None, variance: str = "small", spacing: str = "even", first: int = 0, batch: int = 250) -> Tensor:
        """Images number first … first+n-1 of this seed, (n, C, H, W) in [-1, 1].

        sampler: ddpm (with its variance), ddim (with its eta) or dpm++ (second order; few steps);
        spacing of the times: even (in t) or log-snr.  Image i is a function of (seed, i, y_i) and of
        nothing else: `batch` only bounds the memory, and image 7 of a thousand is image 7 of ten.
        """
        y, images = self._labels(n, y), []
        for i in range(0, n, batch):
            part = slice(i, min(i + batch, n))
            walk = self._walk(range(first + part.start, first + part.stop), None if y is None else y[part], sampler, steps, eta, scale, seed, clip, variance,
                              spacing)
            images.append(final(walk))
        return torch.cat(images).clamp(-1, 1)

    @checked
    def trajectory(self, n: int, y: int | Tensor | None = None, sampler: str = "ddpm", steps: int | None = None, eta: float = 0.0, scale: float = 1.0,
                   seed: int = 0, clip: bool | None = None, variance: str = "small", spacing: str = "even") -> Iterator[State]:
        """The same walk as `sample`, state by state: `final(trajectory(…))` is what `sample` returns, but for its last clamp."""
        return self._walk(range(n), self._labels(n, y), sampler, steps, eta, scale, seed, clip, variance, spacing)

    def _walk(self, indices, y, sampler, steps, eta, scale, seed, clip, variance, spacing):
        noise = seeded_noise(seed, indices, self.shape)
        x_T = noise(self.schedule.T).to(self.device)                            # (n, C, H, W) ~ N(0, I)
        step = {"ddpm": partial(ddpm_step, variance=variance), "ddim": partial(ddim_step, eta=eta), "dpm++": dpm_solver_2m()}[sampler]
        times = timesteps(self.schedule.T, steps) if spacing == "even" else timesteps_in_log_snr(self.schedule, steps)
        return sample(self.denoiser(y, scale, clip), self.schedule, x_T, step, times=times, noise=noise if sampler == "ddpm" or eta else None)

    @checked
    def interpolate(self, a: Tensor, b: Tensor, n: int = 9, y: int | Tensor | None = None, sampler: str = "ddim", steps: int | None = None,
                    t: int | None = None, seed: int = 0) -> Tensor:
        """n images from a (C, H, W) to b, (n, C, H, W).

        ddim: invert both to x_T, walk along the arc between them, and come back ([3] section 5.3), in
        `steps` steps each way. ddpm: noise both to time t (default T/2), mix linearly, and denoise
        every mixture with the same z ([1] Figure 8).  Both get the same ε, where the paper draws two:
        so the mixture keeps its variance.
        """
        both, weight, y = self._images(torch.stack([a, b])), torch.linspace(0, 1, n), self._labels(n, y)        # (2, C, H, W), (n,), (n,)
        if sampler == "ddim":
            ends = final(invert(self.denoiser(None if y is None else y[[0, -1]], clip=False), self.schedule, both, steps))
            x_T = slerp(ends[0], ends[1], weight)                               # (n, C, H, W)
            return final(sample(self.denoiser(y, clip=False), self.schedule, x_T, ddim_step, steps)).clamp(-1, 1)
        t = (self.schedule.T + 1) // 2 if t is None else t
        same = seeded_noise(seed, [0], self.shape)                              # one z for all, or neighbours would not look alike
        x_t, _ = self.add_noise(both, t, same(t).to(both).expand_as(both))
        mixed = torch.lerp(x_t[:1].expand(n, -1, -1, -1), x_t[1:].expand(n, -1, -1, -1), weight.to(both).view(-1, 1, 1, 1))
        walk = sample(self.denoiser(y), self.schedule, mixed, ddpm_step, times=range(t, -1, -1), noise=lambda t: same(t).expand(n, -1, -1, -1))
        return final(walk).clamp(-1, 1)

    def _images(self, x_0: Tensor) -> Tensor:
        checks.images(x_0, self.shape)
        return x_0.to(self.device)

    def _labels(self, n: int, y: int | Tensor | None, null: bool = True) -> Tensor | None:
        """Labels as (n,) int64 on the model's device, or None."""
        if y is None:
            return None
        y = torch.as_tensor(y)
        y = y.expand(n) if y.ndim == 0 else y
        checks.labels(y, n, self.config.num_classes, null)
        return y.long().to(self.device)

    # Weights.

    def save(self, path: str | Path, half: bool = False) -> Path:
        """Write weights and config to one safetensors file; half: in float16, half as large, each weight to three digits."""
        net = unwrapped(self.net)
        tensors = {f"net.{k}": v for k, v in stored(net.state_dict(), half).items()}
        if self.config.schedule == "custom":
            tensors["alpha_bar"] = self.schedule.alpha_bar
        header = {"config": asdict(self.config), "net": type(net).__name__, "trained_T": getattr(net, "trained_T", None)}
        return write(path, tensors, "weights", header)

    @classmethod
    def load(cls, path: str | Path, net: nn.Module | None = None) -> "DDPM":
        """The model that `save` wrote, in float32 on the CPU; or one that comes with the package, by name: "digits" or "mnist".

        A folder is taken for a model in diffusers' layout, such as google/ddpm-cifar10-32: see
        `weights.diffusers_layout`.  A model with your own network needs that network: load(path,
        net=…).
        """
        path = PRETRAINED.get(path, path)
        if Path(path).is_dir():
            settings, schedule, weights = diffusers_layout.read(path)
            header: dict = {}
        else:
            tensors, header = read(path, "weights")
            if header.get("net") != "UNet" and net is None:
                raise ValueError(f"{path} holds the weights of your own network {header.get('net')}: build it, and pass it as net=…")
            schedule = Schedule(tensors.pop("alpha_bar")) if "alpha_bar" in tensors else None
            settings, weights = header.get("config"), {k.removeprefix("net."): v for k, v in tensors.items()}
        config = configured(DDPMConfig, settings, path)
        if net is None:
            check_unet(config.unet, weights, path)              # before anything of that size is allocated
        model = cls(config, net, schedule)
        load_weights(model.net, weights, path)
        unwrapped(model.net).trained_T = header.get("trained_T") or model.schedule.T            # type: ignore[assignment]
        return model.eval()
