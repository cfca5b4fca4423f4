"""Published data sets: where they are, their checksums, and how they become VOC's layout.

``voc2012`` is unpacked as it is. ``sbd`` (Hariharan et al., ICCV 2011) comes as MATLAB files;
its class masks become ``SegmentationClassAug/*.png``, with VOC's own mask where VOC has one, and
the list ``train_aug``: VOC's train and all of SBD without VOC's val, 10,582 images.
"""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from wsss.artifacts import encode_mask
from wsss.atomic import atomic_path
from wsss.data.download import fetch
from wsss.data.lists import read_list
from wsss.data.scan import Findings
from wsss.errors import UserError

VOC_ROOT = PurePosixPath("VOCdevkit/VOC2012")
LISTS = PurePosixPath("ImageSets/Segmentation")
_MATLAB = re.compile(r"(?:.*/)?dataset/cls/(\d{4}_\d{6})\.mat")
_SBD_LIST = re.compile(r"(?:.*/)?dataset/(train|val)\.txt")


@dataclass(frozen=True)
class Published:
    """An archive: its address and MD5, as torchvision.datasets (VOCSegmentation, SBDataset)
    names them."""

    url: str
    md5: str

    @property
    def file(self) -> str:
        """The name the archive is kept under."""
        return self.url.rpartition("/")[2]


PUBLISHED = {
    "voc2012": Published(
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "6cd6e144f989b92b3379bac3b3de84fd",
    ),
    "sbd": Published(
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/"
        "benchmark.tgz",
        "82b4d87ceb2ed10f6038a1cba92111cb",
    ),
}


def download(name: str, to: Path, url: str | None, md5: str | None) -> Path:
    """Fetch and unpack a published data set; returns the folder to use as ``data.root``.

    Interrupted, the same call continues: the transfer where it broke off, the unpacking with
    the first file that is not there. Raises UserError.
    """
    known = PUBLISHED[name]
    if name == "sbd":
        voc = _voc_root(to)
    archive = to / known.file
    fetch(url or known.url, archive, md5 or known.md5)
    if name == "sbd":
        convert_sbd(archive, voc)
        return voc
    unpack(archive, to)
    if not (to / VOC_ROOT / LISTS).is_dir():
        raise UserError(f"{archive} holds no {VOC_ROOT / LISTS}: it is not VOC 2012")
    return to / VOC_ROOT


def _voc_root(to: Path) -> Path:
    """The VOC folder that SBD extends: below ``to``, or ``to`` itself."""
    for root in (to / VOC_ROOT, to):
        if all((root / LISTS / f"{name}.txt").is_file() for name in ("train", "val")):
            return root
    raise UserError(
        f"{to / VOC_ROOT} has no {LISTS}/train.txt and val.txt: SBD extends VOC 2012; run "
        "`wsss data download voc2012` with the same --to first"
    )


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{archive} cannot be unpacked ({error}): delete it and rerun") from error


def unpack(archive: Path, to: Path) -> None:
    """Unpack a tar's files below ``to``, leaving out those that are there in full already.

    Files and folders only: a link or device, or a name that leads out of ``to``, is a UserError
    before anything is written.
    """
    with _reading(archive), tarfile.open(archive) as tar:
        members = tar.getmembers()
        for member in members:
            _check(archive, member)
        files = [member for member in members if member.isfile()]
        missing = [m for m in files if not _complete(to / m.name, m.size)]
        _need(to, sum(member.size for member in missing))
        for member in tqdm(missing, desc=f"unpacking {archive.name}", disable=None):
            source = tar.extractfile(member)
            assert source is not None
            with source, atomic_path(to / member.name) as temporary, temporary.open("wb") as sink:
                shutil.copyfileobj(source, sink)


def _check(archive: Path, member: tarfile.TarInfo) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        raise UserError(f"{archive} holds {member.name!r}, which leads out of its folder: refused")
    if not (member.isfile() or member.isdir()):
        raise UserError(f"{archive} holds {member.name!r}, neither file nor folder: refused")


def _complete(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _need(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"disk full: {folder} has {free / 1e9:.1f} GB, {size / 1e9:.1f} GB are needed to "
            "unpack: free some space and rerun"
        )


def convert_sbd(archive: Path, voc: Path) -> None:
    """Write ``SegmentationClassAug`` and the list ``train_aug`` of an SBD archive into ``voc``.

    Masks that are there already are kept. Raises UserError for an archive that is not SBD's.
    """
    train, val = (_ids(voc / LISTS / f"{name}.txt") for name in ("train", "val"))
    folder = voc / "SegmentationClassAug"
    own = sorted((voc / "SegmentationClass").glob("*.png"))
    for source in own:
        _write(folder / source.name, source.read_bytes())
    extra: set[str] = set()
    drawn: set[str] = {path.stem for path in own}
    with _reading(archive), tarfile.open(archive) as tar:
        for member in tqdm(tar, desc="converting masks", total=None, disable=None):
            if match := _SBD_LIST.fullmatch(member.name):
                extra.update(_bytes(tar, member).decode().split())
            elif (match := _MATLAB.fullmatch(member.name)) and match[1] not in drawn:
                drawn.add(match[1])
                path = folder / f"{match[1]}.png"
                if not path.is_file():
                    _write(path, encode_mask(class_mask(_bytes(tar, member), member.name)))
    if not extra:
        raise UserError(f"{archive} holds no dataset/train.txt and dataset/val.txt: it is not SBD")
    ids = sorted({*train, *extra} - {*val})
    lacking = [identifier for identifier in ids if identifier not in drawn]
    if lacking:
        raise UserError(f"{archive} has no mask of {lacking[0]} (and {len(lacking) - 1} more)")
    _write(voc / LISTS / "train_aug.txt", "".join(f"{i}\n" for i in ids).encode())


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    if stream is None:
        raise tarfile.TarError(f"{member.name} is no file")
    with stream:
        return stream.read()


def class_mask(data: bytes, name: str) -> np.ndarray:
    """The (H, W) uint8 class ids, 0..20, of one of SBD's ``cls`` MATLAB files."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(
            io.BytesIO(data),  # type: ignore[arg-type,unused-ignore]
            squeeze_me=True,
            struct_as_record=False,
        )
        mask = np.asarray(content["GTcls"].Segmentation)
    except (MatReadError, KeyError, AttributeError, ValueError, TypeError, OSError) as error:
        raise UserError(f"{name} is no mask of SBD ({error!r})") from error
    if mask.ndim != 2 or mask.min() < 0 or mask.max() > 255:
        raise UserError(f"{name} holds a {mask.shape} array, not class ids")
    return mask.astype(np.uint8)


def _ids(path: Path) -> list[str]:
    ids = read_list(path, Findings())
    if not ids:
        raise UserError(f"{path} cannot be read or is empty: restore it")
    return ids


def _write(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
