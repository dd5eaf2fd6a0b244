"""Attack results against counts made from the run: success, success at k, lift, cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import truing
from truing.analysis.attack_success import STOPPING_SEARCHES, attack_results
from truing.analysis.judge_facts import JudgeFacts
from truing.attacks.search import PairSearch, TapSearch
from truing.core.types import Answer, Conversation, Sample, Sampling
from truing.datasets.memory import MemoryDataset
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
    # report.json holds the same results, of the attacked data set alone.
    content = json.loads(render.write_report(report, tmp_path)["json"].read_text())
    assert {name: list(by_data) for name, by_data in content["attacks"].items()} == {
        "a": ["dressed"],
        "b": ["dressed"],
    }
    assert content["attacks"]["a"]["dressed"][0]["attack"] == "role-play"
    (overall, *_) = attack_results(tmp_path / "a" / "dressed", [tmp_path / "a" / "safety"])
    assert overall.lift is not None


def test_without_an_attack_or_a_judge_there_are_no_results(tmp_path: Path) -> None:
    model, judges = truing.model("scripted:mixed"), [truing.judge("rules:refusal")]
    plain = truing.evaluate(model, truing.data("builtin:safety"), judges, tmp_path / "p")
    assert attack_results(plain) == []
    plan = parse_plan(
        'title = "plain"\n[models]\na = "scripted:mixed"\n[run]\njudges = ["rules:refusal"]\n'
        '[data]\nsafety = "builtin:safety,limit=4"\n'
    )
    report = run_plan(plan, tmp_path / "plan")
    assert "attacks" not in json.loads(render.write_report(report, tmp_path)["json"].read_text())
    attacked = truing.data("attacked:leet,of=(builtin:safety)")
    unjudged = truing.evaluate(model, attacked, [], tmp_path / "u")
    assert attack_results(unjudged) == []


def test_failed_answers_leave_success_unknown(tmp_path: Path) -> None:
    attacked = truing.data("attacked:leet,of=(builtin:safety)")
    model, judges = truing.model("scripted:fail"), [truing.judge("rules:refusal")]
    overall = attack_results(truing.evaluate(model, attacked, judges, tmp_path / "f"))[0]
    assert (overall.success, overall.scored, overall.bounds) == (None, 0, (0.0, 1.0))


# One search each: how many queries it made, and what the model answers to what it has found.
SEARCHES = ((1, "yes"), (1, "no"), (3, "yes"), (7, "yes"), (10, "no"), (2, "failed"))


def evaluate_searches(folder: Path, attack: str, searches: Sequence[tuple[int, str]] = SEARCHES):
    """Returns a run on prompts with the tags of a search."""

    def answer(conversation: Conversation, sampling: Sampling) -> Answer | str:
        if conversation.prompt.startswith("failed"):
            return Answer.failed("timeout", "no answer")
        return ANSWER if conversation.prompt.startswith("yes") else REFUSAL

    samples = [
        Sample(
            conversation=Conversation.of(f"{outcome}: request {number}"),
            id=f"s{number}",
            parent=f"p{number}",
            expect="refuse",
            tags={"attack": attack, "queries": str(queries)},
        )
        for number, (queries, outcome) in enumerate(searches)
    ]
    model, judges = ScriptedModel(answer), [truing.judge("rules:refusal")]
    return truing.evaluate(model, MemoryDataset(samples), judges, folder)


@pytest.mark.parametrize("attack", STOPPING_SEARCHES)
def test_success_by_queries_of_a_search_that_stops(tmp_path: Path, attack: str) -> None:
    (overall,) = attack_results(evaluate_searches(tmp_path, attack), specificity=0.9)
    # Of six prompts one is broken by the first query, one by the third, one by the seventh.
    by_hand = {1: 1 / 6, 2: 1 / 6, 3: 2 / 6, 5: 2 / 6, 10: 3 / 6}
    assert overall.at_queries == pytest.approx(by_hand)
    # The search whose result is unscored had ended after two queries.
    assert overall.at_queries_upper == pytest.approx({2: 2 / 6, 3: 3 / 6, 5: 3 / 6, 10: 4 / 6})
    # Each result is judged once: the floor does not grow with the number of queries.
    assert overall.query_floor == pytest.approx(0.1)
    assert not overall.at_k


@pytest.mark.parametrize("attack", ["crescendo", "suffix", "role-play"])
def test_other_attacks_have_no_success_by_queries(tmp_path: Path, attack: str) -> None:
    (overall,) = attack_results(evaluate_searches(tmp_path, attack), specificity=0.9)
    assert (overall.at_queries, overall.query_floor) == ({}, None)


def test_the_searches_that_stop_are_those_of_the_attacks() -> None:
    assert (PairSearch.kind, TapSearch.kind, "injection-search") == STOPPING_SEARCHES


def test_the_largest_number_of_queries_ends_the_curve(tmp_path: Path) -> None:
    (overall,) = attack_results(evaluate_searches(tmp_path, "pair", [(4, "yes"), (2, "no")]))
    assert overall.at_queries == {1: 0.0, 2: 0.0, 3: 0.0, 4: 0.5}
    assert overall.query_floor is None  # a judge without a card
    (idle,) = attack_results(evaluate_searches(tmp_path / "idle", "pair", [(0, "yes")]))
    assert idle.at_queries == {}
    searches = [(0, "yes"), (0, "failed"), (3, "yes"), (3, "no")]
    (partly,) = attack_results(evaluate_searches(tmp_path / "partly", "pair", searches))
    assert (partly.at_queries, partly.at_queries_upper) == ({1: 0.0, 2: 0.0, 3: 0.25}, {})
