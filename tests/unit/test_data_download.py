"""Downloads from a server of our own: resume, checksums, archives that must not be trusted."""

from __future__ import annotations

import errno
import hashlib
import io
import shutil
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from scipy.sparse import csc_matrix

from tests.unit.test_data_voc import config, kinds
from wsss.cli import main
from wsss.data import download, published
from wsss.data.check import check
from wsss.data.sources import build
from wsss.errors import UserError

BODY = np.random.default_rng(0).integers(0, 256, 300_000).astype(np.uint8).tobytes()
MD5 = hashlib.md5(BODY).hexdigest()


@dataclass
class Served:
    """What the server offers and how it misbehaves; ``asked`` collects the Range headers."""

    files: dict[str, bytes]
    ranges: bool = True
    cut: int | None = None  # close after so many bytes, once
    lie: bool = False  # answer ranges from a place of its own
    url: str = ""
    asked: list[str | None] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    def __init__(self, served: Served, *args: object) -> None:
        self.served = served
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        served, wanted = self.served, self.headers["Range"]
        served.asked.append(wanted)
        body = served.files.get(self.path.lstrip("/"))
        if body is None:
            self.send_error(404)
            return
        start = int(wanted[6:-1]) if wanted and served.ranges else 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            first = start + 1 if served.lie else start
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        end = len(body) if served.cut is None else start + served.cut
        served.cut = None
        self.wfile.write(body[start:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served() -> Iterator[Served]:
    offer = Served({"a.tar": BODY})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, offer))
    offer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield offer
    server.shutdown()
    server.server_close()
    thread.join()


# Transfer


def test_a_file_arrives_once(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.tar"
    assert download.fetch(f"{served.url}/a.tar", path, MD5.upper())
    assert path.read_bytes() == BODY
    assert [p.name for p in path.parent.iterdir()] == ["a.tar"]
    assert not download.fetch(f"{served.url}/a.tar", path, MD5)
    assert served.asked == [None]


def test_an_interrupted_transfer_continues(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    for done in (100_000, 150_000):
        served.cut = 100_000 if done == 100_000 else 50_000
        with pytest.raises(UserError, match=rf"broke at {done} of 300000: the same command"):
            download.fetch(f"{served.url}/a.tar", path, MD5)
        assert not path.exists()
        assert (tmp_path / "a.tar.part").read_bytes() == BODY[:done]
    download.fetch(f"{served.url}/a.tar", path, MD5)
    assert path.read_bytes() == BODY
    assert served.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_a_server_without_ranges_starts_anew(served: Served, tmp_path: Path) -> None:
    served.ranges = False
    (tmp_path / "a.tar.part").write_bytes(b"x" * 400_000)  # longer than the file
    download.fetch(f"{served.url}/a.tar", tmp_path / "a.tar", MD5)
    assert (tmp_path / "a.tar").read_bytes() == BODY


def test_a_part_that_is_whole_needs_no_bytes(served: Served, tmp_path: Path) -> None:
    (tmp_path / "a.tar.part").write_bytes(BODY)
    download.fetch(f"{served.url}/a.tar", tmp_path / "a.tar", MD5)
    assert (tmp_path / "a.tar").read_bytes() == BODY


@pytest.mark.parametrize("part", [b"", b"x" * 10, b"x" * 300_000])
def test_a_wrong_checksum_is_refused(served: Served, tmp_path: Path, part: bytes) -> None:
    if part:
        (tmp_path / "a.tar.part").write_bytes(part)
    wanted = MD5 if part else "0" * 32
    with pytest.raises(UserError, match="wrong checksum") as caught:
        download.fetch(f"{served.url}/a.tar", tmp_path / "a.tar", wanted)
    assert wanted in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_existing_other_file_is_kept(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"wrong checksum.*move it away"):
        download.fetch(f"{served.url}/a.tar", path, MD5)
    assert path.read_bytes() == b"mine"
    assert not served.asked


def test_addresses_that_do_not_answer(served: Served, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"b\.tar: the server says 404 .*--url") as caught:
        download.fetch(f"{served.url}/b.tar", tmp_path / "a.tar", MD5)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no answer"):
        download.fetch("http://127.0.0.1:1/a.tar", tmp_path / "a.tar", MD5)
    with pytest.raises(UserError, match="http://"):
        download.fetch("file:///etc/passwd", tmp_path / "a.tar", MD5)
    assert not list(tmp_path.iterdir())


def test_a_range_from_elsewhere_is_not_appended(served: Served, tmp_path: Path) -> None:
    served.lie = True
    (tmp_path / "a.tar.part").write_bytes(BODY[:10])
    with pytest.raises(UserError, match="not from byte 10 on"):
        download.fetch(f"{served.url}/a.tar", tmp_path / "a.tar", MD5)
    assert (tmp_path / "a.tar.part").read_bytes() == BODY[:10]


def test_a_disk_too_small_is_known_before(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=299_999))
    with pytest.raises(UserError, match="disk full"):
        download.fetch(f"{served.url}/a.tar", tmp_path / "a.tar", MD5)
    (tmp_path / "a.tar.part").write_bytes(BODY[:1])
    download.fetch(f"{served.url}/a.tar", tmp_path / "a.tar", MD5)


def test_a_disk_that_fills_up_keeps_what_came(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_copy", full)
    with pytest.raises(UserError, match=r"disk full.*rerun"):
        download.fetch(f"{served.url}/a.tar", tmp_path / "a.tar", MD5)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        download.fetch(f"{served.url}/a.tar", tmp_path / "file" / "a.tar", MD5)


# Archives


def pack(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (7, 5)).save(buffer, "JPEG")
    return buffer.getvalue()


def matlab(mask: np.ndarray) -> bytes:
    """An SBD file: a struct with sparse boundaries, the mask and its classes."""
    boundaries = np.empty((20, 1), object)
    boundaries[:, 0] = [csc_matrix(mask == k) for k in range(1, 21)]
    inside = {"Boundaries": boundaries, "Segmentation": mask, "CategoriesPresent": [[8]]}
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"GTcls": inside})
    return buffer.getvalue()


VOC_IDS = {"train": ["2007_000001"], "val": ["2007_000002"]}
SBD_IDS = {"train": ["2007_000001", "2008_000003"], "val": ["2007_000002", "2008_000004"]}


def mask(value: int) -> np.ndarray:
    pixels = np.zeros((5, 7), np.uint8)
    pixels[1:3, 2:6] = value
    return pixels


def voc_archive() -> bytes:
    root = "VOCdevkit/VOC2012"
    files = {}
    for name in ("2007_000001", "2007_000002", "2008_000003", "2008_000004"):
        files[f"{root}/JPEGImages/{name}.jpg"] = jpeg()
        tags = b"<annotation><object><name>cat</name></object></annotation>"
        files[f"{root}/Annotations/{name}.xml"] = tags
    for name, ids in VOC_IDS.items():
        files[f"{root}/ImageSets/Segmentation/{name}.txt"] = "\n".join(ids).encode()
        files[f"{root}/SegmentationClass/{ids[0]}.png"] = png(mask(8))
    return pack(files)


@cache  # its bytes tell the time: made anew it would be another file
def sbd_archive(**more: bytes) -> bytes:
    root = "benchmark_RELEASE/dataset"
    files = {f"{root}/{n}.txt": "\n".join(ids).encode() for n, ids in SBD_IDS.items()}
    ids = sorted({i for some in SBD_IDS.values() for i in some})
    files |= {f"{root}/cls/{i}.mat": matlab(mask(8) * (k > 0)) for k, i in enumerate(ids)}
    files |= {f"{root}/inst/{ids[0]}.mat": b"other", "../../evil": b"never read"}
    return pack({**files, **more}, "w:gz")


def run(served: Served, name: str, to: Path, archive: bytes) -> int:
    served.files[name] = archive
    digest = hashlib.md5(archive).hexdigest()
    address = f"{served.url}/{name}"
    return main(["data", "download", name, "--to", str(to), "--url", address, "--md5", digest])


def test_voc_and_sbd_become_a_data_source(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(served, "sbd", tmp_path, sbd_archive()) == 1
    assert "wsss data download voc2012" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())  # said before anything is fetched
    assert run(served, "voc2012", tmp_path, voc_archive()) == 0
    root = tmp_path / "VOCdevkit/VOC2012"
    assert capsys.readouterr().out == f"data.root: {root}\n"
    assert run(served, "sbd", tmp_path, sbd_archive()) == 0
    lists = root / "ImageSets/Segmentation"
    ids = ["2007_000001", "2008_000003", "2008_000004"]
    assert (lists / "train_aug.txt").read_text().split() == ids
    cfg = config(root, splits={"train": "train_aug", "val": "val"})
    assert kinds(check(cfg)) == {}
    made = build(cfg, tmp_path)
    assert [item.id for item in made.role("train")] == ids
    # VOC's own mask where there is one: SBD's of the first image is empty here.
    assert all(np.array_equal(made.read_mask(item), mask(8)) for item in made.items)
    assert {item.mask.split("/")[0] for item in made.items if item.mask} == {"SegmentationClassAug"}
    assert not (tmp_path.parent / "evil").exists()


def test_conversion_keeps_what_is_there(served: Served, tmp_path: Path) -> None:
    run(served, "voc2012", tmp_path, voc_archive())
    run(served, "sbd", tmp_path, sbd_archive())
    folder = tmp_path / "VOCdevkit/VOC2012/SegmentationClassAug"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    (folder / "2008_000003.png").unlink()
    assert run(served, "sbd", tmp_path, sbd_archive()) == 0
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert set(after) == set(before)
    assert after["2008_000004.png"] == before["2008_000004.png"]
    assert len(served.asked) == 2  # the archive was still there


def test_unpacking_continues(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(pack({"d/one": b"1", "d/two": b"22", "d/three": b"333"}))
    (tmp_path / "d").mkdir()
    (tmp_path / "d/one").write_bytes(b"x")  # there in full
    (tmp_path / "d/two").write_bytes(b"x")  # cut
    published.unpack(archive, tmp_path)
    assert {p.name: p.read_bytes() for p in (tmp_path / "d").iterdir()} == {
        "one": b"x",
        "two": b"22",
        "three": b"333",
    }


@pytest.mark.parametrize("name", ["../evil", "/absolute/evil", "a/../../evil", "a\\..\\evil"])
def test_archives_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    archive, to = tmp_path / "a.tar", tmp_path / "to"
    archive.write_bytes(pack({"fine": b"1", name: b"2"}))
    to.mkdir()
    with pytest.raises(UserError, match="leads out of its folder"):
        published.unpack(archive, to)
    assert not list(to.iterdir())
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(UserError, match="neither file nor folder"):
        published.unpack(tmp_path / "a.tar", tmp_path / "to")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("data", [b"no tar at all", pack({"a": b"1" * 2000})[:1500]])
def test_archives_that_are_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(UserError, match="cannot be unpacked"):
        published.unpack(tmp_path / "a.tar", tmp_path / "to")


def test_an_archive_of_something_else(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(served, "voc2012", tmp_path, pack({"a": b"1"})) == 1
    assert "it is not VOC 2012" in capsys.readouterr().err
    run(served, "voc2012", tmp_path / "b", voc_archive())
    other = tmp_path / "b"
    assert run(served, "sbd", other, pack({"a": b"1"}, "w:gz")) == 1
    assert "it is not SBD" in capsys.readouterr().err
    (other / "benchmark.tgz").unlink()
    broken = {"benchmark_RELEASE/dataset/cls/2008_000003.mat": b"junk"}
    assert run(served, "sbd", other, sbd_archive(**broken)) == 1
    assert "2008_000003.mat is no mask of SBD" in capsys.readouterr().err
    assert not (other / "VOCdevkit/VOC2012/ImageSets/Segmentation/train_aug.txt").exists()


def test_addresses_and_checksums_are_torchvisions() -> None:
    """The same as in an independent, widely used downloader."""
    import wsss.torchvision_shim  # noqa: F401, I001

    from torchvision.datasets.sbd import SBDataset
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    voc = published.PUBLISHED["voc2012"]
    theirs = DATASET_YEAR_DICT["2012"]
    assert (voc.url, voc.md5, voc.file) == (theirs["url"], theirs["md5"], theirs["filename"])
    sbd = published.PUBLISHED["sbd"]
    assert (sbd.url, sbd.md5) == (SBDataset.url, SBDataset.md5)
