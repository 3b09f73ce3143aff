"""A network as an ONNX file, and such a file as a denoiser.

ONNX is a graph of arithmetic that needs no Python.  ONNX Runtime runs it on a CPU, and for a single image or a few, where most of PyTorch's time goes into
getting from one small operation to the next, several times as fast.  What the graph does not say (schedule, prediction, clipping, class names) is in the
file's metadata, under "ddpm_tutorial".
"""

import json
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..ddpm import DDPM, DDPMConfig
from ..forward import NetDenoiser
from ..schedules import Schedule, by_name
from .files import configured, unwrapped

MISSING = "{} is not installed: python -m pip install onnx onnxscript onnxruntime"


def export_onnx(model: DDPM, path: str | Path) -> Path:
    """Write the model's network: inputs x_t (B, C, H, W), t (B,) and, with classes, y (B,), for any B; one output, what it predicts."""
    try:
        import onnxscript  # noqa: F401 (torch.onnx asks for it deep inside)
    except ImportError:
        raise ImportError(MISSING.format("onnxscript")) from None
    names = ["x_t", "t"] + ["y"] * (model.config.num_classes is not None)
    inputs = (torch.zeros(2, *model.shape), *torch.ones(len(names) - 1, 2, dtype=torch.int64))
    program = torch.onnx.export(deepcopy(unwrapped(model.net)).cpu().eval(), inputs, input_names=names, output_names=["out"], dynamo=True, verbose=False,
                                dynamic_shapes=tuple({0: torch.export.Dim.DYNAMIC} for _ in names))
    header: dict[str, Any] = {"config": asdict(model.config)}
    if model.config.schedule == "custom":
        header["alpha_bar"] = model.schedule.alpha_bar.tolist()
    program.model.metadata_props["ddpm_tutorial"] = json.dumps(header)
    program.save(path)
    return Path(path)


def onnx_denoiser(path: str | Path, y: Tensor | None = None) -> NetDenoiser:
    """The network in this file as a denoiser like every other: (x_t, t) → ε̂, for labels y (B,) or, without them, the null label.

    Its schedule is `.schedule`; `guidance.clipped` clips it.  It runs on the CPU, wherever x_t is, and passes no gradient on.
    """
    session, header = _opened(Path(path))
    config = configured(DDPMConfig, header.get("config"), path)
    schedule = Schedule(torch.tensor(header["alpha_bar"], dtype=torch.float64)) if "alpha_bar" in header else by_name(config.schedule, config.timesteps)

    def net(x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        feed = {"x_t": x_t.detach().float(), "t": t.long()}
        if config.num_classes is not None:
            feed["y"] = torch.full_like(t, config.num_classes) if y is None else y.long()
        out, = session.run(None, {name: value.cpu().numpy() for name, value in feed.items()})
        return torch.from_numpy(out).to(x_t)

    return NetDenoiser(net, schedule, y, config.predict)


def _opened(path: Path):
    try:
        import onnxruntime
    except ImportError:
        raise ImportError(MISSING.format("ONNX Runtime")) from None
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; `python -m ddpm_tutorial export WEIGHTS --onnx FILE` writes one")
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session, json.loads(session.get_modelmeta().custom_metadata_map["ddpm_tutorial"])
    except Exception as error:                                  # its errors have no class in common but this one
        raise ValueError(f"{path} is no whole ONNX file of ddpm_tutorial ({type(error).__name__}: {error})") from None
