"""Data whose perfect denoiser is known in closed form: what a trained network tries to become.

With these, everything about schedules, samplers and guidance can be shown and tested without any
training: what is left is the method's own error.  A picture that is wrong with an exact denoiser
has a wrong sampler; one that is wrong with a network only has a network to blame.

The one identity behind the file is Tweedie's formula,

    ε*(x_t, t)  =  E[ε | x_t]  =  -√(1-ᾱ_t) ∇ log q_t(x_t),

[1].  In words: the best guess of the noise (in the mean-square sense, which is what a loss asks for) is the
average over all noises that may have led to x_t, and it points away from where noisy data are dense.
For a mixture of Gaussians q_t is a mixture of Gaussians again (`Mixture`); for a finite data set it is
one bump around each shrunken data point (`dataset_denoiser`).  The tests and the notebooks use both
wherever a network could stand.

Where it comes from: q_t(x_t) = ∫ q(x_0) N(x_t; √ᾱ_t x_0, (1-ᾱ_t) I) dx_0.  Take the gradient under
the integral.  That of the normal is itself times -(x_t - √ᾱ_t x_0)/(1-ᾱ_t), and x_t - √ᾱ_t x_0 is
√(1-ᾱ_t) ε.  Divide by q_t(x_t): what stands beside -ε/√(1-ᾱ_t) is now q(x_0 | x_t), so the integral
is an average over everything that may lie behind x_t:  ∇ log q_t(x_t) = -E[ε | x_t] / √(1-ᾱ_t).

[1] Efron. Tweedie's Formula and Selection Bias. JASA 106, 2011
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from . import checks
from .checks import checked
from .forward import Denoiser, eps_from_x0
from .schedules import Schedule


class Mixture:
    """A mixture of K Gaussians in D dimensions; noised by q it stays one, with means √ᾱ_t μ_k and covariances ᾱ_t Σ_k + (1-ᾱ_t) I.

    means (K, D);  cov: one variance, K variances, or (K, D, D) matrices;  weights (K,), default
    equal; labels (K,): the class of each component, default 0 … K-1.

    Methods answer with functions of (x_t, t), the same kind of thing as a network's denoiser.

    Why it stays one: given its component, x_0 is Gaussian, and √ᾱ_t x_0 + √(1-ᾱ_t) ε is a sum of
    two independent Gaussians.  Adding (1-ᾱ_t) I to a covariance turns none of its principal axes,
    it only makes each variance larger; so the axes are found once, here, and every t is a matter of
    scalars.
    """

    def __init__(self, means: Tensor, cov: float | Tensor, weights: Tensor | None = None, labels: Tensor | None = None):
        self.means, cov = torch.as_tensor(means, dtype=torch.float64), torch.as_tensor(cov, dtype=torch.float64)
        K, D = len(self.means), self.means.shape[-1]
        # Tables are float64, like a schedule's, and everything that can be computed once is computed once.
        self.weights = torch.ones(K, dtype=torch.float64) if weights is None else torch.as_tensor(weights, dtype=torch.float64)
        self.labels = torch.arange(K) if labels is None else torch.as_tensor(labels)
        checks.mixture(self.means, cov, self.weights, self.labels)
        cov = cov if cov.ndim == 3 else cov.view(-1, 1, 1) * torch.eye(D, dtype=torch.float64)                          # (1 or K, D, D)
        var, self.axes = torch.linalg.eigh(cov.expand(K, D, D))                                                         # (K, D), (K, D, D)
        self.var, self.weights = var.clamp(min=0), self.weights / self.weights.sum()    # eigh may round a zero eigenvalue below zero

    @checked
    def sample(self, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """n points (n, D) float32 and their labels (n,): choose a component, then draw from it."""
        generator = torch.Generator().manual_seed(seed)
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)                                   # (n,)
        z = torch.randn(n, self.means.shape[1], dtype=torch.float64, generator=generator)                               # (n, D)
        x_0 = self.means[k] + torch.einsum("nde,ne->nd", self.axes[k], self.var[k].sqrt() * z)                          # μ + Σ^½ z      (n, D)
        return x_0.float(), self.labels[k]

    def denoiser(self, schedule: Schedule, y: int | Tensor | None = None) -> Denoiser:
        """ε*(x_t, t), of the whole mixture or of class y (one for all, or (B,)).   x_t (B, D) → (B, D).

        The score of a mixture is the average of its components' scores, each weighted by how likely
        it is that x_t came from it: ∇ log Σ p_k = Σ (p_k/Σp) ∇ log p_k.
        """
        def eps(x_t: Tensor, t: int | Tensor) -> Tensor:
            log_p, score = self._components(schedule, x_t, t)
            share = (log_p + self._of_class(y, x_t)).softmax(1)                                                         # p(k | x_t)   (B, K)
            return -schedule.noise(t, x_t) * torch.einsum("bk,bkd->bd", share, score)                                   # ε*           (B, D)

        return eps

    def log_density(self, schedule: Schedule, y: int | Tensor | None = None) -> Callable[[Tensor, int | Tensor], Tensor]:
        """The function (x_t, t) → log q_t(x_t), or log q_t(x_t | y), in nats, (B,).  t = 0 is the data's own density.

        log Σ w_k N_k, by logsumexp: far from all components each N_k is 0 in floating point, and
        its log is not.  With a class, the weights of that class are made to sum to 1 again: divide
        by p(y).
        """
        def log_q(x_t: Tensor, t: int | Tensor) -> Tensor:
            log_p, _ = self._components(schedule, x_t, t)
            of_class = self._of_class(y, x_t)                                                                           # (B or 1, K)
            prior = (of_class + _placed(self.weights.log(), x_t)).logsumexp(1)                                          # log p(y)     (B or 1,)
            return (log_p + of_class).logsumexp(1) - prior

        return log_q

    def log_prob(self, schedule: Schedule, y: int | Tensor) -> Callable[[Tensor, int | Tensor], Tensor]:
        """The perfect noisy classifier (x_t, t) → log p(y | x_t), (B,): what classifier guidance differentiates.

        Not the classifier of the clean data: where the noise hides which class it was, it says so.
        Bayes' rule, p(y | x_t) = Σ_{k of y} p_k / Σ_k p_k, in logarithms.
        """
        def log_p_y(x_t: Tensor, t: int | Tensor) -> Tensor:
            log_p, _ = self._components(schedule, x_t, t)                                                               # (B, K)
            return (log_p + self._of_class(y, x_t)).logsumexp(1) - log_p.logsumexp(1)

        return log_p_y

    def _components(self, schedule, x_t, t):
        """log w_k N(x_t; √ᾱ μ_k, ᾱ Σ_k + (1-ᾱ) I), (B, K), and each component's score, (B, K, D).

        On its principal axes a Gaussian is D independent numbers d with variances v: log N is
        -½ Σ (d²/v + log 2πv), and its gradient -d/v, turned back from the axes.
        """
        checks.a_schedule(schedule)
        checks.points(x_t, tuple(self.means.shape[1:]), "mixture")
        means, axes, log_w = (_placed(c, x_t) for c in (self.means, self.axes, self.weights.log()))
        alpha_bar = schedule.at(t).cpu().view(-1, 1, 1)
        var = _placed(alpha_bar * self.var + (1 - alpha_bar), x_t)                                                      # v            (B or 1, K, D)
        d = torch.einsum("bkd,kde->bke", x_t[:, None] - schedule.signal(t, x_t)[..., None] * means, axes)               # d            (B, K, D)
        log_p = log_w - 0.5 * (d**2 / var + (2 * math.pi * var).log()).sum(-1)                                          # log w_k N_k  (B, K)
        return log_p, -torch.einsum("bke,kde->bkd", d / var, axes)

    def _of_class(self, y, x_t):
        """0 where a component belongs to class y and -∞ elsewhere, (B or 1, K): added to a log, it keeps or removes."""
        if y is None:                                                                                                   # every component
            return x_t.new_zeros(1, len(self.labels))
        belongs = self.labels == torch.as_tensor(y).cpu().view(-1, 1)
        checks.classes(belongs, y, self.labels, len(x_t))
        return _placed(torch.where(belongs, 0.0, -math.inf), x_t)


def _placed(c: Tensor, x: Tensor) -> Tensor:
    """A table formed in float64, rounded once and brought to x."""
    return c.to(x.dtype).to(x.device)                           # type first: Apple GPUs have no float64


@checked
def dataset_denoiser(data: Tensor, schedule: Schedule) -> Denoiser:
    """The perfect denoiser of a finite data set (N, *D):  x̂_0 = E[x_0 | x_t] is an average of the data, weighted by a softmax.

    weight_i ∝ exp(-‖x_t - √ᾱ_t x_i‖² / 2(1-ᾱ_t)):  how likely it is that x_t came from x_i.  It is
    the minimum of the training loss on these N images, and it samples these N images and nothing
    else: what a network makes that is new, it makes because it does not reach that minimum.

    At large t all weights are nearly equal and x̂_0 is the mean of the data, a grey blur; at small
    t one of them is nearly 1, and x̂_0 is the nearest image.  In between, the walk decides which it
    will be.
    """
    flat = data.flatten(1).cpu().double()                                                                               # (N, d)
    # Multiply ‖x_t - √ᾱ_t x_i‖² out: ‖x_t‖² is the same for all i and cancels, ‖x_i‖² is known beforehand, and what is left is one
    # product of matrices, so that the denoiser of a thousand images is as fast as a small network.
    half_norm = flat.square().sum(1) / 2                                                                                # (N,)

    def eps(x_t: Tensor, t: int | Tensor) -> Tensor:
        checks.points(x_t, tuple(data.shape[1:]), "data set")
        alpha_bar = schedule.at(t).cpu().view(-1, 1)
        # In float64: at t = 1 the exponents are in the thousands, and two neighbours differ in the last digits of float32.
        x = x_t.flatten(1).cpu().double()                                                                               # (B, d)
        logits = (alpha_bar.sqrt() * (x @ flat.T) - alpha_bar * half_norm) / (1 - alpha_bar)                            # ‖x_t‖² cancels in the softmax
        x_0 = logits.softmax(1) @ flat                                                                                  # E[x_0 | x_t] (B, d)
        return eps_from_x0(schedule, x_t, x_0.view(x_t.shape).to(x_t.dtype).to(x_t.device), t)

    return eps


@checked
def ring(K: int = 8, radius: float = 1.0, std: float = 0.1) -> Mixture:
    """K small Gaussians on a circle: the picture everyone knows, and class k is the k-th of them.

    With std 0.1 the eight do not touch, so that one can see whether a sample is where it should be;
    and the centre, where the average of all of them lies, is empty: a sampler that blurs ends
    there.
    """
    angle = torch.arange(K, dtype=torch.float64) * 2 * math.pi / K                                                      # (K,)
    return Mixture(radius * torch.stack([angle.cos(), angle.sin()], 1), std**2)


@checked
def spiral(n: int = 1000, seed: int = 0) -> Tensor:
    """n points (n, 2) of a spiral within [-1, 1]², for `dataset_denoiser` or for training a small network.

    One curve and no clumps: what a mixture of a few Gaussians cannot be, and a network has to
    learn.
    """
    generator = torch.Generator().manual_seed(seed)
    # r = √ of a uniform number, as for points spread evenly over a disc; the angle turns 1¾ times on the way out.
    r = torch.rand(n, generator=generator).sqrt()                                                                       # uniform over the disc's area
    points = torch.stack([(3.5 * math.pi * r).cos(), (3.5 * math.pi * r).sin()], 1) * r[:, None]
    return 0.9 * points + 0.02 * torch.randn(n, 2, generator=generator)
