"""The model that MLflow keeps and serves: photos in, masks out.

This file is copied beside the weights and run when the model is loaded; all else comes from the
installed package. A photo is an encoded file in the column ``image``; ``tags``, where given, names
the classes it may hold (``cat,dog``), all others are ruled out. A mask is a palette PNG of the
photo's size, ids 1..C in the order of the network's classes, 0 background.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from wsss.inference.encoded import EncodedPredictor


class SegmentationModel(PythonModel):
    """Loads the weights once, with the scales and the CRF in their metadata."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the network."""
        self.predictor = EncodedPredictor(Path(context.artifacts["weights"]))

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """Return the column ``mask``, a row a photo."""
        tags = model_input.get("tags")
        return pd.DataFrame({"mask": self.predictor.masks(model_input["image"], tags)})


set_model(SegmentationModel())
