"""A data source of another distribution: said, shown, trained on, recorded, missed, broken."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import advss
from advss.cli.main import main
from advss.configuration.resolve import from_mapping
from advss.data import reading
from advss.data.images import OnDisk
from advss.data.options import make_source
from advss.data.splits import open_splits
from advss.errors import UsageError
from advss.plugins import forget, provenance, registry
from advss.training.checkpoints import load_checkpoint

Install = Callable[..., str]
Capture = pytest.CaptureFixture[str]
CODE = """
from pathlib import Path
from typing import Literal
import numpy as np
import torch
from advss.errors import UsageError
from advss.hookspecs import DataSource

class Stripes(DataSource):
    '''Files of stripes.

    Args:
        root: folder of train.npy and test.npy.
        ink: of ``the`` stripes.
    '''

    name = "stripes"

    def __init__(self, *, root: Path, ink: Literal["dark", "light"] = "dark"):
        self.root, self.ink = root, ink

    def classes(self):
        return ("across", "down")

    def labels(self, split):
        return torch.arange(len(self.stored(split))) % 2

    def images(self, split, places_B):
        return torch.from_numpy(self.stored(split)[places_B.numpy()])

    def stored(self, split):
        path = self.root / f"{split}.npy"
        if not path.is_file():
            raise UsageError(f"no '{path}'; --data.root says where the stripes are")
        levels = np.load(path)
        return levels if self.ink == "dark" else 255 - levels

def advss_datasets():
    return [Stripes]
"""
SMALL: Any = {
    "pretext": "none",
    "defense": "none",
    "backbone": {"resnet18": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}},
    "finetune_epochs": 1,
    "finetune_batch_size": 18,
    "eval_valid_steps": 1,
    "eval_steps": 1,
    "device": "cpu",
    "memory_format": "contiguous",
    "tracking": False,
}
RECORD = {"kind": "data", "name": "stripes", "distribution": "acme-lab", "version": "2.5"}
MISSING = "needs the data source 'stripes' of acme-lab 2.5, which is not installed; pip install acme-lab==2.5"


def write(folder: Path) -> Path:
    """40 images to train on and 10 to test, of 8 pixels."""
    folder.mkdir()
    for split, count in (("train", 40), ("test", 10)):
        np.save(folder / f"{split}.npy", np.random.default_rng(0).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data, and a run on them by acme-lab 2.5."""
    folder = tmp_path_factory.mktemp("stripes")
    info = folder / "site" / "acme_lab-2.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-lab\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[advss]\nall = striped_plugins\n")
    (folder / "site" / "striped_plugins.py").write_text(CODE)
    data = {"stripes": {"root": str(write(folder / "data")), "ink": "light"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder / "site")
        forget()
        advss.fit(**SMALL, data=data, name="one", runs_dir=str(folder / "runs"))
    forget()
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the run, which has the evaluation still to do; acme-lab is not installed."""
    provenance._warned.clear()
    folder = Path(shutil.copytree(trained / "runs", tmp_path / "runs")) / "one"
    content = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(content | {"status": "running"}))
    forget()
    yield folder
    provenance._warned.clear()


@pytest.fixture
def stripes(install: Install, tmp_path: Path) -> Path:
    """acme-lab is installed; its data."""
    install("acme-lab", CODE)
    return write(tmp_path / "data")


def only_line(capsys: Capture) -> str:
    """What is wrong, beside what every run begins with."""
    begins = ("recipe ", "starting ", "data ")
    (line,) = (line for line in capsys.readouterr().err.splitlines() if not line.startswith(begins))
    return line


# ---------------------------------------------------------------- said and shown
@pytest.mark.parametrize("name", ["stripes", "acme-lab:stripes"])
def test_a_line_chooses_it(stripes: Path, capsys: Capture, name: str) -> None:
    assert main(["fit", "--data", name, "--data.root", str(stripes), "--data.ink=light", "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["data"] == {name: {"root": str(stripes), "ink": "light"}}


def test_yaml_chooses_it(stripes: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "it.yaml").write_text(f"data: {{stripes: {{root: {stripes}, limit: 20}}}}\n")
    assert main(["fit", "--config", str(tmp_path / "it.yaml"), "--print-config"]) == 0
    out = capsys.readouterr().out
    assert yaml.safe_load(out)["data"] == {"stripes": {"root": str(stripes), "ink": "dark"}}
    assert "data.limit: 20" in out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--data stripe --data.root x", "unknown data source 'stripe'; did you mean 'stripes'?"),
        ("--data stripes", "--data.root is missing: stripes has no default for it (Path)"),
        ("--data stripes --data.rot x", "unknown option --data.rot of stripes; did you mean 'root'?"),
        ("--data stripes --data.root x --data.ink red", "--data.ink: expected dark | light, got 'red'"),
        ("--data stripes --data.root nowhere", "nowhere/train.npy'; --data.root says where the stripes are"),
        ("--data stripes --data.root x -p no:stripes", "-p no:stripes switches off 'acme-lab:stripes'"),
        ("--data stripes --data.root x -p no:acme-lab", "(-p no:acme-lab switches off 'acme-lab')"),
    ],
)
def test_what_is_wrong_is_one_line(stripes: Path, capsys: Capture, tmp_path: Path, line: str, said: str) -> None:
    assert main(["fit", *line.split(), "--runs-dir", str(tmp_path / "runs"), "--device", "cpu", "--quiet"]) == 2
    assert said in only_line(capsys)
    assert not list(tmp_path.glob("runs/*"))


def test_the_variable_switches_it_off(stripes: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVSS_DISABLE_PLUGINS", "acme-lab:stripes")
    assert main(["fit", "--data", "stripes", "--data.root", "x", "--print-config"]) == 2
    assert "ADVSS_DISABLE_PLUGINS switches off 'acme-lab:stripes'" in only_line(capsys)


def test_help_lists_it_and_its_options(stripes: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["fit", "--data", "stripes", "--data.root", "~/x", "--help"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["stripes", "Files", "of", "stripes"] in rows
    assert ["Options", "of", "stripes"] in rows
    assert ["--data.ink", "dark", "of", "the", "stripes", "(dark", "|", "light)"] in rows
    assert [row[1] for row in rows if row[:1] == ["--data.root"]] == [str(Path("~/x").expanduser())]


def offered(line: str, capsys: Capture) -> list[str]:
    capsys.readouterr()
    assert main(["--complete", "fish", *line.split(" ")]) == 0
    return [row.split("\t")[0] for row in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("fit --data str", ["stripes"]),
        ("fit --data stripes --data.", ["--data.limit", "--data.size", "--data.resize", "--data.root", "--data.ink"]),
        ("fit --data stripes --data.ink ", ["dark", "light"]),
        ("fit -p no:acme-lab --data str", []),
        ("plugins show stri", ["stripes"]),
        ("plugins show digi", ["digits"]),
    ],
)
def test_completion_offers_it(stripes: Path, capsys: Capture, line: str, words: list[str]) -> None:
    main(["plugins", "list"])  # any command that loads plugins keeps their names
    assert sorted(offered(line, capsys)) == sorted(words)


def test_it_is_listed_and_shown(stripes: Path, capsys: Capture) -> None:
    main(["plugins", "list"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["data", "stripes", "acme-lab", "2.5", "-", "ok"] in rows
    assert main(["plugins", "show", "stripes", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["kind"], shown["doc"].splitlines()[0]) == ("data", "Files of stripes.")
    assert [(o["name"], o["default"]) for o in shown["options"]] == [("root", "required"), ("ink", "dark")]


def test_it_is_checked(stripes: Path, capsys: Capture) -> None:
    assert main(["plugins", "check", "stripes", "--option", f"root={stripes}"]) == 0
    out = capsys.readouterr().out
    assert "stripes (data), acme-lab 2.5" in out
    assert "0 failed, 0 not checked" in out


def test_a_built_in_name_stays_ours(install: Install) -> None:
    install("acme-lab", CODE.replace('"stripes"', '"digits"'))
    assert registry().plugin("data", "digits").distribution == "advss"
    assert registry().plugin("data", "acme-lab:digits").distribution == "acme-lab"


def test_a_path_may_begin_at_home(stripes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(stripes.parent))
    source = make_source("stripes", {"root": "~/data"})
    assert vars(source)["root"] == stripes


# ---------------------------------------------------------------- trained on and recorded
def test_a_run_trains_on_it_and_records_it(trained: Path) -> None:
    folder = trained / "runs" / "one"
    result = json.loads((folder / "result.json").read_text())
    assert RECORD in result["plugins"]
    assert result["data"] == "stripes"
    assert RECORD in load_checkpoint(folder / "finetune" / "best.safetensors").manifest["plugins"]


def test_what_it_gives_is_what_is_seen(run: Path, install: Install, trained: Path) -> None:
    install("acme-lab", CODE)
    images, labels = advss.load_data(run)
    stored = 255 - np.load(trained / "data" / "test.npy")
    assert np.array_equal((images * 255).round().byte().numpy(), stored)
    assert labels.tolist() == [0, 1] * 5


def test_a_split_too_large_to_hold_is_read_when_needed(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = open_splits("stripes", {"root": stripes})
    monkeypatch.setattr(reading, "RESIDENT_BYTES", 0)
    read = open_splits("stripes", {"root": stripes})
    assert isinstance(read.train.images, OnDisk)
    assert read.fingerprint == held.fingerprint
    name, data = "two", {"stripes": {"root": str(stripes)}}
    advss.fit(**SMALL, data=data, name=name, runs_dir=str(tmp_path / "runs"))
    assert (tmp_path / "runs" / name / "finetune" / "best.safetensors").is_file()


# ---------------------------------------------------------------- moved
@pytest.fixture
def moved(run: Path, install: Install, trained: Path, tmp_path: Path) -> Path:
    """The run, of a source that calls its place ``shelf``; the data that were there are in ``new``."""
    install("acme-lab", CODE.replace("root", "shelf"))
    config = run / "config.yaml"
    said = config.read_text().replace("root:", "shelf:").replace(str(trained / "data"), str(tmp_path / "old"))
    config.write_text(said)
    shutil.copytree(trained / "data", tmp_path / "new")
    return run


def test_a_place_of_any_name_is_said_anew(moved: Path, tmp_path: Path, capsys: Capture) -> None:
    line = ["evaluate", str(moved), "--device", "cpu", "--quiet"]
    assert main(line) == 2
    assert only_line(capsys).endswith("/old, which is not there; say where they are now by --data.shelf DIR")
    assert main([*line, "--data.shelf", str(tmp_path / "new")]) == 0


@pytest.mark.parametrize("said", ["--data.ink dark", "--data.limit 5", "--data.root x"])
def test_nothing_but_a_place_is_said_anew(moved: Path, capsys: Capture, said: str) -> None:
    assert main(["evaluate", str(moved), *said.split()]) == 2
    assert only_line(capsys).endswith("nothing but their place can be said, by --data.shelf")


def test_data_are_loaded_from_where_they_are_now(moved: Path, tmp_path: Path) -> None:
    images, _ = advss.load_data(moved, data={"shelf": tmp_path / "new"})
    assert np.array_equal((images * 255).round().byte().numpy(), 255 - np.load(tmp_path / "new" / "test.npy"))


def test_other_data_are_not_loaded(moved: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "new" / "test.npy", np.zeros((10, 3, 8, 8), dtype=np.uint8))
    with pytest.raises(UsageError, match="was trained on other data than there are now: other test images or labels"):
        advss.load_data(moved, data={"shelf": tmp_path / "new"})


def test_several_places_are_absolute_each(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("acme-lab", CODE.replace("root: Path", "root: tuple[Path, ...]"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    config = from_mapping({"data": {"stripes": {"root": ["a", "~/b"]}}})
    assert config.data.options["root"] == (tmp_path / "a", Path("/home/me/b"))


# ---------------------------------------------------------------- missed
@pytest.mark.parametrize("line", ["fit --resume", "finetune --from", "evaluate"])
def test_a_missing_source_is_what_to_install(run: Path, capsys: Capture, line: str) -> None:
    assert main([*line.split(), str(run)]) == 2
    assert only_line(capsys) == f"advss: error: run {run} {MISSING}"


def test_loading_its_data_says_what_to_install(run: Path) -> None:
    with pytest.raises(UsageError, match=MISSING):
        advss.load_data(run)


def test_its_model_is_loaded_without_it(run: Path) -> None:
    assert advss.load_model(run)(torch.rand(2, 3, 8, 8)).shape == (2, 2)


def test_another_version_goes_on_and_is_named(run: Path, install: Install, capsys: Capture) -> None:
    install("acme-lab", CODE, version="2.6")
    assert main(["fit", "--resume", str(run), "--quiet"]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "acme-lab" in line]
    assert len(warnings) == 1
    assert warnings[0].endswith("was made with acme-lab 2.5; acme-lab 2.6 is installed")


# ---------------------------------------------------------------- broken
def broken(change: str, by: str) -> str:
    assert change in CODE
    return CODE.replace(change, by)


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        (broken("[Stripes]", "[3]"), "3 is not a subclass of DataSource"),
        (broken('"stripes"', '"my stripes"'), "class Stripes has the name 'my stripes'"),
        (
            broken("ink: Literal", "limit: Literal"),
            "class Stripes has an option 'limit', which --data.limit of every run",
        ),
        (broken("ink: Literal", "size: Literal"), "class Stripes has an option 'size', which --data.size of every run"),
        (
            broken("ink: Literal", "resize: Literal"),
            "class Stripes has an option 'resize', which --data.resize of every run",
        ),
        (
            broken("def advss_datasets", "def advss_dataset"),
            "unknown hook 'advss_dataset'; did you mean 'advss_datasets'",
        ),
    ],
)
def test_a_broken_one_is_one_line_and_the_rest_works(install: Install, capsys: Capture, code: str, fault: str) -> None:
    install("acme-lab", code)
    assert main(["fit", "--data", "digits", "--print-config"]) == 0
    line = only_line(capsys)
    assert line.startswith("advss: warning: plugin acme-lab 2.5 (plugin): ")
    assert fault in line


def test_one_that_lacks_a_method_is_one_line(install: Install, capsys: Capture) -> None:
    install("acme-lab", broken("def images", "def image"))
    assert main(["fit", "--data", "stripes", "--data.root", "x", "--print-config"]) == 2
    assert "--data stripes: Can't instantiate abstract class Stripes" in only_line(capsys)


FORM = "images('train', places) must be uint8"


@pytest.mark.parametrize(
    ("change", "by", "said"),
    [
        ("% 2", "% 2 / 1", "stripes: labels('train') must be int64 (N,), got float32 (40,)"),
        (
            "torch.arange(len(self.stored(split))) % 2",
            "[0, 1]",
            "stripes: labels('train') must be int64 (N,), got list",
        ),
        ("% 2", "% 3", "stripes: labels reach 2, expected 0 to 1 for 2 classes"),
        ("% 2", "% 2 - 2", "stripes: labels('train') must count from 0, or be -1 for none, got -2"),
        ("numpy()])", "numpy()]).float()", f"{FORM} (1, 3, S, S), got float32 (1, 3, 8, 8)"),
        ("numpy()])", "numpy()])[0, 0, 0, 0]", f"{FORM} (1, 3, S, S), got uint8 ()"),
        ("numpy()])", "numpy()])[:, :1]", f"{FORM} (1, 3, S, S), got uint8 (1, 1, 8, 8)"),
        ("numpy()])", "numpy()])[..., :4]", f"{FORM} (1, 3, S, S), got uint8 (1, 3, 8, 4)"),
        ("[places_B.numpy()]", "", f"{FORM} (1, 3, S, S), got uint8 (40, 3, 8, 8)"),
        (
            "numpy()])",
            "numpy()])[..., :9 - len(places_B), :9 - len(places_B)]",
            f"{FORM} (36, 3, 8, 8), got uint8 (36, 3, 0, 0)",
        ),
        ("if not path.is_file()", "if False", "--data stripes: cannot read the train images: [Errno 2]"),
    ],
)
def test_one_that_breaks_the_contract_is_one_line_that_says_how(
    install: Install, tmp_path: Path, capsys: Capture, change: str, by: str, said: str
) -> None:
    install("acme-lab", broken(change, by))
    data = write(tmp_path / ("data" if "is_file" not in change else "elsewhere")).with_name("data")
    words = ["--data", "stripes", "--data.root", str(data), "--runs-dir", str(tmp_path / "runs"), "--device", "cpu"]
    assert main(["fit", *words, "--pretext", "none", "--quiet"]) == 2
    assert said in only_line(capsys)


def test_discovery_imports_no_data(stripes: Path) -> None:
    """Nothing of torchvision, scikit-learn or pyarrow is loaded to know what sources there are."""
    import subprocess

    code = (
        "import sys; from advss.plugins import registry; registry().rows();"
        "sys.exit(' '.join({'torchvision', 'sklearn', 'pyarrow'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
