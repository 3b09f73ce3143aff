"""The measuring parts of gpu.sh:  python benchmarks/gpu.py machine | mnist | cifar | digits.

Seconds are those of training alone, after a few steps that load everything.  With TINY=1 in the environment all is small, and runs on any machine.
"""

import argparse
import os
import sys
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from ddpm_tutorial import DDPM, TrainState, UNet, UNetConfig, data, train
from ddpm_tutorial.evaluation import load_classifier, metrics
from ddpm_tutorial.training import RECIPES, best_precision, device
from ddpm_tutorial.weights import PRETRAINED

TINY = bool(os.environ.get("TINY"))
WHERE = device()
LENGTHS = {"digits": (250, 500, 1000, 2000), "mnist": (500, 1000, 2000, 4000)}         # steps; the learning rate falls to 0, so each is a run of its own
GOAL = 0.99


def now() -> float:
    if WHERE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(work, times: int, before: int = 2) -> float:
    """Of one call, after some that load and compile."""
    for _ in range(before):
        work()
    began = now()
    for _ in range(times):
        work()
    return (now() - began) / times


def machine(args) -> None:
    name = torch.cuda.get_device_name() if WHERE.type == "cuda" else f"no CUDA GPU ({WHERE})"
    print(f"{name}; torch {torch.__version__}, CUDA {torch.version.cuda}; best precision: {best_precision(WHERE)}")
    if WHERE.type != "cuda" and not TINY:
        sys.exit("gpu.sh: there is no CUDA GPU on this machine; TINY=1 bash benchmarks/gpu.sh tries the script itself")


def recognised(name: str, batch: int, folder: Path | None = None) -> None:
    """How long it takes until the judge sees 99 % of guided samples as what they were asked to be."""
    images, y, _ = data.load(name, folder=folder)
    judge, _ = load_classifier(PRETRAINED[name].with_name(f"{name}-classifier.safetensors"))
    config, how = RECIPES[name]
    if TINY:
        config, how, batch = replace(config, unet=replace(config.unet, base=8, groups=4)), replace(how, warmup=1), 4
    wanted = torch.arange(10).repeat(2 if TINY else 100)
    for steps in (2, 3) if TINY else (5, *LENGTHS[name]):
        torch.manual_seed(0)
        state, began = TrainState(DDPM(config).to(WHERE), replace(how, steps=steps, batch=batch)), now()
        deque(train(state, images, y, transform=data.normalise), maxlen=0)
        took = now() - began
        if steps == 5:                                          # what is loaded with the first steps
            continue
        samples = state.averaged_model().sample(len(wanted), wanted, "dpm++", 2 if TINY else 20, scale=2.0, seed=1)
        agreement = metrics.accuracy(judge.to(WHERE), samples, wanted.to(WHERE))
        print(f"{name}: {steps} steps of {batch} in {state.config.precision}: {took:.1f} s, {steps * batch / took:,.0f} images/s, agreement {agreement:.3f}",
              flush=True)
        if agreement >= GOAL:
            return
    print(f"{name}: agreement {GOAL} was not reached")


def mnist(args) -> None:
    if args.data_dir is None:
        return print("left out: no folder with MNIST was named")
    recognised("mnist", 512, args.data_dir)


def digits(args) -> None:
    recognised("digits", 128)


def cifar(args) -> None:
    """Images/s of training and sampling, and the share of the rate at which large matrices are multiplied that this is (a step is three forward passes)."""
    config, how = RECIPES["cifar10"]
    unet, batch, n = (UNetConfig(channels=3, base=8, mults=(1, 2), blocks=1, groups=4), 2, 256) if TINY else (config.unet, 128, 8192)
    config = replace(config, unet=unet)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        UNet(unet)(torch.empty(1, 3, 32, 32), torch.ones(1, dtype=torch.long))
    work = counter.get_total_flops()
    images = torch.randint(256, (2 * batch, 3, 32, 32), dtype=torch.uint8)
    print(f"{sum(p.numel() for p in UNet(unet).parameters()):,} parameters, {work / 1e9:.2f} GFLOP forward an image, batch {batch}\n")
    print("| | matrix product, TFLOP/s | training, images/s | % of it | sampling: calls × images/s | % of it |\n|---|--:|--:|--:|--:|--:|", flush=True)
    wide = "bfloat16" if TINY or best_precision(WHERE) == "bfloat16" else "float16"
    for precision, compiled, last in (("float32", False, False), (wide, False, False), (wide, False, True), (wide, not TINY, False)):
        dtype = getattr(torch, precision)
        a = torch.randn(n, n, device=WHERE, dtype=dtype)
        rate = 2 * n**3 / seconds(lambda a=a: a @ a, 5)
        torch.compiler.reset()
        state = TrainState(DDPM(config).to(WHERE), replace(how, steps=10**6, batch=batch, precision=precision, compile=compiled))
        if last:
            state.model.net.to(memory_format=torch.channels_last)
        steps = train(state, images, transform=data.normalise)
        training = batch / seconds(lambda steps=steps: next(steps), 2 if TINY else 10, 3)
        net = torch.compile(state.model.net.eval()) if compiled else state.model.net.eval()
        x, t = torch.randn(batch, 3, 32, 32, device=WHERE), torch.full((batch,), 500, device=WHERE)
        with torch.no_grad(), torch.autocast(WHERE.type, dtype, enabled=precision != "float32"):
            sampling = batch / seconds(lambda net=net, x=x, t=t: net(x, t), 2 if TINY else 20)
        name = precision + ", compiled" * compiled + ", channels_last" * last
        shares = [f"{100 * times * work * speed / rate:.0f}" for times, speed in ((3, training), (1, sampling))]
        print(f"| {name} | {rate / 1e12:.1f} | {training:,.0f} | {shares[0]} | {sampling:,.0f} | {shares[1]} |", flush=True)


def main() -> None:
    parts = {"machine": machine, "mnist": mnist, "cifar": cifar, "digits": digits}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--data-dir", type=Path, help="a folder with MNIST, as data.load keeps it")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False     # float32 means float32
    parts[args.part](args)


if __name__ == "__main__":
    main()
