"""The trained classifier as a model of MLflow: code and safetensors, nothing pickled."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

NAME = "classifier"
LOADER = Path(__file__).with_name("loader.py")
DIGEST = "advss.sha256"  # tag of each of our models


def log_model(client: MlflowClient, run: str, experiment: str, *, weights: Path, manifest: Path) -> None:
    """Log the classifier as an output of a run; equal weights are logged once.

    It is loaded by ``mlflow.pyfunc.load_model("runs:/RUN/classifier")``; ``predict`` takes images (B, C, S, S) float32
    in [0, 1], S the side that the model was made for, and returns logits (B, K); it refuses any other.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    model = _find(client, run, experiment, digest) or client.create_logged_model(
        experiment, name=NAME, source_run_id=run, tags={DIGEST: digest}
    )
    outputs = client.get_run(run).outputs
    if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run, [LoggedModelOutput(model.model_id, step=0)])
    if model.status != LoggedModelStatus.READY:
        with tempfile.TemporaryDirectory() as folder:
            _save(Path(folder) / NAME, model, run, weights, manifest)
            client.log_model_artifacts(model.model_id, str(Path(folder) / NAME))
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _find(client: MlflowClient, run: str, experiment: str, digest: str) -> LoggedModel | None:
    condition = f"source_run_id = '{run}' AND tags.`{DIGEST}` = '{digest}'"
    found = client.search_logged_models([experiment], condition, max_results=1)
    return found[0] if found else None


def _save(folder: Path, model: LoggedModel, run: str, weights: Path, manifest: Path) -> None:
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import Schema, TensorSpec

    channels, side, classes = _sizes(json.loads(manifest.read_text()))
    images = Schema([TensorSpec(np.dtype(np.float32), (-1, channels, side, side))])
    logits = Schema([TensorSpec(np.dtype(np.float32), (-1, classes))])
    save_model(
        folder,
        python_model=str(LOADER),
        artifacts={"weights": str(weights), "manifest": str(manifest)},
        pip_requirements=[_requirement()],
        signature=ModelSignature(images, logits),
        mlflow_model=Model(model.artifact_location, run, model_uuid=model.model_id, model_id=model.model_id),
    )


def _sizes(manifest: dict[str, Any]) -> tuple[int, int, int]:
    """Channels and side of the images, and number of classes; an ensemble's members are of the same."""
    described = manifest
    while "members" in described:
        described = described["members"][0]
    data = described["model"]["data"]
    return data["channels"], data["side"], len(manifest["classes"])


def _requirement() -> str:
    try:
        return f"advss=={importlib.metadata.version('advss')}"
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "advss"
