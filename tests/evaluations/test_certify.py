"""``advss certify`` on a run: what it writes, that nothing is lost or measured twice, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

import advss
from advss.config import CertifySettings
from advss.data.splits import open_splits
from advss.errors import UsageError
from advss.evaluations.certified import draw_certified
from advss.evaluations.certify import certify
from advss.models.smoothed import ABSTAIN, SmoothedClassifier
from advss.tracking.journal import read_records
from advss.training.checkpoints import load_checkpoint, save_checkpoint
from advss.training.reporting import Silent
from advss.training.signals import Interrupted

SIGMA = 0.25
SETTINGS = CertifySettings(n0=20, n=60, alpha=0.01, limit=8, batch_size=60)
BEST = Path("finetune/best.safetensors")


def tell_noise(run: Path, **noise: float) -> None:
    """Make the checkpoint say on which noise it was trained; nothing: as an old one that does not say."""
    checkpoint = load_checkpoint(run / BEST)
    manifest = {key: value for key, value in checkpoint.manifest.items() if key not in ("noise", "sha256")}
    save_checkpoint(run / BEST, checkpoint.tensors, {**manifest, **noise})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 200 digits that is right about every third image, and often in doubt."""
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
    )
    tell_noise(runs / "digits", noise=SIGMA)
    return runs / "digits"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be certified."""
    return Path(shutil.copytree(trained, tmp_path / "digits"))


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all else here; one test draws."""
    monkeypatch.setattr("advss.evaluations.certify.draw_certified", lambda *_, **__: ())


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are certified without being looked at, where it does not matter what comes out."""
    monkeypatch.setattr(SmoothedClassifier, "certify", lambda *_, **__: (1, 0.1))


def certified(run: Path, reporter: Silent | None = None, **settings: Any) -> dict[str, Any]:
    return certify(run, replace(SETTINGS, **settings), device="cpu", reporter=reporter or Silent())


def timeless(content: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from one measurement to the next."""
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in content["results"]]
    return {key: value for key, value in content.items() if key != "seconds"} | {"results": rows}


def written(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / certificate(run)).read_text())
    return content


def certificate(run: Path) -> Path:
    """The one certificate's place in the run."""
    (file,) = (run / "evaluations").glob("certify-*.json")
    return file.relative_to(run)


class Count(Silent):
    """Counts the images that were measured."""

    images = 0

    def step(self, *, step: int, images: int, metrics: Any) -> None:
        self.images += 1


# ---------------------------------------------------------------- what is written
def test_a_certificate_has_the_promised_keys(run: Path) -> None:
    content = certified(run)
    places = {key: content.pop(key) for key in ("file", "figure")}
    assert written(run) == content
    assert places == {"file": str(certificate(run)), "figure": f"figures/{certificate(run).stem}.png"}
    assert {key: type(value) for key, value in content.items()} == {
        "sigma": float,
        "n0": int,
        "n": int,
        "alpha": float,
        "seed": int,
        "model_sha256": str,
        "data_sha256": str,
        "images": int,
        "clean_accuracy": float,
        "abstained": float,
        "acr": float,
        "radius": list,
        "accuracy": list,
        "seconds": float,
        "chance": float,
        "largest_class": dict,
        "most_answered": dict,
        "doubt": type(content["doubt"]),
        "results": list,
    }
    assert (content["sigma"], content["n0"], content["n"], content["alpha"], content["images"]) == (
        0.25,
        20,
        60,
        0.01,
        8,
    )
    assert content["model_sha256"] == load_checkpoint(run / BEST).manifest["sha256"]
    assert {key: type(value) for key, value in content["results"][0].items()} == {
        "index": int,
        "label": int,
        "predicted": int,
        "radius": float,
        "seconds": float,
    }


def test_figures_are_those_of_the_images(run: Path) -> None:
    content = certified(run, limit=30)
    rows = content["results"]
    right = [row for row in rows if row["predicted"] == row["label"]]
    assert len(rows) == 30
    assert content["abstained"] == sum(row["predicted"] == ABSTAIN for row in rows) / 30
    assert content["acr"] == pytest.approx(sum(row["radius"] for row in right) / 30)
    assert content["clean_accuracy"] == content["accuracy"][0] == len(right) / 30
    assert content["accuracy"] == [sum(r["radius"] >= radius for r in right) / 30 for radius in content["radius"]]
    assert content["radius"][-2] <= SIGMA * NormalDist().inv_cdf(0.01 ** (1 / 60)) < content["radius"][-1]
    assert 0 < content["abstained"] < 1  # else these digits tell nothing
    assert 0 < content["clean_accuracy"] < 1


@pytest.mark.usefixtures("instant")
def test_images_are_a_balanced_part_of_the_test_images(run: Path) -> None:
    rows = certified(run, limit=10)["results"]
    _, label = advss.load_data(run)
    places = {row["index"] for row in rows}
    assert sorted(row["label"] for row in rows) == list(range(10))
    assert len(places) == 10
    assert len(certified(run, limit=0)["results"]) == len(label)


def test_radii_are_those_of_noise_drawn_by_other_means(run: Path) -> None:
    """No radius is larger than what 500 other copies allow, but for 1 image in 10,000."""
    sure = [row for row in certified(run, limit=20)["results"] if row["predicted"] != ABSTAIN][:6]
    x, label = advss.load_data(run)
    order = open_splits("digits", {}, limit=200, seed=0).test.index.tolist()
    model, normal = advss.load_model(run), NormalDist()
    generator = torch.Generator().manual_seed(99)
    assert len(sure) == 6
    for row in sure:
        place = order.index(row["index"])
        with torch.no_grad():
            said = model(x[place] + SIGMA * torch.randn(500, 3, 32, 32, generator=generator)).argmax(1)
        share = float((said == row["predicted"]).double().mean())
        assert row["label"] == int(label[place])
        assert 0.5 < normal.cdf(row["radius"] / SIGMA) <= share + 4 * (share * (1 - share) / 500) ** 0.5 + 1 / 500


def test_figure_and_metrics_are_tracked(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advss.evaluations.certify.draw_certified", draw_certified)
    content = certified(run)
    records = list(read_records(run / "metrics.jsonl"))
    name = certificate(run).stem
    stage = f"certify/{name}"
    (metrics,) = [r for r in records if r.kind == "metrics" and r.stage == stage]
    assert metrics.payload["values"]["certify/acr"] == content["acr"]
    assert metrics.payload["values"]["certify/accuracy_0.25"] == content["accuracy"][content["radius"].index(0.25)]
    artifacts = [r.payload["path"] for r in records if r.kind == "artifact" and r.stage == stage]
    assert artifacts == [f"evaluations/{name}.json", f"figures/{name}.png", f"figures/{name}.svg"]
    assert (run / content["figure"]).read_bytes().startswith(b"\x89PNG")
    assert [r.payload["status"] for r in records if r.kind == "end" and r.stage == stage] == ["FINISHED"]


@pytest.mark.usefixtures("instant")
def test_result_json_stays_as_it_was(run: Path) -> None:
    before = (run / "result.json").read_text()
    certified(run)
    assert (run / "result.json").read_text() == before


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize("more", [{"limit": 12}, {"n": 80}, {"sigma": 0.5, "other_sigma": True}])
def test_another_certificate_stands_beside_the_first(run: Path, more: dict[str, Any]) -> None:
    first = certified(run)
    before = (run / first["file"]).read_text()
    second = certified(run, **more)
    assert (run / first["file"]).read_text() == before
    assert len({first["file"], second["file"]} & {str(f.relative_to(run)) for f in run.glob("evaluations/*")}) == 2
    assert first["figure"] != second["figure"]


# ---------------------------------------------------------------- nothing is lost, nothing hangs on the order
def test_an_image_does_not_hang_on_how_many_are_certified(run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    few, many = (timeless(certified(r, limit=limit))["results"] for r, limit in ((run, 4), (other, 12)))
    assert [row for row in many if row["index"] in {r["index"] for r in few}] == few
    assert len(few) == 4


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
    assert timeless(certified(run)) == timeless(certified(other, batch_size=7))


def test_going_on_after_a_signal_gives_the_same_certificate(
    run: Path, tmp_path: Path, stopper: Callable[..., Silent], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = certified(Path(shutil.copytree(run, tmp_path / "whole")))
    with pytest.raises(Interrupted, match="SIGTERM"):
        certified(run, reporter=stopper("certify", "step", 3))
    assert not list(run.glob("evaluations/certify-*"))
    rest = Count()
    assert timeless(certified(run, reporter=rest)) == timeless(whole)
    assert rest.images == 5
    assert "3 of 8 images were certified before" in capsys.readouterr().err


@pytest.mark.usefixtures("instant")
def test_images_are_kept_while_it_runs(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kill would find them, which leaves no time to save."""
    monkeypatch.setattr("advss.evaluations.certify.SAVE_EVERY_S", 0.0)
    kept: list[int] = []

    class Look(Silent):
        def step(self, *, step: int, images: int, metrics: Any) -> None:
            (file,) = (run / "certify").glob("*.json")
            kept.append(len(json.loads(file.read_text())["results"]))

    certified(run, reporter=Look(), limit=3)
    assert kept == [1, 2, 3]


def test_a_finished_certificate_is_not_measured_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = certified(run, limit=4)
    certified(run, limit=2)  # nor is anything lost by asking for less in between, or for something else
    certified(run, n=61, limit=2)

    def fail(*_: object, **__: object) -> tuple[int, float]:
        raise AssertionError

    monkeypatch.setattr(SmoothedClassifier, "certify", fail)
    assert certified(run, limit=4) == first


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


# ---------------------------------------------------------------- sigma
@pytest.mark.parametrize("noise", [{}, {"noise": 0.0}], ids=["absent", "zero"])
def test_a_model_that_saw_no_noise_says_what_to_type(noise: dict[str, float], run: Path) -> None:
    tell_noise(run, **noise)
    with pytest.raises(UsageError, match=r"without noise, .*`advss certify .*digits --sigma .* --other-sigma`"):
        certified(run)
    with pytest.raises(UsageError, match=r"--sigma 0\.5: .* without noise \(sigma 0\); add --other-sigma"):
        certified(run, sigma=0.5)


@pytest.mark.usefixtures("instant")
def test_another_sigma_is_refused_unless_it_is_meant(run: Path) -> None:
    with pytest.raises(UsageError, match=r"--sigma 0\.5: .* noise of sigma 0\.25; .*--other-sigma"):
        certified(run, sigma=0.5)
    assert certified(run, sigma=0.5, other_sigma=True, limit=1)["sigma"] == 0.5
    assert certified(run, sigma=0.25, limit=1)["sigma"] == 0.25


# ---------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n0": 0}, "--n0: must be at least 1, got 0"),
        ({"n": 0}, "--n: must be at least 1, got 0"),
        ({"batch_size": -1}, "--batch-size: must be at least 1, got -1"),
        ({"limit": -1}, "--limit: expected a number of test images"),
        ({"alpha": 0.0}, "--alpha: must be above 0 and below 0.5, got 0"),
        ({"alpha": 0.5}, "--alpha: must be above 0 and below 0.5, got 0.5"),
        ({"alpha": float("nan")}, "--alpha: must be above 0"),
        ({"sigma": 0.0}, "--sigma: must be above 0 and finite, got 0"),
        ({"sigma": float("inf")}, "--sigma: must be above 0 and finite, got inf"),
        ({"sigma": float("nan")}, "--sigma: must be above 0 and finite, got nan"),
        ({"sigma": 64.0}, r"--sigma: must be at most 4, got 64\.0: pixels are .* so say 64/255"),
        ({"n": 9, "alpha": 0.001}, r"--n: 9 copies can certify nothing .* use --n 10 or more"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_be_measured_are_one_line(settings: dict[str, Any], message: str, run: Path) -> None:
    with pytest.raises(UsageError, match=message) as error:
        certified(run, **settings)
    assert "\n" not in str(error.value)
    assert not (run / "certify").exists()


def test_a_run_without_a_classifier_is_refused(run: Path) -> None:
    shutil.rmtree(run / "finetune")
    with pytest.raises(UsageError, match="has no fine-tuned model; run `advss finetune --from"):
        certified(run)


def test_an_unknown_run_is_named(run: Path) -> None:
    with pytest.raises(UsageError, match="there is no run"):
        certified(run.with_name("other"))


@pytest.mark.usefixtures("instant")
def test_kept_images_that_are_damaged_are_named(run: Path) -> None:
    certified(run, limit=1)
    (file,) = (run / "certify").glob("*.json")
    file.write_text('{"results": [1]}')
    with pytest.raises(UsageError, match=rf"{file.name} is damaged .* remove it"):
        certified(run)
