"""The page of the report: what it shows, complete or not, and that it needs nothing else."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, TINY
from tests.made_results import dump, make_manifest, make_results, params_of, photos
from wsss.artifacts import load_json, save_json
from wsss.cli import main
from wsss.config import Params
from wsss.config.resolve import overlay, read_yaml
from wsss.context import make_context
from wsss.errors import UserError
from wsss.paths import Paths
from wsss.report.page import page
from wsss.report.plotting import draw
from wsss.report.results import Results
from wsss.stages import report


class Page(HTMLParser):
    """What a browser would see of a page."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, name: str) -> list[str]:
        return [str(found[name]) for _, found in self.tags if name in found]


def written(params: Params) -> str:
    return report.run(make_context(params, "report", "", 0), params).read_text()


def folder_of(params: Params) -> Path:
    return Path(params.base.run.results) / params.base.run.dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, str]:
    """Complete results, made once and left alone, and their page."""
    results = tmp_path_factory.mktemp("made") / "results"
    raw = overlay(
        overlay(read_yaml(ROOT / "params.yaml"), TINY), {"run": {"results": str(results)}}
    )
    params = params_of(raw)
    make_results(params)
    return params, written(params)


@pytest.fixture
def params(tiny_raw: dict[str, Any]) -> Params:
    """The configuration of results that do not exist yet."""
    return params_of(tiny_raw)


@pytest.fixture
def complete(made: tuple[Params, str], params: Params) -> Params:
    """Complete results, free to damage."""
    shutil.copytree(folder_of(made[0]), folder_of(params))
    (folder_of(params) / "report.html").unlink()
    return params


# Complete results


def test_a_complete_page(made: tuple[Params, str]) -> None:
    params, text = made
    seen = Page(text)
    anchors = [
        *("comparison", "intervals", "classes", "images", "confusion", "thresholds"),
        *("training", "costs", "overview", "configuration"),
    ]
    assert [i for i in seen.values("id") if i in anchors] == anchors
    links = [v for v in seen.values("href") if v.startswith("#") and len(v) < 20]
    assert {f"#{anchor}" for anchor in anchors} <= set(links)
    for variant in params.base.run.variants:
        assert f"{variant}: prediction" in seen.text
    assert "baseline: CAM, shared by 2" in seen.text
    assert "irnet: CAM" not in seen.text
    assert "Not scored yet" not in seen.text
    assert "One seed: no spread" in seen.text
    assert "of supervised: val +CRF as a percentage of that of 'supervised'." in seen.text
    manifest = load_json(folder_of(params) / "data" / "dataset.json")
    assert manifest["data_hash"] in seen.text


def test_scores_are_those_of_the_metrics(made: tuple[Params, str]) -> None:
    params, text = made
    seen = Page(text)
    for variant in params.base.run.variants:
        run = Paths(Path(params.base.run.results), params.base.run.dataset, variant)
        miou = load_json(Path(f"{run.metrics('final')}.json"))["miou"]
        assert f"{100 * miou:.1f}" in seen.text


def test_it_needs_no_other_file(made: tuple[Params, str]) -> None:
    _, text = made
    seen = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {t for t, _ in seen.tags}
    for name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
        for value in seen.values(name):
            assert value.startswith(("#", "data:image/")), value[:80]
    for address in re.findall(r"url\(([^)]*)\)", text):
        assert address.startswith("#"), address
    assert "@import" not in text
    assert "http://" not in text
    assert "https://" not in text
    # And the browser is told so.
    policy = next(found for tag, found in seen.tags if tag == "meta" and "http-equiv" in found)
    assert str(policy["content"]).startswith("default-src 'none'")


def test_references_within_drawings_are_found_and_unique(made: tuple[Params, str]) -> None:
    _, text = made
    seen = Page(text)
    ids = seen.values("id")
    assert len(ids) == len(set(ids))
    used = {*re.findall(r"url\(#([^)]*)\)", text), *(h[1:] for h in seen.values("href"))}
    assert used <= set(ids)
    # Every stand-in has become a variable of the page.
    assert "#0102" not in text
    assert "var(--ink)" in text
    defined = set(re.findall(r"(--[a-z]+\d*):", text))
    assert set(re.findall(r"var\((--[a-z]+\d*)\)", text)) <= defined


def test_it_can_be_read_without_seeing_it(made: tuple[Params, str]) -> None:
    _, text = made
    seen = Page(text)
    for tag, found in seen.tags:
        if tag == "img":
            assert found["alt"]
        if tag == "th":
            assert found["scope"] in ("row", "col")
        if found.get("role") in ("img", "region"):
            assert found["aria-label"]
    assert ("html", {"lang": "en"}) in seen.tags


def test_the_same_results_give_the_same_bytes(complete: Params) -> None:
    first = written(complete)
    assert written(complete) == first
    # Without records of jobs only times, machine and versions are gone.
    for record in folder_of(complete).rglob("*.run.json"):
        record.unlink()
    blind = written(complete)
    assert "No records of jobs" in blind
    part = re.compile(r'<section id="(costs|overview)".*?</section>', re.DOTALL)
    assert part.sub("", blind) == part.sub("", first)


def test_several_seeds_show_their_spread(tiny_raw: dict[str, Any]) -> None:
    params = params_of(tiny_raw, run={"seeds": [0, 1]})
    make_results(params)
    seen = Page(written(params))
    assert "±" in seen.text
    assert "the mean over its seeds, each scored on the same resampled images" in seen.text
    assert "One line a seed." in seen.text
    assert "One seed" not in seen.text


# Incomplete results


def test_nothing_but_a_manifest(params: Params) -> None:
    make_manifest(params)
    seen = Page(written(params))
    assert "baseline, irnet, supervised everything" in seen.text
    assert "Nothing has been trained yet" in seen.text


def test_no_manifest_is_a_mistake(params: Params) -> None:
    with pytest.raises(UserError, match=r"dataset\.json does not exist"):
        written(params)


def test_a_variant_that_has_not_run_is_named(params: Params) -> None:
    make_results(params, "baseline", "supervised")
    seen = Page(written(params))
    assert "irnet val_walk" not in seen.text
    assert re.search(r"Not scored yet .* irnet walk, pseudo, val single-scale", seen.text)
    assert "irnet: prediction" not in seen.text


def test_stores_without_scores_are_shown(params: Params) -> None:
    make_results(params, evaluated=False)
    seen = Page(written(params))
    assert "nothing is scored yet to rank images by" in seen.text
    assert "supervised: prediction" in seen.text
    assert "No threshold sweep yet" in seen.text


@pytest.mark.parametrize(
    "gone",
    [
        "*/seed0/*/curve.csv",
        "*/seed0/predict",
        "*/seed0/cam",
        "*/seed0/metrics/*.images.csv",
        "*/seed0/metrics/*.classes.csv",
        "*/seed0/metrics/*.confusion.csv",
        "*/seed0/metrics/*.sweep.csv",
        "*/seed0/metrics/final.*",
        "baseline",
    ],
)
def test_any_piece_may_be_missing(complete: Params, gone: str) -> None:
    found = list(folder_of(complete).glob(gone))
    assert found
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    Page(written(complete))


def test_counts_of_another_evaluation_are_refused(complete: Params) -> None:
    path = folder_of(complete) / "irnet" / "seed0" / "metrics" / "final.images.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-3]) + "\n")
    with pytest.raises(UserError, match=r"final\.images\.csv"):
        written(complete)
    assert not (folder_of(complete) / "report.html").exists()


def test_another_data_set_is_not_set_beside(complete: Params) -> None:
    path = folder_of(complete) / "irnet" / "seed0" / "metrics" / "final.json"
    save_json(path, {**load_json(path), "data_hash": "other"})
    with pytest.raises(UserError, match="cannot be compared"):
        written(complete)


# Names


def test_hostile_names_stay_text(tiny_raw: dict[str, Any], tmp_path: Path) -> None:
    """Class and file names are the user's; the page must not run or lose them."""
    classes = ('<script>alert("x")</script>', "a$b$ & 'c'", "</svg><img src=x>")
    photos(tmp_path / "photos", 6, classes)
    params = params_of(tiny_raw, **_photos(tmp_path / "photos"))
    make_results(params, evaluated=False)
    text = written(params)
    seen = Page(text)
    assert "<script" not in text
    assert "src=x" not in [value for _, found in seen.tags for value in found.values()]
    for name in classes:
        assert name in seen.text


def test_a_drawing_takes_a_name_as_it_is() -> None:
    svg = draw("x", lambda axes: axes.set_title('<b>$x^2$ & "y"'))
    assert "&lt;b&gt;$x^2$ &amp;" in svg


# Data without masks


def _photos(folder: Path) -> dict[str, Any]:
    return {
        "data": {
            "source": "folder",
            "root": str(folder),
            "classes": None,
            "splits": {"train": "train", "seed": None, "tune": None, "val": None},
        },
        "cam": {"threshold": 0.4},
        "run": {"variants": ["baseline"]},
    }


def test_data_without_masks_gets_agreement(tiny_raw: dict[str, Any], tmp_path: Path) -> None:
    photos(tmp_path / "photos", 9)
    params = params_of(tiny_raw, **_photos(tmp_path / "photos"))
    make_results(params, evaluated=False)
    seen = Page(written(params))
    anchors = seen.values("id")
    for part in ("agreement", "unsure", "sheet", "training", "configuration"):
        assert part in anchors
    assert "comparison" not in anchors
    assert "nothing here is accuracy" in seen.text
    assert "predictions of 4 of 9 images" in seen.text
    assert "the 9 least confident of 9 images" in seen.text
    assert "ground truth" not in [found.get("alt") for _, found in seen.tags]


def test_photos_that_nothing_was_made_of(tiny_raw: dict[str, Any], tmp_path: Path) -> None:
    photos(tmp_path / "photos", 3)
    params = params_of(tiny_raw, **_photos(tmp_path / "photos"))
    make_manifest(params)
    assert "Nothing has been predicted yet." in Page(written(params)).text


# The command


def test_the_command_prints_the_path(
    complete: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--params", str(dump(complete, tmp_path / "p.yaml"))]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == folder_of(complete) / "report.html"
    assert path.read_text().startswith("<!DOCTYPE html>")


def test_size_grows_with_pictures_only(made: tuple[Params, str]) -> None:
    params, text = made
    manifest = make_context(params, "report", "", 0).manifest
    where = Paths(Path(params.base.run.results), params.base.run.dataset)
    settings = params.base.report.model_copy(update={"images": 3})
    many = len(page(Results(params, manifest, where, settings), 1))
    assert len(text) < many < 1_000_000
