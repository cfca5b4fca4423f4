"""The log file of a job."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from pathlib import Path

from wsss.distributed.place import place
from wsss.errors import UserError

log = logging.getLogger("wsss")


def has_log_file() -> bool:
    """Return whether messages go to a file."""
    return any(isinstance(handler, logging.FileHandler) for handler in log.handlers)


class _LogFile(logging.FileHandler):
    """A log that ends where its disk is full: the job itself finds that out, and says it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802
        if isinstance(sys.exc_info()[1], OSError):
            log.removeHandler(self)
            logging.getLogger("py.warnings").removeHandler(self)
            with suppress(OSError):
                self.close()


def log_to(path: Path, verbose: bool) -> None:
    """Send messages to a file of the job's own, warnings (all, if verbose) to the terminal.

    Of several training processes, the first alone sends more than warnings.
    """
    here = place()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if here.rank == 0:
            path.write_bytes(b"")
        # Several processes may write: each line goes to the end.
        file = _LogFile(path, mode="a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the log file {path}: {error.strerror}") from error
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    console = logging.StreamHandler()
    console.setLevel(logging.INFO if verbose and here.rank == 0 else logging.WARNING)
    file.setLevel(logging.WARNING if here.rank else logging.NOTSET)
    console.addFilter(lambda record: record.levelno < logging.ERROR)
    console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    for logger in (log, logging.getLogger("py.warnings")):
        for handler in logger.handlers:
            handler.close()
        logger.handlers[:] = [file, console]
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
