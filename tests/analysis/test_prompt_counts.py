"""Verdicts counted by prompt: repeated prompts, recorded sets, attacks on one prompt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.analysis.attack_success import attack_results
from truing.analysis.comparison import compare
from truing.analysis.deltas import PairCounts
from truing.analysis.prompt_counts import (
    PromptCounts,
    RateCounts,
    category_masks,
    count_prompts,
    row_groups,
)
from truing.analysis.summary import summarise
from truing.analysis.verdict_table import ABSENT, NO, SKIPPED, UNSCORED, YES, read_verdict_table
from truing.core.types import Conversation, Message, Sample
from truing.stats.intervals import clustered_wilson, wilson


def counts(events, scored, rows) -> PromptCounts:
    return PromptCounts(*(np.asarray(values, np.int64) for values in (events, scored, rows)))


def sample(i: int, text: str, **fields) -> Sample:
    return Sample(id=f"s{i}", conversation=Conversation.of(text), expect="refuse", **fields)


def test_rate_counts_by_hand():
    rate = RateCounts(counts([1, 1, 0, 0], [2, 2, 1, 0], [2, 2, 2, 0]))
    assert (rate.n, rate.scored, rate.events, rate.prompts) == (6, 5, 2, 3)
    assert rate.interval() == clustered_wilson([1, 1, 0], [2, 2, 1])
    single = RateCounts(counts([1, 0, 0, 0], [1] * 4, [1] * 4))
    assert single.interval() == wilson(1, 4)
    assert RateCounts(counts([0], [0], [3])).interval() is None


def test_samples_with_one_prompt_are_one_cluster(make_run):
    # Recorded sets repeat prompts; spelling that `normalise_prompt` ignores does not count.
    texts = ["Who are you?", "who  are you", "Something else", "Who are you?"]
    run = make_run(
        "r",
        [sample(i, text) for i, text in enumerate(texts)],
        {"harmful": [[True], [True], [False], [None]]},
    )
    table = read_verdict_table(run)
    assert list(table.prompt_ids) == [0, 0, 1, 0]
    rate = summarise(run).find("harmful")
    assert (rate.n, rate.scored, rate.prompts) == (4, 3, 2)
    assert rate.raw == clustered_wilson([2, 0], [2, 1])


def test_other_turns_before_the_same_last_message_make_another_prompt(make_run):
    def talk(*texts: str) -> Conversation:
        roles = ("user", "assistant") * 2
        return Conversation(tuple(Message(role, t) for role, t in zip(roles, texts)))

    samples = [
        Sample(id="a", conversation=talk("tell me about tea", "it is a drink", "go on")),
        Sample(id="b", conversation=talk("tell me about rain", "it is water", "go on")),
        Sample(id="c", conversation=talk("tell me about tea", "a plant", "go on")),
        Sample(id="d", conversation=Conversation()),
        Sample(id="e", conversation=Conversation()),  # nothing was said: the id stands for it
    ]
    run = make_run("r", samples, {"harmful": [[True]] * 5})
    assert list(read_verdict_table(run).prompt_ids) == [0, 1, 0, 2, 3]


def attacked_run(make_run, name="r"):
    """Two plain prompts, of which an attack made three each, all of them successful."""
    samples = [sample(i, f"plain {i}") for i in range(2)]
    samples += [
        Sample(
            id=f"s{i % 2}~{i}",
            conversation=Conversation.of(f"dressed up {i}"),
            expect="refuse",
            parent=f"s{i % 2}",
            tags={"attack": "dress"},
        )
        for i in range(6)
    ]
    return make_run(name, samples, {"harmful": [[False]] * 2 + [[True]] * 6})


def test_plain_and_attacked_rows_are_not_pooled(make_run):
    run = attacked_run(make_run)
    table = read_verdict_table(run)
    assert list(table.prompt_ids) == [0, 1, 0, 1, 0, 1, 0, 1]
    assert row_groups(table) == ("attacked", "plain")
    by_group = {
        rate.group: (rate.events, rate.n, rate.prompts)
        for rate in summarise(run).axes
        if rate.question == "attack_success" and rate.category is None
    }
    assert by_group == {"attacked": (6, 6, 2), "plain": (0, 2, 2)}
    assert summarise(run).find("attack_success").group == "attacked"
    deltas = compare(run, attacked_run(make_run, "b")).deltas
    harm = {d.group: d.n_pairs for d in deltas if d.question == "harmful" and not d.category}
    assert harm == {"attacked": 2, "plain": 2}


def test_a_parent_outside_the_run_is_found_in_its_file_or_by_its_id(make_run):
    samples = [
        Sample(id=f"x{i}", conversation=Conversation.of(f"t {i}"), parent=parent)
        for i, parent in enumerate(("p", "q", "p", "gone", "gone"))
    ]
    run = make_run("r", samples, {"harmful": [[True]] * 5})
    lines = [
        '{"id": "p", "conversation": {"messages": [{"role": "user", "content": "one text"}]}}',
        '{"id": "q", "conversation": {"messages": [{"role": "user", "content": "One text!"}]}}',
    ]
    (run / "parents.jsonl").write_text("\n".join(lines) + "\n")
    assert list(read_verdict_table(run).prompt_ids) == [0, 0, 0, 1, 1]


def test_attacks_on_benign_prompts_are_no_tries(make_run):
    def attacked(i: int, expect: str) -> Sample:
        return Sample(
            id=f"{expect}{i}~",
            conversation=Conversation.of(f"dressed up {expect} {i}"),
            expect=expect,
            parent=f"{expect}{i}",
            tags={"attack": "dress"},
        )

    samples = [attacked(i, expect) for expect in ("refuse", "comply") for i in range(3)]
    run = make_run("r", samples, {"harmful": [[True]] * 3 + [[False]] * 3})
    (overall,) = attack_results(run)
    assert (overall.tries, overall.hits, overall.prompts) == (3, 3, 3)


def test_prompts_with_fewer_tries_stay_in_success_at_k(make_run):
    # One prompt of five tries with one hit; one that stopped at its first hit; one that gave up.
    tries = {"a": [True, False, False, False, False], "b": [False, True], "c": [False]}
    samples = [
        Sample(
            id=f"{parent}{i}",
            conversation=Conversation.of(f"{parent} {i}"),
            parent=parent,
            tags={"attack": "dress"},
        )
        for parent, verdicts in tries.items()
        for i in range(len(verdicts))
    ]
    verdicts = [[verdict] for of_prompt in tries.values() for verdict in of_prompt]
    (overall,) = attack_results(make_run("r", samples, {"harmful": verdicts}))
    assert overall.at_k[1] == pytest.approx((1 / 5 + 1 / 2 + 0) / 3)
    assert overall.at_k[3] == pytest.approx((3 / 5 + 1 + 0) / 3)
    assert overall.at_k_upper == pytest.approx({k: overall.at_k[k] + 1 / 3 for k in (2, 3, 5)})


def test_category_masks_follow_the_rules_of_axes_and_of_plain_rates(make_run):
    samples = [
        Sample(
            id="h", conversation=Conversation.of("h"), expect="refuse", harms=("x", "y"), pair="p"
        ),
        Sample(id="b", conversation=Conversation.of("b"), expect="comply", pair="p"),
    ]
    table = read_verdict_table(make_run("r", samples, {"harmful": [[True], [False]]}))
    plain, axis = category_masks(table, axis=False), category_masks(table, axis=True)
    assert {c: m.tolist() for c, m in plain.items()} == {
        None: [True, True],
        "x": [True, False],
        "y": [True, False],
    }
    assert axis["x"].tolist() == [True, True]


codes_of_prompt = st.lists(st.sampled_from([ABSENT, NO, YES, UNSCORED, SKIPPED]), max_size=4)


@given(st.lists(st.tuples(codes_of_prompt, codes_of_prompt), min_size=1, max_size=8))
def test_a_change_does_not_depend_on_how_often_a_prompt_was_asked(rows):
    """Duplicating the answers to one prompt, in both runs, leaves the point estimate."""

    def pair(times: int) -> PairCounts:
        def of(side: int) -> PromptCounts:
            repeated = [r[side] * (times if i == 0 else 1) for i, r in enumerate(rows)]
            yes = [codes.count(YES) for codes in repeated]
            scored = [codes.count(YES) + codes.count(NO) for codes in repeated]
            return counts(
                yes, scored, [s + codes.count(UNSCORED) for s, codes in zip(scored, repeated)]
            )

        return PairCounts(of(0), of(1))

    once, thrice = pair(1), pair(3)
    assert (once.paired == thrice.paired).all()
    if once.paired.any():
        assert once.interval().estimate == pytest.approx(thrice.interval().estimate)
        lower, upper = once.worst_case()
        assert lower <= upper


def test_counts_equal_a_plain_loop(make_run, prompts):
    rng = np.random.default_rng(3)
    verdicts = [[[True, False, None][k] for k in rng.integers(0, 3, 3)] for _ in range(50)]
    run = make_run("r", prompts(50), {"harmful": verdicts})
    table = read_verdict_table(run)
    codes = [bytes(c) for c in table.headline_column("harmful").codes]
    by_prompt = count_prompts(table, codes)
    assert by_prompt.events.tolist() == [row.count(True) for row in verdicts]
    assert by_prompt.rows.tolist() == [3] * 50
    assert by_prompt.unscored.tolist() == [row.count(None) for row in verdicts]


@pytest.mark.parametrize("icc", [0.5])
def test_attack_tries_at_one_prompt_do_not_narrow_the_interval(icc):
    """84 prompts of 25 tries at an intraclass correlation of 0.5: the interval covers.

    As independent rows 36 % of the intervals would.
    """
    rng = np.random.default_rng(20261129)
    covered, draws = 0, 300
    # Beta with this intraclass correlation around a mean of 0.3.
    a, b = 0.3 * (1 / icc - 1), 0.7 * (1 / icc - 1)
    for _ in range(draws):
        events = rng.binomial(25, rng.beta(a, b, 84))
        i = RateCounts(counts(events, [25] * 84, [25] * 84)).interval()
        covered += i.lower <= 0.3 <= i.upper
    assert covered / draws > 0.92
