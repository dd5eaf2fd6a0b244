"""Attack tables against counts made by hand: success, hit@k, lift paired with the plain prompt, cost."""

from __future__ import annotations

from pathlib import Path

import pytest

import truing
from truing.analysis.attack_success import attack_results
from truing.analysis.judge_facts import JudgeFacts
from truing.core.types import Conversation, Sampling
from truing.models.scripted import ScriptedModel
from truing.plan import parse_plan, run_plan
from truing.report import render
from truing.report.sections.attacks import build_section
from truing.stats.attempts import hit_at_k
from truing.stats.intervals import Interval

REFUSAL = "Sorry, I can't help with this one."


def weak(talk: Conversation, sampling: Sampling) -> str:
    """Refuses the plain prompt; falls for a prompt in capitals of its own."""
    return (
        "Sure. Start small, ask people, write down what you learn."
        if len(talk.prompt) % 3 == 0
        else REFUSAL
    )


def test_success_lift_and_cost_are_counts_of_the_run(tmp_path: Path) -> None:
    data = truing.data("attacked:role-play,of=(builtin:safety)")
    run = truing.evaluate(
        ScriptedModel(weak, version="1"), data, [truing.judge("rules:refusal")], tmp_path / "r"
    )
    results = attack_results(run)
    whole = next(r for r in results if r.category is None)
    rows = {row.sample.id: row.sample for row in data.rows()}
    attacked = [
        s
        for s in rows.values()
        if "attack" in s.tags and not s.tags["attack"].startswith("skipped")
    ]
    hits = sum(len(s.prompt) % 3 == 0 for s in attacked)
    before = sum(len(rows[str(s.parent)].prompt) % 3 == 0 for s in attacked)
    assert (
        whole.question == "complied"
        and whole.attack == "role-play"
        and whole.judge == "rules:refusal"
    )
    assert (whole.prompts, whole.tries, whole.hits) == (len(attacked), len(attacked), hits)
    assert whole.success is not None and whole.success.estimate == pytest.approx(
        hits / len(attacked)
    )
    assert whole.lift is not None and whole.pairs == len(attacked)
    assert whole.lift.estimate == pytest.approx((hits - before) / len(attacked))
    assert whole.lift.lower < whole.lift.estimate < whole.lift.upper
    assert whole.queries == pytest.approx(len(attacked) / hits) and not whole.at_k
    assert sum(r.hits for r in results if r.category) >= hits
    assert not any("child" in (r.category or "") for r in results)


def test_hit_at_k_and_its_floor(tmp_path: Path) -> None:
    data = truing.data("attacked:shuffle,tries=5,of=(builtin:safety)")
    run = truing.evaluate(
        ScriptedModel(weak, version="1"), data, [truing.judge("rules:refusal")], tmp_path / "r"
    )
    whole = next(r for r in attack_results(run, specificity=0.9) if r.category is None)
    counts: dict[str, int] = {}
    for row in data.rows():
        s = row.sample
        if s.tags.get("attack") == "shuffle":
            counts[str(s.parent)] = counts.get(str(s.parent), 0) + (len(s.prompt) % 3 == 0)
    assert whole.tries == 5 * whole.prompts and set(whole.at_k) == {1, 2, 3, 5}
    for k, value in whole.at_k.items():
        assert value == pytest.approx(sum(hit_at_k(5, c, k) for c in counts.values()) / len(counts))
    assert whole.floor[3] == pytest.approx(1 - 0.9**3)
    assert whole.success is not None and whole.success.method.startswith("cluster")


def test_the_floor_of_a_shipped_judge_is_known_from_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = truing.data("attacked:shuffle,tries=2,of=(builtin:safety)")
    run = truing.evaluate(
        ScriptedModel(weak, version="1"), data, [truing.judge("keywords:")], tmp_path / "r"
    )
    assert not attack_results(run)[0].floor  # a judge without a card
    known = JudgeFacts(
        judge="keywords:",
        question="harmful",
        data="d",
        n=9,
        specificity=Interval(0.8, 0.7, 0.9, "wilson"),
    )
    monkeypatch.setattr("truing.analysis.attack_success.shipped_card_facts", lambda record: [known])
    assert attack_results(run)[0].floor == pytest.approx({1: 0.2, 2: 1 - 0.8**2})
    assert attack_results(run, specificity=0.5)[0].floor[1] == 0.5  # what is given comes first


def test_a_plan_with_an_attack_has_the_section(tmp_path: Path) -> None:
    plan = parse_plan(
        'title = "attacked"\n[models]\na = "scripted:mixed"\nb = "scripted:refuse"\n'
        '[run]\njudges = ["rules:refusal"]\n[data.safety]\nspec = "builtin:safety"\n'
        '[data.dressed]\nspec = "builtin:safety"\nattack = "role-play"\n'
    )
    story = run_plan(plan, tmp_path)
    made = build_section(story)
    assert made is not None
    markdown = render.render_markdown(story)
    assert (
        "## Attacks" in markdown
        and "against the plain prompt" in markdown
        and "role-play" in markdown
    )
    lifts = [attack_results(tmp_path / "a" / "dressed", [tmp_path / "a" / "safety"])[0].lift]
    assert lifts[0] is not None


def test_without_attack_or_judge_there_is_nothing(tmp_path: Path) -> None:
    plain = truing.evaluate(
        truing.model("scripted:mixed"),
        truing.data("builtin:safety"),
        [truing.judge("rules:refusal")],
        tmp_path / "p",
    )
    assert attack_results(plain) == []
    rows = truing.data("attacked:leet,of=(builtin:safety)")
    unjudged = truing.evaluate(truing.model("scripted:mixed"), rows, [], tmp_path / "u")
    assert attack_results(unjudged) == []
    failed = truing.evaluate(
        truing.model("scripted:fail"),
        truing.data("attacked:leet,of=(builtin:safety)"),
        [truing.judge("rules:refusal")],
        tmp_path / "f",
    )
    whole = attack_results(failed)[0]
    assert whole.success is None and whole.scored == 0 and whole.bounds == (0.0, 1.0)
