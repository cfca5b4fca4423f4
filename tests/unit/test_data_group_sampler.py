"""Groups of images that share a class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.data.group_sampler import class_chances, group_batches
from wsss.errors import UserError


def random_labels(count: int, classes: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    table = rng.random((count, classes)) < rng.random(classes)
    table[np.arange(count), rng.integers(classes, size=count)] = True
    return torch.from_numpy(table.astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 60),
    classes=st.integers(1, 6),
    size=st.integers(1, 5),
    groups=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_every_batch_is_made_of_groups(
    count: int, classes: int, size: int, groups: int, seed: int
) -> None:
    labels = random_labels(count, classes, seed)
    orders = group_batches(labels, size * groups, size, seed)
    for epoch in range(2):
        batches = orders(epoch)
        assert batches == orders(epoch)
        assert len(batches) == max(1, count // (size * groups))
        for batch in batches:
            assert len(batch) == size * groups
            assert all(0 <= index < count for index in batch)
            for start in range(0, len(batch), size):
                group = labels[batch[start : start + size]]
                assert (group > 0).all(0).any(), "a group shares no class"


def test_no_image_comes_twice_where_there_are_enough() -> None:
    labels = random_labels(200, 4, 0)
    assert (labels.sum(0) >= 16).all()
    for batch in group_batches(labels, 16, 4, 0)(0):
        assert len(set(batch)) == 16


def test_a_class_with_fewer_images_than_a_group_repeats_them() -> None:
    labels = torch.tensor([[1.0], [1.0]])
    (batch,) = group_batches(labels, 4, 4, 0)(0)
    assert sorted(set(batch)) == [0, 1]
    assert len(batch) == 4


def test_rounds_show_every_image_of_a_class_before_any_again() -> None:
    labels = torch.ones(24, 1)
    batches = group_batches(labels, 8, 4, 3)(0)
    assert sorted(index for batch in batches for index in batch) == list(range(24))


def test_epochs_and_seeds_differ() -> None:
    labels = random_labels(40, 3, 0)
    orders, other = group_batches(labels, 8, 4, 0), group_batches(labels, 8, 4, 1)
    assert orders(0) != orders(1)
    assert orders(0) != other(0)


def test_chances_are_inverse_roots_of_frequencies() -> None:
    table = np.zeros((109, 4))
    table[:100, 0] = table[100:104, 1] = 1
    table[104:, 2] = 1
    chances = class_chances(table)
    assert chances.sum() == pytest.approx(1)
    assert chances[0] * 10 == pytest.approx(chances[1] * 2)
    assert chances[3] == 0


def test_drawn_classes_follow_the_chances() -> None:
    labels = torch.zeros(400, 2)
    labels[:360, 0], labels[360:, 1] = 1, 1
    batches = [b for epoch in range(40) for b in group_batches(labels, 4, 2, 0)(epoch)]
    first = [int(labels[b[i]].argmax()) for b in batches for i in (0, 2)]
    expected = class_chances(labels.numpy())[1]
    assert np.mean(first) == pytest.approx(expected, abs=0.02)


def test_a_batch_that_is_no_whole_number_of_groups_is_refused() -> None:
    with pytest.raises(UserError, match=r"classify\.batch is 8 but .*group_size is 3"):
        group_batches(torch.ones(20, 2), 8, 3, 0)
