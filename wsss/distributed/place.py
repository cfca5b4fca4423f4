"""Which of several processes this one is, as torchrun says in the environment."""

from __future__ import annotations

import os
from typing import NamedTuple

from wsss.errors import UserError

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


class Place(NamedTuple):
    """``rank`` of ``size`` processes in all, ``local`` among those of this machine."""

    rank: int
    size: int
    local: int


ALONE = Place(0, 1, 0)


def place() -> Place:
    """Return this process's place; a single process unless torchrun started several.

    Raises UserError: some of torchrun's variables are missing or are no numbers.
    """
    values = [os.environ.get(name) for name in _VARIABLES]
    if values[1] in (None, "1"):
        return ALONE
    try:
        rank, size, local = (int(value or "") for value in values)
    except ValueError as error:
        known = ", ".join(f"{n}={v}" for n, v in zip(_VARIABLES, values, strict=True))
        raise UserError(
            f"the environment names several processes but not which this one is ({known}): start "
            "it with torchrun, or unset WORLD_SIZE"
        ) from error
    return Place(rank, size, local)
