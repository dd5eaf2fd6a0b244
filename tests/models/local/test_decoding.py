"""Continuous batching: no token depends on the batch; limits, stop strings and failures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.models.local.generation import ASKS, answers, texts

from truing.core.types import Conversation, Sampling
from truing.models.local import LocalModel
from truing.models.local.decoding import Decoder, GenerationRequest, _split_by_tokens
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


def make_request(ids: tuple[int, ...], heads: tuple[int, ...] = ()) -> GenerationRequest:
    return GenerationRequest(
        EncodedPrompt(ids, heads), Sampling(max_tokens=3), None, lambda request: None
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
