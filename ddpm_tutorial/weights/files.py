"""Tensors and a JSON header in one safetensors file, written whole or not at all; nothing is ever unpickled."""

import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


def stored(tensors: dict[str, Tensor], half: bool) -> dict[str, Tensor]:
    """Weights as a file is to have them; half: in float16, half the size.  Counters stay what they are; what is not finite is refused."""
    tensors = {k: v.half() if half and v.is_floating_point() else v for k, v in tensors.items()}
    if lost := [k for k, v in tensors.items() if not v.isfinite().all()]:
        raise ValueError(f"the weights {', '.join(lost)} are not finite" + (", or too large for float16: use half=False" if half else ""))
    return tensors


def write(path: str | Path, tensors: dict[str, Tensor], kind: str, header: dict) -> Path:
    """Write tensors and a JSON header beside the place, flush, and move them in: a crash leaves the old file or the new one, never half of one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, beside, metadata={"ddpm_tutorial": kind, "header": json.dumps(header)})
        with open(beside, "r+b") as file:                       # Windows flushes writable files only
            os.fsync(file.fileno())
        os.chmod(beside, 0o644)                                 # safetensors writes for the owner alone; a class shares its models
        os.replace(beside, path)
    except SafetensorError as error:                            # such as a full disk
        raise OSError(f"{path} could not be written: {error}") from None
    finally:
        beside.unlink(missing_ok=True)
    return path


def read(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict]:
    """What `write` wrote; a missing, cut or foreign file is refused with its name."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; `python -m ddpm_tutorial {'classifier' if kind == 'classifier' else 'train'}` writes one, "
                                "and says where")
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {k: file.get_tensor(k).clone() for k in file.keys()}      # copies: Windows replaces no file that is still mapped
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}): it was cut short, or is something else") from None
    if meta.get("ddpm_tutorial") != kind:
        raise ValueError(f"{path} is a safetensors file, but not {kind} of ddpm_tutorial (it says {meta.get('ddpm_tutorial', 'nothing')!r})")
    return tensors, json.loads(meta["header"])


def load_weights(net: nn.Module, weights: dict[str, Tensor], path: str | Path) -> None:
    """Put weights that came from a file into a network; if they do not fit, say so."""
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit this network: {error}") from None
