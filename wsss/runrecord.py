"""What a job cost: ``*.run.json`` beside its artifact, never hashed, never an input.

Memory is that of one process. Of a training in several (``processes``) it is the first one's; each
of the others holds about as much.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wsss.artifacts import save_json
from wsss.atomic import check_writable

_PACKAGES = ("numpy", "torch", "timm", "pydensecrf2", "snakemake")


def git_revision() -> str | None:
    """Return the commit of the working tree, with ``+`` if it has uncommitted changes."""
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


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


def peak_memory_mb() -> float:
    """Return the largest resident size of this process or of one child, in MB."""
    unit = 1024**2 if sys.platform == "darwin" else 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
    # Linux's ru_maxrss starts at the size of the process that started this one.
    if (own := resident_mb(peak=True)) is not None:
        return max(own, children)
    return max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, children)


def cuda_peak_mb() -> float | None:
    """Return the most that this process has allocated on its GPU, in MB; None if it uses none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return round(float(torch.cuda.max_memory_allocated()) / 1024**2, 1)


def machine() -> str:
    """Return cores, memory and, in a process that uses one, the GPU of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    text = f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        text += f", {torch.cuda.get_device_name()}"
    return text


@contextmanager
def record(artifact: Path, stage: str, **facts: Any) -> Iterator[dict[str, Any]]:
    """Time a job and write its record when it succeeds; the job may add facts."""
    check_writable(artifact)
    began = time.monotonic()
    facts = {"stage": stage, **facts}
    yield facts
    seconds = round(time.monotonic() - began, 2)
    cuda = cuda_peak_mb()  # before the GPU is asked for its name, which takes it into use
    facts |= {
        "seconds": seconds,
        "peak_rss_mb": round(peak_memory_mb(), 1),
        **({} if cuda is None else {"cuda_peak_mb": cuda}),
        "git": git_revision(),
        "python": platform.python_version(),
        "machine": machine(),
        "command": " ".join(sys.argv[1:]),
        "versions": {name: version(name) for name in _PACKAGES},
    }
    save_json(artifact.with_name(f"{artifact.stem}.run.json"), facts)
