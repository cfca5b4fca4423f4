"""Raw data is tracked by the manifest's hash: other data is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsss.config import Params
from wsss.config.resolve import overlay
from wsss.context import make_context
from wsss.errors import UserError
from wsss.stages import manifest
from wsss.versioning.rawdata import check_data


@pytest.fixture
def params(tiny_raw: dict[str, Any], tmp_path: Path) -> Params:
    """A folder of two photos, and its manifest."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, value in (("a", 10), ("b", 200)):
        Image.fromarray(np.full((8, 9, 3), value, np.uint8)).save(folder / f"{name}.png")
    (folder / "labels.csv").write_text("image,labels\na.png,cat\nb.png,dog\n")
    data = {
        "source": "folder",
        "root": str(folder),
        "splits": {"train": "train", "seed": None, "tune": None, "val": None},
    }
    top = {"data": data, "cam": {"threshold": 0.3}}
    made = Params(overlay(tiny_raw, top))
    manifest.run(make_context(made, "manifest", "", 0))
    return made


def test_the_same_data_passes(params: Params) -> None:
    assert check_data(params) is None


def test_an_edited_photo_is_noticed(params: Params) -> None:
    assert params.base.data.root is not None
    path = Path(params.base.data.root) / "a.png"
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(path)
    with pytest.raises(UserError, match=r"is not what .*dataset\.json describes"):
        check_data(params)


def test_a_lost_photo_is_named(params: Params) -> None:
    assert params.base.data.root is not None
    (Path(params.base.data.root) / "b.png").unlink()
    with pytest.raises(UserError, match="image 'b'"):
        check_data(params)


def test_data_that_is_elsewhere_is_said_not_to_be_looked_at(params: Params) -> None:
    assert params.base.data.root is not None
    root = Path(params.base.data.root)
    root.rename(root.with_name("moved"))
    said = check_data(params)
    assert said is not None
    assert "not on this machine" in said
