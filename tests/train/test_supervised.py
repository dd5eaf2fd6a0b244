"""Supervised runs end to end: every kind, resuming, bad input, full disks, further training."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from tests.train.builders import make_example, make_settings, make_training_set
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from truing.core.errors import DataError, PlanError, RunError, UserError
from truing.core.types import Conversation, Message
from truing.train import checkpoint as ck
from truing.train.examples import TrainingSet
from truing.train.model_card import read_model_card
from truing.train.run_lock import lock_run_folder
from truing.train.settings import TRAINING_KINDS
from truing.train.supervised import train_supervised
from truing.train.training_log import read_log


def add_teacher_prompt(conversation: Conversation) -> Conversation:
    """Returns the conversation behind a teacher's system prompt."""
    system = Message("system", "You are a patient helper who answers in one short sentence.")
    return Conversation((system, *conversation.messages))


def training_sets(kind: str, n: int = 12) -> list[TrainingSet]:
    """Returns n examples that fit the kind of training."""
    if kind == "cost":
        return [make_training_set(n, signs=(1, -1))]
    source = make_training_set(n, answers=1 if kind in ("sft", "distil", "kto") else 2)
    if kind == "kto":
        items = tuple(
            msgspec.structs.replace(item, desirable=k % 2 == 0)
            for k, item in enumerate(source.items)
        )
        source = msgspec.structs.replace(source, items=items)
    return [source]


def train_and_read_log(kind: str, out: str, base: str, **fields: Any) -> list[dict[str, Any]]:
    """Trains with these settings and returns the lines of the log."""
    wrap = add_teacher_prompt if kind == "distil" else None
    train_supervised(make_settings(kind, out, base, **fields), training_sets(kind), wrap=wrap)
    return list(read_log(out))


def logged_numbers(rows: list[dict[str, Any]]) -> list[float]:
    """Returns the loss and the gradient norm of every step."""
    return [value for row in rows for value in (row["loss"], row["grad_norm"])]


@pytest.mark.parametrize("kind", TRAINING_KINDS)
def test_every_kind_learns_and_leaves_a_model_folder(kind: str, base: str, out: str) -> None:
    rows = train_and_read_log(kind, out, base, steps=12, lr=5e-3, batch=6, micro=6, seed=1)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[-1]["loss"] < rows[0]["loss"]
    card = read_model_card(out)
    assert card is not None and card.kind == kind
    assert card.lineage.hash and card.lineage.data == ("pairs",)
    assert len(card.lineage.prompts) == 12 and card.base_sha256 == card.lineage.base_sha256
    assert (Path(out) / "model.safetensors").is_file()
    assert (Path(out) / "adapter" / "adapter_config.json").is_file()
    assert card.dimension == {"reward": "helpful", "cost": "safe"}.get(kind, "")


class Killed(Exception):
    """Stands in for a signal."""


@pytest.mark.parametrize("kind", ["dpo", "sft"])
def test_a_resumed_run_is_the_same_run(kind: str, base: str, tmp_path: Path) -> None:
    uninterrupted = train_and_read_log(kind, str(tmp_path / "one"), base, steps=6)

    def kill_at_step_5(row: dict[str, Any]) -> None:
        if row["step"] == 5:
            raise Killed

    settings = make_settings(kind, str(tmp_path / "two"), base, steps=6)
    with pytest.raises(Killed):
        train_supervised(settings, training_sets(kind), on_log=kill_at_step_5)
    assert ck.latest_checkpoint(tmp_path / "two") == tmp_path / "two" / "checkpoint-4"
    assert [row["step"] for row in read_log(tmp_path / "two")] == [1, 2, 3, 4, 5]

    resumed = train_supervised(settings, training_sets(kind))
    assert resumed.done_now == 2 and resumed.steps == 6
    rows = list(read_log(tmp_path / "two"))
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert logged_numbers(rows) == pytest.approx(logged_numbers(uninterrupted), rel=1e-6)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(one[key], two[key], atol=1e-6) for key in one)

    finished = train_supervised(settings, training_sets(kind))
    assert finished.done_now == 0 and finished.lineage == resumed.lineage


def test_a_base_that_cannot_be_trained_so_is_refused(
    base: str, base_without_template: str, out: str
) -> None:
    sources = training_sets("dpo")
    with pytest.raises(PlanError, match="reads 256 tokens"):
        train_supervised(make_settings("dpo", out, base, max_length=4096), sources)
    with pytest.raises(UserError, match="no chat template; --template plain"):
        train_supervised(make_settings("dpo", out, base_without_template), sources)
    plain = make_settings("dpo", out + "2", base_without_template, template="plain")
    assert train_supervised(plain, sources).steps == 4
    with pytest.raises(UserError, match="no such folder"):
        train_supervised(make_settings("dpo", out, "./nowhere"), sources)


def test_data_without_usable_rows_are_refused(base: str, out: str) -> None:
    too_long = make_example(0, answers=("word " * 900, "no"))
    source = TrainingSet(spec="long", sha256="1", items=(too_long,))
    with pytest.raises(DataError, match="long: nothing left after filtering: 1 answer longer"):
        train_supervised(make_settings("dpo", out, base), [source])


def test_the_folder_of_another_run_is_refused(
    base: str, base_without_template: str, out: str
) -> None:
    train_supervised(make_settings("dpo", out, base), training_sets("dpo"))
    with pytest.raises(PlanError, match=r"other settings \(lr\)"):
        train_supervised(make_settings("dpo", out, base, lr=0.5), training_sets("dpo"))
    with pytest.raises(PlanError, match="other settings or other data"):
        train_supervised(make_settings("dpo", out, base), training_sets("dpo", 5))
    with pytest.raises(PlanError, match="belongs to a dpo run"):
        train_supervised(make_settings("reward", out, base), training_sets("reward"))
    other_base = make_settings("dpo", out, base_without_template, template="plain")
    with pytest.raises(PlanError, match="another base"):
        train_supervised(other_base, training_sets("dpo"))


def test_a_folder_that_another_process_trains_into_is_refused(base: str, out: str) -> None:
    with lock_run_folder(Path(out)), pytest.raises(RunError, match="another process"):
        train_supervised(make_settings("dpo", out, base), training_sets("dpo"))


def test_a_full_disk_keeps_the_previous_checkpoint(
    base: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save
    calls = []

    def fail_from_the_second_call(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*args, **kwargs)

    monkeypatch.setattr(torch, "save", fail_from_the_second_call)
    with pytest.raises(RunError, match="the disk is full"):
        train_and_read_log("sft", out, base)
    monkeypatch.undo()
    assert [path.name for path in ck.list_checkpoints(out)] == ["checkpoint-2"]
    result = train_supervised(make_settings("sft", out, base), training_sets("sft"))
    assert result.done_now == 2


@contextlib.contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Context in which a write beyond `size` bytes of a file fails, as on a full disk."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("kind", ["sft", "reward"])
def test_a_disk_that_fills_while_the_model_is_written(kind: str, base: str, tmp_path: Path) -> None:
    whole = train_supervised(make_settings(kind, str(tmp_path / "a"), base), training_sets(kind))
    state = (whole.folder / "checkpoint-4" / "state.pt").stat().st_size
    model = (whole.folder / "model.safetensors").stat().st_size
    assert state < model
    settings = make_settings(kind, str(tmp_path / "b"), base)
    with no_file_above((state + model) // 2), pytest.raises(RunError, match="the disk is full"):
        train_supervised(settings, training_sets(kind))
    assert read_model_card(settings.folder) is None
    assert not (settings.folder / "model.safetensors").exists()
    result = train_supervised(settings, training_sets(kind))
    assert (result.finished, result.done_now) == (True, 0)
    weights = [(run.folder / "model.safetensors").read_bytes() for run in (whole, result)]
    assert weights[0] == weights[1]


def test_a_checkpoint_cut_short_is_named_and_the_one_before_it_resumes(base: str, out: str) -> None:
    train_and_read_log("sft", out, base)
    before = (Path(out) / "model.safetensors").read_bytes()
    (Path(out) / "truing.json").unlink()  # as if killed before the model was complete
    damaged = Path(out) / "checkpoint-4"
    content = (damaged / "state.pt").read_bytes()
    (damaged / "state.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match=r"checkpoint-4/state.pt: cannot be read .* remove this"):
        train_and_read_log("sft", out, base)
    shutil.rmtree(damaged)
    assert [row["step"] for row in train_and_read_log("sft", out, base)] == [1, 2, 3, 4]
    assert (Path(out) / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("kind", ["sft", "reward"])
def test_a_tokenizer_of_another_model_is_refused(
    kind: str, base: str, out: str, tmp_path: Path
) -> None:
    folder = tmp_path / "foreign"
    shutil.copytree(base, folder)
    words = {"<pad>": 0, "<eos>": 1} | {f"w{k}": k for k in range(2, 9000)}
    inner = Tokenizer(WordLevel(words, unk_token="<pad>"))
    inner.pre_tokenizer = Whitespace()
    foreign = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")
    foreign.save_pretrained(folder)
    settings = make_settings(kind, out, str(folder), template="plain")
    with pytest.raises(UserError, match="the tokenizer has 9,000 tokens and the model"):
        train_supervised(settings, training_sets(kind))


def test_the_manifest_lists_what_was_mixed(base: str, out: str) -> None:
    sources = [
        make_training_set(6, spec="a"),
        make_training_set(6, spec="b", weight=0.5, benign=True),
    ]
    train_supervised(make_settings("dpo", out, base), sources)
    manifest = json.loads((Path(out) / "manifest.json").read_text())
    listed = [(s["spec"], s["rows"], s["weight"]) for s in manifest["sources"]]
    assert listed == [("a", 6, 1.0), ("b", 6, 0.5)]
    assert manifest["benign_share"] == pytest.approx(1 / 3) and manifest["steps"] == 4
    assert manifest["red_model"] is None


def test_the_lineage_hash_is_that_of_the_weights_wherever_they_are(
    base: str, tmp_path: Path
) -> None:
    sources = training_sets("sft")
    one, two, other = (
        train_supervised(make_settings("sft", str(tmp_path / name), base, lr=lr), sources)
        for name, lr in (("one", 1e-3), ("two", 1e-3), ("other", 2e-3))
    )
    assert one.lineage.hash == two.lineage.hash != ""
    assert other.lineage.hash != one.lineage.hash


def test_a_trained_folder_can_be_trained_further(base: str, out: str) -> None:
    sft = train_supervised(make_settings("sft", out, base), training_sets("sft"))
    dpo = train_supervised(make_settings("dpo", out + "2", out), training_sets("dpo"))
    assert dpo.lineage.data == ("pairs", "pairs")
    assert set(sft.lineage.prompts) <= set(dpo.lineage.prompts)


def test_a_reward_model_that_is_trained_further_keeps_its_head(base: str, out: str) -> None:
    sources = training_sets("reward")
    first = train_supervised(make_settings("reward", out, base), sources)
    further = train_supervised(make_settings("reward", out + "2", out, lr=1e-9), sources)
    assert further.lineage.prompts == first.lineage.prompts
    first_log, further_log = list(read_log(out)), list(read_log(out + "2"))
    assert further_log[0]["accuracy"] >= first_log[0]["accuracy"]
