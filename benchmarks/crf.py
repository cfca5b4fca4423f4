"""Time of the dense CRF by number of labels, and its throughput by number of processes.

python benchmarks/crf.py [--size 375x500] [--labels 2 3 4 21] [--processes 1 2]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from functools import partial

import numpy as np

from wsss.parallel import ordered_map
from wsss.refine.crf import CrfParams, crf_probabilities
from wsss.refine.resize import resize_bilinear

# Ahn & Kwak, CVPR 2018.
PARAMS = CrfParams(10, 3, 3, 80, 13, 10)


def photo(size: tuple[int, int], seed: int) -> np.ndarray:
    """An (H, W, 3) uint8 image of coloured regions, soft edges and noise."""
    rng = np.random.default_rng(seed)
    regions = resize_bilinear(rng.uniform(0, 255, (3, 6, 8)), size).transpose(1, 2, 0)
    image: np.ndarray = np.clip(regions + rng.normal(0, 8, (*size, 3)), 0, 255).astype(np.uint8)
    return image


def scores(labels: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """(labels, H, W) probabilities as smooth as an upsampled CAM."""
    grid = (-(-size[0] // 16), -(-size[1] // 16))
    logits = np.random.default_rng(seed).normal(0, 2, (labels, *grid))
    exponent = np.exp(resize_bilinear(logits, size))
    probabilities: np.ndarray = exponent / exponent.sum(0)
    return probabilities


def seconds(labels: int, size: tuple[int, int], iterations: int, repeats: int) -> float:
    """Median time of one image."""
    image, probabilities = photo(size, 0), scores(labels, size, 0)
    params = PARAMS._replace(iterations=iterations)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        crf_probabilities(image, probabilities, params)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def refine(seed: int, labels: int, size: tuple[int, int]) -> np.ndarray:
    """What a worker does: scores to a mask."""
    probabilities = crf_probabilities(photo(size, seed), scores(labels, size, seed), PARAMS)
    mask: np.ndarray = probabilities.argmax(0).astype(np.uint8)
    return mask


def throughput(images: int, labels: int, size: tuple[int, int], processes: int) -> float:
    """Images a second, the start of the processes included."""
    function = partial(refine, labels=labels, size=size)
    start = time.perf_counter()
    for _ in ordered_map(function, ((str(i), i) for i in range(images)), processes):
        pass
    return images / (time.perf_counter() - start)


def image_size(text: str) -> tuple[int, int]:
    """Parse ``375x500``."""
    height, _, width = text.partition("x")
    try:
        return int(height), int(width)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 375x500") from error


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=image_size, default=(375, 500), metavar="HxW")
    parser.add_argument("--labels", type=int, nargs="+", default=[2, 3, 4, 21])
    parser.add_argument("--iterations", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, default=20, help="for the throughput")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    height, width = args.size
    sys.stdout.write(f"seconds an image of {height}x{width}\nlabels")
    sys.stdout.write("".join(f"  {i:2d} iterations" for i in args.iterations) + "\n")
    for labels in args.labels:
        times = [seconds(labels, args.size, i, args.repeats) for i in args.iterations]
        sys.stdout.write(f"{labels:6d}" + "".join(f"  {t:13.3f}" for t in times) + "\n")
    sys.stdout.write(f"images a second, {args.images} images, 3 labels, 10 iterations\n")
    for processes in args.processes:
        rate = throughput(args.images, 3, args.size, processes)
        sys.stdout.write(f"{processes:6d} processes  {rate:6.2f}\n")


if __name__ == "__main__":
    main()
