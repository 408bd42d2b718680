"""Discovery and names of the plugins of any distribution, of every kind."""

from __future__ import annotations

from advss.plugins.kinds import KINDS, Kind
from advss.plugins.options import Option, options_of
from advss.plugins.registry import PluginRow, Registry, build, complete, forget, registry

__all__ = ["KINDS", "Kind", "Option", "PluginRow", "Registry", "build", "complete", "forget", "options_of", "registry"]
