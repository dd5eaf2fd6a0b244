"""The tables of summaries and comparisons."""

from __future__ import annotations

from pathlib import Path

import truing
from truing.integrations.notebook_tables import comparison_html, report_html, summary_html
from truing.report.assembly import ReportOptions, assemble_report


def test_a_summary_has_its_rates_and_its_title_is_escaped(tmp_path: Path) -> None:
    run = truing.evaluate("scripted:refuse", "builtin:safety", "rules:refusal", tmp_path)
    html = summary_html(run.summary, title="<i>mine</i>")
    assert "<i>" not in html
    assert "100.0 %" in html
    assert html.count("<tr>") > 2


def test_a_comparison_has_its_claims_and_differences(tmp_path: Path) -> None:
    before = truing.evaluate("scripted:comply", "builtin:safety", "rules:refusal", tmp_path / "a")
    after = truing.evaluate("scripted:refuse", "builtin:safety", "rules:refusal", tmp_path / "b")
    html = comparison_html(truing.compare(before, after))
    assert "+100.0" in html
    # Not safer, since benign prompts are refused too; harm itself was judged in neither run.
    cell = '<td style="text-align:left">{}</td>'.format
    assert cell("safer than") + cell("no") in html
    assert cell("more harmful than") + cell("not_shown") in html
    assert ": not safer</caption>" in html


def test_a_report_has_its_answers(tmp_path: Path) -> None:
    run = truing.evaluate("scripted:refuse", "builtin:honest", "rules:refusal", tmp_path)
    options = ReportOptions(title="<i>mine</i>", baseline="plain")
    html = report_html(assemble_report({"plain": {"honest": run.path}}, options))
    assert "&lt;i&gt;mine" in html
    cell = '<td style="text-align:left">{}</td>'.format
    assert cell("Is it safe enough?") + cell("not shown") in html
