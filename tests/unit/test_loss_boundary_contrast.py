"""BEACON against loops written from its equations, and on a disc."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.losses.boundary_contrast import (
    DEFAULT,
    boundary_contrast,
    draw_points,
    find_sides,
    gradients,
    group_contrast,
    label_codes,
    sample_features,
    sobel_kernels,
)


def disc(size: int = 64, radius: float = 18.0, centre: tuple[float, float] = (30, 33)) -> Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
    return inside.float()[None, None]


def test_the_kernel_is_the_papers() -> None:
    across, down = sobel_kernels(torch.zeros(()))[:, 0]
    assert across.tolist() == [
        [2, 1, 0, -1, -2],
        [3, 2, 0, -2, -3],
        [4, 3, 0, -3, -4],
        [3, 2, 0, -2, -3],
        [2, 1, 0, -1, -2],
    ]
    assert torch.equal(down, across.T)


def test_responses_are_left_minus_right_and_top_minus_bottom() -> None:
    maps = torch.rand(1, 1, 6, 7)
    got = gradients(maps)[0, 0]
    kernels = sobel_kernels(maps)[:, 0]
    for axis in range(2):
        for y in range(6):
            for x in range(7):
                total = 0.0
                for i in range(5):
                    for j in range(5):
                        v, u = y + i - 2, x + j - 2
                        if 0 <= v < 6 and 0 <= u < 7:
                            total += float(kernels[axis, i, j] * maps[0, 0, v, u])
                assert float(got[axis, y, x]) == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("step", [3, 7, 12])
def test_points_lie_on_the_normals_of_a_disc_on_both_sides(step: int) -> None:
    maps, centre = disc(), (30.0, 33.0)
    sides = find_sides(maps, replace(DEFAULT, step=step))
    boundary = sides.valid[0, 0, 0] | sides.valid[1, 0, 0]
    assert int(boundary.sum()) > 60
    ys, xs = boundary.nonzero(as_tuple=True)
    for y, x in zip(ys.tolist(), xs.tolist(), strict=True):
        away = math.hypot(y - centre[0], x - centre[1])
        assert abs(away - 18) < 2.5
        for side, sign in ((0, -1), (1, 1)):
            if not sides.valid[side, 0, 0, y, x]:
                continue
            v, u = int(sides.rows[side, 0, 0, y, x]), int(sides.columns[side, 0, 0, y, x])
            assert maps[0, 0, v, u] == (1 if side == 0 else 0)
            normal = ((y - centre[0]) / away, (x - centre[1]) / away)
            expected = (y + sign * step * normal[0], x + sign * step * normal[1])
            # Half a pixel of rounding, and what a pixelated circle bends the gradient.
            assert math.hypot(v - expected[0], u - expected[1]) < 0.75 + 0.12 * step


def test_points_off_the_map_are_dropped_one_by_one() -> None:
    maps = torch.zeros(1, 1, 40, 40)
    maps[..., :4, :] = 1
    sides = find_sides(maps)
    inside, outside = sides.valid[:, 0, 0]
    row = 4
    assert not inside[row].any()
    assert outside[row, 5:35].all()
    assert (sides.rows[1, 0, 0, row, 5:35] == row + 7).all()
    assert sides.rows.min() >= 0
    assert sides.rows.max() < 40


def test_a_faint_map_has_no_boundary() -> None:
    assert find_sides(disc()).valid.any()
    assert not find_sides(0.02 * disc()).valid.any()
    assert not find_sides(torch.zeros(1, 1, 20, 20)).valid.any()


def test_the_literal_steps_follow_the_boundary() -> None:
    maps = torch.zeros(1, 1, 40, 40)
    maps[..., 20:] = 1  # a vertical edge: the gradient is horizontal
    sides = find_sides(maps, replace(DEFAULT, literal=True))
    y, x = 15, int(sides.valid[0, 0, 0, 15].nonzero()[0])
    moved = [
        (int(sides.rows[s, 0, 0, y, x]) - y, int(sides.columns[s, 0, 0, y, x]) - x) for s in (0, 1)
    ]
    assert moved == [(1, 0), (-7, 0)]
    turned = find_sides(maps.mT, replace(DEFAULT, literal=True))
    moved = [
        (int(turned.rows[s, 0, 0, x, y]) - x, int(turned.columns[s, 0, 0, x, y]) - y)
        for s in (0, 1)
    ]
    assert moved == [(0, 1), (0, -1)]


def test_points_are_drawn_among_the_valid_without_repetition() -> None:
    valid = torch.tensor([[True, False, True, True, False, True], [False] * 6])
    places = torch.arange(6).expand(2, 6)
    uniform = torch.tensor([[0.1, 0.9, 0.0, 0.3, 0.8, 0.2]] * 2)
    two = draw_points(places, 10 * places, valid, uniform, 2)
    assert two.rows[0].tolist() == [3, 5]
    assert two.columns[0].tolist() == [30, 50]
    assert two.valid.tolist() == [[True, True], [False, False]]
    many = draw_points(places, places, valid, uniform, 99)
    assert sorted(many.rows[0][many.valid[0]].tolist()) == [0, 2, 3, 5]


def naive_groups(outer: Tensor, inner: Tensor, same: Tensor) -> float:
    """The four groups of one pair of image and class, all points valid."""
    close = outer @ inner.T
    total = 0.0
    for values, labels in ((close, same), (close.T, same.T)):
        groups: dict[tuple[bool, bool], list[float]] = {}
        for i in range(len(values)):
            t = float(labels[i].mean()) > float(labels.mean())
            d = float(values[i].mean()) > float(values.mean())
            groups.setdefault((t, d), []).append(float(values[i].mean()))
        for (t, _), members in groups.items():
            total += (-1 if t else 1) * sum(members) / len(members)
    return total


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_the_loop_and_invalid_points_do_not_count(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    outer = torch.rand(2, 9, 4, generator=generator)
    inner = torch.rand(2, 7, 4, generator=generator)
    same = torch.rand(2, 9, 7, generator=generator)
    valid_outer, valid_inner = torch.ones(2, 9).bool(), torch.ones(2, 7).bool()
    valid_outer[1, 6:], valid_inner[1, :2] = False, False
    got = group_contrast(outer, inner, same, valid_outer, valid_inner)
    assert float(got[0]) == pytest.approx(naive_groups(outer[0], inner[0], same[0]), rel=1e-4)
    fewer = naive_groups(outer[1, :6], inner[1, 2:], same[1, :6, 2:])
    assert float(got[1]) == pytest.approx(fewer, rel=1e-4)


def test_only_outside_points_learn() -> None:
    outer, inner = (torch.rand(1, 5, 4).requires_grad_() for _ in range(2))
    everywhere = torch.ones(1, 5).bool()
    group_contrast(outer, inner, torch.rand(1, 5, 5), everywhere, everywhere).sum().backward()
    assert inner.grad is None
    assert outer.grad is not None
    assert outer.grad.any()


@pytest.mark.parametrize("aligned", [False, True])
def test_features_are_read_as_if_spread_over_the_pixels(aligned: bool) -> None:
    features = torch.rand(2, 3, 5, 4)
    size = (20, 18)
    spread = F.interpolate(features, size, mode="bilinear", align_corners=aligned)
    rows, columns = torch.randint(0, 20, (2, 9)), torch.randint(0, 18, (2, 9))
    got = sample_features(features, rows, columns, size, aligned)
    for b in range(2):
        for n in range(9):
            expected = spread[b, :, rows[b, n], columns[b, n]]
            torch.testing.assert_close(got[b, n], expected, atol=1e-5, rtol=1e-4)


def test_label_codes_are_softmaxes_of_the_nearest_label() -> None:
    labels = torch.rand(1, 3, 5, 5)
    rows, columns = torch.tensor([[0, 19, 7]]), torch.tensor([[3, 19, 12]])
    got = label_codes(labels, rows, columns, (20, 20))
    for n, (y, x) in enumerate([(0, 0), (4, 4), (1, 3)]):
        torch.testing.assert_close(got[0, n], labels[0, :, y, x].softmax(0))


def scene() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits of a disc of class 1 and one of class 2, features, targets, labels."""
    torch.manual_seed(0)
    one, two = disc(), disc(radius=12)
    targets = torch.zeros(2, 3, 64, 64)
    targets[0, 1], targets[1, 2] = one[0, 0], two[0, 0]
    targets[:, 0] = 1 - targets.sum(1)
    return 2 * targets - 1, torch.randn(2, 8, 16, 16), targets, torch.tensor([[1.0, 0], [0, 1]])


def test_the_loss_is_the_sum_over_present_classes() -> None:
    logits, features, targets, labels = scene()
    keys = torch.tensor([5, 6])
    both = boundary_contrast(logits, features, targets, labels, keys)
    parts = [
        boundary_contrast(
            logits[b : b + 1],
            features[b : b + 1],
            targets[b : b + 1],
            labels[b : b + 1],
            keys[b : b + 1],
        )
        for b in range(2)
    ]
    assert both == pytest.approx(float(sum(parts)), rel=1e-5)
    assert all(part != 0 for part in parts)
    assert boundary_contrast(logits, features, targets, labels.flip(1), keys) == 0


@pytest.mark.parametrize("most", [1, 2, 3, 9])
def test_classes_that_no_image_has_are_not_searched(most: int) -> None:
    logits, features, targets, labels = scene()
    logits, targets = (F.pad(x, (0, 0, 0, 0, 0, 2), value=-1.0) for x in (logits, targets))
    labels = F.pad(labels, (0, 2))
    keys = torch.tensor([5, 6])
    every = boundary_contrast(logits, features, targets, labels, keys)
    some = boundary_contrast(logits, features, targets, labels, keys, most=most)
    assert every != 0
    torch.testing.assert_close(some, every, rtol=1e-4, atol=1e-7)


def test_the_draw_is_a_function_of_the_key() -> None:
    logits, features, targets, labels = scene()
    few = replace(DEFAULT, points=12)
    values = [
        boundary_contrast(logits, features, targets, labels, torch.tensor(keys), few)
        for keys in ([1, 2], [1, 2], [3, 4])
    ]
    assert values[0] == values[1] != values[2]


def of_disc(maps: Tensor, least: int) -> tuple[int, float]:
    """Valid points of the side that has fewer, and the loss, of one disc of one class."""
    targets = torch.cat([1 - maps, maps], dim=1)
    torch.manual_seed(0)
    features, labels = torch.randn(1, 8, 32, 32), torch.ones(1, 1)
    how = replace(DEFAULT, least=least)
    valid = find_sides(((how.sharpness * (2 * targets - 1)).softmax(1))[:, 1:], how).valid
    loss = boundary_contrast(2 * targets - 1, features, targets, labels, torch.tensor([1]), how)
    return int(valid.sum((-2, -1)).min()), float(loss)


@pytest.mark.parametrize(
    ("radius", "bounds"), [(40.0, (129, 10_000)), (9.0, (10, 128)), (0.0, (0, 9))]
)
def test_too_few_points_leave_a_class_out(radius: float, bounds: tuple[int, int]) -> None:
    """What counts are the points there are, not the 128 at most that are drawn of them."""
    maps = disc(128, radius, (62, 65))
    official, ours = (of_disc(maps, least) for least in (DEFAULT.points + 1, DEFAULT.least))
    assert bounds[0] <= ours[0] <= bounds[1]
    assert (official[1] != 0) == (ours[0] > DEFAULT.points)
    assert (ours[1] != 0) == (ours[0] >= DEFAULT.least)


def test_the_least_number_of_points_is_enough() -> None:
    maps = disc(128, 40.0, (62, 65))
    count = of_disc(maps, 1)[0]
    assert of_disc(maps, count)[1] != 0
    assert of_disc(maps, count + 1)[1] == 0


def test_gradient_reaches_the_features_and_pulls_them_apart() -> None:
    """Where both sides look alike, a step down the gradient makes them look less so."""
    logits, features, targets, labels = scene()
    features.requires_grad_()
    logits.requires_grad_()
    keys = torch.tensor([1, 2])
    before = boundary_contrast(logits, features, targets, labels, keys)
    before.backward()
    assert logits.grad is None
    assert features.grad is not None
    moved = features.detach() - 5 * features.grad
    assert boundary_contrast(logits, moved, targets, labels, keys) < before


def test_flat_predictions_are_zero_with_a_finite_gradient() -> None:
    features = torch.randn(1, 8, 8, 8, requires_grad=True)
    value = boundary_contrast(
        torch.zeros(1, 3, 32, 32),
        features,
        torch.zeros(1, 3, 8, 8),
        torch.ones(1, 2),
        torch.tensor([1]),
    )
    value.backward()
    assert value == 0
    assert features.grad is not None
    assert not features.grad.any()
