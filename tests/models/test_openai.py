"""The OpenAI-compatible endpoint: what is sent, what is read, and every way in which it can go wrong."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.model_stand_ins import EvenJudge, MemoryDataset
from tests.servers import Request, serving

from truing.core.errors import BudgetExceeded, SpecError, UserError
from truing.core.types import Answer, Conversation, Sampling, TokenLogprob, Tool
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.http.limits import close_connections
from truing.models.openai import OpenAIModel
from truing.specs.resolve import resolve

SLEEP = asyncio.sleep
ASK = Conversation.of("What is a kettle for?", system="Be brief.")


def model(url: str, **args: Any) -> OpenAIModel:
    made = resolve(
        "openai:tiny,base_url=" + url + "/v1" + "".join(f",{k}={v}" for k, v in args.items()),
        "model",
    )
    assert isinstance(made, OpenAIModel)
    return made


def ask(
    m: OpenAIModel, sampling: Sampling | None = None, conversation: Conversation = ASK
) -> tuple[Answer, ...]:
    async def run() -> tuple[Answer, ...]:
        try:
            return await m.generate(conversation, sampling or Sampling())
        finally:
            await close_connections()

    return asyncio.run(run())


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are noted and not waited for."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds:
            waits.append(seconds)
        await SLEEP(0)

    monkeypatch.setattr("truing.http.client.asyncio.sleep", sleep)
    return waits


def test_what_is_sent_and_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")

    async def handler(r: Request) -> None:
        call = {
            "id": "c1",
            "type": "function",
            "function": {"name": "boil", "arguments": '{"l":1}'},
        }
        tokens = [
            {"token": "Te", "logprob": -0.5, "top_logprobs": [{"token": "Te", "logprob": -0.5}]}
        ]
        choices = [
            {
                "finish_reason": "tool_calls",
                "message": {"role": "assistant", "content": None, "tool_calls": [call]},
            },
            {
                "finish_reason": "length",
                "message": {"content": "Tea"},
                "logprobs": {"content": tokens},
            },
        ]
        usage = {
            "prompt_tokens": 11,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 4},
        }
        await r.send(200, {"choices": choices, "usage": usage})

    sampling = Sampling(
        n=2,
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        seed=2**40 + 5,
        stop=("#",),
        logprobs=1,
        tools=(Tool("boil", "boils", '{"type":"object"}'),),
    )
    with serving(handler) as server:
        first, second = ask(
            model(server.url, api_key_env="MY_KEY", body='"{\\"top_k\\":3,\\"seed\\":null}"'),
            sampling,
        )
    sent = server.requests[0].json
    assert sent == {
        "model": "tiny",
        "messages": ASK.to_openai(),
        "max_tokens": 9,
        "temperature": 0.5,
        "n": 2,
        "top_p": 0.9,
        "stop": ["#"],
        "logprobs": True,
        "top_logprobs": 1,
        "top_k": 3,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "boil",
                    "description": "boils",
                    "parameters": {"type": "object"},
                },
            }
        ],
    }
    assert server.requests[0].headers["authorization"] == "Bearer s3cret"
    assert [c.name for c in first.message.tool_calls] == ["boil"]
    assert first.message.tool_calls[0].arguments == '{"l":1}'
    assert (first.finish_reason, first.usage.prompt_tokens, first.usage.cached_tokens) == (
        "tool_calls",
        11,
        4,
    )
    assert (second.text, second.finish_reason, second.usage.prompt_tokens) == ("Tea", "length", 0)
    assert second.logprobs is not None
    assert second.logprobs == (TokenLogprob("Te", -0.5, (("Te", -0.5),)),)


def test_a_model_without_a_chat_api_gets_the_prompt_as_text() -> None:
    async def handler(request: Request) -> None:
        text = f"about {request.json['prompt']}"
        usage = {"prompt_tokens": 2, "completion_tokens": 3}
        choices = [{"text": text, "finish_reason": "length"}]
        await request.send(200, {"choices": choices, "usage": usage})

    with serving(handler) as server:
        (answer,) = ask(model(server.url, api="completions"), Sampling(max_tokens=7))
    assert answer.text.startswith("about system: Be brief.\nuser: What is a kettle for?")
    assert answer.finish_reason == "length" and answer.usage.completion_tokens == 3
    (request,) = server.requests
    assert request.path.endswith("/completions") and "chat" not in request.path
    assert "messages" not in request.json and request.json["max_tokens"] == 7
    with pytest.raises(SpecError, match="chat or completions"):
        model("http://localhost:1", api="text")


def test_a_server_that_gives_one_answer_at_a_time_is_asked_again() -> None:
    async def handler(r: Request) -> None:
        await r.send_completion(f"answer {r.number} of {r.json.get('n', 1)}")

    with serving(handler) as server:
        answers = ask(model(server.url), Sampling(n=3, seed=8))
    assert [a.text for a in answers] == ["answer 0 of 3", "answer 1 of 2", "answer 2 of 1"]
    assert len({r.json["seed"] for r in server.requests}) == 3


def test_streaming_gives_the_same_answer_piece_by_piece() -> None:
    async def handler(r: Request) -> None:
        assert r.json["stream"] is True
        events = [{"choices": [{"delta": {"role": "assistant", "content": ""}}]}]
        events += [{"choices": [{"delta": {"content": w}}]} for w in ("To ", "boil ", "water.")]
        events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        events.append({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}})  # type: ignore[dict-item]
        body = (
            b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events)
            + b"data: [DONE]\n\n"
        )
        await r.send(200, b": keep-alive\n\n" + body, kind="text/event-stream")

    async def pieces(m: OpenAIModel) -> list[str]:
        found = [p async for p in m.stream(ASK, Sampling())]
        await close_connections()
        return found

    with serving(handler) as server:
        m = model(server.url, stream="true")
        answer = ask(m)[0]
        assert asyncio.run(pieces(m)) == ["To ", "boil ", "water."]
    assert (answer.text, answer.finish_reason, answer.usage.completion_tokens) == (
        "To boil water.",
        "stop",
        3,
    )


def test_429_and_500_are_asked_again_after_what_the_endpoint_says(no_waiting: list[float]) -> None:
    async def handler(r: Request) -> None:
        if r.number == 0:
            await r.send(429, {"error": {"message": "slow down"}}, headers={"Retry-After": "7"})
        elif r.number == 1:
            await r.send(503, {"error": "busy"}, headers={"retry-after-ms": "250"})
        elif r.number == 2:
            await r.send(500, b"oops", kind="text/plain")
        else:
            await r.send_completion("at last")

    with serving(handler) as server:
        answer = ask(model(server.url))[0]
    assert answer.text == "at last"
    assert 7.0 <= no_waiting[0] <= 7.35
    assert 0.25 <= no_waiting[1] <= 0.2625
    assert 0.0 <= no_waiting[2] <= 4.0


@pytest.mark.parametrize(
    ("status", "body", "kind", "said", "requests"),
    [
        (401, b'{"error":{"message":"bad key"}}', "auth", "401 X: bad key", 1),
        (404, b"<html>nothing here</html>", "http", "404 X: (HTML)", 1),
        (
            429,
            b'{"error":{"message":"pay","code":"insufficient_quota"}}',
            "rate_limited",
            "429 X: pay",
            1,
        ),
        (500, b'{"detail":"broken"}', "http", "500 X: broken (asked 3 times)", 3),
        (302, b"", "http", "302 X", 1),
        (200, b"<html>login</html>", "unparsable", "an answer in another form", 3),
        (200, b'{"choices":[]}', "unparsable", "no choices", 3),
        (200, b'{"choices":[{"message":{"content":5}}]}', "unparsable", "got `int`", 3),
        (200, b'{"id":1}', "unparsable", "`choices`", 3),
        (200, b"", "unparsable", "an empty answer with status 200 (asked 3 times)", 3),
        (200, b"\xff\xfe\x00", "unparsable", "another form", 3),
    ],
)
def test_wrong_answers_are_failures_of_one_line(
    no_waiting: list[float], status: int, body: bytes, kind: str, said: str, requests: int
) -> None:
    async def handler(r: Request) -> None:
        await r.send(status, body)

    with serving(handler) as server:
        answer = ask(model(server.url, retries=2))[0]
    assert answer.failure is not None
    assert answer.failure.kind == kind
    assert said in answer.failure.message
    assert "\n" not in answer.failure.message
    assert len(server.requests) == requests


def test_html_is_called_html(no_waiting: list[float]) -> None:
    async def handler(r: Request) -> None:
        await r.send(200, b"<html>hello</html>", kind="text/html")

    with serving(handler) as server:
        answer = ask(model(server.url, retries=0))[0]
    assert answer.failure is not None
    assert answer.failure.message == "an answer of type text/html, not JSON"


def test_a_hang_a_drop_and_nobody_there(no_waiting: list[float]) -> None:
    async def hang(r: Request) -> None:
        await SLEEP(5)

    async def drop(r: Request) -> None:
        r.writer.write(
            b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"choi'
        )
        await r.writer.drain()
        r.writer.close()

    with serving(hang) as server:
        answer = ask(model(server.url, timeout=0.05, retries=1))[0]
        assert answer.failure is not None
        assert answer.failure.kind == "timeout"
        assert answer.failure.message == "no answer within 0.05 s (timeout=) (asked 2 times)"
    with serving(drop) as server:
        answer = ask(model(server.url, retries=1))[0]
        assert answer.failure is not None
        assert answer.failure.kind == "dropped"
    answer = ask(model(server.url, retries=1))[0]
    assert answer.failure is not None
    assert answer.failure.kind == "connect"


def test_ten_megabytes_are_too_many(no_waiting: list[float]) -> None:
    async def big(r: Request) -> None:
        await r.send_completion("x" * 10_000_000)

    async def chunked(r: Request) -> None:
        r.writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(100):
            r.writer.write(b"19000\r\n" + b" " * 0x19000 + b"\r\n")
            await r.writer.drain()

    for handler in (big, chunked):
        with serving(handler) as server:
            answer = ask(model(server.url))[0]
            assert answer.failure is not None
            assert answer.failure.kind == "too_large"
            assert len(server.requests) == 1


def test_a_long_wait_is_not_waited_for(no_waiting: list[float]) -> None:
    async def handler(r: Request) -> None:
        await r.send(429, {"error": "tomorrow"}, headers={"Retry-After": "3600"})

    with serving(handler) as server:
        answer = ask(model(server.url))[0]
    assert answer.failure is not None
    assert answer.failure.kind == "rate_limited"
    assert no_waiting == []


def test_no_secret_reaches_a_message(
    monkeypatch: pytest.MonkeyPatch, no_waiting: list[float]
) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret-key")

    async def handler(r: Request) -> None:
        await r.send(401, {"error": {"message": f"wrong: {r.headers['authorization']}"}})

    with serving(handler) as server:
        m = model(server.url, api_key_env="MY_KEY")
        answer = ask(m)[0]
        assert answer.failure is not None
        assert "s3cret" not in answer.failure.message + m.name + repr(m.lineage)
    with pytest.raises(SpecError, match="must not contain secrets"):
        resolve("openai:x,api_key=abc", "model")
    with pytest.raises(SpecError, match="must not contain secrets"):
        resolve("openai:x,base_url=http://me:pw@host/v1", "model")


def test_the_budget_of_a_model_stops_it() -> None:
    async def handler(r: Request) -> None:
        await r.send_completion("yes")

    with serving(handler) as server:
        m = model(server.url, budget_tokens=15)
        ask(m)
        ask(m)
        with pytest.raises(BudgetExceeded, match="15 tokens"):
            ask(m)
    assert len(server.requests) == 2


def test_wrong_specs() -> None:
    for spec, word in (
        ("openai:", "give the model's name"),
        ("openai:x,base_url=ftp://a", "no http"),
        ("openai:x,body=[1]", "no JSON object"),
        ("openai:x,body={", "not JSON"),
        ("openai:x,timeout=0", "above 0"),
        ("openai:x,strem=true", "did you mean 'stream'"),
    ):
        with pytest.raises(SpecError, match=word):
            resolve(spec, "model")


def test_log_probabilities_of_given_texts() -> None:
    async def handler(r: Request) -> None:
        prompt = r.json["prompt"]
        tokens = [" " + w if i else w for i, w in enumerate(prompt.split(" "))]
        offsets = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
        scored = {
            "tokens": tokens,
            "text_offset": offsets,
            "token_logprobs": [None, *[-float(i) for i in range(1, len(tokens))]],
        }
        await r.send(200, {"choices": [{"text": prompt, "logprobs": scored}]})

    async def run(m: OpenAIModel) -> list[list[float]]:
        try:
            return await m.logprobs("a kettle is", [" hot", " very cold"])
        finally:
            await close_connections()

    with serving(handler) as server:
        assert asyncio.run(run(model(server.url))) == [[-3.0], [-3.0, -4.0]]
        with pytest.raises(UserError, match="texts only"):
            asyncio.run(model(server.url).logprobs(ASK, ["x"]))


def test_a_run_over_a_shaky_endpoint_keeps_what_it_has(
    tmp_path: Path, no_waiting: list[float]
) -> None:
    seen: dict[str, int] = {}

    async def handler(r: Request) -> None:
        number = int(r.prompt.split()[1].rstrip(":"))
        seen[r.prompt] = seen.get(r.prompt, 0) + 1
        if number % 7 == 3 and seen[r.prompt] == 1:
            await r.send(429, {"error": "x"}, headers={"Retry-After": "1"})
        elif number % 10 == 5:
            await r.send(200, b"<html/>", kind="text/html")
        else:
            await r.send_completion(f"kettle {number}")

    with serving(handler) as server:
        options = EvaluateOptions(concurrency=8)
        run = evaluate(
            model(server.url),
            MemoryDataset.of_size(60),
            [EvenJudge()],
            tmp_path / "run",
            options=options,
        )
        assert server.max_in_flight <= 8
        before = len(server.requests)
        evaluate(
            model(server.url),
            MemoryDataset.of_size(60),
            [EvenJudge()],
            tmp_path / "run",
            options=options,
        )
        assert len(server.requests) == before
    failed = [i for i, r in enumerate(run.responses()) if r.failure]
    assert failed == [5, 15, 25, 35, 45, 55]
    assert [j.verdict is None for j in run.judgements()] == [i in failed for i in range(60)]


def test_one_window_for_all_models_of_an_endpoint_and_key(tmp_path: Path) -> None:
    async def handler(r: Request) -> None:
        await SLEEP(0.01)
        await r.send_completion("yes")

    async def run(url: str) -> None:
        from truing.http.limits import INITIAL_CONCURRENCY

        INITIAL_CONCURRENCY.set(4)
        pair = [model(url), model(url)]
        await asyncio.gather(*(m.generate(ASK, Sampling()) for m in pair for _ in range(20)))
        await close_connections()

    with serving(handler) as server:
        asyncio.run(run(server.url))
    assert server.max_in_flight == 4
    assert len(server.requests) == 40


def test_headers_that_say_the_quota_is_spent_make_all_wait() -> None:
    async def handler(r: Request) -> None:
        spent = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}
        await r.send(
            200,
            {"choices": [{"message": {"content": "x"}}]},
            headers=spent if r.number == 0 else {},
        )

    async def run(url: str) -> float:
        m = model(url)
        await m.generate(ASK, Sampling())
        started = time.monotonic()
        await m.generate(ASK, Sampling())
        await close_connections()
        return time.monotonic() - started

    with serving(handler) as server:
        assert 0.28 <= asyncio.run(run(server.url)) < 2


def test_while_one_waits_to_be_sent_again_another_takes_its_place(tmp_path: Path) -> None:
    answered: list[int] = []
    refused: set[int] = set()

    async def handler(r: Request) -> None:
        number = int(r.prompt.split()[1].rstrip(":"))
        if number in (1, 2) and number not in refused:
            refused.add(number)
            await r.send(429, {"error": "x"}, headers={"Retry-After": "1"})
            return
        await SLEEP(0.02)
        answered.append(number)
        await r.send_completion(f"kettle {number}")

    with serving(handler) as server:
        started = time.monotonic()
        run = evaluate(
            model(server.url),
            MemoryDataset.of_size(20),
            [],
            tmp_path / "run",
            options=EvaluateOptions(concurrency=2),
        )
        took = time.monotonic() - started
        assert server.max_in_flight <= 2  # never more in flight than was asked for
    assert sorted(answered) == list(range(20)) and {1, 2} == set(
        answered[-2:]
    )  # the others did not wait for them
    assert took < 2.0 and all(not r.failure for r in run.responses())


def test_an_endpoint_that_refuses_all_is_not_asked_without_bound(
    tmp_path: Path, no_waiting: list[float]
) -> None:
    async def handler(r: Request) -> None:
        await r.send(503, {"error": "x"}, headers={"Retry-After": "1"})

    with serving(handler) as server:
        run = evaluate(
            model(server.url, retries=2),
            MemoryDataset.of_size(30),
            [],
            tmp_path / "run",
            options=EvaluateOptions(concurrency=4),
        )
        assert server.max_in_flight <= 4 and len(server.requests) == 90
    assert sum(r.failure is not None for r in run.responses()) == 30
