"""Our U-Net's weights in the layout of diffusers' `UNet2DModel`, and back: the same network under two sets of names.

So the official weights (google/ddpm-cifar10-32 and its kin) run in `UNet`, and ours run there; `tests/test_official.py` compares the outputs.
"""

import re

import torch
from torch import Tensor

from .unet import UNetConfig

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
    theirs = {}
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
            three = [weights[name.replace(part[0], f".{p}.")] for p in (("query", "key", "value") if old else ("to_q", "to_k", "to_v"))]
            ours[_rename(name.replace(part[0], ".qkv."), [(b, a) for a, b in NAMES], [])] = torch.cat(three)
    return ours


def diffusers_config(config: UNetConfig, image_size: int) -> dict:
    """The arguments of `UNet2DModel` that build the same network."""
    levels = range(len(config.mults))
    kind = ["Attn" if level in config.attention else "" for level in levels]
    return {
        "sample_size": image_size, "in_channels": config.channels, "out_channels": config.channels, "layers_per_block": config.blocks,
        "block_out_channels": tuple(config.base * m for m in config.mults), "dropout": config.dropout,
        "down_block_types": tuple(f"{k}DownBlock2D" for k in kind), "up_block_types": tuple(f"{k}UpBlock2D" for k in reversed(kind)),
        "attention_head_dim": None, "norm_num_groups": config.groups, "norm_eps": 1e-6, "downsample_padding": 0,
        "flip_sin_to_cos": False, "freq_shift": 1, "num_class_embeds": config.num_classes + 1 if config.num_classes else None,
    }


def _rename(name: str, names: list[tuple[str, str]], ends: list[tuple[str, str]]) -> str:
    for old, new in names:
        pattern = "^" + re.escape(old).replace(r"\{\}", r"(\d+)")
        if re.match(pattern, name):
            name = re.sub(pattern, new.replace("{}", r"\1", 1).replace("{}", r"\2", 1), name)
            break
    for old, new in ends:
        name = name.replace(old, new)
    return name
