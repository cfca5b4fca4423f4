"""Variants that take the first stages from another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wsss.config import Params
from wsss.config.resolve import overlay
from wsss.errors import UserError
from wsss.paths import Paths


def params(raw: dict[str, Any], **variants: Any) -> Params:
    return Params(overlay(raw, {"run": {"variants": ["baseline"]}, "variants": variants}))


def test_a_variant_inherits_the_overlays_of_those_it_shares_from(
    raw_params: dict[str, Any],
) -> None:
    found = params(
        raw_params,
        first={"refine": {"method": "irnet"}},
        second={"share": {"from": "first", "through": "pseudo"}, "segment": {"width": 7}},
    ).resolve("second")
    assert found.refine.method == "irnet"
    assert found.segment.width == 7


def test_folders_are_held_by_the_variant_that_makes_them(raw_params: dict[str, Any]) -> None:
    three = params(
        raw_params,
        refined={"share": {"from": "baseline", "through": "seeds"}, "refine": {"method": "irnet"}},
        wide={"share": {"from": "refined", "through": "pseudo"}, "segment": {"width": 7}},
    )
    assert three.owners("baseline") == {}
    held = three.owners("wide")
    assert {held[name] for name in ("classify", "cam", "seeds")} == {"baseline"}
    assert {held[name] for name in ("irnet", "walk", "pseudo")} == {"refined"}
    assert "segment" not in held
    assert held["metrics/cam"] == "baseline"
    assert held["metrics/walk_tune"] == "refined"
    assert "metrics/final" not in held
    paths = Paths(Path("r"), "d", "wide", 3, held)
    assert paths.store("cam", "maps") == Path("r/d/baseline/seed3/cam/maps.zip")
    assert paths.store("walk", "scores") == Path("r/d/refined/seed3/walk/scores.zip")
    assert paths.weights("segment") == Path("r/d/wide/seed3/segment/weights.safetensors")
    assert paths.metrics("cam_tune") == Path("r/d/baseline/seed3/metrics/cam_tune")


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"a": {"share": {"from": "b", "through": "cam"}}}, "share.from is 'b'"),
        ({"a": {"share": {"from": "baseline", "through": "walks"}}}, "share.through is 'walks'"),
        ({"a": {"share": "baseline"}}, "write share"),
        (
            {
                "a": {"share": {"from": "b", "through": "cam"}},
                "b": {"share": {"from": "a", "through": "cam"}},
            },
            "circle",
        ),
        (
            {"a": {"share": {"from": "baseline", "through": "cam"}, "classify": {"epochs": 99}}},
            "changes 'classify'",
        ),
    ],
)
def test_mistakes_are_one_line(
    raw_params: dict[str, Any], variants: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        params(raw_params, **variants).resolve("a")
    assert "\n" not in str(caught.value)


def test_the_twin_is_supervised_with_the_same_network(raw_params: dict[str, Any]) -> None:
    found = Params(
        overlay(
            raw_params,
            {
                "run": {"variants": ["weak", "wide", "other", "bound", "wide-bound"]},
                "variants": {
                    "weak": {},
                    "wide": {
                        "share": {"from": "weak", "through": "pseudo"},
                        "segment": {"width": 7},
                    },
                    "other": {"segment": {"width": 9}},
                    "bound": {"road": "supervised"},
                    "wide-bound": {"road": "supervised", "segment": {"width": 7}},
                },
            },
        )
    )
    assert found.twin("weak") == "bound"
    assert found.twin("wide") == "wide-bound"
    assert found.twin("wide-bound") == "wide-bound"
    assert found.twin("other") is None
