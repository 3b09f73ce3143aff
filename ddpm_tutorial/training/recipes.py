"""What each data set is trained with, unless told otherwise: a model and a way to train it.

[1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. arXiv:2006.11239, appendix B
"""

import math
from dataclasses import replace

from torch import Tensor

from ..ddpm import DDPMConfig
from ..unet import UNetConfig
from .state import TrainConfig

_grey28 = (DDPMConfig(image_size=28, channels=1, schedule="cosine", predict="v", num_classes=10,
                      unet=UNetConfig(mults=(1, 2, 3), blocks=1, attention=(2,), num_classes=10)),
           TrainConfig(steps=11_000, batch=64, lr=1.5e-3, warmup=200, times="logit-normal"))

RECIPES = {
    # A minute on two CPU cores; benchmarks/recipes.md tells how it was found.
    "digits": (DDPMConfig(image_size=8, channels=1, schedule="cosine", predict="v", num_classes=10, unet=UNetConfig(blocks=1, num_classes=10)),
               TrainConfig(batch=128, lr=4e-3, warmup=50, ema=0.99, times="logit-normal")),

    "mnist": _grey28,                                           # two hours on one core of a CPU
    "fashion-mnist": _grey28,

    # The paper's [1]: Adam, constant learning rate, no labels.  For a GPU.
    "cifar10": (DDPMConfig(image_size=32, channels=3, schedule="linear", predict="eps", unet=UNetConfig.cifar10()),
                TrainConfig(steps=800_000, batch=128, lr=2e-4, warmup=5_000, decay="constant", betas=(0.9, 0.999), weight_decay=0.0, ema=0.9999, flip=True)),
}

# What the digits' recipe gave after so many steps: agreement at scale 1, and Fréchet distance above the floor of 1,000 images.  Means of three trainings,
# benchmarks/quality.csv.  A minute is what the machine makes of it; these steps are the same on every machine.
DIGITS_GAVE = {197: (0.928, 1.91), 376: (0.964, 0.62), 802: (0.980, 0.21), 1374: (0.986, 0.19)}


def usual(steps: int) -> tuple[float, float]:
    """Agreement and distance above the floor that so many steps of the digits' recipe usually give: DIGITS_GAVE, straight in log(steps) between its lines."""
    known = sorted(DIGITS_GAVE)
    if not known[0] <= steps <= known[-1]:
        raise ValueError(f"steps is {steps}; measured were {known[0]} to {known[-1]}")
    after = next(n for n in known[1:] if steps <= n)
    before = known[known.index(after) - 1]
    share = math.log(steps / before) / math.log(after / before)
    (agreement, above), (agreement_after, above_after) = DIGITS_GAVE[before], DIGITS_GAVE[after]
    return agreement + share * (agreement_after - agreement), above + share * (above_after - above)


def recipe(name: str, images: Tensor, classes: tuple[str, ...]) -> tuple[DDPMConfig, TrainConfig]:
    """The recipe for a data set with these images (N, C, H, W); one that is not listed gets a network for its size, and labels if it has classes."""
    channels, size = images.shape[1], images.shape[-1]
    if name in RECIPES:
        config, how = RECIPES[name]
        return replace(config, image_size=size), how
    labels = len(classes) if len(classes) > 1 else None
    wanted, possible = min(3, (size // 8).bit_length()), (size & -size).bit_length() - 1            # halvings: down to 4 … 8 pixels a side, up to 64
    if possible < wanted and size >> possible > 32:
        raise ValueError(f"images of {size} pixels can be halved {possible} times only, and attention among {size >> possible}² pixels takes long: "
                         f"give --size {round(size / 8) * 8}, and they are resized")
    mults = (1, 2, 2, 2)[:min(wanted, possible) + 1]
    unet = UNetConfig(channels=channels, base=64, mults=mults, attention=(len(mults) - 1,), num_classes=labels)
    config = DDPMConfig(image_size=size, channels=channels, schedule="cosine", predict="v", num_classes=labels, unet=unet)
    return config, TrainConfig(steps=20_000, batch=64, lr=1e-3, warmup=500)
