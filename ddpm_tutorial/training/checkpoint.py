"""A run on disk: written whole or not at all, the last two kept, nothing ever unpickled."""

import os
import warnings
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checks import described
from ..ddpm import DDPM, DDPMConfig
from ..schedules import Schedule
from ..weights.files import load_weights, read, write
from .loop import TrainConfig, TrainState


def save(state: TrainState, path: str | Path) -> Path:
    """Write the whole run to one file: weights, average, optimizer; configs, step and scaler in the header.

    The checkpoint that was there before is kept beside it, as `previous(path)`.
    """
    if not isinstance(state, TrainState):
        raise TypeError(f"state is {described(state)}; it must be a TrainState (a model saves itself: model.save)")
    path = Path(path)
    moments = state.optimizer.state_dict()["state"]
    tensors = {f"net.{k}": v for k, v in state.model.net.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in state.ema.state_dict().items()}
    tensors |= {f"optimizer.{i}.{k}": v for i, values in moments.items() for k, v in values.items()}
    tensors |= {"losses": torch.tensor(state.losses, dtype=torch.float64), "loss_by_time": state.loss_by_time}
    if state.model.config.schedule == "custom":
        tensors["alpha_bar"] = state.model.schedule.alpha_bar
    header = {"model": asdict(state.model.config), "net": type(state.model.net).__name__, "train": asdict(state.config), "step": state.step,
              "scaler": state.scaler.state_dict()}
    new = write(_beside(path, "new"), tensors, "checkpoint", header)
    if path.exists():
        os.replace(path, previous(path))                        # a crash here leaves `new`, which `resume` finds
    os.replace(new, path)
    for torn in path.parent.glob(f".{new.name}.*"):             # what a killed process was writing
        torn.unlink()
    return path


def previous(path: str | Path) -> Path:
    """Where the checkpoint before the last one is."""
    return _beside(path, "previous")


def resume(path: str | Path, where: torch.device | str = "cpu", net: nn.Module | None = None) -> TrainState:
    """The run that `save` wrote, on a device and ready for `train`.  A model with your own network needs that network: net=…

    Where the file is damaged or missing, the newest one beside it is taken, with a warning that says so.
    """
    try:
        tensors, header = read(path, "checkpoint")
    except (ValueError, FileNotFoundError) as error:
        for other in (_beside(path, "new"), previous(path)):
            with suppress(ValueError, FileNotFoundError):
                tensors, header = read(other, "checkpoint")
                break
        else:
            raise
        warnings.warn(f"{error}. Going on from the checkpoint beside it, {other}, step {header['step']}", stacklevel=2)
    if header["net"] != "UNet" and net is None:
        raise ValueError(f"{path} is a run of your own network {header['net']}: build it, and pass it as net=…")
    schedule = Schedule(tensors["alpha_bar"]) if "alpha_bar" in tensors else None
    model = DDPM(DDPMConfig(**header["model"]), net, schedule).to(where)
    state = TrainState(model, TrainConfig(**header["train"]), header["step"], tensors["losses"].tolist(), tensors["loss_by_time"])
    load_weights(state.model.net, _part(tensors, "net."), path)
    load_weights(state.ema, _part(tensors, "ema."), path)
    parameters, moments = list(model.net.parameters()), defaultdict[int, dict[str, Tensor]](dict)
    for key, value in _part(tensors, "optimizer.").items():
        i, name = key.split(".", 1)
        parameter = parameters[int(i)]
        if value.shape == parameter.shape:                      # laid out in memory like its parameter: the fused AdamW takes that for granted
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        moments[int(i)][name] = value
    state.optimizer.load_state_dict({"state": moments, "param_groups": state.optimizer.state_dict()["param_groups"]})
    if header["scaler"]:
        state.scaler.load_state_dict(header["scaler"])
    return state


def _beside(path: str | Path, what: str) -> Path:
    return Path(path).with_name(f"{Path(path).stem}-{what}{Path(path).suffix}")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
