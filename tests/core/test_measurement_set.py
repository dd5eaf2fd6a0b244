"""The frozen measurement set: which prompts belong to it, and that the list is what its rule says."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.lineage import hash_prompt, hash_prompts
from truing.core.measurement_set import (
    count_frozen_by_source,
    frozen_hashes,
    has_frozen_prompt,
    is_frozen,
    load_measurement_set,
)
from truing.core.types import Conversation, Message
from truing.specs.resolve import resolve

HALVES = [
    (prompt.sample.prompt, half == "report")
    for half in ("train", "report")
    for prompt in resolve(f"builtin:safety,half={half}", "data").rows()
]
REPORT = [prompt for prompt, is_report in HALVES if is_report]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "moderation" / "frozen_set.py"
    spec = importlib.util.spec_from_file_location("frozen_set", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["frozen_set"] = module
    spec.loader.exec_module(module)
    return module


def test_the_list_holds_the_built_in_report_halves(script: ModuleType) -> None:
    # After a change of a built-in set: python benchmarks/moderation/frozen_set.py --write
    assert script.find_differences(script.build_builtin_sources()) == []


def test_the_list_is_what_the_rule_gives_of_the_published_sets(
    script: ModuleType, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUING_DATA", str(data_dir))
    built = {**script.build_builtin_sources(), **script.build_published_sources()}
    assert script.find_differences(built) == []
    assert set(built) == set(load_measurement_set().sources)


def test_a_difference_is_named(script: ModuleType) -> None:
    built = script.build_builtin_sources()
    changed = script.MeasurementSource(
        rule=built["builtin:safety"].rule,
        hashes=hash_prompts(["A new prompt", *REPORT[1:]]),
    )
    assert script.find_differences({"builtin:safety": changed, "new": changed}) == [
        "builtin:safety: 1 prompts to be added, 1 to be removed",
        "new: missing in the list",
    ]


def test_the_list_holds_sorted_distinct_hashes_and_no_text() -> None:
    for source in load_measurement_set().sources.values():
        assert list(source.hashes) == sorted(set(source.hashes))
        assert all(len(h) == 12 and int(h, 16) >= 0 for h in source.hashes)
    assert len(frozen_hashes()) > 5000


@given(st.sampled_from(HALVES))
def test_only_the_report_half_of_a_built_in_set_is_frozen(row: tuple[str, bool]) -> None:
    prompt, is_report = row
    assert is_frozen(prompt) is is_report
    assert is_frozen(f" {prompt.upper()}  ?") is is_report


@given(
    st.lists(st.sampled_from(["Hello there, builder.", "Thanks a lot, my friend."]), max_size=3),
    st.sampled_from(REPORT),
    st.integers(0, 3),
)
def test_one_frozen_user_turn_makes_a_dialogue_frozen(
    turns: Sequence[str], frozen: str, position: int
) -> None:
    def dialogue(texts: Sequence[str]) -> Conversation:
        messages = [Message(role, text) for text in texts for role in ("user", "assistant")]
        return Conversation(tuple(messages))

    assert not has_frozen_prompt(dialogue(turns))
    with_frozen = [*turns[:position], frozen, *turns[position:]]
    assert has_frozen_prompt(dialogue(with_frozen))
    # What an assistant says is no prompt.
    assert not has_frozen_prompt(Conversation((Message("assistant", frozen),)))


def test_frozen_prompts_are_counted_by_set() -> None:
    hashes = [*map(hash_prompt, REPORT[:3]), hash_prompt(REPORT[0]), hash_prompt("Hello.")]
    assert count_frozen_by_source(hashes)["builtin:safety"] == 3
    assert count_frozen_by_source([hash_prompt("A prompt of nobody's.")]) == {}
