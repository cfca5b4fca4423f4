"""Decoding: every kind of picture a user may have, and every way a file can be broken."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from wsss.data import images

ORIENTATION = 0x0112


def encode(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(height: int = 5, width: int = 7) -> np.ndarray:
    return (np.arange(height * width).reshape(height, width) * 3 % 256).astype(np.uint8)


def turned(picture: Image.Image, orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encode(picture, kind, exif=exif)


def test_grey_becomes_three_equal_channels() -> None:
    result = images.decode_image(encode(Image.fromarray(ramp())), "a.png")
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, np.repeat(ramp()[..., None], 3, 2))


def test_alpha_is_laid_over_white() -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 1] = (200, 0, 100, 255)
    rgba[1, 0] = (0, 0, 0, 51)
    result = images.decode_image(encode(Image.fromarray(rgba)), "a.png")
    assert result[0, 0].tolist() == [255, 255, 255]
    assert result[0, 1].tolist() == [200, 0, 100]
    assert result[1, 0].tolist() == [204, 204, 204]


def test_palette_with_transparent_colour() -> None:
    picture = Image.fromarray(np.array([[0, 1]], np.uint8))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    result = images.decode_image(encode(picture, transparency=1), "a.png")
    assert result.tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_sixteen_bit_keeps_its_range() -> None:
    wide = np.array([[0, 65535, 32768, 257]], np.uint16)
    result = images.decode_image(encode(Image.fromarray(wide)), "a.png")
    assert result[0, :, 0].tolist() == [0, 255, 128, 1]
    assert images.probe_image(encode(Image.fromarray(wide)), "a.png") == ((1, 4), False)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "YCbCr"])
def test_any_mode_gives_rgb(mode: str) -> None:
    kind = "JPEG" if mode == "YCbCr" else "TIFF" if mode == "CMYK" else "PNG"
    data = encode(Image.new(mode, (6, 4)), kind)
    assert images.decode_image(data, "a").shape == (4, 6, 3)
    assert images.image_size(data, "a") == (4, 6)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_to_images_and_masks(kind: str, orientation: int) -> None:
    data = turned(Image.fromarray(ramp()), orientation, kind)
    with Image.open(io.BytesIO(data)) as picture:
        wanted = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(images.decode_mask(data, "a"), wanted)
    np.testing.assert_array_equal(images.decode_image(data, "a")[..., 0], wanted)
    assert images.image_size(data, "a") == wanted.shape
    assert images.probe_image(data, "a")[0] == wanted.shape


def test_broken_exif_counts_as_upright() -> None:
    data = encode(Image.fromarray(ramp()), "JPEG", exif=b"Exif\0\0garbage")
    assert images.decode_image(data, "a.jpg").shape == (5, 7, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated_files_are_refused(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    data = encode(Image.fromarray(noise), kind)
    for share in (0.3, 0.6, 0.9):
        cut = data[: int(len(data) * share)]
        for decode in (images.decode_image, images.decode_mask, images.probe_image):
            with pytest.raises(images.FileError, match=r"pic/a\.img"):
                decode(cut, "pic/a.img")


def test_a_png_without_its_end_is_truncated() -> None:
    data = encode(Image.new("L", (8, 6)))
    for length in range(len(data) - 8):
        with pytest.raises(images.FileError):
            images.decode_mask(data[:length], "m.png")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80))
def test_arbitrary_bytes_never_raise_anything_else(data: bytes) -> None:
    header = encode(Image.fromarray(ramp()))
    for blob in (data, header[:40] + data):
        for decode in (images.decode_image, images.decode_mask, images.image_size):
            with contextlib.suppress(images.FileError):
                decode(blob, "x.png")


def test_floating_point_pixels_are_refused() -> None:
    data = encode(Image.fromarray(np.ones((3, 3), np.float32)), "TIFF")
    for decode in (images.decode_image, images.decode_mask, images.probe_image):
        with pytest.raises(images.FileError, match="8 bit"):
            decode(data, "a.tif")


def test_masks_give_ids_whatever_the_file_kind() -> None:
    ids = np.array([[0, 1, 255], [2, 0, 1]], np.uint8)
    palette = Image.fromarray(ids)
    palette.putpalette(list(range(255, -1, -1)) * 3)
    kinds = [
        Image.fromarray(ids),
        palette,
        Image.fromarray(ids.astype(np.uint16)),
        Image.fromarray(np.repeat(ids[..., None], 3, 2)),
        Image.fromarray(np.stack([ids, np.full_like(ids, 255)], -1), "LA"),
    ]
    for picture in kinds:
        np.testing.assert_array_equal(images.decode_mask(encode(picture), "m.png"), ids)
    bits = Image.fromarray(ids[:1, :2] > 0)
    assert images.decode_mask(encode(bits), "m.png").tolist() == [[0, 1]]


def test_colour_and_wide_masks_are_refused() -> None:
    colours = np.zeros((2, 2, 3), np.uint8)
    colours[0, 0] = (128, 0, 0)
    with pytest.raises(images.FileError, match="colour picture"):
        images.decode_mask(encode(Image.fromarray(colours)), "m.png")
    with pytest.raises(images.FileError, match=r"outside 0\.\.255"):
        images.decode_mask(encode(Image.fromarray(np.array([[256]], np.uint16))), "m.png")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as pack:
        for index in range(4):
            pack.writestr(f"in/{index}.bin", bytes([index]) * 5000)
    return tmp_path


def test_members_and_files_are_read_and_looked_up(archive: Path) -> None:
    (archive / "plain.bin").write_bytes(b"plain")
    assert images.read_bytes(archive, "plain.bin") == b"plain"
    assert images.read_bytes(archive, "pack.zip::in/2.bin") == b"\2" * 5000
    assert images.exists(archive, "pack.zip::in/2.bin")
    assert images.exists(archive, "plain.bin")
    for path in ("pack.zip::no", "none.zip::in/2.bin", "plain.bin::x", "none.bin"):
        assert not images.exists(archive, path)
        with pytest.raises(images.FileError):
            images.read_bytes(archive, path)


def test_a_changed_archive_is_reopened(archive: Path) -> None:
    assert len(images.read_bytes(archive, "pack.zip::in/0.bin")) == 5000
    with zipfile.ZipFile(archive / "new.zip", "w") as pack:
        pack.writestr("in/0.bin", b"new")
    (archive / "new.zip").replace(archive / "pack.zip")
    assert images.read_bytes(archive, "pack.zip::in/0.bin") == b"new"


def test_a_damaged_member_is_unreadable(archive: Path) -> None:
    raw = bytearray((archive / "pack.zip").read_bytes())
    raw[1000] ^= 255
    (archive / "pack.zip").write_bytes(raw)
    with pytest.raises(images.FileError) as caught:
        images.read_bytes(archive, "pack.zip::in/0.bin")
    assert caught.value.reason == "unreadable"


def _read_often(root: Path, index: int, results: multiprocessing.Queue[bool]) -> None:
    wanted = bytes([index]) * 5000
    results.put(
        all(images.read_bytes(root, f"pack.zip::in/{index}.bin") == wanted for _ in range(200))
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_processes_share_an_archive(archive: Path) -> None:
    images.read_bytes(archive, "pack.zip::in/0.bin")  # opened in the parent
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=_read_often, args=(archive, k, results)) for k in range(4)]
    for child in children:
        child.start()
    assert [results.get(timeout=20) for _ in children] == [True] * 4
    for child in children:
        child.join()


def test_file_errors_can_cross_processes() -> None:
    error = pickle.loads(pickle.dumps(images.FileError("a.png is gone", "missing")))  # noqa: S301
    assert error.reason == "missing"
