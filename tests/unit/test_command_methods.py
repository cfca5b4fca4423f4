"""``wsss methods``: everything that is implemented is named, with where its numbers come from."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field

from wsss.cli import main
from wsss.commands.parameters import meanings
from wsss.methods import load_method, method_names
from wsss.methods.base import MethodParams


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["methods", *arguments]) == 0
    return capsys.readouterr().out


def test_the_table_names_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys)
    rows = {line.split()[0]: line for line in text.splitlines() if line[:1].strip()}
    for name in method_names():
        info = load_method(name).info
        assert info.status in rows[name]
        assert all(road in rows[name] for road in info.roads)
        assert rows[name].endswith(" ".join(info.terms))
    assert "CVPR 2016" in text
    assert all(len(line) <= 160 for line in text.splitlines())


@pytest.mark.parametrize("name", method_names())
def test_a_description_holds_everything(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, name)
    method = load_method(name)
    flat = " ".join(text.split())
    assert " ".join(method.info.paper.split()) in flat
    assert "Source:" in text
    assert "\nDeviations" in text
    lines = text.splitlines()
    for parameter in method.Params.model_fields:
        assert any(line.startswith(f"  {parameter} ") for line in lines), parameter
    for term in method.info.terms:
        assert any(line.startswith(f"  {term} ") for line in lines), term
    for where, score in method.info.expected.items():
        assert f"{where} {' '.join(score.split())}" in flat
    assert ("unknown" in text) or method.info.expected


def test_papers_that_a_method_covers_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys).splitlines()
    for name in method_names():
        for other, known in load_method(name).info.configurations.items():
            start = next(k for k, line in enumerate(lines) if line.startswith(f"{other} "))
            below = " ".join(" ".join(lines[start + 1 : start + 4]).split())
            assert known.paper in below
            assert f"{name} with " in below


def test_a_paper_that_a_method_covers_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "toco")
    assert text.startswith("ToCo: faithful\n")
    assert "CVPR 2023" in text
    assert "mcc with locals: crops, region_main_start: 1\n" in text
    assert any(line.startswith("  locals ") and " crops " in line for line in text.splitlines())
    assert load_method("mcc").info.paper not in " ".join(text.split())


def test_an_unknown_method_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "nothing"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: 'nothing' is no method: known are baseline, ")
    assert error.count("\n") == 1


class Documented(MethodParams):
    """Two ways to say what a parameter is.

    Attributes:
        alpha, beta: weights, of
            either.
        gamma: overridden below.

    Not an entry: of anything.
    """

    alpha: float = 1.0
    beta: float = 2.0
    gamma: Annotated[int, Field(ge=1)] = 3  # beside it
    delta: list[int] = Field(default=[1, 2])  # after several lines
    silent: bool = False


class Inheriting(Documented):
    """Adds one."""

    epsilon: float = 0.1  # mine
    alpha: float = 5.0  # another default


def test_meanings_come_from_comments_and_docstrings() -> None:
    either = "weights, of either."
    assert meanings(Documented) == {
        **{"alpha": either, "beta": either, "gamma": "beside it"},
        "delta": "after several lines",
    }
    assert meanings(Inheriting) == {
        **{"alpha": "another default", "beta": either, "gamma": "beside it"},
        **{"delta": "after several lines", "epsilon": "mine"},
    }
