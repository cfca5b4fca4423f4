"""Multi-scale inference against explicit loops and networks whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from wsss.config.schema import Compute, Predict
from wsss.data.manifest import Item
from wsss.errors import UserError
from wsss.grids import grid_of
from wsss.inference.cam import multi_scale_cam
from wsss.inference.images import batches_by_size, windows
from wsss.inference.prediction import Predictor, predict_window
from wsss.inference.scales import aligned, multi_scale
from wsss.inference.segmentation import multi_scale_scores
from wsss.losses.normalisation import divided_by_peak
from wsss.shards import WINDOW, shard_bounds

STRIDE = 8
SCALES = [0.5, 1.0, 1.5]
GRID = (12, 16)
Network = Callable[[Tensor], Tensor]


def pooled(images: Tensor) -> Tensor:
    """A network that commutes with mirroring: means of cells."""
    return F.avg_pool2d(images, STRIDE)


def directed(images: Tensor) -> Tensor:
    """A network that does not: it looks to its left."""
    return pooled(images) - 0.5 * F.pad(pooled(images), (1, 0))[..., :-1]


def constant(images: Tensor) -> Tensor:
    return torch.full((len(images), 3, *(s // STRIDE for s in images.shape[2:])), 0.25)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))


def explicit(network: Network, images: Tensor, scales: list[float], flip: bool) -> list[Tensor]:
    """Every pass alone, written out."""
    passes = []
    for scale in scales:
        size = tuple(max(1, round(s * scale / STRIDE)) * STRIDE for s in images.shape[2:])
        scaled = F.interpolate(
            images, size, mode="bilinear", align_corners=False, antialias=scale < 1
        )
        for mirrored in (False, True)[: 1 + flip]:
            maps = network(scaled.flip(3) if mirrored else scaled)
            maps = maps.flip(3) if mirrored else maps
            passes.append(F.interpolate(maps, GRID, mode="bilinear", align_corners=False))
    return passes


# Scales


@given(
    length=st.integers(1, 5000),
    scale=st.floats(0.1, 4),
    multiple=st.sampled_from([8, 16, 32]),
)
def test_aligned_lengths_are_the_nearest_multiples(
    length: int, scale: float, multiple: int
) -> None:
    result = aligned(length, scale, multiple)
    assert result % multiple == 0
    assert result >= multiple
    assert result == multiple or abs(result - length * scale) <= multiple / 2 + 1e-6


def test_grid_is_rounded_up() -> None:
    assert grid_of((375, 500), 4) == (94, 125)
    assert grid_of((4, 5), 4) == (1, 2)
    assert grid_of((1, 1), 4) == (1, 1)


@pytest.mark.parametrize("network", [pooled, directed])
@pytest.mark.parametrize("flip", [False, True])
def test_passes_are_those_of_an_explicit_loop(images: Tensor, network: Network, flip: bool) -> None:
    got = list(multi_scale(network, images, SCALES, flip, GRID, STRIDE))
    expected = explicit(network, images, SCALES, flip)
    assert len(got) == len(expected) == len(SCALES) * (1 + flip)
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.shape == (2, 3, *GRID)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


def test_flipping_is_undone(images: Tensor) -> None:
    """A network that commutes with mirroring gives a pass and its mirrored twin alike."""
    passes = list(multi_scale(pooled, images, SCALES, True, GRID, STRIDE))
    for plain, mirrored in zip(passes[::2], passes[1::2], strict=True):
        torch.testing.assert_close(plain, mirrored, rtol=0, atol=1e-6)
    passes = list(multi_scale(directed, images, [1.0], True, GRID, STRIDE))
    assert not torch.allclose(*passes, atol=1e-3)


def test_the_network_sees_aligned_sizes_and_half_precision_is_widened(images: Tensor) -> None:
    seen = []

    def network(batch: Tensor) -> Tensor:
        seen.append(tuple(batch.shape))
        return pooled(batch).bfloat16()

    for maps in multi_scale(network, images[..., :61], [0.5, 1.0], True, (3, 5), STRIDE):
        assert maps.dtype == torch.float32
        assert maps.shape == (2, 3, 3, 5)
    assert seen == [(4, 3, 24, 32), (4, 3, 48, 64)]


def test_scaling_may_be_plain(images: Tensor) -> None:
    def itself(batch: Tensor) -> Tensor:
        return batch

    size = (aligned(images.shape[2], 0.5, STRIDE), aligned(images.shape[3], 0.5, STRIDE))
    for smooth in (True, False):
        (got,) = multi_scale(itself, images, [0.5], False, size, STRIDE, antialias=smooth)
        wanted = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=smooth)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)


def test_a_constant_network_stays_constant(images: Tensor) -> None:
    for maps in multi_scale(constant, images, SCALES, True, GRID, STRIDE):
        torch.testing.assert_close(maps, torch.full((2, 3, *GRID), 0.25))


def test_an_image_smaller_than_a_cell(images: Tensor) -> None:
    (maps,) = multi_scale(pooled, images[:, :, :1, :2], [0.5], False, (1, 1), STRIDE)
    assert maps.shape == (2, 3, 1, 1)
    assert maps.isfinite().all()


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
def test_images_may_be_resized_bicubically(images: Tensor, scale: float) -> None:
    """As PIL does it, and within the range of bytes."""
    seen: list[Tensor] = []

    def network(batch: Tensor) -> Tensor:
        seen.append(batch)
        return pooled(batch)

    list(multi_scale(network, images, [scale], False, GRID, STRIDE, resize="bicubic"))
    size = (round(64 * scale), round(48 * scale))
    for image, got in zip(images, seen[0], strict=True):
        for plane, found in zip(image, got, strict=True):
            resized = Image.fromarray(plane.numpy()).resize(size, Image.Resampling.BICUBIC)
            expected = torch.from_numpy(np.asarray(resized).copy()).clamp(0, 1)
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


# CAMs


@pytest.mark.parametrize("flip", [False, True])
def test_cams_are_sums_divided_by_their_maximum(images: Tensor, flip: bool) -> None:
    def network(batch: Tensor) -> Tensor:
        return directed(batch).relu()

    cams = multi_scale_cam(network, images, SCALES, flip, GRID, STRIDE, divided_by_peak)
    total = torch.stack(explicit(network, images, SCALES, flip)).sum(0)
    torch.testing.assert_close(cams, total / (total.amax((2, 3), keepdim=True) + 1e-5))
    assert cams.shape == (2, 3, *GRID)
    assert cams.min() >= 0
    assert cams.max() <= 1
    # Each class of each image reaches its maximum by itself.
    assert cams.amax((2, 3)).min() > 0.999


@pytest.mark.parametrize("flip", [False, True])
def test_the_higher_of_both_flips_may_count(images: Tensor, flip: bool) -> None:
    def network(batch: Tensor) -> Tensor:
        return directed(batch).relu()

    cams = multi_scale_cam(
        *(network, images, SCALES, flip, GRID, STRIDE, divided_by_peak), flip_combine="max"
    )
    total = torch.zeros(2, 3, *GRID)
    for scale in SCALES:
        total += torch.stack(explicit(network, images, [scale], flip)).amax(0)
    torch.testing.assert_close(cams, divided_by_peak(total))


def test_a_class_without_evidence_stays_at_zero(images: Tensor) -> None:
    silent = torch.tensor([1.0, 0.0, 1.0])[:, None, None]
    cams = multi_scale_cam(
        lambda b: pooled(b) * silent, images, SCALES, True, GRID, STRIDE, divided_by_peak
    )
    assert (cams[:, 1] == 0).all()
    assert cams[:, 0].max() > 0.99
    assert cams.isfinite().all()


# Probabilities


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [SCALES, [1.0], [2.0, 0.75, 1.0], [1.0, 1.0]])
def test_probabilities_are_those_of_an_explicit_loop(
    images: Tensor, scales: list[float], flip: bool
) -> None:
    def network(batch: Tensor) -> Tensor:
        return 5 * directed(batch)

    got = multi_scale_scores(network, images, scales, flip, GRID, STRIDE)
    passes = torch.stack([logits.softmax(1) for logits in explicit(network, images, scales, flip)])
    torch.testing.assert_close(got.combined, passes.mean(0), rtol=0, atol=1e-6)
    (alone,) = explicit(network, images, [1.0], False)
    torch.testing.assert_close(got.single, alone.softmax(1), rtol=0, atol=1e-6)
    for probabilities in got:
        torch.testing.assert_close(probabilities.sum(1), torch.ones(2, *GRID))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [SCALES, [1.0], [2.0, 0.75, 1.0]])
def test_highest_logits_are_those_of_an_explicit_loop(
    images: Tensor, scales: list[float], flip: bool
) -> None:
    def network(batch: Tensor) -> Tensor:
        return 5 * directed(batch)

    got = multi_scale_scores(network, images, scales, flip, GRID, STRIDE, combine="max_logits")
    best = torch.full((2, 3, *GRID), -torch.inf)
    for scale in scales:
        both = torch.stack(explicit(network, images, [scale], flip))
        best = torch.maximum(best, both.sum(0))
    torch.testing.assert_close(got.combined, best.softmax(1), rtol=0, atol=1e-6)
    (alone,) = explicit(network, images, [1.0], False)
    torch.testing.assert_close(got.single, alone.softmax(1), rtol=0, atol=1e-6)


def test_highest_logits_need_logits(images: Tensor) -> None:
    with pytest.raises(ValueError, match="gives scores"):
        multi_scale_scores(
            *(pooled, images, SCALES, True, GRID, STRIDE), logits=False, combine="max_logits"
        )
    predictor = Predictor(torch.nn.Identity(), None, STRIDE, pooled)
    photo = np.zeros((32, 32, 3), np.uint8)
    config = Predict(scales=[1.0], flip=False, combine="max_logits", batch=1, stride=4)
    compute = Compute(device="cpu", precision="fp32", threads=1, channels_last=False, compile=False)
    with pytest.raises(UserError, match="set it to mean"):
        predict_window(predictor, [photo], config, compute, torch.device("cpu"))
    (found,) = predict_window(
        *(predictor._replace(logits=pooled), [photo], config, compute, torch.device("cpu"))
    )
    assert found.classes == [0, 1, 2]
    assert np.allclose(found.scores, 1 / 3)


def test_scores_are_averaged_as_they_come(images: Tensor) -> None:
    """Gated classes and a constant background need not sum to 1, and no softmax makes them."""

    def network(batch: Tensor) -> Tensor:
        return torch.cat([torch.full_like(pooled(batch)[:, :1], 0.17), pooled(batch)], 1)

    got = multi_scale_scores(network, images, SCALES, True, GRID, STRIDE, logits=False)
    passes = torch.stack(explicit(network, images, SCALES, True))
    torch.testing.assert_close(got.combined, passes.mean(0), rtol=0, atol=1e-6)
    torch.testing.assert_close(got.combined[:, 0], torch.full_like(got.combined[:, 0], 0.17))
    (alone,) = explicit(network, images, [1.0], False)
    torch.testing.assert_close(got.single, alone, rtol=0, atol=1e-6)


def test_probabilities_need_scale_one(images: Tensor) -> None:
    with pytest.raises(UserError, match=r"predict\.scales is \[0\.5, 2\.0\]: it must contain 1\.0"):
        multi_scale_scores(pooled, images, [0.5, 2.0], True, GRID, STRIDE)


# Shards and batches


@given(
    count=st.integers(0, 2000),
    shards=st.integers(1, 50),
    window=st.sampled_from([1, 7, WINDOW]),
)
def test_shards_are_whole_windows_and_together_everything(
    count: int, shards: int, window: int
) -> None:
    bounds = [shard_bounds(count, shard, shards, window) for shard in range(shards)]
    covered = [index for start, stop in bounds for index in range(start, stop)]
    assert covered == list(range(count))
    for start, stop in bounds:
        assert 0 <= start <= stop <= count
        # A cut only where a new window starts: each image keeps the neighbours of its batch.
        assert start % window == 0 or start == count
        assert stop % window == 0 or stop == count
    # As equal as whole windows allow.
    windows_of = [-(-(stop - start) // window) for start, stop in bounds]
    assert max(windows_of) - min(windows_of) <= 1


SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(deadline=None)
@given(sizes=st.lists(SIZES, max_size=20), batch=st.integers(1, 5))
def test_batches_hold_every_image_once(sizes: list[tuple[int, int]], batch: int) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]
    seen: list[int] = []
    for indices, tensor in batches_by_size(pictures, batch):
        assert 1 <= len(indices) <= batch
        assert tensor.shape == (len(indices), 3, *sizes[indices[0]])
        assert tensor.dtype == torch.float32
        for index, image in zip(indices, tensor, strict=True):
            expected = pictures[index].transpose(2, 0, 1).astype(np.float32) / 255
            np.testing.assert_array_equal(image.numpy(), expected)
        seen += indices
    assert sorted(seen) == list(range(len(sizes)))


class FakeManifest:
    """Reads an image whose first pixel is the number in its id."""

    def read_image(self, item: Item) -> np.ndarray:
        return np.full((2, 2, 3), int(item.id), np.uint8)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("count", [0, 1, WINDOW, WINDOW + 1, 2 * WINDOW + 3])
def test_windows_are_consecutive_and_in_order(count: int, workers: int) -> None:
    items = [Item(str(k), "", None, (), ()) for k in range(count)]
    manifest: Any = FakeManifest()
    lengths = []
    ids: list[str] = []
    for held, pictures in windows(manifest, items, workers, "test"):
        assert [int(picture[0, 0, 0]) for picture in pictures] == [int(item.id) for item in held]
        lengths.append(len(held))
        ids += [item.id for item in held]
    assert ids == [item.id for item in items]
    full, rest = divmod(count, WINDOW)
    assert lengths == [WINDOW] * full + [rest] * bool(rest)


def test_sharded_windows_are_those_of_one_run() -> None:
    """The images that share a window, and with it a batch, are the same for any number of parts."""
    count, manifest = 3 * WINDOW + 5, FakeManifest()
    items = [Item(str(k % 256), "", None, (), ()) for k in range(count)]

    def split(shards: int) -> list[list[str]]:
        found = []
        for shard in range(shards):
            start, stop = shard_bounds(count, shard, shards)
            read: Any = manifest
            found += [[i.id for i in held] for held, _ in windows(read, items[start:stop], 0, "t")]
        return found

    assert split(1) == split(2) == split(3) == split(7)
