"""Numbers about samples.  What real images get beside them is `judging`'s business.

[1] Heusel et al. GANs Trained by a Two Time-Scale Update Rule. arXiv:1706.08500 (the Fréchet distance)
[2] Dowson, Landau. The Fréchet Distance between Multivariate Normal Distributions. Journal of Multivariate Analysis 12, 1982
[3] Salimans et al. Improved Techniques for Training GANs. arXiv:1606.03498 (the inception score)
[4] Kynkäänniemi et al. Improved Precision and Recall Metric for Assessing Generative Models. arXiv:1904.06991
[5] Wilson. Probable Inference, the Law of Succession, and Statistical Inference. JASA 22, 1927
[6] Efron. Bootstrap Methods: Another Look at the Jackknife. Annals of Statistics 7, 1979
[7] Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. arXiv:2105.05233 (the classifier of noisy images)
[8] Bińkowski, Sutherland, Arbel, Gretton. Demystifying MMD GANs. arXiv:1801.01401 (the kernel distance, "KID")
[9] Chong, Forsyth. Effectively Unbiased FID and Inception Score and Where to Find Them. arXiv:1911.07023 (the line in 1/n)
[10] Hoeffding. A Class of Statistics with Asymptotically Normal Distribution. Annals of Mathematical Statistics 19, 1948 (means over pairs)

The features and probabilities are our own small classifier's: the distances here are no "FID" and no "KID", the score no "IS", and all compare
only with numbers of the same classifier.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TIME = 64                                                       # sines and cosines that tell a timed classifier the time


class Classifier(nn.Module):
    """A small convolutional network: images in [-1, 1] → logits; `features` are what it sees just before it decides.

    timed: it takes noisy images and their time, net(x_t, t), with t an int or (B,), as classifier guidance needs [7].
    """

    def __init__(self, channels: int = 1, num_classes: int = 10, width: int = 32, timed: bool = False):
        super().__init__()
        self.config = {"channels": channels, "num_classes": num_classes, "width": width, "timed": timed}
        cells = 4 if timed else 2                               # per side: where noise hides the strokes, their rough places are left
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.SiLU())
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.SiLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.SiLU(), nn.AdaptiveAvgPool2d(cells), nn.Flatten(),
            nn.Dropout(0.3), nn.Linear(2 * width * cells**2, 2 * width), nn.SiLU())
        self.head = nn.Linear(2 * width, num_classes)
        self.time = nn.Linear(TIME, width) if timed else None

    def features(self, x: Tensor, t: int | Tensor | None = None) -> Tensor:
        if (t is None) == self.config["timed"]:
            raise ValueError("this classifier looks at noisy images: give it their time t too" if t is None else
                             f"t is {t}, but this classifier was made for clean images: timed=True makes one for noisy images")
        if x.ndim != 4 or x.shape[1] != self.config["channels"] or not x.is_floating_point():
            raise ValueError(f"x is {x.dtype} {tuple(x.shape)}; this classifier takes float (B, {self.config['channels']}, H, W) in [-1, 1]")
        h = self.stem(x)                                        # (B, width, H, W)
        if t is not None:
            h = h + self.time(_sines(torch.as_tensor(t, device=x.device).expand(len(x))).to(h.dtype))[:, :, None, None]
        return self.body(h)                                     # (B, 2·width)

    def forward(self, x: Tensor, t: int | Tensor | None = None) -> Tensor:
        return self.head(self.features(x, t))

    def log_prob(self, y: Tensor) -> Callable[[Tensor, int | Tensor], Tensor]:
        """(x_t, t) → log p(y | x_t), (B,): what `guidance.classifier` asks for."""
        return lambda x_t, t: -F.cross_entropy(self(x_t, t), y, reduction="none")


def _sines(t: Tensor) -> Tensor:
    """Sines and cosines of t, at frequencies 1 … 1e-4.   (B,) → (B, TIME)."""
    angle = t.float()[:, None] * torch.logspace(0, -4, TIME // 2, device=t.device)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def train_classifier(x: Tensor, y: Tensor, epochs: int = 15, batch: int = 64, seed: int = 0, width: int = 32,
                     diffuse: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None) -> Classifier:
    """A Classifier fitted to images x (N, C, H, W) in [-1, 1], shifted by up to a pixel; give it the train split only.

    diffuse: x_0 → (x_t, t), the forward process; the classifier is then a timed one, of noisy images.  For guidance it must give p(y | x_t)
    of the data as they are: no shifts, which nearly halved the agreement of guided digits, and no smoothed labels.
    """
    if x.ndim != 4 or not x.is_floating_point() or y.shape != x.shape[:1] or not len(x) or y.is_floating_point() or epochs < 1:
        raise ValueError(f"x is {x.dtype} {tuple(x.shape)}, y {y.dtype} {tuple(y.shape)}, epochs {epochs}; they must be float (N, C, H, W), one integer "
                         "label for each of N ≥ 1, and ≥ 1")
    if not x.is_cuda and not x.isfinite().all():
        raise ValueError("x holds NaN or infinity")
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):        # the caller's random numbers stay as they are
        torch.manual_seed(seed)
        net = Classifier(x.shape[1], int(y.max()) + 1, width, timed=diffuse is not None).to(x.device).train()
        optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.05)
        batch = min(batch, len(x))
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * (len(x) // batch))
        for _ in range(epochs):
            order = torch.randperm(len(x))
            for i in order[:len(x) // batch * batch].view(-1, batch):
                seen = x[i] if diffuse else _shifted(x[i])
                optimizer.zero_grad()
                logits = net(*diffuse(seen)) if diffuse else net(seen)
                F.cross_entropy(logits, y[i], label_smoothing=0.0 if diffuse else 0.05).backward()
                optimizer.step()
                rate.step()
    return net.eval()


def _shifted(x: Tensor) -> Tensor:
    """By up to a pixel each way, all alike; what comes in is black."""
    dy, dx = torch.randint(-1, 2, (2,)).tolist()
    return F.pad(x, (1, 1, 1, 1), value=-1)[..., 1 + dy:1 + dy + x.shape[2], 1 + dx:1 + dx + x.shape[3]]


@torch.no_grad()
def _in_chunks(function, x: Tensor, chunk: int = 1000) -> Tensor:
    return torch.cat([function(part) for part in x.split(chunk)])


def accuracy(classifier: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """Share of images x that the classifier takes for y.  On samples, with the requested labels, this is their agreement.

    Of a timed classifier, at time t:  accuracy(lambda x_t: classifier(x_t, t), x_t, y).
    """
    if len(x) != len(y) or not len(x):
        raise ValueError(f"there are {len(x)} images and {len(y)} labels; there must be as many, and one at least")
    return (_in_chunks(classifier, x).argmax(1) == y).float().mean().item()


def features(classifier: Classifier, x: Tensor) -> Tensor:
    """What the classifier sees, (N, d) in float64."""
    return _in_chunks(classifier.features, x).cpu().double()


def probabilities(classifier: Classifier, x: Tensor) -> Tensor:
    """p(y | x) as the classifier sees it, (N, K) in float64."""
    return _in_chunks(classifier, x).cpu().double().softmax(1)


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """[5]: the interval of a share, successes of n:  all p with |successes/n - p| ≤ z √(p(1-p)/n).   1.96 means 95 %.

    Unlike p̂ ± z √(p̂(1-p̂)/n) it stays within 0 … 1, and 100 of 100 does not mean "certain".
    """
    if not (isinstance(successes, int) and 0 <= successes <= n and n > 0 and z > 0):
        raise ValueError(f"{successes} successes of {n}, z = {z}: they must be a whole number 0 … n, n ≥ 1 and z > 0")
    centre = (successes + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * math.sqrt(successes * (n - successes) / n + z**2 / 4)
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def bootstrap(statistic: Callable[..., float], *tensors: Tensor, n: int = 200, seed: int = 0, level: float = 0.95,
              within: Sequence[Tensor] = ()) -> tuple[float, float]:
    """[6]: where `statistic` of other tensors like these would lie, seen from n resamples of the rows of each.

    within: labels, (N,) for each tensor, if another draw would have as many of each class; rows are then drawn again class by class.  Without them the
    interval holds what chance does to the classes as well: for the Fréchet distance of 1,000 digits, 100 of each, it is several times too wide.

    Only 63 % of a resample's rows are different ones.  A statistic that falls with the number of rows, as the Fréchet distance does, comes
    out too high in it: often the whole percentile interval lies above the estimate, and the "basic" one, its mirror image, below.  The
    resamples know the spread and not the centre, so here their percentiles are shifted until their mean is the estimate.  The interval is for
    what to expect at this number of rows, not at infinitely many; near the floor of a distance it is up to twice too wide.
    """
    if not tensors or not all(len(x) for x in tensors) or n < 1 or not 0 < level < 1:
        raise ValueError(f"{len(tensors)} tensors of {[len(x) for x in tensors]} rows, n = {n}, level = {level}: "
                         "there must be one tensor at least, each with rows, n ≥ 1 and a level between 0 and 1")
    labels = [y.cpu() for y in within] or [torch.zeros(len(x)) for x in tensors]
    if [len(y) for y in labels] != [len(x) for x in tensors]:
        raise ValueError(f"within holds labels for {[len(y) for y in labels]} rows, but the tensors have {[len(x) for x in tensors]}")
    classes = [[(y == k).nonzero().flatten() for k in y.unique()] for y in labels]
    generator = torch.Generator().manual_seed(seed)             # its own: the caller's random numbers stay as they are

    def again(x: Tensor, classes: list[Tensor]) -> Tensor:
        return x[torch.cat([rows[torch.randint(len(rows), (len(rows),), generator=generator)] for rows in classes]).to(x.device)]

    values = torch.tensor([float(statistic(*map(again, tensors, classes))) for _ in range(n)], dtype=torch.float64)
    shifted = values - values.mean() + float(statistic(*tensors))
    low, high = shifted.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return low, high


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """[1] eq. 6, [2]:  ‖μ_a - μ_b‖² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½)  of features a (N, d), b (M, d).

    Means and covariances of few rows are off, and every way of being off is a distance: the expected value is that of infinitely many rows plus about
    c/N + c'/M.  The bias is *added*, so subtract it (real images at equal N, the floor); a ratio to the floor would grow with N for one and the same model.
    """
    _features(a, b, 2)
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.atleast_2d(a.T.cov()), torch.atleast_2d(b.T.cov())     # of one feature, cov is a number
    values, axes = torch.linalg.eigh(cov_a)
    root_a = axes * values.clamp(min=0).sqrt() @ axes.T                         # eigh may round a zero eigenvalue below zero
    cross = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp(min=0).sqrt().sum()    # tr (Σ_a Σ_b)^½, by a symmetric matrix with the same eigenvalues
    return ((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross).item()


def frechet_at_infinity(a: Tensor, b: Tensor, y_a: Tensor | None = None, y_b: Tensor | None = None, parts: int = 4, seed: int = 0) -> float:
    """[9]: the Fréchet distance of infinitely many rows of both, where the line  d(k) = d_∞ + c·k  meets k = 0.

    Both sets are cut into k parts, k = 1 … `parts`, and d(k) is the mean distance of the parts: n/k rows have k times the bias of n.  ([9] draws subsets
    of a alone, and keeps b's bias.)  Labels, if they are given, are dealt out evenly: sets with as many of each class have less bias than their parts
    would have without.  The line is the first term of a series in 1/n, so every part must have 100 rows.  Near 0 the result may well be negative.
    """
    _features(a, b, 2)
    if not isinstance(parts, int) or parts < 2 or min(len(a), len(b)) < 100 * parts:
        raise ValueError(f"there are {len(a)} and {len(b)} rows for {parts} parts; a line takes 2 parts at least, and each of them 100 rows")
    generator = torch.Generator().manual_seed(seed)

    def shuffled(x: Tensor, y: Tensor | None) -> Tensor:        # and then sorted by class: every k-th row is a part with as many of each
        order = torch.randperm(len(x), generator=generator)
        return x[order if y is None else order[y.cpu()[order].argsort(stable=True)]]

    a, b = shuffled(a, y_a), shuffled(b, y_b)
    distance = [sum(frechet_distance(a[i::k], b[i::k]) for i in range(k)) / k for k in range(1, parts + 1)]
    line = torch.stack([torch.ones(parts), torch.arange(1.0, parts + 1)], dim=1).double()       # (parts, 2)
    return torch.linalg.lstsq(line, torch.tensor(distance, dtype=torch.float64)[:, None]).solution[0].item()


def kernel_distance(a: Tensor, b: Tensor, y_a: Tensor | None = None, y_b: Tensor | None = None) -> tuple[float, float]:
    """[8]: the unbiased MMD² of features a (m, d) and b (n, d), with k(x, y) = (x·y/d + 1)³; and its standard error.

    U = Σ_{i≠j} k(a_i, a_j)/(m(m-1)) + Σ_{i≠j} k(b_i, b_j)/(n(n-1)) - 2 Σ_{ij} k(a_i, b_j)/(mn),  with expected value MMD².

    A row never meets itself; so the expected value is the same for every m and n, and 0 if both sets come from one distribution: no floor is needed,
    and half of all perfect models get a negative number.  The kernel is a polynomial: it compares moments up to the third.

    Labels, where a set has a fixed number of each class: rows of different classes are then no chance meeting, and a row that does not meet itself has one
    of its own class too few.  So its m_k - 1 fellows count for m_k; without that, real images in equal numbers would get less than 0.

    To first order U is a mean over a of 2h_i,  h_i = mean of k(a_i, a_j≠i) - mean of k(a_i, b_j),  and the same over b; so another draw of both sets has the
    error² = 4 s²(h)/m + 4 s²(g)/n  ([10]; s² class by class with labels).  Its expected value is the variance of U where the distributions differ clearly,
    and about twice that where they are equal: the first order vanishes there, and s² holds the second twice.  Near 0 the error is up to √2 too cautious.
    """
    _features(a, b, 2)
    a, b, d = a.double(), b.double(), a.shape[1]

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / d + 1) ** 3

    def within(x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean kernel of each row with the others, classes in their proportions; and the rows' classes, as a table of 0 and 1 (classes, rows)."""
        y = torch.zeros(len(x)) if y is None else y.cpu()
        if len(y) != len(x) or (sizes := y.unique(return_counts=True)[1]).min() < 2:
            raise ValueError(f"there are {len(y)} labels for {len(x)} rows; there must be one for each, and of each class two rows at least")
        member = (y == y.unique()[:, None]).double()
        weight = torch.where(y == y[:, None], (sizes / (sizes - 1)).double() @ member, 1.0).fill_diagonal_(0)      # (rows, rows)
        return (kernel(x, x) * weight).mean(1), member

    def variance(h: Tensor, member: Tensor) -> Tensor:
        """Of the mean of h over a draw with as many rows of each class."""
        size = member.sum(1)
        mean = member @ h / size
        return (member @ (h - mean @ member).square() / (size - 1) * size).sum() / len(h)**2

    (aa, of_a), (bb, of_b), ab = within(a, y_a), within(b, y_b), kernel(a, b)
    error2 = 4 * variance(aa - ab.mean(1), of_a) + 4 * variance(bb - ab.mean(0), of_b)
    return (aa.mean() + bb.mean() - 2 * ab.mean()).item(), error2.sqrt().item()


def _features(a: Tensor, b: Tensor, least: int) -> None:
    if a.ndim != 2 or a.shape[1:] != b.shape[1:] or min(len(a), len(b)) < least:
        raise ValueError(f"features have shapes {tuple(a.shape)} and {tuple(b.shape)}; they must be (N, d) and (M, d) with N, M ≥ {least}")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("features hold NaN or infinity")


def inception_score(probabilities: Tensor) -> float:
    """[3] section 4:  exp E KL(p(y|x) ‖ p(y)),  p(y) = E p(y|x),  of probabilities p(y|x) (N, K).  1 (all alike) … K (each sure, classes in balance).

    With our own classifier's probabilities it is inception-*style* only; trained with smoothed labels, that gives real images less than K, too.
    """
    p = probabilities.double()
    if p.ndim != 2 or len(p) == 0 or not ((p >= 0).all() and ((p.sum(1) - 1).abs() <= 1e-4).all()):
        raise ValueError(f"probabilities have shape {tuple(p.shape)}; they must be (N, K), with rows ≥ 0 that sum to 1")
    return (torch.xlogy(p, p) - torch.xlogy(p, p.mean(0))).sum(1).mean().exp().item()


EXACT = "donot_use_mm_for_euclid_dist"                          # so that a copy is at distance 0, and not at 0.004


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """[4] eqs. 1-2, of features real (N, d), fake (M, d):  the share of fakes in the real manifold, and of reals in the fake one.

    A set's manifold is all balls around its points that reach to their k-th nearest neighbour in the set.  Both shares depend on N and M:
    compare at equal numbers only.  A lonely point has a large ball that lets much in, even noise: read precision beside the distance.
    """
    if real.ndim != 2 or real.shape[1:] != fake.shape[1:] or not isinstance(k, int) or not 1 <= k < min(len(real), len(fake)):
        raise ValueError(f"features have shapes {tuple(real.shape)} and {tuple(fake.shape)}; they must be (N, d) and (M, d) with N, M > k = {k} ≥ 1")
    if not (real.isfinite().all() and fake.isfinite().all()):
        raise ValueError("features hold NaN or infinity")

    def radii(x: Tensor) -> Tensor:                             # k + 1, because each point is its own nearest
        return torch.cat([torch.cdist(part, x, compute_mode=EXACT).topk(k + 1, largest=False).values[:, k] for part in x.split(1000)])

    real_radii, fake_radii = radii(real), radii(fake)
    inside, covered = [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for part, part_radii in zip(fake.split(1000), fake_radii.split(1000)):
        distance = torch.cdist(part, real, compute_mode=EXACT)                  # (1000, N)
        inside.append((distance <= real_radii).any(1))
        covered |= (distance <= part_radii[:, None]).any(0)
    return torch.cat(inside).float().mean().item(), covered.float().mean().item()


def variety(x: Tensor, y: Tensor, real: Tensor, y_real: Tensor) -> float:
    """How different images of one class are, where 1 is as different as real ones:  1/K Σ_k D(x of class k) / D(real of class k),

    D(x) = Σ_{i<j} ‖x_i - x_j‖ / (n(n-1)/2), the mean distance of two different images.  K: the classes that y names.

    Over pairs of *different* images D has the same expected value for every n, so 10 samples may be compared with 100; a standard deviation is too small
    for few images, and a distance to their mean, too.  Contrast counts: images k times as bright have k times the variety.  So does noise: read it beside
    precision.  And it sees one class at a time: whether all classes are drawn is recall's business.
    """
    if x.shape[1:] != real.shape[1:] or len(x) != len(y) or len(real) != len(y_real) or not len(x) or not x.is_floating_point():
        raise ValueError(f"x is {x.dtype} {tuple(x.shape)} with {len(y)} labels, real {tuple(real.shape)} with {len(y_real)}; "
                         "they must be floats, images alike, one label each")
    ratios = []
    for k in y.unique().tolist():
        some, known = x[y == k].flatten(1), real[y_real == k].flatten(1)
        if min(len(some), len(known)) < 2:
            raise ValueError(f"class {k} has {len(some)} samples and {len(known)} real images; variety takes two of each")
        ratios.append((F.pdist(some).mean() / F.pdist(known).mean()).item())
    return sum(ratios) / len(ratios)


def nearest(x: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Distance from each image to the nearest training image, and which it is: (N,), (N,)."""
    if x.shape[1:] != train.shape[1:] or not len(train) or not x.is_floating_point():
        raise ValueError(f"x is {x.dtype} {tuple(x.shape)} and train {tuple(train.shape)}; they must be floats, of images alike, and train not empty")
    x, train = x.flatten(1), train.flatten(1)
    distances, indices = [], []
    for part in x.split(500):                                   # a matrix product finds the candidates: fast, but rounded; then they are measured
        close = torch.cdist(part, train, compute_mode="use_mm_for_euclid_dist").topk(min(4, len(train)), largest=False).indices
        distance, which = (part[:, None] - train[close]).norm(dim=2).min(1)
        distances.append(distance)
        indices.append(close.gather(1, which[:, None])[:, 0])
    return torch.cat(distances), torch.cat(indices)


def memorisation(x: Tensor, train: Tensor, test: Tensor) -> float:
    """Median distance of samples to the training set, over that of test images: about 1 for new images, 0 for copies."""
    return (nearest(x, train)[0].median() / nearest(test, train)[0].median()).item()


def per_class(y: Tensor, n: int) -> Tensor:
    """Indices of the first n images of each class."""
    if y.is_floating_point() or not len(y) or n < 1:
        raise ValueError(f"y is {y.dtype} {tuple(y.shape)} and n {n}; they must be integer labels (N,) with N ≥ 1, and n ≥ 1")
    counts = torch.bincount(y)
    if n > counts.min():
        raise ValueError(f"{n} images of each class were asked for; the smallest class has {counts.min()}")
    return torch.cat([(y == k).nonzero().flatten()[:n] for k in range(len(counts))])
