"""From run folders to the data of a report."""

from __future__ import annotations

from pathlib import Path

from truing.plan import parse_plan, run_plan
from truing.report.assembly import ReportOptions, assemble_report, has_only_builtin_data
from truing.runs.folder import Run

PLAN = """
[models]
plain = "scripted:comply"
never = "scripted:refuse"
[run]
judges = ["rules:refusal"]
limit = 12
[data]
safety = "builtin:safety"
honest = {spec = "builtin:honest", models = ["plain"]}
"""


def test_variants_are_compared_on_the_data_that_they_share(tmp_path: Path) -> None:
    run_plan(parse_plan(PLAN), tmp_path)
    runs = {
        "plain": {"safety": tmp_path / "plain" / "safety", "honest": tmp_path / "plain" / "honest"},
        "never": {"safety": tmp_path / "never" / "safety"},
    }
    report = assemble_report(runs, ReportOptions(title="shared", baseline="plain"))
    assert report.data == ("safety", "honest")
    assert {name: list(by_data) for name, by_data in report.comparisons.items()} == {
        "never": ["safety"]
    }
    assert report.claims == tuple(report.comparisons["never"]["safety"].claims)
    assert report.with_text  # built-in prompts are mild
    assert has_only_builtin_data(Run(runs["plain"]["safety"]))
