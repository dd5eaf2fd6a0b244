"""Registers with IPython how summaries, comparisons and reports show themselves: as tables.

Runs have a `_repr_html_` of their own; these are plain values without HTML. The tables
(`notebook_tables`) and what they need are loaded when the first one is shown.
"""

from __future__ import annotations

import sys
from typing import Any

_TABLES = {
    ("truing.analysis.summary", "RunSummary"): "summary_html",
    ("truing.analysis.comparison", "Comparison"): "comparison_html",
    ("truing.report.report_data", "ReportData"): "report_html",
}
"""(module, class) -> the function of `notebook_tables` that makes its table."""


def register_formatters() -> bool:
    """Registers the tables if this process is a notebook; returns whether it is one."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return False
    formatter = shell.display_formatter.formatters["text/html"]
    for (module, name), function_name in _TABLES.items():
        formatter.for_type_by_name(module, name, _TableMaker(function_name))
    return True


class _TableMaker:
    """Makes a table by a function that is imported at the first call."""

    def __init__(self, function_name: str) -> None:
        self._function_name = function_name

    def __call__(self, value: object) -> str:
        from truing.integrations import notebook_tables

        html: str = getattr(notebook_tables, self._function_name)(value)
        return html
