"""A growing prompt is read once, and its replies are those of whole prompts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from truing.core.protocols import Model, TurnReadingModel
from truing.core.types import Answer, Conversation, Message, Sampling
from truing.judges.guard_formats import GuardFormat, GuardReading, build_llama_guard_prompt
from truing.judges.guards import GuardJudge
from truing.models.cached_model import CachedModel
from truing.models.local import LocalModel
from truing.models.local.attention import PrefixBlock
from truing.models.local.kept_prefix import KeptPrefix, KeptPrefixes

TEXT = "the cat sat on the mat. how do I repair a wheel? numbers 0123 are in the garden. "
SAMPLING = Sampling(max_tokens=4, logprobs=3)


def dialogue(answer: str) -> Conversation:
    return Conversation.of("what is true?").then(Message("assistant", answer))


def ask_all(model: Model, conversations: list[Conversation]) -> list[Answer]:
    async def run() -> list[Answer]:
        return [(await model.generate(c, SAMPLING))[0] for c in conversations]

    return asyncio.run(run())


def check_equal(first: Answer, second: Answer) -> None:
    assert first.text == second.text
    assert first.logprobs is not None and second.logprobs is not None
    for one, other in zip(first.logprobs, second.logprobs, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(TEXT)), min_size=1, max_size=6))
def test_kept_prompts_have_the_logits_of_whole_ones(tiny: LocalModel, cuts: list[int]) -> None:
    conversations = [dialogue(TEXT[:cut]) for cut in (*sorted(cuts), *cuts)]
    kept = ask_all(tiny.turn_reader(keep_prefix=True), conversations)
    whole = ask_all(tiny.turn_reader(), conversations)
    assert [answer.text for answer in kept] == [answer.text for answer in whole]
    for one, other in zip(kept, whole, strict=True):
        check_equal(one, other)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_every_token_is_read_once(make: Callable[..., Path], kind: str) -> None:
    model = LocalModel.load(str(make(kind)), dtype="float32", device="cpu")
    ends = [n for n, c in enumerate(TEXT, 1) if c in ".?"]
    answers = ask_all(model.turn_reader(keep_prefix=True), [dialogue(TEXT[:end]) for end in ends])
    whole = ask_all(model.turn_reader(), [dialogue(TEXT[: ends[-1]])])[0]
    check_equal(answers[-1], whole)
    new_tokens = [a.usage.prompt_tokens - a.usage.cached_tokens for a in answers]
    # Beside the text itself, each reading reads the end of the turn and the header of the reply.
    ending = 12
    assert sum(new_tokens) <= whole.usage.prompt_tokens + ending * len(ends)
    assert answers[1].usage.cached_tokens >= answers[0].usage.prompt_tokens - ending


def test_a_reader_closes_the_last_turn_and_the_model_goes_on_with_it(tiny: LocalModel) -> None:
    ending = "<|im_end|>\n<|im_start|>assistant\n"
    conversation = dialogue("It is")
    assert tiny.template.render(conversation).endswith("assistant\nIt is")
    assert tiny.template.render(conversation, closed=True).endswith("It is" + ending)
    assert isinstance(tiny, TurnReadingModel)


def test_prompts_at_the_same_time_keep_one_prefix_each(tiny: LocalModel) -> None:
    reader = tiny.turn_reader(keep_prefix=True)
    asks = [Conversation.of(f"{word} {TEXT}") for word in ("yes", "no", "maybe")]

    async def run() -> list[Answer]:
        rounds = []
        for end in ("", "the mat.", "the mat. true?"):
            calls = (reader.generate(Conversation.of(c.prompt + end), SAMPLING) for c in asks)
            rounds += [answers[0] for answers in await asyncio.gather(*calls)]
        return rounds

    answers = asyncio.run(run())
    plain = ask_all(
        tiny,
        [Conversation.of(c.prompt + e) for e in ("", "the mat.", "the mat. true?") for c in asks],
    )
    for one, other in zip(answers, plain, strict=True):
        check_equal(one, other)
    assert all(a.usage.cached_tokens > a.usage.prompt_tokens // 2 for a in answers[3:])


def test_texts_that_are_no_text_and_prompts_that_are_too_long(tiny: LocalModel) -> None:
    reader = tiny.turn_reader(keep_prefix=True)
    answers = ask_all(
        reader, [dialogue("\udc80\x00 שלום"), dialogue("the rain " * 400), dialogue("the cat")]
    )
    assert [a.failure.kind if a.failure else None for a in answers] == [None, "context", None]


def test_wrapped_models_are_read_too(tiny: LocalModel) -> None:
    reader = CachedModel(tiny).turn_reader()
    (one,) = ask_all(reader, [dialogue("It is")])
    check_equal(one, ask_all(tiny.turn_reader(), [dialogue("It is")])[0])
    assert isinstance(reader, CachedModel)
    assert not isinstance(CachedModel(tiny).turn_reader(keep_prefix=True), CachedModel)


def test_prefixes_are_bounded() -> None:
    prefixes = KeptPrefixes(size=2)
    for number in range(5):
        prefix = prefixes.take((number, 0))
        prefix.ids = (number, 0)
        prefixes.give_back(prefix)
    assert prefixes.take((9, 9)).ids == (3, 0)
    assert prefixes.take((4, 0, 1)).ids == (4, 0)


def store_numbers(prefix: KeptPrefix, ids: tuple[int, ...], start: int) -> None:
    """Stores keys and values that are the token ids."""
    numbers = torch.tensor([float(i) for i in ids[start:]])[None, :, None]
    prefix.store(ids, start, [numbers], [numbers])


@given(
    st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6).map(tuple), max_size=12),
    st.data(),
)
def test_views_hold_their_tokens_whatever_is_stored(
    prompts: list[tuple[int, ...]], data: st.DataObject
) -> None:
    prefix = KeptPrefix()
    views: list[tuple[tuple[int, ...], PrefixBlock]] = []
    for ids in prompts:
        start = data.draw(st.integers(0, prefix.match(ids)))
        if start:
            views.append((ids[:start], prefix.block(start)))
        store_numbers(prefix, ids, start)
        views.append((ids, prefix.block(len(ids))))
        for held, block in views:
            assert block.k[0].flatten().tolist() == list(held)
            assert block.v[0].flatten().tolist() == list(held)


def test_tokens_that_are_not_cached_are_not_stored_as_cached() -> None:
    prefix = KeptPrefix()
    store_numbers(prefix, (1, 2, 3, 4), 0)
    for ids in ((1, 2, 9, 9, 5), (1, 2, 3, 4, 5, 6)):
        with pytest.raises(ValueError, match="not cached"):
            store_numbers(prefix, ids, prefix.match(ids) + 1)
    assert prefix.ids == (1, 2, 3, 4)


def test_a_growing_prompt_is_not_copied() -> None:
    prefix = KeptPrefix()
    store_numbers(prefix, tuple(range(10)), 0)
    first = prefix.block(9).k[0]
    store_numbers(prefix, (*range(9), 50, 51), 9)
    assert prefix.block(9).k[0].data_ptr() == first.data_ptr()
    store_numbers(prefix, (*range(4), 60), 4)
    assert prefix.block(4).k[0].data_ptr() != first.data_ptr()


def test_a_guard_on_a_local_model_reads_closed_turns_and_each_once(tiny: LocalModel) -> None:
    replies: list[str] = []

    def parse(reply: str) -> GuardReading:
        replies.append(reply)
        return GuardReading({"harmful": False})

    guard_format = GuardFormat(ask=build_llama_guard_prompt, parse=parse, max_tokens=4)
    judge = GuardJudge("any", guard_format, tiny)
    sentences = ["the cat sat on the mat. ", "numbers are in the garden. ", "is it true? "]

    async def run() -> None:
        stream = judge.start(Conversation.of("what is true?"))
        for sentence in sentences:
            verdict = await stream.push(sentence)
            assert verdict is not None and verdict.verdict is False
        await stream.finish()

    asyncio.run(run())
    texts = ["".join(sentences[:n]) for n in (1, 2, 3, 3)]
    asked = [Conversation.of("what is true?").then(Message("assistant", text)) for text in texts]
    whole = ask_all(tiny.turn_reader(), asked)
    assert replies == [answer.text for answer in whole]
