"""What ``advss.load_encoder`` gives, of checkpoints that are written here, without a run that trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import advss
from advss.errors import UsageError
from advss.hookspecs import DataFacts, branch
from advss.models.classifier import ImageClassifier
from advss.models.encoder import TimmEncoder
from advss.models.spec import ModelSpec, build_encoder_from
from advss.training.checkpoints import save_checkpoint

TINY = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 24]}
GONE = [{"kind": "pretext", "name": "gone", "distribution": "advss-gone", "version": "9"}]


def spec(*branches: str) -> ModelSpec:
    return ModelSpec("resnet18", TINY, DataFacts(10, 32, 3, 4), (0.4,) * 3, (0.2,) * 3, branches or ("main",))


def moved(module: nn.Module) -> nn.Module:
    """In eval mode, with BatchNorm statistics and weights of its own."""
    for t in (*module.parameters(), *module.buffers()):
        if t.is_floating_point() and t.ndim != 4:
            with torch.no_grad():
                t.add_(torch.rand_like(t))
    return module.eval()


def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Made:
    """An encoder and the last stages of its tasks (None: without one), and the run whose checkpoint holds them."""

    def __init__(self, folder: Path, tasks: Sequence[str], without: Sequence[str] = (), *branches: str) -> None:
        self.encoder: TimmEncoder = build_encoder_from(spec(*branches))
        moved(self.encoder)
        self.tails = {task: moved(self.encoder.tail()) for task in tasks if task not in without}
        self.run = folder
        self.path = folder / "pretrain" / "best.safetensors"
        places: dict[str, nn.Module] = {"encoder": self.encoder}
        places |= {f"tasks.{task}.tail": tail for task, tail in self.tails.items()}
        tensors = {f"{at}.{name}": t for at, part in places.items() for name, t in part.state_dict().items()}
        tensors |= {f"tasks.{task}.head.weight": torch.zeros(2) for task in tasks}
        starts = {
            task: {"branch": branches[-1] if branches else "main", "tail": f"tasks.{task}.tail." * (task in self.tails)}
            for task in tasks
        }
        manifest: dict[str, Any] = {"kind": "pretrain", "model": spec(*branches).to_json(), "starts": starts}
        save_checkpoint(self.path, tensors, manifest | {"plugins": GONE})
        (folder / "config.yaml").write_text("")

    def features(self, task: str) -> Tensor:
        with torch.no_grad():
            features: Tensor = self.tails[task](self.encoder(images()))
        return features


@pytest.fixture
def ensemble(tmp_path: Path) -> Made:
    return Made(tmp_path / "it", ["gone", "one", "two"], ["gone"])


@pytest.mark.parametrize(("task", "of"), [(None, "one"), ("one", "one"), ("two", "two")])
def test_it_is_the_encoder_and_the_last_stage_of_the_checkpoint(task: str | None, of: str, ensemble: Made) -> None:
    for run in (ensemble.run, ensemble.path):
        model = advss.load_encoder(run, task)
        with torch.no_grad():
            assert torch.equal(model(images()), ensemble.features(of))
            assert torch.equal(model.encoder(images()), ensemble.encoder(images()))
        assert (model.features, model.training) == (24, False)


def test_a_run_is_found_by_its_name(ensemble: Made) -> None:
    model = advss.load_encoder("it", runs_dir=ensemble.run.parent)
    assert torch.equal(model(images()), ensemble.features("one"))


@pytest.mark.parametrize(("task", "said"), [(None, "no task has a"), ("gone", "task gone has no")])
def test_without_a_last_stage_it_is_the_maps_mean_and_says_so(
    task: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(tmp_path, ["gone", "one"] if task else ["gone"], ["gone"])
    model = advss.load_encoder(tmp_path, task)
    assert torch.equal(model(images()), made.encoder(images()).flatten(2).mean(2))
    assert model.features == 16
    line = f"advss: {made.path}: {said} last stage; the features are the mean of the encoder's map, 16 numbers\n"
    assert capsys.readouterr().err == line


def test_it_answers_in_the_branch_that_is_fine_tuned(tmp_path: Path) -> None:
    made = Made(tmp_path, ["one"], (), "adversarial", "clean")
    with branch("clean", made.encoder, made.tails["one"]):
        expected = made.features("one")
    assert not torch.equal(expected, made.features("one"))
    assert torch.equal(advss.load_encoder(tmp_path)(images()), expected)


def test_loading_draws_nothing_from_the_global_generator(ensemble: Made) -> None:
    before = torch.get_rng_state()
    advss.load_encoder(ensemble.run)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (images().double(), "float64; say x.to"),
        (images()[0], r"say x\[None\]"),
        (images()[..., :30], "resize to 32 x 32"),
        (images() * 255, "say x / 255"),
    ],
)
def test_it_looks_at_what_it_is_called_with(x: Tensor, message: str, ensemble: Made) -> None:
    with pytest.raises(UsageError, match=rf"takes float32 images \(B, 3, 32, 32\) in \[0, 1\], got .*{message}"):
        advss.load_encoder(ensemble.run)(x)


# ---------------------------------------------------------------- of a run that was fine-tuned
def tuned(folder: Path) -> ImageClassifier:
    encoder = build_encoder_from(spec())
    classifier = ImageClassifier(encoder, encoder.tail(), 4)
    moved(classifier)
    manifest = {"kind": "finetune", "model": spec().to_json(), "classes": list("abcd"), "plugins": GONE}
    save_checkpoint(folder / "finetune" / "best.safetensors", classifier.state_dict(), manifest)
    (folder / "config.yaml").write_text("")
    return classifier


def test_without_pretraining_it_is_the_classifier_without_its_head(tmp_path: Path) -> None:
    classifier = tuned(tmp_path)
    features = advss.load_encoder(tmp_path)(images())
    assert torch.equal(classifier.head(features), classifier(images()))


def test_a_run_with_both_gives_the_pretrained_one_and_its_files_either(ensemble: Made) -> None:
    classifier = tuned(ensemble.run)
    assert torch.equal(advss.load_encoder(ensemble.run)(images()), ensemble.features("one"))
    features = advss.load_encoder(ensemble.run / "finetune" / "best.safetensors")(images())
    assert torch.equal(classifier.head(features), classifier(images()))


def test_where_the_pretrained_one_is_gone_the_fine_tuned_one_does_not_take_its_place(tmp_path: Path) -> None:
    tuned(tmp_path)
    (tmp_path / "result.json").write_text('{"best_epochs": {"pretrain": 3, "finetune": 1}}')
    said = (
        r"has pretrained, but .*pretrain/best.safetensors is gone; put it back; its classifier's is in .*finetune/best"
    )
    with pytest.raises(UsageError, match=said):
        advss.load_encoder(tmp_path)


# ---------------------------------------------------------------- bad input
def test_an_unknown_task_is_refused_in_one_line(ensemble: Made) -> None:
    with pytest.raises(UsageError) as error:
        advss.load_encoder(ensemble.run, "tow")
    assert str(error.value) == (
        f"task 'tow' is none of {ensemble.path}; pretraining was on gone, one, two; did you mean 'two'?"
    )


def test_a_fine_tuned_classifier_has_no_tasks(tmp_path: Path) -> None:
    tuned(tmp_path)
    with pytest.raises(UsageError, match=r"task 'one': .* is not of pretraining and has no pretext tasks; leave task"):
        advss.load_encoder(tmp_path, "one")


def test_an_average_of_classifiers_has_no_features_of_its_own(tmp_path: Path) -> None:
    classifier = tuned(tmp_path)
    member = {"kind": "finetune", "model": spec().to_json(), "classes": list("abcd")}
    tensors = {f"members.{m}.{name}": t.clone() for m in (0, 1) for name, t in classifier.state_dict().items()}
    manifest = {"kind": "ensemble", "members": [member, member], "classes": list("abcd")}
    save_checkpoint(tmp_path / "finetune" / "best.safetensors", tensors, manifest)
    with pytest.raises(UsageError, match="is of several classifiers, each with features of its own; name the run of"):
        advss.load_encoder(tmp_path)


def test_a_run_before_its_first_epoch_says_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "pretrain").mkdir()
    with pytest.raises(UsageError, match=r"has no epoch of pretraining yet; run `advss fit --resume .*` first"):
        advss.load_encoder(tmp_path)


def test_an_encoder_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    made = Made(tmp_path, ["one"])
    manifest = {"kind": "pretrain", "model": spec().to_json(), "starts": {"one": {"branch": "main", "tail": ""}}}
    state = {f"encoder.{name}": t for name, t in made.encoder.state_dict().items()}
    del state["encoder.mean"]
    save_checkpoint(made.path, state, manifest)
    with pytest.raises(UsageError, match=r"best.safetensors does not fit the model: missing mean"):
        advss.load_encoder(tmp_path)


def test_without_the_plugin_of_its_backbone_it_says_what_to_install(tmp_path: Path) -> None:
    made = Made(tmp_path, ["one"])
    start = {"one": {"branch": "main", "tail": ""}}
    record = {"kind": "backbone", "name": "thin_net", "distribution": "advss-thin", "version": "2.0"}
    model = spec().to_json() | {"backbone": "thin_net"}
    manifest = {"kind": "pretrain", "model": model, "starts": start, "plugins": [*GONE, record]}
    save_checkpoint(made.path, {"encoder.mean": torch.zeros(1)}, manifest)
    with pytest.raises(
        UsageError, match=r"needs the backbone 'thin_net' of advss-thin 2.0, .* install advss-thin==2.0"
    ):
        advss.load_encoder(tmp_path)
