"""How much memory this process holds, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path


def resident_mb(peak: bool = False) -> float | None:
    """Return the resident size of this process in MB, now or at its ``peak``; None where the
    system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    name = "VmHWM:" if peak else "VmRSS:"
    size = next((line.split()[1] for line in lines if line.startswith(name)), None)
    return None if size is None else int(size) / 1024
