"""How the images of a job are cut: into windows, and into shards of whole windows."""

from __future__ import annotations

# Images are batched by size inside windows of this many. Shards are cut and interrupted jobs
# continue at multiples of it, so that every image meets the same batch, and its result the same
# bytes, however many shards run and however often they were interrupted.
WINDOW = 64


def shard_bounds(count: int, shard: int, shards: int, window: int = WINDOW) -> tuple[int, int]:
    """Return the [start, stop) of one shard: whole windows, contiguous, together everything."""
    windows = -(-count // window)
    start, stop = windows * shard // shards, windows * (shard + 1) // shards
    return min(count, start * window), min(count, stop * window)
