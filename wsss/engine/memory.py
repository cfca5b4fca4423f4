"""Keep freed memory in the process instead of giving it back to the kernel.

glibc returns every large block when it is freed and asks for it again a moment later; the kernel
then hands out zeroed pages one by one. Networks on the CPU free and allocate hundreds of
megabytes a step; what reusing them saves depends on the machine and is measured by
``benchmarks/allocator.py``.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# mallopt takes a C int.
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed blocks; return whether it did. Other C libraries are left alone."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has none
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 2**30) and mallopt(_M_TRIM_THRESHOLD, _LARGEST))
