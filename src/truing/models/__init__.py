"""models"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "cached_model": "CachedModel",
        "local": "LocalModel",
        "python": "PythonModel",
        "scripted": "ScriptedModel",
    },
)
