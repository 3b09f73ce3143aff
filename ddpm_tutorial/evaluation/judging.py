"""What samples get, beside what real images get; and the classifiers that judge them, as files.

The caller draws the samples; here they are only measured.  A number without its floor says nothing, so every row of the table can be held
against the row of the real images.
"""

import hashlib
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

    def train_features(self, y: Tensor) -> Tensor:
        """Of train images with the labels y: of each class the first ones, as many as y has."""
        y_train, indices = self.y_train.cpu(), []
        for k, n in enumerate(torch.bincount(y.cpu()).tolist()):
            indices.append((y_train == k).nonzero().flatten()[:n])
            if len(indices[-1]) < n:
                raise ValueError(f"there are {n} samples of class {k}, but {len(indices[-1])} train images: the floor is measured at equal numbers")
        return metrics.features(self.classifier, self.x_train[torch.cat(indices).to(self.x_train.device)])


def judge(classifier: Classifier, x_train: Tensor, y_train: Tensor, x_test: Tensor, y_test: Tensor) -> Judge:
    """Images in [-1, 1], on the classifier's device; the classifier and the model have seen the train split only."""
    for x, y, split in ((x_train, y_train, "train"), (x_test, y_test, "test")):
        if len(x) != len(y) or not len(x) or x.shape[1:] != x_test.shape[1:]:
            raise ValueError(f"x_{split} is {tuple(x.shape)} with {len(y)} labels; both splits must have images alike, one label each, and one image at least")
    return Judge(classifier, x_train, y_train, x_test, y_test, metrics.features(classifier, x_test), metrics.nearest(x_test, x_train)[0])


def floors(judge: Judge, n: int) -> dict[str, float | tuple]:
    """What real images get, in the places of `measure`.

    n train images, n/K of each class, against the test images: Fréchet distance, precision, recall.  The test images: agreement (that is,
    the classifier's accuracy), inception-style score, and memorisation, which is 1 by definition.
    """
    K = judge.classifier.config["num_classes"]
    if n % K or n < 1:
        raise ValueError(f"n is {n}; it must be a multiple of the {K} classes, so that each has as many")
    train = judge.train_features(torch.arange(K).repeat_interleave(n // K))
    return {"n": n, **_classified(judge, judge.x_test, judge.y_test), **_compared(judge, train, train), "memorisation": 1.0}


def measure(samples: Tensor, y: Tensor, judge: Judge) -> dict[str, float | tuple]:
    """Samples (N, C, H, W) in [-1, 1] that were asked to be y (N,):

    n, agreement, control, inception_score, frechet, frechet_ratio (to as many train images with the same labels), precision, recall,
    memorisation; and for some an interval of 95 %, "…_interval".  Agreement's is Wilson's.  The others' are bootstraps of the samples, with
    the test images as they are: they say what another draw from the same model could get, and not what another test set could.
    """
    if len(samples) != len(y) or samples.shape[1:] != judge.x_test.shape[1:]:
        raise ValueError(f"samples are {tuple(samples.shape)} with {len(y)} labels; they must be like the real images, "
                         f"(N, {', '.join(map(str, judge.x_test.shape[1:]))}), with N labels")
    if not samples.isfinite().all():
        raise ValueError("the samples hold NaN or infinity")
    as_many = judge.train_features(y)
    samples, y = samples.to(judge.x_test), y.to(judge.y_test.device)
    seen, distance = metrics.features(judge.classifier, samples), metrics.nearest(samples, judge.x_train)[0]

    def ratio(distance: Tensor) -> float:
        return (distance.median() / judge.apart.median()).item()

    return {"n": len(y), **_classified(judge, samples, y), **_compared(judge, seen, as_many),
            "memorisation": ratio(distance), "memorisation_interval": metrics.bootstrap(ratio, distance)}


def _classified(judge: Judge, x: Tensor, y: Tensor) -> dict:
    """What the classifier's probabilities say; and the control: with the labels shuffled, agreement must fall to about 1/K, or it means nothing."""
    p = metrics.probabilities(judge.classifier, x)
    right, y = p.argmax(1), y.cpu()
    hits = int((right == y).sum())
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    return {"agreement": hits / len(y), "agreement_interval": metrics.wilson(hits, len(y)), "control": (right == shuffled).double().mean().item(),
            "inception_score": metrics.inception_score(p), "inception_score_interval": metrics.bootstrap(metrics.inception_score, p)}


def _compared(judge: Judge, seen: Tensor, as_many: Tensor) -> dict:
    """Features of samples, and of as many train images, against those of the test images."""
    def distance(features: Tensor) -> float:
        return metrics.frechet_distance(features, judge.features)

    value, (low, high) = distance(seen), metrics.bootstrap(distance, seen)
    precision, recall = metrics.precision_recall(judge.features, seen)
    return {"frechet": value, "frechet_interval": (max(low, 0.0), high), "frechet_ratio": value / distance(as_many),
            "precision": precision, "recall": recall}


def table(rows: dict[str, dict[str, float | tuple]]) -> str:
    """Markdown, one line per name:  table({"real images": floors(judge, 1000), "scale 1": measure(x, y, judge)})."""
    def cell(row: dict, key: str, form: str, of: float = 1) -> str:
        if key not in row:                                      # a model without labels agrees with nothing
            return "–"
        text = form.format(row[key] * of)
        return text + " ({} … {})".format(*(form.format(v * of) for v in row[f"{key}_interval"])) if f"{key}_interval" in row else text

    lines = ["| | n | agreement, % | labels shuffled, % | Fréchet distance | × floor | inception-style score | precision | recall | memorisation |",
             "|---|" + "---:|" * 9]
    for name, row in rows.items():
        lines.append("| " + " | ".join([
            name, f"{row['n']:,}", cell(row, "agreement", "{:.1f}", 100), cell(row, "control", "{:.1f}", 100), cell(row, "frechet", "{:.2f}"),
            cell(row, "frechet_ratio", "{:.1f}"), cell(row, "inception_score", "{:.2f}"), cell(row, "precision", "{:.2f}"),
            cell(row, "recall", "{:.2f}"), cell(row, "memorisation", "{:.2f}")]) + " |")
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
