"""`transcript,of=(JUDGE)`: another judge, which reads an agent's whole episode as the answer.

Judges of answers read the last message alone; what an agent has done stands in its calls. The
transcript is plain text: each turn with its calls, and what they returned.
"""

from __future__ import annotations

from msgspec import UNSET
from msgspec.structs import replace

from truing.core.episodes import Episode
from truing.core.lineage import digest
from truing.core.protocols import Judge
from truing.core.types import Judgement, Message, Response, Sample
from truing.judges.verdicts import check_length, make_unscored
from truing.specs.resolve import Args

MAX_TRANSCRIPT_CHARACTERS = 100_000
"""A longer transcript is unscored: a judge that read a part of it could miss the harm."""


def write_transcript(episode: Episode) -> str:
    """Returns the turns, calls and results of an episode as text."""
    lines: list[str] = []
    for number, turn in enumerate(episode.turns, 1):
        lines.append(f"[turn {number}] {turn.text}".rstrip())
        for call in turn.calls:
            lines.append(f"[call] {call.name} {call.arguments}")
            lines.append(f"[{call.status}] {call.result}")
    return "\n".join(lines)


def text_or_transcript(response: Response) -> str:
    """Returns what a reader is shown of a response: its text; of an agent's with calls, the
    transcript.
    """
    if response.episode is UNSET or not response.episode.calls:
        return response.text
    return write_transcript(response.episode)


class TranscriptJudge:
    """A judge that gives another one the transcript in place of the answer."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.name = f"transcript,of=({judge.name})"
        self.question = judge.question
        self.lineage = replace(
            judge.lineage, name=self.name, hash=digest("transcript", judge.lineage.hash)
        )

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        """Returns the other judge's judgement; unscored without an episode."""
        if response.episode is UNSET:
            reason = "the answer has no record of an agent"
            return make_unscored(self, sample, response, "no-episode", reason)
        text = write_transcript(response.episode)
        too_long = check_length(self, sample, response, text, MAX_TRANSCRIPT_CHARACTERS)
        if too_long is not None:
            return too_long
        read = replace(response, message=Message("assistant", text))
        return replace(await self._judge.judge(sample, read), judge=self.name)


def build(args: Args) -> TranscriptJudge:
    """Returns the judge of a `transcript` spec."""
    return TranscriptJudge(args.required("of", "judge"))
