"""Files that are there complete or not at all, alone or several together."""

from __future__ import annotations

import errno
import glob
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from wsss.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
# A process on another machine cannot be asked whether it lives. Every file is written in one go,
# so one that nobody touched for a day has been given up.
_ABANDONED_SECONDS = 24 * 3600

# What waits for the end of a `together` block: temporary names and final ones.
_waiting: ContextVar[list[tuple[Path, Path]] | None] = ContextVar("_waiting", default=None)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk or a closed folder into a :class:`UserError` that names ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise UserError(f"disk full while writing {path}: free some space and rerun") from error
        if error.errno in _CLOSED:
            raise UserError(
                f"cannot write {path}: check the folder and its permissions ({error.strerror})"
            ) from error
        raise


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; rename it there on success, remove it on any error.

    An earlier ``path`` stays untouched until the new one is complete. A full disk or a folder
    that cannot be written is a :class:`UserError` that names the path. What killed processes
    left of the same path is removed.
    """
    path = Path(path)
    temporary = _temporary(path)
    waiting, done = _waiting.get(), False
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path)
            yield temporary
            if waiting is None:
                temporary.replace(path)
            else:
                waiting.append((temporary, path))
            done = True
        finally:
            if not done:
                _discard(temporary)


@contextmanager
def together() -> Iterator[None]:
    """Let files that are written in the block appear at its end, or none of them on any error."""
    if _waiting.get() is not None:  # the outer block decides
        yield
        return
    waiting: list[tuple[Path, Path]] = []
    token = _waiting.set(waiting)
    try:
        yield
        for temporary, path in waiting:
            with writing(path):
                temporary.replace(path)
    finally:
        _waiting.reset(token)
        for temporary, _ in waiting:
            _discard(temporary)


def check_writable(path: Path) -> None:
    """Raise the :class:`UserError` of a closed folder now, not after hours of work."""
    temporary = _temporary(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        temporary.touch()
        temporary.unlink()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}.tmp")


def _discard(temporary: Path) -> None:
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove what killed processes left of ``path``."""
    start = f".{path.name}."
    for found in path.parent.glob(f"{glob.escape(start)}*.tmp"):
        host, _, number = found.name.removeprefix(start).removesuffix(".tmp").rpartition("-")
        with suppress(OSError):
            if host == platform.node() and number.isdecimal():
                abandoned = not _alive(int(number))
            else:
                abandoned = time.time() - found.stat().st_mtime > _ABANDONED_SECONDS
            if abandoned:
                found.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
