"""The data specs of `truing train moderation`; the training is tested in tests/train."""

from __future__ import annotations

from pathlib import Path

import pytest

from truing.cli.train_moderation import command, parse_weighted_spec
from truing.core.errors import SpecError, UserError


def test_weight_and_tenths_are_taken_out_of_the_spec() -> None:
    parsed = parse_weighted_spec("pku,conflicts=drop,weight=1.25,tenths=0-6")
    assert str(parsed.spec) == "pku,conflicts=drop"
    assert (parsed.weight, parsed.tenths) == (1.25, (0, 6))
    parsed = parse_weighted_spec("pku")
    assert (parsed.weight, parsed.tenths) == (1.0, (0, 9))
    assert parse_weighted_spec("pku,tenths=3").tenths == (3, 3)


@pytest.mark.parametrize("spec", ["pku,weight=much", "pku,tenths=4-12", "pku,tenths=5-2"])
def test_wrong_specs(spec: str) -> None:
    with pytest.raises(SpecError, match=spec):
        parse_weighted_spec(spec)


def test_either_data_or_blend(tmp_path: Path) -> None:
    for flags in ({}, {"data": ["pku"], "blend": [tmp_path, tmp_path]}):
        with pytest.raises(UserError, match="either --data SPEC... or --blend"):
            command(out=tmp_path / "out", **flags)  # type: ignore[arg-type]
