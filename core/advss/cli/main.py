"""``advss``: finds the command, and turns what goes wrong into one line and an exit code.

Everything is imported where it is needed: `--version` and shell completion wait for neither torch nor plugins.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from advss.output import printed, process_output, tell

if TYPE_CHECKING:
    from advss.cli.arguments import Command

USAGE_ERROR, CTRL_C = 2, 130
DEBUG = "ADVSS_DEBUG"  # set to anything, the traceback of what became one line is printed before it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code: 2 for bad input, 130 and 143 where a signal stopped it."""
    words = list(sys.argv[1:] if argv is None else argv)
    with process_output():
        if words[:1] == ["--complete"]:
            from advss.cli.complete import answer

            return answer(words[1:])
        return _surviving(words)


def _surviving(words: list[str]) -> int:
    from advss.errors import UsageError
    from advss.training.signals import Interrupted

    try:
        return _run(words)
    except UsageError as error:
        if os.environ.get(DEBUG):
            sys.excepthook(type(error), error, error.__traceback__)
        tell(f"advss: error: {' '.join(str(error).split())}")
        return USAGE_ERROR
    except Interrupted as stop:
        tell(f"advss: {stop}{_going_on(words[0], stop.run)}")
        return stop.exit_code
    except KeyboardInterrupt:
        return CTRL_C
    except PermissionError as error:
        tell(f"advss: error: {error.filename}: permission denied; runs are written where they lie")
        return USAGE_ERROR


def _going_on(command: str, run: str) -> str:
    """What to type after a command was stopped in a run's folder."""
    from advss.naming import as_typed

    if command in ("evaluate", "certify"):
        return "; what was measured is kept, the same command goes on"
    if command == "study":
        return f"; the same command goes on, or: advss study run {as_typed(run)}" if run else ""
    if command not in ("fit", "pretrain", "finetune"):
        return "; the same command begins again"
    return f"; go on with: advss {command} --resume {as_typed(run)}" if run else ""


def _run(words: list[str]) -> int:
    from advss.switches import switch_off, take_switch

    without, strict = [], False
    while (name := take_switch(words)) or words[:1] == ["--strict-plugins"]:
        if name:
            without.append(name)
        else:
            strict = bool(words.pop(0))
    if words and words[0] in ("-V", "--version"):
        return _print_version()
    if words and words[0].partition("=")[0] == "--print-completion":
        from advss.cli.complete import print_script

        return print_script(words)
    if not words or words[0] in ("-h", "--help"):
        from advss.cli.help import print_overview

        print_overview()
        return printed()
    from advss.cli.arguments import sort_words

    command, rest = _command(words)
    arguments = sort_words(rest, command.grammar)
    switch_off([*without, *arguments.without])
    arguments.switches |= {"strict-plugins"} if strict else set()
    if "help" in arguments.switches:
        from advss.cli.help import print_help

        print_help(command.grammar, arguments)
        return printed()
    return command.run(arguments)


def _print_version() -> int:
    from importlib.metadata import version

    print(f"advss {version('advss')}")
    return printed()


def _command(words: list[str]) -> tuple[Command, list[str]]:
    """The command that the first words name, and the words after it."""
    from advss.cli.commands import COMMANDS
    from advss.errors import UsageError, did_you_mean

    group = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    of_group = bool(group) and len(words) > 1 and not words[1].startswith("-")
    for length in (2,) if of_group else (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return COMMANDS[name], words[length:]
    if group:
        known = [name.split()[1] for name in group]
        if len(words) == 1:
            raise UsageError(f"`advss {words[0]}` needs one of: {', '.join(known)}")
        raise UsageError(f"unknown command '{words[0]} {words[1]}'{did_you_mean(words[1], known)}")
    firsts = {name.split()[0] for name in COMMANDS}
    raise UsageError(f"unknown command '{words[0]}'{did_you_mean(words[0], firsts)}")


if __name__ == "__main__":
    sys.exit(main())
