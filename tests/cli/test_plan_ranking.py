"""The ranking table in the report of `truing run`."""

from __future__ import annotations

from truing.cli.plan_ranking import MAX_ITEMS, rank_for_report
from truing.models.cached_model import CachedModel
from truing.specs.resolve import resolve


def test_the_table_has_the_methods_and_two_controls() -> None:
    model = CachedModel(resolve("scripted:mixed", "model"))
    table = rank_for_report("Which answer is harmless?", "builtin:pairs", model)
    assert table.title == "Which answer is harmless?"
    assert [row[0] for row in table.rows] == [
        "per token",
        "gain over no question (PMI)",
        "by letter, orders averaged",
        "control: behind another question",
        "control: the shorter one",
    ]
    assert all(len(row) == len(table.columns) and row[1].endswith("%") for row in table.rows)
    assert MAX_ITEMS >= 47  # all pairs of builtin:pairs


def test_a_prefix_selects_one_ranker() -> None:
    model = resolve("scripted:mixed", "model")
    table = rank_for_report("x", "perplexity:builtin:pairs,limit=5", model)
    assert table.rows[0][0] == "per token"
    assert table.rows[0][3] == "5"


def test_a_model_without_log_probabilities_gives_a_note() -> None:
    model = type("Silent", (), {"name": "silent", "lineage": None})()
    table = rank_for_report("x", "builtin:pairs", model)
    assert table.rows == ()
    assert "no log-probabilities" in table.note
