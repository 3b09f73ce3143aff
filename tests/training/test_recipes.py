"""What each data set is trained with."""

from dataclasses import replace

import pytest
import torch

from ddpm_tutorial import TrainConfig, UNet, data
from ddpm_tutorial.training.recipes import RECIPES, recipe
from ddpm_tutorial.training import learning_rate

SIZES = {"digits": (1, 8), "mnist": (1, 28), "fashion-mnist": (1, 28), "cifar10": (3, 32)}


def assert_takes_its_images(config, channels, size):
    """The U-Net's output has the shape of its input; nothing is computed."""
    assert config.image_size == size and config.channels == channels
    with torch.device("meta"):
        net = UNet(config.unet)
        x = torch.zeros(2, channels, size, size)
        y = None if config.num_classes is None else torch.zeros(2, dtype=torch.long)
        assert net(x, torch.ones(2, dtype=torch.long), y).shape == x.shape
    return net


def test_there_is_a_recipe_for_every_data_set():
    """What `data.load` knows by name, and no more."""
    assert set(RECIPES) == set(data.LOADERS) == set(SIZES)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_a_network_for_its_images(name):
    """At its own size, and at another one that can be halved as often (--size)."""
    channels, size = SIZES[name]
    for pixels in (size, 16):
        config, how = recipe(name, torch.zeros(1, channels, pixels, pixels, dtype=torch.uint8), tuple("0123456789"))
        assert_takes_its_images(config, channels, pixels)
        assert how == RECIPES[name][1] and config == replace(RECIPES[name][0], image_size=pixels)


def test_cifar10_is_trained_as_in_the_paper():
    """Ho et al. appendix B: 35.7 M parameters, T = 1000, linear β, ε; Adam at 2e-4 after 5,000 steps of warm-up, batch 128, EMA 0.9999, dropout 0.1,
    random flips, 800,000 steps, no labels."""
    config, how = recipe("cifar10", torch.zeros(1, 3, 32, 32, dtype=torch.uint8), tuple("0123456789"))
    net = assert_takes_its_images(config, 3, 32)
    assert sum(p.numel() for p in net.parameters()) == 35_746_307 and config.unet.dropout == 0.1
    assert (config.schedule, config.timesteps, config.predict, config.num_classes) == ("linear", 1000, "eps", None)
    assert (how.batch, how.steps, how.ema, how.flip, how.times, how.clip_grad) == (128, 800_000, 0.9999, True, "uniform", 1.0)
    assert (how.betas, how.weight_decay) == ((0.9, 0.999), 0.0), "AdamW without decay is Adam"
    assert [learning_rate(step, how) for step in (0, 2499, 4999, 5000, 400_000, 799_999)] == pytest.approx([4e-8, 1e-4, 2e-4, 2e-4, 2e-4, 2e-4])


@pytest.mark.parametrize("classes", [("all",), ("cat", "dog"), tuple("0123456789")], ids=len)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 16, 28, 32, 64])
def test_a_folder_of_images_gets_a_network_of_its_size(size, channels, classes):
    """Attention at 8×8 or 4×4 (7×7 for 28), whatever the size; labels if there is more than one class to choose from."""
    config, how = recipe("holidays", torch.zeros(1, channels, size, size, dtype=torch.uint8), classes)
    assert_takes_its_images(config, channels, size)
    assert config.num_classes == config.unet.num_classes == (len(classes) if len(classes) > 1 else None)
    assert size // 2 ** config.unet.attention[0] in (4, 7, 8) and isinstance(how, TrainConfig) and how.steps


@pytest.mark.parametrize("size", [1, 2, 7, 9, 30, 31, 34, 50, 96, 100])
def test_a_size_that_halves_less_often_gets_fewer_levels(size):
    """30 pixels are halved once, 100 twice; no level has half a pixel."""
    config, _ = recipe("holidays", torch.zeros(1, 1, size, size, dtype=torch.uint8), ("cat", "dog"))
    assert size % 2 ** (len(config.unet.mults) - 1) == 0
    assert_takes_its_images(config, 1, size)


@pytest.mark.parametrize("size, instead", [(33, 32), (63, 64), (65, 64), (66, 64), (130, 128)])
def test_a_size_with_too_large_a_last_level_is_refused_with_one_that_fits(size, instead):
    """Attention takes time with the fourth power of it."""
    with pytest.raises(ValueError, match=f"images of {size} pixels.*give --size {instead}"):
        recipe("holidays", torch.zeros(1, 3, size, size, dtype=torch.uint8), ("all",))
    recipe("holidays", torch.zeros(1, 3, instead, instead, dtype=torch.uint8), ("all",))
