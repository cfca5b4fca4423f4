"""Soft pseudo labels: made of scores or seeds, cropped with the image."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wsss.artifacts import ArrayStore, ArrayStoreWriter, Entry, MaskStoreWriter
from wsss.config import Params
from wsss.data.manifest import Item
from wsss.data.training import SoftLabels
from wsss.data.transforms import Crop, apply_crop, crop_scores, shares
from wsss.labels import IGNORE
from wsss.refine.crf import CrfParams
from wsss.stages.refining import Job
from wsss.stages.seeds import label_seeds
from wsss.stages.segment import _supervision, without_unsure
from wsss.stages.soft import soft_scores, soft_seeds

PARAMS = CrfParams(3, 3, 3, 50, 5, 10)
SIZE = (24, 32)


def job(classes: list[int], maps: np.ndarray) -> Job:
    image = np.full((*SIZE, 3), 40, np.uint8)
    image[:, 16:] = 210
    return Job(image, Entry(maps.astype(np.float16), classes, SIZE))


def halves(left: float, right: float) -> np.ndarray:
    maps = np.full((6, 8), left)
    maps[:, 4:] = right
    return maps


def test_scores_are_kept_as_they_are_at_the_label_stride() -> None:
    soft = soft_scores(job([0, 7], np.stack([halves(0.6, 0.1), halves(0.2, 0.3)])), None, 4)
    assert soft.classes == [0, 7]
    assert soft.size == SIZE
    assert soft.array.shape == (2, 6, 8)
    np.testing.assert_allclose(soft.array[:, 0, 0], [0.6, 0.2], atol=1e-3)
    np.testing.assert_allclose(soft.array[:, 0, 7], [0.1, 0.3], atol=1e-3)
    np.testing.assert_allclose(shares(soft.array)[:, 0, 0], [0.75, 0.25], atol=1e-3)


def test_a_crf_makes_them_probabilities() -> None:
    maps = np.stack([halves(0.6, 0.1), halves(0.2, 0.3)])
    np.testing.assert_allclose(soft_scores(job([0, 7], maps), PARAMS, 4).array.sum(0), 1, atol=1e-5)


def test_the_background_is_its_constant_everywhere() -> None:
    soft = soft_scores(job([3], halves(0.9, 0.05)[None]), None, 4, threshold=0.35)
    assert soft.classes == [0, 4]
    np.testing.assert_array_equal(soft.array[0], np.float32(0.35))
    np.testing.assert_allclose(soft.array[1, 0, [0, 7]], [0.9, 0.05], atol=1e-3)


def test_scores_of_nothing_stay_nothing() -> None:
    scores = np.zeros((2, 1, 2), np.float32)
    scores[:, 0, 1] = [1, 3]
    np.testing.assert_array_equal(shares(scores)[:, 0], [[0, 0.25], [0, 0.75]])


def test_soft_seeds_agree_with_the_hard_ones() -> None:
    cams = job([4, 9], np.stack([halves(0.0, 0.9), halves(0.1, 0.0)]))
    soft = soft_seeds(cams, 0.2, 0.7, PARAMS, 1)
    (hard,) = label_seeds(cams, 0.2, 0.7, PARAMS)
    assert soft.classes == [0, 5, 10]
    np.testing.assert_array_equal(np.array(soft.classes)[soft.array.argmax(0)], hard)
    assert soft_seeds(cams, 0.2, 0.7, PARAMS, 4).array.shape == (3, 6, 8)


def test_images_without_tags_are_certainly_background() -> None:
    soft = soft_seeds(job([], np.zeros((0, 6, 8))), 0.2, 0.7, PARAMS, 4)
    assert soft.classes == [0]
    np.testing.assert_array_equal(soft.array, np.ones((1, 6, 8)))


def test_unsure_pixels_are_ignored() -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[:, 16:] = 7
    sure = without_unsure(mask, np.stack([halves(0.75, 0.4), halves(0.25, 0.6)]), 0.7)
    assert sure.dtype == np.uint8
    assert (sure[:, :12] == 0).all()
    assert (sure[:, 20:] == IGNORE).all()
    thirds = np.stack([halves(1.5, 0.8), halves(0.5, 1.2)])  # scores, not probabilities
    np.testing.assert_array_equal(without_unsure(mask, thirds, 0.7), sure)
    np.testing.assert_array_equal(without_unsure(mask, np.full((2, 2, 2), 0.5), 0.5), mask)


@given(
    size=st.integers(8, 33),
    height=st.integers(5, 50),
    width=st.integers(5, 50),
    top=st.integers(-20, 30),
    left=st.integers(-20, 30),
    flip=st.booleans(),
)
def test_a_crop_of_scores_is_a_crop_of_the_image(
    size: int, height: int, width: int, top: int, left: int, flip: bool
) -> None:
    """At stride 1 and without resizing both are the same pixels."""
    crop = Crop(height, width, top, left, size, flip)
    pixels = np.random.default_rng(0).integers(1, 255, (height, width), np.uint8)
    if top >= height or left >= width or top <= -size or left <= -size:
        return  # the window misses the image; draw_crop never does
    expected = apply_crop(pixels, crop, (0,), Image.Resampling.NEAREST)
    got = crop_scores(pixels[None].astype(np.float32), crop, size)[0]
    np.testing.assert_allclose(got, expected, atol=1e-3)


@pytest.mark.parametrize("flip", [False, True])
def test_a_linear_ramp_stays_linear(flip: bool) -> None:
    """A ramp over the image, read at a third of its size and through a crop of twice its size."""
    ramp = (np.arange(20, dtype=np.float32) + 0.5) / 20
    maps = np.broadcast_to(ramp, (1, 10, 20))
    crop = Crop(60, 120, 7, 11, 40, flip)
    got = crop_scores(maps, crop, 10)[0]
    expected = (11 + 4 * (np.arange(10) + 0.5)) / 120
    np.testing.assert_allclose(got[3], expected[::-1] if flip else expected, atol=1e-5)


def test_a_sample_is_dense_and_zero_outside_the_image(tmp_path: Path) -> None:
    with ArrayStoreWriter(tmp_path / "scores.zip") as writer:
        writer.add("a", np.stack([halves(0.25, 0.75), halves(0.75, 0.25)]), [0, 3], SIZE)
    soft = SoftLabels(ArrayStore(tmp_path / "scores.zip"), 5, 4)
    dense = soft.crop(Item("a", "", None, (), ()), Crop(24, 32, -8, 0, 32, False))
    assert dense.shape == (5, 8, 8)
    assert dense.dtype == np.float16
    np.testing.assert_array_equal(dense[:, :2], 0)
    np.testing.assert_allclose(dense[:, 2:].sum(0), 1, atol=2e-3)
    np.testing.assert_array_equal(dense[[1, 2, 4]], 0)
    assert dense[3, 4, 0] == pytest.approx(0.75, abs=1e-3)


def test_a_boundary_contrast_compares_the_scores_themselves(tmp_path: Path) -> None:
    """MuSCLe's soft label: walked scores of present classes, a constant for the background."""
    scores = np.stack([np.full((6, 8), 0.35), halves(0.9, 0.05)])
    with ArrayStoreWriter(tmp_path / "scores.zip") as writer:
        writer.add("a", scores.astype(np.float16), [0, 3], SIZE)
    store, item = ArrayStore(tmp_path / "scores.zip"), Item("a", "", None, (), ())
    raw = SoftLabels(store, 5, 4, raw=True).crop(item, Crop(24, 32, -8, 0, 32, False))
    np.testing.assert_array_equal(raw[:, :2], 0)
    np.testing.assert_allclose(raw[0, 2:], 0.35, atol=1e-3)
    np.testing.assert_allclose(raw[3, 4, [0, 7]], [0.9, 0.05], atol=1e-3)
    np.testing.assert_array_equal(raw[[1, 2, 4]], 0)
    even = SoftLabels(store, 5, 4).crop(item, Crop(24, 32, -8, 0, 32, False))
    np.testing.assert_allclose(even[[0, 3], 4, 0], [0.28, 0.72], atol=1e-3)


@pytest.mark.parametrize(("labels", "raw"), [("soft", False), ("both", True)])
def test_only_what_is_trained_on_is_made_probabilities(
    tiny_params: Params, tmp_path: Path, labels: str, raw: bool
) -> None:
    scores, masks = tmp_path / "scores.zip", tmp_path / "masks.zip"
    with ArrayStoreWriter(scores) as writer:
        writer.add("a", np.ones((1, 2, 2)), [0], SIZE)
    with MaskStoreWriter(masks) as writer:
        writer.add("a", np.zeros(SIZE, np.uint8))
    segment = tiny_params.base.segment.model_copy(update={"labels": labels})
    context = SimpleNamespace(
        config=tiny_params.base.model_copy(update={"segment": segment, "road": "two-stage"}),
        manifest=SimpleNamespace(role=lambda _: [Item("a", "", None, ("cat",), ())], num_classes=6),
        paths=SimpleNamespace(store=lambda _, name: tmp_path / f"{name}.zip"),
    )
    soft = _supervision(context).soft  # type: ignore[arg-type]
    assert soft is not None
    assert soft.raw == raw
