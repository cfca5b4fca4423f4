"""resize_bilinear is torch's bilinear interpolation without torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.refine.resize import resize_bilinear

sides = st.integers(1, 40)


def reference(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    batch = torch.from_numpy(array.astype(np.float32))[None]
    out = torch.nn.functional.interpolate(batch, size=size, mode="bilinear", align_corners=False)
    return out[0].numpy()


@settings(max_examples=60, deadline=None)
@given(h=sides, w=sides, height=st.integers(1, 120), width=st.integers(1, 120), k=st.integers(1, 3))
def test_equals_torch(h: int, w: int, height: int, width: int, k: int) -> None:
    array = np.random.default_rng(h * 41 + w).random((k, h, w), dtype=np.float32)
    result = resize_bilinear(array, (height, width))
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result, reference(array, (height, width)), atol=1e-5)


def test_equals_torch_at_photo_size() -> None:
    array = np.random.default_rng(0).random((3, 94, 125)).astype(np.float16)
    np.testing.assert_allclose(
        resize_bilinear(array, (375, 500)), reference(array, (375, 500)), atol=1e-5
    )


def test_identity_is_a_copy() -> None:
    array = np.random.default_rng(0).random((2, 5, 7), dtype=np.float32)
    result = resize_bilinear(array, (5, 7))
    np.testing.assert_array_equal(result, array)
    assert not np.shares_memory(result, array)


def test_no_maps_give_no_maps() -> None:
    assert resize_bilinear(np.zeros((0, 3, 4)), (6, 8)).shape == (0, 6, 8)


@pytest.mark.parametrize("shape", [(3, 4), (1, 0, 4), (1, 2, 3, 4)])
def test_bad_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="K x h x w"):
        resize_bilinear(np.zeros(shape), (6, 8))


def test_bad_size() -> None:
    with pytest.raises(ValueError, match="positive size"):
        resize_bilinear(np.zeros((1, 3, 4)), (0, 8))
