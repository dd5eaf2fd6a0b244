"""Moderation inputs and their token rows: `[CLS] prompt [SEP] response [SEP]`.

Training reads one row per example: of a prompt that is too long the head and the tail stay (the
question is usually at one of the two), of a response three quarters from the head and the rest from
the tail. Of a dialogue the newest turn goes in first, then as much of the earlier turns as fits.
Judging reads several such rows that cover all of the text (`windows.py`). Segment ids are 0 for the
prompt and 1 for the response, so that the model can judge one in the light of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from truing.core.text import replace_surrogates
from truing.core.types import Conversation, Message
from truing.judges.moderation.text_cleaning import clean_text, clip_middle
from truing.judges.token_windows import TokenisedText
from truing.judges.verdicts import text_of_message

MAX_TURNS = 6  # older turns of a dialogue are not part of a training row
MIN_TURN_TOKENS = 8  # an earlier turn that would get fewer tokens is left out


class ModerationInput(Struct, frozen=True):
    """What is judged: the turns before the answer, oldest first, and the answer.

    Without an answer (`response` is None) the prompt alone is judged. `apart` are further texts,
    each of which is judged by itself as if it were a prompt.
    """

    turns: tuple[str, ...] = ()
    response: str | None = None
    apart: tuple[str, ...] = ()

    @classmethod
    def from_conversation(cls, conversation: Conversation, response: str | None) -> ModerationInput:
        """Takes the turns of user and assistant, as training examples do."""
        turns = tuple(
            message.content
            for message in conversation.messages
            if message.role in ("user", "assistant") and message.content
        )
        return cls(turns, response)

    @classmethod
    def of_prompt(cls, conversation: Conversation) -> ModerationInput:
        """Takes every text of a conversation without answer, with the arguments of tool calls.

        System messages are read apart: they are no turns of the dialogue.
        """
        system = [m.content for m in conversation.messages if m.role == "system"]
        return cls(_dialogue_turns(conversation), None, tuple(filter(None, system)))

    @classmethod
    def of_answer(cls, conversation: Conversation, answer: Message) -> ModerationInput:
        """Takes an answer, its tool calls' arguments included, and the dialogue before it.

        The dialogue is that of user, assistant and tools; a system message is no part of it.
        """
        return cls(_dialogue_turns(conversation), text_of_message(answer))

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


def _dialogue_turns(conversation: Conversation) -> tuple[str, ...]:
    texts = (text_of_message(m) for m in conversation.messages if m.role != "system")
    return tuple(text for text in texts if text)


def cut_middle(ids: Sequence[int], max_length: int, head_share: float) -> list[int]:
    """Returns at most `max_length` ids, `head_share` of them from the start."""
    if len(ids) <= max_length:
        return list(ids)
    head = round(max_length * head_share)
    tail = max_length - head
    return [*ids[:head], *ids[len(ids) - tail :]]


class InputEncoder:
    """Encodes inputs with a `tokenizers.Tokenizer`; `prompt` and `response` are token windows."""

    def __init__(self, tokenizer: Any, *, prompt: int, response: int, cls: int, sep: int) -> None:
        self._tokenizer = tokenizer
        self.prompt = prompt
        self.response = response
        self._cls = cls
        self.sep = sep

    def encode(self, inputs: Iterable[ModerationInput]) -> list[EncodedInput]:
        """Returns one token row per input, in order: what training reads."""
        inputs = [_with_clean_texts(i) for i in inputs]
        texts: list[str] = []
        for moderation_input in inputs:
            texts += moderation_input.turns
            if moderation_input.response is not None:
                texts.append(moderation_input.response)
        tokenised_texts = iter(self.tokenise(texts))
        rows: list[EncodedInput] = []
        for moderation_input in inputs:
            turns = [next(tokenised_texts).ids for _ in moderation_input.turns]
            response = None if moderation_input.response is None else next(tokenised_texts).ids
            rows.append(self.build_row(turns, response))
        return rows

    def tokenise(self, texts: Sequence[str]) -> list[TokenisedText]:
        """Returns the tokens of clean texts."""
        # One call for all texts: the tokenizer spreads them over its threads.
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False) if texts else []
        return [
            TokenisedText(list(e.ids), [start for start, _ in e.offsets], len(text))
            for e, text in zip(encodings, texts, strict=True)
        ]

    def tokenise_dialogue(self, turns: Sequence[str]) -> TokenisedText:
        """Returns the tokens of clean turns, one a line, with a separator at each line's end."""
        ids: list[int] = []
        starts: list[int] = []
        offset = 0
        for text in self.tokenise(turns):
            if offset:
                ids.append(self.sep)
                starts.append(offset - 1)
            ids += text.ids
            starts += [offset + start for start in text.starts]
            offset += text.length + 1
        return TokenisedText(ids, starts, max(0, offset - 1))

    def build_row(self, turns: Sequence[list[int]], response: list[int] | None) -> EncodedInput:
        """Returns the row of a dialogue and an answer, each cut to its window."""
        prompt, cut = self.fit_turns(turns)
        if response is None:
            return self.join_sides(prompt, None, cut=cut)
        fitted_response = cut_middle(response, self.response, 0.75)
        cut += len(response) - len(fitted_response)
        return self.join_sides(prompt, fitted_response, cut=cut)

    def join_sides(
        self, prompt: Sequence[int], response: Sequence[int] | None, *, cut: int = 0
    ) -> EncodedInput:
        """Returns the row of a prompt and an answer that fit, with special tokens."""
        ids = [self._cls, *prompt, self.sep]
        segments = [0] * len(ids)
        if response is not None:
            ids += [*response, self.sep]
            segments += [1] * (len(response) + 1)
        return EncodedInput(tuple(ids), tuple(segments), cut)

    def fit_turns(self, turns: Sequence[list[int]]) -> tuple[list[int], int]:
        """Returns the prompt's ids, within its window, and how many tokens were cut off."""
        if not turns:
            return [], 0
        total = sum(map(len, turns)) + len(turns) - 1  # with a separator between turns
        ids = cut_middle(turns[-1], self.prompt, 0.5)
        for turn in reversed(turns[:-1]):
            space = self.prompt - len(ids) - 1
            if space < MIN_TURN_TOKENS:
                break
            ids = [*turn[max(0, len(turn) - space) :], self.sep, *ids]
        return ids, max(0, total - len(ids))


def _with_clean_texts(moderation_input: ModerationInput) -> ModerationInput:
    def clean(text: str) -> str:
        return clean_text(replace_surrogates(clip_middle(text)))

    turns = tuple(map(clean, moderation_input.turns[-MAX_TURNS:]))
    response = moderation_input.response
    return ModerationInput(turns, None if response is None else clean(response))


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
