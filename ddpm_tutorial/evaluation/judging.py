"""What samples get, beside what real images get; and the classifiers that judge them, as files.

The caller draws the samples; here they are only measured.  A number without its floor says nothing, so every row of the table can be held
against the row of the real images.  And a number by one judge may be that judge's taste, so a panel of them can be asked.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..weights.files import read, stored, write
from . import metrics
from .metrics import Classifier

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"


# Measuring.

class Judge(NamedTuple):
    """A classifier, the real images, and what every measurement needs of them, computed once."""

    classifier: Classifier
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    features: Tensor                                            # of the test images, (N, d) float64
    apart: Tensor                                               # distance of each test image to the nearest train image, (N,)
    unit: float = 1.0                                           # what its features are multiplied with, so that a panel's judges measure in one unit

    def seen(self, x: Tensor) -> Tensor:
        """Images as this judge sees them: features (N, d) in float64."""
        return self.unit * metrics.features(self.classifier, x)

    def train_features(self, y: Tensor) -> Tensor:
        """Of train images with the labels y: of each class the first ones, as many as y has."""
        y_train, indices = self.y_train.cpu(), []
        for k, n in enumerate(torch.bincount(y.cpu()).tolist()):
            indices.append((y_train == k).nonzero().flatten()[:n])
            if len(indices[-1]) < n:
                raise ValueError(f"there are {n} samples of class {k}, but {len(indices[-1])} train images: the floor is measured at equal numbers")
        return self.seen(self.x_train[torch.cat(indices).to(self.x_train.device)])


def judge(classifier: Classifier, x_train: Tensor, y_train: Tensor, x_test: Tensor, y_test: Tensor) -> Judge:
    """Images in [-1, 1], on the classifier's device; the classifier and the model have seen the train split only."""
    for x, y, split in ((x_train, y_train, "train"), (x_test, y_test, "test")):
        if len(x) != len(y) or not len(x) or x.shape[1:] != x_test.shape[1:]:
            raise ValueError(f"x_{split} is {tuple(x.shape)} with {len(y)} labels; both splits must have images alike, one label each, and one image at least")
    return Judge(classifier, x_train, y_train, x_test, y_test, metrics.features(classifier, x_test), metrics.nearest(x_test, x_train)[0])


def panel(first: Judge, seeds: Sequence[int] = (1, 2), folder: str | Path | None = None, epochs: int = 15) -> list[Judge]:
    """The judge, and others who differ by nothing but the seed of their training: three, unless told otherwise.

    folder: where the others are kept, and looked for first; one that was trained on other images is refused.  The size of a feature means nothing, and
    another classifier has other sizes; so the others' features are scaled to have the first one's total variance on the test images.
    """
    x, y, judges = first.x_train, first.y_train, [first]
    images = hashlib.sha256(x.cpu().numpy().tobytes() + y.cpu().numpy().tobytes()).hexdigest()
    for seed in seeds:
        path = None if folder is None else Path(folder) / f"judge-{seed}.safetensors"
        if path is not None and path.is_file():
            net, card = load_classifier(path)
            if (card.get("trained_on"), card.get("epochs")) != (images, epochs):
                raise ValueError(f"{path} was trained on other images, or not for {epochs} epochs: name another folder, or delete that file")
        else:
            net = metrics.train_classifier(x, y.to(x.device), epochs=epochs, seed=seed)
            if path is not None:
                save_classifier(net, path, trained_on=images, epochs=epochs, seed=seed)
        other = judge(net.to(x.device), x, y, first.x_test, first.y_test)
        unit = (first.features.var(0).sum() / other.features.var(0).sum()).sqrt().item()
        judges.append(other._replace(unit=unit, features=unit * other.features))
    return judges


def floors(judge: Judge, n: int) -> dict[str, float | tuple]:
    """What real images get, in the places of `measure`.

    n train images, n/K of each class, against the test images: Fréchet and kernel distance, precision, recall.  The test images: agreement (that is,
    the classifier's accuracy), inception-style score, and memorisation, which is 1 by definition.
    """
    K = judge.classifier.config["num_classes"]
    if n % K or n < 1:
        raise ValueError(f"n is {n}; it must be a multiple of the {K} classes, so that each has as many")
    y = torch.arange(K).repeat_interleave(n // K)
    train = judge.train_features(y)
    return {"n": n, **_classified(judge, judge.x_test, judge.y_test), **_compared(judge, train, y, train), "memorisation": 1.0}


def measure(samples: Tensor, y: Tensor, judge: Judge) -> dict[str, float | tuple]:
    """Samples (N, C, H, W) in [-1, 1] that were asked to be y (N,):

    n, agreement, control, inception_score, precision, recall, memorisation;
    frechet, its floor (what as many train images with the same labels get), and what is left above the floor;
    kernel, the kernel distance, which needs no floor, and its standard error, if there are two images of each class;
    and for some an interval of 95 %, "…_interval".  Agreement's is Wilson's.  The others' are bootstraps of the samples, with the test images as they
    are, class by class: they say what another draw of the same labels from the same model could get, and not what another test set could.  For what is left
    above the floor the floor's train images are drawn again, too: they are as much chance as the samples.  The kernel distance's error is for another draw
    of samples and test images.  (A model without labels draws its classes by chance: y then only says what the floor is made of, and has no meaning.)
    """
    if len(samples) != len(y) or samples.shape[1:] != judge.x_test.shape[1:]:
        raise ValueError(f"samples are {tuple(samples.shape)} with {len(y)} labels; they must be like the real images, "
                         f"(N, {', '.join(map(str, judge.x_test.shape[1:]))}), with N labels")
    if not samples.isfinite().all():
        raise ValueError("the samples hold NaN or infinity")
    as_many = judge.train_features(y)
    samples, y = samples.to(judge.x_test), y.to(judge.y_test.device)
    distance = metrics.nearest(samples, judge.x_train)[0]

    def ratio(distance: Tensor) -> float:
        return (distance.median() / judge.apart.median()).item()

    return {"n": len(y), **_classified(judge, samples, y), **_compared(judge, judge.seen(samples), y, as_many),
            "memorisation": ratio(distance), "memorisation_interval": metrics.bootstrap(ratio, distance, within=[y])}


JUDGED = ("agreement", "frechet_above", "kernel", "inception_score", "precision", "recall")         # what another judge may see otherwise


def measure_by(samples: Tensor, y: Tensor, judges: Sequence[Judge]) -> dict[str, float | tuple]:
    """`measure` by the first judge; and "…_judges", the lowest and the highest number that any of them gives, beside the sampling interval."""
    rows = [measure(samples, y, judge) for judge in judges]
    return rows[0] | {f"{key}_judges": (min(row[key] for row in rows), max(row[key] for row in rows)) for key in JUDGED if key in rows[0]}


def _classified(judge: Judge, x: Tensor, y: Tensor) -> dict:
    """What the classifier's probabilities say; and the control: with the labels shuffled, agreement must fall to about 1/K, or it means nothing."""
    p = metrics.probabilities(judge.classifier, x)
    right, y = p.argmax(1), y.cpu()
    hits = int((right == y).sum())
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    return {"agreement": hits / len(y), "agreement_interval": metrics.wilson(hits, len(y)), "control": (right == shuffled).double().mean().item(),
            "inception_score": metrics.inception_score(p), "inception_score_interval": metrics.bootstrap(metrics.inception_score, p, within=[y])}


def _compared(judge: Judge, seen: Tensor, y: Tensor, as_many: Tensor) -> dict:
    """Features of samples with labels y, and of as many train images in the order of their classes, against those of the test images."""
    def distance(features: Tensor) -> float:
        return metrics.frechet_distance(features, judge.features)

    def above(samples: Tensor, train: Tensor) -> float:
        return distance(samples) - distance(train)

    value, (low, high) = distance(seen), metrics.bootstrap(distance, seen, within=[y])
    precision, recall = metrics.precision_recall(judge.features, seen)
    kernel = {}
    if min(labels.unique(return_counts=True)[1].min() for labels in (y, judge.y_test)) > 1:     # of one image it cannot be said how alike its class is
        kernel = dict(zip(("kernel", "kernel_error"), metrics.kernel_distance(seen, judge.features, y, judge.y_test)))
    return {"frechet": value, "frechet_interval": (max(low, 0.0), high), "frechet_floor": distance(as_many),
            "frechet_above": above(seen, as_many), "frechet_above_interval": metrics.bootstrap(above, seen, as_many, within=[y, y.sort().values]),
            **kernel, "precision": precision, "recall": recall}


COLUMNS = (("agreement, %", "agreement", "{:.1f}", 100), ("labels shuffled, %", "control", "{:.1f}", 100), ("Fréchet distance", "frechet", "{:.2f}", 1),
           ("its floor", "frechet_floor", "{:.2f}", 1), ("above the floor", "frechet_above", "{:.2f}", 1), ("kernel distance", "kernel", "{:.3f}", 1),
           ("inception-style score", "inception_score", "{:.2f}", 1), ("precision", "precision", "{:.2f}", 1), ("recall", "recall", "{:.2f}", 1),
           ("memorisation", "memorisation", "{:.2f}", 1))


def table(rows: dict[str, dict[str, float | tuple]]) -> str:
    """Markdown, one line per name:  table({"real images": floors(judge, 1000), "scale 1": measure(x, y, judge)}).

    In brackets the interval of 95 %; after ± the standard error; in square brackets what the judges of a panel say, lowest … highest.
    """
    def cell(row: dict, key: str, form: str, of: float) -> str:
        if key not in row:                                      # a model without labels, say, agrees with nothing
            return "–"

        def pair(key: str) -> str:
            return " … ".join(form.format(v * of) for v in row[key])

        text = form.format(row[key] * of)
        if f"{key}_interval" in row:
            text += f" ({pair(f'{key}_interval')})"
        if f"{key}_error" in row:
            text += " ± " + form.format(row[f"{key}_error"] * of)
        return text + f" [{pair(f'{key}_judges')}]" if f"{key}_judges" in row else text

    lines = ["| | n | " + " | ".join(title for title, *_ in COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) + 1)]
    lines += ["| " + " | ".join([name, f"{row['n']:,}", *(cell(row, key, form, of) for _, key, form, of in COLUMNS)]) + " |" for name, row in rows.items()]
    return "\n".join(lines)


# Classifiers as files.

def save_classifier(net: Classifier, path: str | Path, half: bool = False, **card: object) -> Path:
    """Write a classifier, and a card of what should be known of it (data=…, test_accuracy=…).   half: weights in float16, half the size."""
    return write(path, stored(net.state_dict(), half), "classifier", {"config": net.config, "card": card})


def load_classifier(path: str | Path) -> tuple[Classifier, dict]:
    """The classifier that `save_classifier` wrote, in float32 on the CPU and ready to judge, and its card."""
    tensors, header = read(path, "classifier")
    net = Classifier(**header["config"])
    try:
        net.load_state_dict(tensors)                            # copies into float32
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit the classifier that it describes: {error}") from None
    return net.eval(), header["card"]


def sha256(path: str | Path) -> str:
    """The file's SHA-256, to be written beside a number: two judges are the same if these are."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# The real FID, for colour images.

class _Images(torch.utils.data.Dataset):
    def __init__(self, images: Tensor):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i]


def torch_fidelity_fid(samples_u8: Tensor, real_u8: Tensor) -> float:
    """FID proper: the Fréchet distance in Inception's features, by torch-fidelity.   uint8 (N, 3, H, W); nothing is downloaded."""
    for images in (samples_u8, real_u8):
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images are {images.dtype} {tuple(images.shape)}; FID takes colour images, uint8 (N, 3, H, W): see data.denormalise")
    only = "This is the only number here that may be called FID; metrics.frechet_distance with our own classifier may not."
    try:
        from torch_fidelity import calculate_metrics
    except ImportError:
        raise ImportError(f"FID needs torch-fidelity:  pip install torch-fidelity.  {only}") from None
    weights = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION
    if not weights.is_file():
        raise FileNotFoundError(f"FID needs Inception's weights: put {INCEPTION}, of the release v0.2.0 on github.com/toshas/torch-fidelity, "
                                f"into {weights.parent}.  {only}")
    result = calculate_metrics(input1=_Images(samples_u8.cpu()), input2=_Images(real_u8.cpu()), fid=True, cuda=torch.cuda.is_available(),
                               feature_extractor_weights_path=str(weights), save_cpu_ram=True, verbose=False)
    return result["frechet_inception_distance"]
