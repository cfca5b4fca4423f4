"""Which files are photos, what their results are called, what is too large or broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.errors import UserError
from wsss.inference.photos import Failure, Photo, Source, find_photos, photo_windows, read_photo
from wsss.inference.tags import Tags, parse_tags, read_tags
from wsss.shards import WINDOW

CLASSES = ("cat", "dog", "potted plant")


def put(path: Path, size: tuple[int, int] = (6, 4), **options: object) -> Path:
    """Write a small picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 30, 60)).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("b/x.jpg", "a/x.jpg", "a/deep/y.PNG", "a/.z.png", ".hidden/w.png"):
        put(folder / name)
    (folder / "a" / "notes.txt").write_text("no picture")
    return folder


def names(sources: list[Source]) -> list[str]:
    return [source.name for source in sources]


def test_a_folder_is_mirrored(photos: Path) -> None:
    found = find_photos([str(photos)])
    assert names(found) == ["a/deep/y", "a/x", "b/x"]
    assert [source.path for source in found] == [
        photos / f for f in ("a/deep/y.PNG", "a/x.jpg", "b/x.jpg")
    ]


def test_names_of_two_folders_stay_apart(photos: Path) -> None:
    assert names(find_photos([str(photos / "b"), str(photos / "a")])) == ["a/deep/y", "a/x", "b/x"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*/x.jpg", ["a/x", "b/x"]),
        ("**/*.PNG", ["a/deep/y"]),
        ("a/*.jpg", ["x"]),
        ("a/x.jpg", ["x"]),
        ("?", ["a/deep/y", "a/x", "b/x"]),
    ],
)
def test_patterns(photos: Path, pattern: str, expected: list[str]) -> None:
    assert names(find_photos([str(photos / pattern)])) == expected


def test_a_file_that_is_named_twice_is_one(photos: Path) -> None:
    file = str(photos / "b" / "x.jpg")
    assert names(find_photos([file, file, str(photos / "b")])) == ["x"]


def test_files_that_differ_in_their_suffix(tmp_path: Path) -> None:
    for name in ("x.jpg", "X.png", "y.png"):
        put(tmp_path / name)
    assert names(find_photos([str(tmp_path)])) == ["X.png", "x.jpg", "y"]
    put(tmp_path / "x.jpg.png")
    with pytest.raises(UserError, match=r"both be written as 'x.jpg'"):
        find_photos([str(tmp_path)])


def test_earlier_results_are_no_photos(photos: Path) -> None:
    out = photos / "out"
    put(out / "overlays" / "x.jpg")
    assert names(find_photos([str(photos)], out)) == ["a/deep/y", "a/x", "b/x"]
    assert "out/overlays/x" in names(find_photos([str(photos)]))


@pytest.mark.parametrize("pattern", ["none", "none/*.jpg", "a/*.gif", "empty"])
def test_patterns_that_name_nothing(photos: Path, pattern: str) -> None:
    (photos / "empty").mkdir()
    with pytest.raises(UserError, match=f"--images .*{pattern[:4]}"):
        find_photos([str(photos / pattern)])


def test_a_named_file_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    file = put(tmp_path / "scan.dat", format="PNG")
    (source,) = find_photos([str(file)])
    assert isinstance(read_photo(source, 100), Photo)


def test_photos_are_upright_and_bounded(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = put(tmp_path / "turned.jpg", (40, 20), exif=exif)
    photo = read_photo(Source(path, "turned"), 16)
    assert isinstance(photo, Photo)
    assert photo.size == (40, 20)
    assert photo.image.shape == (16, 8, 3)
    whole = read_photo(Source(path, "turned"), 40)
    assert isinstance(whole, Photo)
    assert whole.image.shape == (40, 20, 3)
    long = read_photo(Source(put(tmp_path / "line.png", (300, 1)), "line"), 16)
    assert isinstance(long, Photo)
    assert long.image.shape == (1, 16, 3)


def test_shrinking_averages(tmp_path: Path) -> None:
    pixels = np.indices((64, 64)).sum(0) % 2 * 255
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "board.png")
    photo = read_photo(Source(tmp_path / "board.png", "board"), 16)
    assert isinstance(photo, Photo)
    assert abs(photo.image[2:-2, 2:-2].astype(int) - 128).max() < 8


def test_broken_files_are_failures_in_their_place(tmp_path: Path) -> None:
    paths = [put(tmp_path / f"{n:03d}.png") for n in range(WINDOW + 2)]
    paths[1].write_bytes(paths[1].read_bytes()[:40])
    paths[2].write_text("no picture")
    sources = find_photos([str(tmp_path)])
    windows = list(photo_windows(sources, 100, 0))
    assert [len(photos) for photos, _ in windows] == [WINDOW]
    failures = [failure for _, failed in windows for failure in failed]
    assert [failure.source.path for failure in failures] == paths[1:3]
    for failure in failures:
        assert failure.reason.startswith(str(failure.source.path))
        assert "\n" not in failure.reason


def test_a_window_of_failures_alone(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no picture")
    ((photos, failures),) = photo_windows(find_photos([str(tmp_path)]), 100, 0)
    assert photos == []
    assert isinstance(failures[0], Failure)


# Tags


def test_tags_for_all() -> None:
    tags = Tags(every=parse_tags("dog, potted plant", CLASSES))
    assert tags.given
    assert tags.of(Source(Path("x.jpg"), "x")) == {1, 2}
    assert not Tags().given


def test_tags_of_each(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("\ufeffimage,labels,more\na/x.jpg,cat;dog,1\ny,potted plant,2\nz.png,,3\n")
    tags = Tags(rows=read_tags(table, CLASSES))
    assert tags.of(Source(Path("/p/a/x.jpg"), "a/x")) == {0, 1}
    assert tags.of(Source(Path("/p/b/x.jpg"), "b/x")) is None
    assert tags.of(Source(Path("/p/b/y.jpg"), "b/y")) == {2}
    assert tags.of(Source(Path("/p/z.png"), "z")) == frozenset()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,labels\nx.jpg,dgo\n", r":2: 'dgo' is no class: did you mean 'dog'\?"),
        ("image,labels\nx.jpg,cat\nx.jpg,dog\n", ":3: 'x.jpg' is listed twice"),
        ("image,tags\nx.jpg,cat\n", "columns image and labels"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(UserError, match=message):
        read_tags(table, CLASSES)


def test_tags_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--tags: 'cow' is no class"):
        parse_tags("cow", CLASSES)
    with pytest.raises(UserError, match="cannot be read"):
        read_tags(tmp_path / "none.csv", CLASSES)
