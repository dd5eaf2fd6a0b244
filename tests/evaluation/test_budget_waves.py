"""Waves of a budget: pieces of one random order, each of which surely fits."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from truing.core.types import Sampling
from truing.evaluation.budget_waves import WavePlan
from truing.evaluation.cost_bounds import Cost, CostBounds
from truing.evaluation.options import EvaluateOptions, RunBudget
from truing.evaluation.shared_account import AccountState
from truing.evaluation.spending import shuffle_positions

MAX_WRITTEN = 10


def plan_of(
    prompts: list[int], sizes: list[int], tokens: int, *, is_attacked: bool = False
) -> WavePlan:
    options = EvaluateOptions(
        sampling=Sampling(max_tokens=MAX_WRITTEN), budget=RunBudget(tokens=tokens)
    )
    return WavePlan(prompts, sizes, options, is_attacked=is_attacked)


def state_of(spent: int, *, measured: bool = True, largest_prompt: int = 0) -> AccountState:
    bounds = CostBounds(max_written=MAX_WRITTEN, largest=Cost(1, 1) if measured else None)
    return AccountState(
        spent=Cost(spent, 0),
        lost=Cost(),
        bounds=bounds,
        largest_prompt=largest_prompt,
        is_used_up=False,
    )


def positions_of(wave: object, sizes: list[int]) -> list[int]:
    assert isinstance(wave, dict)
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    return sorted(starts[part] + position for part, places in wave.items() for position in places)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    tokens=st.integers(0, 900),
    share=st.floats(0.1, 1.0),
)
def test_waves_are_the_beginning_of_the_random_order(
    sizes: list[int], tokens: int, share: float
) -> None:
    """Whatever share of its bound each answer costs, and wherever the budget ends the run."""
    prompts = [5 + 3 * (number % 4) for number in range(sum(sizes))]
    plan = plan_of(prompts, sizes, tokens)
    order = shuffle_positions(len(prompts), 0)
    spent = 0
    asked: list[int] = []
    while wave := plan.next_wave(state_of(spent, measured=bool(asked))):
        positions = positions_of(wave, sizes)
        bound = sum(prompts[position] + MAX_WRITTEN for position in positions)
        assert spent + bound <= tokens
        assert bound <= tokens // 10 or asked or len(positions) == 1
        spent += sum(int(share * (prompts[p] + MAX_WRITTEN)) for p in positions)
        asked += positions
        for part, places in wave.items():
            starts = sum(sizes[:part])
            done = {position - starts for position in asked}
            plan.update(part, [p for p in range(sizes[part]) if p not in done and p not in places])
        assert sorted(asked) == sorted(order[: len(asked)])
        assert plan.n_answered == len(asked)
    if len(asked) < len(prompts):
        rest = tokens - spent
        assert rest < prompts[order[len(asked)]] + MAX_WRITTEN or rest <= tokens // 100 + 1
        note = plan.describe_stop()
        assert f"after {len(asked)} of {len(prompts)} rows, drawn at random" in note


def test_each_part_gets_its_samples_in_the_random_order() -> None:
    plan = plan_of([1] * 30, [10, 10, 10], 10_000)
    wave = plan.next_wave(state_of(0))
    order = shuffle_positions(30, 0)
    for part, positions in wave.items():
        in_part = [p - 10 * part for p in order if p // 10 == part]
        assert positions.tolist() == in_part


def test_rows_of_a_run_that_began_without_a_budget_are_no_random_sample() -> None:
    plan = plan_of([1] * 20, [10, 10], 100)
    plan.update(0, [])  # the first part is whole
    assert plan.n_answered == 10
    assert "after 10 of 20 rows, which are no random sample" in plan.describe_stop()
    wave = plan.next_wave(state_of(0))
    assert list(wave) == [1]


def test_attacked_prompts_are_bounded_by_the_largest_so_far() -> None:
    plan = plan_of([5] * 20, [20], 300, is_attacked=True)
    assert len(plan.next_wave(state_of(0, largest_prompt=20))[0]) == 10
    assert len(plan.next_wave(state_of(0, largest_prompt=1))[0]) == 20


def test_the_last_hundredth_of_a_budget_is_left() -> None:
    plan = plan_of([0] * 2000, [2000], 10_000)
    assert len(plan.next_wave(state_of(9_880))[0]) == 10  # of 11 tokens each
    assert plan.next_wave(state_of(9_910)) == {}
