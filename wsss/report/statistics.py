"""Paired bootstrap over images: how far a score would move on other images of the same kind.

Images are resampled with replacement; in each resample the pixel counts of the drawn images are
summed and the mIoU of the data set is taken from the sums (Efron & Tibshirani, An Introduction to
the Bootstrap, 1993, Sec. 13.3: percentile intervals; Koehn, EMNLP 2004: paired resampling of test
sets). All runs see the same resamples, so that the images that are hard for all of them cancel in
a difference. What training again would change is not in these intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from wsss.report.counts import Counts, Floats, Ints, mean_iou

# Resamples at a time, to bound memory: (_CHUNK, images) float64.
_CHUNK = 64


class Interval(NamedTuple):
    """A value and its percentile interval, fractions; the bounds are nan without any resample."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0


def weights(images: int, samples: int, seed: int) -> Iterator[Floats]:
    """Yield how often each image is drawn, (b, images) float64, ``samples`` rows in all."""
    generator = np.random.default_rng(seed)
    for start in range(0, samples, _CHUNK):
        rows = min(_CHUNK, samples - start)
        drawn = generator.integers(images, size=(rows, images))
        yield np.stack([np.bincount(row, minlength=images) for row in drawn]).astype(np.float64)


def resampled(runs: Sequence[Counts], samples: int, seed: int) -> Floats:
    """The mIoU of every run in every resample, (runs, samples).

    All runs have the same images in the same order. Sums of whole numbers below 2^53 are exact in
    float64, so the result does not depend on the order of additions.
    """
    images = len(runs[0].hit)
    # Of many classes an image shows few: sparse tables take a tenth of the memory and time.
    tables = [(_sparse(run.hit), _sparse(run.union)) for run in runs]
    chunks = [
        np.stack([mean_iou(drawn @ hit, drawn @ union) for hit, union in tables])
        for drawn in weights(images, samples, seed)
    ]
    return np.concatenate(chunks, axis=1)


def _sparse(counts: Ints) -> Any:
    return csr_array(counts.astype(np.float64))


def score(run: Counts) -> float:
    """The mIoU of all images."""
    return float(mean_iou(run.hit.sum(0), run.union.sum(0)))


def percentile_interval(value: float, draws: Floats, confidence: float) -> Interval:
    """The middle ``confidence`` of the resamples around ``value``."""
    known = draws[~np.isnan(draws)]
    if not known.size:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))


class Paired(NamedTuple):
    """Intervals of every name, and of the difference of every two: first minus second."""

    scores: dict[str, Interval]
    differences: dict[tuple[str, str], Interval]


def paired(
    runs: Mapping[str, Sequence[Counts]], samples: int, seed: int, confidence: float
) -> Paired:
    """Bootstrap the score of every name, the mean of the mIoU of its runs (its seeds).

    Args:
        runs: counts of each name's runs, all on the same images; see :func:`same_images`.
        samples: resamples.
        seed: of the resamples.
        confidence: share of the resamples within an interval.
    """
    flat = [counts for name in runs for counts in runs[name]]
    table = resampled(flat, samples, seed)
    values: dict[str, float] = {}
    draws: dict[str, Floats] = {}
    start = 0
    for name, counts in runs.items():
        stop = start + len(counts)
        values[name] = float(np.mean([score(run) for run in counts]))
        draws[name] = table[start:stop].mean(0)
        start = stop
    names = list(runs)
    return Paired(
        {n: percentile_interval(values[n], draws[n], confidence) for n in names},
        {
            (a, b): percentile_interval(values[a] - values[b], draws[a] - draws[b], confidence)
            for a in names
            for b in names
            if a != b
        },
    )


def same_images(runs: Sequence[Counts]) -> bool:
    """Whether all runs were counted on the same images with the same truth."""
    first = runs[0]
    return all(run.ids == first.ids and np.array_equal(run.truth, first.truth) for run in runs[1:])
