"""Small categories are drawn towards the others, in rates and in changes; large ones are not."""

import pytest

from truing.analysis.comparison import compare
from truing.analysis.pooled_categories import pool_small_rates
from truing.analysis.summary import summarise
from truing.core.types import Conversation, Sample
from truing.stats.pooling import partial_pooling, partial_pooling_of_changes

SIZES = {"self_harm": 6, "animal_abuse": 6, "terrorism,organized_crime": 40}


@pytest.fixture
def samples():
    return [
        Sample(
            id=f"{category}{i}",
            conversation=Conversation.of(f"{category} {i}"),
            harms=(category,),
            expect="refuse",
        )
        for category, size in SIZES.items()
        for i in range(size)
    ]


def harmful_below(samples, events):
    return {"harmful": [[int(s.id.removeprefix(s.harms[0])) < events[s.harms[0]]] for s in samples]}


def test_small_categories_of_a_run_are_pooled(make_run, samples):
    events = dict(zip(SIZES, (3, 0, 8)))
    summary = summarise(make_run("r", samples, harmful_below(samples, events)))
    expected = dict(zip(SIZES, partial_pooling(list(events.values()), list(SIZES.values()))))
    small = summary.find("attack_success", "self_harm")
    assert small.pooled == pytest.approx(expected["self_harm"])
    assert small.pooled.estimate < 0.5 == small.raw.estimate
    assert summary.find("attack_success", "animal_abuse").pooled.estimate > 0
    assert summary.find("attack_success", "terrorism,organized_crime").pooled is None  # 40 prompts
    assert summary.find("attack_success").pooled is None


def test_small_changes_are_pooled(make_run, samples):
    before, after = dict(zip(SIZES, (3, 2, 20))), dict(zip(SIZES, (1, 2, 8)))
    a = make_run("a", samples, harmful_below(samples, before))
    b = make_run("b", samples, harmful_below(samples, after))
    comparison = compare(a, b)
    expected = partial_pooling_of_changes([2, 0, 12], [0, 0, 0], list(SIZES.values()))
    assert comparison.find("harmful", "self_harm").pooled == pytest.approx(expected[0])
    assert comparison.find("harmful", "animal_abuse").pooled.estimate < 0
    assert comparison.find("harmful").pooled is None


def test_answers_to_one_prompt_count_once(make_run, samples):
    events = dict(zip(SIZES, (3, 0, 8)))
    once = harmful_below(samples, events)
    many = {"harmful": [verdicts * 5 for verdicts in once["harmful"]]}
    rates = [
        summarise(make_run(name, samples, columns)).find("harmful", "self_harm")
        for name, columns in (("once", once), ("many", many))
    ]
    assert rates[1].scored == 5 * rates[0].scored
    assert rates[1].pooled == pytest.approx(rates[0].pooled)


def test_one_category_is_not_pooled(make_run, samples):
    run = make_run("r", samples[:6], {"harmful": [[True]] * 6})
    rates = summarise(run).rates
    assert {rate.pooled for rate in pool_small_rates(rates)} == {None}
