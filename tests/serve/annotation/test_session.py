"""Form fields as handlers read them."""

from __future__ import annotations

import pytest

from truing.annotation.wellbeing import ExposureStatus
from truing.serve.annotation.session import CurrentUser
from truing.serve.forms import FormData


def test_missing_fields_are_empty() -> None:
    form = FormData({"empty": []})
    assert (form.text("absent"), form.text("empty")) == ("", "")
    assert (form.values("absent"), form.integer("absent")) == ((), None)


def test_the_first_value_or_all_values() -> None:
    form = FormData({"category": ["b", "a", "b"]})
    assert form.text("category") == "b"
    assert form.values("category") == ("b", "a", "b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("04", 4),
        ("99999", 99999),
        ("100000", None),
        ("-1", None),
        ("1.0", None),
        ("", None),
        ("\u0663", None),  # an Arabic digit, which int() would accept
    ],
)
def test_integers(text: str, expected: int | None) -> None:
    assert FormData({"rating": [text]}).integer("rating") == expected


def test_fields_by_prefix() -> None:
    form = FormData({"grade-0": ["3"], "grade-1": ["5", "1"], "grade-2": [], "note": ["x"]})
    assert form.with_prefix("grade-") == {"0": "3", "1": "5"}


@pytest.mark.parametrize(
    ("roles", "expected"),
    [({"admin"}, False), ({"rater"}, True), ({"admin", "adjudicator"}, True), (set(), False)],
)
def test_only_administrators_read_no_texts(roles: set[str], expected: bool) -> None:
    user = CurrentUser(
        id="1",
        pseudonym="calm-heron",
        roles=frozenset(roles),
        blur=True,
        consented=False,
        exposure=ExposureStatus(used=0.0, budget=60.0, pause_until=0.0, reason=""),
    )
    assert user.reads_texts == expected
