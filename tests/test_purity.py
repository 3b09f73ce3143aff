"""A function of its arguments and nothing else: torch can write each of them down as one graph.

`fullgraph=True` refuses whatever cannot be one: a decision about the values of a tensor, a hidden state, a call back into Python.  The graph is run
as it was written down (backend "eager"), so no compiler is needed, and what it gives is what the function gives.  `torch.export` is stricter still.
"""

import pytest
import torch
from torch import nn

from ddpm_tutorial import MLP, UNet, UNetConfig, classifier_free, clipped, cosine, ddim_step, ddpm_step, denoiser, loss

S = cosine(20)
NET = UNet(UNetConfig(base=8, mults=(1, 2), blocks=1, attention=(1,), num_classes=3, groups=4)).eval()
for parameter in NET.parameters():                              # a network that is new answers 0, whatever it is asked
    nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))


class Small(nn.Module):
    """In the U-Net's place where the subject is what is around it: the same questions, and much sooner answered."""

    def __init__(self):
        super().__init__()
        self.image, self.place = nn.Conv2d(1, 1, 3, padding=1), nn.Embedding(25, 1)

    def forward(self, x, t, y=None):
        return self.image(x) * self.place(t).view(-1, 1, 1, 1) + (0 if y is None else self.place(y).view(-1, 1, 1, 1))


SMALL = Small()
X, EPS, Z = torch.randn(3, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
T, Y = torch.tensor([3, 20]), torch.tensor([0, 2])
GUIDED = clipped(classifier_free(denoiser(NET, S, Y), denoiser(NET, S, torch.full((2,), 3)), 2.0), S)
APART = clipped(classifier_free(denoiser(SMALL, S, Y), denoiser(SMALL, S), 2.0), S)                     # two calls, not one of a doubled batch

CALLS = {
    "the U-Net": lambda: (NET, (X, T, Y)),
    "the U-Net without labels": lambda: (NET, (X, T)),
    "the network of points": lambda: (MLP(num_classes=3), (X.flatten(1)[:, :2], T, Y)),
    "the loss of the U-Net": lambda: (lambda x_0, eps, t, y: loss(NET, S, x_0, eps, t, y, "v"), (X, EPS, T, Y)),
    **{f"the loss of {predict}": lambda predict=predict: (lambda x_0, eps, t, y: loss(SMALL, S, x_0, eps, t, y, predict), (X, EPS, T, Y))
       for predict in ("eps", "x0", "velocity")},
    "DDPM's step": lambda: (lambda x, eps, z: ddpm_step(S, x, eps, 9, 4, z), (X, EPS, Z)),
    "DDPM's step of the larger variance": lambda: (lambda x, eps, z: ddpm_step(S, x, eps, 9, 8, z, variance="large"), (X, EPS, Z)),
    "DDPM's last step": lambda: (lambda x, eps: ddpm_step(S, x, eps, 1, 0), (X, EPS)),
    "DDIM's step": lambda: (lambda x, eps: ddim_step(S, x, eps, 9, 4), (X, EPS)),
    "DDIM's step with noise": lambda: (lambda x, eps, z: ddim_step(S, x, eps, 9, 4, z, eta=0.5), (X, EPS, Z)),
    "a guided denoiser": lambda: (lambda x: GUIDED(x, 7), (X,)),
    "a guided denoiser at a time for each image": lambda: (lambda x, t: GUIDED(x, t), (X, T)),
    "a guided denoiser of two calls": lambda: (lambda x: APART(x, 7), (X,)),
}


@pytest.fixture(autouse=True)
def forgetful():
    """What was written down for one test is no use to another."""
    torch.compiler.reset()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_it_compiles_to_one_graph_that_gives_the_same(call):
    """To the last bit: the graph is run as it is."""
    function, arguments = call()
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*arguments), function(*arguments), rtol=0, atol=0)


class Module(nn.Module):
    """What `torch.export` takes."""

    def __init__(self, function):
        super().__init__()
        self.function, self.net, self.small = function, NET, SMALL

    def forward(self, *arguments):
        return self.function(*arguments)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_it_is_exported_whole(call):
    """As a program of its own, with which somebody who has no Python can go on."""
    function, arguments = call()
    program = torch.export.export(function if isinstance(function, nn.Module) else Module(function), arguments)
    torch.testing.assert_close(program.module()(*arguments), function(*arguments), rtol=0, atol=0)
