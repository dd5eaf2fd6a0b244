"""vLLM: against a stand-in with its interface and a real model behind it; the local back end must say the same."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.models import vllm_stand_in
from tests.servers import Request, serving

from truing.core.errors import MissingExtra, SpecError, UserError
from truing.core.types import Conversation, Message, Sampling
from truing.http.limits import close_connections
from truing.specs.resolve import resolve

ASKED = Conversation.of("Name three uses of a kettle.", system="Answer in one short sentence.")
GREEDY = Sampling(max_tokens=12)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a chat template."""
    from tests.models.local.conftest import SIZES, tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(3)
    folder = tmp_path_factory.mktemp("tiny")
    made = tokenizer()
    made.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(made),
        eos_token_id=made.eos_token_id,
        pad_token_id=made.pad_token_id,
        **SIZES,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> Iterator[Any]:
    stand_in = vllm_stand_in.module()
    monkeypatch.setitem(sys.modules, "vllm", stand_in)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", stand_in.sampling_params)
    vllm_stand_in.AsyncLLMEngine.made.clear()
    made = resolve(f"vllm:{tiny},dtype=float32", "model")
    yield made
    asyncio.run(made.close())
    asyncio.run(made.close())


def test_the_same_tokens_as_the_local_back_end(model: Any, tiny: Path) -> None:
    local = resolve(f"local:{tiny},dtype=float32", "model")
    for asked in (
        ASKED,
        Conversation.of("Say hello"),
        ASKED.then(Message("assistant", "Tea, and")),
    ):
        (expected,) = asyncio.run(local.generate(asked, GREEDY))
        (got,) = asyncio.run(
            model.generate(asked, GREEDY)
        )  # another event loop each time: the engine has its own
        assert (got.text, got.finish_reason) == (expected.text, expected.finish_reason)
        assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (
            expected.usage.prompt_tokens,
            expected.usage.completion_tokens,
        )
    asyncio.run(local.close())


def test_each_answer_has_a_seed_of_its_own_whatever_n_is(model: Any) -> None:
    how = Sampling(n=3, max_tokens=8, temperature=1.0, seed=7)
    three = asyncio.run(model.generate(ASKED, how))
    (one,) = asyncio.run(
        model.generate(ASKED, Sampling(n=1, max_tokens=8, temperature=1.0, seed=7))
    )
    assert three[0] == one
    assert len({a.text for a in three}) == 3
    (engine,) = vllm_stand_in.AsyncLLMEngine.made
    assert len({p.seed for p in engine.params}) == 3
    assert all(0 <= p.seed < 2**63 for p in engine.params)
    assert (engine.args.enable_prefix_caching, engine.args.disable_log_stats) == (True, True)


def test_a_stream_is_the_answer_and_leaving_it_aborts(model: Any) -> None:
    async def stream(most: int) -> list[str]:
        pieces: list[str] = []
        source = model.stream(ASKED, GREEDY)
        async for piece in source:
            pieces.append(piece)
            if len(pieces) == most:
                break
        await source.aclose()
        return pieces

    (whole,) = asyncio.run(model.generate(ASKED, GREEDY))
    assert "".join(asyncio.run(stream(1000))) == whole.text
    (engine,) = vllm_stand_in.AsyncLLMEngine.made
    assert engine.aborted == []
    assert len(asyncio.run(stream(2))) == 2
    assert len(engine.aborted) == 1


def test_log_probabilities_of_tokens_written_and_read(model: Any) -> None:
    how = Sampling(max_tokens=5, logprobs=2)
    (answer,) = asyncio.run(model.generate(ASKED, how))
    assert answer.logprobs is not None
    assert len(answer.logprobs) == answer.usage.completion_tokens
    assert all(
        t.logprob == t.top[0][1] for t in answer.logprobs
    )  # greedy: the token is the likeliest
    assert len(answer.logprobs[0].top) == 2
    for prefix in (ASKED, "The cat sat on"):
        text = prefix if isinstance(prefix, str) else model._template.render(prefix)
        (got,) = asyncio.run(model.logprobs(prefix, [" the mat"]))
        (engine,) = vllm_stand_in.AsyncLLMEngine.made
        ids = engine.tokenizer(text + " the mat", add_special_tokens=False).input_ids
        start = len(engine.tokenizer(text, add_special_tokens=False).input_ids)
        rows = engine._logprobs(ids)
        assert got == pytest.approx(
            [float(rows[k - 1][ids[k]]) for k in range(start, len(ids))], abs=1e-5
        )


def test_what_the_engine_refuses_is_a_failure(model: Any) -> None:
    (long,) = asyncio.run(model.generate(Conversation.of("rain " * 2000), GREEDY))
    assert long.failure is not None
    assert (long.failure.kind, long.failure.message[:18]) == ("refused", "The decoder prompt")
    vllm_stand_in.AsyncLLMEngine.made[0].down = True
    (dead,) = asyncio.run(model.generate(ASKED, GREEDY))
    assert dead.failure is not None
    assert dead.failure.kind == "engine"
    (empty,) = asyncio.run(model.generate(Conversation(), GREEDY))
    assert empty.failure is not None
    assert empty.failure.kind == "template"


def test_wrong_specs() -> None:
    with pytest.raises(SpecError, match="give the model"):
        resolve("vllm:", "model")
    with pytest.raises(SpecError, match="unknown argument 'dtyp'"):
        resolve("vllm:smollm2,dtyp=float32", "model")
    with pytest.raises(SpecError, match="share of the card"):
        resolve("vllm:smollm2,gpu_memory=2", "model")
    with pytest.raises(MissingExtra, match=r"pip install 'truing\[vllm\]'"):
        resolve("vllm:smollm2", "model")
    with pytest.raises(SpecError, match="no http or https URL"):
        resolve("vllm:m,base_url=ftp://x/v1", "model")


def _words(text: str) -> list[str]:
    return text.split()


async def _vllm_server(request: Request) -> None:
    """`vllm serve` as far as scoring goes: a token is a word, and its log-probability minus its length."""
    body = request.json
    if request.path == "/tokenize":
        if "prompt" in body:
            await request.send(
                200, {"count": len(_words(body["prompt"])), "max_model_len": 9, "tokens": []}
            )
        else:
            assert body["add_generation_prompt"]
            words = [w for m in body["messages"] for w in _words(m["content"])]
            await request.send(200, {"count": len(words) + 1, "max_model_len": 9, "tokens": []})
        return
    assert (body["max_tokens"], body["prompt_logprobs"]) == (1, 0)
    if request.path == "/v1/completions":
        words, head = _words(body["prompt"]), []
    else:
        assert body["continue_final_message"]
        assert not body["add_generation_prompt"]
        before, head = body["messages"][:-1], ["assistant"]
        words = (
            [w for m in before for w in _words(m["content"])]
            + head
            + _words(body["messages"][-1]["content"])
        )
    scored = [
        None,
        *({str(k): {"logprob": -float(len(w)), "rank": 1}} for k, w in enumerate(words[1:])),
    ]
    choice = {
        "index": 0,
        "finish_reason": "length",
        "message": {"role": "assistant", "content": "x"},
    }
    if request.path == "/v1/completions":
        await request.send(200, {"choices": [{"index": 0, "text": "x", "prompt_logprobs": scored}]})
    else:
        await request.send(200, {"choices": [choice], "prompt_logprobs": scored})


def test_a_server_scores_texts_and_conversations() -> None:
    with serving(_vllm_server) as server:
        made = resolve(f"vllm:m,base_url={server.url}/v1", "model")
        assert made.name == "vllm:m"

        async def both() -> tuple[list[list[float]], list[list[float]]]:
            got = (
                await made.logprobs("a bb", [" ccc dddd", " e"]),
                await made.logprobs(ASKED, ["four words"]),
            )
            await close_connections()
            return got

        texts, chats = asyncio.run(both())
    assert texts == [[-3.0, -4.0], [-1.0]]
    assert chats == [[-4.0, -5.0]]


def test_a_server_that_is_no_vllm_says_so() -> None:
    async def plain(request: Request) -> None:
        if request.path == "/tokenize":
            await request.send(404, {"error": {"message": "not here"}})
        else:
            await request.send_completion("hello")

    with serving(plain) as server:
        made = resolve(f"vllm:m,base_url={server.url}/v1,retries=0", "model")

        async def ask() -> str:
            (answer,) = await made.generate(ASKED, GREEDY)
            with pytest.raises(UserError, match=r"no log-probabilities from .*/tokenize: 404"):
                await made.logprobs("a", ["b"])
            await close_connections()
            return str(answer.text)

        assert asyncio.run(ask()) == "hello"
