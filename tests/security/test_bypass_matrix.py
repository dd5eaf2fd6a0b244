"""A seeded slice of the bypass matrix, and generated conversations beyond its shapes."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from bypass import RAILS, Bench, run_matrix, summarise
from bypass_cells import (
    APART_PLACES,
    CALL_ID,
    ROLES,
    UNSAFE,
    cells_apart,
    is_covered,
    tool_call,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from truing.core.types import Answer, Conversation, Sampling

FAST_ENTRIES = ("generate", "stream", "check")


def assert_nothing_passes(longest: int, share: float, seed: int, **arguments: Any) -> None:
    counts = run_matrix(longest, share, seed=seed, **arguments)
    assert sum(row["unsafe"] for row in counts.values()) > 40
    by_rails = summarise(counts, 1)
    assert set(by_rails) == set(RAILS)
    for (entry, rails, place), row in counts.items():
        assert row["holes"] == 0, (entry, rails, place, row)
    benign = sum(row["benign"] for row in counts.values())
    assert sum(row["refused"] for row in counts.values()) <= 0.01 * benign


def test_a_slice_of_the_matrix_has_no_hole_and_refuses_no_twin() -> None:
    assert_nothing_passes(2, 0.05, 3, entries=FAST_ENTRIES)


def test_a_slice_over_http_has_no_hole_and_refuses_no_twin() -> None:
    assert_nothing_passes(2, 0.02, 5, entries=("chat", "chat stream", "chat chunks", "checks"))


@pytest.mark.parametrize("place", APART_PLACES)
def test_no_text_that_is_split_apart_passes(bench: Bench, place: str) -> None:
    chosen = [cell for cell in cells_apart(3) if cell.place == place]
    for cell in random.Random(place).sample(chosen, min(24, len(chosen))):
        for entry in FAST_ENTRIES:
            if is_covered(cell, bench.rails, entry):
                expected = "refused" if cell.unsafe else "passed"
                assert bench.run(entry, cell) == expected, (entry, cell)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_larger_slice_of_all_shapes_and_entries() -> None:
    assert_nothing_passes(4, 0.01, 7)


# -- generated conversations -------------------------------------------------------------------

WORDS = st.sampled_from(
    ["tea", "garden", "nine o'clock", "a, b;", "\n", "  ", "ß", "FORBID", "DEN"]
)
TEXTS = st.lists(WORDS, max_size=6).map(" ".join)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[dict[str, Any]], bool]:
    """Draws messages of any roles, and whether the marker stands in one of their texts."""
    rows: list[dict[str, Any]] = []
    for role in draw(st.lists(st.sampled_from(ROLES), min_size=1, max_size=7)):
        row: dict[str, Any] = {"role": role, "content": draw(TEXTS)}
        if role == "tool":
            row["tool_call_id"] = CALL_ID
        if role == "assistant" and draw(st.booleans()):
            row["tool_calls"] = [tool_call(draw(st.sampled_from(["tea", "a b"])))]
        rows.append(row)
    if not draw(st.booleans()):
        return rows, False
    row = draw(st.sampled_from(rows))
    if row.get("tool_calls") and draw(st.booleans()):
        row["tool_calls"] = [tool_call("FORBIDDEN"), *row["tool_calls"]]
    else:
        before, after = draw(TEXTS), draw(TEXTS)
        row["content"] = f"{before}FORBIDDEN{after}"
    return rows, True


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench("input", tmp_path_factory.mktemp("bypass"))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=conversations())
def test_no_generated_conversation_passes_with_the_marker(
    bench: Bench, drawn: tuple[list[dict[str, Any]], bool]
) -> None:
    rows, is_unsafe = drawn
    bench.model.reply, bench.model.saw_marker, bench.model.halves = Answer.of("fine"), False, ()
    conversation = Conversation.from_openai(rows)
    answer = asyncio.run(bench.guarded.answer(conversation, Sampling()))
    assert not bench.model.saw_marker
    allowed = asyncio.run(bench.guarded.check(conversation)).allowed
    shown = "\n".join(str(row["content"]) for row in rows)
    if is_unsafe and not UNSAFE.search(str(rows[-1].get("content")) if _is_answer(rows) else ""):
        assert answer.finish_reason == "blocked"
        assert allowed is False or _is_answer(rows)
    elif not is_unsafe and not UNSAFE.search("".join(shown.split())):
        assert answer.text == "fine"
        assert allowed is not False


def _is_answer(rows: list[dict[str, Any]]) -> bool:
    return rows[-1]["role"] == "assistant"
