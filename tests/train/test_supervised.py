"""The supervised loop: the big batch's loss, resumes to the same next step, stops at NaN, folders that others read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")
import torch
from tests.train.parts import item, settings, source

from truing.core.errors import DataError, PlanError, RunError, UserError
from truing.core.types import Conversation, Message
from truing.train import checkpoint as ck
from truing.train import objectives
from truing.train.examples import TrainingSet
from truing.train.model_folder import read_model_card
from truing.train.settings import TRAINING_KINDS
from truing.train.supervised import NonFiniteLossError, split_micro_batches, train_supervised
from truing.train.training_log import read_log


def wrap(conversation: Conversation) -> Conversation:
    """A teacher's prompt."""
    return Conversation(
        (
            Message("system", "You are a patient helper who answers in one short sentence."),
            *conversation.messages,
        )
    )


def data(kind: str, n: int = 12) -> list[TrainingSet]:
    """Rows for a kind."""
    if kind == "cost":
        return [source(n, signs=(1, -1))]
    if kind == "kto":
        made = source(n, width=1)
        return [
            msgspec.structs.replace(
                made,
                items=tuple(
                    msgspec.structs.replace(i, desirable=k % 2 == 0)
                    for k, i in enumerate(made.items)
                ),
            )
        ]
    return [source(n, width=1 if kind in ("sft", "distil") else 2)]


def go(kind: str, out: str, base: str, **more: Any) -> list[dict[str, Any]]:
    """Trains and gives the log."""
    train_supervised(
        settings(kind, out, base, **more), data(kind), wrap=wrap if kind == "distil" else None
    )
    return list(read_log(out))


def numbers(rows: list[dict[str, Any]]) -> list[float]:
    return [x for r in rows for x in (r["loss"], r["grad_norm"])]


@pytest.mark.parametrize("kind", TRAINING_KINDS)
def test_every_kind_learns_and_leaves_a_folder(kind: str, base: str, out: str) -> None:
    rows = go(kind, out, base, steps=12, lr=5e-3, batch=6, micro=6, seed=1)
    assert [r["step"] for r in rows] == list(range(1, 13))
    assert rows[-1]["loss"] < rows[0]["loss"]
    card = read_model_card(out)
    assert (
        card is not None
        and card.kind == kind
        and card.lineage.hash
        and card.lineage.data == ("pairs",)
    )
    assert len(card.lineage.prompts) == 12 and card.base_sha256 == card.lineage.base_sha256
    assert (Path(out) / "model.safetensors").is_file() and (
        Path(out) / "adapter" / "adapter_config.json"
    ).is_file()
    assert card.dimension == {"reward": "helpful", "cost": "safe"}.get(kind, "")


@pytest.mark.parametrize("kind", [k for k in TRAINING_KINDS if k != "kto"])
@pytest.mark.parametrize("lora", [0, 4])
def test_accumulation_gives_the_big_batchs_loss(
    kind: str, lora: int, base: str, tmp_path: Path
) -> None:
    whole = go(kind, str(tmp_path / "a"), base, batch=6, micro=6, lora=lora)
    parts = go(kind, str(tmp_path / "b"), base, batch=6, micro=2, lora=lora)
    odd = go(kind, str(tmp_path / "c"), base, batch=6, micro=4, lora=lora)
    assert numbers(parts) == pytest.approx(numbers(whole), rel=2e-4)
    assert numbers(odd) == pytest.approx(numbers(whole), rel=2e-4)


def test_micro_batches_are_near_equal() -> None:
    rows: Any = list(range(7))
    assert [len(p) for p in split_micro_batches(rows, 3)] == [2, 3, 2]
    assert [len(p) for p in split_micro_batches(rows[:3], 2, least=2)] == [3]
    assert [len(p) for p in split_micro_batches(rows[:1], 4)] == [1]


class Killed(Exception):
    """Stands in for a signal."""


@pytest.mark.parametrize("kind", ["dpo", "sft"])
def test_a_resumed_run_is_the_same_run(kind: str, base: str, tmp_path: Path) -> None:
    one = go(kind, str(tmp_path / "one"), base, steps=6)

    def kill(row: dict[str, Any]) -> None:
        if row["step"] == 5:
            raise Killed

    two = settings(kind, str(tmp_path / "two"), base, steps=6)
    with pytest.raises(Killed):
        train_supervised(two, data(kind), tell=kill)
    assert ck.latest_checkpoint(tmp_path / "two") == tmp_path / "two" / "checkpoint-4"
    assert [r["step"] for r in read_log(tmp_path / "two")] == [1, 2, 3, 4, 5]
    again = train_supervised(two, data(kind))
    assert again.done_now == 2 and again.steps == 6
    both = list(read_log(tmp_path / "two"))
    assert [r["step"] for r in both] == [1, 2, 3, 4, 5, 6]
    assert numbers(both) == pytest.approx(numbers(one), rel=1e-6)
    third = train_supervised(two, data(kind))
    assert third.done_now == 0 and third.lineage == again.lineage
    a, b = (tmp_path / n / "model.safetensors" for n in ("one", "two"))
    from safetensors.torch import load_file

    left, right = load_file(a), load_file(b)
    assert all(torch.allclose(left[k], right[k], atol=1e-6) for k in left)


def test_checkpointing_and_bf16_change_memory_not_the_run(base: str, tmp_path: Path) -> None:
    plain = go("sft", str(tmp_path / "a"), base)
    saved = go("sft", str(tmp_path / "b"), base, checkpointing=True)
    half = go("sft", str(tmp_path / "c"), base, dtype="bfloat16")
    assert numbers(saved) == pytest.approx(numbers(plain), rel=1e-5)
    assert [r["loss"] for r in half] == pytest.approx([r["loss"] for r in plain], rel=0.03)
    assert numbers(half) != numbers(plain)


def test_seeds(base: str, tmp_path: Path) -> None:
    a, b, c = (
        numbers(go("dpo", str(tmp_path / n), base, seed=s))
        for n, s in (("a", 0), ("b", 0), ("c", 1))
    )
    assert a == b and a != c


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_row(
    base: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = objectives.OBJECTIVES["sft"]

    def broken(t: Any, batch: Any) -> Any:
        loss, shown = inner(t, batch)
        return (loss * math.nan if any(e.item.name == "pairs#7" for e in batch) else loss), shown

    monkeypatch.setitem(objectives.OBJECTIVES, "sft", broken)
    with pytest.raises(NonFiniteLossError, match=r"the loss of pairs#7 is not finite") as error:
        go("sft", out, base, steps=20)
    good = ck.latest_checkpoint(out)
    assert good is not None and str(good) in str(error.value)
    state = ck.load_torch_file(good, "state.pt")
    assert all(bool(torch.isfinite(v).all()) for v in state["weights"].values())
    assert not (Path(out) / "truing.json").exists()
    assert len(list(read_log(out))) == ck.read_identity(good).step


def test_bad_input(base: str, bare: str, out: str) -> None:
    ok = data("dpo")
    with pytest.raises(PlanError, match="reads 256 tokens"):
        train_supervised(settings("dpo", out, base, max_length=4096), ok)
    with pytest.raises(UserError, match="no chat template; --template plain"):
        train_supervised(settings("dpo", out, bare), ok)
    assert train_supervised(settings("dpo", out + "2", bare, template="plain"), ok).steps == 4
    long = [TrainingSet(spec="long", sha256="1", items=(item(0, answers=("word " * 900, "no")),))]
    with pytest.raises(DataError, match="long: nothing left after filtering: 1 answer longer"):
        train_supervised(settings("dpo", out + "3", base), long)
    same = [TrainingSet(spec="same", sha256="1", items=(item(0, answers=("yes", "yes")),))]
    with pytest.raises(DataError, match="1 equal as tokens"):
        train_supervised(settings("dpo", out + "4", base), same)
    with pytest.raises(PlanError) as faults:
        train_supervised(settings("dpo", out, base, batch=0, lr=-1.0, dtype="float16"), ok)
    assert len(faults.value.faults) == 3
    with pytest.raises(UserError, match="no such folder"):
        train_supervised(settings("dpo", out, "./nowhere"), ok)


def test_a_folder_of_another_run_is_refused(base: str, bare: str, out: str) -> None:
    train_supervised(settings("dpo", out, base), data("dpo"))
    with pytest.raises(PlanError, match="other settings or other data"):
        train_supervised(settings("dpo", out, base, lr=0.5), data("dpo"))
    with pytest.raises(PlanError, match="other settings or other data"):
        train_supervised(settings("dpo", out, base), data("dpo", 5))
    with pytest.raises(PlanError, match="of a dpo run"):
        train_supervised(settings("reward", out, base), data("reward"))
    with pytest.raises(PlanError, match="another base"):
        train_supervised(settings("dpo", out, bare, template="plain"), data("dpo"))


def test_one_run_at_a_time(base: str, out: str) -> None:
    from truing.train.run_lock import lock_run_folder

    with lock_run_folder(Path(out)), pytest.raises(RunError, match="another process"):
        train_supervised(settings("dpo", out, base), data("dpo"))


def test_a_full_disk_keeps_the_checkpoint_before(
    base: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    inner = torch.save
    calls = []

    def save(*args: Any, **more: Any) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        inner(*args, **more)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(RunError, match="the disk is full"):
        go("sft", out, base)
    monkeypatch.undo()
    assert [p.name for p in ck.list_checkpoints(out)] == ["checkpoint-2"]
    assert train_supervised(settings("sft", out, base), data("sft")).done_now == 2


def test_the_manifest_says_what_was_mixed(base: str, out: str) -> None:
    mixed = [source(6, spec="a"), source(6, spec="b", weight=0.5, benign=True)]
    train_supervised(settings("dpo", out, base), mixed)
    manifest = json.loads((Path(out) / "manifest.json").read_text())
    assert [(s["spec"], s["rows"], s["weight"]) for s in manifest["sources"]] == [
        ("a", 6, 1.0),
        ("b", 6, 0.5),
    ]
    assert manifest["benign_share"] == pytest.approx(1 / 3) and manifest["steps"] == 4
    assert manifest["red_model"] is None


def test_the_hash_is_that_of_the_weights_not_of_where_they_lie(base: str, tmp_path: Path) -> None:
    one, two = (
        train_supervised(settings("sft", str(tmp_path / n), base), data("sft"))
        for n in ("one", "two")
    )
    assert one.lineage.hash == two.lineage.hash != ""
    other = train_supervised(settings("sft", str(tmp_path / "other"), base, lr=2e-3), data("sft"))
    assert other.lineage.hash != one.lineage.hash


def test_a_trained_folder_is_a_base(base: str, out: str) -> None:
    first = train_supervised(settings("sft", out, base), data("sft"))
    second = train_supervised(settings("dpo", out + "2", out), data("dpo"))
    assert second.lineage.data == ("pairs", "pairs")
    assert set(first.lineage.prompts) <= set(second.lineage.prompts)
    reward = train_supervised(settings("reward", out + "3", base), data("reward"))
    more = train_supervised(settings("reward", out + "4", out + "3", lr=1e-9), data("reward"))
    assert more.lineage.prompts == reward.lineage.prompts
    logs = list(read_log(out + "3")), list(read_log(out + "4"))
    assert logs[1][0]["accuracy"] >= logs[0][0]["accuracy"]
