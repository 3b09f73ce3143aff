"""Every mistake that a reader is likely to make, and the words that the answer must contain: what was given, and what is allowed.

One table, with rows for every public function: wrong types, shapes, ranges, devices ("meta" stands for another one), number types, and NaN
where seeing it makes no GPU wait.  A name without a row fails the second test.
"""

import inspect
import json
import math
import struct
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

import ddpm_tutorial
from ddpm_tutorial import (
    DDPM, MLP, DDPMConfig, Mixture, Schedule, TrainConfig, TrainState, UNet, UNetConfig, classifier, classifier_free, clipped, cosine, data,
    dataset_denoiser, ddim_step, ddpm_step, denoiser, dpm_solver_2m, drop_labels, eps_from_x0, final, flow, from_betas, invert, known, likelihood, linear, loss,
    q_posterior, q_sample, q_step, quadratic, resume, ring, sample, save, score, seeded_noise, sigmoid, slerp, spiral, target, timestep_embedding, timesteps,
    timesteps_in_log_snr, to_eps, train, within, x0_from_eps,
)
from ddpm_tutorial.evaluation import judging, metrics
from ddpm_tutorial.schedules import by_name
from ddpm_tutorial.training import checkpoint, devices, draws, loop
from ddpm_tutorial.weights import diffusers_layout

UNET = UNetConfig(channels=1, base=8, mults=(1, 2), blocks=1, attention=(), num_classes=3, groups=4)
CONFIG = DDPMConfig(image_size=4, channels=1, timesteps=10, schedule="cosine", num_classes=3, unet=UNET)
PLAIN = partial(DDPMConfig, image_size=4, channels=1, timesteps=10, schedule="cosine", unet=UNetConfig(base=8, groups=4))
S = cosine(10)
X, EPS, Y, T4 = torch.zeros(4, 2), torch.ones(4, 2), torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 3, 4])
ELSEWHERE = EPS.to("meta")
IMAGES = torch.zeros(4, 1, 4, 4)
SEEN = torch.zeros(4, 1, 8, 8)
FEATURES = torch.arange(30.0).view(10, 3).sin()
NOTHING = "nothing/here.safetensors"


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def model():
    return DDPM(CONFIG)


def unconditional():
    return DDPM(PLAIN())


def run(**options):
    return TrainState(model(), TrainConfig(steps=1, **options))


def nan(*shape):
    return torch.full(shape, math.nan)


def same(x, t):
    return x


def walk(step, **options):
    return final(sample(same, S, X, step, **options))


# What every function of two tensors (schedule, a, b, …) must say, whatever else it checks.

def of_two_tensors(call, a, b):
    return [
        ("a name for the schedule", lambda: call("cosine", X, EPS), TypeError, r"schedule is 'cosine'.*Schedule.*cosine\(1000\)"),
        ("arguments in another order", lambda: call(X, S, EPS), TypeError, r"schedule is torch.float32 \(4, 2\).*Schedule"),
        (f"a list for {a}", lambda: call(S, [0.0], EPS), TypeError, rf"{a} is \[0.0\] \(list\).*tensor"),
        (f"a list for {b}", lambda: call(S, X, [0.0]), TypeError, rf"{b} is \[0.0\] \(list\).*tensor"),
        (f"nothing for {b}", lambda: call(S, X, None), TypeError, rf"{b} is None.*tensor"),
        (f"pixels for {a}", lambda: call(S, X.byte(), EPS.byte()), TypeError, rf"{a} is torch.uint8 \(4, 2\).*floating-point.*normalise"),
        (f"integers for {b}", lambda: call(S, X, EPS.long()), TypeError, rf"{b} is torch.int64.*floating-point"),
        (f"another shape of {b}", lambda: call(S, X, EPS[:1]), ValueError, rf"{a}.*\(4, 2\).*{b}.*\(1, 2\).*equal"),
        (f"{b} without its batch", lambda: call(S, X, EPS[0]), ValueError, rf"{a}.*\(4, 2\).*{b}.*\(2,\).*equal"),
        (f"{b} on another device", lambda: call(S, X, ELSEWHERE), ValueError, rf"{a} is on cpu.*{b} is on meta.*one device"),
    ]


def of_a_time(call, noisy=False):
    """… and every function of a time t, which `call` takes as its last argument; noisy: not of t = 0."""
    at_0 = [("t = 0, without noise", lambda: call(0), ValueError, "t is 0.*1 ≤ t"), ("one t = 0", lambda: call(T4 - 1), ValueError, "0.*1 ≤ t")]
    return [
        *(at_0 if noisy else []),
        ("t below 0", lambda: call(-1), ValueError, r"t is -1.*(0 … 10|≥ 0)"), ("t above T", lambda: call(11), ValueError, "t is 11.*0 … 10"),
        ("one t above T", lambda: call(torch.tensor([1, 2, 3, 11])), ValueError, r"t is \[1, 2, 3, 11\].*0 … T = 10"),
        ("one t below 0", lambda: call(torch.tensor([1, 2, 3, -1])), ValueError, r"t is (\[1, 2, 3, -1\].*0 … T = 10|tensor.*-1.*1 ≤ t ≤ T)"),
        ("a fraction of T for t", lambda: call(0.5), TypeError, "t is 0.5.*integer"), ("a word for t", lambda: call("3"), TypeError, "t is '3'.*integer"),
        ("t = True", lambda: call(True), TypeError, "t is True.*integer"), ("no t", lambda: call(None), TypeError, "t is None.*integer"),
        ("float times", lambda: call(T4.float()), TypeError, "t is a torch.float32.*integers"),
        ("a mask for t", lambda: call(T4 > 0), TypeError, "t is a torch.bool.*integers"),
        ("t (B, 1)", lambda: call(T4[:, None]), TypeError, r"t is .*\(4, 1\).*\(B,\)"),
        ("three times for four", lambda: call(T4[:3]), ValueError, "3 times.*4"),
    ]


def of_a_length(call):
    return [(f"T = {T!r}", partial(call, T), error, rf"T is {T!r}.*{allowed}") for T, error, allowed in (
        (0, ValueError, "≥ 1"), (-5, ValueError, "≥ 1"), (9.0, TypeError, "integer"), (True, TypeError, "integer"), ("9", TypeError, "integer"),
        (None, TypeError, "integer"))]


def of_betas(make):
    return [
        *of_a_length(make),
        ("a negative β_1", lambda: make(10, -1.0), ValueError, "beta_1 is -1.0.*≥ 0"),
        ("β_T = NaN", lambda: make(10, 1e-4, math.nan), ValueError, "beta_T is nan"),
        ("a word for β_1", lambda: make(10, "small"), TypeError, "beta_1 is 'small'.*number"),
        ("β_1 = 0", lambda: make(10, 0.0), ValueError, "beta.*between 0 and 1"),
    ]


def of_steps(call):
    return [
        ("no steps", lambda: call(steps=0), ValueError, "steps is 0.*1 … 10"), ("more steps than T", lambda: call(steps=11), ValueError, "steps is 11.*1 … 10"),
        ("half a step", lambda: call(steps=2.5), TypeError, "steps is 2.5.*integer, 1 … 10"),
        ("steps = True", lambda: call(steps=True), TypeError, "True.*integer"),
    ]


def of_walks(call):
    """… and everything that samples with a model; `call` takes the options."""
    return [
        *of_steps(call),
        ("an unknown sampler", lambda: call(sampler="euler"), ValueError, "euler.*ddpm.*ddim"),
        ("a word for η", lambda: call(sampler="ddim", eta="half"), TypeError, "eta is 'half'.*number, 0 … 1"),
        ("an unknown spacing", lambda: call(spacing="log"), ValueError, "spacing 'log'.*even, log-snr"),
        ("times that begin below T", lambda: call(times=[9, 5, 0]), ValueError, "begins as noise at T = 10 and ends at 0.*from 9 to 0"),
        ("times that end above 0", lambda: call(times=[10, 1]), ValueError, "begins as noise at T = 10 and ends at 0.*from 10 to 1"),
        ("steps and times", lambda: call(steps=2, times=[10, 5, 0]), ValueError, "steps.*or times.*not both"),
        ("a spacing and times", lambda: call(spacing="even", times=[10, 5, 0]), ValueError, "spacing or times.*not both"),
        ("η for DPM-Solver++", lambda: call(sampler="dpm++", eta=0.5), ValueError, "eta.*ddim"),
        ("an unknown variance", lambda: call(variance="fixed"), ValueError, "fixed.*small.*large"),
        ("η above 1", lambda: call(sampler="ddim", eta=2.0), ValueError, "eta is 2.0.*0.*1"), ("η for DDPM", lambda: call(eta=0.5), ValueError, "eta.*ddim"),
        ("a scale without labels", lambda: call(scale=2.0), ValueError, "scale is 2.0.*labels.*y"),
        ("a scale that is no number", lambda: call(y=0, scale=math.nan), ValueError, "scale is nan.*finite"),
        ("a word for the scale", lambda: call(y=0, scale="2"), TypeError, "scale is '2'.*number"),
        ("a negative seed", lambda: call(seed=-1), ValueError, "seed is -1.*≥ 0"), ("half a seed", lambda: call(seed=0.5), TypeError, "seed is 0.5.*integer"),
        ("a label above the null label", lambda: call(y=4), ValueError, "0 … 2.*3 is the null label.*given 4"),
        ("a negative label", lambda: call(y=torch.tensor([-1])), ValueError, "0 … 2.*-1"),
        ("a float label", lambda: call(y=torch.tensor([0.0])), ValueError, "y is torch.float32.*integer"),
        ("two labels for one image", lambda: call(y=Y[:2]), ValueError, r"y is .*\(2,\).*1 of them"),
    ]


def of_images(call):
    """… and everything that takes a batch of images for a model, as its first argument."""
    return [
        ("NaN", lambda: call(nan(4, 1, 4, 4)), ValueError, "images hold NaN"), ("pixels", lambda: call(IMAGES.byte()), ValueError, "uint8.*float.*normalise"),
        ("images in 0 … 255", lambda: call(IMAGES + 255), ValueError, r"±255.*\[-1, 1\].*normalise"),
        ("images of another size", lambda: call(SEEN), ValueError, r"images are .*, 1, 8, 8\).*\(B, 1, 4, 4\)"),
    ]


EXACT = {"denoiser": ring().denoiser, "log_density": ring().log_density, "log_prob": lambda schedule, y=0: ring().log_prob(schedule, y)}

BAD = {
    # Schedules.
    "Schedule": [
        ("without the leading 1", lambda: Schedule(f64(0.9, 0.5, 0.001)), ValueError, "0.9.*exactly 1.*leading 1"),
        ("that rises", lambda: Schedule(f64(1, 0.5, 0.6, 0.001)), ValueError, "strictly decreasing"),
        ("that stands still", lambda: Schedule(f64(1, 0.5, 0.5, 0.001)), ValueError, "strictly decreasing"),
        ("that reaches 0", lambda: Schedule(f64(1, 0.5, 0)), ValueError, "positive"),
        ("with NaN", lambda: Schedule(f64(1, math.nan, 0.001)), ValueError, "finite"),
        ("in float32", lambda: Schedule(torch.tensor([1, 0.5, 0.001])), TypeError, "alpha_bar is torch.float32.*float64"),
        ("as a list", lambda: Schedule([1, 0.5, 0.001]), TypeError, "alpha_bar is .*list.*float64 tensor"),
        ("of one entry", lambda: Schedule(f64(1)), TypeError, r"\(1,\).*T\+1"),
        ("on another device", lambda: Schedule(S.alpha_bar.to("meta")), TypeError, "meta.*CPU"),
        ("a table", lambda: Schedule(f64([1, 0.5], [1, 0.5])), TypeError, r"\(2, 2\).*T\+1"),
    ],
    "Schedule.at": of_a_time(S.at)[:-1],
    **{f"Schedule.{name}": [
        *of_a_time(partial(lambda c, t: c(t, X), c)),
        ("a list for x", partial(c, 3, [0.0]), TypeError, r"x is \[0.0\].*tensor"),
        ("pixels for x", partial(c, 3, X.byte()), TypeError, "x is torch.uint8.*floating-point"),
    ] for name, c in (("signal", S.signal), ("noise", S.noise))},
    "from_betas": [
        *[(f"β = {b}", partial(from_betas, [b, 0.5]), ValueError, "beta.*between 0 and 1") for b in (0.0, 1.0, -0.1, math.nan, math.inf)],
        ("no β", lambda: from_betas([]), ValueError, "beta.*list.*between 0 and 1"), ("a table", lambda: from_betas([[0.1]]), ValueError, "beta.*list"),
        ("a name", lambda: from_betas("linear"), TypeError, "beta is 'linear'.*list"), ("one number", lambda: from_betas(0.1), TypeError, "beta is 0.1.*list"),
        ("nothing", lambda: from_betas(None), TypeError, "beta is None.*list"),
    ],
    "linear": of_betas(linear), "quadratic": of_betas(quadratic), "flow": of_a_length(flow),
    "cosine": [
        *of_a_length(cosine),
        ("a negative s", lambda: cosine(10, -2.0), ValueError, "s is -2.0.*≥ 0"), ("s = NaN", lambda: cosine(10, math.nan), ValueError, "s is nan.*≥ 0"),
        ("a word for s", lambda: cosine(10, "small"), TypeError, "s is 'small'.*number"),
    ],
    "sigmoid": [
        *of_a_length(sigmoid),
        ("that rises", lambda: sigmoid(10, 3, -3), ValueError, "start is 3, end -3.*start < end"),
        ("τ = 0", lambda: sigmoid(10, tau=0), ValueError, "tau 0.*tau > 0"), ("τ < 0", lambda: sigmoid(10, tau=-1.0), ValueError, "tau -1.0.*tau > 0"),
        ("start = NaN", lambda: sigmoid(10, math.nan), ValueError, "start is nan.*finite"),
        ("a word for end", lambda: sigmoid(10, end="big"), TypeError, "end is 'big'.*number"),
    ],

    # The forward process.
    "q_sample": of_two_tensors(lambda s, a, b: q_sample(s, a, b, 3), "x_0", "eps") + of_a_time(partial(q_sample, S, X, EPS)),
    "x0_from_eps": of_two_tensors(lambda s, a, b: x0_from_eps(s, a, b, 3), "x_t", "eps") + of_a_time(partial(x0_from_eps, S, X, EPS)),
    "eps_from_x0": of_two_tensors(lambda s, a, b: eps_from_x0(s, a, b, 3), "x_t", "x_0") + of_a_time(partial(eps_from_x0, S, X, EPS), noisy=True),
    "q_step": [
        *of_two_tensors(lambda s, a, b: q_step(s, a, b, 3, 2), "x_s", "eps") + of_a_time(lambda t: q_step(S, X, EPS, t, 0)),
        *[(f"from t = 3 to s = {s}", partial(q_step, S, X, EPS, 3, s), ValueError, rf"s = {s}.*t = 3") for s in (3, 4)],
        ("a fraction for s", lambda: q_step(S, X, EPS, 3, 0.5), TypeError, "0.5.*integer"),
        ("s below 0", lambda: q_step(S, X, EPS, 3, -1), ValueError, "-1.*0 … 10"),
    ],
    "q_posterior": [
        *of_two_tensors(lambda s, a, b: q_posterior(s, a, b, 3, 2), "x_t", "x_0") + of_a_time(lambda t: q_posterior(S, X, X, t, 0)),
        *[(f"from t = 3 to s = {s}", partial(q_posterior, S, X, X, 3, s), ValueError, rf"s = {s}.*t = 3") for s in (3, 4)],
        ("one s too late", lambda: q_posterior(S, X, X, T4, 1), ValueError, "s = 1.*s < t"),
    ],
    "target": [
        *of_two_tensors(lambda s, a, b: target(s, a, b, 3, "v"), "x_0", "eps") + of_a_time(lambda t: target(S, X, EPS, t, "v")),
        ("an unknown prediction", lambda: target(S, X, EPS, 3, "noise"), ValueError, "'noise'.*eps.*x0.*v"),
        ("no prediction", lambda: target(S, X, EPS, 3, None), ValueError, "None.*eps"),
        ("a list of them", lambda: target(S, X, EPS, 3, ["eps"]), ValueError, r"\['eps'\].*eps"),
    ],
    "to_eps": [
        *of_two_tensors(lambda s, a, b: to_eps(s, a, b, 3, "v"), "x_t", "out") + of_a_time(lambda t: to_eps(S, X, EPS, t, "v")),
        ("an unknown prediction", lambda: to_eps(S, X, EPS, 3, "noise"), ValueError, "'noise'.*eps.*x0.*v"),
        ("x0 at t = 0", lambda: to_eps(S, X, EPS, 0, "x0"), ValueError, "t is 0.*1 ≤ t"),
    ],
    "denoiser": [
        *of_a_time(lambda t: denoiser(MLP(), S)(X, t), noisy=True),
        ("a name for the network", lambda: denoiser("unet", S), TypeError, "net is 'unet'.*function"),
        ("a name for the schedule", lambda: denoiser(MLP(), "cosine"), TypeError, "schedule is 'cosine'"),
        ("an unknown prediction, at the call", lambda: denoiser(MLP(), S, predict="x_0"), ValueError, "x_0.*eps.*x0.*v"),
        ("a list for x_t", lambda: denoiser(MLP(), S)([0.0], 3), TypeError, r"x_t is \[0.0\].*tensor"),
        ("pixels for x_t", lambda: denoiser(MLP(), S)(X.byte(), 3), TypeError, "x_t is torch.uint8.*floating-point"),
        ("a network whose answer has another shape", lambda: denoiser(lambda x, t: x[:, :1], S)(X, 3), ValueError, r"x_t.*\(4, 2\).*out.*\(4, 1\)"),
        ("a network that forgot to return", lambda: denoiser(lambda x, t: None, S)(X, 3), TypeError, "network answers with None.*tensor"),
        ("a network that answers with a tuple", lambda: denoiser(lambda x, t: (x,), S)(X, 3), TypeError, r"network answers with .*tuple.*tensor"),
    ],

    "score": [
        ("a name for the denoiser", lambda: score("unet", S), TypeError, "denoiser is 'unet'.*function"),
        ("a name for the schedule", lambda: score(same, "cosine"), TypeError, "schedule is 'cosine'"),
        ("t above T", lambda: score(same, S)(X, 11), ValueError, "t is 11.*0 … 10"),
    ],

    # Samplers.
    "timesteps": of_a_length(timesteps) + of_steps(partial(timesteps, 10)),
    "timesteps_in_log_snr": [
        *of_steps(partial(timesteps_in_log_snr, S)),
        ("a length for the schedule", lambda: timesteps_in_log_snr(10), TypeError, "schedule is 10.*Schedule"),
        ("an end before the beginning", lambda: timesteps_in_log_snr(S, 3, last=-8.0), ValueError, "last is -8.0.*above -.*log SNR.*begins"),
        ("a word for the end", lambda: timesteps_in_log_snr(S, 3, last="low"), TypeError, "last is 'low'.*number"),
    ],
    "dpm_solver_2m": [
        *of_two_tensors(lambda s, a, b: dpm_solver_2m()(s, a, b, 3, 2), "x_t", "eps"),
        *[(f"from t = 3 to s = {s}", lambda s=s: dpm_solver_2m()(S, X, EPS, 3, s), ValueError, rf"s = {s}.*t = 3.*goes down") for s in (3, 4)],
        ("the step's maker for the step", lambda: walk(dpm_solver_2m), TypeError, "positional argument"),
        ("a time for each image", lambda: dpm_solver_2m()(S, X, EPS, T4, 0), TypeError, "t is tensor.*integer"),
        ("a walk up", lambda: final(sample(same, S, X, dpm_solver_2m(), times=[0, 5, 10])), ValueError, "s = 5.*t = 0.*goes down"),
    ],
    "ddpm_step": [
        *of_two_tensors(lambda s, a, b: ddpm_step(s, a, b, 3, 2, EPS), "x_t", "eps"),
        *[(f"from t = 3 to s = {s}", partial(ddpm_step, S, X, EPS, 3, s, EPS), ValueError, rf"s = {s}.*t = 3") for s in (3, 4)],
        ("t above T", lambda: ddpm_step(S, X, EPS, 11, 2, EPS), ValueError, "t is 11.*0 … 10"),
        ("s below 0", lambda: ddpm_step(S, X, EPS, 3, -1, EPS), ValueError, "s is -1.*0 … 10"),
        ("a time for each image", lambda: ddpm_step(S, X, EPS, T4, 0, EPS), TypeError, "t is tensor.*integer"),
        ("a fraction for s", lambda: ddpm_step(S, X, EPS, 3, 0.5, EPS), TypeError, "s is 0.5.*integer"),
        ("an unknown variance", lambda: ddpm_step(S, X, EPS, 3, 2, EPS, variance="fixed"), ValueError, "fixed.*small.*large"),
        ("no noise", lambda: ddpm_step(S, X, EPS, 3, 2), ValueError, "noise.*pass z"),
        ("another shape of z", lambda: ddpm_step(S, X, EPS, 3, 2, EPS[:1]), ValueError, r"z.*\(1, 2\).*\(4, 2\)"),
        ("a list for z", lambda: ddpm_step(S, X, EPS, 3, 2, [0.0]), TypeError, "z is .*list.*tensor"),
        ("z elsewhere", lambda: ddpm_step(S, X, EPS, 3, 2, ELSEWHERE), ValueError, "z is on meta.*x_t is on cpu"),
    ],
    "ddim_step": [
        *of_two_tensors(lambda s, a, b: ddim_step(s, a, b, 3, 2), "x_t", "eps"),
        *[(f"with noise from t = 3 to s = {s}", partial(ddim_step, S, X, EPS, 3, s, EPS, eta=0.5), ValueError, rf"s = {s}.*t = 3") for s in (3, 4)],
        *[(f"η = {eta}", partial(ddim_step, S, X, EPS, 3, 2, EPS, eta), ValueError, rf"eta is {eta}.*0 … 1") for eta in (1.5, -0.1, math.nan)],
        ("a word for η", lambda: ddim_step(S, X, EPS, 3, 2, EPS, "half"), TypeError, "eta is 'half'.*number, 0 … 1"),
        ("no η", lambda: ddim_step(S, X, EPS, 3, 2, EPS, None), TypeError, "eta is None"),
        ("s below 0", lambda: ddim_step(S, X, EPS, 3, -1), ValueError, "s is -1.*0 … 10"),
        ("s above T", lambda: ddim_step(S, X, EPS, 3, 11), ValueError, "11.*0 … 10"),
        ("a time for each image", lambda: ddim_step(S, X, EPS, T4, T4 - 1), TypeError, "t is tensor.*integer"),
        ("a word for s", lambda: ddim_step(S, X, EPS, 3, "2"), TypeError, "s is '2'.*integer"),
        ("noise wanted and none given", lambda: ddim_step(S, X, EPS, 3, 2, eta=0.5), ValueError, "noise.*pass z"),
    ],
    "sample": [
        *of_steps(partial(sample, same, S, X)),
        ("a name for the denoiser", lambda: sample("unet", S, X), TypeError, "denoiser is 'unet'.*function"),
        ("a name for the schedule", lambda: sample(same, "cosine", X), TypeError, "schedule is 'cosine'"),
        ("a name for the step", lambda: sample(same, S, X, "ddim"), TypeError, "step is 'ddim'.*function"),
        ("a tensor for the noise", lambda: sample(same, S, X, noise=EPS), TypeError, "noise is torch.float32.*function"),
        ("a list for x", lambda: sample(same, S, [0.0]), TypeError, "x is .*list.*tensor"),
        ("pixels for x", lambda: sample(same, S, X.byte()), TypeError, "x is torch.uint8.*floating-point"),
        ("NaN in x", lambda: sample(same, S, nan(4, 2)), ValueError, "x holds NaN"),
        ("infinity in x", lambda: sample(same, S, X + math.inf), ValueError, "infinity"),
        ("times that go down and up", lambda: sample(same, S, X, times=[10, 3, 5]), ValueError, r"times.*\[10, 3, 5\]"),
        ("no times", lambda: sample(same, S, X, times=[]), ValueError, r"times.*\[\]"),
        ("times that stand still", lambda: sample(same, S, X, times=[10, 5, 5, 0]), ValueError, r"\[10, 5, 5, 0\]"),
        ("times outside", lambda: sample(same, S, X, times=[11, 0]), ValueError, "times is 11.*0 … 10"),
        ("times that are no integers", lambda: sample(same, S, X, times=[9.9, 5.5, 0.0]), TypeError, "9.9.*integer"),
        ("steps and times", lambda: sample(same, S, X, steps=2, times=[10, 0]), ValueError, "steps.*times.*not both"),
        ("DDPM without noise", lambda: walk(ddpm_step), ValueError, "noise.*seeded_noise"),
        ("noise of another shape", lambda: walk(ddpm_step, noise=lambda t: torch.zeros(2)), ValueError, r"z.*\(2,\).*\(4, 2\)"),
        ("a denoiser of another shape", lambda: final(sample(lambda x, t: x[:, :1], S, X)), ValueError, r"\(4, 2\).*eps.*\(4, 1\)"),
    ],
    "invert": [
        *of_steps(partial(invert, same, S, X)),
        ("a name for the denoiser", lambda: invert("unet", S, X), TypeError, "denoiser is 'unet'"),
        ("NaN", lambda: invert(same, S, nan(4, 2)), ValueError, "x holds NaN"),
        ("a name for the schedule", lambda: invert(same, "cosine", X), TypeError, "schedule is 'cosine'"),
    ],
    "final": [("of a walk that was walked", lambda: final(iter([])), ValueError, "no state left.*once")],
    "seeded_noise": [
        ("a negative seed", lambda: seeded_noise(-1, [0], (2,)), ValueError, "seed is -1.*≥ 0"),
        ("half a seed", lambda: seeded_noise(1.5, [0], (2,)), TypeError, "seed is 1.5.*integer"),
        ("a negative image number", lambda: seeded_noise(0, [0, -2], (2,)), ValueError, "index is -2.*≥ 0"),
        ("half an image", lambda: seeded_noise(0, [0.5], (2,)), TypeError, "index is 0.5.*integer"),
        ("how many, for which", lambda: seeded_noise(0, 4, (2,)), TypeError, r"indices is 4.*range\(4\)"),
        ("a number for the shape", lambda: seeded_noise(0, [0], 2), TypeError, "shape 2.*shape of one"),
        ("a negative side", lambda: seeded_noise(0, [0], (-2,)), ValueError, "side of shape is -2.*≥ 0"),
    ],
    "slerp": [
        ("ends of two shapes", lambda: slerp(X[0], torch.ones(3), torch.ones(1)), ValueError, r"a.*\(2,\).*b.*\(3,\)"),
        ("lists", lambda: slerp([1.0], [2.0], torch.ones(1)), TypeError, "a is .*list.*tensor"),
        ("a number for the weights", lambda: slerp(EPS[0], EPS[1], 0.5), TypeError, r"weight is 0.5.*\(n,\)"),
        ("pixels", lambda: slerp(X[0].byte(), X[1].byte(), torch.ones(1)), TypeError, "a is torch.uint8"),
        ("weights in a table", lambda: slerp(EPS[0], EPS[1], EPS), TypeError, r"weight is .*\(4, 2\).*\(n,\)"),
        ("an end elsewhere", lambda: slerp(EPS[0], ELSEWHERE[0], torch.ones(1)), ValueError, "b is on meta"),
    ],

    # Guidance.
    "classifier_free": [
        ("a name for cond", lambda: classifier_free("y", same, 2.0), TypeError, "cond is 'y'.*function"),
        ("no uncond", lambda: classifier_free(same, None, 2.0), TypeError, "uncond is None.*function"),
        ("a word for the scale", lambda: classifier_free(same, same, "2"), TypeError, "scale is '2'.*number"),
        *[(f"scale = {scale}", partial(classifier_free, same, same, scale), ValueError, rf"scale is {scale}.*finite") for scale in (math.nan, math.inf)],
        ("a scale for each image", lambda: classifier_free(same, same, torch.ones(4)), TypeError, "scale is tensor.*number"),
    ],
    "classifier": [
        ("a name for the denoiser", lambda: classifier("unet", same, S), TypeError, "denoiser is 'unet'.*function"),
        ("a mean for log_prob", lambda: classifier(same, lambda x, t: x.mean(), S)(X, 1), ValueError, r"log_prob answers with shape \(\).*\(B,\)"),
        ("no log_prob", lambda: classifier(same, None, S), TypeError, "log_prob is None.*function"),
        ("a name for the schedule", lambda: classifier(same, same, "cosine"), TypeError, "schedule is 'cosine'"),
        ("a word for the scale", lambda: classifier(same, same, S, "2"), TypeError, "scale is '2'.*number"),
        ("scale = NaN", lambda: classifier(same, same, S, math.nan), ValueError, "scale is nan.*finite"),
    ],
    "clipped": [
        ("a name for the denoiser", lambda: clipped("unet", S), TypeError, "denoiser is 'unet'.*function"),
        ("a name for the schedule", lambda: clipped(same, "cosine"), TypeError, "schedule is 'cosine'"),
        ("bounds with nothing between them", lambda: clipped(same, S, 1, 1), ValueError, "low is 1 and high 1.*low < high"),
        ("bounds the wrong way round", lambda: clipped(same, S, 1, -1), ValueError, "low is 1 and high -1.*low < high"),
        ("a word for a bound", lambda: clipped(same, S, "low"), TypeError, "low is 'low'.*number"),
        ("low = NaN", lambda: clipped(same, S, math.nan), ValueError, "^low is nan.*finite"),
        ("high = NaN", lambda: clipped(same, S, 0, math.nan), ValueError, "^high is nan.*finite"),
        ("at t = 0", lambda: clipped(same, S)(X, 0), ValueError, "t is 0.*1 ≤ t"),
    ],

    "within": [
        ("a name for the one inside", lambda: within("cond", same, 1, 5), TypeError, "inside is 'cond'.*function"),
        ("none outside", lambda: within(same, None, 1, 5), TypeError, "outside is None.*function"),
        ("a fraction of T", lambda: within(same, same, 0.2, 0.8), TypeError, "low is 0.2.*integer"),
        ("an interval the wrong way round", lambda: within(same, same, 5, 1), ValueError, "low is 5 and high 1.*low ≤ high"),
    ],
    "known": [
        ("a name for the denoiser", lambda: known("unet", S, X, X > 0), TypeError, "denoiser is 'unet'.*function"),
        ("a name for the schedule", lambda: known(same, "cosine", X, X > 0), TypeError, "schedule is 'cosine'"),
        ("a list for x_0", lambda: known(same, S, [0.0], X > 0), TypeError, "x_0 is .*list.*tensor"),
        ("a mask of numbers", lambda: known(same, S, X, torch.ones(4, 2)), TypeError, "mask is torch.float32.*bool"),
        ("a mask of another shape", lambda: known(same, S, X, torch.ones(3, dtype=torch.bool)), ValueError, r"mask has shape \(3,\).*\(4, 2\)"),
        ("at t = 0", lambda: known(same, S, X, X > 0)(X, 0), ValueError, "t is 0.*1 ≤ t"),
    ],

    # Exact denoisers.
    "Mixture": [
        ("cov that is not symmetric", lambda: Mixture([[0.0, 1.0]], [[[1.0, 0.9], [0.0, 1.0]]]), ValueError, "symmetric covariance"),
        ("means (K,)", lambda: Mixture([0.0, 1.0], 0.1), ValueError, r"means.*\(2,\).*\(K, D\)"),
        ("no means", lambda: Mixture(torch.zeros(0, 2), 0.1), ValueError, r"means.*\(0, 2\).*\(K, D\)"),
        ("NaN in the means", lambda: Mixture([[math.nan]], 1.0), ValueError, "means.*NaN"),
        ("cov = NaN", lambda: Mixture([[0.0]], math.nan), ValueError, "cov"),
        ("a (D, D) covariance", lambda: Mixture([[0.0, 0.0]], torch.eye(2)), ValueError, r"cov.*\(2, 2\)|covariance"),
        ("a negative variance", lambda: Mixture([[0.0]], -1.0), ValueError, "covariance.*≥ 0"),
        ("a (D, D) covariance of D·D parts", lambda: Mixture(torch.zeros(4, 2), torch.eye(2) + 0.5), ValueError, r"cov.*\(2, 2\)|covariance"),
        ("a weight too few", lambda: Mixture([[0.0], [1.0]], 1.0, weights=[1.0]), ValueError, "one positive weight"),
        ("a weight of 0", lambda: Mixture([[0.0], [1.0]], 1.0, weights=[1.0, 0.0]), ValueError, "positive weight"),
        ("NaN in the weights", lambda: Mixture([[0.0], [1.0]], 1.0, weights=[1.0, math.nan]), ValueError, "weights.*NaN"),
        ("a label too many", lambda: Mixture([[0.0]], 1.0, labels=[0, 1]), ValueError, "one label"),
    ],
    "Mixture.sample": [
        ("no points", lambda: ring().sample(0), ValueError, "n is 0.*≥ 1"), ("half a point", lambda: ring().sample(1.5), TypeError, "n is 1.5.*integer"),
        ("a word for the seed", lambda: ring().sample(1, "one"), TypeError, "seed is 'one'"),
    ],
    **{f"Mixture.{name}": [
        *of_a_time(lambda t, make=make: make(S)(X, t)),
        ("a name for the schedule", lambda make=make: make("cosine")(X, 3), TypeError, "schedule is 'cosine'"),
        ("a list for x_t", lambda make=make: make(S)([0.0], 3), TypeError, "x_t is .*list.*tensor"),
        ("integers for x_t", lambda make=make: make(S)(X.long(), 3), TypeError, "x_t is torch.int64.*floating-point"),
        ("points of another dimension", lambda make=make: make(S)(torch.zeros(4, 3), 3), ValueError, r"x_t.*\(4, 3\).*\(B, 2\)"),
        ("a class that is not there", lambda make=make: make(S, 8)(X, 3), ValueError, r"y is 8.*\[0, .*7\]"),
        ("three labels for four points", lambda make=make: make(S, Y[:3])(X, 3), ValueError, "3 labels y.*4"),
    ] for name, make in EXACT.items()},
    "dataset_denoiser": [
        ("a list", lambda: dataset_denoiser([0.0], S), TypeError, "data is .*list.*tensor"),
        ("pixels", lambda: dataset_denoiser(IMAGES.byte(), S), TypeError, "data is torch.uint8.*normalise"),
        ("no data", lambda: dataset_denoiser(X[:0], S), TypeError, r"data is .*\(0, 2\).*N ≥ 1"),
        ("NaN", lambda: dataset_denoiser(nan(4, 2), S), ValueError, "data holds NaN"),
        ("a name for the schedule", lambda: dataset_denoiser(X, "cosine"), TypeError, "schedule is 'cosine'"),
        ("points of another dimension", lambda: dataset_denoiser(torch.zeros(5, 3), S)(X, 3), ValueError, r"x_t.*\(4, 2\).*\(B, 3\)"),
        ("t = 0", lambda: dataset_denoiser(X, S)(X, 0), ValueError, "t is 0.*1 ≤ t"),
    ],
    "ring": [
        ("no points", lambda: ring(0), ValueError, "K is 0.*≥ 1"), ("half a point", lambda: ring(1.5), TypeError, "K is 1.5.*integer"),
        ("a negative std", lambda: ring(8, std=-1.0), ValueError, "std is -1.0.*≥ 0"),
        ("radius = NaN", lambda: ring(8, math.nan), ValueError, "radius is nan.*finite"),
        ("a word for the radius", lambda: ring(8, "big"), TypeError, "radius is 'big'.*number"),
    ],
    "spiral": [
        ("no points", lambda: spiral(0), ValueError, "n is 0.*≥ 1"), ("half a point", lambda: spiral(1.5), TypeError, "n is 1.5.*integer"),
        ("half a seed", lambda: spiral(5, 0.5), TypeError, "seed is 0.5.*integer"),
    ],

    # Networks.
    "timestep_embedding": [
        *[(f"dim = {dim}", partial(timestep_embedding, T4, dim), ValueError, rf"dim is {dim}.*even and ≥ 4") for dim in (7, 2, 8.0)],
        ("a list for t", lambda: timestep_embedding([1], 8), TypeError, r"t is \[1\].*\(B,\)"),
        ("t (B, 1)", lambda: timestep_embedding(T4[:, None], 8), TypeError, r"t is .*\(4, 1\).*\(B,\)"),
    ],
    "UNetConfig": [
        ("base no multiple of groups", lambda: UNetConfig(base=12, groups=8), ValueError, "base is 12.*groups = 8"),
        ("no groups", lambda: UNetConfig(groups=0), ValueError, "groups.*≥ 1.*groups=0"),
        ("a group for each channel, blind to time", lambda: UNetConfig(base=8, groups=8), ValueError, "groups is 8.*not see the time.*4 or fewer"),
        ("attention at a level that is not there", lambda: UNetConfig(mults=(1, 2), attention=(2,)), ValueError, r"attention is \(2,\).*0 … 1"),
        ("a number for attention", lambda: UNetConfig(attention=1), TypeError, "attention is 1.*tuple"),
        ("no levels", lambda: UNetConfig(mults=(), attention=()), ValueError, "mult"),
        ("a number for mults", lambda: UNetConfig(mults=2), TypeError, "mults is 2.*tuple"),
        ("half a mult", lambda: UNetConfig(mults=(1, 1.5)), ValueError, "mult.*integers"),
        *[(f"{name} = {value!r}", partial(lambda **k: UNetConfig(**k), **{name: value}), ValueError, rf"{name}.*integers ≥ 1.*{name}={value!r}")
          for name, value in {"channels": "1", "base": 32.0, "blocks": 1.5, "num_classes": 0}.items()],
        *[(f"dropout = {p!r}", partial(UNetConfig, dropout=p), ValueError, rf"dropout is {p}.*0 … 1") for p in (1.0, -0.1, math.nan, "half")],
    ],
    "UNet": [
        ("a dict for the config", lambda: UNet({"base": 8}), TypeError, "config is .*base.*UNetConfig"),
        ("a list for x_t", lambda: UNet(UNET)([0.0], T4), TypeError, "x_t is .*tensor"),
        ("points", lambda: UNet(UNET)(X, T4), ValueError, r"x_t.*\(4, 2\).*\(B, 1, H, W\)"),
        ("an image that cannot be halved", lambda: UNet(UNET)(torch.zeros(4, 1, 4, 5), T4), ValueError, "4×5.*multiples of 2"),
        ("pixels", lambda: UNet(UNET)(IMAGES.byte(), T4), TypeError, "x_t is torch.uint8.*torch.float32"),
        ("float64", lambda: UNet(UNET)(IMAGES.double(), T4), TypeError, "x_t is torch.float64.*torch.float32"),
        ("images elsewhere", lambda: UNet(UNET)(IMAGES.to("meta"), T4), TypeError, "x_t is .*meta.*torch.float32 on cpu"),
        ("one time for all", lambda: UNet(UNET)(IMAGES, 3), ValueError, "t is 3.*each of the 4"),
        ("three times for four", lambda: UNet(UNET)(IMAGES, T4[:3]), ValueError, r"t is .*\(3,\).*4"),
        ("fractions of T", lambda: UNet(UNET)(IMAGES, T4 / 10), ValueError, "t is torch.float32.*integer time"),
        ("three labels for four", lambda: UNet(UNET)(IMAGES, T4, Y[:3]), ValueError, r"y is .*\(3,\).*4"),
        ("a list of labels", lambda: UNet(UNET)(IMAGES, T4, [0, 1, 2, 0]), ValueError, r"y is \[0, 1, 2, 0\].*integer label"),
        ("float labels", lambda: UNet(UNET)(IMAGES, T4, Y.float()), ValueError, "y is torch.float32.*integer label"),
        ("a label above the null label", lambda: UNet(UNET)(IMAGES, T4, Y + 2), ValueError, "labels.*0 … 2.*3.*2 … 4"),
        ("labels for one without", lambda: UNet(UNetConfig(base=8, groups=4))(IMAGES, T4, Y), ValueError, "labels.*num_classes=None"),
    ],
    "MLP": [
        *[(f"{name} = {value}", partial(lambda **k: MLP(**k), **{name: value}), ValueError, rf"{name}\b.*{value}.*≥ 1")
          for name, value in (("width", 7), ("width", 2), ("dim", 0), ("dim", 2.5), ("layers", -1), ("num_classes", 0))],
        ("points of another dimension", lambda: MLP()(torch.zeros(4, 3), T4), ValueError, r"x_t.*\(4, 3\).*\(B, 2\)"),
        ("a list", lambda: MLP()([0.0], T4), TypeError, "x_t is .*tensor"),
        ("float64", lambda: MLP()(X.double(), T4), TypeError, "x_t is torch.float64.*float32"),
        ("elsewhere", lambda: MLP()(ELSEWHERE, T4), TypeError, "x_t is .*meta.*cpu"),
        ("one time for all", lambda: MLP()(X, 3), ValueError, "t is 3.*each of the 4"),
        ("labels for one without", lambda: MLP()(X, T4, Y), ValueError, "labels.*num_classes=None"),
        ("a label above the null label", lambda: MLP(num_classes=3)(X, T4, Y + 2), ValueError, "0 … 2.*3.*2 … 4"),
    ],

    # The bound.
    "likelihood.prior": [
        ("a name for the schedule", lambda: likelihood.prior("cosine", X), TypeError, "schedule is 'cosine'"),
        ("pixels", lambda: likelihood.prior(S, X.byte()), TypeError, "x_0 is torch.uint8.*floating-point"),
        ("a list", lambda: likelihood.prior(S, [0.0]), TypeError, "x_0 is .*list.*tensor"),
    ],
    "likelihood.terms": [
        *of_two_tensors(lambda s, a, b: likelihood.terms(same, s, a, b, 3), "x_0", "eps"),
        ("a name for the denoiser", lambda: likelihood.terms("unet", S, X, EPS, 3), TypeError, "denoiser is 'unet'.*function"),
        *[(f"t = {t}", partial(likelihood.terms, same, S, X, EPS, t), ValueError, rf"t is {t}.*1 … 10") for t in (0, 11)],
        ("a time for each", lambda: likelihood.terms(same, S, X, EPS, T4), TypeError, "t is tensor.*integer, 1 … 10"),
        ("an unknown variance", lambda: likelihood.terms(same, S, X, EPS, 3, "fixed"), ValueError, "variance is 'fixed'.*small or large"),
        ("an unknown decoder", lambda: likelihood.terms(same, S, X, EPS, 3, decoder="vae"), ValueError, "unknown decoder 'vae'.*gaussian, discretised"),
        ("one level", lambda: likelihood.terms(same, S, X, EPS, 1, decoder="discretised", levels=1), ValueError, "levels is 1.*≥ 2"),
    ],
    "likelihood.bits_per_dim": [
        ("a list", lambda: likelihood.bits_per_dim(same, S, [0.0]), TypeError, "x_0 is .*list.*tensor"),
        ("pixels", lambda: likelihood.bits_per_dim(same, S, X.byte()), TypeError, "x_0 is torch.uint8.*normalise"),
        ("none", lambda: likelihood.bits_per_dim(same, S, X[:0]), TypeError, r"x_0 is .*\(0, 2\).*B ≥ 1"),
        ("NaN", lambda: likelihood.bits_per_dim(same, S, nan(4, 2)), ValueError, "x_0 lies in nan.*finite"),
        ("images in 0 … 5", lambda: likelihood.bits_per_dim(same, S, X + 5), ValueError, r"x_0 lies in 5 … 5.*\[-1, 1\]"),
        ("a negative seed", lambda: likelihood.bits_per_dim(same, S, X, seed=-1), ValueError, "seed is -1"),
        ("an unknown decoder", lambda: likelihood.bits_per_dim(same, S, X, decoder="vae"), ValueError, "decoder 'vae'"),
    ],

    # The model.
    "loss": [
        *of_two_tensors(lambda s, a, b: loss(MLP(), s, a, b, T4), "x_0", "eps"),
        ("three times for four", lambda: loss(MLP(), S, X, EPS, T4[:3]), ValueError, "3 times.*4"),
        ("a time above T", lambda: loss(MLP(), S, X, EPS, T4 + 8), ValueError, r"t is \[9, 10, 11, 12\].*T = 10"),
        ("an unknown prediction", lambda: loss(MLP(), S, X, EPS, T4, predict="noise"), ValueError, "'noise'.*eps.*x0.*v"),
        ("one time for all", lambda: loss(MLP(), S, X, EPS, 3), TypeError, r"t is 3.*\(B,\)"),
        ("times from randint(0, T)", lambda: loss(MLP(), S, X, EPS, T4 - 1), ValueError, "t is .*0.*1 ≤ t"),
        ("a network of another shape", lambda: loss(lambda x, t: x[:, :1], S, X, EPS, T4), ValueError, r"out.*\(4, 1\).*target.*\(4, 2\)"),
        ("a name for the network", lambda: loss("unet", S, X, EPS, T4), TypeError, "net is 'unet'.*function"),
    ],
    "drop_labels": [
        ("a list for the mask", lambda: drop_labels(Y, [True] * 4, 3), ValueError, r"dropped is \[True.*list"),
        ("no null label", lambda: drop_labels(Y, Y > 0, None), TypeError, "null is None.*integer"),
        ("a mask of the wrong shape", lambda: drop_labels(Y, torch.tensor([True]), 3), ValueError, r"dropped.*\(1,\).*\(4,\)"),
        ("a mask of numbers", lambda: drop_labels(Y, torch.rand(4), 3), ValueError, "dropped is torch.float32.*bool"),
    ],
    "DDPMConfig": [
        ("an unknown prediction", lambda: PLAIN(predict="score"), ValueError, "'score'.*eps.*x0.*v"),
        ("a probability above 1", lambda: PLAIN(p_uncond=1.5), ValueError, "p_uncond is 1.5.*0 … 1"),
        ("p_uncond = NaN", lambda: PLAIN(p_uncond=math.nan), ValueError, "p_uncond is nan.*0 … 1"),
        ("a U-Net for other channels", lambda: PLAIN(channels=3), ValueError, "1 channels.*3"),
        ("half a pixel", lambda: PLAIN(image_size=4.5), TypeError, "image_size is 4.5.*integer"),
        ("no pixel", lambda: PLAIN(image_size=0), ValueError, "image_size is 0.*≥ 1"),
    ],
    "DDPM": [
        *of_images(lambda x: model()(x, Y)),
        ("an unknown schedule", lambda: DDPM(PLAIN(schedule="cosinus")), ValueError, "cosinus.*linear.*cosine"),
        ("a name for the config", lambda: DDPM("digits"), TypeError, "config is 'digits'.*DDPMConfig.*load"),
        ("a name for the schedule", lambda: DDPM(CONFIG, None, "linear"), TypeError, "schedule is 'linear'"),
        ("a list of images", lambda: model()([0.0]), ValueError, "images are .*list"),
        ("no steps", lambda: DDPM(PLAIN(timesteps=0)), ValueError, "T is 0.*≥ 1"),
        ("images that cannot be halved", lambda: DDPM(PLAIN(image_size=7)), ValueError, "image_size is 7.*multiple of 2"),
        ("one image without its batch", lambda: model()(IMAGES[0]), ValueError, r"\(1, 4, 4\).*\(B, 1, 4, 4\)"),
        ("three labels for four", lambda: model()(IMAGES, Y[:3]), ValueError, r"y is .*\(3,\).*4"),
        ("a label above the null label", lambda: model()(IMAGES, Y + 2), ValueError, "labels.*0 … 2.*4"),
        ("labels for one without", lambda: unconditional()(IMAGES, Y), ValueError, "labels.*num_classes=None"),
    ],
    "DDPM.add_noise": [
        *of_a_time(partial(DDPM(PLAIN()).add_noise, IMAGES)),
        ("another shape of ε", lambda: model().add_noise(IMAGES, 3, EPS), ValueError, r"eps has shape \(4, 2\)"),
    ],
    "DDPM.denoiser": [
        ("a scale without labels", lambda: model().denoiser(scale=2.0), ValueError, "scale is 2.0.*labels.*y"),
        ("scale = NaN", lambda: model().denoiser(Y, math.nan), ValueError, "scale is nan"),
        ("t = 0", lambda: model().denoiser()(IMAGES, 0), ValueError, "t is 0.*1 ≤ t"),
    ],
    "DDPM.sample": [
        *of_walks(lambda **options: model().sample(1, **options)),
        ("no samples", lambda: model().sample(0), ValueError, "n is 0.*≥ 1"),
        ("half a sample", lambda: model().sample(1.5), TypeError, "n is 1.5.*integer"),
        ("a word for n", lambda: model().sample("4"), TypeError, "n is '4'.*integer"),
        ("batches of none", lambda: model().sample(1, batch=0), ValueError, "batch is 0.*≥ 1"),
        ("a negative first", lambda: model().sample(1, first=-1), ValueError, "first is -1.*≥ 0"),
        ("labels for one without", lambda: unconditional().sample(1, 0), ValueError, "labels.*num_classes=None"),
    ],
    "DDPM.trajectory": of_walks(lambda **options: model().trajectory(1, **options)),
    "DDPM.interpolate": [
        *[row for row in of_images(lambda x: model().interpolate(x[0], x[0])) if row[0] != "pixels"],
        ("pixels", lambda: model().interpolate(IMAGES[0].byte(), IMAGES[1].byte()), TypeError, "a is torch.uint8.*normalise"),
        ("two sizes", lambda: model().interpolate(IMAGES[0], SEEN[0]), ValueError, r"a has shape \(1, 4, 4\) and b has shape \(1, 8, 8\)"),
        ("no images between", lambda: model().interpolate(IMAGES[0], IMAGES[1], n=0), ValueError, "n is 0.*≥ 1"),
        ("an unknown sampler", lambda: model().interpolate(IMAGES[0], IMAGES[1], sampler="euler"), ValueError, "euler.*ddpm.*ddim"),
        ("a second-order sampler", lambda: model().interpolate(IMAGES[0], IMAGES[1], sampler="dpm++"), ValueError, r"dpm\+\+.*ddim, ddpm|steps belongs"),
        ("more steps than T", lambda: model().interpolate(IMAGES[0], IMAGES[1], steps=11), ValueError, "steps is 11.*1 … 10"),
        ("a time for DDIM", lambda: model().interpolate(IMAGES[0], IMAGES[1], t=3), ValueError, "steps belongs.*t to sampler='ddpm'"),
        ("a time above T", lambda: model().interpolate(IMAGES[0], IMAGES[1], sampler="ddpm", t=11), ValueError, "t is 11.*0 … 10"),
        ("half a time", lambda: model().interpolate(IMAGES[0], IMAGES[1], sampler="ddpm", t=2.5), TypeError, "2.5.*integer"),
    ],
    "DDPM.load": [("a file that is not there", lambda: DDPM.load(NOTHING), FileNotFoundError, r"here.safetensors.*train")],

    # Training.
    "TrainState": [
        ("a name for the model", lambda: TrainState("digits", TrainConfig()), TypeError, "model is 'digits'.*DDPM"),
        ("a dict for the config", lambda: TrainState(model(), {"steps": 1}), TypeError, "config .*steps.*TrainConfig"),
    ],
    "save": [("a model", lambda: save(model(), NOTHING), TypeError, r"state is DDPM.*TrainState.*model\.save")],
    "TrainConfig": [
        ("no steps", lambda: TrainConfig(steps=0), ValueError, "steps is 0.*positive"),
        ("a negative learning rate", lambda: TrainConfig(lr=-1.0), ValueError, "lr is -1.0.*positive"),
        ("lr = NaN", lambda: TrainConfig(lr=math.nan), ValueError, "lr is nan.*finite number"),
        *[(f"{name} = {value!r}", partial(lambda **k: TrainConfig(**k), **{name: value}), error, rf"{name} (is|are) .*{value}")
          for name, value, error in (("steps", 1.5, TypeError), ("batch", 2.5, TypeError), ("seed", -1, ValueError), ("seed", 0.5, TypeError),
                                     ("lr", "fast", TypeError), ("weight_decay", -1.0, ValueError))],
        ("β = 2", lambda: TrainConfig(betas=(2.0, 0.9)), ValueError, r"betas are \(2.0, 0.9\).*0 … 1"),
        ("ema = 1", lambda: TrainConfig(ema=1.0), ValueError, "ema is 1.0.*0 … 1"),
        ("ema = NaN", lambda: TrainConfig(ema=math.nan), ValueError, "ema is nan.*0 … 1"),
        *[(f"an unknown {name}", partial(lambda **k: TrainConfig(**k), **{name: "new"}), ValueError, rf"{name} is 'new'.*choose")
          for name in ("decay", "times", "precision")],
    ],
    "train": [
        *of_images(lambda x: train(run(), x, Y)),
        ("two labels for four", lambda: train(run(), IMAGES, Y[:2]), ValueError, r"y is .*\(2,\).*4"),
        ("the null label for a class", lambda: train(run(), IMAGES, torch.full((4,), run().model.config.num_classes)), ValueError,
         "null label, which training draws by itself.*begin at 1"),
        ("no images", lambda: train(run(), IMAGES[:0], Y[:0]), ValueError, r"images are .*\(0, 1, 4, 4\).*N ≥ 1"),
        ("a list", lambda: train(run(), [0.0]), ValueError, "images are .*list.*tensor"),
        ("images that are no images, after all", lambda: train(run(), IMAGES.byte(), Y, transform=lambda x: x), ValueError, "uint8.*float"),
    ],
    "resume": [
        ("a file that is not there", lambda: resume(NOTHING), FileNotFoundError, r"here.safetensors.*train"),
        ("another learning rate", lambda: resume(NOTHING, lr=1.0), TypeError, "lr cannot be changed.*precision"),
    ],

    # Data.
    "data.load": [
        ("an unknown data set", lambda: data.load("mnits"), ValueError, "mnits.*digits"),
        ("an unknown split", lambda: data.load("digits", "val"), ValueError, "val.*train.*test"),
        ("no split", lambda: data.load("digits", None), ValueError, "None.*train.*test"),
        ("no size", lambda: data.load("digits", size=0), ValueError, "size is 0.*≥ 1"),
        ("half a pixel", lambda: data.load("digits", size=8.5), TypeError, "size is 8.5.*integer"),
        ("an empty name, which is no folder", lambda: data.load(""), ValueError, "unknown data set ''.*digits.*path of a folder"),
        ("nobody's home", lambda: data.load("~nobody-of-this-name/x"), ValueError, "unknown data set '~nobody.*path of a folder"),
    ],
    "data.denormalise": [
        ("pixels", lambda: data.denormalise(IMAGES.byte()), TypeError, r"x is torch.uint8.*floats in \[-1, 1\]"),
        ("a list", lambda: data.denormalise([0.0]), TypeError, r"x is .*\(list\)"), ("NaN", lambda: data.denormalise(nan(1, 1, 2, 2)), ValueError, "NaN"),
    ],
    "data.normalise": [
        ("a list", lambda: data.normalise([0]), TypeError, r"images are .*\(list\).*uint8"),
        ("floats", lambda: data.normalise(IMAGES), TypeError, "float32.*uint8"),
    ],
    "data.resize": [
        ("floats", lambda: data.resize(IMAGES, 2), TypeError, "images are torch.float32.*uint8"),
        ("one image without its batch", lambda: data.resize(IMAGES[0].byte(), 2), TypeError, r"\(1, 4, 4\).*\(N, C, H, W\)"),
        ("a negative size", lambda: data.resize(IMAGES.byte(), -1), ValueError, "size is -1.*≥ 1"),
    ],

    # Numbers about samples.
    "metrics.Classifier": [
        ("a time for a clean one", lambda: metrics.Classifier()(SEEN, 3), ValueError, "t is 3.*timed=True"),
        ("no time for a noisy one", lambda: metrics.Classifier(timed=True)(SEEN), ValueError, "noisy images.*time t"),
    ],
    "metrics.train_classifier": [
        ("a label too few", lambda: metrics.train_classifier(SEEN, Y[:3]), ValueError, r"y .*\(3,\)"),
        ("pixels", lambda: metrics.train_classifier(SEEN.byte(), Y), ValueError, "x is torch.uint8.*float"),
        ("float labels", lambda: metrics.train_classifier(SEEN, Y.float()), ValueError, "y torch.float32.*integer"),
        ("no epochs", lambda: metrics.train_classifier(SEEN, Y, epochs=0), ValueError, "epochs 0"),
        ("NaN", lambda: metrics.train_classifier(SEEN * math.nan, Y), ValueError, "x holds NaN"),
    ],
    **{f"metrics.{f.__name__}": [("points", partial(f, metrics.Classifier(), X), ValueError, r"x is .*\(4, 2\).*\(B, 1, H, W\)"),
                                 ("pixels", partial(f, metrics.Classifier(), SEEN.byte()), ValueError, "x is torch.uint8.*float")]
       for f in (metrics.features, metrics.probabilities)},
    "metrics.bootstrap": [
        ("no tensors", lambda: metrics.bootstrap(len), ValueError, "0 tensors"), ("no rows", lambda: metrics.bootstrap(len, X[:0]), ValueError, r"\[0\] rows"),
        ("no resamples", lambda: metrics.bootstrap(len, X, n=0), ValueError, "n = 0.*n ≥ 1"),
        ("a label too few", lambda: metrics.bootstrap(len, X, within=[Y[:3]]), ValueError, r"labels for \[3\] rows.*\[4\]"),
        ("level = 1", lambda: metrics.bootstrap(len, X, level=1.0), ValueError, "level = 1.0.*between 0 and 1"),
    ],
    **{f"metrics.{f.__name__}": [("points of two dimensions", call, ValueError, r"\(4, 2\).*\(5, 3\)")] for f, call in (
        (metrics.nearest, lambda: metrics.nearest(X, torch.zeros(5, 3))), (metrics.memorisation, lambda: metrics.memorisation(X, torch.zeros(5, 3), X)))},
    "metrics.accuracy": [
        ("no images", lambda: metrics.accuracy(metrics.Classifier(), SEEN[:0], Y[:0]), ValueError, "0 images.*one at least"),
        ("a label too few", lambda: metrics.accuracy(metrics.Classifier(), SEEN, Y[:3]), ValueError, "4 images.*3 labels"),
    ],
    "metrics.wilson": [
        ("more successes than trials", lambda: metrics.wilson(5, 4), ValueError, "5 successes of 4.*0 … n"),
        ("no trials", lambda: metrics.wilson(0, 0), ValueError, "n ≥ 1"), ("fewer than none", lambda: metrics.wilson(-1, 4), ValueError, "-1 successes"),
    ],
    "metrics.frechet_distance": [
        ("features of two widths", lambda: metrics.frechet_distance(FEATURES, FEATURES[:, :2]), ValueError, r"\(10, 3\).*\(10, 2\)"),
        ("one image", lambda: metrics.frechet_distance(FEATURES[:1], FEATURES), ValueError, r"\(1, 3\).*≥ 2"),
        ("images", lambda: metrics.frechet_distance(SEEN, SEEN), ValueError, r"\(4, 1, 8, 8\).*\(N, d\)"),
    ],
    "metrics.frechet_at_infinity": [
        ("too few rows for a line", lambda: metrics.frechet_at_infinity(FEATURES, FEATURES), ValueError, "10 and 10 rows for 4 parts.*100 rows"),
        ("one part", lambda: metrics.frechet_at_infinity(FEATURES, FEATURES, parts=1), ValueError, "for 1 parts.*2 parts at least"),
        ("features of two widths", lambda: metrics.frechet_at_infinity(FEATURES, FEATURES[:, :2]), ValueError, r"\(10, 3\).*\(10, 2\)"),
    ],
    "metrics.kernel_distance": [
        ("features of two widths", lambda: metrics.kernel_distance(FEATURES, FEATURES[:, :2]), ValueError, r"\(10, 3\).*\(10, 2\)"),
        ("one image", lambda: metrics.kernel_distance(FEATURES[:1], FEATURES), ValueError, r"\(1, 3\).*≥ 2"),
        ("one image of a class", lambda: metrics.kernel_distance(FEATURES[:4], FEATURES, Y), ValueError, "4 labels for 4 rows.*two rows at least"),
        ("a label too few", lambda: metrics.kernel_distance(FEATURES[:4], FEATURES, Y[:3]), ValueError, "3 labels for 4 rows"),
        ("NaN", lambda: metrics.kernel_distance(nan(4, 3), FEATURES), ValueError, "NaN or infinity"),
    ],
    "metrics.variety": [
        ("a label too few", lambda: metrics.variety(SEEN, Y[:3], SEEN, Y), ValueError, "with 3 labels"),
        ("images of two sizes", lambda: metrics.variety(SEEN, Y, IMAGES, Y), ValueError, r"\(4, 1, 8, 8\).*\(4, 1, 4, 4\)"),
        ("one image of a class", lambda: metrics.variety(SEEN, Y, SEEN, Y), ValueError, "class 1 has 1 samples and 1 real images.*two of each"),
    ],
    "metrics.inception_score": [
        ("logits", lambda: metrics.inception_score(FEATURES), ValueError, r"probabilities.*\(10, 3\).*sum to 1"),
        ("none", lambda: metrics.inception_score(FEATURES[:0]), ValueError, r"\(0, 3\)"),
        ("one row", lambda: metrics.inception_score(FEATURES[0]), ValueError, r"\(3,\).*\(N, K\)"),
    ],
    "metrics.precision_recall": [
        *[(f"k = {k}", partial(metrics.precision_recall, FEATURES, FEATURES, k), ValueError, rf"k = {k} ≥ 1") for k in (0, 10)],
        ("features of two widths", lambda: metrics.precision_recall(FEATURES, FEATURES[:, :2]), ValueError, r"\(10, 3\).*\(10, 2\)"),
    ],
    "metrics.per_class": [("more of a class than there are", lambda: metrics.per_class(torch.tensor([0, 0, 1]), 2), ValueError, "2 images.*1")],
    "judging.judge": [
        ("a label too few", lambda: judging.judge(metrics.Classifier(), SEEN, Y[:3], SEEN, Y), ValueError, r"x_train is \(4, 1, 8, 8\) with 3 labels"),
        ("two sizes", lambda: judging.judge(metrics.Classifier(), IMAGES, Y, SEEN, Y), ValueError, r"x_train is \(4, 1, 4, 4\).*alike"),
    ],
    "judging.load_classifier": [("a file that is not there", lambda: judging.load_classifier(NOTHING), FileNotFoundError, "here.safetensors")],
    "judging.sha256": [("a file that is not there", lambda: judging.sha256(NOTHING), FileNotFoundError, "here.safetensors")],
    "judging.torch_fidelity_fid": [
        ("floats", lambda: judging.torch_fidelity_fid(IMAGES, IMAGES), ValueError, "float32.*uint8.*denormalise"),
        ("grey images", lambda: judging.torch_fidelity_fid(IMAGES.byte(), IMAGES.byte()), ValueError, r"\(4, 1, 4, 4\).*\(N, 3, H, W\)"),
    ],

    # diffusers' layout; test_diffusers_layout has the rest.
    "diffusers_layout.from_diffusers": [
        ("queries without keys", lambda: diffusers_layout.from_diffusers({"mid_block.attentions.0.to_q.weight": X}), ValueError, "to_q.*no .*to_k.*to_v"),
    ],
    "diffusers_layout.diffusers_config": [
        ("no pixel", lambda: diffusers_layout.diffusers_config(UNET, 0), ValueError, "image_size is 0.*≥ 1"),
        ("half a pixel", lambda: diffusers_layout.diffusers_config(UNET, 4.5), TypeError, "image_size is 4.5.*integer"),
    ],
    "diffusers_layout.unet_config": [
        ("their defaults, which are another network",
         lambda: diffusers_layout.unet_config({}), ValueError, "attention_head_dim is 8.*None.*freq_shift is 0.*1"),
    ],
    "diffusers_layout.schedule_of": [
        ("an unknown schedule", lambda: diffusers_layout.schedule_of({"beta_schedule": "sigmoid"}), ValueError, "'sigmoid'.*scaled_linear"),
        ("no steps", lambda: diffusers_layout.schedule_of({"num_train_timesteps": 0}), ValueError, "T is 0.*≥ 1"),
    ],
    "diffusers_layout.read": [("a folder that is not there", lambda: diffusers_layout.read("nothing"), FileNotFoundError, "nothing.*unet/config.json")],
    "diffusers_layout.export": [
        ("a network of one's own", lambda: diffusers_layout.export(DDPM(PLAIN(), MLP()), "nothing"), ValueError, "MLP.*UNet only"),
        ("a name", lambda: diffusers_layout.export("digits", "nothing"), ValueError, "model is a str.*UNet only"),
        ("a velocity", lambda: diffusers_layout.export(DDPM(PLAIN(predict="velocity")), "nothing"), ValueError, "'velocity'.*eps, x0, v only"),
    ],
}

WITHOUT_ROWS = {
    "Denoiser": "a type", "State": "a record", "likelihood.Bound": "a record", "data.Dataset": "a record", "loop.Progress": "a record",
    "data.NoneForTesting": "an error",
    "draws.Draw": "a record", "judging.Judge": "a record",
    "DDPM.save": "takes a path",
    "checkpoint.previous": "takes a path", "data.cache": "takes a path", "data.fingerprint": "takes a Dataset",
    "devices.device": "test_command_line has its row", "devices.processes": "takes nothing",
    "devices.best_precision": "takes a torch.device", "draws.draw": "the loop's own; TrainConfig has the rows",
    "draws.seeded": "takes integers", "loop.learning_rate": "the loop's own; TrainConfig has the rows", "devices.gathered": "takes any tensor",
    "judging.floors": "test_judging has its rows, which need a judge",
    "judging.measure": "test_judging has its rows, which need a judge", "judging.measure_by": "asks measure", "judging.panel": "test_judging has its rows",
    "judging.table": "takes what floors and measure gave",
    "judging.save_classifier": "test_judging has its rows", "diffusers_layout.to_diffusers": "renames what it is given; loading is strict about names",
    "diffusers_layout.diffusers_scheduler": "takes what a DDPMConfig has checked",
}


def public_names():
    """`__all__`; what the other modules define without an underscore; and the methods of the classes that have many."""
    names = set(ddpm_tutorial.__all__)
    known = {id(getattr(ddpm_tutorial, name)) for name in names}
    for module in (checkpoint, data, devices, diffusers_layout, draws, judging, likelihood, loop, metrics):
        names |= {f"{module.__name__.split('.')[-1]}.{name}" for name, value in vars(module).items()
                  if name[0] != "_" and callable(value) and getattr(value, "__module__", "") == module.__name__ and id(value) not in known}
    for kind in (Schedule, Mixture, DDPM):
        names |= {f"{kind.__name__}.{name}" for name, value in vars(kind).items() if name[0] != "_" and name != "forward"
                  and (inspect.isfunction(value) or isinstance(value, classmethod))}
    return names


ROWS = [(f"{name}: {what}", *row) for name, rows in BAD.items() for what, *row in rows]


@pytest.mark.parametrize("call, error, words", [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_mistake_is_answered_by_a_sentence(call, error, words):
    """What was given and what is allowed, as ValueError or TypeError, and nothing that torch says three calls further down."""
    with pytest.raises(error, match=f"(?is){words}"):
        call()


def test_every_public_name_has_its_rows():
    """Or a reason why it has none; and nothing has rows that is not there any more."""
    names = public_names()
    assert names == BAD.keys() | WITHOUT_ROWS.keys(), sorted(names ^ (BAD.keys() | WITHOUT_ROWS.keys()))
    assert not BAD.keys() & WITHOUT_ROWS.keys() and all(BAD.values())


def test_an_unknown_schedule_is_answered_with_the_known_ones():
    """By name, as in DDPMConfig and on the command line."""
    for name in ("cosinus", None, ["cosine"]):
        with pytest.raises(ValueError, match=r"unknown schedule.*linear.*cosine.*sigmoid.*quadratic"):
            by_name(name, 10)


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
