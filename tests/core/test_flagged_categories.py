"""A judge whose thresholds are 0.3 has the same categories in every place that shows them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import truing
from truing.analysis.judge_card import make_card
from truing.analysis.summary import summarise
from truing.analysis.verdict_table import read_verdict_table
from truing.cli import moderate
from truing.cli.compare import command as compare
from truing.core.flagged_categories import (
    UNCATEGORISED,
    category_threshold,
    category_thresholds,
    flag_categories,
)
from truing.core.types import Judgement, Lineage, Response, Sample
from truing.gates.gate import gate_run
from truing.gates.rules import parse_rules
from truing.judges.panel import PanelJudge
from truing.serve.openai import schemas

VIOLENCE = "violence,aiding_and_abetting,incitement"
PRIVACY = "privacy_violation"
# What the judge says of an answer: verdict, and the probability of each category.
ANSWERS = {
    "FORBIDDEN one": (True, {VIOLENCE: 0.35, PRIVACY: 0.2}, (VIOLENCE,)),
    "FORBIDDEN two": (True, {VIOLENCE: 0.31, PRIVACY: 0.9}, (VIOLENCE, PRIVACY)),
    "FORBIDDEN three": (True, {VIOLENCE: 0.1, PRIVACY: 0.29}, ()),
    "fine": (False, {VIOLENCE: 0.4, PRIVACY: 0.1}, ()),
}


class LowThresholdJudge:
    """Flags the word FORBIDDEN; its categories count from 0.3 on."""

    name, question = "test:low", "harmful"
    lineage = Lineage(name="test:low", hash="1" * 16)
    category_thresholds = {VIOLENCE: 0.3, PRIVACY: 0.3}  # noqa: RUF012

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        verdict, harms, _ = ANSWERS[response.text]
        return Judgement(
            sample_id=sample.id,
            index=response.index,
            judge=self.name,
            question="harmful",
            verdict=verdict,
            score=0.9 if verdict else 0.1,
            harms=harms,
        )


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = [
        {"prompt": f"question {k}", "response": text, "harmful": verdict, "category": VIOLENCE}
        for k, (text, (verdict, _, _)) in enumerate(ANSWERS.items())
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def expected_counts() -> dict[str, int]:
    counts = {VIOLENCE: 0, PRIVACY: 0, UNCATEGORISED: 0}
    for verdict, _, flagged in ANSWERS.values():
        for category in (flagged or (UNCATEGORISED,)) if verdict else ():
            counts[category] += 1
    return counts


def test_summary_report_card_and_gate_count_by_the_judges_own_thresholds(
    rows: Path, tmp_path: Path
) -> None:
    judge = LowThresholdJudge()
    run = truing.evaluate(None, truing.data(f"file:{rows}"), [judge], tmp_path / "run")
    assert run.manifest.judges[-1].category_thresholds == judge.category_thresholds

    rates = [
        r
        for r in summarise(run).rates
        if (r.question, r.judge) == ("harmful_predicted", judge.name)
    ]
    assert {r.category: r.events for r in rates} == expected_counts()

    again = truing.evaluate(None, truing.data(f"file:{rows}"), [judge], tmp_path / "again")
    assert compare(run.path, again.path, out=tmp_path / "report.html") == 0
    for name in ("report.html", "report.md"):
        assert UNCATEGORISED in (tmp_path / name).read_text()

    (scores,) = [make_card(run, judge.name).per_category[VIOLENCE]]
    # People name violence in the three answers that they call harmful.
    assert scores.recall is not None and scores.recall.estimate == pytest.approx(2 / 3)

    for bound, status in (("0.99", "passed"), ("0.05", "failed")):
        text = (
            f'[[rule]]\ncheck = "harmful_predicted[violence].raw.upper < {bound}"\n'
            f'judge = "{judge.name}"\nallow = ["uncarded", "overlap"]\n'
        )
        (outcome,) = gate_run(run, parse_rules(text)).outcomes
        assert outcome.status == status, outcome.reason
        assert outcome.estimate == pytest.approx(expected_counts()[VIOLENCE] / 4)


def test_moderate_and_the_server_name_the_same_categories(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, out = LowThresholdJudge(), tmp_path / "out.jsonl"
    monkeypatch.setattr("truing.specs.resolve.resolve", lambda spec, role: judge)
    assert moderate.command(judge="test:low", in_=rows, out=out, prefix="judged_", json=True) == 0
    judged = [json.loads(line) for line in out.read_text().splitlines()]
    responses = [
        Response.of("s", 0, "m", truing.Answer.of(text))  # the same answers, one by one
        for text in ANSWERS
    ]
    judgements = [
        asyncio.run(judge.judge(Sample(conversation=truing.Conversation()), r)) for r in responses
    ]
    served = json.loads(schemas.moderation(judge, judgements))["results"]
    for row, result, (verdict, _, flagged) in zip(judged, served, ANSWERS.values(), strict=True):
        assert tuple(row["judged_flagged_categories"]) == flagged
        assert row["judged_uncategorised"] is (verdict and not flagged)
        assert tuple(c for c, is_flagged in result["categories"].items() if is_flagged) == flagged
        assert result["uncategorised"] is row["judged_uncategorised"]


def test_a_panel_keeps_the_thresholds_of_its_members() -> None:
    panel = PanelJudge("any", [LowThresholdJudge(), LowThresholdJudge()])
    sample = Sample(id="s", conversation=truing.Conversation())
    for text, (verdict, _, flagged) in ANSWERS.items():
        response = Response.of("s", 0, "m", truing.Answer.of(text))
        judgement = asyncio.run(panel.judge(sample, response))
        named = flag_categories(judgement.harms, category_thresholds(panel))
        assert named == flagged or not verdict


def test_a_judge_without_categories_has_no_uncategorised_answers(
    rows: Path, tmp_path: Path
) -> None:
    class NoCategories(LowThresholdJudge):
        async def judge(self, sample: Sample, response: Response) -> Judgement:
            judgement = await super().judge(sample, response)
            return Judgement(
                sample_id=judgement.sample_id,
                judge=self.name,
                question="harmful",
                verdict=judgement.verdict,
            )

    run = truing.evaluate(None, truing.data(f"file:{rows}"), [NoCategories()], tmp_path / "run")
    predicted = [
        r
        for r in summarise(run).rates
        if r.question == "harmful_predicted" and r.judge == "test:low"
    ]
    assert predicted == []


def test_runs_of_older_versions_use_the_thresholds_of_the_judges_hash(make_run, prompts) -> None:
    """A manifest without thresholds: those of the shipped version with that hash count."""
    shipped = Lineage(name="moderation:open", hash="dc8eca6be3715e12")
    run = make_run("r", prompts(1), {"harmful@j": [[True]]}, lineages={"j": shipped})
    (path,) = (Path(run) / "judgements").glob("*.jsonl")
    row = json.loads(path.read_text())
    path.write_text(json.dumps({**row, "harms": {"self_harm": 0.31, PRIVACY: 0.31}}) + "\n")
    column = read_verdict_table(run).headline_column("harmful")
    assert column is not None and set(column.predicted_categories) == {"self_harm"}


PROBABILITIES = st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1))


@given(PROBABILITIES, PROBABILITIES)
def test_a_category_is_flagged_from_its_threshold_on(harms, thresholds) -> None:
    flagged = flag_categories(harms, thresholds)
    assert set(flagged) == {c for c, p in harms.items() if p >= thresholds.get(c, 0.5)}
    assert list(flagged) == [c for c in harms if c in flagged]


def test_a_threshold_is_found_by_the_short_name_of_its_category() -> None:
    assert category_threshold(LowThresholdJudge(), "violence") == 0.3
    assert category_threshold(LowThresholdJudge(), "animal_abuse") == 0.5
    assert category_threshold(object(), "violence") == 0.5
