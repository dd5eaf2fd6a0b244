"""What a report says of its judges: from the card that was given, else from the one that ships with that very version."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as etree
from importlib.resources import files

import numpy as np
import pytest

from truing.analysis.judge_card import make_card, read_card, write_card
from truing.analysis.judge_facts import collect_judge_facts, facts_from_card, shipped_card_facts
from truing.cli.compare import command
from truing.core.types import Lineage
from truing.report.charts.calibration import reliability_diagram
from truing.runs.folder import JudgeRecord
from truing.stats.calibration import ReliabilityBin
from truing.stats.intervals import wilson

JUDGE = Lineage(name="j", hash="1" * 16)


def shipped_record(
    name: str = "moderation:default", question: str = "harmful", hash_: str | None = None
) -> JudgeRecord:
    card = json.loads(
        (files("truing") / "resources/weights/moderation/default/card.json").read_text()
    )
    line = Lineage(name=name, hash=card["judge_hash"] if hash_ is None else hash_)
    return JudgeRecord(name=name, question=question, file="x", lineage=line)


@pytest.fixture
def card(make_run, prompts, tmp_path):
    rng = np.random.default_rng(0)
    p = rng.random(300)
    truth = rng.random(300) < p  # calibrated on purpose
    run = make_run(
        "set",
        prompts(300),
        {"harmful@j": [[bool(x >= 0.5)] for x in p], "harmful@human:a": [[bool(t)] for t in truth]},
        lineages={"j": JUDGE},
    )
    record = next(
        r for r in json.loads((run / "manifest.json").read_bytes())["judges"] if r["name"] == "j"
    )
    rows = [json.loads(line) for line in (run / record["file"]).read_bytes().splitlines()]
    (run / record["file"]).write_text(
        "".join(json.dumps(r | {"score": float(x)}) + "\n" for r, x in zip(rows, p))
    )
    write_card(make_card(run, "j"), tmp_path / "card.json")
    return tmp_path / "card.json"


def test_a_card_holds_its_reliability_diagram(card):
    (fact,) = facts_from_card(read_card(card))
    assert len(fact.bins) == 10 and sum(b.n for b in fact.bins) == 300
    assert fact.ece == pytest.approx(0.05, abs=0.04)
    assert sum(b.rate.lower <= b.confidence <= b.rate.upper for b in fact.bins) >= 8


def test_a_shipped_card_speaks_for_its_own_version_alone():
    (fact,) = shipped_card_facts(shipped_record())
    assert (fact.judge, fact.question) == ("moderation:default", "harmful") and fact.n > 500
    assert 0 < fact.ece < 0.2 and fact.sensitivity.lower < fact.sensitivity.estimate
    assert shipped_card_facts(shipped_record(hash_="0" * 16)) == []
    for name in ("moderation:../../x", "moderation:nothing", "rules:refusal", "moderation:"):
        assert shipped_card_facts(shipped_record(name)) == []


def test_a_card_that_was_given_comes_first_and_each_judge_once(card):
    given = facts_from_card(read_card(card))
    records = [
        JudgeRecord(name="j", question="harmful", file="x", lineage=JUDGE),
        shipped_record(),
        shipped_record(),
    ]
    assert [f.judge for f in collect_judge_facts(records, given)] == ["j", "moderation:default"]
    assert collect_judge_facts(records[:1], []) == []
    assert collect_judge_facts([], given) == []  # a card of a judge that is in no run


def test_the_section_stands_where_there_is_something_to_show(make_run, prompts, card, tmp_path):
    runs = [
        make_run(
            n, prompts(40), {"harmful@j": [[k < hits] for k in range(40)]}, lineages={"j": JUDGE}
        )
        for n, hits in (("a", 20), ("b", 12))
    ]
    assert command(*runs, out=tmp_path / "plain.html") == 0
    assert "How far the judges" not in (tmp_path / "plain.html").read_text()
    assert command(*runs, out=tmp_path / "carded.html", card=[card]) == 0
    page = (tmp_path / "carded.html").read_text()
    assert "How far the judges can be trusted" in page and "stated by the judge" in page
    table = (tmp_path / "carded.md").read_text().split("How far the judges")[1]
    assert re.search(r"\| j \| harmful \| 300 of .* \| 0\.0\d\d \|", table)


def test_the_diagram_is_valid_svg_with_hollow_dots_for_few_rows():
    made = reliability_diagram(
        [ReliabilityBin(0.1, wilson(1, 10), 10), ReliabilityBin(0.9, wilson(45, 50), 50)],
        "a <title>",
    )
    root = etree.fromstring(made)
    dots = root.findall(".//circle")
    assert ["hollow" in d.get("class") for d in dots] == [True, False]
    assert (
        root.find("title").text == "a <title>"
        and "10 % of 10 confirmed" in dots[0].find("title").text
    )
