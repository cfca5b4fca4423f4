"""What all tests share: real photos where they are, and tiny configurations."""

from __future__ import annotations

import copy
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# Before torch is loaded: on tiny tensors threads gain nothing, and where other work keeps the
# cores busy they wait for each other a hundred times longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Workflows that tests run tell nobody, but where a test asks for it.
os.environ["WSSS_PUBLISH"] = "0"
os.environ.pop("MLFLOW_TRACKING_URI", None)

from wsss.config import Params
from wsss.config.resolve import overlay, read_yaml

ROOT = Path(__file__).parents[1]


def load_script(path: str) -> ModuleType:
    """Return a script of docs/ or benchmarks/ as a module, fresh at every call."""
    name = f"script_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def project() -> Path:
    """Folder of the project."""
    return ROOT


@pytest.fixture(scope="session")
def voc_root() -> Path:
    """A folder in VOC's layout with real photos."""
    value = os.environ.get("WSSS_TEST_VOC")
    if not value:
        pytest.skip("WSSS_TEST_VOC does not name a folder of VOC-animals")
    return Path(value)


@pytest.fixture(scope="session")
def coco_root() -> Path:
    """A folder in COCO's layout with real photos."""
    value = os.environ.get("WSSS_TEST_COCO")
    if not value:
        pytest.skip("WSSS_TEST_COCO does not name a folder of COCO-mini")
    return Path(value)


# The real configuration, shrunk: the same code, a few images and steps.
TINY: dict[str, Any] = {
    "data": {"scenes": {"size": 96, "train": 12, "tune": 4, "val": 4}},
    "resources": {"processes": 1},
    "classify": {"epochs": 1, "batch": 4, "crop": 64, "long_side": [64, 96]},
    "cam": {"scales": [0.5, 1.0]},
    "refine": {"method": "affinitynet"},
    "affinity": {"epochs": 1, "batch": 4, "crop": 64},
    "irnet": {"epochs": 1, "batch": 4, "crop": 64, "radius": 5},
    "walk": {"steps": 16},
    "segment": {"epochs": 1, "batch": 4, "crop": 64, "width": 32},
    "predict": {"scales": [1.0]},
    "report": {"images": 1, "bootstrap": 100},
}


@pytest.fixture
def raw_params() -> dict[str, Any]:
    """``params.yaml`` as plain data, free to edit."""
    return copy.deepcopy(read_yaml(ROOT / "params.yaml"))


@pytest.fixture
def tiny_raw(raw_params: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The shrunk configuration with results in a temporary folder."""
    return overlay(overlay(raw_params, TINY), {"run": {"results": str(tmp_path / "results")}})


@pytest.fixture
def tiny_params(tiny_raw: dict[str, Any]) -> Params:
    """The shrunk configuration, resolved."""
    return Params(tiny_raw)
