"""Colours of views."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wsss.data.distortion import DRAWS, Distortion, blur, distort

NOTHING = Distortion(jitter_share=0, grey_share=0, blur_share=0, solarise_share=0)


def images(count: int = 4, side: int = 24) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def draws(count: int = 4) -> Tensor:
    return torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(1))


def test_it_can_leave_images_alone() -> None:
    assert torch.allclose(distort(images(), draws(), NOTHING), images(), atol=1e-6)


def test_grey_has_one_value_a_pixel() -> None:
    grey = distort(images(), draws(), NOTHING._replace(grey_share=1))
    assert torch.equal(grey[:, 0], grey[:, 2])
    assert not torch.equal(grey, images())


def test_solarising_turns_bright_pixels_over() -> None:
    found = distort(images(), draws(), NOTHING._replace(solarise_share=1))
    assert float(found.max()) <= 0.5 + 1e-6
    assert torch.allclose(found, torch.where(images() >= 0.5, 1 - images(), images()), atol=1e-6)


def test_each_image_gets_what_its_own_draws_say() -> None:
    how = Distortion(blur_share=0.5, solarise_share=0.5)
    together, alone = distort(images(), draws(), how), distort(images()[2:3], draws()[2:3], how)
    assert torch.allclose(together[2:3], alone, atol=1e-6)
    assert not torch.allclose(together, images())


def test_results_stay_in_range() -> None:
    found = distort(images(), draws(), Distortion(solarise_share=0.5))
    assert found.min() >= -1e-6
    assert found.max() <= 1 + 1e-6


def test_a_blurred_point_is_a_gaussian() -> None:
    point = torch.zeros(2, 3, 25, 25)
    point[:, :, 12, 12] = 1
    found = blur(point, torch.tensor([0.1, 1.5]), 2.0)
    assert torch.allclose(found[0], point[0], atol=1e-6)
    line = torch.arange(25) - 12.0
    kernel = torch.exp(-0.5 * (line / 1.5).square()) * (line.abs() <= 6)
    kernel = kernel / kernel.sum()
    assert torch.allclose(found[1, 0], kernel[:, None] * kernel, atol=1e-6)


@pytest.mark.parametrize("side", [4, 8])
def test_small_images_are_blurred_by_a_shorter_kernel(side: int) -> None:
    found = blur(torch.full((1, 3, side, side), 0.3), torch.tensor([2.0]), 2.0)
    assert torch.allclose(found, torch.full_like(found, 0.3))
