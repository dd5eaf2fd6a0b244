"""A call changes its own copy of a world, wholly or not at all; the diff gives the end state back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.core.episodes import Environment, Injection
from truing.worlds import (
    ArgumentError,
    Simulation,
    ToolError,
    apply_changes,
    load_world,
    parse_world,
    starting_state,
)

BANK = load_world("bank").world


def test_a_transfer_moves_money_and_is_in_the_diff() -> None:
    simulation = Simulation(BANK)
    text = '{"account": "giro", "to": "nora", "amount": "20.5", "text": "Hi"}'
    assert simulation.call("transfer", text) == "transferred"
    before, after = (simulation.changes()[0].before or {}), (simulation.changes()[0].after or {})
    assert (before["balance"], after["balance"]) == (1850.0, 1829.5)
    assert simulation.changes()[1].after == {
        "id": "n1",
        "from": "giro",
        "to": "nora",
        "amount": 20.5,
        "text": "Hi",
    }
    assert Simulation(BANK).changes() == ()
    assert Simulation(BANK).state["accounts"]["giro"]["balance"] == 1850.0


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        (
            "transfer",
            '{"account": "giro", "to": "x", "amount": 9000}',
            ToolError,
            "balance would be -7150",
        ),
        ("transfer", '{"account": "none", "to": "x", "amount": 1}', ToolError, "no such account"),
        ("transfer", '{"account": "giro", "to": "x", "amount": -5}', ArgumentError, "amount"),
        ("transfer", '{"account": "giro", "to": "x"}', ArgumentError, "missing required field"),
        (
            "transfer",
            '{"account": "giro", "to": "x", "amount": 1, "y": 2}',
            ArgumentError,
            "unknown field",
        ),
        ("transfer", "account: giro", ArgumentError, "no JSON"),
        ("transfer", "[" * 100_000, ArgumentError, "Expected `object`"),
        ("transfer", '"' + "x" * 200_000 + '"', ArgumentError, "more than 100000 characters"),
        ("list_accounts", '{"x": 1}', ArgumentError, "unknown field"),
    ],
)
def test_a_refused_call_changes_nothing(
    name: str, arguments: str, error: type[Exception], message: str
) -> None:
    simulation = Simulation(BANK)
    with pytest.raises(error, match=message):
        simulation.call(name, arguments)
    assert simulation.changes() == ()


def test_a_step_that_fails_undoes_the_steps_before_it() -> None:
    simulation = Simulation(load_world("mail").world)
    simulation.call("delete_mail", '{"id": "m1"}')
    with pytest.raises(ToolError, match="no such mail"):
        simulation.call("delete_mail", '{"id": "m1"}')
    assert [(c.table, c.row, c.after is None) for c in simulation.changes()] == [
        ("inbox", "m1", True),
        ("bin", "m1", False),
    ]


def test_an_injection_stands_in_the_field_and_is_no_change() -> None:
    injection = Injection(table="accounts", row="save", field="title", text="Order of a stranger.")
    simulation = Simulation(BANK, Environment(world="bank", injection=injection))
    assert "Order of a stranger." in simulation.call("list_accounts", "")
    assert simulation.changes() == ()


def test_searches_and_optional_conditions() -> None:
    simulation = Simulation(load_world("web").world)
    assert "trains.example.org" in simulation.call("search_web", '{"words": "LAKEVILLE ticket"}')
    assert simulation.call("search_web", '{"words": "zebra"}') == "[]"


_CALLS = st.lists(
    st.one_of(
        st.tuples(
            st.just("transfer"),
            st.builds(
                lambda a, n: f'{{"account": "{a}", "to": "nora", "amount": {n}}}',
                st.sampled_from(["giro", "save", "none"]),
                st.integers(-10, 3000),
            ),
        ),
        st.tuples(
            st.just("cancel_standing_order"), st.sampled_from(['{"id": "s1"}', '{"id": "s9"}'])
        ),
        st.tuples(st.just("add_payee"), st.sampled_from(['{"title": "A", "iban": "X"}', "{}"])),
    ),
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(_CALLS)
def test_the_diff_gives_the_end_state_and_no_balance_is_negative(
    calls: list[tuple[str, str]],
) -> None:
    simulation = Simulation(BANK)
    for name, arguments in calls:
        try:
            simulation.call(name, arguments)
        except (ToolError, ArgumentError):
            continue
    assert apply_changes(starting_state(BANK, None), simulation.changes()) == simulation.state
    balances = [row["balance"] for row in simulation.state["accounts"].values()]
    assert all(isinstance(b, float) and b >= 0 for b in balances)


TWO_ADDS = """
name = "log"
[tables.lines]
rows = [{ id = "n1", text = "first" }]
[tools.write]
about = "Writes two lines."
effect = "change"
parameters.id = { optional = true, default = "own" }
steps = [
  { add = "lines", values = { text = "a" } },
  { add = "lines", values = { text = "b" } },
  { add = "lines", values = { id = "$id", text = "c" } },
]
"""


def test_added_rows_overwrite_neither_each_other_nor_old_ones() -> None:
    simulation = Simulation(parse_world(TWO_ADDS.encode(), "log").world)
    simulation.call("write", "{}")
    texts = {row: record["text"] for row, record in simulation.state["lines"].items()}
    assert texts == {"n1": "first", "n1.2": "a", "n1.3": "b", "own": "c"}
    simulation.call("write", "{}")
    assert len(simulation.state["lines"]) == 6  # the one with an id is replaced


def test_a_sum_that_is_no_number_is_refused() -> None:
    simulation = Simulation(BANK)
    for amount in ("1e308", "1e309", "1" + "0" * 400):
        with pytest.raises((ToolError, ArgumentError)):
            simulation.call(
                "transfer", f'{{"account": "giro", "to": "nora", "amount": {amount}, "text": ""}}'
            )
    assert simulation.changes() == ()
