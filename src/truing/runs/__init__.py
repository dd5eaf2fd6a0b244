"""The run folder on disk: `Run` reads one, `RunWriter` writes one (append-only, crash-safe,
resumable).
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "append_only_file": "AppendOnlyFile truncate_partial_line",
        "folder": (
            "DataRecord JudgeRecord Manifest Run RunWriter encode_line judgement_file "
            "replace_surrogates"
        ),
        "index": "IdIndex LineSpans ResponseKey SampleKey SampleStore",
    },
)
