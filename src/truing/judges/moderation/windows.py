"""Splits an input that is longer than a classifier's token windows into rows that cover it all.

An input that fits is one row, the same as in training. Otherwise the answer is read in overlapping
windows, each beside the beginning and the end of the dialogue; then the dialogue is read in
windows, each beside the beginning and the end of the answer. So the number of rows grows with the
length of the text, and every token stands in a row. A sentence of up to a quarter of a window is
whole in at least one.

The members of a blend have different tokenizers. A window is a span of characters, the longest that
fits into the windows of all members, so that their logits are about the same text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct, structs

from truing.judges.moderation.inputs import (
    MAX_TURNS,
    EncodedInput,
    InputEncoder,
    ModerationInput,
    cut_middle,
)
from truing.judges.token_windows import MAX_WINDOWS, Span, split_text

LONG_PROMPT_TOKENS = 32
"""Window of a prompt that does not fit into one row.

A sentence or two, as the prompts of training. Of five texts of 400 unrelated benign words
`moderation:default` flags at most one by windows of 32 tokens, and all five by its own of 72.
"""

MAX_CHARACTERS = 80_000  # of all texts of an input; of a longer input nothing is judged


class InputTooLong(ValueError):
    """The text is over the bound up to which all of it is read; the message says which."""


class WindowPosition(Struct, frozen=True):
    """A window of a longer text: characters `start` to `end` of the answer or the prompt."""

    side: str
    start: int
    end: int


class WindowRow(Struct, frozen=True):
    """One row for each member of a classifier.

    `as_prompt`: a text without a prompt is read as a prompt, too. `position` is None if the row
    holds all of the input. `windows` is the number of rows that the text needs, its dialogue
    included.
    """

    rows: tuple[EncodedInput, ...]
    as_prompt: bool = False
    position: WindowPosition | None = None
    windows: int = 1


class WindowEncoder:
    """Encodes inputs for all members of a classifier."""

    def __init__(self, encoders: Sequence[InputEncoder]) -> None:
        self._encoders = tuple(encoders)

    def encode(self, moderation_input: ModerationInput) -> list[WindowRow]:
        """Returns the rows of an input whose texts are clean.

        Raises InputTooLong for more than `MAX_CHARACTERS` characters or `MAX_WINDOWS` windows.
        """
        texts = (*moderation_input.turns, moderation_input.response or "", *moderation_input.apart)
        characters = sum(map(len, texts))
        if characters > MAX_CHARACTERS:
            raise InputTooLong(
                f"{characters:,} characters: at most {MAX_CHARACTERS:,} are read as a whole"
            )
        rows: list[WindowRow] = []
        for text_rows in self._texts(moderation_input):
            start = len(rows)
            for row in text_rows:
                rows.append(row)
                if len(rows) > MAX_WINDOWS:
                    raise InputTooLong(
                        f"{characters:,} characters need more than {MAX_WINDOWS} windows of tokens"
                    )
            windows = len(rows) - start
            rows[start:] = [structs.replace(row, windows=windows) for row in rows[start:]]
        return rows

    def _texts(self, moderation_input: ModerationInput) -> Iterator[Iterator[WindowRow]]:
        """Yields the rows of each text that is judged by itself."""
        turns, response = moderation_input.turns, moderation_input.response
        if response is None:
            yield self._prompt_rows(turns)
        else:
            yield self._answer_rows(turns, response)
        if moderation_input.mode == "response" and response is not None:
            rows = self._prompt_rows((response,), side="answer")
            yield (structs.replace(row, as_prompt=True) for row in rows)
        for text in moderation_input.apart:
            yield self._prompt_rows((text,), side="system message")

    def _prompt_rows(self, turns: Sequence[str], side: str = "prompt") -> Iterator[WindowRow]:
        whole = self._whole_row(turns, None)
        if whole is not None:
            yield WindowRow(whole)
            return
        for span in self._split_dialogue(turns):
            rows = tuple(
                encoder.join_sides(ids, None)
                for encoder, ids in zip(self._encoders, span.ids, strict=True)
            )
            yield WindowRow(rows, position=WindowPosition(side, span.start, span.end))

    def _answer_rows(self, turns: Sequence[str], response: str) -> Iterator[WindowRow]:
        whole = self._whole_row(turns, response)
        if whole is not None:
            yield WindowRow(whole)
            return
        answers = [encoder.tokenise([response])[0] for encoder in self._encoders]
        contexts = [
            encoder.fit_turns([t.ids for t in encoder.tokenise(turns[-MAX_TURNS:])])
            for encoder in self._encoders
        ]
        for span in split_text(response, answers, [e.response for e in self._encoders]):
            rows = tuple(
                encoder.join_sides(context, ids)
                for encoder, (context, _), ids in zip(
                    self._encoders, contexts, span.ids, strict=True
                )
            )
            yield WindowRow(rows, position=WindowPosition("answer", span.start, span.end))
        if len(turns) <= MAX_TURNS and not any(cut for _, cut in contexts):
            return
        for span in self._split_dialogue(turns):
            rows = tuple(
                encoder.join_sides(ids, cut_middle(answer.ids, encoder.response, 0.75))
                for encoder, ids, answer in zip(self._encoders, span.ids, answers, strict=True)
            )
            yield WindowRow(rows, position=WindowPosition("prompt", span.start, span.end))

    def _whole_row(
        self, turns: Sequence[str], response: str | None
    ) -> tuple[EncodedInput, ...] | None:
        """Returns the row of each member if it holds everything, else None."""
        if len(turns) > MAX_TURNS:
            return None
        rows = []
        for encoder in self._encoders:
            texts = [*turns, *([] if response is None else [response])]
            ids = [t.ids for t in encoder.tokenise(texts)]
            row = encoder.build_row(ids[: len(turns)], None if response is None else ids[-1])
            if row.cut:
                return None
            rows.append(row)
        return tuple(rows)

    def _split_dialogue(self, turns: Sequence[str]) -> Iterator[Span]:
        """Yields the spans of all turns, one a line; separators stand where lines end."""
        tokenised = [encoder.tokenise_dialogue(turns) for encoder in self._encoders]
        sizes = [min(encoder.prompt, LONG_PROMPT_TOKENS) for encoder in self._encoders]
        return split_text("\n".join(turns), tokenised, sizes)
