"""Random numbers as a function of what they are for, never of when they are drawn."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def sample_key(seed: int, epoch: int, identifier: str) -> int:
    """Return a 63-bit key of one image in one epoch."""
    text = f"{seed}/{epoch}/{identifier}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order of ``count`` images in one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def keyed_uniform(keys: Tensor, layer: int, count: int) -> Tensor:
    """Return (B, count) uniform float32 numbers in [0, 1) determined by ``keys`` and ``layer``.

    Args:
        keys: (B,) int64, one a sample.
        layer: which random layer asks.
        count: numbers a sample.
    """
    counter = torch.arange(count, device=keys.device, dtype=torch.int64)
    seed = _mix(_mix(keys) + _mix(keys >> 32) * 31 + layer * 0x9E3779B1)
    bits = _mix(seed[:, None] + _mix(counter)[None] * 0x2545F491)
    # 24 bits are exact in float32.
    return (bits >> 8).float() * (1.0 / (1 << 24))


def keys_of_pass(keys: Tensor, number: int) -> Tensor:
    """Return other (B,) keys for the ``number``-th pass of a batch through a network, so that two
    views of an image do not drop the same values; number 0 keeps them."""
    return keys ^ (number * 0x5851F42D)


def _mix(value: Tensor) -> Tensor:
    """Scramble the low 32 bits of int64 values (the finaliser of MurmurHash3)."""
    value = value & _MASK
    value = (value ^ (value >> 16)) * 0x85EBCA6B & _MASK
    value = (value ^ (value >> 13)) * 0xC2B2AE35 & _MASK
    return value ^ (value >> 16)
