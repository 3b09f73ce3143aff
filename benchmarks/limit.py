"""How near is a training step to what this machine can do?

    python benchmarks/limit.py              digits, on one thread, in float32 and in what suits the machine
    python benchmarks/limit.py mnist        the 28×28 recipe
    python benchmarks/limit.py --steps 30   more exactly
    python benchmarks/limit.py --profile    where the rest goes: the step's operations by their share of its time, as torch's profiler saw them

The limit is the time of the step's convolutions and matrix products alone: each one of them, forward and backward, with the same shapes, layout and type,
one after another on random numbers.  No implementation of this network can be faster with the same kernels, neither ours nor anybody else's.  Step and
limit are measured in turns, in processor seconds of one thread, so that other programs cost as little as possible of the truth; the medians are printed.
"""

import argparse
import platform
import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import median
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from ddpm_tutorial import DDPM, TrainState
from ddpm_tutorial.training import RECIPES, best_precision, device, gradient, loop, train

# Of attention on a CPU the softmax is within: one kernel does it all.
PRODUCTS = re.compile("(convolution|mm|addmm|bmm|baddbmm|_scaled_dot_product_.*)(_backward)?")

COLUMNS = ("data", "precision", "products", "ms/step", "images/s", "GFLOP/s of the step", "… of its products", "limit / step", "rest of the network",
           "drawing", "optimizer", "average", "the rest", "outside the network")

OPERATIONS = ("data", "precision", "operation", "calls", "of all time")


class Products(TorchDispatchMode):
    """Writes down each convolution and matrix product, with what is needed to do it again."""

    def __init__(self):
        super().__init__()
        self.calls, self.buffers = [], {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if PRODUCTS.fullmatch(func.overloadpacket.__name__):
            self.calls.append((func, *tree_map_only(Tensor, self._alike, (args, kwargs or {}))))
        return func(*args, **(kwargs or {}))

    def _alike(self, x):
        """Random numbers of the same shape, layout and type; those that are alike share their memory."""
        key = (x.shape, x.stride(), x.dtype)
        if key not in self.buffers:
            self.buffers[key] = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)
            self.buffers[key].normal_() if x.is_floating_point() else self.buffers[key].zero_()
        return self.buffers[key]

    def again(self):
        for func, args, kwargs in self.calls:
            func(*args, **kwargs)


class Clock:
    """Processor seconds within some functions."""

    def __init__(self):
        self.seconds: Counter[str] = Counter()

    def of(self, name, function):
        def timed(*args, **kwargs):
            began = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.process_time() - began
        return timed


def shares(name: str, precision: str, operations) -> None:
    """Of each operation the time that is its own, without what it calls."""
    whole = sum(operation.self_cpu_time_total for operation in operations)
    for operation in sorted(operations, key=lambda operation: -operation.self_cpu_time_total)[:20]:
        print(f"| {name} | {precision} | {operation.key} | {operation.count} | {operation.self_cpu_time_total / whole:.1%} |", flush=True)


def measured(name: str, precision: str, steps: int, profile: bool) -> None:
    config, how = RECIPES[name]
    state = TrainState(DDPM(config).to(device("cpu")), replace(how, steps=10**6, precision=precision))
    images = torch.randint(256, (1000, *state.model.shape), dtype=torch.uint8)
    y, clock, products = torch.arange(1000) % config.num_classes if config.num_classes else None, Clock(), Products()
    state.optimizer.step = clock.of("optimizer", state.optimizer.step)
    state.ema.update_parameters = clock.of("average", state.ema.update_parameters)
    with mock.patch.object(loop, "draw", clock.of("drawing", loop.draw)), mock.patch.object(gradient, "loss", clock.of("forward", gradient.loss)), \
            mock.patch.object(Tensor, "backward", clock.of("backward", Tensor.backward)):
        run = train(state, images, y, transform=lambda x: x.float() / 127.5 - 1)
        for _ in range(3):                                      # the first few are slow
            next(run)
        with products:
            next(run)
        with FlopCounterMode(display=False) as counter:
            next(run)
        if profile:
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
                for _ in range(steps):
                    next(run)
            return shares(name, precision, profiler.key_averages())
        products.again()
        clock.seconds.clear()
        whole, alone = [], []
        for _ in range(steps):
            began = time.process_time()
            next(run)
            between = time.process_time()
            products.again()
            whole.append(between - began), alone.append(time.process_time() - between)
    step, limit, parts = median(whole), median(alone), {part: seconds / sum(whole) for part, seconds in clock.seconds.items()}
    network = parts["forward"] + parts["backward"]
    parts = {"products": limit / step, "rest of the network": network - limit / step} | {
        part: share for part, share in parts.items() if part not in ("forward", "backward")} | {"the rest": 1 - sum(parts.values())}
    work = counter.get_total_flops() / 1e9
    row = [name, precision, len(products.calls), f"{1000 * step:.1f}", f"{how.batch / step:.0f}", f"{work / step:.0f}", f"{work / limit:.0f}",
           f"**{limit / step:.2f}**", *(f"{share:.1%}" for share in list(parts.values())[1:]), f"{1 - network:.1%}"]
    print(f"| {' | '.join(map(str, row))} |", flush=True)


def processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").is_file() else None
    return found[1] if found else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help=f"recipes: {', '.join(RECIPES)}; default digits")
    parser.add_argument("--steps", type=int, default=10, help="steps that are timed")
    parser.add_argument("--profile", action="store_true", help="print the twenty largest operations instead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{processor()}, {torch.backends.cpu.get_cpu_capability()}, one thread, torch {torch.__version__}, medians of {args.steps} steps\n")
    columns = OPERATIONS if args.profile else COLUMNS
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for name in args.data or ["digits"]:
        for precision in dict.fromkeys(("float32", best_precision(device("cpu")))):
            measured(name, precision, args.steps, args.profile)


if __name__ == "__main__":
    main()
