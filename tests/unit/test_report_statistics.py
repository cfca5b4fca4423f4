"""Per-image counts and the paired bootstrap, against a naive loop and closed forms."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.errors import UserError
from wsss.metrics.confusion import confusion, pairs, scores
from wsss.report.counts import (
    Counts,
    count,
    image_iou,
    mean_image_iou,
    mean_iou,
    read_counts,
)
from wsss.report.statistics import (
    paired,
    percentile_interval,
    resampled,
    same_images,
    score,
    weights,
)

N = 4


def masks(seed: int, images: int, noise: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Truth, the same for every ``noise``, and a prediction that is wrong at that rate."""
    truths = np.random.default_rng(seed).integers(N, size=(images, 6, 7))
    generator = np.random.default_rng([seed, int(1000 * noise)])
    wrong = generator.random(truths.shape) < noise
    drawn = np.where(wrong, generator.integers(N, size=truths.shape), truths)
    return list(zip(truths, drawn, strict=True))


def counted(images: list[tuple[np.ndarray, np.ndarray]], total: int | None = None) -> Counts:
    cells = [
        (f"i{number:02}", *cell)
        for number, (truth, drawn) in enumerate(images)
        for cell in pairs(confusion(truth, drawn, N))
    ]
    return count(cells, N, total or len(images))


def test_counts_add_up_to_the_confusion_matrix() -> None:
    images = masks(0, 5, 0.4)
    whole = sum(confusion(truth, drawn, N) for truth, drawn in images)
    found = counted(images)
    assert found.hit.sum(0).tolist() == np.diagonal(whole).tolist()
    assert found.truth.sum(0).tolist() == whole.sum(1).tolist()
    assert found.predicted.sum(0).tolist() == whole.sum(0).tolist()
    assert score(found) == pytest.approx(scores(whole).miou, abs=1e-12)


def test_an_absent_class_is_left_out_as_in_the_score() -> None:
    hit, union = np.array([3, 0, 0, 1]), np.array([4, 0, 2, 1])
    assert mean_iou(hit, union) == pytest.approx((0.75 + 0 + 1) / 3)
    assert math.isnan(mean_iou(np.zeros(3), np.zeros(3)))


def test_resamples_are_those_of_a_naive_loop() -> None:
    """Draw images, sum their confusion matrices, score the sum."""
    images = [masks(1, 7, noise) for noise in (0.1, 0.5)]
    samples = 130  # more than one chunk
    found = resampled([counted(one) for one in images], samples, seed=3)
    assert found.shape == (2, samples)
    drawn = np.concatenate(list(weights(7, samples, 3))).astype(int)
    assert (drawn.sum(1) == 7).all()
    for run, pairs_ in enumerate(images):
        matrices = [confusion(truth, pred, N) for truth, pred in pairs_]
        for sample in range(samples):
            total = sum(w * m for w, m in zip(drawn[sample], matrices, strict=True))
            assert found[run, sample] == pytest.approx(scores(np.asarray(total)).miou, abs=1e-12)


def test_images_are_drawn_with_replacement_and_evenly() -> None:
    drawn = np.concatenate(list(weights(5, 4000, 0)))
    assert drawn.sum(1).min() == drawn.sum(1).max() == 5
    assert drawn.mean(0) == pytest.approx(np.ones(5), abs=0.06)
    # Binomial(5, 1/5): variance 0.8.
    assert drawn.var(0) == pytest.approx(np.full(5, 0.8), abs=0.08)


def test_equal_images_leave_no_doubt() -> None:
    """Whatever is drawn, the sums are the same up to nothing: an interval of no width."""
    truth, drawn = masks(2, 1, 0.3)[0]
    runs = counted([(truth, drawn)] * 6)
    found = paired({"a": [runs]}, 200, 0, 0.95).scores["a"]
    assert found.low == pytest.approx(found.value, abs=1e-12)
    assert found.high == pytest.approx(found.value, abs=1e-12)


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    """One class, equal unions: the IoU is a mean of 0 and 1, whose deviation is known."""
    images, hits = 400, 240
    hit = (np.arange(images) < hits).astype(np.int64)[:, None] * 10
    union = np.full((images, 1), 10, np.int64)
    ids = tuple(f"{i:03}" for i in range(images))
    found = paired({"a": [Counts(ids, hit, union, hit)]}, 4000, 0, 0.95).scores["a"]
    deviation = math.sqrt(0.6 * 0.4 / images)
    assert found.value == pytest.approx(0.6)
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.05)


def test_pairing_removes_what_is_common() -> None:
    """B is A with one more pixel wrong in every image: hard images are hard for both."""
    generator = np.random.default_rng(5)
    truth = np.full((60, 1), 100, np.int64)
    hit = generator.integers(20, 90, size=(60, 1))
    ids = tuple(f"{i:03}" for i in range(60))
    a, b = Counts(ids, hit, truth, hit), Counts(ids, hit - 1, truth, hit - 1)
    found = paired({"a": [a], "b": [b]}, 1000, 0, 0.95)
    assert found.differences["a", "b"].low == pytest.approx(0.01)
    assert found.differences["a", "b"].high == pytest.approx(0.01)
    assert found.differences["a", "b"].excludes_zero
    # Each alone is far less certain than their difference.
    assert found.scores["a"].high - found.scores["a"].low > 0.05
    back = found.differences["b", "a"]
    assert (back.low, back.high) == pytest.approx((-0.01, -0.01))


def test_a_run_against_itself_is_zero() -> None:
    one = counted(masks(4, 9, 0.3))
    found = paired({"a": [one], "b": [one]}, 300, 0, 0.9).differences["a", "b"]
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert not found.excludes_zero


def test_seeds_are_averaged_in_every_resample() -> None:
    first, second = counted(masks(6, 8, 0.2)), counted(masks(6, 8, 0.6))
    table = resampled([first, second], 500, 1)
    found = paired({"a": [first, second]}, 500, 1, 0.8).scores["a"]
    assert found.value == pytest.approx((score(first) + score(second)) / 2)
    low, high = np.quantile(table.mean(0), [0.1, 0.9])
    assert (found.low, found.high) == pytest.approx((low, high))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.integers(2, 9), st.floats(0.05, 0.9))
def test_intervals_hold_for_any_runs(seed: int, images: int, noise: float) -> None:
    runs = {"a": [counted(masks(seed, images, noise))], "b": [counted(masks(seed, images, 0.5))]}
    found = paired(runs, 100, seed, 0.95)
    for interval in found.scores.values():
        assert 0 <= interval.low <= interval.high <= 1
    forth, back = found.differences["a", "b"], found.differences["b", "a"]
    assert forth.value == pytest.approx(found.scores["a"].value - found.scores["b"].value)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))
    assert found == paired(runs, 100, seed, 0.95)


def test_a_wider_confidence_is_a_wider_interval() -> None:
    draws = np.linspace(0, 1, 1001)
    assert percentile_interval(0.5, draws, 0.9)[1:] == pytest.approx((0.05, 0.95))
    assert percentile_interval(0.5, draws, 0.5)[1:] == pytest.approx((0.25, 0.75))
    assert math.isnan(percentile_interval(0.5, np.array([np.nan]), 0.5).low)


def test_images_without_known_pixels_are_drawn_too() -> None:
    """They hold nothing, but they are on the list that images are drawn from."""
    images = masks(7, 4, 0.3)
    short, padded = counted(images), counted(images, total=40)
    assert len(padded.hit) == 40
    assert score(short) == score(padded)
    wide = paired({"a": [padded]}, 400, 0, 0.95).scores["a"]
    narrow = paired({"a": [short]}, 400, 0, 0.95).scores["a"]
    assert wide.high - wide.low > narrow.high - narrow.low


def test_other_images_are_not_paired() -> None:
    one = counted(masks(0, 5, 0.4))
    assert same_images([one, counted(masks(0, 5, 0.1))])
    assert not same_images([one, counted(masks(1, 5, 0.4))])
    assert not same_images([one, counted(masks(0, 4, 0.4))])


# Single images


def test_the_iou_of_an_image_leaves_background_out() -> None:
    truth = np.array([[0, 0, 1, 1], [2, 2, 0, 0]])
    drawn = np.array([[0, 0, 1, 0], [3, 2, 0, 0]])
    found = counted([(truth, drawn), (np.zeros((2, 2), int), np.zeros((2, 2), int))])
    values = image_iou(found)
    assert values[0] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert math.isnan(values[1])  # neither shows an object
    assert mean_image_iou([found]) == {"i00": pytest.approx(1 / 3)}


# Files

TABLE = "id,gt,pred,count\na,0,0,6\na,1,0,2\nb,1,1,8\n"


def test_a_table_of_counts_is_read(tmp_path: Path) -> None:
    path = tmp_path / "final.images.csv"
    path.write_text(TABLE)
    found = read_counts(path, 2, 2, (6 / 8 + 8 / 10) / 2)
    assert found.ids == ("a", "b")
    assert found.hit.tolist() == [[6, 0], [0, 8]]
    assert found.union.tolist() == [[8, 2], [0, 8]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE.replace(",2\n", ",3\n"), "the json beside it 0.775000"),
        ("id,gt,pred\na,0,0\n", "no table of image counts"),
        (TABLE.replace("b,1,1", "b,1,7"), "beyond 0..1"),
        (TABLE.replace("8", "many"), "no table of image counts"),
        (TABLE + "c,0,0,1\n", "more images than the 2 of the scores"),
    ],
)
def test_a_table_that_does_not_belong_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "final.images.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_counts(path, 2, 2, 0.775)
