"""Photos from folders, globs and single files: which ones, under which name, decoded to a bound."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from wsss.data.images import FileError, decode_image, read_bytes
from wsss.errors import UserError
from wsss.inference.windowed import windowed

# What is taken from a folder; a file that is named is read whatever it is called.
SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp"),
        *(".tif", ".tiff", ".avif", ".jp2", ".j2k", ".jpx", ".mpo", ".ppm", ".pgm", ".pbm"),
        *(".pnm", ".tga", ".ico", ".dds", ".psd", ".qoi", ".sgi", ".rgb", ".pcx"),
    )
)


class Source(NamedTuple):
    """One input file and the relative name, without suffix, of what is made from it."""

    path: Path
    name: str


class Photo(NamedTuple):
    """One readable photo: (H, W, 3) uint8 no larger than the bound, and its full (H, W)."""

    source: Source
    image: np.ndarray
    size: tuple[int, int]


class Failure(NamedTuple):
    """One file that could not be read, and why, in one line."""

    source: Source
    reason: str


def find_photos(patterns: Sequence[str], skip: Path | None = None) -> list[Source]:
    """Return the files that ``patterns`` name, sorted by output name, each once.

    Args:
        patterns: folders (searched in depth, hidden files left out), globs (``**`` too), files.
        skip: a folder that is not searched: the output, should it lie among the inputs.

    Returns:
        Names mirror the folders below the common parent of all inputs, so files of one name in
        two folders stay apart; files that differ in their suffix only keep it.

    Raises:
        UserError: a pattern names nothing, or a folder holds no picture.
    """
    found: dict[Path, Path] = {}
    roots: list[Path] = []
    hidden = skip.resolve() if skip else None
    for pattern in patterns:
        root, paths = _match(pattern)
        kept = [p for p in paths if hidden is None or hidden not in p.resolve().parents]
        if not kept:
            raise UserError(f"--images {pattern}: no picture there")
        roots.append(root.absolute())
        for path in kept:
            found.setdefault(path.resolve(), path.absolute())
    top = Path(os.path.commonpath(roots))
    return _named(sorted(found.values()), top)


def _match(pattern: str) -> tuple[Path, list[Path]]:
    """The folder that a pattern's names are relative to, and its files."""
    path = Path(pattern).expanduser()
    if path.is_dir():
        return path, _below(path)
    if path.is_file():
        return path.parent, [path]
    if not glob.has_magic(pattern):
        raise UserError(f"--images {pattern}: no such file or folder")
    fixed = Path(*_fixed_parts(path))
    matches = (Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207
    files: list[Path] = []
    for match in sorted(matches):
        files += _below(match) if match.is_dir() and "**" not in pattern else [match]
    return fixed, [file for file in files if _is_picture(file)]


def _fixed_parts(path: Path) -> Iterator[str]:
    """The leading parts of a glob that hold no wildcard."""
    for part in path.parts[:-1]:
        if glob.has_magic(part):
            return
        yield part


def _below(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if _is_picture(path, folder)]


def _is_picture(path: Path, folder: Path | None = None) -> bool:
    parts = path.relative_to(folder).parts if folder else (path.name,)
    if any(part.startswith(".") for part in parts):
        return False
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _named(paths: Sequence[Path], top: Path) -> list[Source]:
    """Give every file its output name."""
    relative = {path: path.relative_to(top) for path in paths}
    bare = {path: short.with_suffix("").as_posix() for path, short in relative.items()}
    # Lower case: some file systems do not tell A from a.
    uses = Counter(name.lower() for name in bare.values())
    names = {p: relative[p].as_posix() if uses[bare[p].lower()] > 1 else bare[p] for p in paths}
    twice = [name for name, n in Counter(v.lower() for v in names.values()).items() if n > 1]
    if twice:
        raise UserError(f"two images would both be written as {twice[0]!r}: rename one of them")
    return sorted((Source(path, name) for path, name in names.items()), key=lambda s: s.name)


def read_photo(source: Source, longest_side: int) -> Photo | Failure:
    """Decode one file, upright; shrink it if its longer side exceeds ``longest_side`` pixels."""
    try:
        image = decode_image(read_bytes(source.path.parent, source.path.name), str(source.path))
    except FileError as error:
        # The bytes are read by the bare name: errors shall name what the user gave.
        text = str(error)
        return Failure(source, text if str(source.path) in text else f"{source.path}: {text}")
    size = (image.shape[0], image.shape[1])
    return Photo(source, bounded(image, longest_side), size)


def bounded(image: np.ndarray, longest_side: int) -> np.ndarray:
    """Shrink an (H, W, 3) uint8 image to at most ``longest_side`` pixels; never enlarge it."""
    height, width = image.shape[:2]
    factor = longest_side / max(height, width)
    if factor >= 1:
        return image
    small = (max(1, round(width * factor)), max(1, round(height * factor)))
    # Pillow's bilinear averages over what it shrinks, so nothing is aliased.
    return np.asarray(Image.fromarray(image).resize(small, Image.Resampling.BILINEAR))


class _Photos(Dataset[Photo | Failure]):
    """The files as the loader's workers read them."""

    def __init__(self, sources: Sequence[Source], longest_side: int) -> None:
        self.sources = list(sources)
        self.longest_side = longest_side

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Photo | Failure:
        return read_photo(self.sources[index], self.longest_side)


def _readable(item: Photo | Failure) -> bool:
    return isinstance(item, Photo)


def photo_windows(
    sources: Sequence[Source], longest_side: int, workers: int
) -> Iterator[tuple[list[Photo], list[Failure]]]:
    """Yield windows of readable photos, with the failures met on the way.

    Windows are those of the prediction stage, so that the same images share batches.
    """
    dataset = _Photos(sources, longest_side)
    for held in windowed(dataset, workers, "predict", _readable):
        photos = [item for item in held if isinstance(item, Photo)]
        yield photos, [item for item in held if isinstance(item, Failure)]
