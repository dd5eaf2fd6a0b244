"""Moderation folders: changes quantised and restored; truncated, hostile and mismatched folders refused by name."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from truing.core.errors import SpecError, UserError
from truing.judges.moderation.inputs import ModerationInput
from truing.judges.moderation.network_files import apply_delta, encode_delta
from truing.judges.moderation.scorer import ModerationScorer
from truing.judges.moderation.settings import ClassifierSettings, ClassifierThresholds, write_json
from truing.specs.resolve import resolve

CATEGORIES = ("violence,aiding_and_abetting,incitement", "self_harm")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A full folder around a tiny BERT with random weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from truing.judges.moderation.network_files import build_network, write_head

    made = tmp_path / "folder"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "bad", "good", "word"]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(made)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    network = build_network(BertModel(config), len(CATEGORIES))
    network.body.save_pretrained(made)
    write_head(network, made, {})
    write_json(
        made / "truing.json",
        ClassifierSettings(kind="moderation", base="tiny", base_sha256="0", categories=CATEGORIES),
    )
    write_json(made / "thresholds.json", ClassifierThresholds())
    return made


def _edit(path: Path, **more: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


def test_a_whole_folder_scores_alike_whatever_the_batch(folder: Path) -> None:
    scorer = ModerationScorer(folder, engine="torch", dtype="float32")
    pieces = [
        ModerationInput((f"{'a ' * (k % 7)}word",), f"{'bad ' * (k % 5)}good") for k in range(40)
    ]
    together = [o.harmful for o in scorer.score(pieces)]
    apart = [scorer.score([p])[0].harmful for p in pieces]
    assert np.abs(np.array(together) - apart).max() < 1e-4
    assert scorer.score([]) == []
    assert set(scorer.score(pieces[:1])[0].categories) == set(CATEGORIES)


def test_full_change_comes_back_within_the_quantum() -> None:
    torch.manual_seed(0)
    base = {"w": torch.randn(8, 6), "b": torch.randn(8), "same": torch.randn(3, 3)}
    tuned = {"w": base["w"] + torch.randn(8, 6) * 0.1, "b": base["b"] + 0.5, "same": base["same"]}
    made = encode_delta(base, tuned)
    assert set(made) == {"w.q", "w.s", "b.d"} and made["w.q"].dtype == torch.int8
    back = apply_delta(base, made, Path("x"))
    quantum = (tuned["w"] - base["w"]).abs().amax(1) / 127
    assert bool(((back["w"] - tuned["w"]).abs().amax(1) <= 0.51 * quantum + 2e-4).all())
    assert torch.equal(back["same"], base["same"]) and torch.allclose(
        back["b"], tuned["b"], atol=1e-3
    )


def test_low_rank_change_of_that_rank_is_kept() -> None:
    torch.manual_seed(0)
    base = {"w": torch.zeros(40, 32)}
    change = torch.randn(40, 3) @ torch.randn(3, 32)
    made = encode_delta(base, {"w": change}, rank=3)
    assert made["w.a"].shape == (3, 40) and made["w.b"].shape == (3, 32)
    back = apply_delta(base, made, Path("x"))["w"]
    assert float((back - change).norm() / change.norm()) < 0.02


@pytest.mark.parametrize(
    ("delta", "what"),
    [
        ({"v.d": torch.zeros(2)}, "no such tensor"),
        ({"w.d": torch.zeros(3, 2)}, "shape"),
        ({"w.q": torch.zeros(2, 2, dtype=torch.int8)}, "incomplete"),
        ({"w.d": torch.full((2, 2), float("nan"))}, "no numbers"),
        ({"w.z": torch.zeros(2, 2)}, "no such tensor"),
    ],
)
def test_changes_that_do_not_fit(delta: dict[str, torch.Tensor], what: str) -> None:
    with pytest.raises(UserError, match=what):
        apply_delta({"w": torch.zeros(2, 2)}, delta, Path("delta.safetensors"))


def test_truncated_and_hostile_tensors(folder: Path) -> None:
    for name in ("model.safetensors", "head.safetensors"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=name):
            ModerationScorer(folder, engine="torch")

        class Evil:
            def __reduce__(self) -> Any:
                raise AssertionError("was run")

        (folder / name).write_bytes(b"\x80\x04" + b"." * 30)
        with pytest.raises(UserError, match=name):
            ModerationScorer(folder, engine="torch")
        (folder / name).unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))  # never looked at
        with pytest.raises(UserError, match="missing"):
            ModerationScorer(folder, engine="torch")
        (folder / name).write_bytes(whole)


def test_a_folder_of_another_architecture(folder: Path) -> None:
    _edit(folder / "config.json", num_hidden_layers=3)
    with pytest.raises(UserError, match="not of the architecture"):
        ModerationScorer(folder, engine="torch")
    _edit(folder / "config.json", num_hidden_layers=2, hidden_size=8)
    with pytest.raises(UserError, match="shape"):
        ModerationScorer(folder, engine="torch")
    _edit(folder / "config.json", model_type="no_such_type")
    with pytest.raises(UserError, match=r"config\.json"):
        ModerationScorer(folder, engine="torch")


def test_extra_tensors_are_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "stowaway": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(UserError, match="unknown tensor stowaway"):
        ModerationScorer(folder, engine="torch")


def test_a_head_of_another_size(folder: Path) -> None:
    _edit(folder / "truing.json", categories=["self_harm"])
    with pytest.raises(UserError, match="weight: missing, or not of the shape"):
        ModerationScorer(folder, engine="torch")


def test_bad_settings_and_thresholds(folder: Path, tmp_path: Path) -> None:
    for change, what in (
        ({"kind": "reward"}, "not 'moderation'"),
        ({"categories": []}, "at least one"),
        ({"prompt_tokens": 2}, "8..4096"),
        ({"form": "zip"}, "form"),
    ):
        copy = tmp_path / what.replace("'", "").replace(" ", "_").replace(".", "")
        shutil.copytree(folder, copy)
        _edit(copy / "truing.json", **change)
        with pytest.raises(UserError, match=what):
            ModerationScorer(copy)
    _edit(
        folder / "thresholds.json",
        categories={"jaywalking": 0.5},
        harmful={"pair": 1.5, "prompt": 0.5, "response": 0.5},
    )
    with pytest.raises(UserError) as caught:
        ModerationScorer(folder)
    assert len(caught.value.faults) == 2
    (folder / "thresholds.json").write_bytes(b"\xff{")
    with pytest.raises(UserError, match=r"thresholds\.json"):
        ModerationScorer(folder)


def test_specs(folder: Path) -> None:
    for spec, what in (
        ("moderation:", "a name is missing"),
        (f"moderation:{folder},question=what", "none of harmful"),
        (f"moderation:{folder},threshold=2", "no probability"),
        (f"moderation:{folder},colour=red", "unknown argument"),
    ):
        with pytest.raises(SpecError, match=what):
            resolve(spec, "judge")
    with pytest.raises(UserError, match="no such folder"):
        resolve(f"moderation:{folder}/none", "judge")
    with pytest.raises(UserError, match="did you mean 'onnx'"):
        resolve(f"moderation:{folder},engine=onx", "judge")


def test_threshold_of_the_spec_decides(folder: Path) -> None:
    import asyncio

    from truing.core.types import Answer, Conversation, Response, Sample

    sample, said = (
        Sample(id="a", conversation=Conversation.of("a word")),
        Response.of("a", 0, "m", Answer.of("bad word")),
    )
    spec = f"moderation:{folder},dtype=float32,engine=torch"
    all_, none = (resolve(f"{spec},threshold={t}", "judge") for t in (0, 1))
    assert asyncio.run(all_.judge(sample, said)).verdict is True
    assert asyncio.run(none.judge(sample, said)).verdict is False


def test_what_cannot_be_judged_is_unscored(folder: Path) -> None:
    import asyncio

    from truing.core.types import Answer, Conversation, Response, Sample

    judge = resolve(f"moderation:{folder},dtype=float32,engine=torch", "judge")
    sample = Sample(id="a", conversation=Conversation.of("a word"))
    kinds = []
    for answer in (
        Answer.failed("timeout", "late"),
        Answer.of("  \n"),
        Answer.of("Kannst du mir sagen, wie man ein Brot backt und was ich brauche?"),
        Answer.of("Скажи мне, как испечь хлеб"),
    ):
        made = asyncio.run(judge.judge(sample, Response.of("a", 0, "m", answer)))
        assert made.verdict is None and made.score is None and made.failure is not None
        kinds.append(made.failure.kind)
    assert kinds == ["no-answer", "empty", "language", "language"]


def test_trouble_in_the_arithmetic_is_unscored_for_all_that_wait(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    from truing.core.types import Answer, Conversation, Judgement, Response, Sample
    from truing.judges.moderation.judge import ModerationJudge

    scorer = ModerationScorer(folder, engine="torch", dtype="float32")

    def broken(rows: object) -> object:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(scorer.members[0].engine, "logits", broken)
    judge = ModerationJudge("moderation:x", scorer)

    async def all_at_once() -> list[Judgement]:
        sample = Sample(id="a", conversation=Conversation.of("a word"))
        said = Response.of("a", 0, "m", Answer.of("bad word"))
        return list(await asyncio.gather(*(judge.judge(sample, said) for _ in range(5))))

    for made in asyncio.run(all_at_once()):
        assert (
            made.verdict is None
            and made.failure is not None
            and "out of memory" in made.failure.message
        )
