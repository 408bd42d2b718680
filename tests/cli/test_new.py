"""``advss plugins new``: what it writes is found, keeps the contract and learns; what it cannot write it says."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advss.cli.arguments import sort_words
from advss.cli.commands import COMMANDS
from advss.cli.main import main
from advss.cli.new import TEMPLATES
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import API, Batch, Defense, Encoder, Evaluation, FinetuneScheme, Launcher, Loss, PretextTask, Views
from advss.measuring import Victim
from advss.models.classifier import ImageClassifier
from advss.models.encoder import TimmEncoder
from advss.plugins import Kind, forget, registry
from advss.plugins.kinds import FLAGS, options_prefix
from advss.scaffold import Package
from advss.testing.subject import find
from advss.testing.suite import checks_of
from advss.testing.verdicts import judge

Capture = pytest.CaptureFixture[str]
New = Callable[..., Path]
BASES: dict[Kind, type] = {
    "pretext": PretextTask,
    "defense": Defense,
    "finetune": FinetuneScheme,
    "evaluation": Evaluation,
    "launcher": Launcher,
}
MOST_LINES = {"launcher": 55}  # of a module, the smallest useful plugin; others: 40


@pytest.fixture(autouse=True)
def _fresh_discovery(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for variable in [name for name in os.environ if name.startswith("ADVSS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    forget()
    before = set(sys.modules)
    yield
    for module in [name for name in sys.modules if name.startswith("advss_") and name not in before]:
        del sys.modules[module]
    forget()


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> New:
    """Write a package, and put it on the path with the metadata that pip would make of its pyproject.toml."""

    def new_one(kind: Kind, folder: str = "mine", *words: str) -> Path:
        assert main(["plugins", "new", folder, "--kind", kind, *words]) == 0
        make_metadata(tmp_path / folder)
        monkeypatch.syspath_prepend(tmp_path / folder / "src")
        forget()
        return tmp_path / folder

    return new_one


def make_metadata(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / "src" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = [f"{name} = {module}" for name, module in project["entry-points"]["advss"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[advss]", *points, ""]))


def module_of(folder: Path) -> Path:
    (module,) = folder.glob("src/*/__init__.py")
    return module


def refused(capsys: Capture, *words: str) -> str:
    assert main(["plugins", "new", *words]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    return line


# ---------------------------------------------------------------- what is written
@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_new_plugin_is_found_under_its_name_and_kind(kind: Kind, new: New) -> None:
    new(kind, "mine")
    assert registry().found.faults == []
    offered = registry().find(kind, "mine")
    assert issubclass(offered, BASES[kind])
    assert [p.distribution for p in registry().found.plugins if p.offered is offered] == ["advss-mine"]


@pytest.mark.parametrize("kind", TEMPLATES)
def test_it_says_which_contract_it_is_written_for(kind: Kind, new: New) -> None:
    module = importlib.import_module(module_of(new(kind)).parent.name)
    assert module.advss_api == API


@pytest.mark.parametrize("kind", TEMPLATES)
def test_its_module_is_small(kind: Kind, new: New) -> None:
    assert len(module_of(new(kind)).read_text().splitlines()) <= MOST_LINES.get(kind, 40)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_method_to_fill_in_is_marked_once_right_above_it(kind: Kind, new: New) -> None:
    lines = module_of(new(kind)).read_text().splitlines()
    (place,) = [number for number, line in enumerate(lines) if "Fill in" in line]
    name = {
        "pretext": "views",
        "defense": "attack",
        "finetune": "phases",
        "evaluation": "measure",
        "launcher": "run",
    }[kind]
    assert lines[place].lstrip().startswith("#")
    assert lines[place + 1].lstrip().startswith(f"def {name}(")


@pytest.mark.parametrize("kind", TEMPLATES)
def test_it_builds_with_hatchling_and_needs_advss(kind: Kind, new: New) -> None:
    folder = new(kind)
    content = tomllib.loads((folder / "pyproject.toml").read_text())
    assert content["build-system"]["build-backend"] == "hatchling.build"
    assert "advss" in content["project"]["dependencies"]
    (package,) = content["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert (folder / package / "__init__.py").is_file()
    assert (folder / content["project"]["readme"]).is_file()


@pytest.mark.parametrize("kind", TEMPLATES)
def test_ruff_finds_nothing_in_it(kind: Kind, new: New) -> None:
    folder, google = new(kind), 'lint.pydocstyle.convention = "google"'
    rules = ["--select", "E,F,W,I,UP,B,C4,SIM,RUF,PT,N,D", "--ignore", "D107,N812", "--per-file-ignores", "tests/*:D"]
    for words in (["check", *rules, "--config", google], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--isolated", "--line-length", "120", "."]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_a_name_in_capitals_digits_and_underscores_makes_a_module_and_a_class(new: New) -> None:
    folder = new("pretext", "somewhere", "--name", "2Way_flip-X")
    assert module_of(folder).parent.name == "advss_2way_flip_x"
    assert registry().find("pretext", "2Way_flip-X").__name__ == "Task2WayFlipX"


@pytest.mark.parametrize("name", ["class", "none", "torch", "2", "f", "task", "Loss"])
def test_no_name_makes_a_module_that_is_not_python_or_hides_another(name: str) -> None:
    for kind in TEMPLATES:
        package = Package(kind, name)
        assert package.module.isidentifier()
        assert package.module.startswith("advss_")
        assert package.class_name.isidentifier()
        code = next(text for path, text in package.files().items() if path.startswith("src"))
        bound = [a.asname or a.name for node in ast.walk(ast.parse(code)) for a in getattr(node, "names", [])]
        assert package.class_name not in bound


# ---------------------------------------------------------------- the name
@pytest.mark.parametrize(
    ("folder", "name"), [("advss-mine", "mine"), ("mine", "mine"), ("here/advss-my-own", "my-own")]
)
def test_the_folder_gives_the_name(folder: str, name: str, new: New) -> None:
    new("defense", folder)
    assert registry().find("defense", name)


def test_the_present_folder_may_be_the_one(new: New, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert main(["plugins", "new", ".", "--kind", "defense"]) == 0
    assert (tmp_path / "mine" / "src" / "advss_mine" / "__init__.py").is_file()


@pytest.mark.parametrize("name", ["a b", "-a", "a-", "_a", "é", "a.b", "a:b", "", "a/b", "a\nb"])
def test_a_bad_name_is_refused(name: str, capsys: Capture, tmp_path: Path) -> None:
    line = refused(capsys, "mine", "--kind", "pretext", f"--name={name}")
    assert "letters, digits, - and _" in line
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("kind", "said"),
    [("pretext", "a pretext task: .*, and not none or auto"), ("evaluation", "an eval.* not none;")],
)
def test_nothing_that_there_may_be_none_of_is_called_none(kind: Kind, said: str, capsys: Capture) -> None:
    assert re.match(f"advss: error: 'none' is no name of {said}", refused(capsys, "none", "--kind", kind))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("pretext", "rotation"),
        ("pretext", "Rotation"),
        ("defense", "pgd"),
        ("finetune", "full"),
        ("evaluation", "pgd"),
        ("launcher", "local"),
    ],
)
def test_a_name_that_is_taken_is_said(kind: Kind, name: str, capsys: Capture, tmp_path: Path) -> None:
    line = refused(capsys, name, "--kind", kind)
    assert f"'{name.lower()}' is installed already (advss " in line
    assert not (tmp_path / name).exists()


def test_a_module_that_is_taken_is_said(capsys: Capture) -> None:
    assert "module advss_defenses is installed already" in refused(capsys, "defenses", "--kind", "pretext")


def test_a_name_of_another_kind_is_free(new: New) -> None:
    new("defense", "rotation")
    assert registry().find("defense", "rotation")


# ---------------------------------------------------------------- where it goes
def test_a_folder_with_something_in_it_is_refused_and_left_alone(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    assert "mine exists" in refused(capsys, "mine", "--kind", "pretext")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_file_in_its_place_is_refused(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("years")
    assert "mine exists" in refused(capsys, "mine", "--kind", "pretext")
    assert (tmp_path / "mine").read_text() == "years"


def test_a_folder_that_cannot_be_made_is_said(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(capsys, "file/mine", "--kind", "pretext")


def test_an_empty_folder_is_taken(new: New, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert module_of(new("pretext", "mine"))


# ---------------------------------------------------------------- the line
def test_the_kind_must_be_said(capsys: Capture) -> None:
    assert "needs --kind, one of pretext, defense, finetune, evaluation, launcher" in refused(capsys, "mine")


def test_another_kind_is_refused(capsys: Capture) -> None:
    line = refused(capsys, "mine", "--kind", "pretex")
    assert "pretext, defense, finetune, evaluation, launcher, got 'pretex'" in line


def test_a_data_source_is_written_from_its_page(capsys: Capture, tmp_path: Path) -> None:
    line = refused(capsys, "mine", "--kind", "data")
    assert line.endswith("got 'data'; a data source is written from the example in docs/data.md")
    assert (Path(__file__).parents[2] / "docs" / "data.md").is_file()
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_commands_that_it_prints_can_be_typed(kind: Kind, new: New, capsys: Capture) -> None:
    new(kind, "my own", "--name", "own")
    install, check, fit = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert shlex.split(install) == ["pip", "install", "-e", "my own"]
    assert check == "advss plugins check own"
    _, *words = shlex.split(fit)
    if kind == "launcher":
        assert sort_words(words[2:], COMMANDS["study run"].grammar).flag("launcher") == "own"
        return
    assert main([*words, "--print-config"]) == 0
    assert re.search(r"\bown:", capsys.readouterr().out)


# ---------------------------------------------------------------- what it does
@pytest.mark.parametrize("kind", TEMPLATES)
def test_it_keeps_the_contract(kind: Kind, new: New) -> None:
    new(kind)
    (subject,) = find("mine", kind=kind)
    alone = [check for check in checks_of(kind) if not check.name.startswith("it trains")]
    verdicts = [judge(check, subject) for check in alone]
    assert [(verdict.check, verdict.message) for verdict in verdicts if verdict.outcome != "passed"] == []
    assert len(verdicts) > 10


@pytest.mark.parametrize("kind", TEMPLATES)
def test_its_own_tests_ask_the_contract_and_pass(kind: Kind, new: New, tmp_path: Path) -> None:
    (path,) = new(kind).glob("tests/test_*.py")
    namespace: dict[str, Any] = {"__name__": "tests_of_mine"}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    asked = [name for name in namespace if name.startswith("test_")]
    assert asked[0] == "test_contract"
    assert {c.name for c in checks_of(kind)} == {
        str(one) for one in namespace["test_contract"].pytestmark[0].kwargs["ids"]
    }
    for name in asked[1:]:
        marks = getattr(namespace[name], "pytestmark", [])
        for value in marks[0].args[1] if marks else [None]:
            fixtures = {"tmp_path": tmp_path} if "tmp_path" in signature(namespace[name]).parameters else {}
            namespace[name](*([value] if marks else []), **fixtures)


class Bright(PretextTask):
    """Is the image's label 1? On images that stay as they are."""

    def build(self, encoder: Encoder) -> None:
        self.head = nn.Linear(encoder.channels, 2)

    def loss(self, encoder: Encoder, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        return Loss(F.cross_entropy(self.head(encoder(inputs[0]).mean((2, 3))), targets["label"]))


def landscapes(count: int) -> Batch:
    """Images (B, 3, 16, 16) whose upper half is brighter."""
    x = 0.3 * torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x[:, :, :8] += 0.5
    return Batch(x, x, torch.arange(count), torch.arange(count) % 2)


def test_the_pretext_task_says_which_images_it_has_turned(new: New) -> None:
    new("pretext")
    batch = landscapes(64)
    views = registry().find("pretext", "mine")().views(batch, torch.Generator().manual_seed(0))
    upside = views.inputs[0][:, :, 8:].mean((1, 2, 3)) > views.inputs[0][:, :, :8].mean((1, 2, 3))
    assert 16 < int(upside.sum()) < 48
    assert torch.equal(views.targets["answer"], upside.long())
    assert torch.equal(views.inputs[0][~upside], batch.x[~upside])


def test_the_pretext_task_learns(new: New, encoder: TimmEncoder) -> None:
    new("pretext")
    task: Any = registry().find("pretext", "mine")()
    torch.manual_seed(0)
    task.build(encoder)
    batch, draws = landscapes(32), torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD([*encoder.parameters(), *task.parameters()], lr=0.05, momentum=0.9)
    for _ in range(12):
        views = task.views(batch, draws)
        optimizer.zero_grad()
        task.loss(encoder, views.inputs, views.targets).value.backward()
        optimizer.step()
    views = task.views(batch, draws)
    assert float(task.loss(encoder, views.inputs, views.targets).metrics["accuracy"]) > 0.9


def test_the_defense_finds_larger_losses_in_its_ball_than_chance_does(new: New, encoder: TimmEncoder) -> None:
    new("defense")
    defense: Any = registry().find("defense", "mine")(eps=0.05)
    batch, task, draws = landscapes(16), Bright(), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    task.build(encoder)
    views = Views((batch.x,), {"label": batch.label})
    objective = TaskObjective(encoder, {"bright": task}, (views,), stage="pretrain", key=(0,))
    (found,) = defense.attack(objective, draws)
    assert (found - batch.x).abs().max() <= 0.05 + 1e-6
    drawn = (batch.x + torch.empty_like(batch.x).uniform_(-0.05, 0.05, generator=draws)).clamp(0, 1)
    with torch.no_grad():
        assert objective((found,)).value > 1.02 * max(objective((drawn,)).value, objective((batch.x,)).value)


def test_the_scheme_trains_what_is_fresh_and_then_everything(new: New, encoder: TimmEncoder) -> None:
    new("finetune")
    classifier = ImageClassifier(encoder, encoder.tail(), 4)
    classifier.load_pretrained(encoder.state_dict(), classifier.tail.state_dict())
    first, second = registry().find("finetune", "mine")(head_share=0.25, slower=0.1).phases(classifier)
    trained = [{id(p) for group in phase.groups for p in group["params"]} for phase in (first, second)]
    assert trained[0] == {id(p) for p in classifier.head.parameters()}
    assert trained[1] == {id(p) for p in classifier.parameters()}
    assert [phase.share for phase in (first, second)] == [0.25, 0.75]
    assert [group.get("lr_scale") for group in second.groups] == [0.1]


def test_the_evaluation_counts_what_stays_right_under_noise(new: New) -> None:
    new("evaluation")
    module = importlib.import_module(registry().find("evaluation", "mine").__module__)
    x = torch.full((4000, 3, 1, 1), 0.5)

    class Bright(nn.Module):
        """Is the first value of an image at most one standard deviation above that of all?"""

        def forward(self, x_BCHW: Tensor) -> Tensor:
            return torch.stack([0.6 - x_BCHW[:, 0, 0, 0], x_BCHW[:, 0, 0, 0] - 0.6], 1)

    label, draws = torch.zeros(len(x), dtype=torch.int64), torch.Generator().manual_seed(0)
    found = module.MineEvaluation(sigma=0.1).measure(Victim(Bright(), classes="ab"), x, label, draws)
    assert found["ta"].all()
    assert float(found["noisy"].float().mean()) == pytest.approx(0.8413, abs=0.02)  # Φ(1)


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("defense", "step_size=0"),
        ("defense", "eps=8"),
        ("defense", "steps=0"),
        ("finetune", "head_share=1"),
        ("finetune", "slower=0"),
        ("evaluation", "sigma=8"),
    ],
)
def test_a_bad_option_is_one_line_that_names_it(kind: Kind, option: str, new: New, capsys: Capture) -> None:
    new(kind)
    flag, prefix = FLAGS[kind], options_prefix(kind, "mine")
    assert main(["fit", "--pretext", "rotation", flag, "mine", f"{prefix}{option}"]) == 2
    assert f"{prefix}{option.split('=')[0]} must be" in capsys.readouterr().err
