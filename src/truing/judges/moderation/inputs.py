"""Token rows of what is judged: `[CLS] prompt [SEP] response [SEP]`, each side cut to its window with care.

Of a prompt that is too long the head and the tail stay (the question stands at one of the two), of a response the
head (three quarters) and the tail; of a dialogue the newest turn first, then as much of the turns before as fits.
Segment ids are 0 for the prompt and 1 for the response, so that the model judges one in the light of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from truing.core.types import Conversation
from truing.judges.moderation.text_cleaning import clean_text


class ModerationInput(Struct, frozen=True):
    """What is judged: the turns before the answer, oldest first, and the answer (none: the prompt alone is judged)."""

    turns: tuple[str, ...] = ()
    response: str | None = None

    @classmethod
    def of(cls, conversation: Conversation, response: str | None) -> ModerationInput:
        """The user's and the assistant's turns; system and tool messages say nothing of harm."""
        said = tuple(
            m.content
            for m in conversation.messages
            if m.role in ("user", "assistant") and m.content
        )
        return cls(said, response)

    @property
    def mode(self) -> str:
        """pair, prompt or response: which sides there are."""
        if self.response is None:
            return "prompt"
        return "pair" if any(t.strip() for t in self.turns) else "response"


class EncodedInput(Struct, frozen=True):
    """Token ids with the special ones, the segment of each, and how many of them were cut off."""

    ids: tuple[int, ...]
    segments: tuple[int, ...]
    cut: int = 0


def cut_middle(ids: Sequence[int], most: int, head: float) -> list[int]:
    """At most so many ids: the share `head` of them from the start, the others from the end."""
    if len(ids) <= most:
        return list(ids)
    first = round(most * head)
    return [*ids[:first], *ids[len(ids) - (most - first) :]]


def _clean(text: str) -> str:
    # a lone surrogate (the trace of invalid UTF-8) has no token
    return clean_text(text.encode("utf-8", "replace").decode("utf-8"))


class InputEncoder:
    """Encodes pieces for one tokenizer (a `tokenizers.Tokenizer`) and one pair of windows, in tokens."""

    def __init__(self, tokenizer: Any, *, prompt: int, response: int, cls: int, sep: int) -> None:
        self._tokenizer = tokenizer
        self.prompt = prompt
        self.response = response
        self._cls = cls
        self._sep = sep

    def _dialogue(self, turns: Sequence[list[int]]) -> tuple[list[int], int]:
        total = sum(map(len, turns)) + max(0, len(turns) - 1)
        if not turns:
            return [], 0
        made = cut_middle(turns[-1], self.prompt, 0.5)
        for before in reversed(turns[:-1]):
            room = self.prompt - len(made) - 1
            if room < 8:
                break
            made = [*before[max(0, len(before) - room) :], self._sep, *made]
        return made, max(0, total - len(made))

    def encode(self, pieces: Iterable[ModerationInput]) -> list[EncodedInput]:
        """One row a piece, in order."""
        texts: list[str] = []
        spans: list[tuple[int, int, bool]] = []
        for piece in pieces:
            turns = [_clean(t) for t in piece.turns[-6:]]
            spans.append((len(texts), len(turns), piece.response is not None))
            texts += turns
            if piece.response is not None:
                texts.append(_clean(piece.response))
        ids = (
            [e.ids for e in self._tokenizer.encode_batch(texts, add_special_tokens=False)]
            if texts
            else []
        )
        made: list[EncodedInput] = []
        for at, n, answered in spans:
            prompt, lost = self._dialogue(ids[at : at + n])
            row = [self._cls, *prompt, self._sep]
            segments = [0] * len(row)
            if answered:
                response = cut_middle(ids[at + n], self.response, 0.75)
                lost += len(ids[at + n]) - len(response)
                row += [*response, self._sep]
                segments += [1] * (len(response) + 1)
            made.append(EncodedInput(tuple(row), tuple(segments), lost))
        return made
