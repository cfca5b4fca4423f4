"""The head of AffinityNet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from wsss.models.affinitynet import AffinityHead

CHANNELS = (6, 10, 14)


def maps(sizes: tuple[tuple[int, int], ...] = ((9, 11), (9, 11), (5, 6))) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, c, *s, generator=generator) for c, s in zip(CHANNELS, sizes, strict=True)
    ]


def test_paper_widths_give_448_channels() -> None:
    assert AffinityHead(CHANNELS)(maps(), (9, 11)).shape == (2, 448, 9, 11)


def test_equals_resizing_before_the_convolutions() -> None:
    torch.manual_seed(0)
    head, size = AffinityHead(CHANNELS, (4, 5, 6)), (9, 11)
    levels = [
        functional.elu(layer(functional.interpolate(m, size, mode="bilinear")))
        for layer, m in zip(head.compress, maps(), strict=True)
    ]
    expected = functional.elu(head.mix(torch.cat(levels, 1)))
    torch.testing.assert_close(head(maps(), size), expected)


def test_finer_and_coarser_maps_meet_on_the_grid() -> None:
    head = AffinityHead(CHANNELS, (4, 5, 6))
    assert head(maps(((36, 44), (18, 22), (1, 1))), (9, 11)).shape == (2, 15, 9, 11)


def test_wrong_numbers_of_maps() -> None:
    with pytest.raises(ValueError, match="2 widths"):
        AffinityHead(CHANNELS, (4, 5))
    with pytest.raises(ValueError, match="expected 3 maps"):
        AffinityHead(CHANNELS)(maps()[:2], (9, 11))
