"""Where to train: the device, what its layers compute in, and how several processes share the work."""

import torch
import torch.distributed as dist
from torch import Tensor


def device() -> torch.device:
    """The best device at hand: a CUDA GPU, an Apple GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


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
