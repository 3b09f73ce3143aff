"""The network of DDPM: a U-Net that sees the noisy image and the time, and names the noise.

                 x_t                                                           ε̂
    full size    conv ─► Block Block ──────── skips ────────► Block Block Block ─► norm, conv
                               │ half                               ▲ double
    half size                  └─► Block Block ─── skips ──► Block Block Block
                                         │ half                     ▲ double
    quarter …                            └────► middle: Block, attention, Block

Why this shape.  The noise has to be named at every pixel, so the answer is as large as the image
and the full-size details must survive: the *skips* carry them across.  But what is noise and what
is stroke can be told only from far around: the way *down* makes the image small, so that a 3×3
convolution sees a large part of it, and *attention* lets every place look at every other.  The
*time* goes into every block, since the same grey speck is noise at t = 900 and a stroke at t = 10.

The last layer of every residual block, and of the network, starts at zero: so the network begins as
"ε = 0" and learns from there.  Where ε is the target, its first loss is about 1.

For example:

    net = UNet(UNetConfig(channels=1, mults=(1, 2, 3)))
    net(torch.randn(16, 1, 28, 28), torch.randint(1, 1001, (16,)))              # (16, 1, 28, 28)

This file knows nothing of diffusion: a network is a function net(x_t, t, y) → like x_t.  forward.py
makes a denoiser of it, ddpm.py trains it.

[1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. arXiv:2006.11239, appendix B
[2] Vaswani et al. Attention Is All You Need. arXiv:1706.03762
[3] Ronneberger, Fischer, Brox. U-Net: Convolutional Networks for Biomedical Image Segmentation. arXiv:1505.04597
[4] Wu, He. Group Normalization. arXiv:1803.08494
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import checks


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """[2] section 3.5, as in [1]: sines, then cosines, of t at frequencies 10000^(-i/(half-1)), i = 0 … half-1.   (B,) → (B, dim).

    One number t is a poor input: a layer can only scale it.  Waves of many lengths tell it like the
    hands of a clock: the fast ones tell neighbouring times apart, the slow ones tell early from
    late.  There are dialects (half for half-1, cosines first); each works, and weights trained with
    one are useless with another.
    """
    checks.embedding(t, dim)
    half = dim // 2                                             # of each: a sine alone cannot tell going up from coming down
    frequency = torch.exp(-math.log(10000) / (half - 1) * torch.arange(half, dtype=torch.float32, device=t.device))     # 1 … 1/10000   (half,)
    angle = t.float()[:, None] * frequency                                                                              # (B, half)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


@dataclass(frozen=True)
class UNetConfig:
    """The default has 1.0 M parameters and is made for small images; `cifar10()` is the paper's network.

    How to choose.  Levels: halve until 4 to 8 pixels a side are left, so that the middle sees the
    whole image.  Width: doubling `base` makes the network four times as large and slow, and is the
    surest way to better images if there are enough of them.  Attention: at 16×16 and below; its
    cost grows as (H·W)², and at full size soon exceeds that of the convolutions.  Dropout: where
    the data are few (CIFAR-10: 0.1), against learning them by heart.
    """

    channels: int = 1                                           # of the image
    base: int = 32                                              # channels at full size
    mults: tuple[int, ...] = (1, 2)                             # channels of each level, in units of base; each level halves the image
    blocks: int = 2                                             # residual blocks per level
    attention: tuple[int, ...] = (1,)                           # the levels that have self-attention; 0 is full size
    num_classes: int | None = None                              # labels 0 … num_classes-1, and num_classes is the null label
    dropout: float = 0.0
    groups: int = 8                                             # of each GroupNorm; with as many groups as channels it would be InstanceNorm

    def __post_init__(self):
        checks.unet_config(self)
        for name in ("mults", "attention"):                     # lists, as JSON gives them, become tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @classmethod
    def cifar10(cls, num_classes: int | None = None) -> "UNetConfig":
        """[1] appendix B: four levels from 32×32 to 4×4, attention at 16×16, 35,746,307 parameters.

        The public weights google/ddpm-cifar10-32 fit into it, and give the same outputs as in
        diffusers (weights/diffusers_layout.py; a test compares).
        """
        return cls(channels=3, base=128, mults=(1, 2, 2, 2), blocks=2, attention=(1,), num_classes=num_classes, dropout=0.1, groups=32)


# The network, from outside in.

class UNet(nn.Module):
    """net(x_t, t, y) → like x_t.   x_t (B, C, H, W);  t (B,) in 1 … T;  y (B,) labels, or None for the null label everywhere.

    One network for all times: the task at t = 900 (guess the outline) and at t = 10 (clean the
    edges) have most of what they need in common, and a thousand networks would each see a
    thousandth of the steps.
    """

    def __init__(self, config: UNetConfig = UNetConfig()):
        super().__init__()
        if not isinstance(config, UNetConfig):
            raise TypeError(f"config is {config!r}; it must be a UNetConfig")
        self.config = c = config                                # kept, since it is stored with the weights
        # How wide: where the image is a quarter as large, there is room for more channels at the same cost.
        widths = [c.base * m for m in c.mults]                  # channels of each level
        emb = 4 * c.base                                        # numbers that tell a block the time and the label

        # Time and label become one vector, which every block will see.  Two layers turn the clock's hands into whatever the
        # blocks find useful.  The label's table has a row more than there are classes: the null label, "no class", for
        # classifier-free guidance; with class 0 in its place, the unconditional model would be the model of zeros.
        self.time = nn.Sequential(nn.Linear(c.base, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.label = nn.Embedding(c.num_classes + 1, emb) if c.num_classes is not None else None
        self.conv_in = nn.Conv2d(c.channels, c.base, 3, padding=1)              # a grey value becomes `base` numbers to work with

        # Down.  A level's blocks work at one size; then the image is halved, and there are more channels to hold what was
        # understood.  Remember the width of everything that is pushed …
        pushed, width, self.down = [c.base], c.base, nn.ModuleList()
        for level, out in enumerate(widths):
            blocks = [Block(width if i == 0 else out, out, emb, level in c.attention, c) for i in range(c.blocks)]
            last = level == len(widths) - 1
            self.down.append(Level(blocks, None if last else Downsample(out)))
            pushed += [out] * (c.blocks + (not last))           # one for each block, one for the halving
            width = out

        # Where the image is smallest: a block, attention, a block.  Here every position has seen every other, so what concerns
        # the whole image (which digit, how slanted) can be decided.  Without attention it would be decided patch by patch.
        self.middle = nn.ModuleList([Block(width, width, emb, True, c), Block(width, width, emb, False, c)])

        # … up: each block takes one of them back, the last that was pushed, and sees it beside its own input.  So there is one
        # block more per level than on the way down: for what the halving (or, at full size, conv_in) pushed.  Without the
        # skips the fine details would have to pass through the smallest image, and samples come out blurred.
        self.up = nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            blocks = []
            for _ in range(c.blocks + 1):
                blocks.append(Block(width + pushed.pop(), out, emb, level in c.attention, c))   # its input and the skip, side by side
                width = out
            self.up.append(Level(blocks, None if level == 0 else Upsample(out)))

        # The answer: normalised once more, and one number for each colour of each pixel.  No activation behind it, since noise
        # is positive and negative and has no bounds.
        self.norm_out = GroupNorm(c.groups, width)
        self.conv_out = zero(nn.Conv2d(width, c.channels, 3, padding=1))        # so an untrained net says 0, and its loss, with ε as target, is about 1
        # How pixels lie in memory, nothing else: a pixel's channels side by side.  Convolutions are faster so, on CPUs and GPUs.
        self.to(memory_format=torch.channels_last)

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """The answer, shaped like x_t: ε, x_0, v or the velocity, whatever it was trained for.  It cannot tell.

        The time enters as t - 1, since Ho's network counts the noisy images from 0: so official
        weights fit, and our t = 1 is their 0.  Off by one here, images get slightly worse and no
        test of shapes notices.
        """
        checks.unet_input(self, x_t, t, y)
        t = t.to(x_t.device)

        # What time is it, and what is to be seen?  One vector for each image.  (No labels: the null label, so that one network is
        # conditional and unconditional at once.)
        emb = self.time(timestep_embedding(t - 1, self.config.base).to(x_t.dtype))      # Ho's network counts from 0    (B, 4·base)
        if self.label is not None:
            emb = emb + self.label(torch.full_like(t, self.config.num_classes) if y is None else y.to(x_t.device))
        emb = F.silu(emb)                                       # once, here, instead of in every block                 (B, 4·base)

        # Down, pushing everything: what is seen at each size, before it is made smaller.
        h = self.conv_in(x_t.contiguous(memory_format=torch.channels_last))             # (B, base, H, W)
        skips = [h]
        for level in self.down:
            for block in level.blocks:
                h = block(h, emb)                               # (B, base·mult, H/2^level, W/2^level)
                skips.append(h)                                 # everything is pushed, before the image is made smaller too
            if level.resample is not None:
                h = level.resample(h)                           # half as high, half as wide
                skips.append(h)

        # The middle: the image is small, the channels are many.
        for block in self.middle:
            h = block(h, emb)                                   # (B, base·last mult, H/2^k, W/2^k)

        # Up, popping everything: the last that was pushed is the first that fits, for it has the same size.
        # Side by side and not added: the block then decides by itself what to take from below and what from beside.
        for level in self.up:
            for block in level.blocks:
                h = block(torch.cat([h, skips.pop()], dim=1), emb)      # the details of this size, beside what was understood below
            if level.resample is not None:
                h = level.resample(h)                           # twice as high, twice as wide
        assert not skips                                        # a skip left over is a level that was forgotten
        return self.conv_out(F.silu(self.norm_out(h)))          # (B, C, H, W)


class Level(nn.Module):
    """One size of image: its blocks, and the way to the next size (None where there is none).

    Only a place to keep them, so that the forward pass reads as it is drawn above: two loops and a
    list.
    """

    def __init__(self, blocks: Iterable[nn.Module], resample: nn.Module | None):
        super().__init__()
        # In a ModuleList, or torch would not find their weights.
        self.blocks, self.resample = nn.ModuleList(blocks), resample


class Block(nn.Module):
    """Residual block, then self-attention where the level has it.

    norm, silu, conv, + time, norm, silu, dropout, conv, + x: this order is Ho's, and weights depend
    on it.

    x plus what two convolutions add to it: the sum lets gradients pass untouched, so that depth
    costs nothing.  The time is added between the convolutions, one number per channel, and the norm
    behind it makes those numbers decide which channels are heard.  (A norm with one group per
    channel would subtract them again: the network would be blind to time, and `UNetConfig` refuses
    it.)
    """

    def __init__(self, width_in: int, width: int, emb: int, attention: bool, config: UNetConfig):
        super().__init__()
        self.norm1 = GroupNorm(config.groups, width_in)         # norm first, then activation, then convolution: the sum stays untouched
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)   # every pixel looks at its neighbours
        self.emb = nn.Linear(emb, width)                        # each block reads the clock for itself
        self.norm2 = GroupNorm(config.groups, width)
        self.dropout = nn.Dropout(config.dropout)               # in training only: `modes.evaluating` switches it off
        self.conv2 = zero(nn.Conv2d(width, width, 3, padding=1))                # so a new block is the identity
        self.shortcut = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()
        self.attention = Attention(width, config.groups) if attention else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))                   # (B, width, H, W)     silu(x) = x·sigmoid(x), a smooth ReLU
        h += self.emb(emb)[:, :, None, None]                    # (B, width, 1, 1): the same at every pixel; (B, width) would be added along
                                                                # the wrong axes, where width is W and B is 1 or H, and else be an error
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))     # (B, width, H, W)
        return self.attention(self.shortcut(x) + h)             # a 1×1 convolution where the widths differ, or else x itself


# What blocks are made of.

class GroupNorm(nn.GroupNorm):
    """[4]: zero mean and unit variance within each image and group of channels, then a learnt scale and shift.

    A sum that grows with every residual block would reach the next ones at any size; the norm
    brings it back to 1.  Each image is taken by itself.  A BatchNorm would take the batch together,
    all its noise levels mixed, and while sampling use averages over all of them, though every image
    then has the same t.
    """

    def __init__(self, groups: int, width: int):
        super().__init__(groups, width, eps=1e-6)               # Ho's, and the official weights'; torch's and diffusers' default is 1e-5

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(widened(x))


def widened(x: Tensor) -> Tensor:
    """Under bfloat16 autocast on a CPU, norms and attention are both faster and better in float32; a GPU decides for itself.

    A norm subtracts a mean from numbers that are close to it, and bfloat16 has three digits.
    """
    return x.float() if x.is_cpu and x.dtype == torch.bfloat16 else x


class Attention(nn.Module):
    """Self-attention over the H·W positions, one head, residual ([2] section 3.2.1):  softmax(q kᵀ/√C) v, times W, plus x.

    Every position asks (q), every position offers (k) and tells (v); the answer is the average of
    what is told, weighted by how well asking and offering agree.  Two ends of one stroke can agree
    on being one.  √C keeps the scores at size 1 whatever C is: with larger ones the softmax would
    choose one position and forget the others.  It costs (H·W)², so it stands where the image is
    small.  Without the residual a new network, whose W is zero, would pass nothing on.
    """

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.norm = GroupNorm(groups, width)
        self.qkv = nn.Linear(width, 3 * width)                  # the three in one product
        self.out = zero(nn.Linear(width, width))                # W

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape                                    # an image becomes a list of H·W vectors, and back
        qkv = self.qkv(self.norm(x).flatten(2).mT)              # (B, H·W, 3·C)
        q, k, v = (widened(part)[:, None] for part in qkv.chunk(3, dim=-1))     # each (B, 1, H·W, C): one head
        with torch.autocast("cpu", enabled=False):
            h = F.scaled_dot_product_attention(q, k, v)         # divides by √C itself: done once more by hand, it would be too flat
        return x + self.out(h[:, 0]).mT.reshape(B, C, H, W)


class Downsample(nn.Module):
    """Halve the image by a strided convolution, padded on the right and below only, as in [1].

    Strided, and not a mean over 2×2: the network learns what to keep.  Padding all around works as
    well, and shifts everything by a pixel (half a pixel of the halved image) against official
    weights; nothing fails, images are only worse.
    """

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))                # (B, width, H/2, W/2)


class Upsample(nn.Module):
    """Double the image by repeating pixels, then smooth with a convolution.

    A transposed convolution would do both at once, and leave a checkerboard where its stamps
    overlap unevenly; repeating is even everywhere, and the convolution behind it takes the blocks
    away.
    """

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))    # (B, width, 2H, 2W)


class MLP(nn.Module):
    """A network for points: net(x_t, t, y) → like x_t, (B, D).  Residual layers that see the time embedding.

    The same idea without an image: no neighbours, so no convolutions, no levels and no skips.  It
    is here so that one can train on the ring or the spiral in seconds, and see that nothing else
    changes.
    """

    def __init__(self, dim: int = 2, width: int = 128, layers: int = 3, num_classes: int | None = None):
        super().__init__()
        checks.mlp(dim, width, layers, num_classes)
        self.dim, self.width, self.num_classes = dim, width, num_classes
        # The same clock and the same table of labels as the U-Net's.
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(num_classes + 1, width) if num_classes is not None else None
        self.first = nn.Linear(dim, width)                      # a point becomes `width` numbers to work with
        self.hidden = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(layers))
        self.last = zero(nn.Linear(width, dim))

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        checks.mlp_input(self, x_t, t, y)
        t = t.to(x_t.device)
        emb = self.time(timestep_embedding(t - 1, self.width).to(x_t.dtype))            # (B, width)
        if self.label is not None:
            emb = emb + self.label(torch.full_like(t, self.num_classes) if y is None else y.to(x_t.device))
        h = self.first(x_t)                                     # (B, width)
        for layer in self.hidden:
            h = h + layer(h + emb)                              # every layer sees the time, as every block of the U-Net does
        return self.last(h)                                     # (B, D)


def zero(layer: nn.Module) -> nn.Module:
    """Start a layer at zero: it adds nothing until it has learnt something.

    It gets a gradient if all behind it let one through, and the layers before it wait until it is
    not zero any more.  Here conv_out learns in the first step, the blocks' last layers in the
    second, the rest in the third.
    """
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
