"""The lineage of a trained model, and its card."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from tests.train.builders import make_settings, make_training_set

from truing.core.errors import UserError
from truing.core.lineage import hash_prompts
from truing.core.types import Lineage
from truing.hf.loading import load_causal_lm
from truing.hf.pretrained import stored_dtype
from truing.hf.weights import Weights
from truing.train.model_card import read_model_card
from truing.train.model_folder import build_lineage
from truing.train.supervised import train_supervised
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


def _weight_types(folder: Path) -> set[torch.dtype]:
    return {weight.dtype for weight in load_file(folder / "model.safetensors").values()}


@pytest.fixture
def bfloat16_base(base: str, tmp_path: Path) -> str:
    loaded = load_causal_lm(base, dtype="bfloat16", device="cpu")
    folder = tmp_path / "bfloat16"
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    assert stored_dtype(folder) == "bfloat16"
    return str(folder)


@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_a_model_is_exported_in_the_type_of_its_base(
    kind: str, bfloat16_base: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = make_settings(kind, str(out), bfloat16_base, steps=2, device="cpu")
    first = train_supervised(settings, [make_training_set()])
    assert _weight_types(out) == {torch.bfloat16}
    assert _weight_types_of_adapter(out) == {torch.float32}
    # Another type is written from the last checkpoint, without a step.
    settings = msgspec.structs.replace(settings, export_dtype="float32")
    second = train_supervised(settings, [make_training_set()])
    assert (first.done_now, second.done_now) == (2, 0)
    assert _weight_types(out) == {torch.float32}
    card = read_model_card(out)
    assert card is not None and card.settings["export_dtype"] == "float32"
    assert "device" not in card.settings


def _weight_types_of_adapter(folder: Path) -> set[torch.dtype]:
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    return {weight.dtype for weight in weights.values()}


def test_a_device_that_is_not_there_is_refused_before_the_model_is_loaded(
    base: str, tmp_path: Path
) -> None:
    settings = make_settings("dpo", str(tmp_path / "run"), base, device="abacus")
    with pytest.raises(UserError, match="device='abacus' is no device"):
        train_supervised(settings, [make_training_set()])
