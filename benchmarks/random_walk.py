"""Time and memory of the random walk, and of the dense squarings of the paper where they fit.

    python benchmarks/random_walk.py [--classes 4] [--dense-cells 3000] [--grids 24x32 47x63]

47x63 cells are a 375x500 photo at stride 8, 94x125 the same at stride 4. Each row runs in a
process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from wsss.losses.affinity import affinity
from wsss.refine.pairs import half_disc_offsets
from wsss.refine.walk import BETA, RADIUS, random_walk, transition
from wsss.runrecord import peak_memory_mb

SQUARINGS = 8
FEATURES = 448


class Row(NamedTuple):
    """One measurement: seconds, and MB above a process that has only loaded the library."""

    affinity: float
    walk: float
    walk_mb: float
    dense: float | None
    dense_mb: float | None
    difference: float | None


def seconds(function: Callable[[], Tensor], repeats: int) -> tuple[float, Tensor]:
    """Median time of a call, after one that does not count, and its result."""
    result = function() if repeats > 1 else torch.empty(0)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def smooth_maps(channels: int, height: int, width: int) -> Tensor:
    """Random maps with regions, as a network's are: noise at an eighth of the size, enlarged."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, channels, -(-height // 8), -(-width // 8), generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="nearest")


def dense_walk(scores: Tensor, values: Tensor) -> Tensor:
    """The paper's way: square the N x N matrix eight times, then one product."""
    matrix = transition(values, half_disc_offsets(RADIUS), BETA).to_dense()
    for _ in range(SQUARINGS):
        matrix = matrix @ matrix
    return (matrix @ scores.flatten(1).T).T.reshape(scores.shape)


def measure(grid: tuple[int, int], classes: int, dense_cells: int, repeats: int) -> Row:
    """Measure one grid size."""
    features = smooth_maps(FEATURES, *grid)
    scores = smooth_maps(classes, *grid)[0].softmax(0)
    # The first call loads the kernels of the maths library.
    random_walk(scores[:, :2, :2], torch.rand(len(half_disc_offsets(RADIUS)), 2, 2))
    before = peak_memory_mb()
    offsets = half_disc_offsets(RADIUS)
    affinity_time, values = seconds(lambda: affinity(features, offsets)[0], repeats)
    walk_time, walked = seconds(lambda: random_walk(scores, values), repeats)
    walk_mb = peak_memory_mb() - before
    if grid[0] * grid[1] > dense_cells:
        return Row(affinity_time, walk_time, walk_mb, None, None, None)
    dense_time, expected = seconds(lambda: dense_walk(scores, values), 1)
    difference = float((walked - expected).abs().max() / expected.abs().max())
    dense_mb = peak_memory_mb() - before
    return Row(affinity_time, walk_time, walk_mb, dense_time, dense_mb, difference)


def table_line(grid: tuple[int, int], row: Row) -> str:
    """One line of the table."""
    height, width = grid
    start = f"{height}x{width:<5} {height * width:7d} {row.affinity:10.3f} {row.walk:8.3f}"
    start += f" {row.walk_mb:8.0f}"
    if row.dense is None:
        return start
    ratio = row.dense / row.walk
    return f"{start} {row.dense:9.2f} {row.dense_mb:9.0f} {ratio:8.0f}x {row.difference:11.1e}"


def grid_size(text: str) -> tuple[int, int]:
    """Parse ``47x63``."""
    height, _, width = text.partition("x")
    try:
        return int(height), int(width)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 47x63") from error


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    grids = [(24, 32), (47, 63), (94, 125)]
    parser.add_argument("--grids", type=grid_size, nargs="+", default=grids, metavar="HxW")
    parser.add_argument("--classes", type=int, default=4, help="background included")
    parser.add_argument("--dense-cells", type=int, default=3000, help="largest grid for dense")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    sys.stdout.write(
        f"radius {RADIUS}, beta {BETA:g}, {2**SQUARINGS} steps, {args.classes} classes, "
        f"{torch.get_num_threads()} threads for the dense way, 1 for the walk\n"
        "grid      cells affinity s   walk s  walk MB   dense s  dense MB    ratio  difference\n"
    )
    spawn = multiprocessing.get_context("spawn")
    for grid in args.grids:
        with ProcessPoolExecutor(1, spawn) as pool:
            work = pool.submit(measure, grid, args.classes, args.dense_cells, args.repeats)
            sys.stdout.write(f"{table_line(grid, work.result())}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
