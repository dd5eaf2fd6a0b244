"""Windows over a prompt and an answer: tokens with special ones at the end."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.judges.exchange_windows import split_exchange, tokenise_text

WORDS = st.integers(0, 150).map(lambda count: " ".join(f"w{k}" for k in range(count)))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A fast tokenizer of words that adds [CLS] and [SEP], like those of encoders."""
    import tokenizers
    import transformers

    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


def test_special_tokens_do_not_begin_before_the_tokens_they_follow(tokenizer: Any) -> None:
    tokenised = tokenise_text(tokenizer, "one two three")
    assert tokenised.ids == [1, 0, 0, 0, 2]
    assert tokenised.starts == [0, 0, 4, 8, 8]


@settings(max_examples=60, deadline=None)
@given(prompt=WORDS, answer=WORDS, tokens=st.integers(8, 60))
def test_windows_cover_prompt_and_answer_and_none_is_empty(
    tokenizer: Any, prompt: str, answer: str, tokens: int
) -> None:
    texts = {"prompt": prompt, "answer": answer}
    windows = split_exchange(lambda text: tokenise_text(tokenizer, text), prompt, answer, tokens)
    spans: dict[str, list[tuple[int, int]]] = {"prompt": [(0, len(windows[0].prompt))]}
    for window in windows:
        place = re.fullmatch(r"characters (\d+) to (\d+) of the (prompt|answer)", window.place)
        assert place is not None
        start, end = int(place[1]), int(place[2])
        spans.setdefault(place[3], []).append((start, end))
        part = window.answer if place[3] == "answer" else window.prompt
        assert part == texts[place[3]][start:end]
    for side, text in texts.items():
        assert spans[side][0][0] == 0 and spans[side][-1][1] == len(text)
        assert all(start < end for start, end in spans[side]) or not text
        assert all(b[0] <= a[1] for a, b in itertools.pairwise(spans[side]))
