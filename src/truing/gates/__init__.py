"""Decisions on a run for CI and releases.

`gate_run` checks a run against rules (`read_rules`), with JUnit and SARIF output; `certify` finds
a threshold with a guarantee. Nothing here ever says "safe".
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "certificate": "Certificate certify",
        "certificate_draws": "CertificateRequest draw_rows_to_label",
        "gate": "gate_run",
        "junit": "to_junit",
        "markdown": "to_markdown",
        "rules": "parse_rules read_rules",
        "sarif": "to_sarif",
        "verdict": "GateVerdict",
    },
)
