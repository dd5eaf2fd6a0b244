"""Continuous batching: no token depends on the batch; limits, stop strings and failures."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.models.local.generation import ASKS, answers, texts

from truing.core.types import Conversation, Sampling
from truing.models.local import LocalModel
from truing.models.local.attention import PrefixBlock
from truing.models.local.decoding import Decoder, GenerationRequest, _split_by_tokens
from truing.models.local.kept_prefix import KeptPrefix, KeptPrefixes
from truing.models.local.template import EncodedPrompt


@pytest.mark.parametrize(
    "sampling", [Sampling(max_tokens=16), Sampling(max_tokens=16, temperature=1.0, n=3, seed=5)]
)
def test_batch_size_and_order_change_no_token(
    make: Callable[..., Path], sampling: Sampling
) -> None:
    path = str(make("llama"))
    first = texts(LocalModel.load(path, dtype="float32", device="cpu", batch=64), ASKS, sampling)
    n = sampling.n
    for batch in (1, 2, 5):
        model = LocalModel.load(path, dtype="float32", device="cpu", batch=batch)
        assert texts(model, ASKS, sampling) == first
        turned = texts(model, ASKS[::-1], sampling)
        assert [t for i in reversed(range(len(ASKS))) for t in turned[i * n : i * n + n]] == first
    assert [t for ask in ASKS for t in texts(model, [ask], sampling)] == first


def test_stop_strings_limits_and_logprobs(tiny: LocalModel) -> None:
    (whole,) = answers(tiny, ASKS[:1], Sampling(max_tokens=30))[0]
    assert whole.finish_reason in ("stop", "length")
    word = whole.text[5:8]
    (cut,) = answers(tiny, ASKS[:1], Sampling(max_tokens=30, stop=(word,)))[0]
    assert cut.text == whole.text[: whole.text.index(word)]
    assert cut.finish_reason == "stop"
    (short,) = answers(tiny, ASKS[:1], Sampling(max_tokens=3, logprobs=2))[0]
    assert short.finish_reason == "length"
    assert short.logprobs is not None
    assert [t.logprob for t in short.logprobs] == pytest.approx(
        [t.top[0][1] for t in short.logprobs]
    )  # greedy
    assert all(len(t.top) == 2 for t in short.logprobs)
    assert answers(tiny, ASKS[:1], Sampling(max_tokens=0))[0][0].text == ""


def test_a_prompt_beyond_the_window_is_a_failure_and_the_window_ends_an_answer(
    tiny: LocalModel,
) -> None:
    long = Conversation.of("the rain " * 400)
    (answer,) = answers(tiny, [long], Sampling(max_tokens=5))[0]
    assert answer.failure is not None and answer.failure.kind == "context"
    fits = Conversation.of("the cat sat on the mat " * 20)
    room = tiny.forward.window - len(tiny.template.prompt(fits).ids)
    assert 0 < room < 250
    (ended,) = answers(tiny, [fits], Sampling(max_tokens=10_000))[0]
    assert ended.finish_reason in ("length", "stop")
    assert ended.usage.completion_tokens <= room


def test_logits_that_are_no_numbers_are_a_failure(make: Callable[..., Path]) -> None:
    model = LocalModel.load(str(make("llama")), dtype="float32", device="cpu")
    with torch.no_grad():
        model.forward.head.weight.fill_(float("nan"))
    (answer,) = answers(model, ASKS[:1], Sampling(max_tokens=5))[0]
    assert answer.failure is not None and answer.failure.kind == "nan"


def make_request(
    ids: tuple[int, ...],
    heads: tuple[int, ...] = (),
    kept_prefix: KeptPrefix | None = None,
    on_finish: Callable[[GenerationRequest], None] = lambda request: None,
    max_tokens: int = 3,
) -> GenerationRequest:
    return GenerationRequest(
        EncodedPrompt(ids, heads),
        Sampling(max_tokens=max_tokens, logprobs=3),
        None,
        on_finish,
        kept_prefix=kept_prefix,
    )


def test_batches_are_split_by_prompt_tokens_behind_the_shared_head() -> None:
    requests = [make_request((1,) * n) for n in (5, 5, 5, 20, 1)]
    batches = _split_by_tokens(requests, 10)
    assert [[len(r.prompt.ids) for r in batch] for batch in batches] == [[5, 5], [5], [20], [1]]
    for request in requests:
        request.shared_length = len(request.prompt.ids)
    assert len(_split_by_tokens(requests, 10)) == 1
    assert _split_by_tokens([], 10) == []


def test_a_history_is_shared_by_four_prompts_else_the_system_message(tiny: LocalModel) -> None:
    def shared_lengths(count: int) -> set[int]:
        decoder = Decoder(tiny.forward)
        requests = [make_request((1, 2, 3, 4, 5, 6 + i), (5, 2)) for i in range(count)]
        decoder.add(requests)
        return {r.shared_length for r in requests}

    assert shared_lengths(3) == {2}
    assert shared_lengths(4) == {5}


def test_the_longest_prompt_is_admitted_first(tiny: LocalModel) -> None:
    decoder = Decoder(tiny.forward, slots=1)
    short, long = make_request((3, 4)), make_request((3, 4, 5, 6))
    decoder.add([long, short])
    assert decoder.waiting[-1] is long and decoder.busy
    with torch.inference_mode():
        decoder.step()
        assert decoder.live == [long] and decoder.waiting == [short]
        while decoder.busy:
            decoder.step()
    assert all(r.finish_reason in ("stop", "length") for r in (short, long))
    assert decoder.rows.lengths == []


def test_cancelled_requests_leave_their_slots(tiny: LocalModel) -> None:
    decoder = Decoder(tiny.forward, slots=1)
    running, waiting = make_request((3, 4, 5)), make_request((3, 4))
    decoder.add([running, waiting])
    with torch.inference_mode():
        decoder.step()
        running.cancelled = waiting.cancelled = True
        decoder.step()
    assert not decoder.busy and decoder.rows.lengths == []


def test_fail_ends_running_and_waiting_requests(tiny: LocalModel) -> None:
    decoder = Decoder(tiny.forward, slots=1)
    requests = [make_request((3, 4, 5)), make_request((3, 4))]
    decoder.add(requests)
    with torch.inference_mode():
        decoder.step()
    decoder.fail("MemoryError", "out of memory")
    assert not decoder.busy
    assert {r.failure for r in requests if not r.output_ids} == {("MemoryError", "out of memory")}
    assert all(r.finish_reason for r in requests)


# -- cached prefixes -----------------------------------------------------------------------------

# Heads of one prompt that others share in part, and tails that diverge.
PROMPTS = st.builds(
    lambda base, length, tail: (*base[:length], *tail),
    st.sampled_from([tuple(range(20, 60)), (20, 21, 22, *range(100, 137)), tuple(range(60, 100))]),
    st.sampled_from([2, 4, 13, 20, 40]),
    st.lists(st.integers(3, 4), min_size=1, max_size=2),
)


class PromptCall(NamedTuple):
    """A prompt, its answer's length, whether its prefix is cached, and the steps until the next."""

    ids: tuple[int, ...]
    max_tokens: int
    keeps_prefix: bool
    steps: int


CALLS = st.builds(
    PromptCall,
    PROMPTS,
    st.integers(1, 8),
    st.sampled_from([True, True, False]),
    st.sampled_from([0, 1, 10]),
)


def run_until_done(decoder: Decoder) -> None:
    while decoder.busy:
        decoder.step()


def check_equal_logprobs(one: GenerationRequest, other: GenerationRequest) -> None:
    for first, second in zip(one.logprobs, other.logprobs, strict=True):
        assert first.logprob == pytest.approx(second.logprob, abs=1e-3)


def run_calls(
    model: LocalModel, calls: list[PromptCall], heads: int, size: int
) -> list[tuple[GenerationRequest, GenerationRequest]]:
    """Runs calls that overlap; returns each beside the same prompt read by itself."""
    prefixes = KeptPrefixes(size=size)
    decoder = Decoder(model.forward, slots=8, heads=heads)
    requests: list[GenerationRequest] = []
    with torch.inference_mode():
        for call in calls:
            shared = (6, 3) if len(call.ids) > 6 else ()
            if call.keeps_prefix:
                prefix = prefixes.take(call.ids)
                request = make_request(
                    call.ids,
                    shared,
                    prefix,
                    lambda request, prefix=prefix: prefixes.give_back(prefix),  # type: ignore[misc]
                    call.max_tokens,
                )
            else:
                request = make_request(call.ids, shared, max_tokens=call.max_tokens)
            requests.append(request)
            decoder.add([request])
            for _ in range(call.steps):
                decoder.step()
        run_until_done(decoder)
        pairs = []
        for request in requests:
            alone = make_request(request.prompt.ids, max_tokens=request.sampling.max_tokens)
            fresh = Decoder(model.forward)
            fresh.add([alone])
            run_until_done(fresh)
            pairs.append((request, alone))
    return pairs


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    calls=st.lists(CALLS, min_size=4, max_size=10), heads=st.integers(1, 3), size=st.integers(1, 3)
)
# A live head that is longer than what the prompt's own prefix has: its tokens are not cached.
@example(
    calls=[
        PromptCall((20, 21, 90, 91, 92, 93, 94, 95), 1, True, 1),
        PromptCall((*range(20, 40), 3), 8, False, 1),
        PromptCall((*range(20, 40), 4), 1, True, 10),
        PromptCall((*range(20, 40), 4, 5), 1, True, 1),
    ],
    heads=1,
    size=1,
)
# A prefix that stores a prompt which diverges earlier, while another request reads its head.
@example(
    calls=[
        PromptCall((*range(20, 40), 3), 1, True, 0),
        PromptCall((*range(20, 40), 4), 1, True, 1),
        PromptCall((*range(20, 40), 5), 8, True, 0),
        PromptCall((*range(20, 40), 6), 1, True, 1),
        PromptCall((*range(20, 33), *range(70, 76)), 1, True, 1),
    ],
    heads=3,
    size=2,
)
def test_prompts_that_grow_and_diverge_at_once_have_the_logits_of_fresh_ones(
    tiny: LocalModel, calls: list[PromptCall], heads: int, size: int
) -> None:
    pairs = run_calls(tiny, calls, heads, size)
    assert len(pairs) == len(calls)
    for request, alone in pairs:
        assert request.failure is None
        check_equal_logprobs(request, alone)


def test_the_block_of_a_head_goes_with_its_last_request(tiny: LocalModel) -> None:
    prefixes = KeptPrefixes(size=1)
    decoder = Decoder(tiny.forward, slots=8)
    decoder.add([make_request((5, 6, 7), max_tokens=200)])
    blocks: list[weakref.ref[PrefixBlock]] = []
    with torch.inference_mode():
        for length in range(10, 20):
            ids = tuple(range(20, 20 + length))
            prefix = prefixes.take(ids)
            request = make_request(ids, (), prefix, max_tokens=1)
            decoder.add([request])
            decoder.step()
            if request.block is not None:
                blocks.append(weakref.ref(request.block))
            decoder.step()
            prefixes.give_back(prefix)
            del request
    assert decoder.busy and len(blocks) > 5
    assert [block for block in blocks if block() is not None] == []
