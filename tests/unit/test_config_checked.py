"""What was found valid is not checked again, and nothing else is skipped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from wsss.config import Params, checked
from wsss.config.checked import validate_once
from wsss.config.resolve import overlay, read_yaml
from wsss.errors import UserError


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line for every check that is really made."""
    made: list[str] = []
    validate = Params.validate

    def counted(params: Params) -> None:
        made.append(params.origin)
        validate(params)

    monkeypatch.setattr(Params, "validate", counted)
    return made


def params(**changes: Any) -> Params:
    return Params(overlay(read_yaml(ROOT / "params.yaml"), changes), "a test")


def test_a_valid_configuration_is_checked_once(tmp_path: Path, checks: list[str]) -> None:
    for _ in range(2):
        validate_once(params(), tmp_path / "marks")
    assert len(checks) == 1


def test_an_edited_value_is_checked(tmp_path: Path, checks: list[str]) -> None:
    validate_once(params(), tmp_path)
    wrong = {"rtc": {"method": {"params": {"nce_weight": -1}}}}
    for _ in range(2):
        with pytest.raises(UserError, match=r"method\.params\.nce_weight is -1"):
            validate_once(params(variants=wrong), tmp_path)
    assert len(checks) == 3


def test_a_method_that_does_not_exist(tmp_path: Path) -> None:
    wrong = {"rtc": {"method": {"name": "rtcc", "params": {}}}}
    with pytest.raises(UserError, match=r"method\.name is 'rtcc': known are"):
        validate_once(params(variants=wrong), tmp_path)


@pytest.mark.parametrize("folder", ["config", "methods", "losses"])
def test_an_edit_of_what_checks_is_checked(
    tmp_path: Path, checks: list[str], monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    package = tmp_path / "wsss"
    shutil.copytree(checked._PACKAGE, package)
    monkeypatch.setattr(checked, "_PACKAGE", package)
    validate_once(params(), tmp_path / "marks")
    with (package / folder / "__init__.py").open("a") as source:
        source.write("# edited\n")
    validate_once(params(), tmp_path / "marks")
    assert len(checks) == 2


def test_a_folder_that_cannot_be_written_costs_time_alone(
    tmp_path: Path, checks: list[str]
) -> None:
    (tmp_path / "file").touch()
    for _ in range(2):
        validate_once(params(), tmp_path / "file" / "marks")
    assert len(checks) == 2
