"""Token rows of moderation inputs: `[CLS] prompt [SEP] response [SEP]`, each side in its window.

Of a prompt that is too long the head and the tail stay (the question is usually at one of the two),
of a response three quarters from the head and the rest from the tail. Of a dialogue the newest turn
goes in first, then as much of the earlier turns as fits. Segment ids are 0 for the prompt and 1 for
the response, so that the model can judge one in the light of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from truing.core.types import Conversation
from truing.judges.moderation.text_cleaning import clean_text

MAX_TURNS = 6  # older turns of a dialogue are not read
MIN_TURN_TOKENS = 8  # an earlier turn that would get fewer tokens is left out


class ModerationInput(Struct, frozen=True):
    """What is judged: the turns before the answer, oldest first, and the answer.

    Without an answer (`response` is None) the prompt alone is judged.
    """

    turns: tuple[str, ...] = ()
    response: str | None = None

    @classmethod
    def from_conversation(cls, conversation: Conversation, response: str | None) -> ModerationInput:
        """Takes the turns of user and assistant; system and tool messages are not judged."""
        turns = tuple(
            message.content
            for message in conversation.messages
            if message.role in ("user", "assistant") and message.content
        )
        return cls(turns, response)

    @property
    def mode(self) -> str:
        """`prompt` (no answer), `response` (an answer alone) or `pair`."""
        if self.response is None:
            return "prompt"
        return "pair" if any(turn.strip() for turn in self.turns) else "response"


class EncodedInput(Struct, frozen=True):
    """Token ids with special tokens, the segment of each, and the number of tokens cut off."""

    ids: tuple[int, ...]
    segments: tuple[int, ...]
    cut: int = 0


def cut_middle(ids: Sequence[int], max_length: int, head_share: float) -> list[int]:
    """Returns at most `max_length` ids, `head_share` of them from the start."""
    if len(ids) <= max_length:
        return list(ids)
    head = round(max_length * head_share)
    tail = max_length - head
    return [*ids[:head], *ids[len(ids) - tail :]]


def _clean_text(text: str) -> str:
    # A lone surrogate, the trace of invalid UTF-8, would make the tokenizer fail.
    return clean_text(text.encode("utf-8", "replace").decode("utf-8"))


class InputEncoder:
    """Encodes inputs with a `tokenizers.Tokenizer`; `prompt` and `response` are token windows."""

    def __init__(self, tokenizer: Any, *, prompt: int, response: int, cls: int, sep: int) -> None:
        self._tokenizer = tokenizer
        self.prompt = prompt
        self.response = response
        self._cls = cls
        self._sep = sep

    def encode(self, inputs: Iterable[ModerationInput]) -> list[EncodedInput]:
        """Returns one token row per input, in order."""
        inputs = [_with_clean_texts(i) for i in inputs]
        texts: list[str] = []
        for moderation_input in inputs:
            texts += moderation_input.turns
            if moderation_input.response is not None:
                texts.append(moderation_input.response)
        # One call for all texts: the tokenizer spreads them over its threads.
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False) if texts else []
        token_ids = iter([list(encoding.ids) for encoding in encodings])
        rows: list[EncodedInput] = []
        for moderation_input in inputs:
            turns = [next(token_ids) for _ in moderation_input.turns]
            response = None if moderation_input.response is None else next(token_ids)
            rows.append(self._build_row(turns, response))
        return rows

    def _build_row(self, turns: Sequence[list[int]], response: list[int] | None) -> EncodedInput:
        prompt, cut = self._fit_turns(turns)
        ids = [self._cls, *prompt, self._sep]
        segments = [0] * len(ids)
        if response is not None:
            fitted_response = cut_middle(response, self.response, 0.75)
            cut += len(response) - len(fitted_response)
            ids += [*fitted_response, self._sep]
            segments += [1] * (len(fitted_response) + 1)
        return EncodedInput(tuple(ids), tuple(segments), cut)

    def _fit_turns(self, turns: Sequence[list[int]]) -> tuple[list[int], int]:
        """Returns the prompt's ids, within its window, and how many tokens were cut off."""
        if not turns:
            return [], 0
        total = sum(map(len, turns)) + len(turns) - 1  # with a separator between turns
        ids = cut_middle(turns[-1], self.prompt, 0.5)
        for turn in reversed(turns[:-1]):
            space = self.prompt - len(ids) - 1
            if space < MIN_TURN_TOKENS:
                break
            ids = [*turn[max(0, len(turn) - space) :], self._sep, *ids]
        return ids, max(0, total - len(ids))


def _with_clean_texts(moderation_input: ModerationInput) -> ModerationInput:
    turns = tuple(_clean_text(turn) for turn in moderation_input.turns[-MAX_TURNS:])
    response = moderation_input.response
    return ModerationInput(turns, None if response is None else _clean_text(response))


def build_input_encoder(tokenizer: Any, *, prompt: int, response: int) -> InputEncoder:
    """Returns the encoder for a tokenizer of transformers.

    A tokenizer without [CLS] and [SEP] (of a language model) gets its begin and end tokens instead.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    if cls is None or sep is None:
        cls, sep = tokenizer.bos_token_id or tokenizer.eos_token_id, tokenizer.eos_token_id
    return InputEncoder(backend, prompt=prompt, response=response, cls=cls, sep=sep)
