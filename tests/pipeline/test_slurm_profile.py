"""The profile for SLURM fits the rules, and every environment is made of the same pins."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from wsss.distributed.launch import PATIENCE


@pytest.fixture(scope="module")
def profile(project: Path) -> dict[str, Any]:
    return yaml.safe_load((project / "workflow/profiles/slurm/config.yaml").read_text())


@pytest.fixture(scope="module")
def rules(project: Path) -> dict[str, str]:
    """Text of every rule."""
    files = (project / "workflow/rules").glob("*.smk")
    text = "\n".join(path.read_text() for path in files if path.name != "common.smk")
    parts = re.split(r"^ *(?:use )?rule (?:\w+ as )?(\w+)(?::| with:)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_arrays_are_the_stages_with_shards(profile: dict[str, Any], rules: dict[str, str]) -> None:
    sharded = {name for name, text in rules.items() if re.search(r"\bpart\(", text)}
    assert set(profile["slurm-array-jobs"].split(",")) == sharded


def test_rules_ask_for_gpus_and_the_profile_for_memory_and_time(
    profile: dict[str, Any], rules: dict[str, str]
) -> None:
    asked = profile["set-resources"]
    assert set(asked) <= set(rules)
    assert all(set(wants) == {"mem_mb", "runtime"} for wants in asked.values())
    on_gpus = {name for name, text in rules.items() if re.search(r"gpu=|training_resources", text)}
    assert on_gpus <= set(asked)
    # By its partition the rules know a cluster.
    assert "slurm_partition" in profile["default-resources"]


def test_what_is_warned_has_the_time_to_save(profile: dict[str, Any]) -> None:
    warned = re.fullmatch(r"'--signal=TERM@(\d+)'", profile["default-resources"]["slurm_extra"])
    assert warned is not None
    assert 30 < PATIENCE < int(warned[1])


def test_no_tasks_are_asked_for(profile: dict[str, Any]) -> None:
    wants = [profile["default-resources"], *profile["set-resources"].values()]
    assert not any(name.startswith("tasks") for want in wants for name in want)


def test_what_holds_on_a_workstation_holds_on_a_cluster(
    profile: dict[str, Any], project: Path
) -> None:
    local = yaml.safe_load((project / "workflow/profiles/default/config.yaml").read_text())
    for key in ("max-checksum-file-size", "rerun-incomplete"):
        assert profile[key] == local[key]


def local_rules(file: Path) -> set[str]:
    block = re.search(r"^ *localrules:\n((?: +\w+,\n)+)", file.read_text(), re.M)
    assert block is not None
    return set(re.findall(r"\w+", block[1]))


def test_local_rules_are_rules(project: Path, rules: dict[str, str]) -> None:
    merges = {name for name in rules if name.startswith("merge_")}
    assert local_rules(project / "Snakefile") == merges | {"all", "compare", "report"}
    scores = {name for name in rules if name.startswith("evaluate")}
    assert local_rules(project / "workflow/rules/report.smk") == scores


def test_every_environment_is_made_of_the_same_pins(project: Path) -> None:
    conda = yaml.safe_load((project / "envs/wsss.yaml").read_text())["dependencies"]
    (pip,) = (entry["pip"] for entry in conda if isinstance(entry, dict))
    assert pip == ["-r ../requirements.lock", "-e .."]
    image = (project / "envs/Containerfile").read_text()
    assert "pip install --no-cache-dir -r requirements.lock" in image
    assert "--no-deps" in image
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    python = SpecifierSet(about["requires-python"])
    versions = [str(entry).partition("=")[2] for entry in conda if str(entry).startswith("python=")]
    versions += re.findall(r"^FROM \S+python:([\d.]+)", image, re.M)
    assert len(versions) == 2
    assert all(python.contains(version) for version in versions)


def test_pins_are_within_bounds(project: Path) -> None:
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    lines = (project / "requirements.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    pins = {canonical(name): version.split()[0] for name, version in pins.items()}
    extras = [bound for bounds in about["optional-dependencies"].values() for bound in bounds]
    for bound in map(Requirement, [*about["dependencies"], *extras]):
        assert bound.specifier.contains(pins[canonical(bound.name)]), bound


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
