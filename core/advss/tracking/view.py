"""How MLflow's list of runs opens by the link of ``advss ui``: one row a run, TA, RA and the choices first.

MLflow keeps columns and charts in the browser; a link can bring others from a tag of the experiment, as its own button
"share" does. So the view is written there, and the link names it. A browser's own view stays what it was.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from advss.tracking.store import RUNS_PAGE

if TYPE_CHECKING:
    from mlflow import MlflowClient

KIND = "advss.kind"  # tag of each of our runs, see advss.tracking.mlflow_runs
RUN = "run"
FILTER = f"tags.\"{KIND}\" = '{RUN}'"

NAME = "advss"
TAG = f"mlflow.sharedViewState.{NAME}"
LINK = f"{RUNS_PAGE}&viewStateShareKey={NAME}"

ACCURACIES = ("test/ta", "test/ra", "test/autoattack/ra")
CHOICES = ("pretext", "defense", "finetune", "finetune_defense", "diversity", "data", "backbone", "seed", "command")
COLUMNS = [*(f"metrics.`{name}`" for name in ACCURACIES), *(f"params.`{name}`" for name in CHOICES)]
NAME_COLUMN, DATE_COLUMN = "attributes.`Run Name`", "runDateAndNestInfo"
WIDTHS = {
    NAME_COLUMN: 290,
    DATE_COLUMN: 150,
    "params.`pretext`": 150,
    "params.`backbone`": 120,
    "metrics.`test/autoattack/ra`": 140,
}  # pixels
SECTIONS = {"test": True, "valid": True, "Model metrics": False, "System metrics": False}  # name -> whether it is open


def shown_first() -> dict[str, Any]:
    """The view, under the names of MLflow 3.17's pages; a page that knows one no more leaves it out."""
    bars = [_chart("BAR", name, "test", metricKey=name, displayName=name) for name in ACCURACIES[:2]]
    axes = {axis: {"key": name, "type": "METRIC"} for axis, name in zip(("xaxis", "yaxis"), ACCURACIES, strict=False)}
    return {
        "searchFilter": FILTER,
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": COLUMNS,
        "columnOrder": [NAME_COLUMN, DATE_COLUMN, *COLUMNS],
        "columnWidths": dict.fromkeys(COLUMNS, 85) | WIDTHS,
        "compareRunSections": [_section(name, is_open=is_open) for name, is_open in SECTIONS.items()],
        "compareRunCharts": [*bars, _chart("SCATTER", "ta-ra", "test", **axes)],  # MLflow adds the others
        "isAccordionReordered": True,  # else the sections are sorted by name
    }


def keep_view(client: MlflowClient, experiment_id: str) -> None:
    """Give the experiment the view, unless it has it."""
    view = json.dumps(shown_first())
    if client.get_experiment(experiment_id).tags.get(TAG) != view:
        client.set_experiment_tag(experiment_id, TAG, view)


def _section(name: str, *, is_open: bool) -> dict[str, Any]:
    flags = {"isReordered": False, "deleted": False, "isGenerated": True}
    return {"uuid": name, "name": name, "display": is_open, **flags}


def _chart(kind: str, name: str, section: str, **more: Any) -> dict[str, Any]:
    place = {"type": kind, "uuid": name, "metricSectionId": section, "runsCountToCompare": 100}
    return {**place, "deleted": False, "isGenerated": True, **more}
