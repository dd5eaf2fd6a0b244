"""What reports state about judges: from a given card, else from the one that ships with truing."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as etree
from importlib.resources import files

import numpy as np
import pytest
from tests.analysis.card_runs import JUDGE, build_labelled_run, set_scores

from truing.analysis.card_files import read_card, write_card
from truing.analysis.judge_card import make_card
from truing.analysis.judge_facts import collect_judge_facts, facts_from_card, shipped_card_facts
from truing.cli.compare import command
from truing.core.types import Lineage
from truing.report.charts.calibration import reliability_diagram
from truing.runs.folder import JudgeRecord
from truing.stats.calibration import ReliabilityBin
from truing.stats.intervals import wilson


def shipped_record(name: str = "moderation:default", judge_hash: str | None = None) -> JudgeRecord:
    path = files("truing") / "resources/weights/moderation/default/card.json"
    card = json.loads(path.read_text())
    lineage = Lineage(name=name, hash=card["judge_hash"] if judge_hash is None else judge_hash)
    return JudgeRecord(name=name, question="harmful", file="x", lineage=lineage)


@pytest.fixture
def card_path(make_run, prompts, tmp_path):
    """The path of a card of j, calibrated by construction, on 300 rows."""
    rng = np.random.default_rng(0)
    p = rng.random(300)
    truth = rng.random(300) < p
    verdicts = [[bool(x >= 0.5)] for x in p]
    run = build_labelled_run(make_run, prompts, verdicts, [[bool(t)] for t in truth])
    set_scores(run, "j", p)
    write_card(make_card(run, "j"), tmp_path / "card.json")
    return tmp_path / "card.json"


def test_a_card_has_a_reliability_diagram(card_path):
    (facts,) = facts_from_card(read_card(card_path))
    assert len(facts.bins) == 10
    assert sum(b.n for b in facts.bins) == 300
    assert facts.ece == pytest.approx(0.05, abs=0.04)
    assert sum(b.rate.lower <= b.confidence <= b.rate.upper for b in facts.bins) >= 8


def test_a_shipped_card_is_for_its_own_version_only():
    (facts,) = shipped_card_facts(shipped_record())
    assert (facts.judge, facts.question) == ("moderation:default", "harmful")
    assert facts.n > 500
    assert 0 < facts.ece < 0.2
    assert facts.sensitivity.lower < facts.sensitivity.estimate
    assert shipped_card_facts(shipped_record(judge_hash="0" * 16)) == []


def test_a_version_is_known_by_its_hash_whatever_it_was_called():
    """Runs of older versions call today's moderation:research `default`, and the free one `open`."""
    for name, judge_hash, n in (
        ("moderation:default", "b86577a67907ff08", 695),
        ("moderation:open", "dc8eca6be3715e12", 1126),
    ):
        (facts,) = shipped_card_facts(shipped_record(name, judge_hash))
        assert (facts.judge, facts.n) == (name, n)


@pytest.mark.parametrize("name", ["rules:refusal", "keywords:"])
def test_other_judges_have_no_shipped_card(name):
    assert shipped_card_facts(shipped_record(name)) == []
    assert shipped_card_facts(shipped_record("moderation:../../x", "../../x")) == []


def test_a_given_card_comes_first_and_each_judge_once(card_path):
    given = facts_from_card(read_card(card_path))
    judge = JudgeRecord(name="j", question="harmful", file="x", lineage=JUDGE)
    records = [judge, shipped_record(), shipped_record()]
    judges = [facts.judge for facts in collect_judge_facts(records, given)]
    assert judges == ["j", "moderation:default"]
    assert collect_judge_facts([judge], []) == []
    assert collect_judge_facts([], given) == []  # the card of a judge that is in no run


def test_the_report_section_needs_a_card(make_run, prompts, card_path, tmp_path):
    runs = [
        make_run(
            name,
            prompts(40),
            {"harmful@j": [[i < harmful] for i in range(40)]},
            lineages={"j": JUDGE},
        )
        for name, harmful in (("a", 20), ("b", 12))
    ]
    assert command(*runs, out=tmp_path / "plain.html") == 0
    assert "How far the judges" not in (tmp_path / "plain.html").read_text()
    assert command(*runs, out=tmp_path / "carded.html", card=[card_path]) == 0
    page = (tmp_path / "carded.html").read_text()
    assert "How far the judges can be trusted" in page
    assert "stated by the judge" in page
    table = (tmp_path / "carded.md").read_text().split("How far the judges")[1]
    assert re.search(r"\| j \| harmful \| 300 of .* \| 0\.0\d\d \|", table)


def test_the_diagram_is_valid_svg_with_hollow_dots_for_few_rows():
    bins = [ReliabilityBin(0.1, wilson(1, 10), 10), ReliabilityBin(0.9, wilson(45, 50), 50)]
    root = etree.fromstring(reliability_diagram(bins, "a <title>"))
    dots = root.findall(".//circle")
    assert ["hollow" in dot.get("class") for dot in dots] == [True, False]
    assert root.find("title").text == "a <title>"
    assert "10 % of 10 confirmed" in dots[0].find("title").text
