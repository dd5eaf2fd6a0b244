"""Data sets: published safety sets and users' files as samples, responses, labels and preferences.

`catalogue.CATALOGUE` lists the published sets. `base.FileDataset` reads the files of a set, and
`readers.read_records` the rows of one file (JSONL, JSON, CSV, TSV, Parquet).
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "catalogue": "CATALOGUE find_available_parts",
        "memory": "MemoryDataset",
        "run_answers": "RunDataset",
    },
)
