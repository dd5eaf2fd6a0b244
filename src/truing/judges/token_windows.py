"""Overlapping windows of tokens that cover a text, for judges that read few tokens at once.

Of several windows of a text the worst counts. A sentence of up to a quarter of a window is whole in
at least one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from msgspec import Struct

OVERLAP = 0.25
"""The share of a window that is read again in the next one."""

MAX_WINDOWS = 640
"""A text that needs more windows is not judged: about 15,000 tokens at 32 a window."""

_WORD_SEARCH = 24  # characters by which a window begins earlier to begin with a word


class TokenisedText(Struct, frozen=True):
    """The token ids of a text of `length` characters, and the character at which each begins.

    `starts` must not decrease.
    """

    ids: list[int]
    starts: list[int]
    length: int


class Span(Struct, frozen=True):
    """Characters `start` to `end` of a text, and the token ids in it of each member."""

    start: int
    end: int
    ids: tuple[list[int], ...]


def split_text(
    text: str, tokenised: Sequence[TokenisedText], sizes: Sequence[int]
) -> Iterator[Span]:
    """Yields overlapping spans that cover a text; each fits into the windows of all members.

    `tokenised` is the text as the tokenizer of each member sees it, `sizes` their windows in
    tokens. The last span fills the tightest window, so that it has context.
    """
    last_start = max(
        t.starts[len(t.ids) - size] if len(t.ids) > size else 0
        for t, size in zip(tokenised, sizes, strict=True)
    )
    start = 0
    while True:
        start = min(start, last_start)
        firsts = [bisect_left(t.starts, start) for t in tokenised]
        ends = [
            t.starts[first + size] if first + size < len(t.ids) else t.length
            for t, first, size in zip(tokenised, firsts, sizes, strict=True)
        ]
        # One character may have more tokens than a window: it is still read, as a span of its own.
        end = len(text) if start == last_start else max(min(ends), start + 1)
        lasts = [len(t.ids) if end == t.length else bisect_left(t.starts, end) for t in tokenised]
        ids = tuple(
            t.ids[first:last] for t, first, last in zip(tokenised, firsts, lasts, strict=True)
        )
        yield Span(start, end, ids)
        if end == len(text):
            return
        tightest = ends.index(min(ends))
        step_back = int(sizes[tightest] * OVERLAP)
        starts = tokenised[tightest].starts
        next_start = min(end, starts[min(lasts[tightest] - step_back, len(starts) - 1)])
        # At least half of a window is new text: the number of windows is linear in the text.
        start = max(start_of_word(text, next_start), (start + end) // 2, start + 1)


def start_of_word(text: str, position: int) -> int:
    """Returns where the word at a position begins, if that is near; else the position."""
    for start in range(position, max(0, position - _WORD_SEARCH), -1):
        if text[start - 1].isspace():
            return start
    return position
