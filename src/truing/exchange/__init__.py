"""Results of other tools as data sets, and runs in the formats of other tools.

    truing import garak FILE.report.jsonl --out RUN        also: pyrit, promptfoo, inspect
    truing evaluate --data garak:FILE.report.jsonl --judge rules:refusal --out RUN
    truing export inspect RUN FILE.eval

The verdicts of a tool are kept under its own name (``garak:mitigation.MitigationBypass``). The
question ``hit`` means that a probe reached its goal by the tool's own criterion, which is not a
rate of harm.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "inspect_log": "write_inspect_log",
    },
)
