"""Two overlapping windows of an image: geometry, pixels, and their place in a sample."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.config import Params
from wsss.data.manifest import Item, Manifest
from wsss.data.training import CropDataset, collate, finish_images
from wsss.data.views import Overlap, ViewPair, Views, _two_starts, cut_pair, draw_pair

SIZES = st.integers(1, 60)


@given(height=SIZES, width=SIZES, least=SIZES, share=st.floats(0, 1), seed=st.integers(0, 9999))
@settings(max_examples=200, deadline=None)
def test_windows_lie_inside_and_overlap(
    height: int, width: int, least: int, share: float, seed: int
) -> None:
    views = Views(max(1, round(share * least)), least)
    pair = draw_pair(np.random.default_rng(seed), (height, width), views)
    whole = (height, width) if min(height, width) >= least else (least, least)
    assert (pair.height, pair.width) == whole
    for top, left in (pair.first, pair.second):
        assert 0 <= top <= pair.height - views.size
        assert 0 <= left <= pair.width - views.size
    # Pixels that both hold, counted one by one.
    one, two = (
        {(top + y, left + x) for y in range(views.size) for x in range(views.size)}
        for top, left in (pair.first, pair.second)
    )
    overlap = pair.overlap
    assert len(one & two) == overlap.height * overlap.width >= 1
    corner = min(one & two)
    assert corner == (pair.first[0] + overlap.top, pair.first[1] + overlap.left)
    assert corner == (pair.second[0] + overlap.other_top, pair.second[1] + overlap.other_left)


def test_drawing_is_uniform_among_the_windows_that_overlap() -> None:
    """As drawing again and again until they do."""
    rng = np.random.default_rng(0)
    last, window, count = 6, 3, 40_000
    valid = [(a, b) for a, b in product(range(last + 1), repeat=2) if abs(a - b) < window]
    drawn = [_two_starts(rng, last, window) for _ in range(count)]
    expected = count / len(valid)
    for pair in valid:
        assert abs(drawn.count(pair) - expected) < 5 * expected**0.5
    assert set(drawn) == set(valid)


def test_an_image_of_the_size_of_a_view_has_one_place_for_it() -> None:
    pair = draw_pair(np.random.default_rng(0), (8, 8), Views(8, 8))
    assert pair.overlap == Overlap(8, 8, 0, 0, 0, 0)


def test_views_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="views of 9 pixels"):
        draw_pair(np.random.default_rng(0), (20, 20), Views(9, 8))


def test_pixels_are_those_of_the_image_mirrored_as_a_whole() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 15, 3), np.uint8)
    pair = ViewPair(12, 15, 6, (0, 9), (5, 4))
    plain, mirrored = cut_pair(image, pair, False), cut_pair(image, pair, True)
    assert np.array_equal(plain[0], image[0:6, 9:15])
    assert np.array_equal(plain[1], image[5:11, 4:10])
    assert np.array_equal(mirrored[0], image[:, ::-1][0:6, 9:15])
    mine, theirs = pair.overlap.cut(*(torch.from_numpy(x).movedim(2, 0) for x in mirrored))
    assert torch.equal(mine, theirs)


def test_a_small_image_is_squashed_to_a_square() -> None:
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 15:] = 200
    pair = draw_pair(np.random.default_rng(0), (10, 30), Views(16, 16))
    pixels = cut_pair(image, pair, False)
    assert pixels.shape == (2, 16, 16, 3)
    assert (pixels[0, :, :6] == 0).all()
    assert (pixels[0, :, 10:] == 200).all()


class FakeManifest:
    """Images in memory."""

    def read_image(self, item: Item) -> np.ndarray:
        return np.random.default_rng(int(item.id)).integers(0, 256, (40, 52, 3), np.uint8)

    def label(self, item: Item) -> np.ndarray:  # noqa: ARG002
        return np.ones(1, np.float32)


def dataset(params: Params, views: list[Views | None], seed: int = 0) -> CropDataset:
    config = params.base.classify.model_copy(update={"crop": 32, "long_side": [32, 60]})
    manifest: Manifest = FakeManifest()  # type: ignore[assignment]
    items = [Item(str(k), "", None, (), ()) for k in range(4)]
    return CropDataset(manifest, items, config, seed, (1, 2, 3), views=views)


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return all(
        torch.equal(one[k], two[k]) if isinstance(one[k], torch.Tensor) else one[k] == two[k]
        for k in one
    )


def test_views_are_a_function_of_seed_epoch_and_image(tiny_params: Params) -> None:
    views = Views(16, 32)
    data = dataset(tiny_params, [views] * 2)
    later = data[1, 2]
    data[0, 1]
    assert same(later, data[1, 2])
    assert same(later, dataset(tiny_params, [None, views])[1, 2])
    for other in (data[0, 2], data[1, 1], dataset(tiny_params, [views] * 2, seed=1)[1, 2]):
        assert not torch.equal(later["views"], other["views"])


def test_the_crop_is_the_same_with_and_without_views(tiny_params: Params) -> None:
    plain = dataset(tiny_params, [])[0, 3]
    assert same(plain, dataset(tiny_params, [Views(16, 32)])[0, 3])
    assert "views" not in dataset(tiny_params, [None])[0, 3]


def test_a_batch_of_views(tiny_params: Params) -> None:
    data = dataset(tiny_params, [Views(16, 32)])
    batch = collate([data[0, k] for k in range(4)])
    assert batch["views"].shape == (4, 2, 3, 16, 16)
    assert batch["view_jitter"].shape == (4, 2, 4)
    assert [tuple(row) for row in batch["overlap"].tolist()] == batch["overlaps"]
    assert batch["host_keys"] == batch["key"].tolist()
    finished = finish_images(batch, torch.full((3,), 0.5))
    assert finished["views"].shape == (4, 2, 3, 16, 16)
    assert 0 <= finished["views"].min() < finished["views"].max() <= 1
    # Each view has its own colours.
    first, second = finished["overlaps"][0].cut(*finished["views"][0])
    assert not torch.allclose(first, second)
    still = finish_images(
        {**batch, "view_jitter": torch.tensor([1.0, 1, 1, 0]).expand(4, 2, 4)},
        torch.full((3,), 0.5),
    )
    first, second = still["overlaps"][0].cut(*still["views"][0])
    torch.testing.assert_close(first, second)
