"""Reads the bytes of images and masks, from files or from members of a zip, and decodes them.

A path is relative to the data root; ``archive.zip::member`` names a member of an archive there.
Every picture is brought upright by its own EXIF tag before anything else sees it. An image and
its mask are therefore compared as a viewer displays them: annotation tools draw on the upright
picture, so a mask (whose file rarely has EXIF) has the size of the upright image.
"""

from __future__ import annotations

import io
import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from wsss.errors import UserError
from wsss.labels import IGNORE

MEMBER = "::"
_ORIENTATION = 0x0112
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
# What Pillow's decoders raise on damaged files, besides its own OSErrors.
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


Reason = Literal["missing", "unreadable"]


class FileError(UserError):
    """One image or mask file cannot be used; ``reason`` says in which way."""

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message)
        self.reason: Reason = reason

    def __reduce__(self) -> tuple[type[FileError], tuple[str, Reason]]:
        return FileError, (str(self), self.reason)


class _Archives:
    """Open zip archives of this process, reopened when the file changed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.opened: dict[Path, tuple[tuple[int, int, int], zipfile.ZipFile]] = {}

    def get(self, path: Path) -> zipfile.ZipFile:
        stat = path.stat()
        state = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        with self.lock:
            held = self.opened.get(path)
            if held is None or held[0] != state:
                held = (state, zipfile.ZipFile(path))
                self.opened[path] = held
        return held[1]


_archives = _Archives()


def _forget_archives() -> None:
    """A forked child must not share file offsets or a held lock with its parent."""
    global _archives
    _archives = _Archives()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_archives)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Translate what reading bytes can raise into :class:`FileError`."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, KeyError) as error:
        raise FileError(f"{path} does not exist", "missing") from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError) as error:
        raise FileError(f"{path} cannot be read ({error})", "unreadable") from error


def read_bytes(root: Path, path: str) -> bytes:
    """Return a file's bytes; thread and fork safe. Raises :class:`FileError`."""
    archive, separator, member = path.partition(MEMBER)
    with _reading(path):
        if separator:
            return _archives.get(root / archive).read(member)
        return (root / path).read_bytes()


def exists(root: Path, path: str) -> bool:
    """Whether ``path`` names a file or an archive's member under ``root``."""
    archive, separator, member = path.partition(MEMBER)
    if not separator:
        return (root / path).is_file()
    try:
        _archives.get(root / archive).getinfo(member)
    except (OSError, KeyError, zipfile.BadZipFile):
        return False
    return True


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """Open a picture; whatever its decoding raises inside becomes a :class:`FileError`."""
    # Pillow reports no truncation once it has all rows, which small flat masks reach early.
    if data.startswith(b"\x89PNG") and b"IEND" not in data:
        raise FileError(f"{name} is truncated", "unreadable")
    try:
        with Image.open(io.BytesIO(data)) as image:
            yield image
    except FileError:
        raise
    except _DECODING_ERRORS as error:
        reason = "not a picture" if isinstance(error, UnidentifiedImageError) else error
        raise FileError(f"{name} cannot be decoded ({reason})", "unreadable") from error


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation 1..8; broken EXIF data counts as upright, as in viewers."""
    if image.format == "TIFF":
        image.load()  # Pillow turns TIFF pixels itself and then drops the tag.
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _DECODING_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (TIFF 6.0, tag 274) of an (H, W, ...) array."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _rgb(image: Image.Image, name: str) -> np.ndarray:
    """Convert any mode to (H, W, 3) uint8, as stored (not yet upright)."""
    if image.mode in _SIXTEEN_BIT:
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise FileError(f"{name} has more than 16 bits a pixel: save it as 8 bit", "unreadable")
        # The full 16-bit range maps to the full 8-bit range, whatever the picture uses of it.
        narrow = ((grey * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(narrow[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise FileError(f"{name} has floating point pixels: save it as 8 bit", "unreadable")
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA")).astype(np.uint16)
        alpha = rgba[:, :, 3:]
        return ((rgba[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.asarray(image.convert("RGB"))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode a picture to upright RGB (H, W, 3) uint8.

    Grey, palette, CMYK and 16-bit pictures are converted; transparency is laid over white.
    Raises :class:`FileError` naming ``name`` when it is damaged or of no usable kind.
    """
    with _opened(data, name) as image:
        orientation = _orientation(image)
        return _upright(_rgb(image, name), orientation)


def _ids(image: Image.Image, name: str) -> np.ndarray:
    """The class ids a mask file holds, (H, W) uint8, as stored."""
    pixels = np.asarray(image)
    if pixels.ndim == 3:
        channels = pixels[:, :, : 1 if image.mode in ("LA", "PA") else 3]
        if (channels != channels[:, :, :1]).any():
            raise FileError(
                f"{name} is a colour picture: save class ids as a grey or palette PNG", "unreadable"
            )
        pixels = channels[:, :, 0]
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > IGNORE:
        raise FileError(f"{name} holds values outside 0..255: save ids as 8 bit", "unreadable")
    return pixels.astype(np.uint8)


def decode_mask(data: bytes, name: str) -> np.ndarray:
    """Decode a mask to upright class ids as the file holds them, (H, W) uint8.

    Palette files give their indices, grey files (8, 16 or 1 bit, or stored as RGB) their values.
    Raises :class:`FileError` naming ``name`` when it is damaged or holds colours instead of ids.
    """
    with _opened(data, name) as image:
        orientation = _orientation(image)
        return _upright(_ids(image, name), orientation)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    orientation = _orientation(image)
    width, height = image.size
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def image_size(data: bytes, name: str) -> tuple[int, int]:
    """The upright (H, W) from a picture's header alone. Raises :class:`FileError`."""
    with _opened(data, name) as image:
        return _upright_size(image)


def probe_image(data: bytes, name: str) -> tuple[tuple[int, int], bool]:
    """Decode all pixels once to find damage: upright (H, W), and whether EXIF rotates or flips it.

    Raises :class:`FileError` for whatever :func:`decode_image` would refuse.
    """
    with _opened(data, name) as image:
        size, turned = _upright_size(image), _orientation(image) != 1
        if image.mode in _SIXTEEN_BIT or image.mode == "F":
            _rgb(image, name)
        image.load()
        return size, turned
