"""The weights that come with the package."""

import pytest
import torch
from safetensors import safe_open

from ddpm_tutorial import DDPM, cosine, data, evaluation, q_sample
from ddpm_tutorial.evaluation import metrics
from ddpm_tutorial.weights import PRETRAINED

FOLDER = PRETRAINED["digits"].parent
CARDS = (FOLDER / "README.md").read_text(encoding="utf-8")
FILES = sorted(FOLDER.glob("*.safetensors"))


def test_they_are_small_and_stored_in_half():
    """At most 6 MB in all; every weight is float16 on disk (BatchNorm's counters are integers), and float32 once loaded."""
    assert FILES and sum(path.stat().st_size for path in FILES) <= 6e6
    for path in FILES:
        with safe_open(path, "pt") as file:
            assert {file.get_tensor(key).dtype for key in file.keys()} <= {torch.float16, torch.int64}
    assert {p.dtype for p in DDPM.load("digits").parameters()} == {torch.float32}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_has_its_card(path):
    """And a classifier's card names the SHA-256 of the very file."""
    assert path.stem in CARDS
    if path.stem.endswith("classifier"):
        assert evaluation.sha256(path) in CARDS


def test_the_digits_model_draws_what_it_is_asked_for():
    """100 guided digits in 10 DDIM steps: the judge sees the requested ones."""
    y = torch.arange(10).repeat(10)
    x = DDPM.load("digits").sample(100, y, "ddim", steps=10, scale=2.0)
    judge, _ = evaluation.load_classifier(FOLDER / "digits-classifier.safetensors")
    assert metrics.accuracy(judge, x, y) >= 0.97
    assert metrics.accuracy(judge, x, y.roll(1)) <= 0.05        # and not just any


def test_the_mnist_model_draws_what_it_is_asked_for():
    """30 guided digits in 10 DDIM steps."""
    y = torch.arange(10).repeat(3)
    x = DDPM.load("mnist").sample(30, y, "ddim", steps=10, scale=2.0)
    judge, _ = evaluation.load_classifier(FOLDER / "mnist-classifier.safetensors")
    assert x.shape == (30, 1, 28, 28) and metrics.accuracy(judge, x, y) >= 0.9
    assert metrics.accuracy(judge, x, y.roll(1)) <= 0.15


def test_the_digits_classifiers_are_as_good_as_their_cards_say():
    """On the test images, which they have not seen."""
    test = data.load("digits", "test")
    x = data.normalise(test.images)
    judge, card = evaluation.load_classifier(FOLDER / "digits-classifier.safetensors")
    assert metrics.accuracy(judge, x, test.y) == pytest.approx(card["test_accuracy"], abs=0.003)
    noisy, card = evaluation.load_classifier(FOLDER / "digits-noisy-classifier.safetensors")
    x_t = q_sample(cosine(1000), x, torch.randn(x.shape, generator=torch.Generator().manual_seed(0)), 250)
    assert metrics.accuracy(lambda x: noisy(x, 250), x_t, test.y) == pytest.approx(card["test_accuracy_at"]["250"], abs=0.03)
