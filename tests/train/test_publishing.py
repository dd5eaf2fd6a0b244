"""What may be published, the model card, and adapters of PEFT that become a model again."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import yaml
from safetensors.torch import load_file
from tests.train.builders import make_settings, make_training_set

from truing.core.errors import LineageError, PlanError, UserError
from truing.core.types import Lineage
from truing.train.adapter_merging import merge_adapter
from truing.train.model_card import TrainedModelCard, read_model_card, render_model_card
from truing.train.publishing import check_publishable, push_model
from truing.train.supervised import train_supervised


def make_card(**lineage: object) -> TrainedModelCard:
    facts = {"name": "dpo:out", "licence": "Apache-2.0", "data": ("file:rows.jsonl",)}
    return TrainedModelCard(
        kind="dpo",
        base="ORG/MODEL",
        base_sha256="0" * 64,
        data=("file:rows.jsonl",),
        lineage=Lineage(**{**facts, **lineage}),  # type: ignore[arg-type]
        settings={"lr": 1e-4, "seed": 3},
    )


def write(folder: Path, card: TrainedModelCard) -> Path:
    (folder / "truing.json").write_bytes(msgspec.json.encode(card))
    return folder


def test_a_free_lineage_may_be_public(tmp_path: Path) -> None:
    card = make_card(judges=(Lineage(name="reward:r", hash="1" * 16, licence="MIT"),))
    assert check_publishable(write(tmp_path, card), public=True) == card


@pytest.mark.parametrize(
    "lineage",
    [
        {"licence": "CC BY-NC 4.0"},
        {"licence": "Apache-2.0; not stated"},
        {"licence": ""},
        {"judges": (Lineage(name="cost:c", licence="CC BY-NC 4.0"),)},
    ],
)
def test_other_lineages_are_published_privately_only(
    lineage: dict[str, object], tmp_path: Path
) -> None:
    folder = write(tmp_path, make_card(**lineage))
    with pytest.raises(LineageError, match="it may be published privately"):
        check_publishable(folder, public=True)
    check_publishable(folder, public=False)


@pytest.mark.parametrize("public", [True, False])
def test_a_red_model_is_never_published(public: bool, tmp_path: Path) -> None:
    folder = write(tmp_path, make_card(red_model="to test the gate"))
    with pytest.raises(LineageError, match="trained towards harm .to test the gate.; it is not"):
        push_model(folder, "org/name", public=public)


def test_what_is_no_model_and_no_repository(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no truing\.json"):
        check_publishable(tmp_path, public=False)
    with pytest.raises(PlanError, match="OWNER/NAME"):
        push_model(write(tmp_path, make_card()), "name")


def test_the_model_card_says_where_a_model_comes_from() -> None:
    card = make_card(judges=(Lineage(name="cost:c", hash="2" * 16, licence="CC BY-NC 4.0"),))
    text = render_model_card(card)
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "other" and front["base_model"] == "ORG/MODEL"
    for words in (
        "`file:rows.jsonl`",
        "`cost:c`",
        "Not free for every use: CC BY-NC 4.0",
        "`seed`: 3",
    ):
        assert words in text
    assert yaml.safe_load(render_model_card(make_card()).split("---")[1])["license"] == "apache-2.0"
    assert "must not be deployed" in " ".join(
        render_model_card(msgspec.structs.replace(card, red_model="why")).split()
    )


def test_a_merged_adapter_is_the_model_that_was_trained(base: str, tmp_path: Path) -> None:
    settings = make_settings("sft", str(tmp_path / "sft"), base, export_dtype="float32")
    result = train_supervised(settings, [make_training_set(answers=1)])
    assert (result.folder / "README.md").read_text().startswith("---\n")
    merged = merge_adapter(result.folder / "adapter", tmp_path / "merged", base=base)
    left, right = (load_file(f / "model.safetensors") for f in (result.folder, merged))
    assert left.keys() == right.keys()
    assert max(float((left[k] - right[k]).abs().max()) for k in left) < 1e-6
    card = read_model_card(merged)
    assert card is not None and card.lineage.data == result.lineage.data
    with pytest.raises(PlanError, match="holds a model already"):
        merge_adapter(result.folder / "adapter", merged, base=base)
    with pytest.raises(UserError, match="no readable adapter"):
        merge_adapter(tmp_path, tmp_path / "other")
