"""Walked scores and what becomes background in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from wsss.artifacts import Entry
from wsss.config import Params
from wsss.config.resolve import overlay
from wsss.config.schema import Walk
from wsss.refine.pairs import half_disc_offsets
from wsss.refine.paths import boundary_affinity
from wsss.stages.background import add_background
from wsss.stages.pseudo import pseudo_mask
from wsss.stages.refining import Job
from wsss.stages.walk import walked

SIZE = (8, 12)


def config(raw: dict[str, Any], **walk: Any) -> Walk:
    merged = overlay(raw, {"walk": {"steps": 64, "beta": 10, "radius": 3, **walk}})
    return Params(merged).base.walk


def entry(*cams: np.ndarray) -> Entry:
    array = np.stack(cams).astype(np.float16) if cams else np.zeros((0, *SIZE), np.float16)
    return Entry(array, list(range(len(cams))), (4 * SIZE[0], 4 * SIZE[1]))


def spot(y: int, x: int, value: float = 1.0) -> np.ndarray:
    cam = np.zeros(SIZE)
    cam[y, x] = value
    return cam


def walled(column: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A boundary map with one closed wall, and the affinities it leaves."""
    edge = torch.zeros(SIZE)
    edge[:, column] = 1
    return boundary_affinity(edge[None], half_disc_offsets(3))[0], edge


def test_scores_fill_a_region_up_to_its_boundary(raw_params: dict[str, Any]) -> None:
    affinities, edge = walled(6)
    walk = config(raw_params, background="threshold")
    scores = walked(entry(spot(4, 1)), affinities, edge, walk)
    assert scores.shape == (1, *SIZE)
    assert scores.max() == pytest.approx(1, abs=1e-3)
    assert scores[0, :, :6].min() > 0.2
    assert scores[0, :, 7:].max() == 0


def test_the_weaker_class_stays_weaker(raw_params: dict[str, Any]) -> None:
    """One maximum divides all classes of an image."""
    affinities, edge = walled(6)
    walk = config(raw_params, background="threshold")
    scores = walked(entry(spot(4, 1), spot(4, 9, 0.25)), affinities, edge, walk)
    assert scores[0].max() == pytest.approx(1, abs=1e-3)
    assert 0.1 < scores[1].max() < 0.5


def test_activations_on_a_boundary_are_suppressed_where_asked(raw_params: dict[str, Any]) -> None:
    affinities, edge = walled(6)
    on_wall = entry(spot(4, 6))
    kept, dropped = (
        walked(on_wall, affinities, edge, config(raw_params, background="threshold", **extra))
        for extra in ({"suppress_edges": False}, {"suppress_edges": True})
    )
    assert kept.max() > 0.9
    assert dropped.max() == 0


def test_a_power_sharpens_the_activations(raw_params: dict[str, Any]) -> None:
    affinities, _ = walled(6)
    cams = entry(spot(4, 1) + spot(4, 9, 0.5))
    plain, sharp = (
        walked(cams, affinities, None, config(raw_params, background="threshold", power=power))
        for power in (1, 2)
    )
    # The two peaks are apart: their ratio is that of the activations.
    ratio = [float(s[0, :, 7:].max() / s[0, :, :6].max()) for s in (plain, sharp)]
    assert ratio[1] == pytest.approx(ratio[0] / 2, rel=0.05)


def test_a_walked_background_is_a_channel_of_its_own(raw_params: dict[str, Any]) -> None:
    affinities, _ = walled(6)
    scores = walked(entry(spot(4, 1)), affinities, None, config(raw_params, background="alpha"))
    assert scores.shape == (2, *SIZE)


@pytest.mark.parametrize(("background", "channels"), [("alpha", 1), ("threshold", 0)])
def test_an_image_without_tags_is_background(
    raw_params: dict[str, Any], background: str, channels: int
) -> None:
    affinities, edge = walled(6)
    scores = walked(entry(), affinities, edge, config(raw_params, background=background))
    assert scores.shape == (channels, *SIZE)
    classes = [0] if background == "alpha" else []
    job = Job(np.zeros((32, 48, 3), np.uint8), Entry(scores, classes, (32, 48)))
    threshold = None if background == "alpha" else 0.3
    assert (pseudo_mask(job, None, threshold)[0] == 0).all()


def test_what_stays_below_the_threshold_is_background() -> None:
    scores = np.stack([np.full(SIZE, 0.5), np.full(SIZE, 0.1)])
    scores[0, :, 6:] = 0.2
    job = Job(np.zeros((32, 48, 3), np.uint8), Entry(scores.astype(np.float16), [2, 4], (32, 48)))
    (mask,) = pseudo_mask(job, None, 0.3)
    assert mask[0, 0] == 3
    assert mask[0, -1] == 0
    assert add_background(job, None) is job
    added = add_background(job, 0.3).entry
    assert added.classes == [0, 3, 5]
    np.testing.assert_allclose(added.array[0], 0.3, rtol=1e-3)
