"""Tensors and a JSON header in one safetensors file: written whole or not at all, read whole or not at all, and never unpickled.

A file may be cut short by a full disk, changed by a bad one, written by a newer version, or meant for another network.  What must not happen is
that it is read nevertheless.  So its checksum is compared before anything is believed, and names and shapes before anything is allocated.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

from ..terminal import beside
from ..unet import UNet, UNetConfig

Config = TypeVar("Config")


def unwrapped(net: nn.Module) -> nn.Module:
    """The network itself, out of torch.compile, DataParallel and the like: their names for its weights would fit no other network."""
    while inner := getattr(net, "_orig_mod", None) or (net.module if isinstance(net, nn.DataParallel | DistributedDataParallel) else None):
        net = inner
    return net


def stored(tensors: dict[str, Tensor], half: bool) -> dict[str, Tensor]:
    """Weights as a file is to have them; half: in float16, half the size.  Counters stay what they are; what is not finite is refused."""
    tensors = {k: v.half() if half and v.is_floating_point() else v for k, v in tensors.items()}
    if lost := [k for k, v in tensors.items() if not v.isfinite().all()]:
        raise ValueError(f"the weights {', '.join(lost)} are not finite" + (", or too large for float16: use half=False" if half else ""))
    return tensors


# Writing.

def write(path: str | Path, tensors: dict[str, Tensor], kind: str, header: dict) -> Path:
    """Write tensors, a JSON header and a checksum beside the place, flush, and move them in: a crash leaves the old file or the new one, never half of one.

    Weights that several layers share are stored once.
    """
    path = refuse_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Tensor] = {}
    twins: dict[str, str] = {}                                  # name → the name under which the same memory was stored
    seen: dict[Any, str] = {}
    for name, tensor in tensors.items():
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()) if tensor.numel() else name
        if place in seen:
            twins[name] = seen[place]
        else:
            seen[place], own = name, tensor.detach().cpu().contiguous()
            kept[name] = own.clone() if own.untyped_storage().nbytes() > own.nbytes else own        # of a view into something larger, its own part
    text = json.dumps(header | ({"shared": twins} if twins else {}))
    apart = beside(path)                                        # a folder, as safetensors writes into a temporary file of its own, whose name is not ours
    try:
        apart.mkdir(exist_ok=True)
        save_file(kept, apart / path.name, metadata={"ddpm_tutorial": kind, "header": text, "sha256": checksum(kept, kind, text)})
        with open(apart / path.name, "r+b") as file:            # Windows flushes writable files only
            os.fsync(file.fileno())
        os.chmod(apart / path.name, 0o644)                      # safetensors writes for the owner alone; a class shares its models
        os.replace(apart / path.name, path)
    except SafetensorError as error:                            # such as a full disk
        raise OSError(f"{path} could not be written: {error}") from None
    finally:
        shutil.rmtree(apart, ignore_errors=True)
    return path


def refuse_folder(path: str | Path) -> Path:
    """A folder has a name that a file could have; to write there, it would have to be moved out of the way, with all that is in it."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file, such as {path / 'model.safetensors'}")
    return path


def checksum(tensors: Mapping[str, Tensor], kind: str, header: str) -> str:
    """SHA-256 of all that a file says: kind, header, and of each tensor its name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps([kind, header]).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# Reading.

def read(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict]:
    """What `write` wrote; a missing, cut, changed or foreign file is refused with its name.  (Files of version 0.1 have no checksum.)"""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; `python -m ddpm_tutorial {'classifier' if kind == 'classifier' else 'train'}` writes one, "
                                "and says where")
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            if meta.get("ddpm_tutorial") == kind:
                tensors = {k: file.get_tensor(k).clone() for k in file.keys()}  # copies: Windows replaces no file that is still mapped
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}): it was cut short, or is something else") from None
    if meta.get("ddpm_tutorial") != kind:
        raise ValueError(f"{path} is a safetensors file, but not {kind} of ddpm_tutorial (it says {meta.get('ddpm_tutorial', 'nothing')!r})")
    # A flipped bit may also be in the name of an entry: "sha256" itself, then, would seem not to be there.
    if not {"header"} <= meta.keys() <= {"ddpm_tutorial", "header", "sha256"}:
        raise ValueError(f"{path} is damaged, or of a newer version: its entries are {', '.join(sorted(meta))}")
    if "sha256" in meta and meta["sha256"] != checksum(tensors, kind, meta["header"]):
        raise ValueError(f"{path} is damaged: its checksum is not that of its content")
    try:
        header = json.loads(meta["header"])
        tensors |= {name: tensors[first] for name, first in header.pop("shared", {}).items()}
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged: its header cannot be read ({error!r})") from None
    return tensors, header


def configured(kind: type[Config], values: Mapping[str, Any], path: str | Path) -> Config:
    """A config of this dataclass from a file's header; what it does not know, or cannot have, is named with the file."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{path} is damaged: its {kind.__name__} is {values!r:.100}")
    if unknown := values.keys() - {field.name for field in fields(kind)}:       # type: ignore[arg-type]
        raise ValueError(f"{path} has settings that this version does not know ({kind.__name__}: {', '.join(sorted(unknown))}): "
                         "it is of a newer version of ddpm_tutorial, or damaged")
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} has settings that cannot be: {error}") from None


def check_fit(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: str | Path, what: str = "weights", dtypes: bool = False) -> None:
    """Exactly these names, shapes and kinds of number (dtypes: these types); expected may be on the meta device, where a network takes no memory."""
    def some(names):
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    wrong = [f"without {some(sorted(expected.keys() - weights.keys()))}"] if expected.keys() - weights.keys() else []
    wrong += [f"{some(sorted(weights.keys() - expected.keys()))} which it does not have"] if weights.keys() - expected.keys() else []
    for name in expected.keys() & weights.keys():
        ours, theirs = expected[name], weights[name]
        if ours.shape != theirs.shape:
            wrong.append(f"{name} has shape {tuple(theirs.shape)}, not {tuple(ours.shape)}")
        elif ours.dtype != theirs.dtype if dtypes else ours.is_floating_point() != theirs.is_floating_point():
            wrong.append(f"{name} is {theirs.dtype}, not {ours.dtype}")
    if wrong:
        raise ValueError(f"the {what} in {path} do not fit this network: {some(wrong)}")


def check_unet(config: UNetConfig, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Before a U-Net is built for weights from a file: on the meta device, where a tensor has a shape and takes no memory.

    A file of 476 bytes can ask for any number of gigabytes; it has to bring them along.
    """
    if config.blocks * len(config.mults) > len(weights):        # or building it would already take for ever
        raise ValueError(f"the weights in {path} do not fit this network: there are {len(weights)}, and it has {config.blocks} blocks on each level")
    try:
        with torch.device("meta"), _Blank():
            net = UNet(config)
    except (RuntimeError, OverflowError) as error:
        raise ValueError(f"{path} has settings that cannot be: {str(error).splitlines()[0]}") from None
    check_fit(net.state_dict(), weights, path)


class _Blank(TorchFunctionMode):
    """No normal random numbers for tensors that have no memory: to be told so, torch would load its symbolic half, for two seconds."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") == "normal_":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def load_weights(net: nn.Module, weights: dict[str, Tensor], path: str | Path) -> None:
    """Put weights that came from a file into a network; if they do not fit, or are no numbers, say so, and leave the network as it is."""
    net = unwrapped(net)
    check_fit(net.state_dict(), weights, path)
    learnt = {name for name, _ in net.named_parameters(remove_duplicate=False)}                # a buffer may well hold -∞, such as a mask
    if lost := [name for name, value in weights.items() if name in learnt and not value.isfinite().all()]:
        raise ValueError(f"the weights in {path} are not finite: {', '.join(lost[:3])}")
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit this network: {error}") from None
