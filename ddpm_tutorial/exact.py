"""Data whose perfect denoiser is known in closed form: what a trained network tries to become.

With these, everything about schedules, samplers and guidance can be shown and tested without training: what is left is the method's own error.
The one identity behind the file is Tweedie's formula,  ε*(x_t, t) = E[ε | x_t] = -√(1-ᾱ_t) ∇ log q_t(x_t).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .checks import a_schedule, described, integer, number
from .forward import Denoiser, eps_from_x0
from .schedules import Schedule


class Mixture:
    """A mixture of K Gaussians in D dimensions; noised by q it stays one, with means √ᾱ_t μ_k and covariances ᾱ_t Σ_k + (1-ᾱ_t) I.

    means (K, D);  cov: one variance, K variances, or (K, D, D) matrices;  weights (K,), default equal;
    labels (K,): the class of each component, default 0 … K-1.
    """

    def __init__(self, means: Tensor, cov: float | Tensor, weights: Tensor | None = None, labels: Tensor | None = None):
        self.means = torch.as_tensor(means, dtype=torch.float64)
        if self.means.ndim != 2 or not len(self.means):
            raise ValueError(f"means has shape {tuple(self.means.shape)}; it must be (K, D): K points in D dimensions")
        K, D = self.means.shape
        cov = torch.as_tensor(cov, dtype=torch.float64)
        if cov.shape not in ((), (1,), (K,), (1, D, D), (K, D, D)):
            raise ValueError(f"cov has shape {tuple(cov.shape)}; it must be one variance, K = {K} variances, or matrices ({K}, {D}, {D})")
        cov = cov if cov.ndim == 3 else cov.view(-1, 1, 1) * torch.eye(D, dtype=torch.float64)
        self.var, self.axes = torch.linalg.eigh(cov.expand(K, D, D))            # (K, D) and (K, D, D): principal axes
        self.weights = torch.full((K,), 1 / K, dtype=torch.float64) if weights is None else torch.as_tensor(weights, dtype=torch.float64)
        self.labels = torch.arange(K) if labels is None else torch.as_tensor(labels)
        if self.var.min() < -1e-12 * self.var.max() or not torch.allclose(cov, cov.mT):
            raise ValueError("every component needs a symmetric covariance with eigenvalues ≥ 0")
        if self.weights.shape != (K,) or self.labels.shape != (K,) or (self.weights <= 0).any():
            raise ValueError("every component needs one positive weight and one label")
        if not all(c.isfinite().all() for c in (self.means, cov, self.weights)):
            raise ValueError("means, cov and weights must be finite; one of them holds NaN or infinity")
        self.var, self.weights = self.var.clamp(min=0), self.weights / self.weights.sum()      # eigh may round a zero eigenvalue below zero

    def sample(self, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """n points (n, D) float32 and their labels (n,)."""
        n, generator = integer(n, "n"), torch.Generator().manual_seed(integer(seed, "seed", 0))
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(n, self.means.shape[1], dtype=torch.float64, generator=generator)
        x_0 = self.means[k] + torch.einsum("nde,ne->nd", self.axes[k], self.var[k].sqrt() * z)
        return x_0.float(), self.labels[k]

    def denoiser(self, schedule: Schedule, y: int | Tensor | None = None) -> Denoiser:
        """ε*(x_t, t), of the whole mixture or of class y (one for all, or (B,))."""
        def eps(x_t: Tensor, t: int | Tensor) -> Tensor:
            log_p, score = self._components(schedule, x_t, t)
            share = (log_p + self._of_class(y, x_t)).softmax(1)                 # (B, K): p(component | x_t)
            return -schedule.noise(t, x_t) * torch.einsum("bk,bkd->bd", share, score)

        return eps

    def log_density(self, schedule: Schedule, y: int | Tensor | None = None) -> Callable[[Tensor, int | Tensor], Tensor]:
        """The function (x_t, t) → log q_t(x_t), or log q_t(x_t | y), in nats, (B,).  t = 0 is the data's own density."""
        def log_q(x_t: Tensor, t: int | Tensor) -> Tensor:
            log_p, _ = self._components(schedule, x_t, t)
            of_class = self._of_class(y, x_t)
            prior = (of_class + _placed(self.weights.log(), x_t)).logsumexp(1)
            return (log_p + of_class).logsumexp(1) - prior

        return log_q

    def log_prob(self, schedule: Schedule, y: int | Tensor) -> Callable[[Tensor, int | Tensor], Tensor]:
        """The perfect noisy classifier (x_t, t) → log p(y | x_t), (B,): what classifier guidance differentiates."""
        def log_p_y(x_t: Tensor, t: int | Tensor) -> Tensor:
            log_p, _ = self._components(schedule, x_t, t)
            return (log_p + self._of_class(y, x_t)).logsumexp(1) - log_p.logsumexp(1)

        return log_p_y

    def _components(self, schedule, x_t, t):
        """log w_k N(x_t; √ᾱ μ_k, ᾱ Σ_k + (1-ᾱ) I), (B, K), and each component's score, (B, K, D)."""
        a_schedule(schedule)
        if not isinstance(x_t, Tensor) or not x_t.is_floating_point():
            raise TypeError(f"x_t is {described(x_t)}; it must be a tensor of floating-point numbers")
        if x_t.ndim != 2 or x_t.shape[1] != self.means.shape[1]:
            raise ValueError(f"x_t has shape {tuple(x_t.shape)}; this mixture lives in (B, {self.means.shape[1]})")
        means, axes, log_w = (_placed(c, x_t) for c in (self.means, self.axes, self.weights.log()))
        alpha_bar = schedule.at(t).cpu().view(-1, 1, 1)
        var = _placed(alpha_bar * self.var + (1 - alpha_bar), x_t)              # (B or 1, K, D), on the principal axes
        d = torch.einsum("bkd,kde->bke", x_t[:, None] - schedule.signal(t, x_t)[..., None] * means, axes)
        log_p = log_w - 0.5 * (d**2 / var + (2 * math.pi * var).log()).sum(-1)
        return log_p, -torch.einsum("bke,kde->bkd", d / var, axes)

    def _of_class(self, y, x_t):
        """0 where a component belongs to class y and -∞ elsewhere, (B or 1, K)."""
        if y is None:
            return x_t.new_zeros(1, len(self.labels))
        belongs = self.labels == torch.as_tensor(y).cpu().view(-1, 1)
        if len(belongs) not in (1, len(x_t)):
            raise ValueError(f"there are {len(belongs)} labels y for a batch of {len(x_t)}: give one, or one for each")
        if not belongs.any(1).all():
            raise ValueError(f"y is {y}; this mixture has the classes {sorted(set(self.labels.tolist()))}")
        return _placed(torch.where(belongs, 0.0, -math.inf), x_t)


def _placed(c: Tensor, x: Tensor) -> Tensor:
    return c.to(x.dtype).to(x.device)                           # type first: Apple GPUs have no float64


def dataset_denoiser(data: Tensor, schedule: Schedule) -> Denoiser:
    """The perfect denoiser of a finite data set (N, *D):  x̂_0 = E[x_0 | x_t] is an average of the data, weighted by a softmax.

    weight_i ∝ exp(-‖x_t - √ᾱ_t x_i‖² / 2(1-ᾱ_t)).  It samples the training set itself: generalising is what a network does *wrong*.
    """
    a_schedule(schedule)
    if not isinstance(data, Tensor) or not data.is_floating_point() or data.ndim < 2 or not data.numel():
        raise TypeError(f"data is {described(data)}; it must be a tensor of floating-point numbers (N, *D) with N ≥ 1 (images: see data.normalise)")
    if not data.isfinite().all():
        raise ValueError("data holds NaN or infinity")
    flat = data.flatten(1).cpu().double()                                       # (N, d)
    half_norm = flat.square().sum(1) / 2

    def eps(x_t: Tensor, t: int | Tensor) -> Tensor:
        if x_t.shape[1:] != data.shape[1:]:
            raise ValueError(f"x_t has shape {tuple(x_t.shape)}; this data set lives in (B, {', '.join(map(str, data.shape[1:]))})")
        alpha_bar = schedule.at(t).cpu().view(-1, 1)
        x = x_t.flatten(1).cpu().double()
        logits = (alpha_bar.sqrt() * (x @ flat.T) - alpha_bar * half_norm) / (1 - alpha_bar)    # ‖x_t‖² cancels in the softmax
        x_0 = logits.softmax(1) @ flat
        return eps_from_x0(schedule, x_t, x_0.view(x_t.shape).to(x_t.dtype).to(x_t.device), t)

    return eps


def ring(K: int = 8, radius: float = 1.0, std: float = 0.1) -> Mixture:
    """K small Gaussians on a circle: the picture everyone knows, and class k is the k-th of them."""
    K, radius, std = integer(K, "K"), number(radius, "radius"), number(std, "std", 0)
    angle = torch.arange(K, dtype=torch.float64) * 2 * math.pi / K
    return Mixture(radius * torch.stack([angle.cos(), angle.sin()], 1), std**2)


def spiral(n: int = 1000, seed: int = 0) -> Tensor:
    """n points (n, 2) of a spiral within [-1, 1]², for `dataset_denoiser` or for training a small network."""
    n, generator = integer(n, "n"), torch.Generator().manual_seed(integer(seed, "seed", 0))
    r = torch.rand(n, generator=generator).sqrt()
    points = torch.stack([(3.5 * math.pi * r).cos(), (3.5 * math.pi * r).sin()], 1) * r[:, None]
    return 0.9 * points + 0.02 * torch.randn(n, 2, generator=generator)
