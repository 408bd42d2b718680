"""What do installed plugins cost every command, and what do --version and shell completion cost?

    python benchmarks/discovery.py --rounds 7

Distributions with one plugin each are made in a scratch folder. Every figure is of fresh processes; a round measures
each case once, in turn, since machines drift, and what counts are the medians over the rounds. Discovery is timed after
torch and the contract are imported, and "beside imports" is what is left of it when the modules of all plugins, the
built-in ones too, were imported before. CPU time stands beside wall time: it can be compared on a machine that does
other work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from advss.plugins.installed import GROUP, installed

PLUGIN = '''"""A defense."""

from advss.hookspecs import Defense


class Own(Defense):
    """Standard training under a name of its own.

    Args:
        eps: radius of the ball.
        steps: ascent steps.
    """

    name = "own-{number}"

    def __init__(self, *, eps: float = 8 / 255, steps: int = 10) -> None:
        self.eps, self.steps = eps, steps


def advss_defenses() -> list[type[Defense]]:
    """Offer it."""
    return [Own]
'''
README = "A plugin that does nothing.\n" * 200  # metadata hold a distribution's long description
DISCOVERY = """
import sys, time
import advss.hookspecs, advss.plugins
if {imported}:  # the built-in hooks import a module for each of their classes
    import advss.data.sources, advss_defenses, advss_finetune, advss_pretext
    advss.data.sources.advss_datasets(), advss_defenses.advss_defenses()
    advss_finetune.advss_finetune_schemes(), advss_pretext.advss_pretext_tasks()
from advss.plugins.discovery import discover
from advss.plugins.isolation import Isolation
for number in range({count} if {imported} else 0):
    __import__(f"own_plugin_{{number}}")
clocks = time.perf_counter(), time.process_time()
found = discover()
took = time.perf_counter() - clocks[0], time.process_time() - clocks[1]
names = [p.name for p in found.plugins if p.distribution != "advss"]
assert len(names) == {count} and not found.faults, (names, found.faults)
print(*took)
"""
LINES = {
    "--version": ["--version"],
    "completion": ["--complete", "bash", "advss fit --pretext sel", "sel"],
}


def install(folder: Path, count: int) -> None:
    """What pip leaves of ``count`` distributions."""
    for number in range(count):
        info = folder / f"own_plugin_{number}-1.0.dist-info"
        info.mkdir(parents=True)
        head = f"Metadata-Version: 2.1\nName: own-plugin-{number}\nVersion: 1.0\n"
        (info / "METADATA").write_text(f"{head}\n{README}")
        (info / "entry_points.txt").write_text(f"[advss]\nplugin = own_plugin_{number}\n")
        (folder / f"own_plugin_{number}.py").write_text(PLUGIN.format(number=number))


def discovered(environment: dict[str, str], count: int, *, imported: bool) -> tuple[float, float]:
    """Wall and CPU seconds of one discovery."""
    code = DISCOVERY.format(count=count, imported=imported)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE, text=True, cwd="/"
    )
    wall, cpu = done.stdout.split()
    return float(wall), float(cpu)


def ran(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of one process, its start included."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measured(folder: Path, counts: list[int], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of each case, a pair a round."""
    advss = str(Path(sys.executable).with_name("advss"))
    left_out = ("ADVSS_", "PYTHONDONTWRITEBYTECODE")  # modules are compiled once, as where advss is installed
    clean = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
    clean["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
    took: dict[str, list[tuple[float, float]]] = {}
    environments = {}
    for count in counts:
        install(folder / str(count), count)
        cache = str(folder / f"cache-{count}")
        environments[count] = clean | {"PYTHONPATH": str(folder / str(count)), "XDG_CACHE_HOME": cache}
        ran([advss, "plugins", "list"], environments[count])  # fills the cache, and Python's own of the modules
        ran([advss, *LINES["completion"]], environments[count])
    for _ in range(rounds):
        took.setdefault("python -c pass", []).append(ran([sys.executable, "-c", "pass"], clean))
        for count, environment in environments.items():
            for imported, what in ((False, "discovery"), (True, "discovery beside imports")):
                took.setdefault(f"{what}, {count} plugins", []).append(
                    discovered(environment, count, imported=imported)
                )
            for name, line in LINES.items():
                took.setdefault(f"{name}, {count} plugins", []).append(ran([advss, *line], environment))
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--plugins", type=int, nargs="+", default=[0, 10, 100])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/discovery.json"))
    arguments = parser.parse_args()
    others = [distribution.name for distribution in installed() if distribution.name != GROUP]
    if others:
        parser.error(f"it counts plugins, and others are here: pip uninstall {' '.join(others)}")
    with tempfile.TemporaryDirectory() as folder:
        took = measured(Path(folder), arguments.plugins, arguments.rounds)
    rows = {
        name: {
            clock: {"median": round(1000 * statistics.median(ms), 2), "least": round(1000 * min(ms), 2)}
            for clock, ms in zip(("wall ms", "cpu ms"), zip(*pairs, strict=True), strict=True)
        }
        for name, pairs in took.items()
    }
    about: dict[str, object] = {"machine": machine(), "python": platform.python_version(), "torch": torch_version()}
    about |= {"load at the end": os.getloadavg()[0], "rounds": arguments.rounds}
    arguments.out.write_text(json.dumps(about | {"cases": rows}, indent=1) + "\n")
    for name, row in rows.items():
        print(f"{name:<40} " + "  ".join(f"{c} {v['median']:8.2f} (least {v['least']:8.2f})" for c, v in row.items()))


def machine() -> str:
    """The processor and how many of it."""
    names = [line.partition(":")[2].strip() for line in cpu_lines() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def torch_version() -> str:
    from importlib.metadata import version

    return version("torch")


if __name__ == "__main__":
    main()
