"""The configuration on the page: exactly what the stages of a variant read."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.made_results import params_of
from wsss.config import Params, stage_params
from wsss.pictures.choice import ranked
from wsss.pipeline import stages_run
from wsss.report.blocks import Code, Fold, Legend, Table
from wsss.report.configuration import (
    blocks,
    described,
    flat,
    nested_yaml,
    plain,
    read_keys,
)

REPORTED = ["segment", "predict", "crf", "evaluate"]


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ({"road": "supervised"}, REPORTED),
        (
            {"refine": {"method": "none"}},
            ["classify", "cam", "seeds_label", "pseudo", *REPORTED, "evaluate_cam"],
        ),
        (
            {"refine": {"method": "irnet"}, "segment": {"labels": "soft"}},
            [
                *("classify", "cam", "seeds_confident", "irnet", "edges", "walk", "pseudo"),
                *("soft", *REPORTED, "evaluate_cam", "evaluate_walk", "seeds_label"),
            ],
        ),
        (
            {"refine": {"method": "affinitynet"}, "segment": {"ignore_below": 0.5}},
            [
                *("classify", "cam", "seeds_alpha", "affinity", "walk", "pseudo"),
                *("soft", *REPORTED, "evaluate_cam", "evaluate_walk", "seeds_label"),
            ],
        ),
        (
            {"road": "single-stage"},
            ["classify", "cam", "predict", "crf", "evaluate", "evaluate_cam", "seeds_label"],
        ),
    ],
)
def test_stages_are_those_of_the_workflow(
    tiny_raw: dict[str, Any], overlay: dict[str, Any], expected: list[str]
) -> None:
    params = Params({**tiny_raw, "variants": {"one": overlay}})
    assert set(stages_run(params.resolve("one"))) - {"evaluate_tune"} == set(expected)


def test_a_variant_shows_what_its_stages_read_and_nothing_else(tiny_raw: dict[str, Any]) -> None:
    params = params_of(tiny_raw)
    irnet, supervised = (read_keys(params.resolve(name)) for name in ("irnet", "supervised"))
    assert irnet["irnet.lr"] == params.base.irnet.lr
    assert irnet["walk.background"] == "threshold"
    assert not [key for key in irnet if key.startswith("affinity.") and "radius" not in key][3:]
    assert not [key for key in supervised if key.startswith(("cam.", "walk.", "seeds."))]
    for stage in stages_run(params.resolve("irnet")):
        for key, value in flat(stage_params(params.resolve("irnet"), stage)).items():
            assert irnet[key] == value


def test_differences_come_first(tiny_raw: dict[str, Any]) -> None:
    params = params_of(tiny_raw)
    _, legend, differing, common, complete = blocks(described(params))
    assert isinstance(legend, Legend)
    assert isinstance(differing, Table)
    rows = {
        str(row[0]): [getattr(cell, "text", cell) for cell in row[1:]] for row in differing.rows
    }
    assert rows["refine.method"] == ["none", "irnet", "–"]
    # Keys that only some variants read are no difference.
    assert not [key for key in rows if key.startswith("irnet.")]
    assert rows["road"] == ["two-stage", "two-stage", "supervised"]
    assert isinstance(common, Fold)
    (code,) = common.blocks
    assert isinstance(code, Code)
    assert "lr: 0.0004" in code.text
    assert not set(flat(yaml.safe_load(code.text))) & set(rows)
    assert isinstance(complete, Fold)


def test_one_variant_has_no_differences(tiny_raw: dict[str, Any]) -> None:
    values = described(params_of(tiny_raw, run={"variants": ["supervised"]}))
    kinds = [block.kind for block in blocks(values)]
    assert kinds == ["text", "fold"]


def test_a_section_that_only_some_variants_have_is_a_difference() -> None:
    """Null in one variant, numbers in another: no YAML holds both."""
    values = {"a": {"s.x": None, "s.y": 1}, "b": {"s.x.p": 2, "s.x.q.r": 3, "s.y": 1}}
    table = next(block for block in blocks(values) if isinstance(block, Table))
    assert [list(row) for row in table.rows] == [
        ["s.x", "null", "–"],
        ["s.x.p", "–", "2"],
        ["s.x.q.r", "–", "3"],
    ]
    common = next(block for block in blocks(values) if isinstance(block, Fold))
    (code,) = common.blocks
    assert isinstance(code, Code)
    assert yaml.safe_load(code.text) == {"s": {"y": 1}}


def test_values_are_written_as_in_yaml() -> None:
    assert [plain(v) for v in (None, True, 0.5, [1, 2], "a: b", {})] == [
        *("null", "true", "0.5", "[1, 2]", "'a: b'", "{}"),
    ]
    values = {"a.b": 1, "a.c.d": [1.0], "e": None}
    assert flat(yaml.safe_load(nested_yaml(values))) == values


def test_images_are_ranked_and_equals_go_by_name() -> None:
    values = {"e": 0.1, "d": 0.5, "c": 0.5, "b": 0.9, "a": 0.9}
    assert ranked(values, 2) == {"best": ["a", "b"], "median": ["b", "c"], "worst": ["d", "e"]}
    assert ranked(values, 1) == {"best": ["a"], "median": ["c"], "worst": ["e"]}
    assert ranked({"a": 1.0}, 3) == {"best": ["a"], "median": ["a"], "worst": ["a"]}
    assert ranked({}, 3) == {"best": [], "median": [], "worst": []}
