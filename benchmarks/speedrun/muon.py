"""AdamW for vectors and tables, Muon for what multiplies: its step is the momentum's nearest orthogonal matrix.

Where it comes from: a gradient matrix has a few large singular values and many small ones, and a step along it moves a layer in few directions only.
Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) makes all singular values about 1, with five steps of an iteration that needs matrix
products only.  A convolution counts as the matrix (outputs, inputs · 9).
"""

from collections import defaultdict
from collections.abc import Callable

import recipe
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ddpm_tutorial import DDPM


def orthogonal(gram: Tensor, steps: int = 5) -> Tensor:
    """P with P X = U Vᵀ, about, where X = U S Vᵀ has length 1: from X Xᵀ (…, k, k) alone.

    Each step sends a singular value s to 3.4445 s - 4.7750 s³ + 2.0315 s⁵, that is X to (3.4445 + A (-4.7750 + 2.0315 A)) X with A = X Xᵀ; and A to what
    that makes of it.  So the wide X is not needed, and all matrices with as many rows can do it together.  Where s began above 0.01, it ends
    between 0.68 and 1.14.
    """
    one = torch.eye(gram.shape[-1])
    A, P = gram, one
    for _ in range(steps):
        step = 3.4445 * one + A @ (2.0315 * A - 4.7750 * one)
        A, P = step @ A @ step, step @ P
    return P


class Muon(Optimizer):
    def __init__(self, weights, lr: float, momentum: float = 0.95):
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            weights, beta = group["params"], group["momentum"]
            grads = [w.grad for w in weights]
            moments = [self.state[w].setdefault("momentum", torch.zeros_like(w)) for w in weights]
            torch._foreach_lerp_(moments, grads, 1 - beta)
            alike = defaultdict(list)                                           # by the smaller of the two sides
            for w, step in zip(weights, torch._foreach_lerp(grads, moments, beta)):         # Nesterov's: where the momentum will be
                wide = step.flatten(1) if step.flatten(1).shape[0] <= step[0].numel() else step.flatten(1).T
                alike[len(wide)].append((w, wide / (wide.norm() + 1e-7)))
            for same in alike.values():
                for P, (w, X) in zip(orthogonal(torch.stack([X @ X.T for _, X in same])), same):
                    UV = P @ X if len(w) <= w[0].numel() else (P @ X).T
                    w.add_(UV.reshape(w.shape), alpha=-group["lr"] * max(1, len(w) / w[0].numel()) ** 0.5)


def both(net: nn.Module, lr: float, muon: float) -> list[Optimizer]:
    weights = [w for name, w in net.named_parameters() if w.ndim > 1 and "label" not in name and min(w.flatten(1).shape) > 1]
    others = [w for w in net.parameters() if not any(w is one for one in weights)]
    return [Muon(weights, muon), torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)]


def train(x: Tensor, y: Tensor, seed: int, left: Callable[[], float], *, muon: float = 0.02, **settings) -> DDPM:
    return recipe.train(x, y, seed, left, optimizers=lambda net, lr: both(net, lr, muon), **settings)
