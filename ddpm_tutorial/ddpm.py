"""Algorithm 1, and one object that puts the pieces together, for people in a hurry.

Training, in one breath: take an image x_0, draw a time t and noise ε, make x_t, ask the network for
the noise, and move its weights a little towards the right answer (`loss`).  Nothing is ever walked:
the closed form of forward.py jumps to any t.

    x_0, t, ε  ──►  x_t = q_sample  ──►  net(x_t, t, y)  ──►  ‖target - answer‖²

`DDPM` holds what belongs to one trained model, a network, a schedule, and what the network
predicts, and offers the other files as methods:

    model(x_0, y)      its loss           model.denoiser(y, scale)      itself as a function (x_t, t) → ε̂
    model.sample(n)    images             model.trajectory(n)           the same walk, state by state
    model.add_noise    the forward process    model.interpolate(a, b)   from one image to another
    model.save, DDPM.load                 one file; load opens a folder in diffusers' layout, too

For example:

    model = DDPM(DDPMConfig(image_size=8, channels=1, num_classes=10))
    model(x_0, y).backward()                                   # x_0 (B, 1, 8, 8) in [-1, 1], y (B,)
    images = model.sample(4, y=3, scale=2.0)                   # four threes, once it is trained
    model.save("threes.safetensors")

It adds no mathematics to them: whatever it does can be written with the functions of the subject,
in a line or two, and the notebooks do so. training/ fits it, evaluation/ measures it, weights/
stores it.

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

    Like any regression: the answer is a tensor like x_0, and so is what it is held against.

    It is the bound of likelihood.py with the weight of every t set to 1 ("simple"): the bound cares
    most for the smallest t, where the differences cannot be seen; equal weights make better
    pictures.  The best answer to a squared error is an average: of all ε that may have led to this
    x_t.  So the loss does not fall to 0, and how low it can get depends on t far more than on the
    network.

    The caller draws t (B,), eps and the dropped labels, so that one batch or four micro-batches are
    the same run.  t is 1 … T: `randint(0, T)`, a frequent slip, trains on t = 0, where x_t = x_0
    holds no noise to be found, and never on T, where every walk begins.
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

    So one network learns both ε_y and ε_∅, which guidance compares.  One decision for the whole
    batch has the same mean and other gradients: a tenth of all steps would see no labels at all.
    And the null label is a label of its own: with 0 in its place, "nothing" would mean the first
    class.
    """
    return y.masked_fill(dropped, null)


@dataclass(frozen=True)
class DDPMConfig:
    """What a model is; stored as JSON in the header of its weights.

    What must be the same when the weights are used again, with two companions: p_uncond, which
    training uses, and clip, a default for sampling.  The rest of training is `TrainConfig`'s, the
    rest of sampling is said when sampling.  T, schedule, prediction and clip are the paper's by
    default; the network is a small one (the paper's is `UNetConfig.cifar10()`).
    """

    image_size: int = 32                                        # pixels a side
    channels: int = 3                                           # 1 grey, 3 colour
    timesteps: int = 1000                                       # T: the network knows times by their number
    schedule: str = "linear"                                    # linear, cosine, sigmoid, quadratic, flow; "custom" when one is passed in
    predict: str = "eps"                                        # what the network predicts: eps, x0, v or velocity
    clip: bool = True                                           # clamp x̂_0 to [-1, 1] while sampling
    num_classes: int | None = None                              # labels 0 … num_classes-1; None: a model without labels
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

    net: your own noise model net(x_t, t), or net(x_t, t, y) with labels;  schedule: your own
    Schedule.

    What belongs together is kept together: a network trained for one schedule, or to predict v, is
    noise under another.  That is the most frequent reason why somebody else's weights "do not
    work", and why config and weights are one file.
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
        """Where the network is; what comes from outside is brought there.

        (A network without parameters, such as a formula, is on the CPU.)
        """
        return next((p.device for p in self.net.parameters()), torch.device("cpu"))

    # Training.  One batch; the loop around it is training/loop.py.

    def forward(self, x_0: Tensor, y: Tensor | None = None) -> Tensor:
        """The training loss of a batch x_0 (B, C, H, W) in [-1, 1]: draws t, ε and the dropped labels.   → ()

        Algorithm 1, lines 2 to 5, for people who write their own training loop around it:
        `model(x_0, y).backward()`.  (training/ draws t and ε itself, as a function of the step.)
        """
        x_0 = self._images(x_0)                                                 # line 2: x_0 ~ q(x_0), brought by the caller
        t = torch.randint(1, self.schedule.T + 1, (len(x_0),))                  # line 3: on the CPU, where the schedule is; both ends are drawn
        y = self._labels(len(x_0), y, null=False)
        if y is not None:
            y = drop_labels(y, torch.rand(len(y), device=y.device) < self.config.p_uncond, self.config.num_classes)    # a coin for each image
        return loss(self.net, self.schedule, x_0, torch.randn_like(x_0), t, y, self.config.predict).mean()             # lines 4 and 5

    def add_noise(self, x_0: Tensor, t: int | Tensor, eps: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Diffuse x_0 to time t: (x_t, the ε that was added), since whoever wants to test a denoiser needs both."""
        eps = torch.randn_like(x_0) if eps is None and x_0.is_floating_point() else eps         # (B, C, H, W)
        return q_sample(self.schedule, x_0, eps, t), eps

    # Sampling.  Everything below makes a denoiser of this model, and hands it to samplers.py.

    def denoiser(self, y: Tensor | None = None, scale: float = 1.0, clip: bool | None = None) -> Denoiser:
        """This model as a function of (x_t, t): with labels y (B,), guided by `scale`, clipped unless told otherwise.

        The whole of guidance is the order of these lines: two denoisers from one network, a line
        through their answers, and x̂_0 clamped last, since it is the guided answer that overshoots.
        """
        checks.guided(y, scale)
        checks.same_chain(unwrapped(self.net), self.schedule.T)
        make = partial(denoiser, self.net, self.schedule, predict=self.config.predict)          # labels → denoiser
        y = None if y is None else self._labels(torch.as_tensor(y).numel(), y)                  # (B,)
        eps = make() if y is None else classifier_free(make(y), make(torch.full_like(y, self.config.num_classes)), scale)
        return clipped(eps, self.schedule) if (self.config.clip if clip is None else clip) else eps

    @checked
    def sample(self, n: int, y: int | Tensor | None = None, sampler: str = "dpm++", steps: int | None = None, eta: float = 0.0, scale: float = 1.0,
               seed: int = 0, clip: bool | None = None, variance: str = "small", spacing: str | None = None, times: list[int] | None = None, first: int = 0,
               batch: int = 250) -> Tensor:
        """Images number first … first+n-1 of this seed, (n, C, H, W) in [-1, 1].

        y         labels, one for all or (n,); None: the null label everywhere
        sampler   dpm++: second order, few calls (how few, measured: benchmarks/calls.md);
                  ddim: the first-order walk, with its eta;  ddpm: the paper's chain, with its variance
        steps     calls of the network in a walk, 1 … T; default 20, and all T for ddpm
        spacing   of their times: log-snr or even (in t); default: log-snr for dpm++, even for the others
        times     or a list of your own, T > … > 0, instead of steps and spacing
        eta       DDIM's noise: 0 none … 1 as much as DDPM;   variance: DDPM's, small (β̃) or large (β)
        scale     guidance: 0 forgets y, 1 takes it as it was learnt, more than 1 sharpens
        seed      the other arguments being equal, image i depends on (seed, i, y_i) only, up to rounding:
                  image 7 of a thousand is image 7 of ten, and can be drawn alone with first=7, n=1
        clip      clamp x̂_0 to [-1, 1] on the way; default: as the model was made
        batch     images at a time: it bounds the memory, and changes nothing but rounding

        ValueError or TypeError, before anything is drawn, where one of them cannot be.
        """
        y, images = self._labels(n, y), []
        for i in range(0, n, batch):
            part = slice(i, min(i + batch, n))                                  # these images, by their numbers
            walk = self._walk(range(first + part.start, first + part.stop), None if y is None else y[part], sampler, steps, eta, scale, seed, clip, variance,
                              spacing, times)
            images.append(final(walk))                                          # (≤ batch, C, H, W)
        return torch.cat(images).clamp(-1, 1)                                   # the last step may end a little outside

    @checked
    def trajectory(self, n: int, y: int | Tensor | None = None, sampler: str = "dpm++", steps: int | None = None, eta: float = 0.0, scale: float = 1.0,
                   seed: int = 0, clip: bool | None = None, variance: str = "small", spacing: str | None = None,
                   times: list[int] | None = None) -> Iterator[State]:
        """The same walk as `sample`, state by state: `final(trajectory(…))` is what `sample` returns, but for its last clamp.

        For films and for looking inside:  [state.x_0 for state in model.trajectory(1, y=3)]  is how the
        model's idea of the picture changes on the way.
        """
        return self._walk(range(n), self._labels(n, y), sampler, steps, eta, scale, seed, clip, variance, spacing, times)

    def _walk(self, indices, y, sampler, steps, eta, scale, seed, clip, variance, spacing, times):
        """One walk of the images with these numbers: where it starts, which step, at which times, asked of which denoiser.

        The step is made anew for each walk, since the second-order one remembers.  Noise is handed
        on to the steps that draw some and to no others, so that x_T is the only thing random about
        DDIM.
        """
        noise = seeded_noise(seed, indices, self.shape)                         # first x_T, then each step's z, from the image's own stream
        x_T = noise(self.schedule.T).to(self.device)                            # (n, C, H, W) ~ N(0, I)
        step = {"ddpm": partial(ddpm_step, variance=variance), "ddim": partial(ddim_step, eta=eta), "dpm++": dpm_solver_2m()}[sampler]
        steps = steps or (self.schedule.T if sampler == "ddpm" else min(20, self.schedule.T))
        even = spacing == "even" or (spacing is None and sampler != "dpm++")
        if times is None:
            times = timesteps(self.schedule.T, steps) if even else timesteps_in_log_snr(self.schedule, steps)
        return sample(self.denoiser(y, scale, clip), self.schedule, x_T, step, times=times, noise=noise if sampler == "ddpm" or eta else None)

    @checked
    def interpolate(self, a: Tensor, b: Tensor, n: int = 9, y: int | Tensor | None = None, sampler: str = "ddim", steps: int | None = None,
                    t: int | None = None, seed: int = 0) -> Tensor:
        """n images from a (C, H, W) to b, (n, C, H, W).

        ddim: invert both to x_T, walk along the arc between them, and come back ([3] section 5.3),
        in `steps` steps each way.  The images between are as sharp as the ends, and the ends come
        back.

        ddpm: noise both to time t (default T/2), mix linearly, and denoise every mixture with the
        same z ([1] Figure 8).  Both get the same ε, where the paper draws two: so the mixture keeps
        its variance.  The larger t, the less is left of a and b, and the freer the images between.
        """
        checks.choice(sampler, "sampler of interpolate", ("ddim", "ddpm"))
        # Between a and b, ends included; a label for each of the n, or one for all.
        both, weight, y = self._images(torch.stack([a, b])), torch.linspace(0, 1, n), self._labels(n, y)        # (2, C, H, W), (n,), (n,)
        if sampler == "ddim":
            # DDIM without noise is one-to-one: up from the two images, along the arc, down again.  (A clamp on the way is not one-to-one.)
            ends = final(invert(self.denoiser(None if y is None else y[[0, -1]], clip=False), self.schedule, both, steps))
            x_T = slerp(ends[0], ends[1], weight)                               # (n, C, H, W)
            return final(sample(self.denoiser(y, clip=False), self.schedule, x_T, ddim_step, steps)).clamp(-1, 1)
        # DDPM: so much noise that the two can be mixed, and not so much that nothing is left of them.
        t = (self.schedule.T + 1) // 2 if t is None else t
        same = seeded_noise(seed, [0], self.shape)                              # one z for all, or neighbours would not look alike
        x_t, _ = self.add_noise(both, t, same(t).to(both).expand_as(both))      # (2, C, H, W), with one ε
        mixed = torch.lerp(x_t[:1].expand(n, -1, -1, -1), x_t[1:].expand(n, -1, -1, -1), weight.to(both).view(-1, 1, 1, 1))
        walk = sample(self.denoiser(y), self.schedule, mixed, ddpm_step, times=range(t, -1, -1), noise=lambda t: same(t).expand(n, -1, -1, -1))
        return final(walk).clamp(-1, 1)                                         # (n, C, H, W)

    def _images(self, x_0: Tensor) -> Tensor:
        """Images of this model's size in [-1, 1], on its device.  (Left in [0, 1], a frequent slip, they are a half-grey world.)"""
        checks.images(x_0, self.shape)
        return x_0.to(self.device)

    def _labels(self, n: int, y: int | Tensor | None, null: bool = True) -> Tensor | None:
        """Labels as (n,) int64 on the model's device, or None.

        null: whether the null label may be among them.  While training it may not: labels that
        begin at 1 would train without complaint, and the last class would quietly become "no
        class".
        """
        if y is None:
            return None
        y = torch.as_tensor(y)
        y = y.expand(n) if y.ndim == 0 else y
        checks.labels(y, n, self.config.num_classes, null)
        return y.long().to(self.device)

    # Weights.  What the file holds, and how it is read, is weights/files.py's.

    def save(self, path: str | Path, half: bool = False) -> Path:
        """Write weights and config to one safetensors file; half: in float16, half as large, each weight to three digits.

        safetensors and never pickle: a pickle is a program, and opening somebody's weights would
        run it.  A schedule of your own is stored with them; without it they would be weights for
        another diffusion.
        """
        # Out of torch.compile or DataParallel: their names for the weights fit no plain network.
        net = unwrapped(self.net)
        tensors = {f"net.{k}": v for k, v in stored(net.state_dict(), half).items()}            # under net., so that there is room for others
        if self.config.schedule == "custom":
            tensors["alpha_bar"] = self.schedule.alpha_bar      # a named schedule is a name; this one is its numbers
        header = {"config": asdict(self.config), "net": type(net).__name__, "trained_T": getattr(net, "trained_T", None)}
        return write(path, tensors, "weights", header)

    @classmethod
    def load(cls, path: str | Path, net: nn.Module | None = None) -> "DDPM":
        """The model that `save` wrote, in float32 on the CPU; or one that comes with the package, by name: "digits" or "mnist".

        The file says everything: config, schedule, weights.  They are held against each other
        before anything is built, and a file that was cut short, changed or meant for something else
        is refused with a sentence that names it.  The model comes in eval mode, on the CPU:
        `.to(device)`, `.train()`.

        A folder is taken for a model in diffusers' layout, such as google/ddpm-cifar10-32: see
        `weights.diffusers_layout`.  A model with your own network needs that network: load(path,
        net=…).
        """
        path = PRETRAINED.get(path, path)                       # a name that comes with the package, or a path
        if Path(path).is_dir():
            settings, schedule, weights = diffusers_layout.read(path)
            header: dict = {}
        else:
            tensors, header = read(path, "weights")
            if header.get("net") != "UNet" and net is None:
                raise ValueError(f"{path} holds the weights of your own network {header.get('net')}: build it, and pass it as net=…")
            schedule = Schedule(tensors.pop("alpha_bar")) if "alpha_bar" in tensors else None   # which says what a Schedule says about bad ones
            settings, weights = header.get("config"), {k.removeprefix("net."): v for k, v in tensors.items()}
        config = configured(DDPMConfig, settings, path)
        if net is None:
            check_unet(config.unet, weights, path)              # before anything of that size is allocated
        model = cls(config, net, schedule)
        # Names and shapes have to fit exactly: half a model is no model.
        # Copied in: float16 from the file becomes float32 in the network.
        load_weights(model.net, weights, path)
        unwrapped(model.net).trained_T = header.get("trained_T") or model.schedule.T            # type: ignore[assignment]
        return model.eval()
