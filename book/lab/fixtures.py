"""What the laboratory takes from the Python: the weights and some digits for the page, and numbers that its JavaScript must reproduce.

    python book/lab/fixtures.py                 writes digits.safetensors.js and pictures.js beside this file
    python book/lab/fixtures.py numbers.json    writes the numbers there; tests/book/test_laboratory_numbers.py does so and compares

No random number is needed over there: every x_T and every z is in the file.
"""

import base64
import json
import math
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ddpm_tutorial import DDPM, Mixture, data, dataset_denoiser, forward, ring, schedules
from ddpm_tutorial.forward import denoiser, score
from ddpm_tutorial.guidance import classifier_free, clipped, known, within
from ddpm_tutorial.samplers import ddim_step, ddpm_step, dpm_solver_2m, invert, sample, timesteps, timesteps_in_log_snr
from ddpm_tutorial.weights import PRETRAINED

HERE = Path(__file__).parent


# What the page carries.

def weights() -> str:
    """The shipped file, byte for byte, as a script: a page opened from disk may not fetch."""
    text = base64.b64encode(PRETRAINED["digits"].read_bytes()).decode()
    lines = "\n".join(text[i:i + 160] for i in range(0, len(text), 160))
    return f'// Written by fixtures.py: ddpm_tutorial/weights/pretrained/digits.safetensors in base64.\nFILES["digits.safetensors"] = `\n{lines}`;\n'


def pictures() -> str:
    """One test digit of each class, 64 levels 0 … 16 as letters a … q: something to hide a part of."""
    images, y, _ = data.load("digits", "test")
    chosen = [images[y == k][1].flatten().float().div(255 / 16).round().int().tolist() for k in range(10)]
    lines = ",".join('\n  "' + "".join(chr(ord("a") + level) for level in image) + '"' for image in chosen)
    return f"// Written by fixtures.py: a test digit of each class (Alpaydin, Kaynak, UCI 1998), 8×8 levels from a (black) to q.\nlab.DIGITS = [{lines},\n];\n"


FILES = {"digits.safetensors.js": weights, "pictures.js": pictures}


# What the JavaScript is held to.

def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flat(x: Tensor) -> list[float]:
    return x.flatten().tolist()


def some_schedules() -> list[dict]:
    asked = [("linear", [1000]), ("linear", [50]), ("linear", [1]), ("linear", [300, 1e-3, 0.05]), ("quadratic", [1000]), ("quadratic", [200, 2e-4, 0.03]),
             ("cosine", [1000]), ("cosine", [10]), ("cosine", [500, 0.05]), ("sigmoid", [1000]), ("sigmoid", [100, -2.0, 4.0, 0.7]),
             ("flow", [1000]), ("flow", [7])]
    made = [(name, args, schedules.SCHEDULES[name](*args)) for name, args in asked]
    return [{"name": name, "args": args, "alpha_bar": flat(s.alpha_bar), "beta": flat(s.beta), "log_snr": flat(s.log_snr[1:])} for name, args, s in made]


def some_steps() -> list[dict]:
    """Every line of the algebra and every step, down and, where that is allowed, up."""
    x, eps, z, found = 2 * normal(1, 40), normal(2, 40), normal(3, 40), []

    def constant(x, t): return eps

    for name, T in (("cosine", 1000), ("linear", 200)):
        schedule = schedules.by_name(name, T)
        for t, s in ((T, T - 1), (T, T // 2), (T // 2, 7), (7, 0), (1, 0)):
            values = {
                "q_sample": forward.q_sample(schedule, x, eps, t), "q_step": forward.q_step(schedule, x, eps, t, s),
                "q_posterior": forward.q_posterior(schedule, x, eps, t, s)[0], "x0_from_eps": forward.x0_from_eps(schedule, x, eps, t),
                "eps_from_x0": forward.eps_from_x0(schedule, x, eps, t), "to_eps v": forward.to_eps(schedule, x, eps, t, "v"),
                "to_eps x0": forward.to_eps(schedule, x, eps, t, "x0"), "to_eps velocity": forward.to_eps(schedule, x, eps, t, "velocity"),
                "score": score(constant, schedule)(x, t), "ddpm_step small": ddpm_step(schedule, x, eps, t, s, z),
                "ddpm_step large": ddpm_step(schedule, x, eps, t, s, z, "large"), "ddim_step 0": ddim_step(schedule, x, eps, t, s),
                "ddim_step 0.3": ddim_step(schedule, x, eps, t, s, z, 0.3), "ddim_step 1": ddim_step(schedule, x, eps, t, s, z, 1.0),
                "ddim_step up": ddim_step(schedule, x, eps, s, t), "clipped": clipped(constant, schedule)(x, t),
                "known": known(constant, schedule, z, z > 0)(x, t), "within": within(constant, lambda x, t: -eps, 10, T)(x, t),
            }
            found.append({"schedule": [name, T], "t": t, "s": s, "values": {k: flat(v) for k, v in values.items()}})
    return [{"x": flat(x), "eps": flat(eps), "z": flat(z)}, *found]


def moons(K: int = 16, std: float = 0.08) -> Mixture:
    angle = torch.arange(K, dtype=torch.float64) * math.pi / (K - 1)
    above = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
    return Mixture(torch.cat([above, -above]), std**2, labels=torch.arange(2).repeat_interleave(K))


def some_mixtures() -> list[dict]:
    """Exact denoisers: the page's two data sets, a mixture that is uneven in everything, and a finite data set, which is a mixture of variance 0."""
    schedule, x = schedules.cosine(1000), 1.5 * normal(4, 30, 2)
    uneven = {"means": [[0.5, 0.9], [-1.0, 0.3], [0.2, -0.8]], "variance": [0.01, 0.2, 0.05], "weights": [1, 2, 3], "labels": [0, 1, 1]}
    points = normal(5, 12, 2)
    asked = [({"kind": "ring"}, ring(), (None, 3)), ({"kind": "moons"}, moons(), (None, 1)),
             (uneven, Mixture(*(torch.tensor(uneven[k], dtype=torch.float64) for k in ("means", "variance", "weights", "labels"))), (None, 0, 1)),
             ({"means": points.tolist(), "variance": 0}, dataset_denoiser(points, schedule), (None,))]
    found = []
    for description, mixture, classes in asked:
        for y in classes:
            eps = mixture.denoiser(schedule, y) if isinstance(mixture, Mixture) else mixture
            found.append({**description, "y": y, "x": flat(x), "eps": [[t, flat(eps(x, t))] for t in (1, 50, 500, 1000)]})
    return found


def some_walks() -> list[dict]:
    """Whole walks on the ring with its exact, guided denoiser: each sampler, both directions."""
    schedule, mixture, x = schedules.cosine(1000), ring(), normal(6, 20, 2)
    guided = classifier_free(mixture.denoiser(schedule, 2), mixture.denoiser(schedule), 2.5)
    plain, times, z = mixture.denoiser(schedule), timesteps(1000, 12), normal(7, 1001, 20, 2)
    walks = {
        "ddim": sample(guided, schedule, x, steps=12), "2m": sample(guided, schedule, x, dpm_solver_2m(), steps=12),
        "ddpm small": sample(guided, schedule, x, ddpm_step, steps=12, noise=lambda t: z[t]),
        "ddpm large": sample(guided, schedule, x, partial(ddpm_step, variance="large"), steps=12, noise=lambda t: z[t]),
        "ddim 0.5": sample(guided, schedule, x, partial(ddim_step, eta=0.5), steps=12, noise=lambda t: z[t]),
        "invert": invert(plain, schedule, 0.4 * x, 12),
    }
    return [{"x": flat(x), "z": {t: flat(z[t]) for t in times}}, *({"name": name, "x_t": [flat(state.x_t) for state in walk]} for name, walk in walks.items())]


def the_network() -> dict:
    """The U-Net's own output in float32, and digits walked from noise: classes, guided and clipped, as `DDPM.sample` does it.

    The walks are in float64: at T, where √ᾱ_T is 5e-5, x̂_0 makes 20,000 of every rounding, and float32 against float32 would compare two roundings."""
    model, x = DDPM.load("digits"), normal(8, 2, 1, 8, 8).float()
    outputs = []
    for t in (1, 300, 1000):
        with torch.no_grad():
            outputs.append({"t": t, "y": [3, 10], "out": flat(model.net(x, torch.full((2,), t), torch.tensor([3, 10])))})
    model, x = model.double(), x.double()
    y, times = torch.tensor([7]), timesteps(1000, 20)
    eps, z = model.denoiser(y, scale=2.0), normal(9, 1001, 1, 1, 8, 8)
    steps = {"ddim": ddim_step, "ddim 0.5": partial(ddim_step, eta=0.5), "2m": dpm_solver_2m()}
    walks = {name: sample(eps, model.schedule, x[:1], step, times=times, noise=lambda t: z[t]) for name, step in steps.items()}
    single = denoiser(model.net, model.schedule, y, "v")
    return {"x": flat(x), "outputs": outputs, "z": {t: flat(z[t]) for t in times}, "eps": flat(single(x[:1], 400).detach()),
            "walks": [{"name": name, "x_t": [flat(state.x_t) for state in walk]} for name, walk in walks.items()]}


def numbers() -> dict:
    T_S = [(1000, 1000), (1000, 30), (1000, 7), (50, 50), (17, 5), (4, 3), (1, 1)]
    even_in_log_snr = [("cosine", 1000, 1), ("cosine", 1000, 2), ("cosine", 1000, 35), ("linear", 200, 20), ("flow", 50, 50), ("sigmoid", 1000, 10)]
    return {
        "schedules": some_schedules(), "timesteps": [[T, S, timesteps(T, S)] for T, S in T_S], "steps": some_steps(), "mixtures": some_mixtures(),
        "walks": some_walks(), "network": the_network(),
        "timesteps_in_log_snr": [[name, T, S, timesteps_in_log_snr(schedules.by_name(name, T), S)] for name, T, S in even_in_log_snr],
    }


def main(path: str | None = None) -> None:
    if path:
        Path(path).write_text(json.dumps(numbers()), encoding="utf-8")
    else:
        for name, write in FILES.items():
            (HERE / name).write_text(write(), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
