"""Shell completion: what bash itself makes of a line, and what it costs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from advss.cli.main import main
from advss.plugins import forget

Complete = Callable[[str], list[str]]
ACME = """
from typing import Literal
from advss.hookspecs import Defense, Evaluation, FinetuneScheme, PretextTask

class Tilt(PretextTask):
    '''Tell the tilt.

    Args:
        angle: in degrees.
    '''
    name = "tilt"
    def __init__(self, *, angle: Literal["small", "large"] = "small", side: bool = False): pass

class Wrap(Defense):
    name = "wrap"
    def __init__(self, *, base: Defense | str = "pgd", rounds: int = 1): pass

class Rival(Defense):
    name = "pgd"

class Dim(Evaluation):
    '''Accuracy on dim images.'''
    name = "dim"
    def __init__(self, *, how: Literal["half", "quarter"] = "half"): pass

def advss_pretext_tasks(): return [Tilt]
def advss_defenses(): return [Wrap, Rival]
def advss_evaluations(): return [Dim]
"""
DIVERSITY = ["--diversity", *(f"--diversity-{word}" for word in ("every", "in", "pixels", "sign"))]
BUILTIN_TASKS = ["jigsaw", "none", "rotation", "selfie"]

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a distribution of a task and two defenses, and a cache that knows it."""
    folder = tmp_path_factory.mktemp("completion")
    info = folder / "acme-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[advss]\nall = acme_plugins\n")
    (folder / "acme_plugins.py").write_text(ACME)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        forget()
        main(["plugins", "list", "--json"])
        forget()
    (folder / "guard" / "torch").mkdir(parents=True)
    (folder / "guard" / "torch" / "__init__.py").write_text("raise SystemExit('completion imports torch')")
    (folder / "script").write_text(subprocess.check_output([program(), "--print-completion", "bash"], text=True))
    return folder


@pytest.fixture
def offered_by_bash(site: Path, tmp_path: Path) -> Complete:
    """What bash offers at the end of a line; importing torch, and so any plugin, would offer nothing."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ADVSS_")}
    path = os.pathsep.join([str(site / "guard"), str(site)])
    environment = clean | {"PYTHONPATH": path, "XDG_CACHE_HOME": str(site / "cache")}

    def ask(line: str) -> list[str]:
        words = bash_words(line)
        current, previous = words[-1], words[-2]
        script = (
            f"source {site / 'script'}; COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}\n"
            f"COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}\n"
            f"_advss {shlex.join([program(), current, previous])}\n"
            "printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(
            ["bash", "--norc", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return sorted(done.stdout.split())

    return ask


@pytest.fixture
def offered(site: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path) -> Complete:
    """What ``advss --complete`` offers at the end of a line, in this process."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("XDG_CACHE_HOME", str(site / "cache"))
    monkeypatch.chdir(tmp_path)

    def ask(line: str) -> list[str]:
        capsys.readouterr()
        assert main(["--complete", "bash", line, bash_words(line)[-1]]) == 0
        return sorted(capsys.readouterr().out.split())

    return ask


def program() -> str:
    return str(Path(sys.executable).with_name("advss"))


def bash_words(line: str) -> list[str]:
    """Words as bash's COMP_WORDBREAKS part them, at = and : too; the last is what is being completed."""
    words = [""]
    for character in line:
        if character == " ":
            words += [""] if words[-1] else []
        elif character in "=:":
            words = [*(words if words[-1] else words[:-1]), character, ""]
        else:
            words[-1] += character
    return words


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("advss f", ["finetune", "fit"]),
        ("advss fit --pretext ", [*BUILTIN_TASKS, "tilt"]),
        ("advss fit --pretext rotation,jigsaw,t", ["rotation,jigsaw,tilt"]),
        ("advss fit --pretext=rotation,t", ["rotation,tilt"]),  # bash takes --pretext, = and rotation,t for words
        ("advss fit --defense acme:", ["pgd"]),  # and acme and : here
        ("advss fit --defense=acme:p", ["pgd"]),
        ("advss fit --pretext tilt --pretext.", ["--pretext.angle", "--pretext.side"]),
        ("advss nonsense ", []),
    ],
)
def test_bash_offers(offered_by_bash: Complete, line: str, words: list[str]) -> None:
    assert offered_by_bash(line) == sorted(words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("advss f", ["finetune", "fit"]),
        ("advss plugins s", ["show"]),
        ("advss --print-completion ", ["bash", "fish", "zsh"]),
        ("advss --v", ["--version"]),
        ("advss fit --pretext ", [*BUILTIN_TASKS, "tilt"]),
        ("advss fit --pretext s", ["selfie"]),
        ("advss fit --pretext rotation,", ["rotation,jigsaw", "rotation,selfie", "rotation,tilt"]),
        ("advss fit --pretext rotation,jigsaw,t", ["rotation,jigsaw,tilt"]),
        ("advss fit --pretext=t", ["tilt"]),
        ("advss fit --pretext=rotation,t", ["rotation,tilt"]),
        ("advss fit --defense p", ["pgd"]),
        ("advss fit --defense acme:", ["pgd"]),
        ("advss fit --defense=acme:p", ["pgd"]),
        ("advss fit --finetune-defense w", ["wrap"]),
        ("advss fit --finetune rot", ["rotation-aux"]),
        ("advss fit --pretext tilt --pretext.", ["--pretext.angle", "--pretext.side"]),
        ("advss fit --pretext tilt --pretext.angle ", ["large", "small"]),
        ("advss fit --pretext tilt --pretext.angle=l", ["large"]),
        ("advss fit --pretext tilt --pretext.side ", ["false", "true"]),
        ("advss fit --pretext tilt,rotation --pretext.", ["--pretext.tilt.angle", "--pretext.tilt.side"]),
        ("advss fit --pretext tilt,rotation --pretext.tilt.angle ", ["large", "small"]),
        ("advss fit --defense wrap --defense.base t", ["trades"]),
        ("advss fit --defense wrap --finetune-defense.", ["--finetune-defense.base", "--finetune-defense.rounds"]),
        ("advss fit --defense.", []),
        ("advss fit --pretrain-sch", ["--pretrain-schedule"]),
        ("advss fit --pretrain-schedule c", ["constant", "cosine"]),
        ("advss fit --precision ", ["auto", "bf16", "float32"]),
        ("advss fit --config cifar10-p", ["cifar10-paper"]),
        ("advss fit --data cifar100", ["cifar100"]),
        ("advss fit --pretrain-flip --pretext s", ["selfie"]),
        ("advss fit --quiet --pretext s", ["selfie"]),
        ("advss fit -p no:acme --pretext ", BUILTIN_TASKS),
        ("advss -p no:tilt fit --pretext ", BUILTIN_TASKS),
        ("advss -pno:tilt fit --pretext t", []),
        ("advss fit -p no:ac", ["acme"]),
        ("advss --strict-plugins fit --pretext s", ["selfie"]),
        ("advss --str", ["--strict-plugins"]),
        ("advss plugins new it --kind ", ["pretext", "defense", "finetune", "evaluation", "launcher"]),
        ("advss plugins check tilt --kind=d", ["defense", "data"]),
        ("advss plugins show wr", ["wrap"]),
        ("advss evaluate --eval-n", ["--eval-norm"]),
        ("advss evaluate --eval-norm ", ["l1", "l2", "linf"]),
        ("advss evaluate --pretext", []),
        ("advss evaluate it --evaluate d", ["dim"]),
        ("advss evaluate it --evaluate n", ["none"]),
        ("advss evaluate it --evaluate dim,p", ["dim,pgd"]),
        ("advss fit --evaluate=clean,d", ["clean,dim"]),
        ("advss fit --evaluate clean,dim --di", ["--dim.how", *DIVERSITY]),
        ("advss fit --dim.", ["--dim.how"]),
        ("advss fit --di", DIVERSITY),
        ("advss evaluate it --pgd.st", ["--pgd.step_size", "--pgd.steps"]),
        ("advss evaluate it --pgd.norm ", ["l1", "l2", "linf"]),
        ("advss evaluate it --dim.how=q", ["quarter"]),
        ("advss evaluate it --dim.how half --eval-no", ["--eval-norm"]),
        ("advss certify it --pgd.", []),
        ("advss study s", ["status"]),
        ("advss study run paper-figure", ["paper-figure1", "paper-figure5"]),
        ("advss study run --launcher l", ["local"]),
        ("advss study run --launcher.", ["--launcher.jobs"]),
        ("advss study run --versions ", ["keep", "new"]),
        ("advss evaluate it --li", ["--limit"]),
        ("advss evaluate --data.r", ["--data.root"]),
        ("advss nonsense ", []),
        ("advss fit --pretext 'sel", []),
    ],
)
def test_what_is_offered(offered: Complete, line: str, words: list[str]) -> None:
    assert offered(line) == sorted(words)


def runs(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "config.yaml").touch()
    (folder / "no-run").mkdir()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("advss evaluate ", ["first", "second"]),
        ("advss transfer first ", ["second"]),
        ("advss transfer first second ", []),
        ("advss evaluate --quiet s", ["second"]),
        ("advss evaluate first ", ["second"]),
        ("advss fit --resume f", ["first"]),
        ("advss finetune --from s", ["second"]),
        ("advss sync f", ["first"]),
        ("advss evaluate --runs-dir elsewhere ", ["third"]),
        ("advss fit ", []),
    ],
)
def test_runs_are_offered_where_one_is_asked_for(
    offered: Complete, tmp_path: Path, line: str, words: list[str]
) -> None:
    runs(tmp_path / "runs", "first", "second")
    runs(tmp_path / "elsewhere", "third")
    assert offered(line) == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("advss study status ", ["first", "second"]),
        ("advss study run s", ["second"]),
        ("advss study status --studies-dir elsewhere ", ["third"]),
    ],
)
def test_studies_are_offered_where_one_is_asked_for(
    offered: Complete, tmp_path: Path, line: str, words: list[str]
) -> None:
    for path in ("studies/first", "studies/second", "elsewhere/third"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "study.yaml").touch()
    assert offered(line) == words


def test_runs_are_looked_up_where_the_variable_says(
    offered: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs(tmp_path / "elsewhere", "third")
    monkeypatch.setenv("ADVSS_RUNS_DIR", "elsewhere")
    assert offered("advss evaluate ") == ["third"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("advss ru", ["runs"]),
        ("advss runs ", ["prune", "remove", "show"]),
        ("advss runs --st", ["--state", "--strict-plugins"]),
        ("advss runs --state d", ["damaged", "diverged"]),
        ("advss runs --sort s", ["scheme", "size", "state"]),
        ("advss runs --pretext s", ["selfie"]),
        ("advss runs --pretext tilt --pretext.", []),
        ("advss runs show ", ["compared", "third"]),
        ("advss report ", ["compared", "third"]),
        ("advss runs remove third ", ["compared"]),
        ("advss evaluate ", ["third"]),
    ],
)
def test_what_stands_below_runs(line: str, words: list[str], offered: Complete, tmp_path: Path) -> None:
    runs(tmp_path / "runs", "third")
    (tmp_path / "runs/compared").mkdir()
    (tmp_path / "runs/compared/transfer.json").touch()
    assert offered(line) == words


def test_what_the_variable_switches_off_is_not_offered(offered: Complete, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVSS_DISABLE_PLUGINS", "ACME,rotation")
    assert offered("advss fit --pretext ") == ["jigsaw", "none", "selfie"]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{{"{prefix}": 7}}', '{{"{prefix}": {{"path": {path}, "files": {{}}, "vocabulary": 3}}}}']
)
def test_a_foreign_cache_is_made_anew(offered: Complete, site: Path, content: str) -> None:
    text = content.format(prefix=sys.prefix, path=json.dumps(sys.path)) if "{{" in content else content
    (site / "cache" / "advss" / "completion.json").write_text(text)
    assert offered("advss fit --pretext s") == ["selfie"]


def test_without_any_cache_commands_and_flags_are_offered(
    offered: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert offered("advss fit --pretext ") == ["none"]
    assert offered("advss fit --see") == ["--seed"]


def test_an_upgrade_is_seen_at_once(offered: Complete, site: Path) -> None:
    """A file of the distribution that changed since its names were kept: they are no more."""
    assert offered("advss fit --pretext t") == ["tilt"]
    module = site / "acme_plugins.py"
    before = module.stat()
    os.utime(module, ns=(0, 1))
    try:
        assert offered("advss fit --pretext t") == []
    finally:
        os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_registers_itself(shell: str, capsys: Capture) -> None:
    assert main(["--print-completion", shell]) == 0
    out = capsys.readouterr().out
    registers = {
        "bash": "complete -o default -F _advss advss",
        "zsh": "compdef _advss advss",
        "fish": "complete -c advss",
    }
    assert registers[shell] in out
    assert f"--complete {shell}" in out


@pytest.mark.parametrize("words", [["--print-completion"], ["--print-completion", "csh"], ["--print-completion=csh"]])
def test_another_shell_is_an_error(words: list[str], capsys: Capture) -> None:
    assert main(words) == 2
    said = words[0].partition("=")[2] or "".join(words[1:])
    assert capsys.readouterr().err == f"advss: error: --print-completion: expected bash, zsh, fish, got '{said}'\n"


@pytest.mark.parametrize("words", [[], ["bash"], ["bash", "advss"], ["bash", "", ""], ["zsh"], ["csh", "fit", "-"]])
def test_nothing_that_a_shell_asks_is_a_traceback(words: list[str], capsys: Capture) -> None:
    main(["--complete", *words])
    assert capsys.readouterr().err == ""


def test_other_shells_get_a_line_on_each(offered: Complete, capsys: Capture) -> None:
    assert main(["--complete", "fish", "fit", "--pretext", "t"]) == 0
    assert capsys.readouterr().out == "tilt\tTell the tilt\n"
