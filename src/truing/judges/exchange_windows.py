"""Windows over a prompt and an answer that do not fit together into the tokens of a classifier.

Each part of the answer is paired with the beginning of the prompt, then each further part of a long
prompt with the beginning of the answer. The callers take the worst score of all windows.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, islice
from typing import Any

from msgspec import Struct

from truing.judges.token_windows import MAX_WINDOWS, TokenisedText, split_text


class ExchangeWindow(Struct, frozen=True):
    """A part of a prompt and a part of the answer (None: only the prompt is judged).

    `place` names, in characters, the part that this window is the first to cover.
    """

    prompt: str
    answer: str | None
    place: str


def tokenise_text(tokenizer: Any, text: str) -> TokenisedText:
    """Returns the tokens of a text by a fast tokenizer of transformers, special ones included."""
    encoding = tokenizer(text, return_offsets_mapping=True)
    # The special tokens at the end have offset 0: they count from where the last token begins.
    starts = list(accumulate((start for start, _ in encoding["offset_mapping"]), max))
    return TokenisedText(list(encoding["input_ids"]), starts, len(text))


def split_exchange(
    tokenise: Callable[[str], TokenisedText], prompt: str, answer: str | None, tokens: int
) -> list[ExchangeWindow]:
    """Returns windows of at most `tokens` tokens that cover prompt and answer.

    Of prompt and of answer at most `MAX_WINDOWS + 1` windows are returned: one more than is judged,
    so that the caller can tell that the text is too long.
    """
    prompt_tokens = tokenise(prompt)
    if answer is None:
        spans = islice(split_text(prompt, [prompt_tokens], [tokens]), MAX_WINDOWS + 1)
        return [
            ExchangeWindow(prompt[s.start : s.end], None, _describe_span("prompt", s.start, s.end))
            for s in spans
        ]
    answer_tokens = tokenise(answer)
    # A short prompt leaves the rest to the answer; a long one gets half of the window.
    prompt_token_limit = min(max(1, len(prompt_tokens.ids)), tokens // 2)
    prompt_spans, answer_spans = (
        list(islice(split_text(text, [text_tokens], [size]), MAX_WINDOWS + 1))
        for text, text_tokens, size in (
            (prompt, prompt_tokens, prompt_token_limit),
            (answer, answer_tokens, tokens - prompt_token_limit),
        )
    )
    prompt_start = prompt[: prompt_spans[0].end]
    answer_start = answer[: answer_spans[0].end]
    windows = [
        ExchangeWindow(
            prompt_start, answer[s.start : s.end], _describe_span("answer", s.start, s.end)
        )
        for s in answer_spans
    ]
    windows += [
        ExchangeWindow(
            prompt[s.start : s.end], answer_start, _describe_span("prompt", s.start, s.end)
        )
        for s in prompt_spans[1:]
    ]
    return windows


def _describe_span(side: str, start: int, end: int) -> str:
    return f"characters {start} to {end} of the {side}"
