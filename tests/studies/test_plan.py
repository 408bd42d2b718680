"""The graph of stages: what is shared, what needs what, and names that runs keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advss.config import RunConfig
from advss.data.splits import Splits
from advss.errors import UsageError
from advss.runs.session import open_data
from advss.studies import identity
from advss.studies.definition import Definition
from advss.studies.grid import cells_of
from advss.studies.identity import Datasets
from advss.studies.plan import Plan, Runs, plan_of
from advss.studies.run import lay_out
from advss.training.reporting import Silent


def planned(study: Definition, runs_dir: Path = Path("runs"), kept: tuple[str, ...] = ()) -> tuple[Plan, Runs]:
    runs = Runs(runs_dir, kept)
    return plan_of(study, cells_of(study), Datasets(Silent()), runs), runs


def test_cells_share_a_pretraining_and_need_it(made: Any) -> None:
    plan, _ = planned(made(seeds=2))
    kinds = [stage.kind for stage in plan.stages.values()]
    assert kinds.count("pretrain") == 2
    assert kinds.count("finetune") == 6
    shared = [of for of in plan.cells if of.cell.label.startswith("P3") and of.cell.seed == 1]
    (first,) = {of.pretraining.run for of in shared if of.pretraining}
    assert [of.run.after for of in shared if of.run] == [(first,), (first,)]
    assert [of.run.after for of in plan.cells if of.run and of.cell.label == "P1 F4"] == [(), ()]


def test_each_stage_stands_behind_those_that_it_needs(made: Any) -> None:
    plan, _ = planned(made(ensembles={"all": ["P1 F4", "P3 F4"]}, transfers={"all": ["P1 F4", "P3 F4"]}, seeds=2))
    seen: set[str] = set()
    for run, stage in plan.stages.items():
        assert seen >= {*stage.after}
        seen.add(run)
    assert [stage.kind for stage in plan.stages.values()][-4:] == ["ensemble"] * 2 + ["transfer"] * 2


def test_cells_that_differ_in_measuring_alone_are_one_run_with_two_measurements(made: Any) -> None:
    plan, _ = planned(made(rows={"a": {"pretext": "none"}}, vary={"eval-limit": [10, 20]}))
    (stage,) = plan.stages.values()
    assert sorted(by["eval-limit"] for by in stage.measures.values()) == [10, 20]
    assert len({of.measures for of in plan.cells}) == 2


def test_a_cell_that_trains_nothing_is_refused(made: Any) -> None:
    with pytest.raises(UsageError, match="cell 'a': nothing to train"):
        planned(made(rows={"a": {"pretext": "none", "finetune-epochs": 0}}))


def test_images_are_read_once_whatever_is_asked_of_them(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[RunConfig]()

    def reading(config: RunConfig, *more: Any) -> Splits:
        read.append(config)
        return open_data(config, *more)

    monkeypatch.setattr(identity, "open_data", reading)
    lay_out(made({"data.limit": 0, "memory-format": "auto"}, seeds=3), Path("runs"), Silent())
    assert len(read) == 1


def test_an_average_of_one_run_twice_is_refused(made: Any) -> None:
    rows = {"a": {"pretext": "none", "eval-limit": 10}, "b": {"pretext": "none", "eval-limit": 20}}
    with pytest.raises(UsageError, match="two of 'both' are one run"):
        planned(made(rows=rows, ensembles={"both": ["a", "b"]}))


def test_an_average_of_what_is_not_fine_tuned_is_refused(made: Any) -> None:
    rows = {"a": {"pretext": "rotation", "finetune-epochs": 0}, "b": {"pretext": "jigsaw", "finetune-epochs": 0}}
    with pytest.raises(UsageError, match="ensembles: 'both' is of 'a', which is not fine-tuned"):
        planned(made(rows=rows, ensembles={"both": ["a", "b"]}))


def test_what_another_version_made_is_found_and_kept_where_that_is_said(made: Any, tmp_path: Path) -> None:
    study = made(rows={"a": {"pretext": "none"}})
    (here,) = planned(study, tmp_path)[0].stages
    other = f"{here[:-4]}0000"
    (tmp_path / other).mkdir()
    plan, runs = planned(study, tmp_path)
    assert runs.others == {here: other}
    assert [*plan.stages] == [here]
    plan, runs = planned(study, tmp_path, kept=(other,))
    assert [*plan.stages] == [other]
    assert runs.others == {}
    (tmp_path / here).mkdir()
    assert [*planned(study, tmp_path, kept=(other,))[0].stages] == [here]
