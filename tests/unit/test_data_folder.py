"""A user's folder and CSV: what is understood, and what is refused with a reason."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from wsss.config.schema import Data
from wsss.data import folder
from wsss.data.check import check
from wsss.data.manifest import Manifest
from wsss.data.sources import build
from wsss.errors import UserError


def config(root: Path | str, **changes: object) -> Data:
    splits = {"train": "train", "seed": None, "tune": None, "val": None}
    splits |= dict(changes.pop("splits", {}))  # type: ignore[call-overload]
    values: dict[str, object] = {
        "source": "folder",
        "root": str(root),
        "classes": None,
        "csv": "labels.csv",
        "splits": splits,
        "scenes": {"seed": 0, "size": 64, "train": 1, "tune": 1, "val": 1},
    }
    return Data.model_validate(values | changes)


def write(root: Path, text: str, *images: str, name: str = "labels.csv") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(text.encode())
    for image in images:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(root / image)


def kinds(cfg: Data, *severities: str) -> dict[str, int]:
    wanted = severities or ("error", "warning")
    return {p.kind: p.count for p in check(cfg) if p.severity in wanted}


def test_the_smallest_table(tmp_path: Path) -> None:
    write(tmp_path, "image,labels\npics/b.png,owl;cat\na.jpg,cat\n", "pics/b.png", "a.jpg")
    made = build(config(tmp_path), tmp_path)
    assert made.classes == ("cat", "owl")
    assert made.mask_values == (1, 2)
    assert [(i.id, i.labels, i.splits) for i in made.items] == [
        ("a", ("cat",), ("train",)),
        ("pics/b", ("cat", "owl"), ("train",)),
    ]
    assert made.roles["val"] is None
    assert kinds(config(tmp_path), "error", "warning", "note") == {}
    made.save(tmp_path / "out")
    assert Manifest.load(tmp_path / "out", tmp_path) == made


def test_order_of_configured_classes_is_that_of_mask_ids(tmp_path: Path) -> None:
    text = "image,labels,mask,split\na.png,cat;owl,m.png,train;val\nb.png,owl,,train\n"
    write(tmp_path, text, "a.png", "b.png")
    mask = np.zeros((4, 6), np.uint8)
    mask[0, :3] = (1, 2, 255)
    Image.fromarray(mask).save(tmp_path / "m.png")
    cfg = config(tmp_path, classes=["owl", "cat"], splits={"seed": "val"})
    made = build(cfg, tmp_path)
    item = made.item("a")
    assert item.labels == ("owl", "cat")
    assert item.splits == ("train", "val")
    assert made.read_mask(item)[0, :4].tolist() == [1, 2, 255, 0]
    assert kinds(cfg) == {}


def test_tables_as_spreadsheets_write_them(tmp_path: Path) -> None:
    text = (
        '\ufeff Image ,LABELS,Mask,Split,note\r\n"one, two.png" , cat ; owl ;,, train ; x ,hi\r\n'
        "\r\n,,,,\r\nsub\\b.png,cat,,train,\r\n"
    )
    write(tmp_path, text, "one, two.png", "sub/b.png")
    made = build(config(tmp_path), tmp_path)
    assert [(i.id, i.image, i.labels) for i in made.items] == [
        ("one, two", "one, two.png", ("cat", "owl")),
        ("sub/b", "sub/b.png", ("cat",)),
    ]


def test_paths_are_relative_to_the_table_or_the_root(tmp_path: Path) -> None:
    text = "image,labels\na.png,x\n../top.png,x\npics/b.png,x\n"
    write(tmp_path, text, "meta/a.png", "top.png", "pics/b.png", name="meta/labels.csv")
    made = build(config(tmp_path, csv="meta/labels.csv"), tmp_path)
    assert [item.id for item in made.items] == ["meta/a", "pics/b", "top"]


def test_members_of_archives(tmp_path: Path) -> None:
    write(tmp_path, "image,labels\npack.zip::in/a.png,x\n", "a.png")
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as pack:
        pack.write(tmp_path / "a.png", "in/a.png")
    made = build(config(tmp_path), tmp_path)
    assert made.items[0].id == "pack/in/a"
    assert made.read_image(made.items[0]).shape == (4, 6, 3)


def test_duplicates_conflicts_and_collisions(tmp_path: Path) -> None:
    text = (
        "image,labels,split\na.png,x;y,train\na.png,y; x,val\nb.png,x,train\nb.png,y,train\n"
        "c.png,x,train\nc.jpg,x,train\n"
    )
    write(tmp_path, text, "a.png", "b.png", "c.png", "c.jpg")
    cfg = config(tmp_path, splits={"val": "val"})
    assert kinds(cfg, "note") == {"row-duplicate": 1}
    errors = kinds(cfg, "error")
    assert errors.pop("split-overlap") == 1  # a is on both lists now
    assert errors.pop("mask-missing") == 1
    assert errors == {"row-conflict": 1, "id-collision": 1}


def test_every_problem_in_one_run(tmp_path: Path) -> None:
    rows = [
        "gone.png,x,,train",
        "cut.png,x,,train",
        "text.png,x,,train",
        "few.png,x",
        "one,comma.png,x,,train",
        ",x,,train",
        "../up.png,x,,train",
        "/abs.png,x,,train",
        "a.png,,,train",
        "b.png,wolf,,train",
        "v1.png,x,nomask.png,val",
        "v2.png,x,,val",
        "v3.png,x,small.png,val",
        "v4.png,x,ids.png,val",
        "v5.png,x,colour.png,val",
        "spare.png,x,,spare",
        'unclosed.png,x,,"train',
    ]
    text = "image,labels,mask,split\n" + "\n".join(rows) + "\n"
    names = ("cut", "text", "a", "b", "v1", "v2", "v3", "v4", "v5", "spare")
    write(tmp_path, text, *(f"{name}.png" for name in names))
    raw = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(raw[: len(raw) // 2])
    (tmp_path / "text.png").write_text("no picture")
    Image.new("L", (5, 4)).save(tmp_path / "small.png")
    Image.fromarray(np.full((4, 6), 2, np.uint8)).save(tmp_path / "ids.png")
    Image.new("RGB", (6, 4), (9, 0, 0)).save(tmp_path / "colour.png")
    cfg = config(tmp_path, classes=["x"], splits={"val": "val", "tune": "dev"})
    assert kinds(cfg, "error") == {
        "split-empty": 1,
        "csv-row": 4,
        "path-outside": 2,
        "label-unknown": 1,
        "no-label": 2,
        "image-missing": 1,
        "image-unreadable": 2,
        "mask-not-found": 1,
        "mask-unreadable": 1,
        "size-mismatch": 1,
        "mask-ids": 1,
    }
    assert kinds(cfg, "warning") == {"mask-missing": 2}
    assert kinds(cfg, "note") == {"row-unused": 1, "tag-without-pixels": 2}
    with pytest.raises(UserError, match="wsss data check"):
        build(cfg, tmp_path)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", "csv-columns"),
        (b"image;labels\na.png;x\n", "csv-columns"),
        (b"file,labels\na.png,x\n", "csv-columns"),
        (b"image,labels,labels\na.png,x,y\n", "csv-columns"),
        (b"image,labels\na.png,caf\xe9\n", "csv-unreadable"),
        (b"image,labels\na.png,background\n", "class-name"),
        (b'image,labels\na.png,"two\nlines"\n', "csv-row"),
        (b"image,labels\na.png," + b"x" * 200_000 + b"\n", "csv-unreadable"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, raw: bytes, kind: str) -> None:
    write(tmp_path, "", "a.png")
    (tmp_path / "labels.csv").write_bytes(raw)
    assert kind in kinds(config(tmp_path), "error")


def test_missing_folder_and_table(tmp_path: Path) -> None:
    assert kinds(config(tmp_path / "none"), "error") == {"root-missing": 1}
    assert kinds(config(tmp_path), "error") == {"csv-unreadable": 1}


def test_too_many_classes(tmp_path: Path) -> None:
    labels = ";".join(f"c{k:03d}" for k in range(255))
    write(tmp_path, f"image,labels\na.png,{labels}\n", "a.png")
    assert kinds(config(tmp_path), "error") == {"class-name": 1}


def save_turned(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (6, 4)).save(path, exif=exif)


def test_masks_show_rotated_images_upright(tmp_path: Path) -> None:
    text = "image,labels,mask,split\na.jpg,x,a.png,train;val\nb.jpg,x,b.png,train;val\n"
    write(tmp_path, text)
    for name in ("a", "b"):
        save_turned(tmp_path / f"{name}.jpg", 6)
    upright = np.zeros((6, 4), np.uint8)
    upright[0, 0] = 1
    Image.fromarray(upright).save(tmp_path / "a.png")
    Image.fromarray(upright.T.copy()).save(tmp_path / "b.png")
    cfg = config(tmp_path, splits={"seed": "val"})
    assert kinds(cfg, "error") == {"size-mismatch": 1}
    assert kinds(cfg, "note") == {"image-turned": 2}
    made = folder.scan(cfg).manifest()
    assert made.read_image(made.item("a")).shape == (6, 4, 3)
    assert made.read_mask(made.item("a"))[0, 0] == 1
    with pytest.raises(UserError, match="'b'"):
        made.read_mask(made.item("b"))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16", "1", "LA"])
def test_images_of_any_kind(tmp_path: Path, mode: str) -> None:
    write(tmp_path, "image,labels\na.png,x\n")
    Image.new(mode, (7, 3)).save(tmp_path / "a.png")
    made = build(config(tmp_path), tmp_path)
    assert made.read_image(made.items[0]).shape == (3, 7, 3)
    assert kinds(config(tmp_path)) == {}


file_names = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp"), exclude_characters='./\\:"'),
    min_size=1,
    max_size=20,
)
label_names = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp"), exclude_characters=';"'),
    min_size=1,
    max_size=10,
).filter(lambda name: name != "background")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(file_names, st.sets(label_names, min_size=1, max_size=3), min_size=1))
def test_odd_names_survive(tmp_path: Path, tags: dict[str, set[str]]) -> None:
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("image", "labels"))
        writer.writerows((f"{name}.png", ";".join(found)) for name, found in tags.items())
    result = folder.scan(config(tmp_path))
    assert {item.id: set(item.labels) for item in result.items} == tags
    assert set(kinds(config(tmp_path), "error")) <= {"image-missing"}
