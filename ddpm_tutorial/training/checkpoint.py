"""A run on disk: written whole or not at all, the last two kept, nothing ever unpickled.

A checkpoint is believed only when all of it is as it must be: checksum, names, shapes, types, values.  A moment of another shape would not be an
error in the fused AdamW but a write into somebody else's memory; a moment of another parameter would be no error at all, and the run would go wrong.
"""

import math
import os
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import described, integer
from ..ddpm import DDPM, DDPMConfig
from ..schedules import Schedule
from ..terminal import tidy
from ..weights.files import check_fit, check_unet, configured, load_weights, read, refuse_folder, unwrapped, write
from .state import BANDS, TrainConfig, TrainState

FORMAT = 2                                                      # 2: moments by the parameter's name.  Without a number: by its index, and no checksum
HEADER = {"model", "net", "train", "step", "scaler"}


def save(state: TrainState, path: str | Path) -> Path:
    """Write the whole run to one file: weights, average, optimizer; configs, step and scaler in the header.

    The checkpoint that was there before is kept beside it, as `previous(path)`.
    """
    if not isinstance(state, TrainState):
        raise TypeError(f"state is {described(state)}; it must be a TrainState (a model saves itself: model.save)")
    path, net = refuse_folder(path), unwrapped(state.model.net)
    tensors = {f"net.{k}": v for k, v in net.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in state.ema.state_dict().items()}
    tensors |= {f"optimizer.{name}.{k}": v for name, p in net.named_parameters() for k, v in state.optimizer.state.get(p, {}).items()}
    tensors |= {"losses": torch.tensor(state.losses, dtype=torch.float64), "loss_by_time": state.loss_by_time}
    if state.model.config.schedule == "custom":
        tensors["alpha_bar"] = state.model.schedule.alpha_bar
    header = {"format": FORMAT, "model": asdict(state.model.config), "net": type(net).__name__, "train": asdict(state.config), "step": state.step,
              "scaler": state.scaler.state_dict()}
    new = write(_beside(path, "new"), tensors, "checkpoint", header)
    if path.exists():
        os.replace(path, previous(path))                        # a crash here leaves `new`, which `resume` finds
    os.replace(new, path)
    tidy(path.parent, new.name)
    return path


def previous(path: str | Path) -> Path:
    """Where the checkpoint before the last one is."""
    return _beside(path, "previous")


def resume(path: str | Path, where: torch.device | str = "cpu", net: nn.Module | None = None, **changes: Any) -> TrainState:
    """The run that `save` wrote, on a device and ready for `train`.  A model with your own network needs that network: net=…

    Where the file is damaged or missing, the newest one beside it is taken, with a warning that says so.
    changes: what may be otherwise on another machine: precision, compile, micro.
    """
    if foreign := changes.keys() - {"precision", "compile", "micro"}:
        raise TypeError(f"{', '.join(sorted(foreign))} cannot be changed in the middle of a run; precision, compile and micro can")
    torch.empty(0, device=where)                                # a device that is not there is no fault of the file's
    try:
        return _resumed(path, where, net, changes)
    except (ValueError, FileNotFoundError) as error:
        for other in (_beside(path, "new"), previous(path)):
            try:
                state = _resumed(other, where, net, changes)
            except (ValueError, FileNotFoundError):
                continue
            warnings.warn(f"{error}. Going on from the checkpoint beside it, {other}, step {state.step}", stacklevel=2)
            return state
        raise


def _resumed(path, where, net, changes):
    """One file, checked whole.  Whatever is wrong with it is a ValueError with its name."""
    tensors, header = read(path, "checkpoint")
    try:
        return _state(path, tensors, header, where, net, changes)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:        # also what no check below has foreseen
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path} is no whole checkpoint ({type(error).__name__}: {error})") from error


def _state(path, tensors, header, where, net, changes):
    # The header.
    if (version := header.get("format", 1)) not in (1, FORMAT) or header.keys() - {"format"} != HEADER:
        raise ValueError(f"{path} is of a newer version of ddpm_tutorial, or damaged: format {version!r} with {', '.join(sorted(header))}")
    if header["net"] != "UNet" and net is None:
        raise ValueError(f"{path} is a run of your own network {header['net']}: build it, and pass it as net=…")
    config, how = configured(DDPMConfig, header["model"], path), configured(TrainConfig, header["train"], path)
    step = integer(header["step"], "step", 0)

    # Exactly the tensors that belong to it, before a network is built.
    parts = {name: _part(tensors, f"{name}.") for name in ("net", "ema", "optimizer")}
    own = {"losses": tensors["losses"], "loss_by_time": tensors["loss_by_time"]}
    if config.schedule == "custom":
        own["alpha_bar"] = tensors["alpha_bar"]
    if foreign := tensors.keys() - own.keys() - {f"{part}.{name}" for part, values in parts.items() for name in values}:
        raise ValueError(f"{path} is damaged, or of a newer version: it holds {', '.join(sorted(foreign)[:3])}")
    losses, by_time = own["losses"], own["loss_by_time"]
    if losses.dtype != torch.float64 or losses.ndim != 1 or len(losses) > step or not losses.isfinite().all():
        raise ValueError(f"{path} is damaged: its losses are {described(losses)} at step {step}, or not finite")
    if by_time.dtype != torch.float32 or by_time.shape != (BANDS,) or by_time.isinf().any():
        raise ValueError(f"{path} is damaged: its loss_by_time is {described(by_time)}, or not finite")
    if net is None:
        check_unet(config.unet, parts["net"], path)

    # The model and its average.
    model = DDPM(config, net, Schedule(own["alpha_bar"]) if "alpha_bar" in own else None).to(where)
    state = TrainState(model, replace(how, **changes), step, losses.tolist(), by_time)
    unwrapped(model.net).trained_T = model.schedule.T
    check_fit(state.ema.state_dict(), parts["ema"], path, "averaged weights", dtypes=True)
    check_fit(unwrapped(model.net).state_dict(), parts["net"], path, dtypes=True)
    if lost := [name for name, _ in state.ema.named_parameters() if not parts["ema"][name].isfinite().all()]:
        raise ValueError(f"the averaged weights in {path} are not finite: {', '.join(lost[:3])}")
    if not 0 <= parts["ema"]["n_averaged"] <= step:
        raise ValueError(f"{path} is damaged: its average is one of {parts['ema']['n_averaged']} weights after {step} steps")

    # The optimizer and, in float16, its scale.
    moments, scale = _moments(path, header, parts, unwrapped(model.net), step), header["scaler"]
    if scale and (scale.keys() != torch.amp.GradScaler("cpu").state_dict().keys() or not all(0 <= value < math.inf for value in scale.values())
                  or not scale["scale"] > 0):
        raise ValueError(f"{path} is damaged: its scaler is {scale}")

    # All is well: now, and not before, the network that was brought gets its weights.
    load_weights(model.net, parts["net"], path)
    state.ema.load_state_dict(parts["ema"])
    state.optimizer.load_state_dict({"state": moments, "param_groups": state.optimizer.state_dict()["param_groups"]})
    if scale and state.scaler.is_enabled():                     # float16, before and now
        state.scaler.load_state_dict(scale)
    return state


def _moments(path, header, parts, net, step):
    """What AdamW remembers of each parameter, in the order in which the optimizer has them now."""
    parameters = dict(net.named_parameters())
    names, by_name = list(parameters), dict[str, dict[str, Tensor]]()
    for key, value in parts["optimizer"].items():
        name, moment = key.rsplit(".", 1)
        if "format" not in header:
            name = names[int(name)] if name.isdigit() and int(name) < len(names) else name
        by_name.setdefault(name, {})[moment] = value
    if foreign := by_name.keys() - parameters.keys():
        raise ValueError(f"{path} does not fit this network: it has the moments of {', '.join(sorted(foreign)[:3])}")
    moments = {}
    for i, (name, parameter) in enumerate(parameters.items()):
        if name not in by_name:
            # Right for a weight that never had a gradient; and such a weight has never moved, so it is its own average.
            if not torch.equal(parts["net"][name], parts["ema"][f"module.{name}"]):
                raise ValueError(f"{path} is damaged: the moments of {name} are missing")
            continue
        found = by_name[name]
        expected = dict.fromkeys(("exp_avg", "exp_avg_sq"), (parameter.shape, parameter.dtype)) | {"step": (torch.Size(), torch.float32)}
        if {k: (v.shape, v.dtype) for k, v in found.items()} != expected:
            raise ValueError(f"{path} does not fit this network: the moments of {name} {tuple(parameter.shape)} are "
                             f"{', '.join(f'{k} {tuple(v.shape)} {v.dtype}' for k, v in sorted(found.items()))}")
        count, mean, square = found["step"], found["exp_avg"], found["exp_avg_sq"]
        if not (mean.isfinite().all() and square.isfinite().all() and (square >= 0).all() and count == count.round() and 1 <= count <= step):
            raise ValueError(f"{path} is damaged: the moments of {name} hold what is not finite, a negative square, or step {count} of {step}")
        # Laid out in memory like its parameter: the fused AdamW takes that for granted.
        moments[i] = {"step": count} | {k: torch.empty_like(parameter, requires_grad=False).copy_(found[k]) for k in ("exp_avg", "exp_avg_sq")}
    return moments


def _beside(path: str | Path, what: str) -> Path:
    return Path(path).with_name(f"{Path(path).stem}-{what}{Path(path).suffix}")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
