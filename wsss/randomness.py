"""Random numbers as a function of what they are for, never of when they are drawn."""

from __future__ import annotations

import hashlib

import numpy as np


def sample_key(seed: int, epoch: int, identifier: str) -> int:
    """Return a 63-bit key of one image in one epoch."""
    text = f"{seed}/{epoch}/{identifier}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order of ``count`` images in one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)
