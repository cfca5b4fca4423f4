"""The script that looks for waits and loops in training steps."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.conftest import load_script
from wsss.constants import constant


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("benchmarks/step_trace.py")


def test_numbers_sent_to_the_device_are_counted(script: ModuleType) -> None:
    like = torch.zeros(2)
    constant([1.0, 2.0], like)  # the first time it is made, then kept
    with script.Numbers() as numbers:
        like.new_tensor([1.0, 2.0])
        torch.tensor([1.0], device=like.device)
        torch.tensor([1.0])
        torch.full((3,), 2.0, device=like.device)
        constant([1.0, 2.0], like)
    names = sorted(name.split(" in ")[0] for name in numbers.found)
    assert names == ["new_tensor", "tensor"]
    assert all(Path(__file__).name in name for name in numbers.found)


def test_views_keep_their_share_of_the_crop(script: ModuleType, tmp_path: Path) -> None:
    def params(variant: str) -> dict[str, object]:
        return dict(
            script.tiny(variant, "classify", 2, 96, tmp_path).resolve(variant).method.params
        )

    assert params("rtc")["view_size"] == 27  # 2/7
    assert params("muscle")["view"] == 1.0
    assert "view_size" not in params("baseline")


@pytest.mark.parametrize(
    ("variant", "stage", "terms"),
    [
        ("muscle", "classify", {"focal", "soft", "rank", "er", "imc", "pix", "emd"}),
        ("muscle", "segment", {"ce", "beacon"}),
        ("rtc", "classify", {"cls", "er", "nce_intra", "com", "seg"}),
    ],
)
def test_the_last_step_waits_for_nothing(
    script: ModuleType, variant: str, stage: str, terms: set[str]
) -> None:
    """All of its phases: MuSCLe has two."""
    found = script.trace(variant, stage, 2, 64)
    assert terms <= set(found.terms)
    assert {name for name in found.calls if " in " in name} == set()
    assert found.calls["aten::convolution_backward"] > 0
