"""The network of DDPM: a U-Net that sees the noisy image and the time, and names the noise.

[1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. arXiv:2006.11239, appendix B
[2] Vaswani et al. Attention Is All You Need. arXiv:1706.03762

This file imports nothing of ours: a network is a function net(x_t, t, y) → like x_t, and knows nothing of diffusion.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """[2] section 3.5, as in [1]: sines, then cosines, of t at frequencies 10000^(-i/(half-1)), i = 0 … half-1.   (B,) → (B, dim)."""
    if not isinstance(dim, int) or dim < 4 or dim % 2:
        raise ValueError(f"dim is {dim}; it must be even and ≥ 4: half of it are sines, half cosines")
    if not isinstance(t, Tensor) or t.ndim != 1:
        raise TypeError(f"t is {_described(t)}; it must be a tensor of times, (B,)")
    half = dim // 2
    frequency = torch.exp(-math.log(10000) / (half - 1) * torch.arange(half, dtype=torch.float32, device=t.device))
    angle = t.float()[:, None] * frequency                      # (B, half)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


@dataclass(frozen=True)
class UNetConfig:
    """The default has 1.0 M parameters and is made for small images; `cifar10()` is the paper's network."""

    channels: int = 1                                           # of the image
    base: int = 32                                              # channels at full size
    mults: tuple[int, ...] = (1, 2)                             # channels of each level, in units of base; each level halves the image
    blocks: int = 2                                             # residual blocks per level
    attention: tuple[int, ...] = (1,)                           # the levels that have self-attention; 0 is full size
    num_classes: int | None = None                              # labels 0 … num_classes-1, and num_classes is the null label
    dropout: float = 0.0
    groups: int = 8                                             # of each GroupNorm; with as many groups as channels it would be InstanceNorm

    def __post_init__(self):
        for name in ("mults", "attention"):                     # lists, as JSON gives them, become tuples
            if not isinstance(value := getattr(self, name), Iterable):
                raise TypeError(f"{name} is {value!r}; it must be a tuple of integers")
            object.__setattr__(self, name, tuple(value))
        counts = [self.channels, self.base, self.blocks, self.groups, *self.mults, 1 if self.num_classes is None else self.num_classes]
        if not self.mults or not all(isinstance(n, int) and n >= 1 for n in counts):
            raise ValueError(f"channels, base, blocks, groups, every mult and num_classes (or None) must be integers ≥ 1; given {self}")
        if not (isinstance(self.dropout, (int, float)) and 0 <= self.dropout < 1):
            raise ValueError(f"dropout is {self.dropout}; it is a probability, 0 … 1, without 1")
        if self.base % self.groups or self.base < 4 or self.base % 2:
            raise ValueError(f"base is {self.base}; it must be even, ≥ 4 and a multiple of groups = {self.groups}")
        if self.groups == self.base * min(self.mults):          # a norm takes out what is the same in its whole group, and the time adds just that
            raise ValueError(f"groups is {self.groups}, one for each channel of a level, whose blocks would not see the time; choose {self.base // 2} or fewer")
        if not set(self.attention) <= set(range(len(self.mults))):
            raise ValueError(f"attention is {self.attention}; the levels are 0 … {len(self.mults) - 1}")

    @classmethod
    def cifar10(cls, num_classes: int | None = None) -> "UNetConfig":
        """[1] appendix B: four levels from 32×32 to 4×4, attention at 16×16, 35.7 M parameters."""
        return cls(channels=3, base=128, mults=(1, 2, 2, 2), blocks=2, attention=(1,), num_classes=num_classes, dropout=0.1, groups=32)


class UNet(nn.Module):
    """net(x_t, t, y) → like x_t.   x_t (B, C, H, W);  t (B,) in 1 … T;  y (B,) labels, or None for the null label everywhere."""

    def __init__(self, config: UNetConfig = UNetConfig()):
        super().__init__()
        if not isinstance(config, UNetConfig):
            raise TypeError(f"config is {config!r}; it must be a UNetConfig")
        self.config = c = config
        widths = [c.base * m for m in c.mults]
        emb = 4 * c.base

        self.time = nn.Sequential(nn.Linear(c.base, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.label = nn.Embedding(c.num_classes + 1, emb) if c.num_classes is not None else None
        self.conv_in = nn.Conv2d(c.channels, c.base, 3, padding=1)

        # Down: remember the width of everything that is pushed …
        pushed, width, self.down = [c.base], c.base, nn.ModuleList()
        for level, out in enumerate(widths):
            blocks = [Block(width if i == 0 else out, out, emb, level in c.attention, c) for i in range(c.blocks)]
            last = level == len(widths) - 1
            self.down.append(Level(blocks, None if last else Downsample(out)))
            pushed += [out] * (c.blocks + (not last))
            width = out

        self.middle = nn.ModuleList([Block(width, width, emb, True, c), Block(width, width, emb, False, c)])

        # … up: each block takes one of them back.
        self.up = nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            blocks = []
            for _ in range(c.blocks + 1):
                blocks.append(Block(width + pushed.pop(), out, emb, level in c.attention, c))
                width = out
            self.up.append(Level(blocks, None if level == 0 else Upsample(out)))

        self.norm_out = GroupNorm(c.groups, width)
        self.conv_out = zero(nn.Conv2d(width, c.channels, 3, padding=1))        # so an untrained net says ε = 0
        self.to(memory_format=torch.channels_last)              # how pixels lie in memory, nothing else: convolutions are faster so

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        self._check(x_t, t, y)
        t = t.to(x_t.device)
        emb = self.time(timestep_embedding(t - 1, self.config.base).to(x_t.dtype))      # Ho's network counts from 0    (B, 4·base)
        if self.label is not None:
            emb = emb + self.label(torch.full_like(t, self.config.num_classes) if y is None else y.to(x_t.device))
        emb = F.silu(emb)                                       # once, here, instead of in every block

        h = self.conv_in(x_t.contiguous(memory_format=torch.channels_last))     # (B, base, H, W)
        skips = [h]
        for level in self.down:
            for block in level.blocks:
                h = block(h, emb)
                skips.append(h)
            if level.resample is not None:
                h = level.resample(h)                           # half as high, half as wide
                skips.append(h)
        for block in self.middle:
            h = block(h, emb)
        for level in self.up:
            for block in level.blocks:
                h = block(torch.cat([h, skips.pop()], dim=1), emb)
            if level.resample is not None:
                h = level.resample(h)                           # twice as high, twice as wide
        assert not skips
        return self.conv_out(F.silu(self.norm_out(h)))

    def _check(self, x_t, t, y):
        c, halvings = self.config, len(self.config.mults) - 1
        _check_x(x_t, self.conv_in.weight)
        if x_t.ndim != 4 or x_t.shape[1] != c.channels:
            raise ValueError(f"x_t has shape {tuple(x_t.shape)}; this U-Net takes (B, {c.channels}, H, W)")
        if x_t.shape[2] % 2**halvings or x_t.shape[3] % 2**halvings:
            raise ValueError(f"the image is {x_t.shape[2]}×{x_t.shape[3]}; this U-Net halves it {halvings} times, "
                             f"so both sides must be multiples of {2**halvings}")
        _check_inputs(x_t, t, y, c.num_classes)


class Level(nn.Module):
    """One size of image: its blocks, and the way to the next size (None where there is none)."""

    def __init__(self, blocks: Iterable[nn.Module], resample: nn.Module | None):
        super().__init__()
        self.blocks, self.resample = nn.ModuleList(blocks), resample


class Block(nn.Module):
    """Residual block, then self-attention where the level has it."""

    def __init__(self, width_in: int, width: int, emb: int, attention: bool, config: UNetConfig):
        super().__init__()
        self.norm1 = GroupNorm(config.groups, width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.emb = nn.Linear(emb, width)
        self.norm2 = GroupNorm(config.groups, width)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = zero(nn.Conv2d(width, width, 3, padding=1))                # so a new block is the identity
        self.shortcut = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()
        self.attention = Attention(width, config.groups) if attention else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))                   # (B, width, H, W)
        h += self.emb(emb)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.attention(self.shortcut(x) + h)


class GroupNorm(nn.GroupNorm):
    def __init__(self, groups: int, width: int):
        super().__init__(groups, width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(widened(x))


def widened(x: Tensor) -> Tensor:
    """Under bfloat16 autocast on a CPU, norms and attention are both faster and better in float32; a GPU decides for itself."""
    return x.float() if x.is_cpu and x.dtype == torch.bfloat16 else x


class Attention(nn.Module):
    """Self-attention over the H·W positions, one head, residual."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.norm = GroupNorm(groups, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = zero(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        q, k, v = self.qkv(self.norm(x).flatten(2).mT).chunk(3, dim=-1)         # each (B, H·W, C)
        with torch.autocast("cpu", enabled=False):
            h = F.scaled_dot_product_attention(widened(q), widened(k), widened(v))
        h = self.out(h)
        return x + h.mT.reshape(B, C, H, W)


class Downsample(nn.Module):
    """Halve the image by a strided convolution, padded on the right and below only, as in [1]."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the image by repeating pixels, then smooth with a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _check_x(x_t: Tensor, weight: Tensor) -> None:
    if not isinstance(x_t, Tensor) or x_t.dtype != weight.dtype or x_t.device != weight.device:
        raise TypeError(f"x_t is {_described(x_t)}; this network takes a tensor of {weight.dtype} on {weight.device}, as its weights are")


def _described(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)} on {value.device}" if isinstance(value, Tensor) else repr(value)


def _check_inputs(x_t: Tensor, t: Tensor, y: Tensor | None, num_classes: int | None) -> None:
    if not isinstance(t, Tensor) or t.shape != x_t.shape[:1] or t.is_floating_point():
        raise ValueError(f"t is {_described(t)}; a network takes one integer time for each of the {len(x_t)} in the batch (a denoiser also takes an int)")
    if y is None:
        return
    if num_classes is None:
        raise ValueError("labels were given, but this network has num_classes=None")
    if not isinstance(y, Tensor) or y.shape != x_t.shape[:1] or y.is_floating_point():
        raise ValueError(f"y is {_described(y)}; it must hold one integer label for each of the {len(x_t)} in the batch")
    if y.device.type == "cpu" and len(y) and not (0 <= y.min() and y.max() <= num_classes):
        raise ValueError(f"labels must lie in 0 … {num_classes - 1}, or be the null label {num_classes}; given {y.min()} … {y.max()}")


class MLP(nn.Module):
    """A network for points: net(x_t, t, y) → like x_t, (B, D).  Residual layers that see the time embedding."""

    def __init__(self, dim: int = 2, width: int = 128, layers: int = 3, num_classes: int | None = None):
        super().__init__()
        if not all(isinstance(n, int) and n >= 1 for n in (dim, width, layers, 1 if num_classes is None else num_classes)) or width < 4 or width % 2:
            raise ValueError(f"dim is {dim}, width {width}, layers {layers} and num_classes {num_classes}; they must be ≥ 1 (or None), and width even, ≥ 4")
        self.dim, self.width, self.num_classes = dim, width, num_classes
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(num_classes + 1, width) if num_classes is not None else None
        self.first = nn.Linear(dim, width)
        self.hidden = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(layers))
        self.last = zero(nn.Linear(width, dim))

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        _check_x(x_t, self.first.weight)
        if x_t.ndim != 2 or x_t.shape[1] != self.dim:
            raise ValueError(f"x_t has shape {tuple(x_t.shape)}; this network takes (B, {self.dim})")
        _check_inputs(x_t, t, y, self.num_classes)
        t = t.to(x_t.device)
        emb = self.time(timestep_embedding(t - 1, self.width).to(x_t.dtype))
        if self.label is not None:
            emb = emb + self.label(torch.full_like(t, self.num_classes) if y is None else y.to(x_t.device))
        h = self.first(x_t)                                     # (B, width)
        for layer in self.hidden:
            h = h + layer(h + emb)
        return self.last(h)


def zero(layer: nn.Module) -> nn.Module:
    """Start a layer at zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
