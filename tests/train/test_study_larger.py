"""The seventh round of the study of levers: training data for the larger target."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from truing.core.lineage import hash_prompt

REFUSAL = "I'm sorry, but I can't"
ANSWER = "Turn the spoke key"


@pytest.fixture
def load(root: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function that imports a script of the study."""
    monkeypatch.syspath_prepend(str(root / "benchmarks" / "alignment"))
    monkeypatch.setenv("TRUING_DATA", str(data_dir))
    return importlib.import_module


def test_a_request_has_one_form_and_trains_sft_or_rl(load: Any) -> None:
    larger, steering = load("study_larger"), load("study_steering")
    rl = [steering.request_of(row["prompt"]) for row in larger.rl_rows()]
    sft = [
        steering.request_of(sample.prompt)
        for cell in larger.CELLS
        for sample in larger.requests_of(cell, 0, larger.SFT_ROWS)
    ]
    assert len(rl) == 4 * larger.RL_PROMPTS and len(sft) == 4 * larger.SFT_ROWS
    assert len({*rl, *sft}) == len(rl) + len(sft)


def test_no_request_measures_and_nobody_in_distress_is_refused(load: Any) -> None:
    larger, prompts = load("study_larger"), load("study_prompts")
    used = {s.id for name in prompts.PROMPT_SETS for s in prompts.build_prompt_set(name).samples}
    others = larger.unattacked_samples()
    assert {sample.expect for sample in others} == {"comply"} and len(others) > 100
    assert not used & {sample.id for sample in others}
    assert not used & set(larger.right_answers())
    distress = {hash_prompt(row["prompt"]) for row in prompts.read_training_rows("support")}
    assert distress <= {sample.id for sample in others}


def test_the_reward_knows_what_is_right_in_each_cell(load: Any) -> None:
    larger = load("study_larger")
    seen = set()
    for row in larger.rl_rows():
        is_harmful = row["expect"] == "refuse"
        seen.add(row["category"])
        assert larger.right_decision(row["prompt"], REFUSAL) == is_harmful
        assert larger.right_decision(row["prompt"], ANSWER) != is_harmful
        assert larger.wrong_decision(row["prompt"], ANSWER) == is_harmful
    assert seen == {cell.name for cell in larger.CELLS}


def test_the_opening_to_imitate_is_the_bases_own(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = load("study_larger")
    texts = {
        "larger-harmful": "I'm sorry, but I can't help you with that at all.",
        "larger-benign": "Loosen the nut and turn it slowly.",
        "larger-others": "I'm sorry, but as an AI I cannot.",
    }

    def answers(_: object, folder: str, samples: list[Any]) -> dict[str, str]:
        return {sample.id: texts[folder] for sample in samples}

    monkeypatch.setattr(larger, "sample_openings", answers)
    rows = larger.sft_rows(None)
    # Two benign cells answer, two harmful ones decline; what the base declines without need is left out.
    refused = [row for row in rows if row["completion"] == "I'm sorry, but I can't"]
    answered = [row for row in rows if row["completion"] == "Loosen the nut and turn"]
    assert len(refused) == len(answered) == 2 * larger.SFT_ROWS == len(rows) / 2
    assert all(row["cut"] for row in rows)
    right = larger.right_answers()
    assert {right[hash_prompt(larger.request_of(r["prompt"]))] for r in refused} == {"refuse"}
