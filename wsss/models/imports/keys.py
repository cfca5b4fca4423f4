"""Key names: every key of a checkpoint is translated or left out by name, none passes silently."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from wsss.errors import UserError

# A pattern of the whole key, and what it becomes: a template or a function of the match; None
# leaves the tensor out.
Rule = tuple[str, str | Callable[[re.Match[str]], str] | None]


def translate(state: Mapping[str, Tensor], rules: Sequence[Rule], where: str) -> dict[str, Tensor]:
    """Rename every key by the first rule that matches all of it.

    Several keys may become one, as a network that registers a layer twice saves it twice; their
    tensors must then be equal.

    Raises:
        UserError: a key that no rule matches, or two unequal tensors for one name.
    """
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    unknown = []
    for key, value in state.items():
        for pattern, target in rules:
            match = re.fullmatch(pattern, key)
            if match is None:
                continue
            if target is None:
                break
            name = target(match) if callable(target) else match.expand(target)
            if name in renamed and not torch.equal(renamed[name], value):
                raise UserError(
                    f"{where}: {origin[name]} and {key} should hold the same tensor and do not"
                )
            renamed[name], origin[name] = value, origin.get(name, key)
            break
        else:
            unknown.append(key)
    if unknown:
        raise UserError(f"{where}: {_some(sorted(unknown), 'unknown')}")
    return renamed


def complete(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """Return ``state`` in the order and types of the network's ``own``, checked against it.

    Counters of batch normalisation may be missing: older checkpoints have none, and nothing
    that is evaluated reads them.

    Raises:
        UserError: missing or superfluous keys, shapes that differ.
    """
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    extra = sorted(k for k in state if k not in own)
    for keys, what in ((missing, "missing"), (extra, "superfluous")):
        if keys:
            raise UserError(f"{where}: {_some(keys, what)}")
    for key, value in own.items():
        if key in state and state[key].shape != value.shape:
            raise UserError(
                f"{where}: {key} is {tuple(state[key].shape)}, the network has {tuple(value.shape)}"
            )
    return {key: state.get(key, value).to(value.dtype) for key, value in own.items()}


def _some(keys: Sequence[str], what: str) -> str:
    more = "" if len(keys) <= 3 else f" and {len(keys) - 3} more"
    return f"{len(keys)} keys {what}: {', '.join(keys[:3])}{more}"
