"""Windows cover the text, fit every member, and keep short passages whole."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from truing.judges.token_windows import OVERLAP, TokenisedText, split_text

WORDS = st.lists(st.text("abcé\u0101", min_size=1, max_size=12), min_size=1, max_size=120)
SIZES = st.tuples(st.integers(8, 40), st.integers(8, 40))


def tokenise_words(text: str) -> TokenisedText:
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    return TokenisedText(list(range(len(starts))), starts, len(text))


def tokenise_bytes(text: str) -> TokenisedText:
    """Returns a token per byte, so that some characters have several."""
    starts = [k for k, character in enumerate(text) for _ in character.encode()]
    return TokenisedText(list(range(len(starts))), starts, len(text))


@settings(max_examples=60, deadline=None)
@given(WORDS, SIZES)
def test_spans_cover_the_text_and_fit(words: list[str], sizes: tuple[int, int]) -> None:
    text = " ".join(words)
    tokenised = [tokenise_words(text), tokenise_bytes(text)]
    spans = list(split_text(text, tokenised, sizes))
    assert spans[0].start == 0 and spans[-1].end == len(text)
    assert all(b.start <= a.end and b.start > a.start for a, b in zip(spans, spans[1:]))
    for member, size in enumerate(sizes):
        # Tokens of the character at the seam may be one or two more.
        assert all(len(span.ids[member]) <= size + 2 for span in spans)
        ids = {token for span in spans for token in span.ids[member]}
        assert ids == set(tokenised[member].ids)
    assert len(spans) <= 3 * max(len(t.ids) / s for t, s in zip(tokenised, sizes)) + 2


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(12, 60), st.data())
def test_a_passage_of_a_quarter_of_a_window_is_whole_in_one(
    count: int, size: int, data: st.DataObject
) -> None:
    text = " ".join(f"w{k}" for k in range(count))
    tokenised = tokenise_words(text)
    first = data.draw(st.integers(0, count - 1))
    passage = set(range(first, min(count, first + int(size * OVERLAP))))
    assert any(passage <= set(span.ids[0]) for span in split_text(text, [tokenised], [size]))


@settings(max_examples=60, deadline=None)
@given(st.text("aé\u0101 ", min_size=1, max_size=40), st.integers(1, 9))
def test_no_span_is_empty_if_a_character_has_more_tokens_than_a_window(
    text: str, size: int
) -> None:
    spans = list(split_text(text, [tokenise_bytes(text)], [size]))
    assert all(span.start < span.end for span in spans)
    assert all(b.start <= a.end and b.start > a.start for a, b in zip(spans, spans[1:]))
    assert spans[0].start == 0 and spans[-1].end == len(text)
