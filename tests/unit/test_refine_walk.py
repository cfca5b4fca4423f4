"""The sparse random walk equals the dense definition on any grid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wsss.losses.affinity import affinity
from wsss.refine.pairs import half_disc_offsets
from wsss.refine.walk import random_walk, transition


def random_affinity(grid: tuple[int, int], radius: int, seed: int, scale: float = 1.0) -> Tensor:
    features = torch.randn(1, 3, *grid, generator=torch.Generator().manual_seed(seed)) * scale
    return affinity(features, half_disc_offsets(radius))[0]


def random_scores(grid: tuple[int, int], classes: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(classes, *grid, generator=torch.Generator().manual_seed(seed))


def dense_transition(values: Tensor, radius: int, beta: float) -> Tensor:
    """T of the paper, entry by entry in double precision: columns sum to 1."""
    _, height, width = values.shape
    matrix = torch.eye(height * width, dtype=torch.float64)
    for p, (dy, dx) in enumerate(half_disc_offsets(radius)):
        for y in range(height):
            for x in range(width):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    i, j = y * width + x, (y + dy) * width + x + dx
                    matrix[i, j] = matrix[j, i] = float(values[p, y, x])
    powered = matrix**beta
    return powered / powered.sum(dim=0, keepdim=True)


def dense_walk(scores: Tensor, values: Tensor, radius: int, beta: float, squarings: int) -> Tensor:
    matrix = dense_transition(values, radius, beta)
    for _ in range(squarings):
        matrix = matrix @ matrix
    return (scores.double().reshape(len(scores), -1) @ matrix).reshape(scores.shape)


@settings(max_examples=40, deadline=None)
@given(
    h=st.integers(1, 9),
    w=st.integers(1, 9),
    radius=st.integers(1, 6),
    beta=st.sampled_from([1.0, 2.5, 8.0]),
    squarings=st.integers(0, 8),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
    seed=st.integers(0, 1000),
)
def test_equals_the_dense_definition(
    h: int, w: int, radius: int, beta: float, squarings: int, scale: float, seed: int
) -> None:
    values, scores = random_affinity((h, w), radius, seed, scale), random_scores((h, w))
    expected = dense_walk(scores, values, radius, beta, squarings)
    result = random_walk(scores, values, radius, beta, 2**squarings)
    torch.testing.assert_close(result.double(), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("grid", [(6, 5), (1, 4), (1, 1)])
def test_transition_is_the_transposed_matrix(grid: tuple[int, int]) -> None:
    values = random_affinity(grid, 5, 0)
    matrix = transition(values, half_disc_offsets(5), 8)
    expected = dense_transition(values, 5, 8).T
    torch.testing.assert_close(matrix.to_dense().double(), expected, rtol=1e-5, atol=1e-9)


def test_odd_numbers_of_steps() -> None:
    values, scores = random_affinity((5, 6), 3, 0), random_scores((5, 6))
    once = random_walk(scores, values, 3, 8, 1)
    torch.testing.assert_close(
        random_walk(once, values, 3, 8, 2), random_walk(scores, values, 3, 8, 3)
    )


def test_no_steps_change_nothing() -> None:
    values, scores = random_affinity((5, 6), 3, 0), random_scores((5, 6))
    assert torch.equal(random_walk(scores, values, 3, 8, 0), scores)


def test_constant_maps_and_ranges_are_kept() -> None:
    values, scores = random_affinity((13, 17), 5, 0), random_scores((13, 17))
    scores[0] = 0.25
    result = random_walk(scores, values)
    torch.testing.assert_close(result[0], scores[0], rtol=1e-4, atol=0)
    assert result.min() >= scores.min() - 1e-5
    assert result.max() <= scores.max() + 1e-5


def test_classes_walk_independently() -> None:
    values, scores = random_affinity((7, 8), 5, 0), random_scores((7, 8), classes=5)
    alone = torch.cat([random_walk(score[None], values) for score in scores])
    torch.testing.assert_close(random_walk(scores, values), alone)


def test_scores_stay_within_a_region() -> None:
    # Two regions of features so different that no step crosses.
    features = torch.zeros(1, 2, 8, 12)
    features[..., 6:] = 1e3
    values = affinity(features, half_disc_offsets(5))[0]
    scores = torch.zeros(1, 8, 12)
    scores[0, 4, 2] = 1
    result = random_walk(scores, values)[0]
    assert (result[:, 6:] == 0).all()
    assert (result[:, :6] > 0).all()
    # After many steps a region of equal affinities forgets where its score came from.
    assert float(result[:, :6].max() / result[:, :6].min()) < 1.3


def test_what_is_outside_the_grid_is_not_read() -> None:
    offsets = half_disc_offsets(5)
    values, scores = random_affinity((4, 5), 5, 0), random_scores((4, 5))
    strange = torch.where(values == 0, 7.0, values)
    assert (strange != values).any()
    torch.testing.assert_close(random_walk(scores, strange), random_walk(scores, values))
    assert len(strange) == len(offsets)


def test_half_precision_scores_and_inference_mode() -> None:
    values, scores = random_affinity((6, 7), 5, 0), random_scores((6, 7))
    with torch.inference_mode():
        result = random_walk(scores.half(), values)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, random_walk(scores, values), rtol=1e-3, atol=1e-3)


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    random_walk(random_scores((3, 3)), random_affinity((3, 3), 5, 0), steps=1)
    assert torch.get_num_threads() == before


def test_no_classes() -> None:
    result = random_walk(random_scores((3, 4), classes=0), random_affinity((3, 4), 5, 0))
    assert result.shape == (0, 3, 4)


def test_bad_shapes() -> None:
    values = random_affinity((3, 4), 5, 0)
    with pytest.raises(ValueError, match="differ in size"):
        random_walk(random_scores((4, 3)), values)
    with pytest.raises(ValueError, match="expected 4 x h x w"):
        random_walk(random_scores((3, 4)), values, radius=2)
    with pytest.raises(ValueError, match="negative"):
        random_walk(random_scores((3, 4)), values, steps=-1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees() -> None:
    values, scores = random_affinity((21, 30), 5, 0), random_scores((21, 30))
    result = random_walk(scores.cuda(), values.cuda())
    assert result.is_cuda
    torch.testing.assert_close(result.cpu(), random_walk(scores, values), rtol=1e-4, atol=1e-6)
