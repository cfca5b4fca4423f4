"""The folder in which an unfinished job keeps what the same command continues from.

It lies where no workflow rule declares an output, and its name holds a hash of everything the
result depends on: after any change, however small, the job starts afresh.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from wsss.atomic import writing
from wsss.context import Context
from wsss.errors import UserError

_LOCK = "lock"
# A process that was told to end first finishes its step.
_PATIENCE = 30.0


def file_digest(paths: Sequence[Path]) -> str:
    """Return a hash of the content of input artifacts.

    Content, because times change when results are copied or touched. A second for each gigabyte
    is nothing beside the job that reads it next, from memory by then.
    """
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        try:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, hashlib.blake2b).digest())
        except FileNotFoundError as error:
            raise UserError(f"{path} does not exist: run the stage that makes it first") from error
    return digest.hexdigest()


def state_folder(
    context: Context, ids: Iterable[str], inputs: Sequence[Path], part: str = ""
) -> Path:
    """Return the folder of a job's state.

    Args:
        ids: images the job works on, in order.
        inputs: artifacts the result depends on beside the manifest.
        part: what tells this job from others of the same stage.
    """
    images = hashlib.blake2b("\n".join(ids).encode(), digest_size=8).hexdigest()
    job = f"{context.stage}.{part}" if part else context.stage
    return context.paths.state(job, f"{context.key}-{file_digest(inputs)}-{images}")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Create ``folder`` and hold it alone; on success delete it, and the job's outdated ones.

    Raises UserError while another process works on the very same job, such as one that outlived
    a killed workflow.
    """
    with writing(folder):
        lock = _acquire(folder)
    try:
        yield
        job = folder.name.partition("-")[0]
        for outdated in folder.parent.glob(f"{glob.escape(job)}-*"):
            _remove(outdated)
    except BaseException:
        if not any(path.name != _LOCK for path in folder.glob("*")):
            _remove(folder)
        raise
    finally:
        os.close(lock)


def _acquire(folder: Path) -> int:
    """Return an open lock file, locked where the file system can; ends with the process."""
    path, deadline = folder / _LOCK, time.monotonic() + _PATIENCE
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # Not flock, which data-loading processes would inherit and hold on to.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            os.close(lock)
            if time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise UserError(
                f"another process is at work on this very job (it holds {path}): wait for it, or "
                "end it and rerun"
            ) from error
        except OSError:  # a file system without locks
            return lock
        # A job that has just ended may have deleted the file between the two calls.
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(lock).st_ino:
                return lock
        os.close(lock)


def _remove(folder: Path) -> None:
    """Delete a state folder, the lock last: until then no other job takes the rest for its own."""
    with suppress(OSError):
        for path in sorted(folder.iterdir(), key=lambda path: path.name == _LOCK):
            path.unlink()
        folder.rmdir()
