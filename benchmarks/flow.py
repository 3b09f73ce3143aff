"""Flow matching beside v-prediction: the digits' recipe twice, the same network, steps, seeds and images; only path and prediction differ.

    python benchmarks/flow.py --steps 300 --seeds 3

Prints, for each seed and number of calls, the share of samples that the judge sees as asked for, and the Fréchet distance above its floor; then the
paired differences, flow minus v.
"""

import argparse
from dataclasses import replace

import torch

from ddpm_tutorial import DDPM, TrainState, data, train
from ddpm_tutorial.evaluation import load_classifier, metrics
from ddpm_tutorial.training import RECIPES
from ddpm_tutorial.weights import PRETRAINED

WAYS = {"v, cosine": {"schedule": "cosine", "predict": "v"}, "velocity, flow": {"schedule": "flow", "predict": "velocity"}}
CALLS, N = (5, 10, 20), 500


def main(steps: int, seeds: int) -> None:
    digits, test = data.load("digits"), data.load("digits", "test")
    judge, _ = load_classifier(PRETRAINED["digits"].with_name("digits-classifier.safetensors"))
    real = metrics.features(judge, data.normalise(test.images))
    floor = metrics.frechet_distance(metrics.features(judge, data.normalise(digits.images[metrics.per_class(digits.y, N // 10)])), real)
    config, how = RECIPES["digits"]
    y, above = torch.arange(10).repeat(N // 10), {}
    print("| seed | | " + " | ".join(f"{calls} calls" for calls in CALLS) + " |\n|---|---|" + "---|" * len(CALLS))
    for seed in range(seeds):
        for name, change in WAYS.items():
            torch.manual_seed(seed)
            state = TrainState(DDPM(replace(config, **change)), replace(how, steps=steps, seed=seed))
            for _ in train(state, data.normalise(digits.images), digits.y):
                pass
            cells = []
            for calls in CALLS:
                x = state.averaged_model().sample(N, y, "ddim", calls, seed=1)
                above[name, seed, calls] = metrics.frechet_distance(metrics.features(judge, x), real) - floor
                cells.append(f"{metrics.accuracy(judge, x, y):.1%}, {above[name, seed, calls]:.2f}")
            print(f"| {seed} | {name} | " + " | ".join(cells) + " |", flush=True)
    for calls in CALLS:
        differences = [above["velocity, flow", seed, calls] - above["v, cosine", seed, calls] for seed in range(seeds)]
        print(f"{calls} calls: flow minus v in distance, seed by seed: " + ", ".join(f"{d:+.2f}" for d in differences))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    main(args.steps, args.seeds)
