"""Artifacts on disk: atomic and deterministic, one file a stage and split, no pickles.

The same inputs give the same bytes. What is not reproducible (git revision, wall time, memory)
goes to a ``*.run.json`` beside the artifact, see :mod:`wsss.runrecord`.
"""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from PIL import Image

from wsss.atomic import atomic_path
from wsss.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
INDEX_MEMBER = "index.json"
METADATA_KEY = "wsss"


def json_bytes(value: Any) -> bytes:
    """Canonical JSON: sorted keys, two spaces, a newline at the end."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def save_json(path: Path | str, value: Any) -> None:
    """Write canonical JSON atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(json_bytes(value))


def load_json(path: Path | str) -> Any:
    """Read JSON; a missing or broken file is a :class:`UserError`."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run the stage that makes it first") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): delete it and rerun") from error


def save_csv(path: Path | str, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write rows as CSV with ``\\n`` line ends, atomically."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


class Entry(NamedTuple):
    """One image of an :class:`ArrayStore`.

    ``array`` is (K, h, w) float16, ``classes`` the K class ids of its channels, ``size`` the
    (H, W) of the image in pixels.
    """

    array: np.ndarray
    classes: list[int]
    size: tuple[int, int]


class _ZipWriter:
    """A ZIP_STORED archive that appears under its name only when complete."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.index: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._context = atomic_path(self.path)
        temporary = self._context.__enter__()
        try:
            self._zip = zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True)
        except BaseException as error:
            self._context.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        try:
            if kind is None:
                self._write(INDEX_MEMBER, json_bytes(self.index))
            self._zip.close()
        except OSError as failure:
            # Let atomic_path translate a full disk and remove the partial file.
            return self._context.__exit__(type(failure), failure, failure.__traceback__)
        return self._context.__exit__(kind, error, trace)

    def _write(self, member: str, payload: bytes) -> None:
        info = zipfile.ZipInfo(member, ZIP_EPOCH)
        info.external_attr = 0o644 << 16
        self._zip.writestr(info, payload)

    def _add(self, identifier: str, member: str, payload: bytes, entry: Any) -> None:
        if identifier in self.index:
            raise ValueError(f"{identifier!r} was added to {self.path} twice")
        self.index[identifier] = entry
        self._write(member, payload)


class _ZipReader:
    """Random access to an archive; opened once a process, so it can cross fork and spawn."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"{self.path} does not exist: run the stage that makes it first")
        self._pid: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_pid": None}

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, identifier: object) -> bool:
        return identifier in self.index

    @property
    def ids(self) -> list[str]:
        """Image ids in sorted order."""
        return sorted(self.index)

    @cached_property
    def index(self) -> dict[str, Any]:
        """What the archive says of each image."""
        index: dict[str, Any] = json.loads(self._read(INDEX_MEMBER))
        return index

    @property
    def members(self) -> list[str]:
        """Names of the archive's members in the order they were added, the index left out."""
        with self._intact():
            return [name for name in self._archive().namelist() if name != INDEX_MEMBER]

    def close(self) -> None:
        """Close the file until it is read again."""
        if self._pid == os.getpid():
            self._zip.close()
        self._pid = None

    def _archive(self) -> zipfile.ZipFile:
        if self._pid != os.getpid():
            self._zip = zipfile.ZipFile(self.path)
            self._pid = os.getpid()
        return self._zip

    @contextmanager
    def _intact(self) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, EOFError) as error:
            raise UserError(f"{self.path} is damaged ({error}): delete and rerun") from error

    def _read(self, member: str) -> bytes:
        try:
            with self._intact():
                return self._archive().read(member)
        except KeyError as error:
            raise UserError(
                f"{self.path} holds no {member!r}: it belongs to another manifest; "
                "delete it and rerun its stage"
            ) from error


class ArrayStoreWriter(_ZipWriter):
    """Writes per-image class maps; use as a context manager."""

    def add(
        self, identifier: str, array: np.ndarray, classes: Sequence[int], size: tuple[int, int]
    ) -> None:
        """Add a (K, h, w) array (stored as float16) of an image of ``size`` (H, W)."""
        if array.ndim != 3 or len(array) != len(classes):
            raise ValueError(f"{identifier}: {array.shape} does not match {len(classes)} classes")
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array, dtype=np.float16), allow_pickle=False)
        entry = {"classes": [int(c) for c in classes], "size": [int(s) for s in size]}
        self._add(identifier, f"{identifier}.npy", buffer.getvalue(), entry)


class ArrayStore(_ZipReader):
    """Reads what :class:`ArrayStoreWriter` wrote."""

    def get(self, identifier: str) -> Entry:
        """Return one image's maps; an unknown id is a :class:`UserError`."""
        payload = io.BytesIO(self._read(f"{identifier}.npy"))
        entry = self.index[identifier]
        height, width = entry["size"]
        array = np.load(payload, allow_pickle=False)
        return Entry(array, list(entry["classes"]), (height, width))


def voc_palette() -> list[int]:
    """The 256-colour palette of PASCAL VOC's masks, flat RGB."""
    palette = []
    for index in range(256):
        red = green = blue = 0
        value = index
        for shift in range(7, -1, -1):
            red |= (value & 1) << shift
            green |= (value >> 1 & 1) << shift
            blue |= (value >> 2 & 1) << shift
            value >>= 3
        palette += [red, green, blue]
    return palette


_PALETTE = voc_palette()


def encode_mask(mask: np.ndarray) -> bytes:
    """An (H, W) uint8 mask as a PNG with VOC's palette; the same mask gives the same bytes."""
    image = Image.fromarray(mask)
    image.putpalette(_PALETTE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


class MaskStoreWriter(_ZipWriter):
    """Writes label maps as palette PNGs; use as a context manager."""

    def add(self, identifier: str, mask: np.ndarray) -> None:
        """Add an (H, W) uint8 mask; 255 means ignore."""
        if mask.dtype != np.uint8 or mask.ndim != 2:
            raise ValueError(f"{identifier}: a mask is (H, W) uint8, not {mask.shape} {mask.dtype}")
        height, width = mask.shape
        self.add_encoded(identifier, encode_mask(mask), (height, width))

    def add_encoded(self, identifier: str, payload: bytes, size: tuple[int, int]) -> None:
        """Add what :func:`encode_mask` made of a mask of ``size`` (H, W), in another process."""
        self._add(identifier, f"{identifier}.png", payload, [int(s) for s in size])


class MaskStore(_ZipReader):
    """Reads what :class:`MaskStoreWriter` wrote."""

    def get(self, identifier: str) -> np.ndarray:
        """Return one image's (H, W) uint8 mask; an unknown id is a :class:`UserError`."""
        with Image.open(io.BytesIO(self._read(f"{identifier}.png"))) as image:
            return np.array(image, dtype=np.uint8)


def merge_stores(parts: Sequence[Path | str], out: Path | str) -> None:
    """Join shards of contiguous ids into the bytes that one run would have written."""
    readers = [_ZipReader(part) for part in parts]
    with _ZipWriter(out) as writer:
        for reader in readers:
            for member in reader.members:
                identifier = member.rpartition(".")[0]
                if identifier in writer.index:
                    raise UserError(
                        f"{reader.path}: {identifier!r} is there twice: name each part once"
                    )
                writer._add(identifier, member, reader._read(member), reader.index[identifier])
            # There may be more parts than a process may have files open.
            reader.close()


def stored_ids(path: Path) -> list[str] | None:
    """Return the sorted image ids of a store; None if it is not there or not whole."""
    try:
        reader = _ZipReader(path)
        ids = reader.ids
    except UserError:
        return None
    reader.close()
    return ids


def save_weights(path: Path | str, state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors as safetensors with ``meta`` as one sorted-JSON metadata value.

    One key only: safetensors writes several in random order, and the bytes would differ.
    """
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    text = json.dumps(meta, sort_keys=True, separators=(",", ":"))
    # Its own way to a file leaves one with a random name behind when the process is killed.
    payload = save(tensors, {METADATA_KEY: text})
    with atomic_path(path) as temporary:
        temporary.write_bytes(payload)


def load_weights(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors (on the CPU) and metadata; a damaged file is a :class:`UserError`."""
    with _open_weights(path, "pt") as stream:
        return {name: stream.get_tensor(name) for name in stream.keys()}, _meta(stream)  # noqa: SIM118


def weights_meta(path: Path | str) -> dict[str, Any]:
    """Read the metadata of weights and none of their tensors."""
    with _open_weights(path, "np") as stream:
        return _meta(stream)


@contextmanager
def _open_weights(path: Path | str, framework: str) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework) as stream:
            yield stream
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run the stage that makes it first") from error
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error})") from error


def _meta(stream: Any) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads((stream.metadata() or {}).get(METADATA_KEY, "{}"))
    return meta
