"""Generated scenes: the same bytes again, and the statistics that their docstring promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.config.schema import Data
from wsss.data import scene_layout, scenes
from wsss.data.check import check
from wsss.data.manifest import Manifest
from wsss.data.scenes import CLASSES, Scene, draw_scene
from wsss.errors import UserError

COUNT = 150


def config(**changes: object) -> Data:
    values: dict[str, object] = {
        "source": "scenes",
        "root": None,
        "classes": None,
        "csv": "labels.csv",
        "splits": {"train": "train", "seed": "train", "tune": "tune", "val": "val"},
        "scenes": {"seed": 3, "size": 96, "train": 6, "tune": 2, "val": 3},
    }
    return Data.model_validate(values | changes)


@pytest.fixture(scope="module")
def many() -> list[Scene]:
    return [draw_scene(0, "train", index, 144) for index in range(COUNT)]


def test_build_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        scenes.build(config(), tmp_path / name).save(tmp_path / name)
    for file in ("scenes.zip", "manifest.csv", "dataset.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_manifest_of_scenes(tmp_path: Path) -> None:
    cfg = config()
    made = scenes.build(cfg, tmp_path)
    made.save(tmp_path)
    loaded = Manifest.load(tmp_path, None)
    assert loaded == made
    assert [len(loaded.role(name)) for name in ("train", "seed", "tune", "val")] == [6, 6, 2, 3]
    for item in loaded.items:
        assert item.mask is not None
        mask = loaded.read_mask(item)
        part = loaded.read_mask(replace(item, mask=item.mask.replace("masks/", "parts/")))
        assert loaded.read_image(item).shape == (*mask.shape, 3)
        drawn = sorted(set(np.unique(mask)) - {0, 255})
        assert [index - 1 for index in drawn] == loaded.present(item)
        assert set(np.unique(part)) - {0} == set(drawn)
    assert not [p for p in check(cfg, tmp_path) if p.severity == "error"]


def test_an_image_depends_on_nothing_but_seed_split_and_number(tmp_path: Path) -> None:
    base = config().scenes
    larger = base.model_copy(update={"train": 9})
    first = scenes.build(config(), tmp_path / "a")
    second = scenes.build(config(scenes=larger), tmp_path / "b")
    for item in first.items:
        np.testing.assert_array_equal(first.read_image(item), second.read_image(item))
    other = draw_scene(4, "train", 0, 96)
    assert not np.array_equal(other.mask, first.read_mask(first.item("train_00000")))


def test_configuration_errors_come_before_drawing(tmp_path: Path) -> None:
    splits = {"train": "train_aug", "seed": None, "tune": None, "val": None}
    assert [p.kind for p in check(config(splits=splits))] == ["list-missing"]
    assert [p.kind for p in check(config(classes=["cat"]))] == ["class-unknown"]
    with pytest.raises(UserError, match="train, tune, val"):
        scenes.build(config(splits=splits), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_archive_is_found(tmp_path: Path) -> None:
    assert check(config(), tmp_path) == []  # not made yet: nothing to check
    scenes.build(config(), tmp_path)
    raw = (tmp_path / "scenes.zip").read_bytes()
    (tmp_path / "scenes.zip").write_bytes(raw[: len(raw) // 2])
    assert "image-unreadable" in {p.kind for p in check(config(), tmp_path)}
    scenes.build(config(), tmp_path)
    more = config(scenes=config().scenes.model_copy(update={"val": 5}))
    assert {p.kind: p.count for p in check(more, tmp_path)}["image-missing"] == 2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 10**6), st.sampled_from([64, 97, 144, 320]))
def test_any_scene_is_consistent(seed: int, index: int, size: int) -> None:
    scene = draw_scene(seed, "val", index, size)
    height, width = scene.mask.shape
    assert max(height, width) == size
    assert min(height, width) >= round(0.7 * size) - 1
    assert scene.image.shape == (height, width, 3)
    assert scene.image.dtype == scene.mask.dtype == scene.part.dtype == np.uint8
    drawn = set(np.unique(scene.mask)) - {0, 255}
    assert {CLASSES[k - 1] for k in drawn} == set(scene.labels)
    assert ((scene.part == 0) | (scene.part == scene.mask)).all()
    if size >= 96:  # at the smallest size a part can be a few mixed pixels
        assert set(np.unique(scene.part)) - {0} == drawn


def test_several_classes_an_image_and_all_about_as_often(many: list[Scene]) -> None:
    counts = np.array([len(scene.labels) for scene in many])
    assert 1.7 < counts.mean() < 2.4
    assert (counts > 1).mean() > 0.6
    per_class = [sum(name in scene.labels for scene in many) for name in CLASSES]
    assert min(per_class) > 0.2 * COUNT
    assert len({scene.mask.shape for scene in many}) > 20


def test_parts_are_small_and_bodies_large(many: list[Scene]) -> None:
    shares = []
    for scene in many:
        inside = (scene.mask > 0) & (scene.mask < 255)
        shares.append((scene.part > 0).sum() / inside.sum())
    assert 0.04 < np.mean(shares) < 0.08
    assert max(shares) < 0.15
    covered = np.mean([(scene.mask > 0).mean() for scene in many])
    assert 0.15 < covered < 0.4
    assert np.mean([(scene.mask == 255).mean() for scene in many]) < 0.03


def test_one_ground_deceives(many: list[Scene]) -> None:
    def share(wanted: bool) -> float:
        chosen = [s.ground for s in many if (scenes.CONTEXT_CLASS in s.labels) == wanted]
        return sum(ground == scenes.CONTEXT_GROUND for ground in chosen) / len(chosen)

    assert 0.65 < share(True) < 0.95
    assert share(False) < 0.2
    assert len({scene.ground for scene in many}) == 5


def body_features(scene: Scene, index: int) -> np.ndarray:
    """Mean colour, colour spread and area of a class's bodies without their parts."""
    inside = (scene.mask == index) & (scene.part == 0)
    pixels = scene.image[inside] / 255
    return np.concatenate([pixels.mean(0), pixels.std(0), [inside.mean() * 3]])


def part_features(scene: Scene, index: int) -> np.ndarray:
    pixels = scene.image[scene.part == index] / 255
    return np.concatenate([pixels.mean(0), pixels.std(0)])


def nearest_mean_accuracy(many: list[Scene], features: Callable[[Scene, int], np.ndarray]) -> float:
    """How often the nearest class mean, from one half of the scenes, is right on the other."""
    halves: list[list[tuple[int, np.ndarray]]] = [[], []]
    for number, scene in enumerate(many):
        for name in scene.labels:
            index = CLASSES.index(name) + 1
            halves[number % 2].append((index, features(scene, index)))
    rows = np.array([row for _, row in halves[0]])
    ids = np.array([index for index, _ in halves[0]])
    means = np.array([rows[ids == k].mean(0) for k in range(1, len(CLASSES) + 1)])
    scale = rows.std(0)
    hits = [
        np.argmin((((row - means) / scale) ** 2).sum(1)) + 1 == index for index, row in halves[1]
    ]
    return float(np.mean(hits))


def test_the_part_tells_the_class_and_the_body_does_not(many: list[Scene]) -> None:
    assert nearest_mean_accuracy(many, part_features) > 0.95
    assert nearest_mean_accuracy(many, body_features) < 0.3  # one in six by chance


def test_bodies_are_the_same_whatever_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    def bodies(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        area = (scene.mask > 0) & (scene.mask < 255) & (scene.part == 0)
        return area, scene.mask == 255

    before = [draw_scene(7, "train", index, 96) for index in range(12)]
    monkeypatch.setattr(scenes, "_assign", lambda _rng, count: [5 - k for k in range(count)])
    after = [draw_scene(7, "train", index, 96) for index in range(12)]
    assert any(a.labels != b.labels for a, b in zip(before, after, strict=True))
    for old, new in zip(before, after, strict=True):
        for one, other in zip(bodies(old), bodies(new), strict=True):
            np.testing.assert_array_equal(one, other)
        inner = bodies(old)[0] & ~grown(old.part > 0) & ~grown(old.mask == 255)
        gap = np.abs(old.image[inner].astype(int) - new.image[inner])
        assert np.percentile(gap, 99) <= 45  # light and sensor noise differ, bodies do not
        assert abs(old.image[inner].mean() - new.image[inner].mean()) < 12


def grown(area: np.ndarray) -> np.ndarray:
    for _ in range(2):
        area = scene_layout._grown(area)
    return area


def test_bodies_differ_from_what_surrounds_them(many: list[Scene]) -> None:
    """Continuity is what growing a seed relies on: edges of objects must be edges of colour."""
    gaps = []
    for scene in many:
        inside = (scene.mask > 0) & (scene.mask < 255) & (scene.part == 0)
        ring = grown(grown(inside)) & (scene.mask == 0)
        gaps.append(np.abs(scene.image[inside].mean(0) - scene.image[ring].mean(0)).max())
    assert np.median(gaps) > 40
    assert np.mean(np.array(gaps) > 15) > 0.9


def test_objects_hide_each_other_but_never_their_evidence() -> None:
    overlaps = 0
    for index in range(60):
        rng = np.random.default_rng(index)
        layout = scene_layout.draw_layout(rng, 144)
        assert 1 <= len(layout.objects) <= 4
        assert len(layout.objects) == 1 or scene_layout._all_visible(layout.objects, layout.shape)
        alphas = []
        for placed in layout.objects:
            window, patch = placed.windows(layout.shape)
            alphas.append(np.zeros(layout.shape))
            alphas[-1][window] = placed.drawing.alpha[patch]
        overlaps += any((one * other).max() > 0.5 for one, other in pairwise(alphas))
        if layout.stray is not None:
            window, patch = layout.stray.windows(layout.shape)
            near = np.zeros(layout.shape, bool)
            near[window] = layout.stray.drawing.alpha[patch] > 0
            assert not any((grown(near) & (alpha > 0)).any() for alpha in alphas)
    assert overlaps > 10
