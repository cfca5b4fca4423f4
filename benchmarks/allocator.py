"""What keeping freed memory saves: the same training step with and without, in turn.

    python benchmarks/allocator.py [--batch 4] [--size 256] [--steps 3]

Each measurement is a process of its own, since the setting cannot be taken back.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time


def measure(keep: bool, batch: int, size: int, steps: int) -> float:
    """Return the best seconds of a forward and backward pass of EfficientNet-Lite0."""
    import torch

    from wsss.config.schema import Backbone
    from wsss.engine.memory import keep_freed_memory
    from wsss.models.backbones import build_backbone

    if keep:
        keep_freed_memory()
    torch.set_num_threads(2)
    config = Backbone(name="tf_efficientnet_lite0", weights="random", allow_download=False)
    network = build_backbone(config, 16, True).train().to(memory_format=torch.channels_last)
    images = torch.rand(batch, 3, size, size).to(memory_format=torch.channels_last)
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        network(images)[-1].mean().backward()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Alternate both settings and print the seconds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--keep", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.keep is not None:
        print(measure(bool(args.keep), args.batch, args.size, args.steps))
        return
    for number in range(args.rounds):
        plain, kept = (
            float(
                subprocess.run(
                    [sys.executable, *sys.argv, "--keep", str(keep)],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
            )
            for keep in (0, 1)
        )
        print(f"round {number}: plain {plain:.3f} s, kept {kept:.3f} s, ratio {plain / kept:.1f}")


if __name__ == "__main__":
    main()
