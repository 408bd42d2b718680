"""Shell completion: ``advss --print-completion SHELL`` prints a script that asks ``advss --complete`` what may follow.

Nothing here imports torch or a plugin, and next to nothing where the cache holds.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from advss.cli.candidates import candidates
from advss.cli.vocabulary import make_vocabulary, vocabulary
from advss.output import printed

SHELLS = ("bash", "zsh", "fish")


def print_script(words: Sequence[str]) -> int:
    """``advss --print-completion SHELL``.

    Raises:
        UsageError: another shell.
    """
    from advss.errors import UsageError

    said = words[0].partition("=")[2] or " ".join(words[1:])
    if said not in SHELLS:
        raise UsageError(f"--print-completion: expected {', '.join(SHELLS)}, got '{said}'")
    print((Path(__file__).parent / "scripts" / f"advss.{said}").read_text("utf-8"), end="")
    return printed()


def answer(words: Sequence[str]) -> int:
    """``advss --complete SHELL WORD...``: print what the last word may become, a line each.

    From bash come the line up to the cursor and what bash takes for its last word: bash parts words at = and : too.
    """
    try:
        shell, *typed = words
        cut = 0
        if shell == "bash":
            line, last = typed
            typed = _parted(line)
            cut = len(typed[-1]) - len(last) if typed[-1].endswith(last) else 0
        for word, doc in _offered(typed):
            print(word[cut:] if shell == "bash" else f"{word}\t{' '.join(doc.split())}".rstrip())
    except Exception:  # a prompt is no place for a traceback
        return 1
    return 0


def _parted(line: str) -> list[str]:
    """The words after ``advss``, the last one unfinished, perhaps empty."""
    try:
        words = shlex.split(line)
    except ValueError:  # a quotation that is not closed yet
        words = line.split()
    return words[1:] + ([""] if line[-1:].isspace() else [])


def _offered(typed: list[str]) -> list[tuple[str, str]]:
    try:
        found = list(candidates(typed, vocabulary()))
    except (KeyError, TypeError, AttributeError, ValueError):  # a cache that somebody else wrote
        found = list(candidates(typed, make_vocabulary()))
    return [(word, doc) for word, doc in dict(found).items() if word.startswith(typed[-1])]
