"""Pictures for people: colours, legends, panels, and one image through all stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from wsss.artifacts import ArrayStoreWriter, MaskStoreWriter, save_json
from wsss.cli import main
from wsss.commands.explain import find_item, spread
from wsss.config.resolve import overlay
from wsss.data.manifest import Item, Manifest
from wsss.errors import UserError
from wsss.paths import Paths
from wsss.pictures.legend import legend, with_legend
from wsss.pictures.overlay import class_colour, heat_colours, overlay_heat, overlay_mask
from wsss.pictures.panels import SIDE, Panel, sheet
from wsss.pictures.story import Story
from wsss.pictures.text import text_width, wrap

SIZE = (30, 40)


def test_overlays_tint_objects_and_leave_background() -> None:
    image = np.full((*SIZE, 3), 100, np.uint8)
    mask = np.zeros(SIZE, np.uint8)
    mask[10:20, 10:30] = 2
    mask[0:5] = 255
    drawn = overlay_mask(image, mask, 0.5)
    np.testing.assert_array_equal(drawn[25, 5], image[25, 5])
    np.testing.assert_array_equal(drawn[15, 15], (np.array(class_colour(2)) + 100) / 2)
    # The border of the object has its full colour.
    np.testing.assert_array_equal(drawn[19, 15], class_colour(2))
    assert drawn[2, 2].tolist() == [(c + 100) / 2 for c in class_colour(255)]
    assert class_colour(1) == (128, 0, 0)


def test_heat_runs_from_blue_to_red() -> None:
    low, high = heat_colours(np.array([[0.0, 1.0]]))[0]
    assert low[2] > low[0]
    assert high[0] > high[2]
    outside = heat_colours(np.array([[-1.0, 2.0, np.nan]]))[0]
    np.testing.assert_array_equal(outside, [low, high, low])
    assert overlay_heat(np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE)).dtype == np.uint8


def test_text_is_wrapped() -> None:
    lines = wrap("one two three four five", 60, 13)
    assert " ".join(lines) == "one two three four five"
    assert all(text_width(line, 13) <= 60 for line in lines)
    assert len(lines) > 1


def test_legends_show_every_colour() -> None:
    entries = [(1, "cat"), (2, "a class with a long name"), (3, "dog")]
    for width in (60, 400):
        strip = np.array(legend(entries, width))
        assert strip.shape[1] == width
        colours = {tuple(pixel) for pixel in strip.reshape(-1, 3).tolist()}
        assert {class_colour(i) for i, _ in entries} <= colours
    assert legend(entries, 60).height > legend(entries, 400).height
    assert np.array(legend([], 200)).min() < 200  # "background only"
    picture = np.zeros((20, 30, 3), np.uint8)
    assert with_legend(picture, entries).height > 20


@pytest.mark.parametrize("size", [(30, 40), (300, 20), (1, 50)])
def test_sheets_hold_every_panel(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(60, 200, (7, 3), np.uint8)
    panels = [
        Panel(f"panel {n} with a title", np.tile(colours[n], (*size, 1)).astype(np.uint8))
        for n in range(7)
    ]
    canvas = np.array(sheet("heading", panels, [(1, "cat")], ["a note"]))
    factor = SIDE / max(size)
    area = max(1, round(size[0] * factor)) * max(1, round(size[1] * factor))
    for colour in colours:
        assert (canvas == colour).all(2).sum() == area


class Run:
    """A run with the named stores, of one image of a cat and one nobody predicted."""

    def __init__(self, folder: Path) -> None:
        self.paths = Paths(folder / "results", "scenes", "baseline", 0)
        self.mask = np.zeros(SIZE, np.uint8)
        self.mask[5:20, 8:30] = 1
        for name in ("a", "b"):
            Image.new("RGB", SIZE[::-1], (90, 120, 60)).save(folder / f"{name}.png")
        Image.fromarray(self.mask).save(folder / "a.mask.png")
        items = (
            Item("a", "a.png", "a.mask.png", ("cat",), ("train",)),
            Item("b", "b.png", None, ("cat", "dog"), ("train",)),
        )
        roles = {"train": "train", "seed": "train", "tune": None, "val": None}
        self.manifest = Manifest("folder", folder, ("cat", "dog"), (1, 2), (), roles, "h", items)
        self.manifest.save(self.paths.data)
        self.paths.run.mkdir(parents=True)

    def arrays(self, stage: str, name: str, classes: list[int]) -> None:
        with ArrayStoreWriter(self.paths.store(stage, name)) as store:
            store.add("a", np.full((len(classes), 8, 10), 0.5), classes, SIZE)

    def masks(self, stage: str, name: str) -> None:
        with MaskStoreWriter(self.paths.store(stage, name)) as store:
            store.add("a", self.mask)

    def all(self) -> None:
        self.arrays("cam", "maps", [0])
        self.arrays("irnet", "edges", [0])
        self.arrays("walk", "scores", [0, 1])
        self.arrays("predict", "scores", [0, 1])
        for stage, name in (
            *(("seeds", n) for n in ("low", "high", "confident", "crf")),
            *(("pseudo", "masks"), ("predict", "single"), ("predict", "masks")),
        ):
            self.masks(stage, name)


def test_all_stages_are_told_in_order(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.all()
    told = Story(run.manifest, run.paths, 0.4).tell(run.manifest.item("a"))
    assert [panel.title.split(" · ")[0] for panel in told.panels] == [
        "image",
        "CAM: cat",
        "CAM > 0.4",
        "seeds, more background (alpha low)",
        "seeds, less background (alpha high)",
        "confident seeds (cream: unsure)",
        "boundary",
        "walk: cat",
        "walk, best class",
        "label-CRF seeds",
        "pseudo mask",
        "prediction, scale 1",
        "prediction, all scales",
        "prediction + CRF",
        "ground truth",
    ]
    assert told.missing == []
    assert told.shown == [0, 1]
    titles = {panel.title for panel in told.panels}
    assert "pseudo mask · IoU 100 %" in titles
    whole = run.mask.size
    assert f"CAM > 0.4 · IoU {100 * (run.mask > 0).sum() / whole:.0f} %" in titles


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.masks("pseudo", "masks")
    run.arrays("cam", "maps", [0])
    told = Story(run.manifest, run.paths, None).tell(run.manifest.item("b"))
    assert [panel.title for panel in told.panels] == ["image"]
    assert "pseudo mask (not made for this image)" in told.missing
    assert "boundary (irnet/edges.zip does not exist)" in told.missing
    assert "ground truth (none known)" in told.missing
    told = Story(run.manifest, run.paths, None).tell(run.manifest.item("a"))
    assert "CAM at its threshold (not tuned yet)" in told.missing


def _items(*images: str) -> tuple[Item, ...]:
    return tuple(Item(i.rpartition(".")[0], i, None, (), ("train",)) for i in images)


def test_images_by_id_or_file_name(tmp_path: Path) -> None:
    items = _items("a/x.jpg", "b/x.jpg", "b/y.png", "s.zip::images/img_7.png")
    manifest = Manifest("folder", tmp_path, ("cat",), (1,), (), {}, "h", items)
    assert find_item(manifest, "a/x").id == "a/x"
    assert find_item(manifest, "b/x.jpg").id == "b/x"
    for name in ("y.png", "y", "/photos/b/y.png", "b\\y.png"):
        assert find_item(manifest, name).id == "b/y"
    assert find_item(manifest, "img_7.png") == items[3]
    with pytest.raises(UserError, match=r"'x.jpg' is the name of 2 images: give an id: a/x, b/x"):
        find_item(manifest, "x.jpg")
    with pytest.raises(UserError, match="no image 'b/z'"):
        find_item(manifest, "b/z")


def test_spread_is_even() -> None:
    items = list(_items(*(f"{n:02d}.jpg" for n in range(20))))
    assert [item.id for item in spread(items, 4)] == ["02", "07", "12", "17"]
    assert spread(items, 30) == items
    assert len({item.id for item in spread(items, 19)}) == 19


def test_the_command(
    tmp_path: Path, tiny_raw: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path)
    run.all()
    save_json(
        run.paths.metrics("cam_tune").with_suffix(".json"),
        {"threshold": 0.3, "threshold_source": "tune", "data_hash": "h"},
    )
    data = {"source": "folder", "root": str(tmp_path)}
    params = tmp_path / "p.yaml"
    params.write_text(yaml.safe_dump(overlay(tiny_raw, {"data": data})))

    def explain(*arguments: object) -> int:
        return main(["explain", *map(str, arguments), "--params", str(params)])

    assert explain("a.png", "--out", tmp_path / "one.png") == 0
    first = (tmp_path / "one.png").read_bytes()
    assert explain("a", "--out", tmp_path / "one.png") == 0
    assert (tmp_path / "one.png").read_bytes() == first
    assert explain("--count", 5, "--role", "train", "--out", tmp_path / "set") == 0
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == ["a.png", "b.png"]
    assert (tmp_path / "set" / "a.png").read_bytes() == first
    capsys.readouterr()
    for arguments, message in (
        (("q", "--out", tmp_path / "q.png"), "no image 'q' on the manifest"),
        (("--out", tmp_path / "q.png"), "needs an IMAGE, or --count"),
        (("a", "--count", 2, "--out", tmp_path / "q.png"), "needs an IMAGE, or --count"),
        (("a", "--role", "val", "--out", tmp_path / "q.png"), "--role"),
        (("a", "--seed", 3, "--out", tmp_path / "q.png"), "seed3 does not exist"),
    ):
        assert explain(*arguments) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "q.png").exists()
