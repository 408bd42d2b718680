"""What people read of a measurement, the content of its file: its title, what tells it apart, and its figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from advss.cli.layout import written
from advss.naming import in_words

Content = Mapping[str, Any]
DIGITS = 8  # of a sha256, that tell two apart


def titles_of(contents: Sequence[Content], *, images: bool = False) -> list[str]:
    """The titles of measurements in a table: where several have the same, with all in which these differ.

    Args:
        contents: of their files.
        images: say of how many images each is, too.
    """
    titles = [str(content.get("title") or "") for content in contents]
    alike: dict[str, list[dict[str, str]]] = defaultdict(list)
    known = [_known(content) for content in contents]
    for title, one in zip(titles, known, strict=True):
        alike[title].append(one)
    return [
        ", ".join([title, *_apart(one, alike[title], always=("images",) if images else ())])
        for title, one in zip(titles, known, strict=True)
    ]


def _apart(one: Mapping[str, str], others: Sequence[Mapping[str, str]], *, always: Sequence[str]) -> Iterator[str]:
    """What one has otherwise than another that is called the same."""
    for key, text in one.items():
        if key in always or any(other.get(key) != text for other in others):
            yield text


def _known(content: Content) -> dict[str, str]:
    """All that a measurement is known by, each as a text to read."""
    images, options = (_mapping(content.get(key)) for key in ("images", "options"))
    found = {"images": f"{images['count']} images"} if "count" in images else {}
    found |= {f"options.{name}": f"{name} {written(value)}" for name, value in options.items()}
    found |= {"chunk": f"chunks of {images['chunk']}"} if "chunk" in images else {}
    found |= {key: f"{key} {content[key]}" for key in ("seed", "plugin") if key in content}
    shas = {"data": images.get("data"), "checkpoint": content.get("checkpoint")}
    return found | {key: f"{key} {str(sha)[:DIGITS]}" for key, sha in shas.items() if sha}


def title_of_figure(content: Content, name: str) -> str:
    """What a table calls one of its figures."""
    return str(_mapping(content.get("titles")).get(name) or in_words(name))


def _mapping(value: Any) -> Mapping[str, Any]:
    """A part of a file; empty where it is not of its form."""
    return value if isinstance(value, Mapping) else {}


def accuracies_of(content: Content) -> dict[str, Mapping[str, Any]]:
    """Its accuracies, by name."""
    figures = content["figures"].items()
    return {name: one for name, one in figures if isinstance(one, Mapping) and "interval" in one}
