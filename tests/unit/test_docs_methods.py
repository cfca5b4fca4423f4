"""The pages of the methods: one for each, listed, with a figure that is up to date."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT, load_script
from wsss.methods import load_method, method_names

DOCS = ROOT / "docs"
PAGES = DOCS / "methods"
IMAGES = DOCS / "images" / "methods"


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    return load_script("docs/figures.py")


def test_every_method_has_a_page_with_its_figure() -> None:
    for name in method_names():
        text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
        assert f"](../images/methods/{name}.svg)" in text, f"add the figure to {name}.md"
        assert f"wsss/methods/{name}.py" in text


def test_the_list_names_every_method_as_it_calls_itself() -> None:
    text = (PAGES / "README.md").read_text(encoding="utf-8")
    for name in method_names():
        info = load_method(name).info
        row = re.search(rf"^\| \[{name}\]\({name}\.md\) \| (.*?) \| (.*?) \|", text, re.MULTILINE)
        assert row is not None, name
        assert row[1] == info.status
        assert set(row[2].split(", ")) == set(info.roads)


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_figures_are_up_to_date(figures: ModuleType, tmp_path: Path) -> None:
    assert set(figures.FIGURES) == {*method_names(), "toco"}
    figures.main(tmp_path)
    for drawn in sorted(tmp_path.iterdir()):
        assert (IMAGES / drawn.name).read_bytes() == drawn.read_bytes(), (
            "run python docs/figures.py"
        )


def test_arrows_join_boxes(figures: ModuleType) -> None:
    for name, figure in figures.FIGURES.items():
        for arrow in figure.arrows:
            assert {arrow.start, arrow.end} <= set(figure.boxes), (name, arrow)


def test_no_boxes_overlap(figures: ModuleType) -> None:
    for name, figure in figures.FIGURES.items():
        boxes = list(figure.boxes.values())
        for index, one in enumerate(boxes):
            for two in boxes[index + 1 :]:
                wide = (figures._size(one)[0] + figures._size(two)[0]) / 2
                apart = abs(one.column - two.column) * figures.COLUMN >= wide
                assert apart or abs(one.row - two.row) * figures.ROW >= figures.HIGH, (
                    name,
                    one,
                    two,
                )
