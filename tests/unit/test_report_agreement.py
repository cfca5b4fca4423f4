"""Agreement of tags, seeds, pseudo masks and predictions, counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.made_results import make_results, params_of
from wsss.data.manifest import Item, Manifest
from wsss.report.agreement import (
    Facts,
    Sources,
    agreement,
    contradictions,
    found_classes,
    image_agreement,
    joint,
    summarise,
    tagged_ids,
    unsure,
)

N = 3


def data(*tags: tuple[str, ...]) -> Manifest:
    items = tuple(Item(f"i{n}", f"i{n}.png", None, t, ("train",)) for n, t in enumerate(tags))
    roles: dict[str, str | None] = {"train": "train", "seed": None, "tune": None, "val": None}
    return Manifest("folder", Path(), ("cat", "dog"), (1, 2), (), roles, "hash", items)


def facts(
    identifier: str, seeds: set[int], pseudo: np.ndarray, prediction: np.ndarray, sure: float
) -> Facts:
    present = {
        "seeds": frozenset(seeds),
        "pseudo": found_classes(pseudo, N),
        "prediction": found_classes(prediction, N),
    }
    return Facts(identifier, present, joint(pseudo, prediction, N), sure)


A = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)
B = np.array([[0, 1, 1, 1], [0, 2, 255, 0]], np.uint8)


def test_cells_of_two_masks() -> None:
    # The pixel with 255 is left out.
    assert joint(A, B, N) == ((0, 0, 2), (0, 1, 1), (0, 2, 1), (1, 0, 1), (1, 1, 2))
    assert joint(A, B[:1], N) == ()
    assert sum(pixels for _, _, pixels in joint(A, A, N)) == A.size


def test_a_class_counts_from_a_share_of_the_image() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[0, :9] = 1
    mask[1, :10] = 2
    mask[2] = 255
    assert found_classes(mask, N) == {2}


def test_a_run_is_counted_over_images() -> None:
    manifest = data(("cat",), ("cat", "dog"))
    found = [facts("i0", {1}, A, B, 0.9), facts("i1", {1, 2}, A, A, 0.5)]
    one = summarise(manifest, {item.id: item for item in manifest.items}, found)
    cat, dog = one.classes
    assert (cat.tagged, dog.tagged) == (2, 1)
    assert cat.found == {"seeds": 1.0, "pseudo": 1.0, "prediction": 1.0}
    # The pseudo mask and the prediction of i1 hold no dog; i0 has one without the tag.
    assert dog.found == {"seeds": 1.0, "pseudo": 0.0, "prediction": 0.0}
    assert (cat.untagged, dog.untagged) == (0, 1)
    assert cat.iou == pytest.approx((2 + 4) / (4 + 4))
    assert dog.iou == 0
    assert one.same_pixels == pytest.approx((4 + 8) / (7 + 8))
    background = (2 + 4) / (5 + 4)
    assert one.mean_iou == pytest.approx((background + 6 / 8 + 0) / 3)
    assert image_agreement(found[0]) == pytest.approx(4 / 7)


def test_what_is_not_there_is_not_known() -> None:
    manifest = data(("cat",), ())
    found = [Facts("i0", {"pseudo": frozenset({1})}, (), None), Facts("i1", {}, (), 0.4)]
    one = summarise(manifest, {item.id: item for item in manifest.items}, found)
    assert one.layers == ("pseudo",)
    assert one.classes[0].found == {"pseudo": 1.0}
    assert one.classes[1].found == {"pseudo": None}
    assert (one.same_pixels, one.mean_iou, one.classes[0].iou) == (None, None, None)
    assert image_agreement(found[0]) is None


def test_the_least_confident_come_first() -> None:
    values = {"d": 0.5, "c": 0.2, "b": 0.5, "a": 0.9}
    found = [Facts(name, {}, (), value) for name, value in values.items()]
    found.append(Facts("e", {}, (), None))
    assert [one.id for one in unsure(found, 3)] == ["c", "b", "d"]
    assert len(unsure(found, 9)) == 4


def test_predictions_that_contradict_their_tags_are_listed() -> None:
    manifest = data(("cat",), ("cat", "dog"), ("cat",), ("dog",), ())
    items = {item.id: item for item in manifest.items}
    shown = {"i0": {1}, "i1": {1}, "i2": {2}, "i3": set[int](), "i4": {1}}
    found = [Facts(name, {"prediction": frozenset(p)}, (), 0.5) for name, p in shown.items()]
    found.append(Facts("i0", {}, (), None))  # not predicted: nothing to say
    entries = contradictions(found, tagged_ids(manifest, items))
    assert [(one.id, missed, more) for one, missed, more in entries] == [
        ("i2", [1], [2]),
        ("i1", [2], []),
        ("i3", [2], []),
        ("i4", [], [1]),
    ]


def test_stores_give_the_same_in_any_number_of_processes(tiny_raw: dict[str, Any]) -> None:
    params = params_of(tiny_raw)
    manifest = make_results(params, "baseline", evaluated=False)
    run = Path(params.base.run.results) / "scenes" / "baseline" / "seed0"
    sources = Sources(
        run / "seeds" / "crf.zip",
        run / "pseudo" / "masks.zip",
        run / "predict" / "masks.zip",
        run / "predict" / "scores.zip",
    )
    items = list(manifest.items)
    one = agreement(manifest, items, sources, 1)
    assert one == agreement(manifest, items, sources, 2)
    assert [fact.id for fact in one.facts] == [item.id for item in items]
    # Pseudo masks are of training images, predictions of val: nothing to compare.
    assert one.mean_iou is None
    assert all(fact.confidence is None or 0 < fact.confidence <= 1 for fact in one.facts)
