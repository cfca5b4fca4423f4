"""The final network as an MLflow model: a source file, safetensors, and no pickle."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from wsss import __version__
from wsss.artifacts import load_weights, save_weights
from wsss.errors import UserError
from wsss.tracking.records import Network

if TYPE_CHECKING:
    import pandas as pd

NAME = "network"
SOURCE = Path(__file__).with_name("served.py")
# Photos arrive and masks leave as encoded files, so that JSON can carry them (as base64).
_EXAMPLE_SIZE = 96
_PACKAGES = ("mlflow", "pandas", "torch")


def log_network(run_id: str, network: Network) -> None:
    """Add a run's network to the store.

    Raises UserError if the weights do not say what they are, or the network cannot be built.
    """
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    from wsss.inference.settings import trained

    trained(network.weights)
    example = example_input()
    with tempfile.TemporaryDirectory() as name:
        weights = packed(network, Path(name))
        try:
            _check(weights, example)
        except UserError as error:  # it is not the copy that is to be mended
            raise UserError(str(error).replace(str(weights), str(network.weights))) from error
        inputs = Schema([ColSpec("binary", "image"), ColSpec("string", "tags", required=False)])
        with mlflow.start_run(run_id=run_id), _no_bytecode():
            mlflow.pyfunc.log_model(
                name=NAME,
                python_model=str(SOURCE),
                artifacts={"weights": str(weights)},
                signature=ModelSignature(inputs, Schema([ColSpec("binary", "mask")])),
                input_example=example,
                pip_requirements=requirements(),
                metadata={"content": network.digest},
            )


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Keep compiled code, which has a time in it, out of the model's folder."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def requirements() -> list[str]:
    """Return what a process needs to load the model; this package is none of the index's."""
    return [f"wsss=={__version__}", *(f"{name}=={version(name)}" for name in _PACKAGES)]


def packed(network: Network, folder: Path) -> Path:
    """Copy weights into ``folder`` with the scales and the CRF they predict with."""
    state, meta = load_weights(network.weights)
    path = folder / "weights.safetensors"
    save_weights(path, state, {**meta, "inference": network.settings})
    return path


def example_input() -> pd.DataFrame:
    """Return one generated photo, encoded."""
    import io

    import numpy as np
    import pandas as pd
    from PIL import Image

    ramp = np.linspace(0, 255, _EXAMPLE_SIZE, dtype=np.uint8)
    picture = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(128)), -1)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return pd.DataFrame({"image": [buffer.getvalue()]})


def _check(weights: Path, example: pd.DataFrame) -> None:
    """Predict once: what cannot be served should not be kept."""
    from wsss.inference.encoded import EncodedPredictor

    EncodedPredictor(weights).masks(example["image"], None)
