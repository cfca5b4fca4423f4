"""What training cost as it went on: ``curve.run.csv`` beside the curve, never hashed, never an
input."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wsss.artifacts import save_csv
from wsss.runrecord import cuda_peak_mb, resident_mb

COLUMNS = ("step", "images_per_second", "memory_mb", "cuda_peak_mb")


class CostCurve:
    """Measures the steps between two rows of a training curve.

    Attributes:
        rows: ``step``; ``images_per_second`` since the row before, or since training went on;
            ``memory_mb``, resident now; ``cuda_peak_mb``, the most that was allocated on the GPU,
            None without one. Memory is that of this process, of several the first.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.rows: list[dict[str, Any]] = [dict(row) for row in rows]
        self.start()

    def start(self) -> None:
        """Count from here."""
        self._images, self._began = 0, time.monotonic()

    def add(self, images: int) -> None:
        """Count the images of one step."""
        self._images += images

    def flush(self, step: int) -> dict[str, Any]:
        """Add and return the row of the steps up to ``step``."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        row = {
            "step": step,
            "images_per_second": round(self._images / seconds, 2),
            "memory_mb": _resident_mb(),
            "cuda_peak_mb": cuda_peak_mb(),
        }
        self.rows.append(row)
        self.start()
        return row

    def save(self, path: Path) -> None:
        """Write the rows as CSV."""
        save_csv(path, self.rows, COLUMNS)


def _resident_mb() -> float | None:
    size = resident_mb()
    return None if size is None else round(size, 1)
