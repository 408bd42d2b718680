"""Docstrings as the reference shows them: comments behind attributes too, and reStructuredText's marks as Markdown."""

import ast
import re
from typing import Any

import griffe

COMMENT = re.compile(r"^[^#\"']*(?:\"[^\"]*\"|'[^']*'|[^#\"'])*  # (?P<text>.+)$")
ROLE = re.compile(r":(?:class|func|meth|mod|data):`~?([\w.]+)`")


class Docstrings(griffe.Extension):
    """``x: Tensor  # (B, C, H, W)`` documents x, and ``:class:`Loss``` links to Loss."""

    def on_attribute_instance(self, *, node: ast.AST | griffe.ObjectNode, attr: griffe.Attribute, **_: Any) -> None:
        """Take the comment that ends an attribute's line for its docstring, where it has none."""
        if attr.docstring is None and attr.lineno and attr.parent and attr.parent.is_class:
            found = COMMENT.match(attr.lines_collection[attr.filepath][attr.lineno - 1])
            if found:
                attr.docstring = griffe.Docstring(found["text"], parent=attr)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Turn roles into links once every name is known."""
        _link(pkg)


def _link(found: griffe.Object) -> None:
    if found.docstring:
        text = found.docstring.value.replace("::\n\n", ":\n\n")  # a block that follows is indented in Markdown too
        found.docstring.value = ROLE.sub(lambda role: _linked(found, role[1]), text)
    for member in found.members.values():
        if not member.is_alias:
            _link(member)  # type: ignore[arg-type]


def _linked(found: griffe.Object, name: str) -> str:
    """A link to what ``name`` means where it stands; plain code where it means nothing there."""
    for scope in (name, f"{found.path}.{name}"):
        try:
            path = scope if "." in scope else found.resolve(scope)
            found.modules_collection[path]
        except (griffe.NameResolutionError, KeyError):
            continue
        return f"[`{name}`][{path}]"
    return f"`{name}`"
