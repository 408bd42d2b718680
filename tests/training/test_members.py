from __future__ import annotations

from advss.training.members import by_member, member_stage


def test_each_member_has_its_metrics_under_the_names_of_a_single_task() -> None:
    metrics = {
        "train/loss": 3.0,
        "train/rotation/loss": 1.0,
        "valid/adversarial/rotation/accuracy": 0.5,
        "step/selfie#2/loss": 2.0,
        "step/diversity": -1.0,
        "step/cosine:rotation/selfie#2": 0.1,
        "step/abs_cosine:rotation/selfie#2": 0.2,
    }
    assert by_member(metrics, ["rotation", "selfie#2"]) == {
        "rotation": {"train/loss": 1.0, "valid/adversarial/accuracy": 0.5},
        "selfie#2": {"step/loss": 2.0},
    }


def test_one_task_is_no_ensemble() -> None:
    assert by_member({"train/loss": 3.0}, ["rotation"]) == {}


def test_a_member_is_tracked_below_its_stage() -> None:
    assert member_stage("pretrain", "rotation") == "pretrain/rotation"
