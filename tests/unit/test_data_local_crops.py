"""Local crops around uncertain places, and a resized window of the whole image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from wsss.data.local_crops import crop_corners, crop_positive, cut
from wsss.data.views import ResizedView, cut_window, draw_window


def places(count: int, height: int, width: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, height - size + 1, width - size + 1, generator=generator)


def test_windows_lie_inside_and_their_centres_are_no_sure_object() -> None:
    values = torch.full((2, 20, 30), 2.0)
    values[0, :, 15:] = 1
    values[1, 8:, :] = 0
    corners = crop_corners(values, places(2, 20, 30, 6), 8, 6)
    assert corners.shape == (2, 8, 2)
    assert corners.min() >= 0
    assert (corners[..., 0] + 6 <= 20).all()
    assert (corners[..., 1] + 6 <= 30).all()
    assert (corners[0, :, 1] + 3 >= 15).all()
    assert (corners[1, :, 0] + 3 >= 8).all()
    assert len({tuple(c) for c in corners[0].tolist()}) == 8


def test_with_too_few_such_places_any_will_do() -> None:
    values = torch.full((1, 20, 20), 2.0)
    values[0, 10, 10] = 0
    uniform = places(1, 20, 20, 6)
    corners = crop_corners(values, uniform, 8, 6)
    best = uniform.flatten().topk(8).indices
    assert torch.equal(corners[0, :, 0] * 15 + corners[0, :, 1], best)


def test_a_window_as_large_as_the_image_is_taken_again_and_again() -> None:
    corners = crop_corners(torch.zeros(1, 6, 6), places(1, 6, 6, 6), 3, 6)
    assert not corners.any()


def test_what_is_cut_is_the_window() -> None:
    images = torch.rand(2, 3, 12, 16)
    corners = torch.tensor([[[0, 0], [3, 5]], [[7, 11], [2, 1]]])
    crops = cut(images, corners, 5)
    assert crops.shape == (2, 2, 3, 5, 5)
    for b in range(2):
        for n, (y, x) in enumerate(corners[b].tolist()):
            assert torch.equal(crops[b, n], images[b, :, y : y + 5, x : x + 5])


def test_flags_are_means_of_windows() -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.randint(0, 3, (2, 40, 50), generator=generator).float()
    values *= torch.rand(2, 40, 50, generator=generator) < 0.2
    corners = crop_corners(values, places(2, 40, 50, 5), 20, 5)
    expected = cut(values[:, None], corners, 5).mean((2, 3, 4)) > 0.2
    found = crop_positive(values, corners, 5, 0.2)
    assert torch.equal(found, expected)
    assert found.any()
    assert not found.all()


def test_a_mean_of_exactly_the_ratio_is_negative() -> None:
    values = torch.zeros(1, 10, 10)
    values[0, :2, :5] = 2  # 20 of 100
    corner = torch.zeros(1, 1, 2, dtype=torch.int64)
    assert not crop_positive(values, corner, 10, 0.2)
    assert crop_positive(values, corner, 10, 0.19)


@pytest.mark.parametrize("size", [(60, 90), (10, 400), (400, 10), (1, 1)])
def test_windows_of_random_area(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        window = draw_window(rng, size, (0.4, 1.0))
        assert 0 <= window.top <= size[0] - window.height
        assert 0 <= window.left <= size[1] - window.width
        assert window.height >= 1
        assert window.width >= 1
        shares.append(window.height * window.width / (size[0] * size[1]))
    if size == (60, 90):
        assert 0.38 < min(shares) < 0.5
        assert 0.85 < max(shares) <= 8 / 9 + 1e-9  # no wider than 4:3


def test_a_window_is_cut_resized_and_mirrored() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30] = 200
    window = draw_window(np.random.default_rng(0), (40, 60), (1.0, 1.0))._replace(
        top=0, left=0, height=40, width=60
    )
    plain, mirrored = (cut_window(image, window, 32, flip) for flip in (False, True))
    assert plain.shape == (32, 32, 3)
    assert plain[:, :12].min() > 150
    assert np.array_equal(mirrored, plain[:, ::-1])


def test_a_resized_view_is_mirrored_by_a_draw_of_its_own() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    view, seen = ResizedView(16, (0.4, 1.0), True), set()
    for seed in range(16):
        own = [view.cut(np.random.default_rng(seed), image, flip)[0] for flip in (False, True)]
        assert np.array_equal(*own), "whatever the training crop is"
        plain = view._replace(flip=False).cut(np.random.default_rng(seed), image, True)[0]
        mirrored = bool(np.array_equal(own[0], plain[:, :, ::-1]))
        assert mirrored or np.array_equal(own[0], plain)
        seen.add(mirrored)
    assert seen == {False, True}
