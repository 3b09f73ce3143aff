"""Where to train: the device, what its layers compute in, and how several processes share the work."""

import torch
import torch.distributed as dist
from torch import Tensor


def device(name: str | None = None) -> torch.device:
    """The device of this name; without one the best at hand: a CUDA GPU, an Apple GPU, or the CPU."""
    there = [kind for kind, here in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()), ("cpu", True)) if here]
    if name not in (None, *there):
        raise ValueError(f"PyTorch finds no device {name!r} on this machine; choose {' or '.join(there)}")
    return torch.device(name or there[0])


def best_precision(where: torch.device) -> str:
    """bfloat16 where it is native (a CPU may have it too), float16 on older GPUs, else float32."""
    if where.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)     # no public name for it yet
    return "bfloat16" if where.type == "cpu" and native() else "float32"


def processes() -> tuple[int, int]:
    """Which process this is, and of how many."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def gathered(x: Tensor) -> Tensor:
    """What every process holds, one after another."""
    if processes()[1] == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(processes()[1])]
    dist.all_gather(parts, x)
    return torch.cat(parts)
