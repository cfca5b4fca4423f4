"""Time of MCC's masked passes: all tokens as queries against the visible ones alone.

python benchmarks/masked_passes.py [--name deit_small_patch16_224] [--side 28] [--block 4]
    [--batch 1] [--device cpu]

Forward and backward, both forms in turn in one process, with the largest difference between their
class tokens. Random weights; 8 masks an image, 95 % of the blocks hidden.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from wsss.config.schema import Backbone as BackboneConfig
from wsss.losses.collaborative import coarse_masks, most_visible
from wsss.models.backbones import build_backbone
from wsss.models.tokens import Patches, token_encoder

VIEWS, RATE = 8, 0.95


def timed(run: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    """Seconds of a forward and backward pass, and the class tokens (n B, D)."""
    start = time.perf_counter()
    cls = run()
    cls.sum().backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, cls.detach()


def main() -> None:
    """Print the medians and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="deit_small_patch16_224", help="any timm tag")
    parser.add_argument("--side", type=int, default=28, help="cells a side")
    parser.add_argument("--block", type=int, default=4, help="cells a side of a block")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    options = parser.parse_args()
    torch.manual_seed(0)
    config = BackboneConfig(name=options.name, weights="random", allow_download=False)
    backbone = build_backbone(config, 16, True).to(options.device)
    encoder = token_encoder(backbone, 384, 4, 6, -3).to(options.device)
    side, blocks = options.side, -(-options.side // options.block)
    most = most_visible(blocks**2, RATE)
    uniform = torch.rand(options.batch, VIEWS, blocks, blocks, device=options.device)
    masked = coarse_masks(uniform, RATE, options.block, (side, side), most).flatten(2)
    tokens = torch.randn(options.batch, 1 + side**2, encoder.dim, device=options.device)
    patches = Patches(tokens, (side, side), 1)
    kept = min(side**2, most * options.block**2)
    by_pass = masked.transpose(0, 1).flatten(0, 1)
    forms: dict[str, Callable[[], Tensor]] = {
        "all": lambda: encoder.encode(backbone, patches.repeat(VIEWS), by_pass).cls,
        "visible": lambda: encoder.class_tokens(backbone, patches, masked, kept),
    }
    times: dict[str, list[float]] = {name: [] for name in forms}
    found = {}
    for _ in range(options.repeats + 1):
        for name, run in forms.items():
            seconds, found[name] = timed(run, options.device)
            times[name].append(seconds)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    for name, number in (("all", side**2), ("visible", kept)):
        print(f"{name:8} {1 + number:5} tokens a pass  {medians[name]:8.3f} s")
    difference = float((found["all"] - found["visible"]).abs().max())
    print(f"ratio {medians['all'] / medians['visible']:.1f}, largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
