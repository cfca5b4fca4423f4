"""RTC before its first step, on real photos, beside the log that the official code ships.

Comparable: the three contrasts, whose scale is ln(C + 1), here with VOC's 20 classes; ``er``,
``ecr`` and ``com``, means over 20 classes of normalised maps. Of ``min`` the size is that of
another backbone's features; ``seg`` is 0 at the start.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import load_script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that prints docs/methods/rtc.md's table."""
    return load_script("docs/rtc_start.py")


def test_losses_start_where_the_official_log_starts(
    script: ModuleType, voc_root: Path, tmp_path: Path
) -> None:
    (terms,) = script.starts(voc_root, tmp_path, 1, 4)
    for name in script.CONTRASTS:
        assert terms[name] == pytest.approx(script.LOG[name], rel=0.1), name
    # Maps of another network differ by more than contrasts do.
    for name in ("er", "ecr", "com"):
        assert script.LOG[name] / 2 < terms[name] < 2 * script.LOG[name], name
    # Scores say little yet: not far from chance.
    assert 0.8 * math.log(2) < terms["cls"] < 1.3 * math.log(2)
    assert terms["seg"] == 0


def test_the_table_has_a_row_a_term(script: ModuleType) -> None:
    terms = {name: value for name, value in script.LOG.items() if "+" not in name}
    lines = script.table([terms | {"cls": 0.7, "min": 0.5}, terms | {"cls": 0.8, "min": 0.5}])
    assert "| `ecr` | 0.40 | 0.401 | +0 % |" in lines
    assert "| `cls` + `min` | 1.20 – 1.30 | 1.228 | +2 % |" in lines
