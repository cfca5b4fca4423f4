"""`wsss predict --weights --images --out`: the workflow's masks, from weights and photos alone."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from wsss.artifacts import MaskStore, load_weights, save_weights
from wsss.cli import main
from wsss.config import Params
from wsss.config.resolve import overlay
from wsss.context import make_context
from wsss.errors import UserError
from wsss.inference.encoded import EncodedPredictor
from wsss.inference.implied import IMPLIED
from wsss.networks.segmenter import build_segmenter
from wsss.stages import crf, manifest, predict
from wsss.stages.training import save_trained
from wsss.tasks.segmentation import SegmentationTask
from wsss.tracking.model import packed
from wsss.tracking.records import Network

# Of the keys that older weights do not state, those whose values params.yaml has changed since.
SETTINGS = {
    "predict": {"scales": [0.75, 1.0], "batch": 3},
    "segment": {"norm": IMPLIED["segment"]["norm"]},
}


@dataclass(frozen=True)
class Project:
    """A workflow's results with a network of random weights, and its val images as files."""

    weights: Path
    photos: Path
    params: Path
    masks: Path

    def bare(self, folder: Path) -> Path:
        """A copy of the weights where no configuration is near."""
        folder.mkdir(parents=True)
        copy = folder / "net.safetensors"
        copy.write_bytes(self.weights.read_bytes())
        return copy


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run the command without any params.yaml; exit code, stdout, stderr."""
    logger = logging.getLogger("wsss")
    before = logger.handlers[:]

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main(["predict", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield call
    logging.captureWarnings(False)
    logger.handlers[:] = before


@pytest.fixture
def project(tiny_raw: dict[str, Any], tmp_path: Path) -> Project:
    raw = overlay(tiny_raw, SETTINGS)
    params = Params(raw)
    manifest.run(make_context(params, "manifest", "", 0))
    training = make_context(params, "segment", "baseline", 0)
    network = build_segmenter(training.config, training.manifest.num_classes + 1, True, 3)
    with torch.no_grad():
        # A fresh head is all but undecided: louder, it predicts several classes.
        weight, bias = list(network.parameters())[-2:]
        weight.copy_(torch.randn(weight.shape, generator=torch.manual_seed(0)))
        bias.zero_()
    weights = training.paths.weights("segment")
    save_trained(weights, SegmentationTask(network), training)
    context = make_context(params, "predict", "baseline", 0)
    paths = context.paths
    predict.run(context, paths.store("predict", "scores"), paths.store("predict", "single"))
    masks = paths.store("predict", "masks")
    crf.run(make_context(params, "crf", "baseline", 0), masks)
    stored = paths.results / paths.dataset / "params.yaml"
    stored.write_text(yaml.safe_dump(raw))
    photos = tmp_path / "photos"
    photos.mkdir()
    for item in context.manifest.role("val"):
        Image.fromarray(context.manifest.read_image(item)).save(photos / f"{item.id}.png")
    return Project(weights, photos, stored, masks)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "classes.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def same(project: Project, out: Path) -> bool:
    """Whether all masks are those of the workflow; they must not be trivial."""
    store = MaskStore(project.masks)
    expected = {name: store.get(name) for name in store.ids}
    assert len({int(v) for mask in expected.values() for v in np.unique(mask)}) > 1
    got = {p.stem: np.array(Image.open(p)) for p in (out / "masks").glob("*.png")}
    assert got.keys() == expected.keys()
    return all(np.array_equal(got[name], expected[name]) for name in got)


def test_masks_are_those_of_the_workflow(project: Project, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said, complaint = run(
        *("--weights", project.weights, "--images", project.photos, "--out", out)
    )
    assert (code, complaint) == (0, "")
    assert "4 of 4 photos predicted" in said
    assert same(project, out)
    settings = json.loads((out / "predict.json").read_text())
    assert settings["predict"]["scales"] == [0.75, 1.0]
    assert settings["crf"]["iterations"] == 10
    assert settings["tags_used"] is False
    assert settings["classes"]["0"] == "background"
    for path in (out / "masks").glob("*.png"):
        mask = np.array(Image.open(path))
        mine = [row for row in rows(out) if row["mask"] == f"masks/{path.name}"]
        found = {int(row["id"]): int(row["pixels"]) for row in mine if row["id"] != "0"}
        assert found == {int(c): int((mask == c).sum()) for c in np.unique(mask) if c}
        assert sum(float(row["share"]) for row in mine) <= 1 + 1e-5
        assert {row["tags_used"] for row in mine} == {"no"}
        with Image.open(out / "overlays" / f"{path.stem}.jpg") as picture:
            assert picture.height > mask.shape[0]
        assert Image.open(path).mode == "P"
    # Again: the same bytes, nothing skipped.
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    next(iter(before)).unlink()
    assert run("--weights", project.weights, "--images", project.photos, "--out", out)[0] == 0
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_where_the_settings_come_from(project: Project, run: Run, tmp_path: Path) -> None:
    images = ("--images", project.photos)
    bare = project.bare(tmp_path / "elsewhere")
    code, _, warned = run("--weights", bare, *images, "--out", tmp_path / "plain")
    assert code == 0
    assert "warning: the weights come without scales and CRF" in warned
    assert not same(project, tmp_path / "plain")
    params = ("--params", project.params, "--variant", "baseline")
    code, _, warned = run("--weights", bare, *images, "--out", tmp_path / "named", *params)
    assert (code, warned) == (0, "")
    assert same(project, tmp_path / "named")
    assert main(["export", str(project.weights), "--to", str(tmp_path), "--format", "weights"]) == 0
    portable = tmp_path / "weights.safetensors"
    assert run("--weights", portable, *images, "--out", tmp_path / "portable")[0] == 0
    assert same(project, tmp_path / "portable")


def test_options_change_the_settings(project: Project, run: Run, tmp_path: Path) -> None:
    options = ("--scales", 1, "--no-flip", "--no-crf", "--device", "cpu", "--processes", 1)
    out = tmp_path / "out"
    arguments = ("--weights", project.weights, "--images", project.photos, "--out", out)
    assert run(*arguments, *options)[0] == 0
    settings = json.loads((out / "predict.json").read_text())
    expected = {"scales": [1.0], "flip": False, "combine": "mean", "batch": 3, "stride": 4}
    assert settings["predict"] == expected
    assert settings["crf"] is None
    # One unflipped pass is the stage's single-scale mask, but for the stored half precision.
    single = MaskStore(project.masks.with_name("single.zip"))
    for path in (out / "masks").glob("*.png"):
        assert (np.array(Image.open(path)) == single.get(path.stem)).mean() > 0.99


def test_a_served_network_gives_the_same_files(project: Project, run: Run, tmp_path: Path) -> None:
    """What MLflow keeps of a network, with and without tags, a large photo included."""
    photos = sorted(project.photos.glob("*.png"))
    with Image.open(photos[0]) as image:
        image.resize((1400, 700)).save(photos[0])
    raw = yaml.safe_load(project.params.read_text())
    config = Params(raw).resolve("baseline")
    settings = {"predict": config.predict.model_dump(), "crf": config.crf.model_dump()}
    packed_weights = packed(Network(project.weights, "", settings), tmp_path)
    served = EncodedPredictor(packed_weights)
    files = [photo.read_bytes() for photo in photos]
    name = served.classes[0]
    for number, tags in enumerate((None, name)):
        out = tmp_path / f"out{number}"
        options = () if tags is None else ("--tags", tags)
        arguments = ("--weights", project.weights, "--images", project.photos, "--out", out)
        assert run(*arguments, *options)[0] == 0
        expected = [(out / "masks" / photo.name).read_bytes() for photo in photos]
        cells = None if tags is None else [tags] * len(files)
        assert served.masks(files, cells) == expected
        assert len({int(v) for e in expected for v in np.unique(Image.open(io.BytesIO(e)))}) > 1
    with pytest.raises(UserError, match="row 1"):
        served.masks([files[1], b"no photo"], None)
    with pytest.raises(UserError, match="unicorn"):
        served.masks(files[:1], ["unicorn"])


def test_tags_and_names_and_large_photos(project: Project, run: Run, tmp_path: Path) -> None:
    source = next(iter(sorted(project.photos.glob("*.png"))))
    folder = tmp_path / "mine"
    for name in ("a/x.jpg", "b/x.jpg"):
        (folder / name).parent.mkdir(parents=True)
        with Image.open(source) as image:
            image.resize((300, 200)).save(folder / name)
    classes = load_weights(project.weights)[1]["classes"]
    out = tmp_path / "out"
    arguments = ("--weights", project.weights, "--images", folder, "--out", out)
    code, _, _ = run(*arguments, "--longest-side", 96, "--tags", classes[1])
    assert code == 0
    for name in ("a/x", "b/x"):
        mask = np.array(Image.open(out / "masks" / f"{name}.png"))
        assert mask.shape == (200, 300)
        assert set(np.unique(mask)) <= {0, 2}
        assert (out / "overlays" / f"{name}.jpg").is_file()
    assert {row["tags_used"] for row in rows(out)} == {"yes"}
    assert {row["tag"] for row in rows(out)} <= {"found", "missed", "ruled out", ""}
    assert json.loads((out / "predict.json").read_text())["tags_used"] is True


def test_a_broken_photo_is_one_line_and_the_others_go_on(
    project: Project, run: Run, tmp_path: Path
) -> None:
    broken = project.photos / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no photo")
    out = tmp_path / "out"
    code, said, complaint = run(
        *("--weights", project.weights, "--images", project.photos, "--out", out)
    )
    assert code == 1
    assert complaint.startswith(f"error: {broken}")
    assert complaint.count("\n") == 1
    assert "4 of 5 photos predicted" in said
    assert "1 could not be read" in said
    assert not (out / "masks" / "broken.png").exists()
    broken.unlink()
    old = sorted((out / "masks").glob("*.png"))[0]
    old.with_name("old.png").write_bytes(old.read_bytes())
    _, said, _ = run("--weights", project.weights, "--images", project.photos, "--out", out)
    assert "1 masks in" in said
    assert "left from earlier runs" in said


def test_single_stage_weights(
    project: Project, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A classification network counts where its method segments by itself."""
    state, meta = load_weights(project.weights)
    params = yaml.safe_load(project.params.read_text())
    sections = {name: params[name] for name in ("backbone", "method", "classify", "compute")}
    path = tmp_path / "classify.safetensors"
    save_weights(path, state, meta | {"stage": "classify", "params": sections})
    arguments = ("--weights", path, "--images", project.photos, "--out", tmp_path / "out")
    code, _, complaint = run(*arguments)
    assert code == 1
    assert "predicts no masks by itself" in complaint
    from wsss.inference.settings import trained
    from wsss.methods import baseline

    info = baseline.Baseline.info
    roads = ("two-stage", "single-stage")
    monkeypatch.setattr(baseline.Baseline, "info", type(info)(*("", "", "reference", roads)))
    config = trained(path).config
    assert config.road == "single-stage"
    assert config.classify.output_stride == 16


def test_weights_that_are_older_than_some_keys(project: Project, run: Run, tmp_path: Path) -> None:
    """As first written, without later keys."""
    state, meta = load_weights(project.weights)
    for name, section in meta["params"].items():
        for key in IMPLIED.get(name, {}) if isinstance(section, dict) else ():
            del section[key]
    save_weights(project.weights, state, meta)
    raw = yaml.safe_load(project.params.read_text())
    for key in IMPLIED["crf"]:
        del raw["crf"][key]
    project.params.write_text(yaml.safe_dump(raw))
    out = tmp_path / "out"
    code, _, _ = run("--weights", project.weights, "--images", project.photos, "--out", out)
    assert code == 0
    assert same(project, out)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({}, "does not say which network"),
        ({"stage": "affinity"}, "'affinity', which predicts no masks"),
        ({"stage": "segment", "params": {"backbone": {}}}, r"\(metadata\): missing key 'backbone"),
    ],
)
def test_weights_that_cannot_predict(
    run: Run, tmp_path: Path, meta: dict[str, Any], message: str
) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(
        path, {"a": torch.zeros(1)}, {"params": {}, "classes": ["x"], **meta} if meta else {}
    )
    code, _, complaint = run("--weights", path, "--images", tmp_path, "--out", tmp_path / "out")
    assert code == 1
    assert len(complaint.splitlines()) == 1
    assert re.search(message, complaint)
    assert not (tmp_path / "out").exists()


def test_half_a_call(run: Run, tmp_path: Path) -> None:
    code, _, complaint = run("--images", tmp_path)
    assert code == 1
    assert complaint == "error: --images predicts photos and needs --weights, too\n"
    code, _, complaint = run("--tags", "cat")
    assert "needs --weights" in complaint
    code, _, complaint = run(
        "--weights", tmp_path / "no.safetensors", "--images", tmp_path, "--out", tmp_path
    )
    assert "no.safetensors does not exist" in complaint
