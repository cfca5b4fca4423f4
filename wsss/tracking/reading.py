"""Results that go away while they are read: no fault of the store's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from wsss.errors import UserError


@contextmanager
def reading() -> Iterator[None]:
    """Turn a file of the results that cannot be read into one line that names it."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"a result cannot be read ({error}): if something works on the results, run "
            "`wsss publish` when it is done"
        ) from error
