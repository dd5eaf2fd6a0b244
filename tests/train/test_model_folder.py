"""The lineage of a trained model, and its card."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

pytest.importorskip("torch")
from tests.train.builders import make_settings, make_training_set

from truing.core.errors import UserError
from truing.core.lineage import hash_prompts
from truing.core.types import Lineage
from truing.hf.weights import Weights
from truing.train.model_folder import build_lineage, read_model_card
from truing.train.trainable_model import BaseModel


def test_the_lineage_adds_to_that_of_the_base() -> None:
    judge, base_judge = Lineage(name="a", hash="1"), Lineage(name="b", hash="2")
    base = BaseModel(
        weights=Weights(path=Path("base"), name="base", sha256="b" * 64),
        lineage=Lineage(
            name="base",
            base="original",
            base_sha256="o" * 64,
            data=("older",),
            prompts=("0" * 16,),
            judges=(base_judge,),
            licence="MIT",
        ),
    )
    source = make_training_set(2)
    source = msgspec.structs.replace(source, judges=(judge,), licence="CC0")
    settings = make_settings("dpo", "runs/mine", "base")
    lineage = build_lineage(settings, base, [source, source], "a reason")
    prompts = hash_prompts(item.conversation.prompt for item in source.items)
    assert lineage.name == "dpo:mine" and lineage.base == "original"
    assert lineage.data == ("older", "pairs", "pairs") and lineage.licence == "MIT; CC0"
    assert lineage.prompts == tuple(sorted({"0" * 16, *prompts}))
    assert lineage.judges == (judge, base_judge)
    assert lineage.red_model == "a reason" and lineage.base_sha256 == "o" * 64


def test_a_folder_without_a_card_has_none_and_a_damaged_card_is_named(tmp_path: Path) -> None:
    assert read_model_card(tmp_path) is None
    (tmp_path / "truing.json").write_text("{")
    with pytest.raises(UserError, match=r"truing\.json"):
        read_model_card(tmp_path)
