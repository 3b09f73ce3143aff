"""AdamW for vectors and tables, Muon for what multiplies: its step is the momentum's nearest orthogonal matrix.

Where it comes from: a gradient matrix has a few large singular values and many small ones, and a step along it moves a layer in few directions only.
Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) makes all singular values about 1, with five steps of an iteration that needs matrix
products only.  A convolution counts as the matrix (outputs, inputs · 9).
"""

from collections.abc import Callable

import recipe
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ddpm_tutorial import DDPM


def orthogonal(M: Tensor, steps: int = 5) -> Tensor:
    """U Vᵀ of M = U S Vᵀ, about: each step sends a singular value s to 3.4445 s - 4.7750 s³ + 2.0315 s⁵.

    Where s began above 0.01 of the length of all, it ends between 0.68 and 1.14.
    """
    X = M / (M.norm() + 1e-7)
    X = X.T if M.shape[0] > M.shape[1] else X
    for _ in range(steps):
        A = X @ X.T
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return X.T if M.shape[0] > M.shape[1] else X


class Muon(Optimizer):
    def __init__(self, weights, lr: float, momentum: float = 0.95):
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for w in group["params"]:
                M = self.state[w].setdefault("momentum", torch.zeros_like(w))
                M.lerp_(w.grad, 1 - group["momentum"])
                G = torch.lerp(w.grad, M, group["momentum"]).flatten(1)         # Nesterov's: where the momentum will be
                w.add_(orthogonal(G).view_as(w), alpha=-group["lr"] * max(1, G.shape[0] / G.shape[1]) ** 0.5)


def both(net: nn.Module, lr: float, muon: float) -> list[Optimizer]:
    weights = [w for name, w in net.named_parameters() if w.ndim > 1 and "label" not in name and min(w.flatten(1).shape) > 1]
    others = [w for w in net.parameters() if not any(w is one for one in weights)]
    return [Muon(weights, muon), torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)]


def train(x: Tensor, y: Tensor, seed: int, left: Callable[[], float], *, muon: float = 0.02, **settings) -> DDPM:
    return recipe.train(x, y, seed, left, optimizers=lambda net, lr: both(net, lr, muon), **settings)
