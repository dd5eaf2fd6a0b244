"""The run folder on disk: `Run` reads one, `RunWriter` writes one (append-only, crash-safe,
resumable).
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "folder": (
            "AppendOnlyFile DataRecord JudgeRecord Manifest Run RunWriter encode_line "
            "judgement_file replace_file replace_surrogates truncate_partial_line"
        ),
        "index": "IdIndex LineSpans ResponseKey SampleKey SampleStore",
    },
)
