"""The arithmetic that faster forms are held against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def exact_fp32() -> Iterator[None]:
    """Let GPUs compute in all of float32's 24 bits inside the block.

    Without it convolutions of cuDNN round their factors to TF32's 11 bits by torch's default.
    """
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = False
        yield
    finally:
        for switch, allowed in zip(switches, before, strict=True):
            switch.allow_tf32 = allowed
