"""Messages of the exceptions."""

from __future__ import annotations

import pytest

from truing.core.errors import DataError, MissingExtra, UserError, did_you_mean


@pytest.mark.parametrize(
    ("name", "valid", "suffix"),
    [
        ("smolm2", ["smollm2", "minilm"], "; did you mean 'smollm2'?"),
        ("xyz", ["beta", "alpha"], "; valid: alpha, beta"),
        ("xyz", [], ""),
        ("xyz", [f"aaaaaaa{i}" for i in range(25)], ""),
    ],
)
def test_unknown_name_suffix(name: str, valid: list[str], suffix: str) -> None:
    assert did_you_mean(name, valid) == suffix


def test_messages_name_the_place_and_the_install_command() -> None:
    assert str(DataError.at("a.jsonl", 3, "no prompt")) == "a.jsonl:3: no prompt"
    assert str(DataError.at("a.jsonl", None, "is empty")) == "a.jsonl: is empty"
    assert str(MissingExtra("local", "x")) == "x needs an extra: pip install 'truing[local]'"


def test_user_error_joins_all_faults() -> None:
    error = UserError("one", "two")
    assert error.faults == ("one", "two")
    assert str(error) == "one\ntwo"
