"""Device, precision and threads, from the configuration."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from wsss.config.schema import Compute
from wsss.distributed.place import place as place_of_process
from wsss.engine.memory import keep_freed_memory
from wsss.errors import UserError


def pick_device(config: Compute) -> torch.device:
    """Set the thread count and return the device; one that is absent is a :class:`UserError`."""
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"compute.device is {config.device!r} but torch sees no GPU: use 'auto'")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"compute.device is {config.device!r} but it is not available: use 'auto'")
    here = place_of_process()
    if here.size > 1 and device.type == "cuda":
        return torch.device("cuda", here.local)
    return device


def autocast(config: Compute, device: torch.device) -> AbstractContextManager[object]:
    """Return bf16 autocast where wanted: ``auto`` means where a GPU computes in bf16."""
    auto = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if config.precision == "bf16" or (config.precision == "auto" and auto):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def place(
    module: nn.Module, config: Compute, device: torch.device, training: bool = False
) -> nn.Module:
    """Move a network to its device and memory format, and compile its backbone if asked to.

    Compiled is the backbone alone, where the time goes: heads and losses differ from step to step.
    Training has one size of crops, and gets a graph for it. At inference images and scales differ:
    one graph serves all sizes (`dynamic`); padding to a few sizes would change what the network
    sees at the borders.
    """
    backbone = getattr(module, "backbone", None)
    if config.compile and backbone is not None:
        backbone.network.compile(dynamic=None if training else True)
    if config.channels_last:
        return module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
    return module.to(device=device)
