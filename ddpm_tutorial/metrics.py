"""Numbers about samples, each with the number that real images get.

[1] Heusel et al. GANs Trained by a Two Time-Scale Update Rule. arXiv:1706.08500 (the Fréchet distance)
[2] Dowson, Landau. The Fréchet Distance between Multivariate Normal Distributions. Journal of Multivariate Analysis 12, 1982

The features are our own small classifier's, so the distance here is no "FID" and compares only with others on this page.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Classifier(nn.Module):
    """A small convolutional network: images in [-1, 1] → logits; `features` are what it sees just before it decides."""

    def __init__(self, channels: int = 1, num_classes: int = 10, width: int = 32):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.SiLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Dropout(0.3), nn.Linear(8 * width, 2 * width), nn.SiLU())
        self.head = nn.Linear(2 * width, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)                                     # (B, 2·width)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def train_classifier(x: Tensor, y: Tensor, epochs: int = 15, batch: int = 64, seed: int = 0) -> Classifier:
    """A Classifier fitted to images x (N, C, H, W) in [-1, 1], shifted by up to a pixel; give it the train split only."""
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):        # the caller's random numbers stay as they are
        torch.manual_seed(seed)
        net = Classifier(x.shape[1], int(y.max()) + 1).to(x.device).train()
        optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.05)
        steps = epochs * (len(x) // batch)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        for _ in range(epochs):
            order = torch.randperm(len(x))
            for i in order[:len(x) // batch * batch].view(-1, batch):
                dy, dx = torch.randint(-1, 2, (2,)).tolist()
                shifted = F.pad(x[i], (1, 1, 1, 1), value=-1)[..., 1 + dy:1 + dy + x.shape[2], 1 + dx:1 + dx + x.shape[3]]
                optimizer.zero_grad()
                F.cross_entropy(net(shifted), y[i], label_smoothing=0.05).backward()
                optimizer.step()
                rate.step()
    return net.eval()


@torch.no_grad()
def _in_chunks(function, x: Tensor, chunk: int = 1000) -> Tensor:
    return torch.cat([function(part) for part in x.split(chunk)])


def accuracy(classifier: Classifier, x: Tensor, y: Tensor) -> float:
    """Share of images x that the classifier takes for y.  On samples, with the requested labels, this is their agreement."""
    if len(x) != len(y):
        raise ValueError(f"there are {len(x)} images and {len(y)} labels")
    return (_in_chunks(classifier, x).argmax(1) == y).float().mean().item()


def features(classifier: Classifier, x: Tensor) -> Tensor:
    """What the classifier sees, (N, d) in float64."""
    return _in_chunks(classifier.features, x).cpu().double()


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """[1] eq. 6, [2]:  ‖μ_a - μ_b‖² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½)  of features a (N, d), b (M, d).  Falls with N: compare at equal N only."""
    if a.ndim != 2 or a.shape[1:] != b.shape[1:] or min(len(a), len(b)) < 2:
        raise ValueError(f"features have shapes {tuple(a.shape)} and {tuple(b.shape)}; they must be (N, d) and (M, d) with N, M ≥ 2")
    a, b = a.double(), b.double()
    cov_a, cov_b = a.T.cov(), b.T.cov()
    values, axes = torch.linalg.eigh(cov_a)
    root_a = axes * values.clamp(min=0).sqrt() @ axes.T                         # eigh may round a zero eigenvalue below zero
    cross = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp(min=0).sqrt().sum()    # tr (Σ_a Σ_b)^½, by a symmetric matrix with the same eigenvalues
    return ((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross).item()


def nearest(x: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Distance from each image to the nearest training image, and which it is: (N,), (N,)."""
    exact = "donot_use_mm_for_euclid_dist"                      # so that a copy is at distance 0, and not at 0.004
    pairs = [torch.cdist(part.flatten(1), train.flatten(1), compute_mode=exact).min(1) for part in x.split(1000)]
    return torch.cat([p.values for p in pairs]), torch.cat([p.indices for p in pairs])


def memorisation(x: Tensor, train: Tensor, test: Tensor) -> float:
    """Median distance of samples to the training set, over that of test images: about 1 for new images, 0 for copies."""
    return (nearest(x, train)[0].median() / nearest(test, train)[0].median()).item()


def per_class(y: Tensor, n: int) -> Tensor:
    """Indices of the first n images of each class."""
    counts = torch.bincount(y)
    if n > counts.min():
        raise ValueError(f"{n} images of each class were asked for; the smallest class has {counts.min()}")
    return torch.cat([(y == k).nonzero().flatten()[:n] for k in range(len(counts))])
