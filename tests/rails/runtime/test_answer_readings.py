"""Answers that are streamed in chunks are read on, not again; a failure blocks the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from truing.core.types import (
    Answer,
    Conversation,
    Judgement,
    Lineage,
    Message,
    Response,
    Sample,
    Sampling,
)
from truing.http.client import Endpoint
from truing.judges.answer_streams import AnswerStream
from truing.judges.verdicts import make_judgement
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.answer_readings import AnswerReadings, current_readings
from truing.rails.runtime.stream_guard import count_tokens

SENTENCE = "It rains in the garden today. "


class StreamingWords:
    """A judge that can stream: FORBIDDEN is harmful, BROKEN breaks it; counts what it reads."""

    name, question, lineage = "words", "harmful", Lineage(name="words", hash="words")

    def __init__(self) -> None:
        self.streams: list[AnswerStream] = []
        self.read: list[str] = []

    def start(self, conversation: Conversation) -> AnswerStream:
        self.streams.append(AnswerStream(self, conversation))
        return self.streams[-1]

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        self.read.append(response.text)
        if "BROKEN" in response.text:
            raise RuntimeError("out of memory")
        is_harmful = "FORBIDDEN" in response.text
        return make_judgement(self, sample, response, is_harmful, score=float(is_harmful))


class Writer:
    """A model that streams a text word by word."""

    name, lineage = "writer", Lineage(name="writer", hash="writer")

    def __init__(self, text: str) -> None:
        self.text = text

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        return (Answer.of(self.text),)

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        for number, word in enumerate(self.text.split(" ")):
            yield word if number == 0 else f" {word}"


def stream(
    folder: Path, judge: StreamingWords, text: str, mode: str = "sentences"
) -> tuple[list[str], Answer]:
    """Returns the chunks that were sent, and the answer."""
    folder.mkdir(exist_ok=True)
    settings: dict[str, Any] = {
        "rails": {"output": {"flows": ["moderation check output"]}},
        "truing": {"moderation": {"judge": "test"}, "streaming": {"mode": mode, "chunk_size": 40}},
    }
    (folder / "config.yml").write_text(yaml.safe_dump(settings))
    model = GuardedModel(folder, Writer(text), judges={"test": judge})

    async def run() -> tuple[list[str], Answer]:
        chunks: list[str] = []
        async for chunk in model.stream_with_answer(Conversation.of("hello"), Sampling()):
            if isinstance(chunk, Answer):
                return chunks, chunk
            chunks.append(chunk)
        raise AssertionError("the stream has no answer at its end")

    return asyncio.run(run())


def stream_mode_of(folder: Path, judge: Any, settings: dict[str, Any]) -> str:
    (folder / "config.yml").write_text(yaml.safe_dump(settings))
    return GuardedModel(folder, Writer("x"), judges={"test": judge}).stream_mode


class WordsAtAnEndpoint(StreamingWords):
    """A judge that sends all of the text to another machine at each sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Endpoint("http://127.0.0.1:9/v1")


class WholeWords:
    """A judge of whole answers alone."""

    name, question, lineage = "words", "harmful", Lineage(name="words", hash="words")
    judge = StreamingWords.judge


def test_streams_go_by_sentence_where_a_judge_of_this_process_keeps_up(tmp_path: Path) -> None:
    judged: dict[str, Any] = {
        "rails": {"output": {"flows": ["moderation check output"]}},
        "truing": {"moderation": {"judge": "test"}},
    }
    assert stream_mode_of(tmp_path, StreamingWords(), judged) == "sentences"
    assert stream_mode_of(tmp_path, WordsAtAnEndpoint(), judged) == "hold"
    assert stream_mode_of(tmp_path, WholeWords(), judged) == "hold"
    # Another rail may rewrite a phrase that is not whole yet.
    masking = ["moderation check output", "mask sensitive data on output"]
    assert stream_mode_of(tmp_path, StreamingWords(), judged | _output(flows=masking)) == "hold"
    # What the configuration says holds.
    held = {**judged, "truing": {**judged["truing"], "streaming": {"mode": "hold"}}}
    assert stream_mode_of(tmp_path, StreamingWords(), held) == "hold"
    as_in_nemo = {"enabled": True, "stream_first": False}
    flows = {"flows": ["moderation check output"], "streaming": as_in_nemo}
    assert stream_mode_of(tmp_path, WholeWords(), judged | _output(**flows)) == "chunked"


def _output(**settings: Any) -> dict[str, Any]:
    return {"rails": {"output": settings}}


def test_each_sentence_is_sent_when_it_has_passed_and_read_by_one_stream(tmp_path: Path) -> None:
    judge = StreamingWords()
    text = (SENTENCE * 6).strip()
    chunks, answer = stream(tmp_path, judge, text)
    assert "".join(chunks) == text == answer.text
    assert len([c for c in chunks if c.strip()]) >= 6
    assert len(judge.streams) == 1
    # The last reading is that of the whole answer, as without a stream.
    assert judge.read[-1] == text


@pytest.mark.parametrize("mode", ["sentences", "chunked"])
@pytest.mark.parametrize(("word", "why"), [("FORBIDDEN", "harmful"), ("BROKEN", "out of memory")])
def test_nothing_after_the_last_check_that_passed_is_sent(
    tmp_path: Path, mode: str, word: str, why: str
) -> None:
    text = SENTENCE * 20 + f"A {word} word. " + SENTENCE * 20
    chunks, answer = stream(tmp_path, StreamingWords(), text, mode)
    sent = "".join(chunks)
    assert word not in sent and sent.startswith(SENTENCE * (19 if mode == "sentences" else 10))
    assert answer.finish_reason == "blocked"
    (ruling,) = [r for r in answer.rulings if r.ruling == "block"]
    assert (
        why in f"{ruling.reason} {ruling.evidence}"
        and "tokens" in ruling.reason
        and "not yet sent" in ruling.reason
    )


def test_the_delay_is_shorter_by_sentence_than_by_chunk(tmp_path: Path) -> None:
    text = SENTENCE * 20 + "A FORBIDDEN word. " + SENTENCE * 20
    delays = {}
    for mode in ("sentences", "chunked"):
        _, answer = stream(tmp_path / mode, StreamingWords(), text, mode)
        reason = next(r.reason for r in answer.rulings if r.ruling == "block")
        delays[mode] = int(reason.partition(" tokens, ")[2].partition(" ")[0])
    assert delays["sentences"] <= 12 < delays["chunked"]


def test_readings_start_anew_for_another_text_and_end_with_the_whole() -> None:
    judge, readings = StreamingWords(), AnswerReadings()
    chat = Conversation.of("q")

    async def run() -> list[bool | None]:
        assert current_readings() is None
        with readings.active():
            assert current_readings() is readings
        verdicts = [
            (await readings.judge(judge, chat, text)).verdict
            for text in ("One. ", "One. Two", "Other. FORBIDDEN. ", "Other. FORBIDDEN. Three")
        ]
        readings.is_complete = True
        verdicts.append((await readings.judge(judge, chat, "Fine. ")).verdict)
        return verdicts

    assert asyncio.run(run()) == [False, False, True, True, False]
    assert len(judge.streams) == 3 and judge.read[-2:] == ["Fine. ", "Fine. "]


def test_tokens_are_words_and_marks() -> None:
    assert count_tokens("It's 3.5, ok?") == 9
    assert count_tokens("") == 0
    assert Message("user", "x").content == "x"
