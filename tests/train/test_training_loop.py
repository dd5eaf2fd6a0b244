"""Micro-batches, gradient accumulation, seeds, precision, and losses that are not finite."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.test_supervised import logged_numbers, train_and_read_log

from truing.distributed.process_group import ProcessGroup
from truing.train import checkpoint as ck
from truing.train import objectives
from truing.train.settings import TRAINING_KINDS
from truing.train.training_log import read_log
from truing.train.training_loop import NonFiniteLossError, _StepTotals, split_micro_batches


def test_micro_batches_are_near_equal() -> None:
    rows: Any = list(range(7))
    assert [len(part) for part in split_micro_batches(rows, 3)] == [2, 3, 2]
    assert [len(part) for part in split_micro_batches(rows[:1], 4)] == [1]
    # At least two rows in each part goes before at most two.
    assert [len(part) for part in split_micro_batches(rows[:3], 2, min_size=2)] == [3]
    assert [row for part in split_micro_batches(rows, 3) for row in part] == rows


def test_step_totals_average_metrics_over_the_rows_that_have_them() -> None:
    totals = _StepTotals()
    totals.add(0.5, {"accuracy": 1.0, "kl": 2.0}, rows=1)
    totals.add(0.25, {"accuracy": 0.0}, rows=3)
    assert totals.reduce(ProcessGroup()) == (0.75, {"accuracy": 0.25, "kl": 2.0})


@pytest.mark.parametrize("kind", [k for k in TRAINING_KINDS if k != "kto"])
@pytest.mark.parametrize("lora", [0, 4])
def test_accumulation_gives_the_loss_of_the_whole_batch(
    kind: str, lora: int, base: str, tmp_path: Path
) -> None:
    logs = [
        train_and_read_log(kind, str(tmp_path / f"micro-{m}"), base, batch=6, micro=m, lora=lora)
        for m in (6, 2, 4)
    ]
    whole, even, uneven = (logged_numbers(rows) for rows in logs)
    assert even == pytest.approx(whole, rel=2e-4)
    assert uneven == pytest.approx(whole, rel=2e-4)


def test_gradient_checkpointing_and_bfloat16_hardly_change_the_run(
    base: str, tmp_path: Path
) -> None:
    plain = train_and_read_log("sft", str(tmp_path / "a"), base)
    recomputed = train_and_read_log("sft", str(tmp_path / "b"), base, checkpointing=True)
    half = train_and_read_log("sft", str(tmp_path / "c"), base, dtype="bfloat16")
    assert logged_numbers(recomputed) == pytest.approx(logged_numbers(plain), rel=1e-5)
    assert [r["loss"] for r in half] == pytest.approx([r["loss"] for r in plain], rel=0.03)
    assert logged_numbers(half) != logged_numbers(plain)


def test_a_seed_gives_the_same_run(base: str, tmp_path: Path) -> None:
    first, again, other_seed = (
        logged_numbers(train_and_read_log("dpo", str(tmp_path / name), base, seed=seed))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again and first != other_seed


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_row(
    base: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = objectives.OBJECTIVES["sft"]

    def nan_for_row_7(trainable: Any, batch: Any) -> Any:
        loss, metrics = objective(trainable, batch)
        is_bad = any(e.item.name == "pairs#7" for e in batch)
        return (loss * math.nan if is_bad else loss), metrics

    monkeypatch.setitem(objectives.OBJECTIVES, "sft", nan_for_row_7)
    with pytest.raises(NonFiniteLossError, match=r"the loss of pairs#7 is not finite") as error:
        train_and_read_log("sft", out, base, steps=20)
    good = ck.latest_checkpoint(out)
    assert good is not None and str(good) in str(error.value)
    weights = ck.load_torch_file(good, "state.pt")["weights"]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
    assert not (Path(out) / "truing.json").exists()
    assert len(list(read_log(out))) == ck.read_identity(good).step
