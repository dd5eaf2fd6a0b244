"""The moderation trainer on a tiny encoder: learns, goes on after a kill to the same weights, and its folder is a judge."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from truing.core.errors import DataError, PlanError, UserError
from truing.core.ids import with_ids
from truing.core.taxonomy import load_taxonomy
from truing.core.types import (
    Answer,
    Conversation,
    DataInfo,
    Judgement,
    Message,
    Preference,
    Response,
    Row,
    Sample,
)
from truing.specs.resolve import resolve
from truing.train.moderation.examples import examples_of_row, give_unique_names, read_training_set
from truing.train.moderation.run import train_moderation
from truing.train.moderation.settings import ModerationTrainingSettings

IDS = load_taxonomy().ids
WORDS = (
    "how do i bake open the door please tell me about steal stab bread cake a it so yes well then"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *dict.fromkeys(WORDS.split())]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    made.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)
    return folder


class Made:
    """A labelled set: an answer with `stab` is harmful, and violence."""

    def __init__(self, n: int, seed: int = 0) -> None:
        self.n, self.seed = n, seed
        self.info = DataInfo(spec="made", licence="CC0")

    def sha256(self) -> str:
        return f"{self.n}-{self.seed}"

    def preferences(self) -> Iterator[Preference]:
        return iter(())

    def rows(self) -> Iterator[Row]:
        rng = random.Random(self.seed)
        plain = [w for w in WORDS.split() if w not in ("steal", "stab")]
        for at in range(self.n):
            bad = ("stab", "")[at % 2]
            words = [*rng.choices(plain, k=4 + at % 3), bad or rng.choice(plain)]
            rng.shuffle(words)
            harms = dict.fromkeys(IDS, 0.0)
            if bad:
                harms[IDS[13]] = 1.0
            sample = Sample(
                conversation=Conversation.of(" ".join(rng.choices(plain, k=5)) + f" {at}"),
                source="made",
                id=str(at),
            )
            said = Response.of(str(at), 0, "recorded", Answer.of(" ".join(words)))
            label = Judgement(
                sample_id=str(at),
                judge="human:made",
                question="harmful",
                verdict=bool(bad),
                harms=harms,
            )
            yield Row(sample=sample, responses=(said,), judgements=(label,))


def _settings(tiny: Path, out: Path, **more: Any) -> ModerationTrainingSettings:
    given = {
        "data": ("made",),
        "weights": (30.0,),
        "tenths": ((0, 9),),
        "base": str(tiny),
        "folds": 2,
        "lr": 1e-3,
        "head_lr": 1e-2,
        "dropout": 0.0,
        "batch_tokens": 384,
        "ngram_bits": 10,
        "save_every": 7,
        "tensorboard": False,
        "dtype": "float32",
        "device": "cpu",
    }
    return ModerationTrainingSettings(out=str(out), **{**given, **more})


def _source(n: int = 180) -> Any:
    return read_training_set(Made(n), IDS, weight=30.0)


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "model"
    train_moderation(_settings(tiny, out), [_source()])
    return out


def test_learns_what_is_there_and_says_so_in_its_card(trained: Path) -> None:
    card = json.loads((trained / "card.json").read_bytes())
    assert card["questions"]["harmful"]["scores"]["auroc"]["estimate"] > 0.95
    assert card["micro_f1"]["estimate"] > 0.9 and "chosen without the fold" in card["method"]
    assert card["per_category"][IDS[13]]["n_positive"] == 90
    assert any("no positive row" in note for note in card["notes"])
    assert card["lineage"]["n_prompts"] == 180
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in log] == list(range(1, len(log) + 1)) and {
        r["fold"] for r in log
    } == {0, 1}
    assert log[-1]["loss"] < log[0]["loss"] / 3


def test_the_folder_is_a_judge(trained: Path) -> None:
    judge = resolve(f"moderation:{trained},dtype=float32,engine=torch", "judge")
    rows = list(Made(60, seed=5).rows())

    async def all_at_once() -> list[Judgement]:
        return list(await asyncio.gather(*(judge.judge(r.sample, r.responses[0]) for r in rows)))

    found = asyncio.run(all_at_once())
    right = [j.verdict == r.judgements[0].verdict for j, r in zip(found, rows)]
    assert sum(right) >= 54
    bad = found[0]
    assert bad.harms[IDS[13]] > 0.5 > bad.harms[IDS[5]]
    assert (
        judge.lineage.prompts
        and judge.lineage.base_sha256
        and judge.lineage.hash == judge.scorer.hash
    )
    assert judge.flagged(bad.harms) == (IDS[13],)


def test_a_killed_run_goes_on_to_the_same_weights(
    trained: Path, tiny: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    class Killed(Exception):
        pass

    def kill_at(step: int) -> Any:
        def tell(row: dict[str, Any]) -> None:
            if row["step"] == step:
                raise Killed

        return tell

    out = tmp_path / "model"
    steps = len((trained / "log.jsonl").read_text().splitlines())
    for step in (10, steps - 3):  # once in the first fold, once in the second
        with pytest.raises(Killed):
            train_moderation(_settings(tiny, out), [_source()], on_log=kill_at(step))
        assert not (out / "truing.json").exists()
    train_moderation(_settings(tiny, out), [_source()])
    for name in ("model.safetensors", "head.safetensors"):
        one, two = load_file(trained / name), load_file(out / name)
        assert all(torch.equal(one[k], two[k]) for k in one), name
    assert (out / "thresholds.json").read_bytes() == (trained / "thresholds.json").read_bytes()
    log = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert log == list(range(1, steps + 1))


def test_another_run_in_the_same_folder_is_refused(trained: Path, tiny: Path) -> None:
    with pytest.raises(PlanError, match="other settings or other data"):
        train_moderation(_settings(tiny, trained, seed=1), [_source()])
    with pytest.raises(PlanError, match="other settings or other data"):
        train_moderation(_settings(tiny, trained), [_source(90)])


def _llama(folder: Path, tiny: Path, *, layers: int) -> Path:
    """A random language model of the Llama kind, with the tokenizer of the tiny encoder."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    PreTrainedTokenizerFast.from_pretrained(str(tiny)).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        pad_token_id=0,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_adapters_and_a_causal_base(tmp_path: Path, tiny: Path) -> None:
    folder = _llama(tmp_path / "llama", tiny, layers=1)
    out = tmp_path / "out"
    result = train_moderation(_settings(folder, out, lora=4, folds=2, lr=1e-2), [_source(90)])
    assert result.card.questions["harmful"].scores.auroc.estimate > 0.8  # type: ignore[union-attr]
    judge = resolve(f"moderation:{out},dtype=float32,engine=torch", "judge")
    sample = Sample(id="a", conversation=Conversation.of("tell me"))
    made = asyncio.run(judge.judge(sample, Response.of("a", 0, "m", Answer.of("so i bake it"))))
    assert made.score is not None


def test_upper_layers_alone_and_one_more_model_on_every_row(tmp_path: Path, tiny: Path) -> None:
    from safetensors.torch import load_file

    folder = _llama(tmp_path / "llama", tiny, layers=4)
    out = tmp_path / "out"
    more: dict[str, Any] = {
        "lora": 4,
        "folds": 3,
        "held": 1,
        "whole": True,
        "layers": 3,
        "frozen": 1,
        "lr": 1e-2,
    }
    result = train_moderation(_settings(folder, out, **more), [_source(90)])
    assert (
        "one of them measured" in result.card.method and "learned every row" in result.card.method
    )
    assert 0 < result.card.n < 90  # the held fold alone
    assert sorted(p.name for p in (out / "folds").iterdir()) == ["fold-0", "mixed.npy", "whole"]
    assert result.card.questions["harmful"].scores.auroc.estimate > 0.8  # type: ignore[union-attr]
    before = load_file(folder / "model.safetensors")
    after = load_file(out / "model.safetensors")
    assert not any(
        name.startswith("layers.3.") for name in after
    )  # a layer that is not used is not written
    changed = {
        name for name, tensor in after.items() if not torch.equal(tensor, before[f"model.{name}"])
    }
    assert changed and not any(name.startswith("layers.0.") for name in changed)
    assert resolve(f"moderation:{out},dtype=float32", "judge") is not None
    faults = {"held": 4, "layers": 1, "frozen": 2, "lora": 0}
    with pytest.raises(PlanError) as caught:
        _settings(folder, out, folds=3, **faults).checked()
    assert len(caught.value.faults) == 3


def test_a_blend_of_two_is_one_classifier(tmp_path: Path, tiny: Path) -> None:
    from truing.judges.moderation.inputs import ModerationInput
    from truing.judges.moderation.scorer import ModerationScorer
    from truing.train.moderation.blend import blend_classifiers

    for name, seed in (("one", 0), ("two", 1)):
        train_moderation(
            _settings(tiny, tmp_path / name, folds=3, held=1, whole=True, seed=seed), [_source(90)]
        )
    members = [tmp_path / "one", tmp_path / "two"]
    result = blend_classifiers(members, [_source(90)], tmp_path / "both")
    assert "one and two" in result.card.method and 0 < result.card.n < 90
    made = {
        n: ModerationScorer(tmp_path / n, engine="torch", dtype="float32")
        for n in ("one", "two", "both")
    }
    assert made["both"].hash == result.card.judge_hash
    piece = [ModerationInput(("tell me",), "so i bake it")]
    z = {n: s.logits(piece)[0][0] for n, s in made.items()}
    told = json.loads((tmp_path / "both" / "blend.json").read_text())
    one, two = told["weights"]
    for k in range(3):  # worked out by hand from the members' own logits
        assert z["both"][k] == pytest.approx(
            one[k] * z["one"][k] + two[k] * z["two"][k] + told["bias"][k], abs=1e-4
        )
    by_hand = (
        one[3] * z["one"][3]
        + two[3] * z["two"][3]
        + told["gate"][0] * z["one"][0]
        + told["bias"][3]
    )
    assert z["both"][3] == pytest.approx(by_hand, abs=1e-4)
    lineage = made["both"].settings.lineage
    assert (
        lineage.prompts == made["one"].settings.lineage.prompts
    )  # what either learned, it never measures
    with pytest.raises(PlanError, match="both called one"):
        blend_classifiers([members[0], members[0]], [_source(90)], tmp_path / "x")
    with pytest.raises(PlanError, match="other data than"):
        blend_classifiers(members, [_source(60)], tmp_path / "x")
    with pytest.raises(PlanError, match="two members, not 1"):
        blend_classifiers(members[:1], [_source(90)], tmp_path / "x")
    with pytest.raises(PlanError, match="no training run"):
        blend_classifiers([members[0], tmp_path / "none"], [_source(90)], tmp_path / "x")
    (tmp_path / "both" / "blend.json").write_text(json.dumps({**told, "bias": [0.0]}))
    with pytest.raises(UserError, match="wants 2 rows of 17 weights"):
        ModerationScorer(tmp_path / "both", engine="torch")


def test_one_fold_says_that_its_card_is_worth_nothing(tiny: Path, tmp_path: Path) -> None:
    result = train_moderation(_settings(tiny, tmp_path / "out", folds=1, epochs=0.2), [_source(60)])
    assert "says nothing of new ones" in result.card.method


def test_wrong_settings_come_together(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError) as caught:
        _settings(
            tiny, tmp_path, folds=0, lr=0.0, form="half", ngram_bits=3, weights=(0.0,)
        ).checked()
    assert len(caught.value.faults) == 5


def _row(responses: tuple[str, ...], judgements: tuple[Judgement, ...], **sample: Any) -> Row:
    (made,) = with_ids([Sample(conversation=Conversation.of("a prompt"), source="s", **sample)])
    said = tuple(
        Response(sample_id=made.id, index=k, message=Message("assistant", t))
        for k, t in enumerate(responses)
    )
    return Row(sample=made, responses=said, judgements=judgements)


def _says(question: str, verdict: bool | None, index: int = 0, **more: Any) -> Judgement:
    return Judgement(
        sample_id="", index=index, judge="human:s", question=question, verdict=verdict, **more
    )


def test_targets_of_answers_and_prompts() -> None:
    (safe,) = examples_of_row(_row(("fine",), (_says("harmful", False),)), IDS)
    assert safe.targets[0] == 0 and np.isnan(safe.targets[1]) and set(safe.targets[3:]) == {0.0}
    (bad,) = examples_of_row(_row(("bad",), (_says("harmful", True),)), IDS)
    assert bad.targets[0] == 1 and all(np.isnan(bad.targets[3:]))
    (refused,) = examples_of_row(_row(("no",), (_says("refused", True),), expect="refuse"), IDS)
    assert refused.targets[:3] == (0.0, 1.0, 1.0)
    (complied,) = examples_of_row(_row(("yes",), (_says("refused", False),), expect="refuse"), IDS)
    assert complied.targets[:3] == (1.0, 1.0, 0.0)
    (asked,) = examples_of_row(_row((), (), expect="refuse", harms=(IDS[0],)), IDS)
    assert (
        asked.alone
        and asked.targets[1] == 1
        and asked.targets[3] == 1
        and np.isnan(asked.targets[4])
    )
    first, second = examples_of_row(
        _row(("a", "b"), (_says("preferred", True), _says("preferred", False, 1))), IDS
    )
    assert first.pair == second.pair and first.order < second.order
    assert examples_of_row(_row(("a",), ()), IDS) == [] == examples_of_row(_row((), ()), IDS)
    raters = (_says("harmful", True, rater="1"), _says("harmful", False, rater="2"))
    (soft,) = examples_of_row(_row(("a",), raters), IDS)
    assert soft.targets[0] == 0.5


def test_labels_outside_the_schema_are_named() -> None:
    with pytest.raises(DataError, match="'jaywalking' is no category"):
        examples_of_row(_row(("a",), (_says("harmful", True, harms={"jaywalking": 1.0}),)), IDS)


def test_a_set_without_labels_is_refused() -> None:
    class Empty(Made):
        def rows(self) -> Iterator[Row]:
            for row in super().rows():
                yield msgspec.structs.replace(row, judgements=())

    with pytest.raises(PlanError, match="no row has a label"):
        read_training_set(Empty(5), IDS, weight=1.0)


def test_tenths_take_each_prompt_once() -> None:
    low = read_training_set(Made(100), IDS, weight=1.0, tenths=(0, 4))
    high = read_training_set(Made(100), IDS, weight=1.0, tenths=(5, 9))
    keys = [{i.key for i in s.items} for s in (low, high)]
    assert not keys[0] & keys[1] and len(low.items) + len(high.items) == 100
    assert low.left_out == len(high.items)


def test_a_set_that_is_read_twice_has_two_names() -> None:
    one, two = give_unique_names(
        [
            read_training_set(Made(9), IDS, weight=1.0),
            read_training_set(Made(9, seed=1), IDS, weight=2.0),
        ]
    )
    assert {i.source for i in one.items} == {"made"} and {i.source for i in two.items} == {
        "made (2)"
    }
