"""Keep freed memory in the process instead of giving it back to the kernel.

glibc returns every large block when it is freed and asks for it again a moment later; the kernel
then hands out zeroed pages one by one. Networks on the CPU free and allocate hundreds of
megabytes a step; what reusing them saves depends on the machine and is measured by
``benchmarks/allocator.py``.

Where sizes differ from batch to batch, a freed block rarely fits the next one, and what is kept
grows as long as the job runs: inference gives all of it back now and then.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# mallopt takes a C int.
_LARGEST = 2**31 - 1


def give_back_freed_memory() -> bool:
    """Return freed blocks to the kernel; return whether any were."""
    trim = _function("malloc_trim")
    return bool(trim and trim(0))


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed blocks; return whether it did. Other C libraries are left alone."""
    mallopt = _function("mallopt")
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 2**30) and mallopt(_M_TRIM_THRESHOLD, _LARGEST))


def _function(name: str) -> Any:
    """A function of glibc, None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    # musl has neither.
    return getattr(ctypes.CDLL(None), name, None)
