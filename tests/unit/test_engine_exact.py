"""TF32 is off inside the block, and as before after it."""

from __future__ import annotations

import pytest
import torch

from wsss.engine.exact import exact_fp32


def allowed() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_both_switches_are_off_and_restored() -> None:
    before = allowed()
    with exact_fp32():
        assert allowed() == (False, False)
    assert allowed() == before
    with pytest.raises(ZeroDivisionError), exact_fp32():
        _ = 1 / 0
    assert allowed() == before
