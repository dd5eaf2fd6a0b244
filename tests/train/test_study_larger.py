"""The seventh round of the study of levers: training data for the larger target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from truing.core.errors import UserError
from truing.core.lineage import hash_prompt


@pytest.fixture
def scores(load: Any) -> dict[str, float]:
    """The base declines every second harmful request as it is, and every second benign one."""
    larger = load("study_larger")
    return {
        hash_prompt(text): (0.9, 0.1)[k % 2]
        for cell in larger.CELLS
        for k, text in enumerate(larger.scored_requests(cell))
    }


def test_requests_that_the_base_decides_plainly_wrong_do_not_train(
    load: Any, scores: dict[str, float]
) -> None:
    larger = load("study_larger")
    for expect, right in (("refuse", 0.9), ("comply", 0.1)):
        agreed = larger.agreed_requests(expect, scores)
        texts = [text for part in agreed.values() for text in part]
        assert len(texts) == len(set(texts)) == larger.SCORED
        assert {scores[hash_prompt(text)] for text in texts} == {right}


def test_at_the_bounds_a_request_trains(load: Any, scores: dict[str, float]) -> None:
    larger = load("study_larger")
    sure, doubtful = (dict.fromkeys(scores, x) for x in (larger.SURE, larger.DOUBTFUL))
    counts = [
        [sum(map(len, larger.agreed_requests(expect, s).values())) for s in (sure, doubtful)]
        for expect in ("refuse", "comply")
    ]
    assert counts == [[2 * larger.SCORED, 0], [0, 2 * larger.SCORED]]


def test_a_request_trains_in_its_own_form_first(load: Any, scores: dict[str, float]) -> None:
    larger, steering = load("study_larger"), load("study_steering")
    for cell in larger.CELLS:
        samples = larger.training_samples(cell, scores)
        agreed = larger.agreed_requests(cell.expect, scores)
        own = agreed[cell.form]
        texts = [steering.request_of(sample.prompt) for sample in samples]
        assert len(texts) == min(larger.SFT_ROWS[cell.name], larger.SCORED)
        assert texts[: len(own)] == own[: len(texts)]
        # No attack is applied to a request about minors.
        framed = sum(sample.prompt != text for sample, text in zip(samples, texts, strict=True))
        assert framed >= 0.9 * len(samples) if cell.form == larger.ROLE_PLAY else framed == 0


def test_scores_are_stored_by_hash(load: Any, tmp_path: Path) -> None:
    larger = load("study_larger")
    file = tmp_path / "scores.jsonl"
    file.write_text('{"request": "ab", "declines": 0.25}\n{"request": "cd", "declines": 1.0}\n')
    assert larger.read_scores(file) == {"ab": 0.25, "cd": 1.0}


def test_no_request_measures_and_people_in_distress_are_among_those_to_answer(
    load: Any, scores: dict[str, float]
) -> None:
    larger, prompts = load("study_larger"), load("study_prompts")
    used = {s.id for name in prompts.PROMPT_SETS for s in prompts.build_prompt_set(name).samples}
    others = larger.unattacked_samples()
    assert {sample.expect for sample in others} == {"comply"}
    assert not used & {sample.id for sample in others} and not used & scores.keys()
    distress = {hash_prompt(row["prompt"]) for row in prompts.read_training_rows("support")}
    assert distress < {sample.id for sample in others} and len(distress) == 25


def test_the_opening_to_imitate_is_the_bases_own(
    load: Any, scores: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    larger, steering = load("study_larger"), load("study_steering")
    hint = load("study_written").HINT
    texts = {
        "larger-refused": "I'm sorry, but I can't help you with that at all.",
        "larger-comply-plain": "Loosen the nut and turn it slowly.",
        "larger-comply-role-play": "Loosen the nut and turn it slowly.",
    }
    told: dict[str, bool] = {}
    others = larger.unattacked_samples()

    def answers(_: object, folder: str, samples: list[Any]) -> dict[str, str]:
        told[folder] = all(s.conversation.messages[0].content == hint for s in samples)
        if folder == "larger-others":
            # Of everyday instructions and people in distress one is declined, one not answered.
            replies = [
                "I'm sorry, but as an AI I cannot.",
                "",
                *["Talk to somebody you trust."] * 99,
            ]
            return {sample.id: text for sample, text in zip(samples, replies)}
        return {sample.id: texts[folder] for sample in samples}

    monkeypatch.setattr(larger, "sample_openings", answers)
    rows = larger.sft_rows(None, scores)
    assert told == {name: "comply" in name for name in (*texts, "larger-others")}
    by_opening: dict[str, list[str]] = {}
    for row in rows:
        assert row["cut"]
        by_opening.setdefault(row["completion"], []).append(row["prompt"])
    refused, answered, cared = (
        by_opening.pop(key)
        for key in (
            "I'm sorry, but I can't",
            "Loosen the nut and turn",
            "Talk to somebody you trust.",
        )
    )
    assert not by_opening and len(cared) == len(others) - 2
    assert set(cared) == {sample.prompt for sample in others[2:]}
    # A request about minors is the same in both forms, so it trains once.
    assert 280 <= len(refused) <= 100 + 190 and 250 <= len(answered) <= 70 + 190
    assert len({row["prompt"] for row in rows}) == len(rows)
    for prompts, score in ((refused, 0.9), (answered, 0.1)):
        assert {scores[hash_prompt(steering.request_of(text))] for text in prompts} == {score}


def test_without_a_refusal_of_its_own_nothing_is_written(
    load: Any, scores: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = load("study_larger")
    monkeypatch.setattr(larger, "sample_openings", lambda *_: {"a": "Sure, here it is."})
    with pytest.raises(UserError, match="none of the 1 answers to harmful requests"):
        larger.sft_rows(None, scores)
