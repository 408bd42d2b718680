"""The evaluation ``certify`` on a run: what it writes, that nothing is lost or measured twice, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Generator, Tensor

import advss
from advss.config import Choice, EvalSettings
from advss.data.splits import open_splits
from advss.errors import UsageError
from advss.evaluations.evaluate import evaluate
from advss.models.smoothed import ABSTAIN, SmoothedClassifier
from advss.tracking.journal import read_records
from advss.training.checkpoints import load_checkpoint, save_checkpoint
from advss.training.reporting import Silent
from advss.training.signals import Interrupted

SIGMA = 0.25
OPTIONS = {"n0": 20, "n": 60, "alpha": 0.01, "limit": 8, "batch_size": 60}
BEST = Path("finetune/best.safetensors")


def tell_noise(run: Path, **noise: float) -> None:
    """Make the checkpoint say on which noise it was trained; nothing: as one that does not say."""
    checkpoint = load_checkpoint(run / BEST)
    manifest = {key: value for key, value in checkpoint.manifest.items() if key not in ("noise", "sha256")}
    save_checkpoint(run / BEST, checkpoint.tensors, {**manifest, **noise})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 200 digits of 16 pixels that is right about every third image, and often in doubt."""
    runs = tmp_path_factory.mktemp("runs")
    advss.fit(
        pretext="none",
        defense="none",
        backbone={"resnet18": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}},
        finetune_epochs=5,
        finetune_batch_size=16,
        eval_valid_steps=1,
        eval_steps=1,
        eval_limit=10,
        name="digits",
        runs_dir=str(runs),
        device="cpu",
        memory_format="contiguous",
        tracking=False,
        data_limit=200,
        data_size=16,
    )
    tell_noise(runs / "digits", noise=SIGMA)
    return runs / "digits"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be certified."""
    return Path(shutil.copytree(trained, tmp_path / "digits"))


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are certified without being looked at, where it does not matter what comes out."""
    monkeypatch.setattr(SmoothedClassifier, "certify", lambda *_, **__: (1, 0.1))


def certified(run: Path, reporter: Silent | None = None, **options: Any) -> dict[str, Any]:
    chosen = [Choice("certify", {**OPTIONS, **options})]
    result = evaluate(run, EvalSettings(), chosen, device="cpu", reporter=reporter or Silent())
    (content,) = result["measured"]
    return dict(content)


def answers(run: Path, content: dict[str, Any]) -> dict[str, Tensor]:
    """The answers by image of a measurement."""
    return load_file((run / content["file"]).with_suffix(".safetensors"))


def by_place(run: Path, content: dict[str, Any]) -> dict[int, tuple[Any, ...]]:
    """Place in the test set -> label, certified class and radius."""
    found = answers(run, content)
    columns = [found[name].tolist() for name in ("label", "predicted", "radius")]
    return dict(zip(found["index"].tolist(), zip(*columns, strict=True), strict=True))


class Count(Silent):
    """Counts the images that were certified."""

    images = 0

    def step(self, *, step: int, images: int, metrics: Any) -> None:
        self.images += images


def kept(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "evaluations").glob("certify-*"))


# ---------------------------------------------------------------- what is written
def test_a_certificate_has_the_promised_keys(run: Path) -> None:
    content = certified(run)
    file = content.pop("file")
    assert json.loads((run / file).read_text()) == content
    assert {Path(name).suffix for name in kept(run)} == {".json", ".safetensors"}
    assert content["options"] == {"sigma": 0.25, "n0": 20, "n": 60, "alpha": 0.01}
    assert (content["images"]["count"], content["images"]["chunk"]) == (8, 1)
    assert content["checkpoint"] == load_checkpoint(run / BEST).manifest["sha256"]
    assert content["title"] == "smoothing n 60, α 0.01"
    figures = content["figures"]
    numbers = {"sigma", "acr", "abstained", "chance"}
    assert {name for name, one in figures.items() if isinstance(one, float)} == numbers
    assert {name for name, one in figures.items() if isinstance(one, dict) and "interval" in one} == {
        *("clean_accuracy", "accuracy_0.25"),  # 0.25 Φ⁻¹(0.01^(1/60)) is 0.36
    }
    assert {"radius", "accuracy", "largest_class", "most_answered", "doubt", "notes"} < figures.keys()
    found = answers(run, content | {"file": file})
    assert {name: (one.dtype, len(one)) for name, one in found.items()} == {
        "index": (torch.int64, 8),
        "label": (torch.int64, 8),
        "predicted": (torch.int64, 8),
        "radius": (torch.float64, 8),
        "sigma": (torch.float64, 8),
        "clean_accuracy": (torch.bool, 8),
    }


def test_figures_are_those_of_the_images(run: Path) -> None:
    content = certified(run, limit=30)
    figures, rows = content["figures"], list(by_place(run, content).values())
    right = [radius for label, predicted, radius in rows if predicted == label]
    assert len(rows) == 30
    assert figures["abstained"] == sum(predicted == ABSTAIN for _, predicted, _ in rows) / 30
    assert figures["acr"] == pytest.approx(sum(right) / 30)
    assert figures["clean_accuracy"]["accuracy"] == figures["accuracy"][0] == len(right) / 30
    assert figures["accuracy"] == [sum(r >= radius for r in right) / 30 for radius in figures["radius"]]
    assert figures["radius"][-2] <= SIGMA * NormalDist().inv_cdf(0.01 ** (1 / 60)) < figures["radius"][-1]
    assert 0 < figures["abstained"] < 1  # else these digits tell nothing
    assert 0 < figures["clean_accuracy"]["accuracy"] < 1


@pytest.mark.usefixtures("instant")
def test_images_are_a_balanced_part_of_the_test_images(run: Path) -> None:
    ten = by_place(run, certified(run, limit=10))
    _, label = advss.load_data(run)
    assert sorted(own for own, _, _ in ten.values()) == list(range(10))
    assert len(by_place(run, certified(run, limit=0))) == len(label)


def test_radii_are_those_of_noise_drawn_by_other_means(run: Path) -> None:
    """No radius is larger than what 500 other copies allow, but for 1 image in 10,000."""
    rows = by_place(run, certified(run, limit=30))
    sure = {place: row for place, row in rows.items() if row[1] != ABSTAIN}
    x, label = advss.load_data(run)
    order = open_splits("digits", {}, limit=200, size=16, seed=0).test.index.tolist()
    model, normal = advss.load_model(run), NormalDist()
    generator = torch.Generator().manual_seed(99)
    assert len(sure) >= 3  # else these digits tell nothing
    for place, (own, predicted, radius) in list(sure.items())[:6]:
        at = order.index(place)
        with torch.no_grad():
            said = model(x[at] + SIGMA * torch.randn(500, 3, 16, 16, generator=generator)).argmax(1)
        share = float((said == predicted).double().mean())
        assert own == int(label[at])
        assert 0.5 < normal.cdf(radius / SIGMA) <= share + 4 * (share * (1 - share) / 500) ** 0.5 + 1 / 500


@pytest.mark.usefixtures("drawing")
def test_figure_and_metrics_are_tracked(run: Path) -> None:
    content = certified(run)
    name, figures = Path(content["file"]).stem, content["figures"]
    records, stage = list(read_records(run / "metrics.jsonl")), f"evaluate/{name}"
    (metrics,) = [r for r in records if r.kind == "metrics" and r.stage == stage]
    found = metrics.payload["values"]
    assert found["test/acr"] == figures["acr"]
    assert found["test/accuracy_0.25"] == figures["accuracy"][figures["radius"].index(0.25)]
    artifacts = [r.payload["path"] for r in records if r.kind == "artifact" and r.stage == stage]
    drawn = [f"figures/{name}-certified.{ending}" for ending in ("png", "svg")]
    assert sorted(artifacts) == [f"evaluations/{name}.json", *drawn]
    assert (run / drawn[0]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("instant")
def test_the_headline_stays_as_it_was(run: Path) -> None:
    before = json.loads((run / "result.json").read_text())
    content = certified(run)
    after = json.loads((run / "result.json").read_text())
    assert after["evaluations"].pop("certify")["file"] == content["file"]
    assert {**after, "folder": before["folder"]} == before


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize("more", [{"limit": 12}, {"n": 80}, {"sigma": 0.5, "other_sigma": True}])
def test_another_certificate_stands_beside_the_first(run: Path, more: dict[str, Any]) -> None:
    first = certified(run)
    before = (run / first["file"]).read_text()
    second = certified(run, **more)
    assert (run / first["file"]).read_text() == before
    assert first["file"] != second["file"]


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize("same", [{"batch_size": 7}, {"sigma": SIGMA}, {"other_sigma": True}])
def test_what_changes_no_answer_is_the_same_certificate(run: Path, same: dict[str, Any]) -> None:
    assert certified(run, **same)["file"] == certified(run)["file"]


# ---------------------------------------------------------------- nothing is lost, nothing hangs on the order
def test_an_image_does_not_hang_on_how_many_are_certified(run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    few, many = (by_place(r, certified(r, limit=limit)) for r, limit in ((run, 4), (other, 12)))
    assert {place: many[place] for place in few} == few
    assert (len(few), len(many)) == (4, 12)


def test_each_image_has_noise_of_its_own(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def note(self: SmoothedClassifier, x_CHW: Tensor, *, generator: Generator, **_: Any) -> tuple[int, float]:
        seeds.append(generator.initial_seed())
        return ABSTAIN, 0.0

    monkeypatch.setattr(SmoothedClassifier, "certify", note)
    certified(run)
    assert len(set(seeds)) == len(seeds) == 8


def test_batch_size_changes_nothing(run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    assert by_place(run, certified(run)) == by_place(other, certified(other, batch_size=7))


@pytest.mark.parametrize("limit", [8, 6])
def test_going_on_after_a_signal_gives_the_same_certificate(
    run: Path, tmp_path: Path, stopper: Callable[..., Silent], capsys: pytest.CaptureFixture[str], limit: int
) -> None:
    other = Path(shutil.copytree(run, tmp_path / "whole"))
    whole = by_place(other, certified(other, limit=limit))
    with pytest.raises(Interrupted, match="SIGTERM"):
        certified(run, reporter=stopper("evaluate certify", "step", 3))
    assert [Path(name).suffix for name in kept(run)] == [".part"]
    assert len(list((run / "evaluations" / kept(run)[0]).iterdir())) == 3
    rest = Count()
    assert by_place(run, certified(run, reporter=rest, limit=limit)) == whole
    before = limit - rest.images
    assert 0 < before <= 3
    assert f"{before} of {limit} images were measured before" in capsys.readouterr().err


def test_a_signal_is_heard_within_an_image(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = SmoothedClassifier.count

    def kill(self: SmoothedClassifier, x_CHW: Tensor, n: int, **rest: Any) -> Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return counted(self, x_CHW, n, **rest)

    monkeypatch.setattr(SmoothedClassifier, "count", kill)
    with pytest.raises(Interrupted, match="SIGTERM"):
        certified(run)
    assert kept(run) == []


@pytest.mark.usefixtures("instant")
def test_each_image_is_kept_at_once(run: Path) -> None:
    """As a kill would find them, which leaves no time to save."""
    found: list[int] = []

    class Look(Silent):
        def step(self, *, step: int, images: int, metrics: Any) -> None:
            found.append(len(list((run / "evaluations").glob("certify-*.part/*"))))

    certified(run, reporter=Look(), limit=3)
    assert found == [1, 2, 3]
    assert not list((run / "evaluations").glob("*.part"))


def test_a_finished_certificate_is_not_measured_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = certified(run, limit=4)
    certified(run, n=61, limit=2)

    def fail(*_: object, **__: object) -> tuple[int, float]:
        raise AssertionError

    monkeypatch.setattr(SmoothedClassifier, "certify", fail)
    assert certified(run, limit=4) == first | {"measured_before": True}
    two = certified(run, limit=2)
    assert by_place(run, two).items() < by_place(run, first).items()
    assert two["file"] != first["file"]


def test_only_images_that_are_new_are_certified(run: Path, tmp_path: Path) -> None:
    other, count = Path(shutil.copytree(run, tmp_path / "other")), Count()
    whole = by_place(other, certified(other, limit=12))
    few = by_place(run, certified(run, limit=4))
    assert by_place(run, certified(run, limit=12, reporter=count)) == whole
    assert count.images == 12 - len(few.keys() & whole.keys()) == 8


@pytest.mark.parametrize("changed", [{"n": 61}, {"n0": 21}, {"alpha": 0.02}, {"sigma": 0.3, "other_sigma": True}])
@pytest.mark.usefixtures("instant")
def test_other_settings_are_measured_anew(changed: dict[str, Any], run: Path) -> None:
    certified(run, limit=2)
    count = Count()
    certified(run, limit=2, reporter=count, **changed)
    assert count.images == 2


@pytest.mark.usefixtures("instant")
def test_another_model_is_measured_anew(run: Path) -> None:
    certified(run, limit=2)
    checkpoint = load_checkpoint(run / BEST)
    head = {name: -tensor if name == "head.weight" else tensor for name, tensor in checkpoint.tensors.items()}
    save_checkpoint(run / BEST, head, {k: v for k, v in checkpoint.manifest.items() if k != "sha256"})
    count = Count()
    certified(run, limit=2, reporter=count)
    assert count.images == 2


@pytest.mark.usefixtures("instant")
def test_answers_that_are_damaged_are_measured_anew(run: Path) -> None:
    file = (run / certified(run, limit=2)["file"]).with_suffix(".safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    count = Count()
    certified(run, limit=4, reporter=count)
    assert count.images == 4


# ---------------------------------------------------------------- sigma
@pytest.mark.parametrize("noise", [{}, {"noise": 0.0}], ids=["absent", "zero"])
def test_a_model_that_saw_no_noise_says_what_to_type(noise: dict[str, float], run: Path) -> None:
    tell_noise(run, **noise)
    with pytest.raises(UsageError, match=r"without noise, .* by --certify\.sigma .* --certify\.other_sigma"):
        certified(run)
    with pytest.raises(UsageError, match=r"sigma 0\.5: .* without noise; add --certify\.other_sigma"):
        certified(run, sigma=0.5)


@pytest.mark.usefixtures("instant")
def test_another_sigma_is_refused_unless_it_is_meant(run: Path) -> None:
    with pytest.raises(UsageError, match=r"sigma 0\.5: .* noise of sigma 0\.25; .*--certify\.other_sigma"):
        certified(run, sigma=0.5)
    assert certified(run, sigma=0.5, other_sigma=True, limit=1)["figures"]["sigma"] == 0.5
    assert certified(run, sigma=0.25, limit=1)["figures"]["sigma"] == 0.25


# ---------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n0": 0}, "--certify.n0 must be at least 1, got 0"),
        ({"n": 0}, "--certify.n must be at least 1, got 0"),
        ({"batch_size": -1}, "--certify.batch_size must be at least 1, got -1"),
        ({"limit": -1}, "--certify.limit must be a number of test images"),
        ({"alpha": 0.0}, "--certify.alpha must be above 0 and below 0.5, got 0"),
        ({"alpha": 0.5}, "--certify.alpha must be above 0 and below 0.5, got 0.5"),
        ({"alpha": float("nan")}, "--certify.alpha must be above 0"),
        ({"sigma": 0.0}, "--certify.sigma must be above 0 and finite, got 0"),
        ({"sigma": float("inf")}, "--certify.sigma must be above 0 and finite, got inf"),
        ({"sigma": float("nan")}, "--certify.sigma must be above 0 and finite, got nan"),
        ({"sigma": 64.0}, r"--certify.sigma must be at most 4, got 64\.0: pixels are .* so say 64/255"),
        ({"n": 9, "alpha": 0.001}, r"--certify.n must be at least 10, got 9: .* certify nothing at alpha 0.001"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_be_measured_are_one_line(options: dict[str, Any], message: str, run: Path) -> None:
    with pytest.raises(UsageError, match=message) as error:
        certified(run, **options)
    assert "\n" not in str(error.value)
    assert kept(run) == []


def test_a_run_without_a_classifier_is_refused(run: Path) -> None:
    shutil.rmtree(run / "finetune")
    with pytest.raises(UsageError, match="has no fine-tuned model; run `advss finetune --from"):
        certified(run)
