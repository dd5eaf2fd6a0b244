"""The specs `prompted:`, `best-of:` and `guarded:`."""

from __future__ import annotations

import pytest

from truing.core.errors import SpecError
from truing.specs.resolve import resolve


def test_nested_specs_build_a_model() -> None:
    model = resolve(
        'best-of:3,by=(rules:refusal),of=(prompted,system="Be kind.",of=(scripted:comply))', "model"
    )
    assert model.n == 3
    assert model.lineage.judges[0].name == "rules:refusal"
    assert model.model.name == "prompted:system,of=(scripted:comply)"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("best-of:many,by=(rules:refusal),of=(scripted:comply)", "number of answers"),
        ("best-of:0,by=(rules:refusal),of=(scripted:comply)", "at least one"),
        ("best-of:2,of=(scripted:comply)", "by="),
        ("best-of:2,by=(rules:refusal),prefer=best,of=(scripted:comply)", "prefer"),
        ("prompted,of=(scripted:comply)", "prefix"),
        ("prompted:hhh", "of="),
        ("guarded,of=(scripted:comply)", "folder"),
    ],
)
def test_errors_name_the_argument(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resolve(spec, "model")
