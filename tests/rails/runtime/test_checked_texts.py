"""What counts as read: keys that depend on everything, and a bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from truing.core.types import Ruling
from truing.rails.runtime.checked_texts import UNCHANGED, CheckedTexts, TextVerdict

PARTS = st.tuples(
    st.text(max_size=3),
    st.sampled_from(["input", "tool_input"]),
    st.lists(st.text(max_size=2), max_size=3),
    st.text(max_size=3),
    st.text(max_size=5),
)


@given(first=PARTS, second=PARTS)
def test_equal_keys_mean_equal_parts(first: tuple, second: tuple) -> None:  # type: ignore[type-arg]
    memory = CheckedTexts()
    assert (memory.key(*first) == memory.key(*second)) is (first == second)


def test_the_keys_of_another_memory_differ() -> None:
    parts = ("", "input", ["rail"], "user", "hi")
    assert CheckedTexts().key(*parts) != CheckedTexts().key(*parts)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 4000)), max_size=60))
def test_the_memory_stays_within_its_bytes(puts: list[tuple[int, int]]) -> None:
    memory = CheckedTexts(max_bytes=30_000)
    for number, length in puts:
        key = memory.key("", "input", [], "user", str(number))
        ruling = Ruling(name="r", stage="input", ruling="block", reason="x" * length)
        memory.put(key, TextVerdict(None, "no", (ruling,)))
        assert memory.size <= 30_000
    assert memory.size == sum(v.size for v in memory._verdicts.values())


def test_the_least_recently_used_text_is_forgotten_first() -> None:
    memory = CheckedTexts(max_bytes=3 * UNCHANGED.size)
    keys = [memory.key("", "input", [], "user", str(number)) for number in range(4)]
    for key in keys[:3]:
        memory.put(key, UNCHANGED)
    assert memory.get(keys[0]) is not None
    memory.put(keys[3], UNCHANGED)
    assert [memory.get(key) is not None for key in keys] == [True, False, True, True]
