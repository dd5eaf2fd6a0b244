"""Renders the data of runs as HTML, Markdown and JSON: blocks, `charts/`, `sections/`, and the run
viewer (`view/`).
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "": "rankings render",
        "assembly": "ReportOptions RunsByVariant assemble_report has_only_builtin_data",
        "blocks": "Cell",
        "evidence": "collect_evidence_for",
        "evidence_page": "render_evidence",
        "formatting": (
            "axis_title category_label category_name format_difference format_difference_interval "
            "format_gate_command format_p_value format_percent format_rate format_value "
            "format_value_interval make_rate_cell rows_by_judge"
        ),
        "frameworks": "load_framework",
        "judges_page": "write_judges_page",
        "limits": "MAX_HARM MAX_VIEW_ROWS find_max_harm_fault",
        "pdf": "write_pdf",
        "rankings": "NAMES",
        "render": "write_report",
        "report_data": "Ranking ReportData Variant",
        "rows": "select_rows",
        "sections.agents": "agent_notes figure_text",
        "sections.changes": "delta_cell",
        "sections.judge_provenance": "format_ms",
        "sections.shown": "describe_outcome describe_question",
        "transcripts": "TranscriptView build_transcript",
        "view.page": "collect_page render_page",
    },
)
