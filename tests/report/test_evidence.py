"""Evidence: figures of runs by the items of a framework, and what was not tested."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
from msgspec.structs import replace

import truing
from truing.core.types import Conversation, Sample
from truing.report.assembly import ReportOptions, assemble_report
from truing.report.evidence import Evidence, collect_evidence_for, describe_fact
from truing.report.evidence_page import render_evidence
from truing.report.frameworks import parse_framework
from truing.report.report_data import ReportData

FRAMEWORK = parse_framework(
    """
name = "x"
title = "X"
source = "https://example.org"
[[item]]
id = "R"
name = "Refusals"
questions = ["refuses_harmful", "abstains"]
[[item]]
id = "P"
name = "Privacy"
categories = ["privacy_violation"]
[[item]]
id = "A"
name = "Attacks"
attacks = true
[[item]]
id = "L"
name = "Limits"
facts = ["limits", "lineage", "data", "evaluation", "claims"]
[[item]]
id = "S"
name = "Size"
provider = true
[[item]]
id = "O"
name = "Other"
outside = "Nobody asks."
""",
    "x.toml",
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    folder = tmp_path_factory.mktemp("runs")
    rows = [
        Sample(
            id=f"s{number}",
            conversation=Conversation.of(f"Question {number}?"),
            expect="refuse" if number % 2 else "comply",
            harms=("privacy_violation",) if number % 4 == 1 else (),
        )
        for number in range(40)
    ]

    def flags_odd(prompt: str) -> bool:
        return prompt.endswith(("1?", "5?"))

    judges = ["rules:refusal", truing.judge(flags_odd, question="harmful")]
    runs = {}
    for name in ("mixed", "refuse"):
        truing.evaluate(f"scripted:{name}", rows, judges, folder / name)
        runs[name] = {"rows": folder / name}
    return assemble_report(runs, ReportOptions(title="t", baseline="mixed"))


@pytest.fixture(scope="module")
def evidence(report: ReportData) -> Evidence:
    return collect_evidence_for(FRAMEWORK, report)


def test_each_item_has_the_figures_of_the_runs_or_is_not_tested(evidence: Evidence) -> None:
    by_id = {item.id: item for item in evidence.items}
    assert {item.id: item.status for item in evidence.items} == {
        "R": "measured",
        "P": "measured",
        "A": "not tested",
        "L": "documented",
        "S": "for the provider to state",
        "O": "not tested",
    }
    assert by_id["R"].gaps == ("abstains when it should",)
    assert by_id["A"].gaps == ("attacks",) and by_id["O"].outside == "Nobody asks."
    refusals = {figure.variant: figure for figure in by_id["R"].figures}
    assert refusals["refuse"].estimate == 1.0 and refusals["refuse"].n == 20
    privacy = {figure.variant: figure for figure in by_id["P"].figures}
    # Prompts 1, 5, 9, ... 37; those that end in 1? or 5? are flagged: 1, 5, 21, 25 of ten.
    assert privacy["mixed"].n == 10 and privacy["mixed"].estimate == pytest.approx(0.4)
    assert privacy["mixed"].lower < 0.4 < privacy["mixed"].upper


def test_figures_that_may_not_be_trusted_are_no_measurement(report: ReportData) -> None:
    variants = [deepcopy(variant) for variant in report.variants]
    for variant in variants:
        for data, summary in variant.summaries.items():
            variant.summaries[data] = replace(summary, complete=False)
    partial = collect_evidence_for(FRAMEWORK, replace(report, variants=tuple(variants)))
    assert {item.id: item.status for item in partial.items}["R"] == "not trusted"
    assert "of a run that is not complete" in render_evidence(partial, Path("."))


@pytest.mark.parametrize("fact", ["lineage", "data", "evaluation", "claims", "limits"])
def test_facts_are_about_these_runs(report: ReportData, fact: str) -> None:
    lines = describe_fact(fact, report)
    assert lines and all(": " in line for line in lines)
    if fact != "data":
        assert any("refuse" in line for line in lines)


def test_the_page_links_each_figure_to_its_run(
    evidence: Evidence, report: ReportData, tmp_path: Path
) -> None:
    page = render_evidence(evidence, tmp_path)
    assert "2 of 6 items have figures" in page and "*Not tested.*" in page
    links = [line.split("](<")[1].split(">)")[0] for line in page.splitlines() if "](<" in line]
    assert len(links) == 4
    assert all((tmp_path / link / "manifest.json").is_file() for link in links)
