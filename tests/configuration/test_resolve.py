"""Layers of settings become one configuration, and the configuration becomes a file that gives it back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advss.cli.arguments import Arguments
from advss.cli.context import runs_dir_of
from advss.config import Choice, RunConfig
from advss.configuration.resolve import from_mapping, resolve, to_yaml
from advss.errors import UsageError
from advss.runs.stored import resume_config


def line(*, environ: dict[str, str] | None = None, configs: list[str | Path] | None = None, **said: str) -> RunConfig:
    """The configuration of a command line; ``__`` is a dot, ``_`` a hyphen."""
    flags = {flag.replace("__", ".").replace("_", "-"): value for flag, value in said.items()}
    return resolve(flags, configs=configs or [], environ=environ or {}, text=True)


def options(choice: Choice, *names: str) -> tuple[Any, ...]:
    return tuple(choice.options[name] for name in names)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_one(text: str, name: str = "config.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_one


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"pretext": "none"},
        {"pretext": "selfie,rotation,jigsaw", "diversity": "0.1", "data": "cifar10", "backbone": "resnetv2_50"},
        {"pretext": "jigsaw,jigsaw", "pretext.jigsaw#2.grid": "2"},
        {"defense": "none", "finetune-defense": "pgd", "finetune-defense.eps": "4/255", "finetune": "partial"},
        {"data": "parquet", "data.root": "some/where", "data.limit": "50", "backbone.channels": "[8,16,32,64]"},
        {"name": "null", "seed": "3", "finetune-milestones": "2,3", "finetune-schedule": "multistep"},
        {"pretrain-min-lr": "1e-8", "eval-eps": "1/3", "tracking": "false", "runs-dir": "a b/c", "name": "1e3"},
    ],
)
def test_a_written_configuration_gives_itself_back(said: dict[str, str], write: Any) -> None:
    config = resolve(said, environ={}, text=True)
    assert resolve({}, configs=[write(to_yaml(config))], environ={}) == config


def test_later_layers_win(write: Any) -> None:
    path = write("seed: 2\npretrain_epochs: 12\nlog-every: 5")
    environ = {"ADVSS_SEED": "3", "ADVSS_LOG_EVERY": "6"}
    config = line(configs=[path], environ=environ, seed="4")
    assert (config.seed, config.log_every, config.pretraining.epochs) == (4, 6, 12)


def test_a_file_stands_on_the_datas_recipe(write: Any) -> None:
    config = line(configs=[write("data: cifar10\nseed: 2")])
    assert (config.backbone.name, config.pretraining.batch_size) == ("resnetv2_50", 128)


def test_several_configs_in_order(write: Any) -> None:
    config = line(configs=["cifar10-fast", write("seed: 2"), write("seed: 5", "b.yaml")])
    assert (config.backbone.name, config.seed) == ("resnet18", 5)


def test_another_component_drops_the_options_of_the_first() -> None:
    config = line(backbone="resnetv2_50")
    assert config.backbone.options == {}


def test_the_same_component_keeps_its_options() -> None:
    config = line(backbone="resnetv2_18")
    assert config.backbone.options["channels"] == [16, 32, 64, 128]


def test_dropped_options_do_not_come_back(write: Any) -> None:
    first, second = write("pretext: {jigsaw: {grid: 2}}"), write("pretext: rotation", "b.yaml")
    config = line(configs=[first, second], pretext="jigsaw")
    assert options(config.pretext[0], "grid") == (4,)


def test_a_shared_option_reaches_every_member_that_has_it() -> None:
    config = line(pretext="selfie,rotation,jigsaw", pretext__grid="2", pretext__selfie__masked="2")
    assert [member.options.get("grid") for member in config.pretext] == [2, None, 2]


def test_an_option_by_member_reaches_that_one() -> None:
    config = line(pretext="selfie,jigsaw", pretext__jigsaw__grid="2")
    assert [member.options["grid"] for member in config.pretext] == [4, 2]


def test_the_same_task_twice_has_two_keys() -> None:
    config = from_mapping({"pretext": ["jigsaw", {"jigsaw": {"grid": 2}}]}, environ={})
    assert [(m.key, m.name, m.options["grid"]) for m in config.pretext] == [
        ("jigsaw", "jigsaw", 4),
        ("jigsaw#2", "jigsaw", 2),
    ]


def test_options_below_the_name() -> None:
    config = from_mapping({"pretext": {"jigsaw": {"grid": 2}, "rotation": None}}, environ={})
    assert [member.name for member in config.pretext] == ["jigsaw", "rotation"]
    assert config.pretext[0].options["grid"] == 2


def test_pythons_keywords() -> None:
    config = from_mapping(
        {"pretext": "jigsaw", "pretrain_epochs": 1, "pretext.grid": 2, "config": "digits"}, environ={}
    )
    assert (config.pretraining.epochs, config.pretext[0].options["grid"]) == (1, 2)


def test_the_full_name_of_the_digits_has_their_recipe() -> None:
    short, full = line(data="digits"), line(data="advss:digits")
    assert (full.backbone, full.finetuning) == (short.backbone, short.finetuning)


def test_a_plugins_full_name_is_taken() -> None:
    config = line(pretext="advss:jigsaw", pretext__grid="2")
    assert config.pretext[0] == Choice("advss:jigsaw", config.pretext[0].options, "jigsaw")
    assert config.pretext[0].options["grid"] == 2


def test_finetuning_uses_pretrainings_defense() -> None:
    config = line(defense__eps="4/255", defense__steps="3")
    assert config.finetune_defense == config.defense


def test_finetunings_defense_follows_a_later_choice() -> None:
    config = line(defense="none")
    assert config.finetune_defense.name == "none"


def test_what_is_not_said_of_finetunings_defense_carries_over() -> None:
    config = line(defense__eps="4/255", defense__steps="3", finetune_defense__steps="5")
    assert options(config.finetune_defense, "eps", "steps") == (4 / 255, 5)
    assert options(config.defense, "eps", "steps") == (4 / 255, 3)


def test_the_same_defense_by_name_carries_over() -> None:
    config = line(defense__eps="4/255", finetune_defense="pgd")
    assert options(config.finetune_defense, "eps") == (4 / 255,)


def test_another_defense_carries_nothing_over() -> None:
    config = line(defense="none", finetune_defense="pgd", finetune_defense__steps="5")
    assert options(config.finetune_defense, "eps", "steps") == (8 / 255, 5)
    assert config.defense.options == {}


def test_without_a_task_there_is_no_pretraining() -> None:
    config = line(pretext="none")
    assert (config.pretext, config.pretraining.epochs) == ((), 0)


def test_size_and_limit_below_other_data_to_pretrain_on(write: Callable[[str], Path]) -> None:
    said = {
        "pretext": "rotation",
        "data": {"digits": {"size": 16}},
        "pretrain_data": {"cifar10": {"size": 8, "limit": 5}},
    }
    config = from_mapping(said, environ={})
    assert (config.size, config.limit, config.pretrain_data_size, config.pretrain_data_limit) == (16, 0, 8, 5)
    assert [config.chosen(flag).size for flag in ("data", "pretrain-data")] == [16, 8]
    assert resolve({}, configs=[write(to_yaml(config))], environ={}) == config


def test_data_limit_below_the_data() -> None:
    config = from_mapping({"data": {"cifar10": {"limit": 50, "root": "x"}}}, environ={})
    assert (config.limit, config.data.options["root"]) == (50, Path("x").absolute())


def test_cases_count_where_all_their_choices_match(write: Any) -> None:
    path = write(
        """
        seed: 1
        cases:
          - {when: {pretext: rotation, defense: none}, seed: 2}
          - {when: {pretext: rotation}, log-every: 7, pretext: {jigsaw: {grid: 2}}}
          - {when: {pretext: +}, seed: 3}
          - {when: {pretext: [selfie, jigsaw]}, seed: 4, pretext: {jigsaw: {grid: 2}}}
        """
    )
    said: list[dict[str, str]] = [
        {"pretext": "rotation"},
        {"pretext": "rotation", "defense": "none"},
        {"pretext": "selfie,jigsaw"},
        {"pretext": "jigsaw"},
    ]
    configs = [resolve(flags, configs=[path], environ={}, text=True) for flags in said]
    assert [(c.seed, c.log_every) for c in configs] == [(1, 7), (2, 7), (3, 10), (4, 10)]
    assert configs[-1].pretext[0].options["grid"] == 2


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"pretext": "selfi"}, "unknown pretext task 'selfi'; did you mean 'selfie'"),
        ({"defense": "pdg"}, "unknown defense 'pdg'; did you mean 'pgd'"),
        ({"finetune": "ful"}, "unknown fine-tuning scheme 'ful'; did you mean 'full'"),
        ({"data": "cifar"}, "unknown data source 'cifar'; did you mean 'cifar10'"),
        ({"pretext.gird": "3"}, r"unknown option --pretext\.gird of selfie; did you mean 'grid'"),
        ({"defense.stpes": "3"}, r"unknown option --defense\.stpes of pgd; did you mean 'steps'"),
        ({"defense.steps": "abc"}, r"--defense\.steps: expected int, got 'abc'"),
        ({"defense.eps": "-1"}, r"--defense\.eps must be at least 0"),
        ({"defense.steps": "0"}, r"--defense\.steps must be at least 1"),
        ({"finetune-defense.steps": "0"}, r"--finetune-defense\.steps must be at least 1"),
        (
            {"pretext.jigsaw.grid": "3"},
            r"--pretext\.jigsaw\.grid: 'jigsaw' is not among what --pretext chooses: selfie",
        ),
        ({"pretext": "none", "pretext.grid": "3"}, r"--pretext\.grid: no pretext is chosen"),
        ({"pretext": "selfie,none"}, "'none' stands alone"),
        ({"pretext": "selfie,,jigsaw"}, "expected a name, or a name with its options, got ''"),
        ({"defense": "pgd,none"}, "--defense: expected one name, got pgd,none"),
        ({"data": "parquet"}, r"--data\.root is missing: parquet has no default for it"),
        ({"data.root": "x"}, r"unknown option --data\.root of digits"),
        ({"name": "../x"}, r"--name: '\.\./x' is no run name"),
        ({"name": "a..b"}, r"--name: 'a\.\.b' is no run name"),
        ({"seed": "x"}, "--seed: expected int, got 'x'"),
        ({"seed": "-1"}, "--seed: must be at least 0, got -1"),
        ({"pretrain-epochs": "-1"}, "--pretrain-epochs: must be at least 0, got -1"),
        ({"finetune-batch-size": "0"}, "--finetune-batch-size: must be at least 1, got 0"),
        ({"finetune-lr": "0"}, "--finetune-lr: must be above 0"),
        ({"pretrain-momentum": "1"}, r"--pretrain-momentum: must be in \[0, 1\), got 1"),
        ({"pretrain-ema": "1.5"}, r"--pretrain-ema: must be in \[0, 1\), got 1\.5"),
        ({"pretrain-lr": "inf"}, "--pretrain-lr: expected"),
        ({"eval-eps": "-1/255"}, "--eval-eps: must be at least 0"),
        ({"eval-steps": "0"}, "--eval-steps: must be at least 1"),
        ({"eval-valid-limit": "-1"}, "--eval-valid-limit: must be at least 0, got -1"),
        ({"data.limit": "-5"}, r"--data\.limit: must be at least 0"),
        ({"diversity": "-0.1", "pretext": "selfie,jigsaw"}, "--diversity: must be at least 0"),
        ({"diversity": "0.1"}, r"--diversity 0\.1 needs two or more pretext tasks, got --pretext selfie"),
        ({"finetune-schedule": "multistep"}, "--finetune-schedule multistep needs --finetune-milestones"),
        ({"finetune-nesterov": True, "finetune-momentum": 0}, "--finetune-nesterov true needs a --finetune-momentum"),
        ({"data": "imagefolder", "data.root": "~nobody-is-called-so/x"}, "--data.root: there is no home '~nobody-is"),
        ({"runs-dir": "~nobody-is-called-so/x"}, "--runs-dir: there is no home '~nobody-is"),
        ({"finetune-milestones": "5,3"}, "--finetune-milestones: must be epochs in increasing order"),
        ({"pretrain-schedule": "cosin"}, r"expected cosine \| onecycle \| multistep \| constant, got 'cosin'"),
        ({"precision": "fp16"}, r"--precision: expected auto \| float32 \| bf16, got 'fp16'"),
        ({"device": "gpu"}, "--device: must be auto, cpu, cuda or cuda:N, got gpu"),
        ({"checkpoint-minutes": "0"}, "--checkpoint-minutes: must be above 0"),
        ({"dfense": "pgd"}, "unknown setting --dfense; did you mean 'defense'"),
    ],
)
def test_bad_settings_are_one_line(said: dict[str, str], error: str) -> None:
    with pytest.raises(UsageError, match=error) as caught:
        resolve(said, environ={}, text=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keyword", "hint"),
    [
        ("epochs", "did you mean 'pretrain_epochs' or 'finetune_epochs'?"),
        ("lr", "did you mean 'pretrain_lr' or 'finetune_lr'?"),
        ("data_limt", 'options stand below a name: data={"NAME": {"limt": ...}}'),
        ("pretext_crop_size", 'options stand below a name: pretext={"NAME": {"crop_size": ...}}'),
        ("finetune_defense_eps", 'options stand below a name: finetune_defense={"NAME": {"eps": ...}}'),
        ("finetune_epoch", "did you mean 'finetune_epochs'?"),
    ],
)
def test_an_unknown_keyword_is_told_how_python_writes_it(keyword: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_mapping({keyword: 200}, environ={})
    assert str(caught.value) == f"unknown setting --{keyword.replace('_', '-')}; {hint}"


def test_a_keyword_is_no_hint_to_a_file_or_a_line(write: Any) -> None:
    for said, configs in (({"data-limit": "200"}, []), ({}, [write("data-limit: 200")])):
        with pytest.raises(UsageError, match=r"data-limit; did you mean 'data\.limit'\?$"):
            resolve(said, configs=configs, environ={}, text=True)


@pytest.mark.parametrize(
    ("variable", "error"),
    [
        ("ADVSS_SEDE", "ADVSS_SEDE would be ignored; did you mean 'ADVSS_SEED'"),
        ("ADVSS_DATA_ROOT", r"ADVSS_DATA_ROOT would be ignored: .* use --data\.root"),
        ("ADVSS_PRETEXT__GRID", r"use --pretext\.grid"),
        ("ADVSS_FINETUNE_DEFENSE_EPS", r"use --finetune-defense\.eps"),
        ("ADVSS_SEED", "ADVSS_SEED: expected int, got 'x'"),
    ],
)
def test_a_variable_that_would_be_ignored_is_an_error(variable: str, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        line(environ={variable: "x"})


def test_other_variables_are_left_alone() -> None:
    environ = {"HOME": "x", "ADVSS_DISABLE_PLUGINS": "x", "ADVSS_STRICT_PLUGINS": "", "ADVSS_PRETRAIN_EPOCHS": "7"}
    assert line(environ=environ).pretraining.epochs == 7


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("seed: 1\nseed: 2", "'seed' stands twice"),
        ("- seed", "must hold settings"),
        ("a: [", "is not YAML"),
        ("sede: 1", r"unknown setting .*config\.yaml: sede; did you mean 'seed'"),
        ("seed: one", r"config\.yaml: seed: expected int, got 'one'"),
        ("pretext: {selfie: 3}", "expected a name, or a name with its options"),
        ("pretext: 3", "expected a name or a list, got 3"),
        ("cases: [{seed: 1}]", "a case is a mapping with 'when'"),
        ("cases: [{when: {pretxt: selfie}}]", "unknown component 'pretxt' in when; did you mean 'pretext'"),
        ("cases: [{when: {pretext: selfie}, defense: none}]", "a case adds options and chooses nothing"),
    ],
)
def test_a_bad_file_is_one_line(text: str, error: str, write: Any) -> None:
    with pytest.raises(UsageError, match=error) as caught:
        line(configs=[write(text)])
    assert "\n" not in str(caught.value)


def test_a_config_that_is_nowhere() -> None:
    with pytest.raises(UsageError, match="no file and no recipe 'cifar10-fats'; did you mean 'cifar10-fast'"):
        line(configs=["cifar10-fats"])


def test_a_config_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        line(configs=[tmp_path])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(line(seed="4", pretext="rotation")))
    return folder


def test_a_resumed_run_is_the_same(run: Path) -> None:
    config = resume_config(run, {"checkpoint-minutes": "3", "device": "cpu"}, environ={}, text=True)
    assert (config.seed, config.pretext[0].name, config.name, config.runs_dir) == (4, "rotation", "first", run.parent)
    assert (config.checkpoint_minutes, config.device) == (3.0, "cpu")


@pytest.mark.parametrize("said", [{"seed": "5"}, {"pretext": "selfie"}, {"defense.steps": "3"}, {"name": "x"}])
def test_a_resumed_run_is_not_changed(run: Path, said: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"--resume: .*first has"):
        resume_config(run, said, environ={}, text=True)


def test_what_equals_the_runs_may_be_said_again(run: Path) -> None:
    assert resume_config(run, {"seed": "4", "pretext": "rotation"}, environ={}, text=True).seed == 4


def test_a_home_is_found_in_the_folder_of_runs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert resolve({}, environ={"ADVSS_RUNS_DIR": "~/runs"}, text=True).runs_dir == Path("/home/me/runs")
    monkeypatch.setenv("ADVSS_RUNS_DIR", "~/runs")
    assert runs_dir_of(Arguments()) == Path("/home/me/runs")
