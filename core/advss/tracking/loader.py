"""How MLflow loads the classifier; MLflow copies this file into the model and runs it there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

BATCH = 256  # images at once


class ImageClassifier(PythonModel):
    """Images (B, C, S, S) float32 in [0, 1] -> logits (B, K) float32, on the CPU."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the weights, whose manifest lies beside them under the same stem."""
        import advss

        self.classifier = advss.load_model(context.artifacts["weights"]).eval()

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Logits of the images."""
        x_BCHW = torch.from_numpy(np.ascontiguousarray(model_input))
        with torch.inference_mode():
            return torch.cat([self.classifier(part).float() for part in torch.split(x_BCHW, BATCH)]).numpy()


set_model(ImageClassifier())
