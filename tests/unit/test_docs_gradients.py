"""The script that measures what each loss term moves."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.conftest import load_script
from tests.contract.test_methods import LATE, batch_of, make
from wsss.artifacts import save_json
from wsss.methods import method_names
from wsss.models.dropout import set_keys


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, its folder moved to a temporary place."""
    module = load_script("docs/gradients.py")
    monkeypatch.setattr(module, "KEPT", tmp_path)
    return module


@pytest.mark.parametrize("name", method_names())
def test_the_terms_of_every_method_add_up_to_its_objective(script: ModuleType, name: str) -> None:
    method, batch = make(name).train(), batch_of(4, name)
    parameters = [p for p in method.backbone.parameters() if p.requires_grad]
    terms: set[str] = set()
    seen: set[str] = set()
    for phase in range(method.phases(LATE)):
        set_keys(method, batch["key"])
        losses = method.losses(batch, LATE, phase)
        found = script.weighted(losses, parameters)
        whole = script.weighted(losses._replace(terms={"all": losses.total}), parameters)["all"]
        size = float(whole.norm())
        assert size > 0
        assert float((sum(found.values()) - whole).norm()) < 1e-4 * size
        terms |= found.keys()
        # A term that is smaller than that would not be missed.
        seen |= {term for term, part in found.items() if float(part.norm()) > 1e-3 * size}
    assert len(seen) >= min(2, len(terms))


def test_shares_and_directions(script: ModuleType) -> None:
    found = {
        "cls": torch.tensor([3.0, 0.0]),
        "rank": torch.tensor([0.0, 4.0]),
        "with": torch.tensor([0.3, 0.4]),
        "across": torch.tensor([8.0, -6.0]),
    }
    shares = script.against_labels(found)
    assert shares["with"] == pytest.approx([0.1, 1.0])
    assert shares["across"] == pytest.approx([2.0, 0.0], abs=1e-6)
    assert set(shares) == {"with", "across"}


def test_the_table(script: ModuleType, tmp_path: Path) -> None:
    assert script.table() == ""
    entry = {"rung": "r", "stage": "classify", "seed": 1, "batches": 6, "machine": "m"}
    save_json(tmp_path / "r-seed1.json", {**entry, "terms": {"er": [0.5, -0.25]}})
    assert "| r | classify | 1 | `er` | 0.500 | -0.25 |" in script.table()
