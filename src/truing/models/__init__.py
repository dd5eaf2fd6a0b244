"""models"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "cached_model": "CachedModel",
        "local": "LocalModel",
        "python": "PythonModel",
        "recorded": (
            "RecordedSampling RecordingFile ReplayedModel VariantOrigin find_recording_mark "
            "read_recording"
        ),
        "scripted": "ScriptedModel",
    },
)
