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


@pytest.fixture
def scores(load: Any) -> dict[str, float]:
    """The base declines every second harmful request as it is, and every second benign one."""
    larger = load("study_larger")
    texts = {cell: larger.ordered_requests(cell) for cell in larger.CELLS}
    return {
        hash_prompt(text): (0.9, 0.1)[k % 2]
        for cell in larger.CELLS
        for k, text in enumerate(texts[cell])
    }


def test_a_request_has_one_form_and_trains_sft_or_rl(load: Any, scores: dict[str, float]) -> None:
    larger, steering = load("study_larger"), load("study_steering")
    rl = [steering.request_of(row["prompt"]) for row in larger.rl_rows(scores)]
    sft = [
        text
        for cell in larger.CELLS
        for text in larger.agreed_requests(cell, scores)[: larger.SFT_ROWS[cell.name]]
    ]
    assert len(rl) >= 3 * larger.RL_PROMPTS and len(sft) == sum(larger.SFT_ROWS.values())
    assert len({*rl, *sft}) == len(rl) + len(sft)


def test_only_requests_that_the_base_decides_rightly_train(
    load: Any, scores: dict[str, float]
) -> None:
    larger = load("study_larger")
    for cell in larger.CELLS:
        agreed = larger.agreed_requests(cell, scores)
        assert len(agreed) == larger.SCORED // 2
        right = 0.9 if cell.expect == "refuse" else 0.1
        assert {scores[hash_prompt(text)] for text in agreed} == {right}


def test_scores_are_stored_by_hash(load: Any, tmp_path: Path) -> None:
    larger = load("study_larger")
    file = tmp_path / "scores.jsonl"
    file.write_text('{"request": "ab", "declines": 0.25}\n{"request": "cd", "declines": 1.0}\n')
    assert larger.read_scores(file) == {"ab": 0.25, "cd": 1.0}


def test_no_request_measures_and_people_in_distress_are_answered(load: Any) -> None:
    larger, prompts = load("study_larger"), load("study_prompts")
    used = {s.id for name in prompts.PROMPT_SETS for s in prompts.build_prompt_set(name).samples}
    others = larger.unattacked_samples()
    assert {sample.expect for sample in others} == {"comply"}
    assert not used & {sample.id for sample in others}
    assert not used & set(larger.right_answers())
    distress = {hash_prompt(row["prompt"]) for row in prompts.read_training_rows("support")}
    assert distress < {sample.id for sample in others} and len(distress) == 25


def test_the_reward_knows_what_is_right_in_each_cell(load: Any, scores: dict[str, float]) -> None:
    larger = load("study_larger")
    seen = set()
    for row in larger.rl_rows(scores):
        is_harmful = row["expect"] == "refuse"
        seen.add(row["category"])
        assert larger.right_decision(row["prompt"], REFUSAL) == is_harmful
        assert larger.right_decision(row["prompt"], ANSWER) != is_harmful
        assert larger.wrong_decision(row["prompt"], ANSWER) == is_harmful
    assert seen == {cell.name for cell in larger.CELLS}


def test_the_opening_to_imitate_is_the_bases_own(
    load: Any, scores: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = load("study_larger")
    texts = {
        "larger-harmful": "I'm sorry, but I can't help you with that at all.",
        "larger-agreed": "Loosen the nut and turn it slowly.",
        "larger-others": "I'm sorry, but as an AI I cannot.",
    }

    def answers(_: object, folder: str, samples: list[Any]) -> dict[str, str]:
        return {sample.id: texts[folder] for sample in samples}

    monkeypatch.setattr(larger, "sample_openings", answers)
    rows = larger.sft_rows(None, scores)
    # What the base declines without need is left out.
    refused = [row for row in rows if row["completion"] == "I'm sorry, but I can't"]
    answered = [row for row in rows if row["completion"] == "Loosen the nut and turn"]
    sizes = larger.SFT_ROWS
    assert len(refused) == sizes["refuse-plain"] + sizes["refuse-role-play"]
    assert len(answered) == sizes["comply-plain"] + sizes["comply-role-play"]
    assert len(rows) == len(refused) + len(answered) and all(row["cut"] for row in rows)
    right = larger.right_answers()
    assert {right[hash_prompt(larger.request_of(r["prompt"]))] for r in refused} == {"refuse"}
