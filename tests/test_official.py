"""Our U-Net is the official one under other names: diffusers is the oracle."""

import pytest
import torch

from ddpm_tutorial import UNet, UNetConfig
from ddpm_tutorial.official import diffusers_config, from_diffusers, to_diffusers

diffusers = pytest.importorskip("diffusers")

CONFIGS = {
    "digits": (UNetConfig(num_classes=10), 8),
    "three levels, attention at two": (UNetConfig(channels=3, base=32, mults=(1, 2, 2), attention=(1, 2), groups=16), 16),
    "no attention outside the middle": (UNetConfig(attention=(), blocks=1), 8),
    "narrow google/ddpm-cifar10-32": (UNetConfig(channels=3, base=32, mults=(1, 2, 2, 2), attention=(1,), groups=32), 32),
}


def randomised(net):
    """Random weights everywhere, so that zero-initialised layers cannot hide a difference."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(0, 0.05 if p.ndim > 1 else 0.5)
    return net.double().eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_unet_is_diffusers_unet_under_other_names(name):
    """Same weights, same output to 1e-5 of its size, in float64 so that only the networks are compared.

    Our time t is their t-1: google/ddpm-cifar10-32 counts from 0.
    """
    config, size = CONFIGS[name]
    ours = randomised(UNet(config))
    theirs = diffusers.UNet2DModel(**diffusers_config(config, size)).double().eval()
    theirs.load_state_dict(to_diffusers(ours.state_dict()))             # strict: every name, every shape
    x, t = torch.randn(3, config.channels, size, size, dtype=torch.float64), torch.tensor([1, 500, 1000])
    y = torch.tensor([0, 3, 10]) if config.num_classes else None
    with torch.no_grad():
        a, b = ours(x, t, y), theirs(x, t - 1, class_labels=y).sample
    assert b.std() > 1e-3                                               # they do say something
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * b.abs().max().item())


def test_the_way_back_restores_every_weight():
    """from_diffusers ∘ to_diffusers is the identity, also under the names that old checkpoints use."""
    net = randomised(UNet(UNetConfig(num_classes=10)))
    theirs = to_diffusers(net.state_dict())
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    aged = {}
    for name, value in theirs.items():
        for new_name, old_name in old.items():
            name = name.replace(f".{new_name}.", f".{old_name}.")
        aged[name] = value
    for layout in (theirs, aged):
        back = from_diffusers(layout)
        assert back.keys() == net.state_dict().keys()
        assert all(torch.equal(back[k], v) for k, v in net.state_dict().items())


def test_the_cifar10_network_has_the_papers_size():
    """DDPM appendix B: 35.7 M parameters; google/ddpm-cifar10-32 has 35,746,307."""
    with torch.device("meta"):
        net = UNet(UNetConfig.cifar10())
        theirs = diffusers.UNet2DModel(**diffusers_config(UNetConfig.cifar10(), 32))
    assert sum(p.numel() for p in net.parameters()) == 35_746_307 == sum(p.numel() for p in theirs.parameters())
