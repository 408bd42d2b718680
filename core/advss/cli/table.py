"""The table that ends a run: what was reached, and where everything lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from advss.cli.titled import accuracies_of, title_of_figure, titles_of
from advss.naming import as_typed
from advss.runs.folder import to_evaluate, to_finetune
from advss.tracking.store import SENT


def print_result(result: Mapping[str, Any], console: Console | None = None) -> None:
    """Print a result, the content of result.json, on stdout."""
    console = console or Console()
    console.print(f"run {result['name']}", style="italic", markup=False, highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("TA", "RA", "best epoch", "epochs", "seconds"):
        table.add_column(heading, justify="right")
    stages = result.get("epochs") or {}
    table.add_row(
        percent(result.get("ta")),
        percent(result.get("ra")),
        str(result.get("best_epoch") or "-"),
        " + ".join(str(count) for count in stages.values()) or "-",
        " + ".join(f"{seconds:.0f}" for seconds in (result.get("seconds") or {}).values()) or "-",
    )
    console.print(table)
    print_doubt(result, console)
    console.print()
    folder = Path(result["folder"])
    places = [("TA", _other_images(result)), ("RA", attacked(result)), *_places(result, folder)]
    print_places([*places, ("headline", _headline(result)), ("MLflow", pages(folder))], console)


def print_measured(contents: Iterable[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print every accuracy of measurements with its interval, and their notes."""
    console, contents = console or Console(), list(contents)
    console.print()
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("measured", "", "accuracy", "95 % interval", "images"):
        table.add_column(heading, justify="left" if heading in ("measured", "") else "right", overflow="fold")
    for called, content in zip(titles_of(contents), contents, strict=True):
        again = ", before" if content.get("measured_before") else ""
        for place, (name, one) in enumerate(accuracies_of(content).items()):
            low, high = (f"{100 * end:.2f}" for end in one["interval"])
            title = "" if place else f"{called}{again}"
            figure = title_of_figure(content, name)
            table.add_row(title, figure, percent(one["accuracy"]), f"{low} to {high}", str(one["images"]))
    if table.row_count:
        console.print(table)
    print_notes(contents, console)
    console.print()


def print_notes(contents: Iterable[Mapping[str, Any]], console: Console) -> None:
    """Print the notes of measurements, a line each."""
    for content in contents:
        for note in content["figures"].get("notes", ()):
            console.print(f"note: {content['title']}: {note}", markup=False, highlight=False, soft_wrap=True)


def print_doubt(measured: Mapping[str, Any], console: Console, *, of: str = "") -> None:
    """Print the line on a model that has learnt nothing, where there is one; ``of`` names the model among several."""
    if measured.get("doubt"):
        named = f"{of}: " if of else ""
        console.print(f"note: {named}{measured['doubt']}", markup=False, highlight=False, soft_wrap=True)


def print_places(places: Iterable[tuple[str, str]], console: Console) -> None:
    """Print what lies where, a line each; nothing of what is empty."""
    for what, where in places:
        if where:
            console.print(f"{what:<11} {where}", markup=False, highlight=False, soft_wrap=True)


def pages(folder: Path) -> str:
    """The command that shows a run's pages in MLflow; empty where nothing of it was ever sent."""
    if not (folder / SENT).is_file():
        return ""
    return "advss ui" + ("" if folder.parent == Path("runs") else f" --runs-dir {as_typed(folder.parent)}")


def _places(result: Mapping[str, Any], folder: Path) -> list[tuple[str, str]]:
    models = [path for stage in ("finetune", "pretrain") if (path := folder / stage / "best.safetensors").is_file()]
    places = [("run", str(folder)), *(("checkpoint", str(path)) for path in models)]
    if result.get("evaluation"):
        places.append(("numbers", str(folder / result["evaluation"]["file"])))
    if (folder / "figures").is_dir():
        places.append(("figures", str(folder / "figures")))
    if models and result.get("ta") is None:
        tuned = models[0].parent.name == "finetune"
        places.append(("next", to_evaluate(folder) if tuned else to_finetune(folder, result)))
    return places


def _other_images(result: Mapping[str, Any]) -> str:
    """TA of all test images, where the table's is of those that were attacked."""
    count = result.get("test_images") or 0
    if result.get("ta_all") is None or count == result.get("ra_images", count):
        return ""
    return f"{percent(result['ta_all'])} of all {count} test images; in the table of the {result['ra_images']} attacked"


def _headline(result: Mapping[str, Any]) -> str:
    """What result.json goes on saying, where this is not it."""
    stays = result.get("headline")
    if not stays:
        return ""
    return f"stays TA {percent(stays['ta'])}, RA {percent(stays['ra'])} ({attacked(stays)}) in result.json"


def attacked(result: Mapping[str, Any]) -> str:
    """The attack that RA is under, and of how many images, as a result has them."""
    attack = result.get("ra_attack") or {}
    if not attack:
        return "not measured"
    images = f", {result['ra_images']} images" if result.get("ra_images") else ""
    return f"{attack['title']}{images}"


def percent(share: float | None) -> str:
    """A share in percent, a dash where there is none."""
    return "-" if share is None else f"{100 * share:.2f} %"
