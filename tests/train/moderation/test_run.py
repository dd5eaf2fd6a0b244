"""Runs end to end on tiny bases: they learn, resume to the same weights, and leave a judge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.train.moderation.builders import (
    CATEGORY_IDS,
    VIOLENCE,
    LabelledWords,
    make_settings,
    make_training_set,
)

from truing.core.errors import PlanError, RunError
from truing.core.flagged_categories import category_thresholds, flag_categories
from truing.core.types import Answer, Conversation, Judgement, Response, Sample
from truing.specs.resolve import resolve
from truing.train.moderation.run import train_moderation


def read_log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def judge_one(spec: str, prompt: str, answer: str) -> Judgement:
    judge = resolve(spec, "judge")
    sample = Sample(id="a", conversation=Conversation.of(prompt))
    judgement: Judgement = asyncio.run(
        judge.judge(sample, Response.of("a", 0, "m", Answer.of(answer)))
    )
    return judgement


def test_a_run_learns_and_its_card_says_how_well(trained: Path) -> None:
    card = json.loads((trained / "card.json").read_bytes())
    assert card["questions"]["harmful"]["scores"]["auroc"]["estimate"] > 0.95
    assert card["micro_f1"]["estimate"] > 0.9 and "chosen without the fold" in card["method"]
    assert card["per_category"][VIOLENCE]["n_positive"] == 90
    assert any("no positive row" in note for note in card["notes"])
    assert card["lineage"]["n_prompts"] == 180


def test_the_log_counts_the_steps_of_all_folds(trained: Path) -> None:
    log = read_log(trained)
    assert [row["step"] for row in log] == list(range(1, len(log) + 1))
    assert {row["fold"] for row in log} == {0, 1}
    assert log[-1]["loss"] < log[0]["loss"] / 3


def test_the_folder_is_a_judge(trained: Path) -> None:
    judge = resolve(f"moderation:{trained},dtype=float32,engine=torch", "judge")
    rows = list(LabelledWords(60, seed=5).rows())

    async def judge_all() -> list[Judgement]:
        calls = (judge.judge(row.sample, row.responses[0]) for row in rows)
        return list(await asyncio.gather(*calls))

    judgements = asyncio.run(judge_all())
    right = [j.verdict == row.judgements[0].verdict for j, row in zip(judgements, rows)]
    assert sum(right) >= 54
    harmful = judgements[0]
    assert harmful.harms[VIOLENCE] > 0.5 > harmful.harms[CATEGORY_IDS[5]]
    assert flag_categories(harmful.harms, category_thresholds(judge)) == (VIOLENCE,)
    assert judge.lineage.prompts and judge.lineage.base_sha256
    assert judge.lineage.hash == judge.scorer.hash


class Killed(Exception):
    """Stands in for a signal."""


def test_a_killed_run_resumes_to_the_same_weights(
    trained: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    def kill_at(step: int) -> Callable[[dict[str, Any]], None]:
        def on_log(row: dict[str, Any]) -> None:
            if row["step"] == step:
                raise Killed

        return on_log

    out = tmp_path / "model"
    steps = len(read_log(trained))
    settings, sources = make_settings(tiny_bert, out), [make_training_set()]
    for step in (10, steps - 3):  # once in the first fold, once in the second
        with pytest.raises(Killed):
            train_moderation(settings, sources, on_log=kill_at(step))
        assert not (out / "truing.json").exists()
    train_moderation(settings, sources)
    for name in ("model.safetensors", "head.safetensors"):
        expected, resumed = load_file(trained / name), load_file(out / name)
        assert all(torch.equal(expected[key], resumed[key]) for key in expected), name
    assert (out / "thresholds.json").read_bytes() == (trained / "thresholds.json").read_bytes()
    assert [row["step"] for row in read_log(out)] == list(range(1, steps + 1))


def test_the_folder_of_another_run_is_refused(trained: Path, tiny_bert: Path) -> None:
    with pytest.raises(PlanError, match=r"run.json: .* other settings \(seed\)"):
        train_moderation(make_settings(tiny_bert, trained, seed=1), [make_training_set()])
    with pytest.raises(PlanError, match="other settings or other data"):
        train_moderation(make_settings(tiny_bert, trained), [make_training_set(90)])
    run_file = trained / "run.json"
    content = run_file.read_bytes()
    run_file.write_bytes(content[:20])
    with pytest.raises(RunError, match=r"run.json: cannot be read"):
        train_moderation(make_settings(tiny_bert, trained), [make_training_set()])
    run_file.write_bytes(content)


def test_adapters_on_a_causal_base(
    tmp_path: Path, make_tiny_llama: Callable[[Path, int], Path]
) -> None:
    base, out = make_tiny_llama(tmp_path / "llama", 1), tmp_path / "out"
    settings = make_settings(base, out, lora=4, folds=2, lr=1e-2)
    result = train_moderation(settings, [make_training_set(90)])
    auroc = result.card.questions["harmful"].scores.auroc
    assert auroc is not None and auroc.estimate > 0.8
    judgement = judge_one(f"moderation:{out},dtype=float32,engine=torch", "tell me", "so i bake it")
    assert judgement.score is not None


def test_frozen_and_unused_layers_and_a_network_of_every_row(
    tmp_path: Path, make_tiny_llama: Callable[[Path, int], Path]
) -> None:
    base, out = make_tiny_llama(tmp_path / "llama", 4), tmp_path / "out"
    settings = make_settings(
        base, out, lora=4, folds=3, held=1, whole=True, layers=3, frozen=1, lr=1e-2
    )
    result = train_moderation(settings, [make_training_set(90)])
    assert "one of them measured" in result.card.method
    assert "learned every row" in result.card.method
    assert 0 < result.card.n < 90  # the measured fold alone
    names = sorted(path.name for path in (out / "folds").iterdir())
    assert names == ["fold-0", "mixed.npy", "whole"]
    auroc = result.card.questions["harmful"].scores.auroc
    assert auroc is not None and auroc.estimate > 0.8

    before, after = load_file(base / "model.safetensors"), load_file(out / "model.safetensors")
    assert not any(name.startswith("layers.3.") for name in after)  # unused, so not written
    changed = {n for n, tensor in after.items() if not torch.equal(tensor, before[f"model.{n}"])}
    assert changed and not any(name.startswith("layers.0.") for name in changed)
    assert judge_one(f"moderation:{out},dtype=float32", "tell me", "so").score is not None


def test_the_card_of_one_fold_says_that_it_measures_nothing_new(
    tiny_bert: Path, tmp_path: Path
) -> None:
    settings = make_settings(tiny_bert, tmp_path / "out", folds=1, epochs=0.2)
    result = train_moderation(settings, [make_training_set(60)])
    assert "says nothing of new ones" in result.card.method
