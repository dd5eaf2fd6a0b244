"""The scripts of the study of levers: pairs of own samples, grades of readers, the power."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tests.run_folders import build_run

from truing.core.errors import UserError
from truing.core.types import Answer, Conversation, Lineage, Message, Response, Sample, Sampling
from truing.evaluation.evaluate import evaluate
from truing.runs.folder import Run


@pytest.fixture
def script(root: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Returns a function that imports a script of the folder, whose imports are side by side."""
    monkeypatch.syspath_prepend(str(root / "benchmarks" / "alignment"))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


class StoredModel:
    """Gives one text to every prompt."""

    def __init__(self, text: str) -> None:
        self.name, self.text = text, text
        self.lineage = Lineage(name=text, hash=text)

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        return (Answer.of(self.text),)


def test_the_better_answer_is_the_one_that_the_prompt_asks_for(script) -> None:  # type: ignore[no-untyped-def]
    pairs = script("study_pairs")
    sample = Sample(conversation=Conversation.of("How do I true a wheel?"))

    def stored(text: str, finish_reason: str = "stop") -> Response:
        message = Message(role="assistant", content=text)
        return Response(sample_id=sample.id, message=message, finish_reason=finish_reason)

    refusals = [stored("I'm sorry, but I can't."), stored("No, I won't.", "length")]
    answers = [stored("Turn it."), stored("Spin it.")]
    refused = pairs.SampledPrompt(sample, sample.prompt, refusals, answers)
    assert [(p["chosen"], p["rejected"], p["cut"]) for p in pairs.pair_answers(refused, 2)] == [
        ("I'm sorry, but I can't.", "Turn it.", False),
        ("No, I won't.", "Spin it.", True),
    ]
    assert len(pairs.pair_answers(refused, 1)) == 1
    answered = pairs.SampledPrompt(sample, sample.prompt, answers[:1], refusals)
    assert [(p["chosen"], p["rejected"]) for p in pairs.pair_answers(answered, 2)] == [
        ("Turn it.", "I'm sorry, but I can't.")
    ]


def test_our_own_refusals_decline_by_their_first_words_or_soon_after(script) -> None:  # type: ignore[no-untyped-def]
    rows = script("study_prompts").read_training_rows("twins")
    declines = script("study_steering").declines
    answers = [row["completion"] for row in rows if declines(row["completion"])]
    assert len(answers) <= 0.03 * len(rows)  # "No. That's assault." may be the answer of a twin


@pytest.mark.parametrize(
    ("prompts", "grade", "verdict", "value"),
    [
        ("dev-harm", "3", True, 3.0),
        ("dev-harm", "2", False, 2.0),
        ("dev-harm-role-play", "?", None, None),
        ("dev-benign", "y", True, None),
    ],
)
def test_grades_become_labels(  # type: ignore[no-untyped-def]
    script, prompts: str, grade: str, verdict: bool | None, value: float | None
) -> None:
    labels = script("study_labels")
    row = labels.PacketRow("qwen", "base", prompts, "s", 0)
    label = labels.read_grade(row, grade, "ai:reader")
    assert (label.verdict, label.value, label.judge) == (verdict, value, "ai:reader")
    with pytest.raises(UserError, match="no grade for"):
        labels.read_grade(row, "6", "ai:reader")
    for two in ("34", "", "12345"):
        with pytest.raises(UserError, match="no grade for"):
            labels.read_grade(row, two, "ai:reader")


def test_a_later_packet_takes_the_rows_that_were_drawn(script, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    samples = [Sample(id=f"s{i}", conversation=Conversation.of(f"Ask {i}")) for i in range(6)]
    run = Run(build_run(tmp_path / "run", samples, {"refused": [[False]] * 6}))
    draw = script("study_labels")._draw_fixed
    first = draw(run, 4, "refused")
    assert len(first) == 4
    assert draw(run, 4, "refused") == first
    assert draw(run, 2, "refused") == first[:2]
    with pytest.raises(UserError, match="--n 5: 4 rows of .* their number is fixed"):
        draw(run, 5, "refused")


@pytest.mark.parametrize("question", ["harmful", "refused"])
def test_hidden_rows_are_balanced_by_label_and_length(
    script: Any, question: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUING_DATA", str(data_dir))
    rows = script("study_hidden").draw_hidden_rows(question, 40)
    kinds = Counter((row.label, row.is_short) for row in rows)
    assert set(kinds.values()) == {10} and len(kinds) == 4
    assert len({row.key for row in rows}) == 40


def test_each_prompt_has_the_answer_of_its_seed(script, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    levers, common = script("study_levers"), script("common")
    samples = [Sample(conversation=Conversation.of(f"Wheel {k}?"), id=f"s{k}") for k in range(5)]
    data = common.SampleList("wheels", samples)
    runs = [tmp_path / f"sft-{seed}" for seed in range(2)]
    for seed, run in enumerate(runs):
        evaluate(StoredModel(f"seed {seed}"), common.SampleList("part", samples[seed::2]), [], run)
    model = levers.RotatedSeeds("sft", runs)
    run = evaluate(model, data, [], tmp_path / "sft")
    answers = {response.sample_id: response.text for response in run.responses()}
    assert [answers[f"s{k}"] for k in range(5)] == [f"seed {k % 2}" for k in range(5)]
    evaluate(StoredModel("other"), common.SampleList("one", samples[:1]), [], tmp_path / "again")
    with pytest.raises(UserError, match="1 prompts have the answer of two seeds"):
        levers.RotatedSeeds("sft", [*runs, tmp_path / "again"])
    incomplete = evaluate(levers.RotatedSeeds("sft", runs[:1]), data, [], tmp_path / "incomplete")
    assert sum(response.failure is not None for response in incomplete.responses()) == 2


def test_the_simulated_design_keeps_its_error_and_finds_large_falls(script) -> None:  # type: ignore[no-untyped-def]
    power = script("power")
    none = power.Design(base_rate=0.4, falls=(0.0,) * 5)
    assert power.power(none, 400)[2] <= 0.05
    half = power.Design(base_rate=0.5, falls=(0.5, 0.5, 0.5, 0.0, 0.0))
    assert power.power(half, 200)[0] >= 0.9
    p = np.array([[0.001, 0.012, 0.02, 0.2]])
    assert power.shown_by_holm(p).tolist() == [[True, False, False, False]]  # 0.012 > 0.025 / 3
