"""Our model in the layout of diffusers, and back: the same network under two sets of names.

So the official weights (google/ddpm-cifar10-32 and its kin) run in `UNet`, and ours run there; `tests/weights/test_diffusers_layout.py` 
compares outputs and images.
A model there is a folder:  model_index.json,  scheduler/scheduler_config.json,  unet/config.json and unet/diffusion_pytorch_model.safetensors.
diffusers itself is not needed.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..checks import integer
from ..schedules import SCHEDULES, Schedule, by_name, cosine, from_betas, linear, quadratic
from ..unet import UNet, UNetConfig
from .files import write

NAMES = [                                                       # ours, theirs; {} is the same number in both
    ("time.0", "time_embedding.linear_1"), ("time.2", "time_embedding.linear_2"), ("label", "class_embedding"),
    ("norm_out", "conv_norm_out"),
    ("down.{}.resample.conv", "down_blocks.{}.downsamplers.0.conv"), ("up.{}.resample.conv", "up_blocks.{}.upsamplers.0.conv"),
    ("down.{}.blocks.{}.attention.", "down_blocks.{}.attentions.{}."), ("up.{}.blocks.{}.attention.", "up_blocks.{}.attentions.{}."),
    ("middle.{}.attention.", "mid_block.attentions.{}."),
    ("down.{}.blocks.{}.", "down_blocks.{}.resnets.{}."), ("up.{}.blocks.{}.", "up_blocks.{}.resnets.{}."), ("middle.{}.", "mid_block.resnets.{}."),
]
ENDS = [(".emb.", ".time_emb_proj."), (".shortcut.", ".conv_shortcut."), (".norm.", ".group_norm."), (".out.", ".to_out.0.")]


def to_diffusers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A `UNet` state dict under diffusers' names; our one qkv matrix becomes their three."""
    theirs: dict[str, Tensor] = {}
    for name, value in weights.items():
        new = _rename(name, NAMES, ENDS)
        if ".qkv." in new:
            theirs |= {new.replace(".qkv.", f".to_{which}."): part.clone() for which, part in zip("qkv", value.chunk(3))}
        else:
            theirs[new] = value
    return theirs


def from_diffusers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The way back: a `UNet2DModel` state dict under our names."""
    ours = {}
    for name, value in weights.items():
        if (part := re.search(r"\.(to_[qkv]|query|key|value)\.", name)) is None:
            new = name.replace(".proj_attn.", ".to_out.0.")     # as old checkpoints call it
            ours[_rename(new, [(b, a) for a, b in NAMES], [(b, a) for a, b in ENDS])] = value
        elif part[1] in ("to_q", "query"):
            old = part[1] == "query"
            three = [name.replace(part[0], f".{p}.") for p in (("query", "key", "value") if old else ("to_q", "to_k", "to_v"))]
            if lost := set(three) - weights.keys():
                raise ValueError(f"there is {name}, but no {', '.join(sorted(lost))}: the three belong together")
            ours[_rename(name.replace(part[0], ".qkv."), [(b, a) for a, b in NAMES], [])] = torch.cat([weights[n] for n in three])
    return ours


def diffusers_config(config: UNetConfig, image_size: int) -> dict:
    """The arguments of `UNet2DModel` that build the same network."""
    levels, image_size = range(len(config.mults)), integer(image_size, "image_size")
    kind = ["Attn" if level in config.attention else "" for level in levels]
    return {
        "sample_size": image_size, "in_channels": config.channels, "out_channels": config.channels, "layers_per_block": config.blocks,
        "block_out_channels": tuple(config.base * m for m in config.mults), "dropout": config.dropout,
        "down_block_types": tuple(f"{k}DownBlock2D" for k in kind), "up_block_types": tuple(f"{k}UpBlock2D" for k in reversed(kind)),
        "attention_head_dim": None, "norm_num_groups": config.groups, "norm_eps": 1e-6, "downsample_padding": 0,
        "flip_sin_to_cos": False, "freq_shift": 1, "num_class_embeds": config.num_classes + 1 if config.num_classes else None,
    }


FIXED = {                                                       # other arguments of `UNet2DModel`, whose defaults our network has
    "center_input_sample": False, "time_embedding_type": "positional", "time_embedding_dim": None, "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1, "downsample_type": "conv", "upsample_type": "conv", "act_fn": "silu", "attn_norm_num_groups": None,
    "resnet_time_scale_shift": "default", "add_attention": True, "class_embed_type": None,
}
DEFAULTS = {                                                    # theirs, where a config.json leaves an argument out
    "sample_size": None, "in_channels": 3, "out_channels": 3, "layers_per_block": 2, "block_out_channels": (224, 448, 672, 896), "dropout": 0.0,
    "down_block_types": ("DownBlock2D", *["AttnDownBlock2D"] * 3), "up_block_types": (*["AttnUpBlock2D"] * 3, "UpBlock2D"),
    "attention_head_dim": 8, "norm_num_groups": 32, "norm_eps": 1e-5, "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0,
    "num_class_embeds": None, **FIXED,
}


def unet_config(theirs: dict) -> UNetConfig:
    """The way back: what a `UNet2DModel`'s config.json describes.  ValueError, with every reason, if that is another network than Ho's.

    num_class_embeds is num_classes + 1: its last row is the null label.
    """
    c: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in (DEFAULTS | theirs).items()}
    widths, levels = c["block_out_channels"], [i for i, kind in enumerate(c["down_block_types"]) if kind == "AttnDownBlock2D"]
    if all(widths[level] == c["attention_head_dim"] for level in [*levels, -1]):
        c["attention_head_dim"] = None                          # one head, by another name
    ours = UNetConfig(c["in_channels"], widths[0], tuple(width // widths[0] for width in widths), c["layers_per_block"], tuple(levels),
                      None if c["num_class_embeds"] is None else c["num_class_embeds"] - 1, c["dropout"], c["norm_num_groups"])
    same = diffusers_config(ours, 1) | FIXED | {"sample_size": c["sample_size"]}            # any size will do
    if differ := [f"{name} is {c[name]!r} and would have to be {value!r}" for name, value in same.items() if c[name] != value]:
        if c["out_channels"] == 2 * c["in_channels"]:
            differ.append("twice as many channels mean that it predicts its variance too")
        raise ValueError(f"this is another network than Ho's: {'; '.join(differ)}")
    return ours


# Schedules.

PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}           # ours, theirs


def diffusers_scheduler(schedule: Schedule, predict: str, clip: bool) -> dict:
    """The arguments of `DDPMScheduler` that make the same walk: our β, times spaced as ours, "small" variance."""
    if predict not in PREDICTIONS:
        raise ValueError(f"predict is {predict!r}; diffusers' DDPMScheduler has {', '.join(PREDICTIONS)} only")
    return {
        "num_train_timesteps": schedule.T, "trained_betas": schedule.beta[1:].tolist(), "prediction_type": PREDICTIONS[predict],
        "clip_sample": clip, "variance_type": "fixed_small", "timestep_spacing": "trailing",
    }


def schedule_of(theirs: dict) -> Schedule:
    """The way back: the ᾱ that a scheduler_config.json describes, if it is one of the three curves that both have, or a list of betas."""
    T, first, last = theirs.get("num_train_timesteps", 1000), theirs.get("beta_start", 1e-4), theirs.get("beta_end", 0.02)
    if theirs.get("rescale_betas_zero_snr"):
        raise ValueError("rescale_betas_zero_snr is true: it makes ᾱ_T = 0, from which no ε can be read; ours ends just above 0")
    if theirs.get("trained_betas") is not None:
        return from_betas(theirs["trained_betas"])
    match theirs.get("beta_schedule", "linear"):
        case "linear":            return linear(T, first * T / 1000, last * T / 1000)           # ours multiplies by 1000/T
        case "scaled_linear":     return quadratic(T, first * T / 1000, last * T / 1000)
        case "squaredcos_cap_v2": return cosine(T)
        case other:
            raise ValueError(f"beta_schedule is {other!r}; ours has linear, scaled_linear (our quadratic), squaredcos_cap_v2 (our cosine), "
                             "and any list of trained_betas")


# Folders.

WEIGHTS = "diffusion_pytorch_model.safetensors"


def export(model: Any, folder: str | Path) -> Path:
    """Write a model as a folder that diffusers opens:  DDPMPipeline.from_pretrained(folder), or UNet2DModel for one with labels."""
    net = getattr(model, "net", None)
    if not isinstance(net, UNet):
        raise ValueError(f"model is a {type(model).__name__}, its network a {type(net).__name__}; diffusers' layout has a place for a DDPM with a UNet only")
    folder, config = Path(folder), model.config
    described = {                                               # before anything is written: not every model of ours has a place there
        "unet/config.json": {"_class_name": "UNet2DModel", **diffusers_config(net.config, config.image_size)},
        "scheduler/scheduler_config.json": {"_class_name": "DDPMScheduler", **diffusers_scheduler(model.schedule, config.predict, config.clip)},
        "model_index.json": {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]},
    }
    write(folder / "unet" / WEIGHTS, to_diffusers(net.state_dict()), "weights in diffusers' layout", {})
    for name, content in described.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
    return folder


def read(folder: str | Path) -> tuple[dict, Schedule | None, dict[str, Tensor]]:
    """What `DDPM.load` needs of such a folder: the arguments of `DDPMConfig`; the schedule, if it is none that has a name; the weights.

    All files may also lie in one folder, as google/ddpm-cifar10-32's do.  Without a scheduler it is DDPM's own: linear, ε, clipped.
    Whether σ is small or large (their variance_type) is an option of our `sample`, and no part of a model.
    """
    folder = Path(folder)
    index, net = _json(folder, "model_index.json"), _json(folder, "unet/config.json", "config.json")
    plan = _json(folder, "scheduler/scheduler_config.json", "scheduler_config.json")
    if net is None:
        raise FileNotFoundError(f"{folder} is no model in diffusers' layout: it has neither unet/config.json nor config.json.  "
                                f"The weights of a run are a file in its folder: {folder / 'model.safetensors'}")
    try:
        if others := {name for name in index or {} if name[0] != "_"} - {"unet", "scheduler"}:
            raise ValueError(f"it is a pipeline with {', '.join(sorted(others))}; ours has a unet and a scheduler only")
        settings, schedule = _settings(net, plan or {})
    except ValueError as error:
        raise ValueError(f"{folder} cannot be loaded: {error}") from None
    path = folder / ("unet" if (folder / "unet/config.json").is_file() else "") / WEIGHTS
    if not path.is_file():
        pickled = path.with_suffix(".bin")
        raise FileNotFoundError(f"there is no file {path}" + (
            f"; {pickled.name} is a pickle, which is never opened here: convert it by diffusers, UNet2DModel.from_pretrained(…).save_pretrained(…)"
            if pickled.is_file() else ""))
    try:
        return settings, schedule, from_diffusers(load_file(path))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}): it was cut short, or is something else") from None


def _settings(net: dict, plan: dict) -> tuple[dict, Schedule | None]:
    """The arguments of `DDPMConfig`, and the schedule, if it has no name."""
    for config, allowed in ((net, ("UNet2DModel",)), (plan, ("DDPMScheduler", "DDIMScheduler"))):
        if (kind := config.get("_class_name", allowed[0])) not in allowed:
            raise ValueError(f"it has a {kind}; ours is {' or '.join(allowed)}")
    unet, size = unet_config(net), net.get("sample_size")
    size = size[0] if isinstance(size, list) and len(set(size)) == 1 else size
    if not isinstance(size, int):
        raise ValueError(f"sample_size is {size!r}; it must be one number, of a square image")
    predict = {theirs: ours for ours, theirs in PREDICTIONS.items()}.get(plan.get("prediction_type", "epsilon"))
    if predict is None:
        raise ValueError(f"prediction_type is {plan['prediction_type']!r}; ours are {', '.join(PREDICTIONS.values())}")
    if (variance := plan.get("variance_type", "fixed_small")).startswith("learned"):
        raise ValueError(f"variance_type is {variance!r}; our variances are fixed: `sample` takes small or large")
    clip = plan.get("clip_sample", True)
    if plan.get("thresholding") or (clip and plan.get("clip_sample_range", 1) != 1):
        raise ValueError("it keeps x̂_0 in other bounds (thresholding, clip_sample_range) than ours, which are [-1, 1]")
    schedule = schedule_of(plan)
    name = next((n for n in SCHEDULES if torch.allclose(by_name(n, schedule.T).alpha_bar, schedule.alpha_bar, rtol=1e-9, atol=0)), None)
    settings = {"image_size": size, "channels": unet.channels, "timesteps": schedule.T, "schedule": name or "custom", "predict": predict,
                "clip": clip, "num_classes": unet.num_classes, "unet": unet}
    return settings, None if name else schedule


def _json(folder: Path, *names: str) -> dict | None:
    """The first of these files that is there."""
    for path in (folder / name for name in names):
        if path.is_file():
            try:
                return json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{path} is no JSON: {error}") from None
    return None


def _rename(name: str, names: list[tuple[str, str]], ends: list[tuple[str, str]]) -> str:
    for old, new in names:
        pattern = "^" + re.escape(old).replace(r"\{\}", r"(\d+)")
        if re.match(pattern, name):
            name = re.sub(pattern, new.replace("{}", r"\1", 1).replace("{}", r"\2", 1), name)
            break
    for old, new in ends:
        name = name.replace(old, new)
    return name
