"""The stream buffer: prefix, suffix and stop texts, whatever the chunks are."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.rails.runtime.stream_buffer import StreamBuffer


def collect(
    chunks: list[str], prefix: str = "", suffix: str = "", stop: tuple[str, ...] = ()
) -> tuple[list[str], StreamBuffer]:
    async def run() -> tuple[list[str], StreamBuffer]:
        buffer = StreamBuffer()
        buffer.expect(prefix, suffix, stop)
        for chunk in chunks:
            await buffer.push(chunk)
        await buffer.finish()
        return [chunk async for chunk in buffer], buffer

    return asyncio.run(run())


def test_chunks_come_out_as_they_went_in() -> None:
    chunks, buffer = collect(["Hel", "lo ", "you"])
    assert chunks == ["Hel", "lo ", "you"]
    assert buffer.completion == "Hello you"


def test_prefix_and_suffix_are_removed_across_chunks() -> None:
    chunks, _ = collect(['  "He', 'llo"', "\n"], prefix='  "', suffix='"\n')
    assert "".join(chunks) == "Hello"
    chunks, _ = collect([" ", ' "', "Hello", '"'], prefix='  "', suffix='"')
    assert "".join(chunks) == "Hello"


def test_a_text_is_cut_at_a_stop_text_across_chunks() -> None:
    chunks, buffer = collect(["Hello\nUs", "er: more"], stop=("\nUser:",))
    assert "".join(chunks) == buffer.completion == "Hello"


def test_what_only_looked_like_a_stop_text_is_shown() -> None:
    chunks, _ = collect(["Hello Us", "ers"], stop=("User:",))
    assert "".join(chunks) == "Hello Users"


def test_after_the_end_nothing_more_is_taken() -> None:
    async def run() -> list[str]:
        buffer = StreamBuffer()
        await buffer.push("a")
        buffer.end()
        buffer.end()
        await buffer.push("b")
        return [chunk async for chunk in buffer]

    assert asyncio.run(run()) == ["a"]


@given(st.text(alphabet='ab"U:', max_size=30), st.lists(st.integers(0, 30), max_size=5))
def test_the_split_into_chunks_does_not_matter(text: str, cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]
    streamed, _ = collect(chunks, stop=("U:",))
    assert "".join(streamed) == text.split("U:")[0]


@pytest.mark.parametrize("suffix", ["", '"'])
def test_an_empty_stream_ends(suffix: str) -> None:
    assert collect([], suffix=suffix)[0] == []
