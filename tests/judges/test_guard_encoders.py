"""HarmAug-Guard, DuoGuard and Prompt Guard 2 on tiny random classifiers of the same shape."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.judges.tiny_classifiers import write_decoder, write_encoder

from truing.core.errors import UserError
from truing.core.types import Answer, Conversation, Judgement, Response, Sample
from truing.judges.guard_encoders import ENCODERS, EncoderGuard, SequenceClassifier
from truing.specs.resolve import resolve


def ask(judge: EncoderGuard, prompt: str, answer: str) -> Judgement:
    sample = Sample(id="a", conversation=Conversation.of(prompt))
    return asyncio.run(judge.judge(sample, Response.of("a", 0, "m", Answer.of(answer))))


def test_harmaug_reads_prompt_and_answer_as_a_pair(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = write_encoder(tmp_path, 2)
    judge = resolve(f"guard:harmaug,path={folder},dtype=float32", "judge")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def expected(*texts: str) -> float:
        with torch.no_grad():
            logits = model(**tokenizer(*texts, return_tensors="pt")).logits
        return float(logits.softmax(-1)[0, 1])

    judgement = ask(judge, "a question", "an answer")
    assert judgement.score == pytest.approx(expected("a question", "an answer"), abs=1e-5)
    assert judgement.verdict is (judgement.score >= 0.5) and judgement.harms == {}
    prompts = judge.of_prompts()
    assert prompts.question == "harmful_prompt" and prompts.of_prompts() is prompts
    judgement = ask(prompts, "a question", "an answer")
    assert judgement.score == pytest.approx(expected("a question"), abs=1e-5)


def test_long_and_bad_texts(tmp_path: Path) -> None:
    judge = EncoderGuard(
        "harmaug", SequenceClassifier("harmaug", str(write_encoder(tmp_path, 2)), dtype="float32")
    )
    long = ask(judge, "question " * 100, "answer " * 300)
    assert long.verdict is not None and (long.rationale or "").startswith("worst of ")
    for text in ("x", "\x00\udc80", "שלום мир 你好"):
        assert ask(judge, text, text).verdict is not None
    assert ask(judge, "q", " ").failure.kind == "empty"  # type: ignore[union-attr]
    for characters in (600_000, 20_000_000):
        judgement = ask(judge, "q", "a" * characters)
        assert judgement.verdict is None and judgement.failure is not None
        assert judgement.failure.kind == "too-long"


def test_what_the_classifier_cannot_compute_is_unscored(tmp_path: Path) -> None:
    # A token that the model has no embedding of raises an IndexError.
    folder = write_encoder(tmp_path / "small", 2, tokens=10)
    judge = EncoderGuard("harmaug", SequenceClassifier("harmaug", str(folder), dtype="float32"))
    failure = ask(judge, "a question", "a long answer").failure
    assert failure is not None and failure.kind == "error" and "IndexError" in failure.message
    folder = write_encoder(tmp_path / "nan", 2, nan_letter="x")
    judge = EncoderGuard("harmaug", SequenceClassifier("harmaug", str(folder), dtype="float32"))
    assert ask(judge, "q", "letters").verdict is not None
    failure = ask(judge, "q", "letters " * 100 + "x").failure
    assert failure is not None and failure.kind == "nan"


def test_duoguard_takes_the_highest_of_twelve_categories(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = write_decoder(tmp_path, 12)
    judge = resolve(f"guard:duoguard,path={folder},dtype=float32", "judge")
    judgement = ask(judge, "a question", "an answer")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        inputs = tokenizer("a question an answer", return_tensors="pt")
        probabilities = model(inputs.input_ids).logits.sigmoid()[0].tolist()
    assert judgement.score == pytest.approx(max(probabilities), abs=1e-5)
    assert judgement.harms["privacy_violation"] == pytest.approx(probabilities[5], abs=1e-5)
    assert judgement.harms["self_harm"] == pytest.approx(probabilities[9], abs=1e-5)
    assert judgement.verdict is (judgement.score > 0.5)


def test_a_batch_has_the_scores_of_single_texts(tmp_path: Path) -> None:
    judge = EncoderGuard(
        "duoguard",
        SequenceClassifier("duoguard", str(write_decoder(tmp_path, 12)), dtype="float32"),
    )
    texts = ["a", "a longer answer", "b" * 50]

    async def ask_all() -> list[Judgement]:
        sample = Sample(id="a", conversation=Conversation.of("q"))
        return list(
            await asyncio.gather(
                *(judge.judge(sample, Response.of("a", 0, "m", Answer.of(t))) for t in texts)
            )
        )

    together = [j.score for j in asyncio.run(ask_all())]
    assert together == pytest.approx([ask(judge, "q", t).score for t in texts], abs=1e-5)


def test_prompt_guard_scans_all_of_a_long_prompt(tmp_path: Path) -> None:
    judge = resolve(
        f"guard:prompt-guard-2,path={write_encoder(tmp_path, 2)},dtype=float32", "judge"
    )
    assert judge.question == "jailbreak" and judge.of_prompts() is judge
    judgement = ask(judge, "ignore " * 200, "not read")
    assert "of the prompt" in (judgement.rationale or "")
    assert ask(judge, "", "not read").verdict is None


def test_other_classifiers_are_refused(tmp_path: Path) -> None:
    names = {0: "cat", 1: "dog"}
    cases = (
        ("harmaug", {"labels": 3}, "has 3 outputs, and harmaug has 2"),
        ("duoguard", {"labels": 2}, "has 2 outputs, and duoguard has 12"),
        (
            "prompt-guard-2",
            {"labels": 2, "id2label": names, "label2id": {"cat": 0, "dog": 1}},
            "its outputs are cat, dog, not benign, malicious",
        ),
    )
    for number, (name, options, message) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        arguments: dict[str, Any] = dict(options)
        write_encoder(folder, arguments.pop("labels"), **arguments)
        with pytest.raises(UserError, match=message):
            SequenceClassifier(name, str(folder))
    assert set(ENCODERS) == {"harmaug", "duoguard", "prompt-guard-2"}
