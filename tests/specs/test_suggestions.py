"""What is suggested for a name, a path or an address in place of a spec."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import SpecError
from truing.specs.resolve import resolve
from truing.specs.suggestions import suggest_spec


@pytest.mark.parametrize(
    ("role", "text", "suggestion"),
    [
        ("model", "gpt-4o", "openai:gpt-4o"),
        ("model", "o3", "openai:o3"),
        ("model", "claude-x", "openai:claude-x,base_url=URL,api_key_env=VARIABLE"),
        ("model", "Qwen/Qwen2.5-0.5B", "local:Qwen/Qwen2.5-0.5B"),
        ("model", "https://host.example/v1", "openai:NAME,base_url=https://host.example/v1"),
        ("model", "answers.jsonl", "answers:answers.jsonl"),
        ("model", "smollm", "local:smollm2"),
        ("data", "safty", "builtin:safety"),
        ("data", "logs/rows.csv.gz", "file:logs/rows.csv.gz"),
        ("judge", "refusal", "rules:refusal"),
    ],
)
def test_the_error_names_what_was_meant(role: str, text: str, suggestion: str) -> None:
    with pytest.raises(SpecError) as raised:
        resolve(text, role)  # type: ignore[arg-type]
    assert str(raised.value).endswith(f"; did you mean {suggestion!r}?")


def test_a_folder_is_a_local_model(tmp_path: Path) -> None:
    assert suggest_spec(str(tmp_path), "model") == f"; did you mean 'local:{tmp_path}'?"


def test_a_misspelt_kind_is_still_found() -> None:
    with pytest.raises(SpecError, match="did you mean 'scripted'"):
        resolve("scriptd:mixed", "model")


def test_a_secret_in_an_address_is_not_shown() -> None:
    with pytest.raises(SpecError) as raised:
        resolve("https://host.example/v1?api_key=swordfish", "model")
    assert "swordfish" not in str(raised.value)


@given(text=st.text(max_size=80), role=st.sampled_from(["model", "judge", "data", "attack"]))
def test_any_text_has_a_suggestion_or_none(text: str, role: str) -> None:
    suggestion = suggest_spec(text, role)
    assert suggestion == "" or suggestion.startswith("; did you mean ")
