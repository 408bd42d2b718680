"""What came of a study's cells, a record each."""

from __future__ import annotations

from typing import Any

from advss.studies.folder import StudyFolder, runs_of

OF_RESULT = ("ta", "ra", "ra_images", "best_epoch", "epochs", "seconds")


def records(folder: StudyFolder) -> list[dict[str, Any]]:
    """A record a cell: label, what varies, seed, how it stands, and of its result what is known."""
    states, found = folder.states(), []
    for cell in folder.content["cells"]:
        state, why = folder.state_of(cell, states)
        last = folder.run(runs_of(cell)[-1])
        result = last.read_result()
        found.append(
            {"cell": cell["label"], **cell["values"], "seed": cell["seed"], "state": state, "why": why}
            | {key: result.get(key) for key in OF_RESULT}
            | {"folder": str(last.path)}
        )
    return found
