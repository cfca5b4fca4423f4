"""Source closures: every file that can change a stage's result, and no other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from wsss import provenance
from wsss.config.slices import MODULES, STAGES
from wsss.methods import method_names
from wsss.provenance import closure, code_hash, stage_modules

ALL = set(STAGES)
# Stages that start in less than a second and run where no torch is.
WITHOUT_NETWORK = {"manifest", "seeds", "pseudo", "soft", "crf", "evaluate", "compare", "report"}
SEEDS = {"seeds_alpha", "seeds_label", "seeds_confident"}
EVALUATIONS = {stage for stage in STAGES if stage.startswith("evaluate")}
TRAIN = {"classify", "affinity", "segment", "irnet"}


def hashes() -> dict[str, str]:
    return {stage: code_hash(stage, "baseline") for stage in STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_a_closure_is_of_this_package_without_what_is_neutral(stage: str) -> None:
    modules = stage_modules(stage, "baseline")
    assert f"wsss.stages.{MODULES[stage]}" in modules
    assert {"wsss", "wsss.errors", "wsss.artifacts"} <= set(modules)
    assert len(set(modules)) == len(modules)
    files = {provenance._file(module) for module in modules}
    assert None not in files
    assert len(files) == len(modules)
    for neutral in ("config", "cli", "paths", "provenance", "runrecord"):
        assert not [m for m in modules if m.startswith(f"wsss.{neutral}")]


@pytest.mark.parametrize("module", [*sorted(WITHOUT_NETWORK), "walk"])
def test_a_closure_holds_what_python_imports(module: str) -> None:
    """Measured in a fresh interpreter, not read from the source."""
    code = f"import json, sys, wsss.stages.{module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = json.loads(done.stdout)
    own = {name for name in loaded if name.split(".")[0] == "wsss"}
    assert {name for name in own if not provenance._neutral(name)} <= set(
        closure(f"wsss.stages.{module}")
    )
    assert ("torch" in loaded) == (module not in WITHOUT_NETWORK)


def test_every_stage_without_a_network_is_checked() -> None:
    assert set(MODULES.values()) >= WITHOUT_NETWORK
    assert not WITHOUT_NETWORK & {
        MODULES[stage] for stage, keys in STAGES.items() if "compute" in keys
    }


def test_names_in_registries_count() -> None:
    """Data sources are imported by names that stand in strings."""
    sources = {"wsss.data.scenes", "wsss.data.voc", "wsss.data.folder", "wsss.data.coco"}
    assert sources <= set(stage_modules("manifest", "baseline"))
    assert sources.isdisjoint(stage_modules("cam", "baseline"))


@pytest.mark.parametrize("method", method_names())
def test_a_method_is_part_of_the_stages_that_run_it(method: str) -> None:
    name = f"wsss.methods.{method}"
    holders = {stage for stage in STAGES if name in stage_modules(stage, method)}
    assert holders == {"classify", "cam", "predict"}
    others = {f"wsss.methods.{other}" for other in method_names()} - {name}
    # Unless one builds on the other, a method's edit leaves the others' runs alone.
    assert others.isdisjoint(set(stage_modules("classify", method)) - set(closure(name)))


def test_evaluation_is_no_part_of_what_it_evaluates() -> None:
    for stage in ALL - EVALUATIONS:
        modules = stage_modules(stage, "baseline")
        assert not [m for m in modules if m.startswith("wsss.metrics")], stage


def test_an_unknown_module_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"wsss\.stages\.nothing is not a module"):
        closure("wsss.stages.nothing")


# Edits


def forget() -> None:
    """Let the next look see the files as they are now."""
    for remembered in (provenance._imports, provenance.data_files, provenance.code_hash):
        remembered.cache_clear()


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package that the closures are taken from."""
    copy = tmp_path / "wsss"
    shutil.copytree(provenance._SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    monkeypatch.setattr(provenance, "_SOURCE", copy)
    forget()
    yield copy
    forget()


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("refine/walk.py", {"walk"}),
        ("refine/crf.py", {*SEEDS, "walk", "pseudo", "soft", "crf"}),
        ("losses/affinity.py", {"affinity", "walk", "irnet", "edges"}),
        ("inference/cam.py", {"cam"}),
        ("inference/segmentation.py", {"predict"}),
        ("stages/compare.py", {"compare"}),
        ("report/statistics.py", {"report"}),
        ("report/comparison.py", {"compare", "report"}),
        # What a module names and reads is a part of it.
        ("report/page.html.j2", {"report"}),
        ("report/page.css", {"report"}),
        ("metrics/boundary.py", EVALUATIONS - {"evaluate_boxes"}),
        ("data/scenes.py", {"manifest"}),
        ("data/voc.py", {"manifest"}),
        ("data/check.py", set()),
        ("methods/baseline.py", {"classify", "cam", "predict"}),
        ("artifacts.py", ALL),
        ("stages/__init__.py", ALL),
        ("cli.py", set()),
        ("config/schema.py", set()),
        ("runrecord.py", set()),
    ],
)
def test_an_edit_changes_the_stages_that_contain_it(
    source: Path, file: str, stages: set[str]
) -> None:
    before = hashes()
    path = source / file
    path.write_text(path.read_text() + "\n# edited\n")
    forget()
    after = hashes()
    assert {stage for stage in STAGES if before[stage] != after[stage]} == stages


def test_the_hash_does_not_depend_on_where_the_package_lies(source: Path) -> None:
    here = hashes()
    (source / "unrelated.py").write_text("import wsss.cli\n")
    forget()
    assert hashes() == here
    provenance._SOURCE = ROOT / "wsss"
    forget()
    assert hashes() == here


@pytest.mark.parametrize(
    "statement",
    [
        "import wsss.added",
        "from wsss import added",
        "from wsss.added import thing",
        "def late():\n    from wsss.added import thing",
        "if False:\n    import wsss.added as other",
        'REGISTRY = {"x": "wsss.added"}',
        "import importlib\nimportlib.import_module('wsss.added')",
    ],
)
def test_every_form_of_import_is_followed(source: Path, statement: str) -> None:
    (source / "added.py").write_text("from wsss import deeper\nthing = 1\n")
    (source / "deeper.py").write_text("")
    path = source / "refine" / "walk.py"
    path.write_text(f"{path.read_text()}\n\n{statement}\n")
    forget()
    assert {"wsss.added", "wsss.deeper"} <= set(stage_modules("walk", "baseline"))
    assert "wsss.added" not in stage_modules("crf", "baseline")


def test_training_stages_share_the_loop_and_others_do_not() -> None:
    holders = {s for s in STAGES if "wsss.engine.loop" in stage_modules(s, "baseline")}
    assert holders == TRAIN


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("models.affinitynet", {"affinity", "walk"}),
        ("models.irnet", {"irnet", "edges"}),
        ("models.segmenters", {"segment", "predict"}),
        ("models.bifpn", {"segment", "predict"}),
        ("stages.importing", {"classify", "segment"}),
    ],
)
def test_a_network_is_part_of_the_stages_that_build_it(module: str, stages: set[str]) -> None:
    holders = {s for s in STAGES if f"wsss.{module}" in stage_modules(s, "baseline")}
    assert holders == stages
