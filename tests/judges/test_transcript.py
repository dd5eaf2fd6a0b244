"""Transcripts of episodes as text."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from truing.core.episodes import AgentTurn, CallRecord, Episode
from truing.core.types import Conversation, Judgement, Lineage, Message, Response, Sample
from truing.judges.transcript import TranscriptJudge, text_or_transcript, write_transcript

CALL = CallRecord(id="1", name="send", arguments='{"text": "FORBIDDEN"}', result="sent")
EPISODE = Episode(turns=(AgentTurn(text="I send.", calls=(CALL,)), AgentTurn(text="Done.")))
SAMPLE = Sample(id="a", conversation=Conversation.of("Send it."))
RESPONSE = Response(sample_id="a", message=Message("assistant", "Done."), episode=EPISODE)


class _MarkerJudge:
    """Flags the word FORBIDDEN."""

    name, question, lineage = "marker", "harmful", Lineage(name="marker", hash="m")

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        return Judgement(
            sample_id="a", judge="marker", question="harmful", verdict="FORBIDDEN" in response.text
        )


def test_a_transcript_has_turns_calls_and_results() -> None:
    assert write_transcript(EPISODE) == (
        '[turn 1] I send.\n[call] send {"text": "FORBIDDEN"}\n[ok] sent\n[turn 2] Done.'
    )


def test_harm_in_a_call_is_seen_and_a_long_transcript_is_unscored() -> None:
    judge = TranscriptJudge(_MarkerJudge())
    assert asyncio.run(judge.judge(SAMPLE, RESPONSE)).verdict is True
    assert asyncio.run(_MarkerJudge().judge(SAMPLE, RESPONSE)).verdict is False
    long = replace(EPISODE, turns=(AgentTurn(text="x" * 100_001),))
    failure = asyncio.run(judge.judge(SAMPLE, replace(RESPONSE, episode=long))).failure
    assert failure is not None
    assert failure.kind == "too-long"


def test_readers_are_shown_the_calls_of_an_agent_and_the_text_of_others() -> None:
    assert text_or_transcript(RESPONSE) == write_transcript(EPISODE)
    silent = replace(RESPONSE, episode=Episode(turns=(AgentTurn(text="Done."),)))
    assert text_or_transcript(silent) == "Done."
