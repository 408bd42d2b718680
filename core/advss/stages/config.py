"""The run's configuration lives in :mod:`advss.config`; this name stays for the rooms that import it from here."""

from advss.config import Choice, EvalSettings, MemoryFormat, Precision, RunConfig, StageSettings

__all__ = ["Choice", "EvalSettings", "MemoryFormat", "Precision", "RunConfig", "StageSettings"]
