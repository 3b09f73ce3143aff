"""Every mistake that a reader is likely to make, and the words that the answer must contain: what was given, and what is allowed."""

import json
import math
import struct
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from ddpm_tutorial import (
    DDPM, MLP, DDPMConfig, Mixture, Schedule, TrainConfig, TrainState, UNet, UNetConfig, cosine, data, ddim_step, ddpm_step, denoiser, drop_labels,
    eps_from_x0, final, from_betas, linear, loss, metrics, q_posterior, q_sample, q_step, quadratic, resume, ring, sample, save, seeded_noise, sigmoid,
    target, timesteps, to_eps, train, x0_from_eps,
)
from ddpm_tutorial.schedules import by_name

UNET = UNetConfig(channels=1, base=8, mults=(1, 2), blocks=1, attention=(), num_classes=3, groups=4)
CONFIG = DDPMConfig(image_size=4, channels=1, timesteps=10, schedule="cosine", num_classes=3, unet=UNET)
PLAIN = partial(DDPMConfig, image_size=4, channels=1, timesteps=10, schedule="cosine", unet=UNetConfig(base=8, groups=4))
S = cosine(10)
X, EPS, Y, T4 = torch.zeros(4, 2), torch.ones(4, 2), torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 3, 4])
IMAGES = torch.zeros(4, 1, 4, 4)
MAKERS = [linear, cosine, sigmoid, quadratic]


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def model():
    return DDPM(CONFIG)


def unconditional():
    return DDPM(PLAIN())


def nan(*shape):
    return torch.full(shape, math.nan)


def walk(step, **options):
    return final(sample(lambda x, t: x, S, X, step, **options))


BAD = [
    # Names.
    ("unknown schedule", lambda: by_name("cosinus"), ValueError, "cosinus.*linear.*cosine.*sigmoid.*quadratic"),
    ("unknown schedule of a model", lambda: DDPM(PLAIN(schedule="cosinus")), ValueError, "cosinus.*linear.*cosine"),
    ("unknown data set", lambda: data.load("mnits"), ValueError, "mnits.*digits"),
    ("unknown split", lambda: data.load("digits", "val"), ValueError, "val.*train.*test"),
    ("unknown prediction of target", lambda: target(S, X, EPS, 3, "noise"), ValueError, "noise.*eps.*x0.*v"),
    ("unknown prediction of to_eps", lambda: to_eps(S, X, EPS, 3, "noise"), ValueError, "noise.*eps.*x0.*v"),
    ("unknown prediction of a denoiser, at the call", lambda: denoiser(MLP(), S, predict="x_0"), ValueError, "x_0.*eps.*x0.*v"),
    ("unknown prediction of a config", lambda: PLAIN(predict="score"), ValueError, "score.*eps.*x0.*v"),
    ("unknown sampler", lambda: model().sample(1, sampler="euler"), ValueError, "euler.*ddpm.*ddim"),
    ("unknown sampler of interpolate", lambda: model().interpolate(IMAGES[0], IMAGES[1], sampler="euler"), ValueError, "euler.*ddpm.*ddim"),
    ("unknown variance", lambda: ddpm_step(S, X, EPS, 3, 2, EPS, variance="fixed"), ValueError, "fixed.*small.*large"),

    # The length of the chain.
    *[(f"{make.__name__}({T})", partial(make, T), ValueError, rf"T is {T}.*≥ 1") for make in MAKERS for T in (0, -5)],
    *[(f"{make.__name__}({T!r})", partial(make, T), TypeError, rf"T is {T!r}.*integer") for make in MAKERS for T in (9.0, True, "9")],
    ("no steps", lambda: timesteps(10, 0), ValueError, "0.*1.*10"),
    ("more steps than T", lambda: timesteps(10, 11), ValueError, "11.*1.*10"),
    ("half a step", lambda: timesteps(10, 2.5), TypeError, "2.5.*integer.*10"),
    ("steps = True", lambda: timesteps(10, True), TypeError, "True.*integer.*10"),
    ("more steps than T, of a model", lambda: model().sample(1, steps=11), ValueError, "11.*1.*10"),
    ("float steps, of a trajectory, at the call", lambda: model().trajectory(1, steps=5.0), TypeError, "5.0.*integer.*10"),
    ("more steps than T, of interpolate", lambda: model().interpolate(IMAGES[0], IMAGES[1], steps=11), ValueError, "11.*1.*10"),

    # Times.
    ("t below 0", lambda: q_sample(S, X, EPS, -1), ValueError, "-1.*0.*10"),
    ("t above T", lambda: q_sample(S, X, EPS, 11), ValueError, "11.*0.*10"),
    ("one t above T", lambda: q_sample(S, X, EPS, torch.tensor([1, 2, 3, 11])), ValueError, "11.*0.*10"),
    ("one t below 0", lambda: x0_from_eps(S, X, EPS, torch.tensor([1, 2, 3, -1])), ValueError, "-1.*0.*10"),
    ("a fraction of T for t", lambda: q_sample(S, X, EPS, 0.5), TypeError, "0.5.*integer.*10"),
    ("float times", lambda: q_sample(S, X, EPS, T4.float()), TypeError, "float32.*integers"),
    ("t = True", lambda: S.at(True), TypeError, "True.*integer"),
    ("t (B, 1)", lambda: q_sample(S, X, EPS, T4[:, None]), TypeError, r"\(4, 1\).*\(B,\)"),
    ("eps at t = 0", lambda: eps_from_x0(S, X, X, 0), ValueError, "t is 0.*1"),
    ("a denoiser at t = 0", lambda: denoiser(MLP(), S)(X, 0), ValueError, "t is 0.*1"),
    ("a denoiser at one t = 0", lambda: denoiser(MLP(), S)(X, T4 - 1), ValueError, "0.*1"),
    ("a denoiser above T", lambda: denoiser(MLP(), S)(X, 11), ValueError, "11.*10"),
    ("a denoiser at a fraction of T", lambda: denoiser(MLP(), S)(X, 1.5), TypeError, "1.5.*integer"),
    ("a denoiser at float times", lambda: denoiser(MLP(), S)(X, T4.float()), TypeError, "float32.*integers"),
    *[(f"{name} from t = 3 to s = {s}", partial(step, s), ValueError, rf"s = {s}.*t = 3") for s in (3, 4) for name, step in {
        "ddpm_step": lambda s: ddpm_step(S, X, EPS, 3, s, EPS), "q_posterior": lambda s: q_posterior(S, X, X, 3, s),
        "q_step": lambda s: q_step(S, X, EPS, 3, s), "noisy ddim_step": lambda s: ddim_step(S, X, EPS, 3, s, EPS, eta=0.5)}.items()],
    ("s below 0", lambda: ddim_step(S, X, EPS, 3, -1), ValueError, "-1.*0.*10"),
    ("times that go down and up", lambda: sample(lambda x, t: x, S, X, times=[10, 3, 5]), ValueError, r"\[10, 3, 5\]"),
    ("times that stand still", lambda: sample(lambda x, t: x, S, X, times=[10, 5, 5, 0]), ValueError, r"\[10, 5, 5, 0\]"),
    ("times outside 0 … T", lambda: sample(lambda x, t: x, S, X, times=[11, 0]), ValueError, "11.*0 … 10"),
    ("no times", lambda: sample(lambda x, t: x, S, X, times=[]), ValueError, r"\[\]"),
    ("times that are no integers", lambda: sample(lambda x, t: x, S, X, times=[9.9, 5.5, 0.0]), TypeError, "9.9.*integer"),
    ("steps and times", lambda: sample(lambda x, t: x, S, X, steps=2, times=[10, 0]), ValueError, "steps.*times.*not both"),

    # Noise.
    ("eta above 1", lambda: ddim_step(S, X, EPS, 3, 2, EPS, eta=1.5), ValueError, "1.5.*0.*1"),
    ("eta below 0", lambda: ddim_step(S, X, EPS, 3, 2, EPS, eta=-0.1), ValueError, "-0.1.*0.*1"),
    ("eta = NaN", lambda: ddim_step(S, X, EPS, 3, 2, EPS, eta=math.nan), ValueError, "nan.*0.*1"),
    ("eta above 1, of a model", lambda: model().sample(1, sampler="ddim", eta=2.0), ValueError, "2.0.*0.*1"),
    ("eta for DDPM", lambda: model().sample(1, eta=0.5), ValueError, "eta.*ddim"),
    ("a ddpm_step without noise", lambda: ddpm_step(S, X, EPS, 3, 2), ValueError, "noise.*z"),
    ("a noisy ddim_step without noise", lambda: ddim_step(S, X, EPS, 3, 2, eta=0.5), ValueError, "noise.*z"),
    ("a ddpm walk without noise", lambda: walk(ddpm_step), ValueError, "noise.*seeded_noise"),
    ("noise of another shape", lambda: walk(ddpm_step, noise=lambda t: torch.zeros(2)), ValueError, r"\(2,\).*\(4, 2\)"),
    ("a negative seed", lambda: seeded_noise(-1, [0], (2,)), ValueError, "-1.*≥ 0"),
    ("a negative image number", lambda: seeded_noise(0, [0, -2], (2,)), ValueError, "-2.*≥ 0"),
    ("a negative seed of a model", lambda: model().sample(1, seed=-1), ValueError, "-1.*≥ 0"),

    # Shapes.
    ("eps (2,) for x (4, 2)", lambda: q_sample(S, X, EPS[0], 3), ValueError, r"\(4, 2\).*\(2,\)"),
    ("eps (1, 2) in x0_from_eps", lambda: x0_from_eps(S, X, EPS[:1], 3), ValueError, r"\(4, 2\).*\(1, 2\)"),
    ("eps (4, 1) in ddpm_step", lambda: ddpm_step(S, X, EPS[:, :1], 3, 2, EPS), ValueError, r"\(4, 2\).*\(4, 1\)"),
    ("eps (4, 1) in ddim_step", lambda: ddim_step(S, X, EPS[:, :1], 3, 2), ValueError, r"\(4, 2\).*\(4, 1\)"),
    ("x_0 (1, 2) in q_posterior", lambda: q_posterior(S, X, X[:1], 3, 2), ValueError, r"\(4, 2\).*\(1, 2\)"),
    ("eps (4, 1) in target", lambda: target(S, X, EPS[:, :1], 3, "v"), ValueError, r"\(4, 2\).*\(4, 1\)"),
    ("eps in q_step", lambda: q_step(S, X, EPS[:2], 3, 2), ValueError, r"\(4, 2\).*\(2, 2\)"),
    ("z (1, 2) for x (4, 2)", lambda: ddpm_step(S, X, EPS, 3, 2, EPS[:1]), ValueError, r"\(1, 2\).*\(4, 2\)"),
    ("three times for four images", lambda: q_sample(S, X, EPS, T4[:3]), ValueError, "3 times.*4"),
    ("three times for four images, in the loss", lambda: loss(MLP(), S, X, EPS, T4[:3]), ValueError, "3 times.*4"),
    ("three times for four images, in a denoiser", lambda: denoiser(MLP(), S)(X, T4[:3]), ValueError, "3.*4"),
    ("a network whose answer has another shape", lambda: denoiser(lambda x, t: x[:, :1], S)(X, 3), ValueError, r"\(4, 2\).*\(4, 1\)"),
    ("three times for four images, in a U-Net", lambda: UNet(UNET)(IMAGES, T4[:3]), ValueError, r"\(3,\).*4"),
    ("three labels for four images, in a U-Net", lambda: UNet(UNET)(IMAGES, T4, Y[:3]), ValueError, r"\(3,\).*4"),
    ("three labels for four images", lambda: model()(IMAGES, Y[:3]), ValueError, r"\(3,\).*4"),
    ("two labels for three samples", lambda: model().sample(3, Y[:2]), ValueError, r"\(2,\).*3"),
    ("one image without its batch", lambda: model()(IMAGES[0]), ValueError, r"\(1, 4, 4\).*\(B, 1, 4, 4\)"),
    ("images of another size", lambda: model()(torch.zeros(2, 1, 8, 8)), ValueError, r"\(2, 1, 8, 8\).*\(B, 1, 4, 4\)"),
    ("points for a U-Net", lambda: UNet(UNET)(X, T4), ValueError, r"\(4, 2\).*\(B, 1, H, W\)"),
    ("a mask of the wrong shape", lambda: drop_labels(Y, torch.tensor([True]), 3), ValueError, r"\(1,\).*\(4,\)"),
    ("a mask of numbers", lambda: drop_labels(Y, torch.rand(4), 3), ValueError, "float32.*bool"),
    ("points of another dimension for a mixture", lambda: ring().denoiser(S)(torch.zeros(4, 3), 3), ValueError, r"\(4, 3\).*\(B, 2\)"),
    ("means (K,) of a mixture", lambda: Mixture([0.0, 1.0], 0.1), ValueError, r"\(2,\).*\(K, D\)"),
    ("a (D, D) covariance of a mixture", lambda: Mixture([[0.0, 0.0]], torch.eye(2)), ValueError, r"\(2, 2\)|covariance"),
    ("a (D, D) covariance of D*D parts", lambda: Mixture(torch.zeros(4, 2), torch.tensor([[1.0, 0.5], [0.5, 1.0]])), ValueError, r"\(2, 2\)|covariance"),
    ("a negative variance of a mixture", lambda: Mixture([[0.0]], -1.0), ValueError, "covariance.*≥ 0"),
    ("features of different widths", lambda: metrics.frechet_distance(torch.zeros(5, 3), torch.zeros(5, 4)), ValueError, r"\(5, 3\).*\(5, 4\)"),
    ("more images of a class than there are", lambda: metrics.per_class(torch.tensor([0, 0, 1]), 2), ValueError, "2.*1"),

    # Labels.
    ("a label above the null label", lambda: model().sample(1, 4), ValueError, "0.*2.*4"),
    ("a negative label", lambda: model().sample(2, torch.tensor([0, -1])), ValueError, "0.*2.*-1"),
    ("a label above the null label, in training", lambda: model()(IMAGES, Y + 2), ValueError, "0.*2.*4"),
    ("a label above the null label, in a U-Net", lambda: UNet(UNET)(IMAGES, T4, Y + 2), ValueError, "0.*2.*4"),
    ("a label above the null label, in an MLP", lambda: MLP(num_classes=3)(X, T4, Y + 2), ValueError, "0.*2.*4"),
    ("float labels", lambda: model().sample(2, torch.tensor([0.0, 1.0])), ValueError, "float32.*integer"),
    ("a class that a mixture does not have", lambda: ring(8).denoiser(S, 8)(X, 3), ValueError, "8.*0.*7"),
    ("labels for an unconditional model", lambda: unconditional().sample(1, 0), ValueError, "labels.*num_classes=None"),
    ("labels for an unconditional model, in training", lambda: unconditional()(IMAGES, Y), ValueError, "labels.*num_classes=None"),
    ("labels for an unconditional U-Net", lambda: UNet(UNetConfig(base=8, groups=4))(IMAGES, T4, Y), ValueError, "labels.*num_classes=None"),
    ("labels for an unconditional MLP", lambda: MLP()(X, T4, Y), ValueError, "labels.*num_classes=None"),
    ("a scale without labels", lambda: model().sample(1, scale=2.0), ValueError, "2.0.*labels.*y"),

    # Sizes.
    ("an image that cannot be halved", lambda: UNet(UNET)(torch.zeros(4, 1, 4, 5), T4), ValueError, "4×5.*multiples of 2"),
    ("a model of such images", lambda: DDPM(PLAIN(image_size=7)), ValueError, "7.*multiple of 2"),
    ("a U-Net for other channels", lambda: PLAIN(channels=3), ValueError, "1 channels.*3"),
    ("base no multiple of groups", lambda: UNetConfig(base=12, groups=8), ValueError, "12.*8"),
    ("attention at a level that is not there", lambda: UNetConfig(mults=(1, 2), attention=(2,)), ValueError, r"\(2,\).*0 … 1"),
    ("no levels", lambda: UNetConfig(mults=(), attention=()), ValueError, "mult"),
    ("no classes", lambda: UNetConfig(num_classes=0), ValueError, "num_classes.*0"),
    ("a probability above 1", lambda: PLAIN(p_uncond=1.5), ValueError, "1.5.*0 … 1"),
    ("no samples", lambda: model().sample(0), ValueError, "n is 0.*≥ 1"),
    ("half a sample", lambda: model().sample(1.5), TypeError, "n is 1.5.*integer"),
    ("no steps to train", lambda: TrainConfig(steps=0), ValueError, "steps=0|steps.*positive"),
    ("a negative learning rate", lambda: TrainConfig(lr=-1.0), ValueError, "lr.*-1.0.*positive"),
    ("ema = 1", lambda: TrainConfig(ema=1.0), ValueError, "ema.*1.0.*0 … 1"),

    # Numbers that are none, and images that are not in [-1, 1].
    ("NaN in the data", lambda: model()(nan(4, 1, 4, 4)), ValueError, "NaN"),
    ("NaN in the training data", lambda: list(train(TrainState(model(), TrainConfig(steps=1)), nan(4, 1, 4, 4), Y)), ValueError, "NaN"),
    ("NaN in an image to interpolate", lambda: model().interpolate(nan(1, 4, 4), IMAGES[0]), ValueError, "NaN"),
    ("NaN in x_T", lambda: sample(lambda x, t: x, S, nan(4, 2)), ValueError, "NaN"),
    ("infinity in x_T", lambda: sample(lambda x, t: x, S, X / 0 + math.inf), ValueError, "infinity"),
    ("uint8 images", lambda: model()(IMAGES.byte()), ValueError, "uint8.*float.*normalise"),
    ("float images to normalise", lambda: data.normalise(torch.zeros(2, 1, 4, 4)), TypeError, "float32.*uint8"),

    # Schedules of one's own.
    ("ᾱ without the leading 1", lambda: Schedule(f64(0.9, 0.5, 0.001)), ValueError, "0.9.*exactly 1.*leading 1"),
    ("ᾱ that rises", lambda: Schedule(f64(1, 0.5, 0.6, 0.001)), ValueError, "strictly decreasing"),
    ("ᾱ that stands still", lambda: Schedule(f64(1, 0.5, 0.5, 0.001)), ValueError, "strictly decreasing"),
    ("ᾱ that reaches 0", lambda: Schedule(f64(1, 0.5, 0)), ValueError, "positive"),
    ("ᾱ with NaN", lambda: Schedule(f64(1, math.nan, 0.001)), ValueError, "finite"),
    ("ᾱ in float32", lambda: Schedule(torch.tensor([1, 0.5, 0.001])), TypeError, "float32.*float64"),
    ("ᾱ as a list", lambda: Schedule([1, 0.5, 0.001]), TypeError, "list.*float64 tensor"),
    ("ᾱ of one entry", lambda: Schedule(f64(1)), TypeError, r"\(1,\).*T\+1"),
    ("β = 0", lambda: from_betas([0.0, 0.5]), ValueError, "between 0 and 1"),
    ("β = 1", lambda: from_betas([0.5, 1.0]), ValueError, "between 0 and 1"),
    ("β < 0", lambda: from_betas([-0.1, 0.5]), ValueError, "between 0 and 1"),
    ("β = NaN", lambda: from_betas([math.nan]), ValueError, "between 0 and 1"),
    ("no β", lambda: from_betas([]), ValueError, "list.*between 0 and 1"),
]


@pytest.mark.parametrize("call, error, words", [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_mistake_is_answered_by_a_sentence(call, error, words):
    """What was given and what is allowed, as ValueError or TypeError, and nothing that torch says three calls further down."""
    with pytest.raises(error, match=f"(?is){words}"):
        call()


# Files.

@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return model().save(tmp_path_factory.mktemp("weights") / "model.safetensors")


@pytest.mark.parametrize("read", [DDPM.load, resume])
def test_a_missing_file_is_named(read, tmp_path):
    """And how to get one."""
    with pytest.raises(FileNotFoundError, match=r"(?s)nothing\.safetensors.*train"):
        read(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("read", [DDPM.load, resume])
@pytest.mark.parametrize("share", [0, 0.0001, 0.01, 0.1, 0.5, 0.9, 0.9999])
def test_a_file_that_was_cut_short_is_refused(read, weights, tmp_path, share):
    """The copy that ran out of disk (Lightning #19970, cs249r #2068): named, and never half loaded."""
    cut = tmp_path / "cut.safetensors"
    whole = weights.read_bytes()
    cut.write_bytes(whole[:int(share * len(whole))])
    with pytest.raises(ValueError, match=r"(?s)cut\.safetensors.*cut short"):
        read(cut)


FOREIGN = {
    "random bytes": bytes(torch.randint(0, 256, (4000,), generator=torch.Generator().manual_seed(0)).tolist()),
    "text": b"<!DOCTYPE html><html>404: not found</html>",
    "a pickle": b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02ls\x94\x85\x94R\x94.",
    "a header that promises too much": struct.pack("<Q", 10**12) + json.dumps({}).encode(),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    """Nothing is ever unpickled."""
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"foreign\.safetensors"):
        DDPM.load(path)


def test_somebody_elses_safetensors_are_refused(tmp_path):
    """A safetensors file, but not ours: it says so instead of a missing key."""
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "meta.safetensors", metadata={"format": "pt"})
    for name in ("other", "meta"):
        with pytest.raises(ValueError, match=rf"{name}\.safetensors.*not weights of ddpm_tutorial"):
            DDPM.load(tmp_path / f"{name}.safetensors")


def test_weights_and_checkpoints_are_not_mixed_up(weights, tmp_path):
    """The two files of a run folder, each in the other's place."""
    checkpoint = save(TrainState(model(), TrainConfig(steps=1)), tmp_path / "checkpoint.safetensors")
    with pytest.raises(ValueError, match=r"not weights.*checkpoint"):
        DDPM.load(checkpoint)
    with pytest.raises(ValueError, match=r"not checkpoint.*weights"):
        resume(weights)


def test_weights_of_another_network_do_not_load(weights):
    """Your own network has to be the one that was saved."""
    with pytest.raises(ValueError, match=r"model\.safetensors do not fit"):
        DDPM.load(weights, net=MLP())


def test_a_checkpoint_of_your_own_network_says_that_it_needs_it(tmp_path):
    """As the weights do: bring the network."""
    state = TrainState(DDPM(PLAIN(), MLP()), TrainConfig(steps=1))
    with pytest.raises(ValueError, match=r"(?s)own network MLP|do not fit"):
        resume(save(state, tmp_path / "checkpoint.safetensors"))


def test_a_failed_save_leaves_the_old_file(weights, tmp_path, monkeypatch):
    """Written beside the place and moved in: a full disk costs the new file, not the old one, and leaves no litter."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(weights.read_bytes())

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space"):
        model().save(path)
    assert path.read_bytes() == weights.read_bytes() and list(tmp_path.iterdir()) == [path]
