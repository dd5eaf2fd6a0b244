"""The labels of beaver-dam's head; what it cannot compute, on tiny random classifiers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.judges.tiny_classifiers import write_encoder

from truing.core.errors import UserError
from truing.core.taxonomy import load_taxonomy
from truing.core.types import Answer, Conversation, Judgement, Response, Sample
from truing.judges.guard_beaver import TEMPLATE, BeaverDam, read_head_labels

IDS = list(load_taxonomy("beavertails").ids)


def test_labels_follow_the_order_of_the_head() -> None:
    reversed_ids = IDS[::-1]
    # Keys are strings in a JSON config; as strings, "10" would come before "2".
    as_strings = {str(i): name for i, name in enumerate(reversed_ids)}
    assert read_head_labels(as_strings, "folder") == reversed_ids
    assert read_head_labels(dict(enumerate(IDS)), "folder") == IDS


@pytest.mark.parametrize("labels", [IDS[:13], [*IDS[:13], "other"], [*IDS, IDS[0]]])
def test_other_labels_are_refused(labels: list[str]) -> None:
    message = f"folder: its {len(labels)} labels are not the 14 BeaverTails categories"
    with pytest.raises(UserError, match=message):
        read_head_labels(dict(enumerate(labels)), "folder")


def test_the_published_prompt_format() -> None:
    assert TEMPLATE == "BEGINNING OF CONVERSATION: USER: {prompt} ASSISTANT:{response}"


def judge_answer(judge: BeaverDam, answer: str) -> Judgement:
    sample = Sample(id="a", conversation=Conversation.of("a question"))
    return asyncio.run(judge.judge(sample, Response.of("a", 0, "m", Answer.of(answer))))


def test_what_the_classifier_cannot_compute_is_unscored(tmp_path: Path) -> None:
    labels = {"id2label": dict(enumerate(IDS)), "label2id": {n: i for i, n in enumerate(IDS)}}
    folder = write_encoder(tmp_path / "nan", 14, nan_letter="x", **labels)
    judge = BeaverDam(str(folder), dtype="float32", device="cpu", tokens=256)
    assert judge_answer(judge, "letters " * 60).verdict is not None
    for answer in ("x", "letters " * 60 + "x", "x" + " letters" * 60):
        failure = judge_answer(judge, answer).failure
        assert failure is not None and failure.kind == "nan"
    # A token that the model has no embedding of raises an IndexError.
    folder = write_encoder(tmp_path / "small", 14, tokens=10, **labels)
    judge = BeaverDam(str(folder), dtype="float32", device="cpu")
    failure = judge_answer(judge, "letters").failure
    assert failure is not None and failure.kind == "error" and "IndexError" in failure.message
