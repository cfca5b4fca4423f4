"""Augmentation: geometry and colour."""

from __future__ import annotations

import colorsys

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsss.config import Params
from wsss.data.transforms import Crop, apply_crop, colour_jitter, draw_crop, erase, valid_pixels
from wsss.randomness import permutation, sample_key


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    size=st.integers(1, 40),
    data=st.data(),
    flip=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_the_box_is_exactly_what_is_not_padding(
    height: int, width: int, size: int, data: st.DataObject, flip: bool
) -> None:
    def offset(length: int) -> int:
        slack = length - size
        return data.draw(st.integers(min(0, slack), max(0, slack)))

    crop = Crop(height, width, offset(height), offset(width), size, flip)
    image = np.full((height, width), 7, np.uint8)
    out = apply_crop(image, crop, (255,), Image.Resampling.NEAREST)
    mask = valid_pixels(torch.tensor([crop.box]), size)[0, 0].numpy()
    assert ((out == 7) == mask).all()
    assert mask.any()


def test_image_and_mask_move_together() -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[10:20, 5:30] = 1
    image = np.repeat(mask[..., None] * 200, 3, 2)
    crop = Crop(40, 50, 6, -4, 32, True)
    moved = apply_crop(image, crop, (0, 0, 0), Image.Resampling.NEAREST)
    labels = apply_crop(mask, crop, (255,), Image.Resampling.NEAREST)
    assert ((moved[..., 0] == 200) == (labels == 1)).all()
    assert (labels == 255).any()


def test_neutral_jitter_changes_nothing() -> None:
    images = torch.rand(3, 3, 8, 8)
    neutral = torch.tensor([[1.0, 1.0, 1.0, 0.0]]).repeat(3, 1)
    assert torch.allclose(colour_jitter(images, neutral), images, atol=1e-5)


def test_jitter_matches_its_definition_one_by_one() -> None:
    images = torch.rand(2, 3, 6, 6)
    factors = torch.tensor([[1.2, 0.8, 1.3, 0.0], [0.7, 1.1, 0.6, 0.0]])
    out = colour_jitter(images, factors)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    for image, (bright, contrast, saturation, _), got in zip(
        images, factors.tolist(), out, strict=True
    ):
        x = (image * bright).clamp(0, 1)
        mean = (x * weights).sum(0).mean()
        x = (mean + contrast * (x - mean)).clamp(0, 1)
        grey = (x * weights).sum(0)
        x = (grey + saturation * (x - grey)).clamp(0, 1)
        assert torch.allclose(got, x, atol=1e-5)


def test_hue_turns_colour_and_keeps_grey() -> None:
    red = torch.tensor([0.6, 0.3, 0.3]).view(1, 3, 1, 1)
    turned = colour_jitter(red, torch.tensor([[1.0, 1.0, 1.0, 1 / 3]])).flatten().tolist()
    hue = colorsys.rgb_to_hsv(*turned)[0]
    assert min(abs(hue - 1 / 3), abs(hue - 2 / 3)) < 0.12
    grey = torch.full((1, 3, 2, 2), 0.4)
    assert torch.allclose(colour_jitter(grey, torch.tensor([[1.0, 1, 1, 0.3]])), grey, atol=1e-3)


def test_keys_and_orders_depend_on_everything_they_are_for() -> None:
    keys = {sample_key(s, e, i) for s in range(3) for e in range(3) for i in ("a", "b")}
    assert len(keys) == 18
    assert all(0 <= key < 2**63 for key in keys)
    assert sorted(permutation(1, 2, 50)) == list(range(50))
    assert list(permutation(1, 2, 50)) != list(permutation(1, 3, 50))


def test_two_scales_are_bounds_and_more_are_choices(tiny_params: Params) -> None:
    def heights(scale: list[float]) -> set[int]:
        config = tiny_params.base.segment.model_copy(update={"scale": scale, "crop": 32})
        rng = np.random.default_rng(0)
        return {draw_crop(rng, (200, 100), config).height for _ in range(300)}

    assert heights([0.5, 0.75, 1.5]) == {100, 150, 300}
    between = heights([0.5, 1.5])
    assert len(between) > 50
    assert min(between) >= 100
    assert max(between) <= 300


def test_random_erasing_fills_one_rectangle_of_the_drawn_area() -> None:
    torch.manual_seed(0)
    images, fill = torch.full((300, 3, 40, 60), 0.9), torch.tensor([0.1, 0.2, 0.3])
    out = erase(images, torch.rand(300, 5), fill, 0.5, (0.02, 0.2))
    gone = (out != images).all(1)
    assert torch.equal(gone, (out != images).any(1))
    shares = []
    for mask, image in zip(gone, out, strict=True):
        if not mask.any():
            continue
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.all()
        assert (image[:, rows[0], columns[0]] == fill).all()
        shares.append(float(mask.float().mean()))
    assert 110 < len(shares) < 190
    assert 0.01 < min(shares) < 0.04
    assert 0.17 < max(shares) < 0.21
    assert torch.equal(erase(images, torch.rand(300, 5), fill, 0.0, (0.02, 0.2)), images)
