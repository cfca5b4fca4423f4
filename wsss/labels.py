"""Ids in label maps that are the same in every data set."""

from __future__ import annotations

BACKGROUND = 0
# Not labelled: no loss and no score counts it.
IGNORE = 255
