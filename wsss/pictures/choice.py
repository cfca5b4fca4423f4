"""Which images to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

Thing = TypeVar("Thing")


def spread(items: Sequence[Thing], count: int) -> list[Thing]:
    """``count`` of ``items``, evenly spaced; all if there are no more."""
    if count >= len(items):
        return list(items)
    return [items[(2 * n + 1) * len(items) // (2 * count)] for n in range(count)]


def ranked(values: Mapping[str, float], count: int) -> dict[str, list[str]]:
    """The ``count`` best, middle and worst names by value, best first; equals go by name."""
    order = sorted(values, key=lambda name: (-values[name], name))
    count = min(count, len(order))
    middle = (len(order) - count) // 2
    return {
        "best": order[:count],
        "median": order[middle : middle + count],
        "worst": order[len(order) - count :],
    }
