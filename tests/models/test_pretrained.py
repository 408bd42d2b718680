"""Weights to start from: equal to timm's own network where nothing is replaced, fitted to patches, refused by name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from advss.config import BackboneStart
from advss.errors import UsageError
from advss.hookspecs import DataFacts
from advss.models.encoder import TimmEncoder, build_encoder
from advss.models.pretrained import Weights, read_weights
from advss.models.spec import ModelSpec
from advss.runs.classifier import new_classifier

Saved = Callable[[str], Path]
SIDE = {"test_resnet": 96, "test_convnext": 96, "test_vit": 160}  # above those whose stem is replaced; the ViT's own


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A file of random weights of a timm model, its statistics random too."""
    folder = tmp_path_factory.mktemp("weights")

    def save(name: str) -> Path:
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            state = timm.create_model(name).state_dict()
            generator = torch.Generator().manual_seed(1)
            numbers = {n: t for n, t in state.items() if t.is_floating_point()}
            save_file(state | {n: torch.rand(t.shape, generator=generator) * 0.2 for n, t in numbers.items()}, path)
        return path

    return save


def read(name: str, path: Path, side: int, **options: Any) -> Weights:
    return read_weights(BackboneStart(weights=path), name, options, DataFacts(10, side, 3, 4))


def encoder(name: str, weights: Weights, side: int, **options: Any) -> TimmEncoder:
    assert weights.mean
    assert weights.std
    facts = DataFacts(10, side, 3, 4)
    options |= weights.options
    built = build_encoder(name, options, facts, mean=weights.mean, std=weights.std, weights=weights.tensors)
    return built.eval()


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_encoder_and_tail_are_timms_network_with_these_weights(name: str, saved: Saved) -> None:
    whole: Any = timm.create_model(name, num_classes=0).eval()
    whole.load_state_dict({n: t for n, t in load_file(saved(name)).items() if not n.startswith(("fc.", "head.fc."))})
    shared = encoder(name, read(name, saved(name), SIDE[name]), SIDE[name])
    x = torch.rand(2, 3, SIDE[name], SIDE[name], generator=torch.Generator().manual_seed(2))
    mean, std = (torch.tensor(whole.pretrained_cfg[what]).view(1, 3, 1, 1) for what in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(shared.tail().eval()(shared(x)), whole((x - mean) / std))


def test_a_vits_patches_have_the_positions_that_they_had_behind_the_class_token(saved: Saved) -> None:
    state = load_file(saved("test_vit"))
    assert state["pos_embed"].shape[1] == 101  # 10 x 10 patches and the class token
    fitted = read("test_vit", saved("test_vit"), 160).tensors
    torch.testing.assert_close(fitted["pos_embed"], state["pos_embed"][:, 1:])
    assert {n for n, t in state.items() if n not in fitted} == {"cls_token", "head.weight", "head.bias"}
    assert all(torch.equal(state[n], t) for n, t in fitted.items() if n != "pos_embed")


def test_a_vits_norm_stands_before_pooling_as_it_did(saved: Saved) -> None:
    """Patches alone, normalised as their last block's output was, then averaged: written out with timm's modules."""
    weights = read("test_vit", saved("test_vit"), 160)
    shared = encoder("test_vit", weights, 160)
    whole: Any = timm.create_model("test_vit", num_classes=0, class_token=False, global_pool="avg", fc_norm=False)
    whole.load_state_dict(dict(weights.tensors))
    x = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = whole.eval().forward_features((x - 0.5) / 0.5).mean(1)
        torch.testing.assert_close(shared.tail().eval()(shared(x)), expected)


def test_patches_of_another_side_are_timms_resampled_ones(saved: Saved) -> None:
    kept = {n: t for n, t in load_file(saved("test_vit")).items() if n != "cls_token"}
    kept["pos_embed"] = kept["pos_embed"][:, 1:]
    arguments: dict[str, Any] = {
        "num_classes": 0,
        "class_token": False,
        "global_pool": "avg",
        "fc_norm": False,
        "img_size": 32,
    }
    theirs = timm.create_model(
        "test_vit", pretrained=True, pretrained_cfg_overlay={"state_dict": kept}, patch_size=4, **arguments
    ).state_dict()
    ours = read("test_vit", saved("test_vit"), 32, patch_size=4).tensors
    assert ours["patch_embed.proj.weight"].shape[-1] == 4
    for name in ("patch_embed.proj.weight", "pos_embed"):
        torch.testing.assert_close(ours[name], theirs[name])


@pytest.mark.parametrize(
    ("name", "stem"), [("test_resnet", ("conv1", "bn1")), ("test_convnext", ("stem",)), ("resnetv2_18", ("stem",))]
)
def test_a_stem_that_is_replaced_is_random_and_all_else_is_theirs(
    name: str, stem: tuple[str, ...], saved: Saved
) -> None:
    weights = read(name, saved(name), 32)
    model = new_classifier(spec(name, weights), 4, seed=0, weights=weights.tensors)
    heads = ("fc.", "head.fc.")
    state = {n: t for n, t in load_file(saved(name)).items() if not n.startswith(heads)}
    assert set(weights.tensors) == {n for n in state if n.partition(".")[0] not in stem}
    stems = {n for n in model.state_dict() if n.startswith(tuple(f"encoder.net.{module}." for module in stem))}
    trains = {n for n, p in model.named_parameters() if any(p is q for q in model.fresh())}
    assert trains == {n for n, _ in model.named_parameters() if n in stems or n.startswith("head.")}
    assert model.loaded == {n for n in model.state_dict() if n.startswith(("encoder.net.", "tail."))} - stems


def test_a_random_last_stage_is_not_loaded(saved: Saved) -> None:
    weights = read("test_resnet", saved("test_resnet"), 96)
    described = spec("test_resnet", weights, side=96)
    random = new_classifier(described, 4, seed=0, weights=weights.tensors, random_tail=True)
    without = new_classifier(described, 4, seed=0)
    assert_same(random.tail.state_dict(), without.tail.state_dict())
    assert not [name for name in random.loaded if name.startswith("tail.")]


def test_the_head_is_the_same_with_and_without_weights(saved: Saved) -> None:
    weights = read("test_resnet", saved("test_resnet"), 32)
    described = spec("test_resnet", weights)
    with_weights = new_classifier(described, 4, seed=3, weights=weights.tensors)
    assert torch.equal(with_weights.head.weight, new_classifier(described, 4, seed=3).head.weight)


def test_normalisation_is_that_of_the_tag(saved: Saved) -> None:
    """Of the ViT-B/16 that CLIP trained, 0.481 and so on; of timm's first, 0.5."""
    path = saved("test_resnet")
    assert read("test_resnet.r160_in1k", path, 32).mean == (0.5, 0.5, 0.5)
    described = read("test_resnet", path, 32).described()
    assert Weights.of({}, described).std == (0.5, 0.5, 0.5)
    assert read("resnet18", saved("resnet18"), 32).mean == (0.485, 0.456, 0.406)


def test_timms_own_are_fetched_once(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub answers with a file here; what timm makes of it is timm's."""
    state, asked = load_file(saved("test_resnet")), []

    def hub(name: str, *_: object, **__: object) -> dict[str, Tensor]:
        asked.append(name)
        return dict(state)

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", hub)
    facts = DataFacts(10, 32, 3, 4)
    fetched = read_weights(BackboneStart(pretrained=True), "test_resnet", {}, facts)
    assert asked == ["timm/test_resnet.r160_in1k"]
    assert fetched.origin == "timm's test_resnet.r160_in1k"
    assert_same(fetched.tensors, read("test_resnet", saved("test_resnet"), 32).tensors)


def test_tries_of_the_hub_are_no_lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    client = logging.getLogger("huggingface_hub.utils._http")

    def gone(*_: object, **__: object) -> None:
        client.warning("Retrying in 1s")
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", gone)
    with pytest.raises(UsageError):
        read_weights(BackboneStart(pretrained=True), "test_resnet", {}, DataFacts(10, 32, 3, 4))
    assert "Retrying" not in caplog.text
    client.warning("heard again")
    assert "heard again" in caplog.text


def test_without_a_network_one_line_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", gone)
    with pytest.raises(
        UsageError, match=r"gives no weights for test_resnet: no route to host; .*--backbone.weights FI"
    ):
        read_weights(BackboneStart(pretrained=True), "test_resnet", {}, DataFacts(10, 32, 3, 4))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("layer1.0.conv1.weight") is None, "missing layer1.0.conv1.weight"),
        (lambda state: state.update(more=torch.zeros(1)), "unexpected more"),
        (lambda state: state.update({"bn1.weight": torch.zeros(3)}), r"other shapes: bn1.weight \(3,\) instead of"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    change: Callable[[dict[str, Tensor]], object], said: str, saved: Saved, tmp_path: Path
) -> None:
    state = load_file(saved("test_resnet"))
    change(state)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match=rf"^--backbone.weights .*other.safetensors does not fit the model: .*{said}"):
        read("test_resnet", tmp_path / "other.safetensors", 32)


def test_options_of_another_architecture_are_named(saved: Saved) -> None:
    """As where a recipe has a network of its own, and its user weights of the usual one."""
    line = r"\(the backbone is resnet18 with --backbone.layers \[1, 1, 1, 1\]; say --backbone NAME, of the model"
    with pytest.raises(UsageError, match=line):
        read("resnet18", saved("resnet18"), 32, layers=[1, 1, 1, 1])


def test_a_file_that_is_none_of_tensors(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"PK not tensors")
    with pytest.raises(UsageError, match=r"--backbone.weights .*w.pth: is no safetensors file; save"):
        read("test_resnet", tmp_path / "w.pth", 32)
    with pytest.raises(UsageError, match=r"--backbone.weights .*gone: cannot read it: No such file"):
        read("test_resnet", tmp_path / "gone", 32)


def test_a_tag_that_timm_does_not_have(saved: Saved) -> None:
    with pytest.raises(
        UsageError, match=r"test_resnet.r16_in1k: timm has no weights r16_in1k; did you mean 'r160_in1k'"
    ):
        read("test_resnet.r16_in1k", saved("test_resnet"), 32)


def spec(name: str, weights: Weights, side: int = 32) -> ModelSpec:
    assert weights.mean
    assert weights.std
    return ModelSpec(name, dict(weights.options), DataFacts(10, side, 3, 4), weights.mean, weights.std)


def assert_same(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
