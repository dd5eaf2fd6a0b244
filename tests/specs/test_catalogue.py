"""The one-line descriptions of the kinds of specs agree with the kinds that exist."""

from __future__ import annotations

import pytest

from truing.specs.builders import BUILDERS
from truing.specs.catalogue import KINDS, SHORT_NAMES
from truing.specs.parser import parse_spec


@pytest.mark.parametrize("role", sorted(KINDS))
def test_every_kind_has_its_line_and_no_line_is_left_over(role: str) -> None:
    assert set(KINDS[role]) == set(BUILDERS[role])


@pytest.mark.parametrize(
    ("role", "kind"), [(role, kind) for role, kinds in KINDS.items() for kind in kinds]
)
def test_an_example_is_a_spec_of_its_kind(role: str, kind: str) -> None:
    described = KINDS[role][kind]
    assert parse_spec(described.example).kind == kind
    assert described.title.endswith(".")


@pytest.mark.parametrize(
    ("role", "spec"),
    [(role, spec) for role, names in SHORT_NAMES.items() for spec in names.values()],
)
def test_a_short_name_means_a_kind_that_exists(role: str, spec: str) -> None:
    assert parse_spec(spec).kind in BUILDERS[role]
