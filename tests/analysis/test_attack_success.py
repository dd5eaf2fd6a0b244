"""Attack results against counts made from the run: success, success at k, lift, cost."""

from __future__ import annotations

from pathlib import Path

import pytest

import truing
from truing.analysis.attack_success import attack_results
from truing.analysis.judge_facts import JudgeFacts
from truing.core.types import Conversation, Sample, Sampling
from truing.models.scripted import ScriptedModel
from truing.plan import parse_plan, run_plan
from truing.report import render
from truing.report.sections.attacks import build_section
from truing.stats.attempts import hit_at_k
from truing.stats.intervals import Interval

REFUSAL = "Sorry, I can't help with this one."
ANSWER = "Sure. Start small, ask people, write down what you learn."


def complies(prompt: str) -> bool:
    """Whether the scripted model answers: arbitrary, but different for dressed-up prompts."""
    return len(prompt) % 3 == 0


def reply(conversation: Conversation, sampling: Sampling) -> str:
    return ANSWER if complies(conversation.prompt) else REFUSAL


def evaluate_attack(tmp_path: Path, attack: str, judge: str = "rules:refusal"):
    """Returns the data set and the run of an attack on the built-in prompts."""
    data = truing.data(f"attacked:{attack},of=(builtin:safety)")
    judges = [truing.judge(judge)]
    return data, truing.evaluate(ScriptedModel(reply, version="1"), data, judges, tmp_path / "r")


def test_success_lift_and_cost_are_counts_of_the_run(tmp_path: Path) -> None:
    data, run = evaluate_attack(tmp_path, "role-play")
    results = attack_results(run)
    overall = next(r for r in results if r.category is None)
    samples = {row.sample.id: row.sample for row in data.rows()}
    attacked = [
        sample
        for sample in samples.values()
        if "attack" in sample.tags and not sample.tags["attack"].startswith("skipped")
    ]
    hits = sum(complies(sample.prompt) for sample in attacked)
    plain_hits = sum(complies(samples[str(sample.parent)].prompt) for sample in attacked)
    n = len(attacked)
    assert (overall.attack, overall.question, overall.judge) == (
        "role-play",
        "complied",
        "rules:refusal",
    )
    assert (overall.prompts, overall.tries, overall.hits, overall.pairs) == (n, n, hits, n)
    assert overall.success is not None
    assert overall.success.estimate == pytest.approx(hits / n)
    assert overall.lift is not None
    assert overall.lift.estimate == pytest.approx((hits - plain_hits) / n)
    assert overall.lift.lower < overall.lift.estimate < overall.lift.upper
    assert overall.queries == pytest.approx(n / hits)
    assert not overall.at_k  # one try per prompt
    assert sum(r.hits for r in results if r.category) >= hits  # a prompt may have two categories


def test_success_at_k_and_its_floor(tmp_path: Path) -> None:
    data, run = evaluate_attack(tmp_path, "shuffle,tries=5")
    overall = next(r for r in attack_results(run, specificity=0.9) if r.category is None)
    hits: dict[str, int] = {}
    for row in data.rows():
        sample: Sample = row.sample
        if sample.tags.get("attack") == "shuffle":
            hits[str(sample.parent)] = hits.get(str(sample.parent), 0) + complies(sample.prompt)
    assert overall.tries == 5 * overall.prompts
    assert set(overall.at_k) == {1, 2, 3, 5}
    assert overall.at_k_prompts == dict.fromkeys((1, 2, 3, 5), overall.prompts)
    for k, value in overall.at_k.items():
        assert value == pytest.approx(sum(hit_at_k(5, c, k) for c in hits.values()) / len(hits))
    assert overall.floor[3] == pytest.approx(1 - 0.9**3)
    assert overall.success is not None
    assert overall.success.method.startswith("cluster")


def test_the_floor_of_a_shipped_judge_comes_from_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = evaluate_attack(tmp_path, "shuffle,tries=2", judge="keywords:")
    assert not attack_results(run)[0].floor  # a judge without a card
    facts = JudgeFacts(
        judge="keywords:",
        question="harmful",
        data="d",
        n=9,
        specificity=Interval(0.8, 0.7, 0.9, "wilson"),
    )
    monkeypatch.setattr("truing.analysis.attack_success.shipped_card_facts", lambda record: [facts])
    assert attack_results(run)[0].floor == pytest.approx({1: 0.2, 2: 1 - 0.8**2})
    assert attack_results(run, specificity=0.5)[0].floor[1] == 0.5  # the argument comes first


def test_a_plan_with_an_attack_has_a_report_section(tmp_path: Path) -> None:
    plan = parse_plan(
        'title = "attacked"\n[models]\na = "scripted:mixed"\nb = "scripted:refuse"\n'
        '[run]\njudges = ["rules:refusal"]\n[data.safety]\nspec = "builtin:safety"\n'
        '[data.dressed]\nspec = "builtin:safety"\nattack = "role-play"\n'
    )
    report = run_plan(plan, tmp_path)
    assert build_section(report) is not None
    markdown = render.render_markdown(report)
    assert "## Attacks" in markdown
    assert "against the plain prompt" in markdown
    assert "role-play" in markdown
    (overall, *_) = attack_results(tmp_path / "a" / "dressed", [tmp_path / "a" / "safety"])
    assert overall.lift is not None


def test_without_an_attack_or_a_judge_there_are_no_results(tmp_path: Path) -> None:
    model, judges = truing.model("scripted:mixed"), [truing.judge("rules:refusal")]
    plain = truing.evaluate(model, truing.data("builtin:safety"), judges, tmp_path / "p")
    assert attack_results(plain) == []
    attacked = truing.data("attacked:leet,of=(builtin:safety)")
    unjudged = truing.evaluate(model, attacked, [], tmp_path / "u")
    assert attack_results(unjudged) == []


def test_failed_answers_leave_success_unknown(tmp_path: Path) -> None:
    attacked = truing.data("attacked:leet,of=(builtin:safety)")
    model, judges = truing.model("scripted:fail"), [truing.judge("rules:refusal")]
    overall = attack_results(truing.evaluate(model, attacked, judges, tmp_path / "f"))[0]
    assert (overall.success, overall.scored, overall.bounds) == (None, 0, (0.0, 1.0))
