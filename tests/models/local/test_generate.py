"""Generation on this machine: transformers' own greedy tokens, whatever stands beside them in the batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from truing.core.errors import UserError
from truing.core.protocols import LogprobModel, Model, StreamingModel
from truing.core.types import Answer, Conversation, Message, Sampling, Tool
from truing.hf.loading import load_causal_lm, pad_rows
from truing.models.local import LocalModel
from truing.models.local.template import ChatTemplate
from truing.specs.resolve import resolve

SYSTEM = (
    "You are a patient helper who answers in one short sentence. You like cats, bicycles and rain."
)
ASKS = [
    Conversation.of("how do I repair a wheel?"),
    Conversation.of("the cat"),
    Conversation.of("the rain in the garden " * 6, system=SYSTEM),
    Conversation.of("a", system=SYSTEM),
    Conversation.of("numbers 0123456789", system=SYSTEM),
    Conversation.of("Is the mat true?", system=SYSTEM)
    .then(Message("assistant", "It is."))
    .then(Message("user", "and the cat?")),
    Conversation.of("what is a bicycle wheel", system=SYSTEM),
]


def answers(
    model: Model, asks: Sequence[Conversation], sampling: Sampling
) -> list[tuple[Answer, ...]]:
    async def run() -> list[tuple[Answer, ...]]:
        return list(await asyncio.gather(*(model.generate(ask, sampling) for ask in asks)))

    return asyncio.run(run())


def texts(model: Model, asks: Sequence[Conversation], sampling: Sampling) -> list[str]:
    return [a.text for made in answers(model, asks, sampling) for a in made]


def reference(path: str, asks: Sequence[Conversation], n: int, *, side: Any = "left") -> list[str]:
    """What transformers' own `generate` writes, one prompt at a time (or left-padded together)."""
    loaded = load_causal_lm(path, dtype="float32", device="cpu")
    template = ChatTemplate(loaded.tokenizer)
    made = []
    for ask in asks:
        ids, mask = pad_rows([template.prompt(ask).ids], loaded.tokenizer.pad_token_id, side=side)
        out = loaded.model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=n, do_sample=False
        )
        made.append(loaded.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    return made


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"template": False, "bos": True}),
    ("mistral", {"sliding_window": 24}),
    ("qwen3", {}),
    ("gemma2", {"sliding_window": 24, "query_pre_attn_scalar": 16, "tie_word_embeddings": False}),
    (
        "gemma3_text",
        {"sliding_window": 24, "query_pre_attn_scalar": 16, "tie_word_embeddings": False},
    ),
    ("granite", {"logits_scaling": 4.0}),
    (
        "phi3",
        {
            "rope_parameters": {
                "rope_theta": 1e4,
                "rope_type": "default",
                "partial_rotary_factor": 1.0,
            }
        },
    ),
    ("gpt_neox", {"rotary_pct": 0.5}),
    ("gpt2", {"tie_word_embeddings": False}),
]


@pytest.mark.parametrize(
    ("kind", "more"), KINDS, ids=lambda v: v if isinstance(v, str) else "-".join(v)[:24] or "plain"
)
def test_greedy_is_transformers_own(
    make: Callable[..., Path], kind: str, more: dict[str, Any]
) -> None:
    path = str(make(kind, **more))
    mine = LocalModel.load(path, dtype="float32", device="cpu", batch=5)
    wanted = reference(path, ASKS, 24)
    assert texts(mine, ASKS, Sampling(max_tokens=24)) == wanted
    assert len(set(wanted)) > 3  # the models do say different things


def test_the_real_model_too(smollm2: LocalModel) -> None:
    wanted = reference("smollm2", ASKS, 20)
    assert texts(smollm2, ASKS, Sampling(max_tokens=20)) == wanted
    made = answers(smollm2, ASKS[2:5], Sampling(max_tokens=4))
    assert all(
        a.usage.cached_tokens >= 16 for (a,) in made
    )  # the shared system message was read once


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


def test_each_answer_has_a_random_stream_of_its_own(tiny: LocalModel) -> None:
    hot = Sampling(max_tokens=12, temperature=1.0, n=8, seed=3)
    eight = texts(tiny, ASKS[:1], hot)
    assert len(set(eight)) == 8
    assert texts(tiny, ASKS[:1], Sampling(max_tokens=12, temperature=1.0, n=3, seed=3)) == eight[:3]
    assert texts(tiny, ASKS[:1], Sampling(max_tokens=12, temperature=1.0, n=3, seed=4)) != eight[:3]
    assert texts(tiny, [ASKS[1], ASKS[0]], hot)[8:] == eight


def test_draws_follow_the_distribution(tiny: LocalModel) -> None:
    ask = ASKS[1]
    with torch.inference_mode():
        ids = torch.tensor([tiny.template.prompt(ask).ids])
        logits = tiny.forward.model(input_ids=ids).logits[0, -1].float()
    wanted = torch.softmax(logits / 0.8, -1)
    n = 1500
    firsts = answers(tiny, [ask], Sampling(max_tokens=1, temperature=0.8, n=n, logprobs=0))[0]
    names = [a.logprobs[0].token for a in firsts if a.logprobs]
    best = wanted.argmax()
    share = names.count(tiny.forward.tokenizer.decode([int(best)])) / n
    assert len(names) == n
    assert abs(share - float(wanted[best])) < 4 * (0.25 / n) ** 0.5
    narrow = answers(
        tiny, [ask], Sampling(max_tokens=1, temperature=0.8, top_p=float(wanted[best]) * 0.9, n=50)
    )[0]
    assert len({a.text for a in narrow}) == 1


def test_padding_on_either_side_is_the_same_model(tiny: LocalModel) -> None:
    """Rows carry masks and positions, so that pad = eos is safe and left padding equals right padding."""
    from truing.hf.loading import position_ids

    rows = [list(tiny.template.prompt(ask).ids) for ask in ASKS]
    ends = []
    with torch.inference_mode():
        sides: tuple[Any, ...] = ("left", "right")
        for side in sides:
            ids, mask = pad_rows(rows, tiny.forward.tokenizer.pad_token_id, side=side)
            out = tiny.forward.model(
                input_ids=ids, attention_mask=mask, position_ids=position_ids(mask)
            ).logits
            last = [-1] * len(rows) if side == "left" else [len(r) - 1 for r in rows]
            ends.append(torch.stack([out[i, at] for i, at in enumerate(last)]))
    assert torch.allclose(ends[0], ends[1], atol=1e-4)
    assert any(
        tiny.forward.tokenizer.eos_token_id in row for row in rows
    )  # pad = eos stands inside real prompts


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


def test_a_stream_is_the_answer_in_pieces(tiny: LocalModel) -> None:
    async def pieces() -> list[str]:
        return [p async for p in tiny.stream(ASKS[0], Sampling(max_tokens=30))]

    made = asyncio.run(pieces())
    assert len(made) > 1
    assert "".join(made) == texts(tiny, ASKS[:1], Sampling(max_tokens=30))[0]


def test_a_stream_that_is_left_early_frees_its_row(tiny: LocalModel) -> None:
    async def first() -> str:
        stream = tiny.stream(ASKS[0], Sampling(max_tokens=200))
        async for piece in stream:
            await stream.aclose()  # type: ignore[attr-defined]
            return piece
        return ""

    assert asyncio.run(first())
    assert texts(tiny, ASKS[:2], Sampling(max_tokens=8)) == texts(
        tiny, ASKS[:2], Sampling(max_tokens=8)
    )
    until = (
        time.monotonic() + 10
    )  # the worker's thread hands out answers a moment before it clears its rows
    while tiny._worker.decoder.busy and time.monotonic() < until:
        time.sleep(0.01)
    assert not tiny._worker.decoder.busy


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


def test_a_forward_that_breaks_fails_its_answers_and_the_model_lives(
    make: Callable[..., Path],
) -> None:
    model = LocalModel.load(str(make("llama")), dtype="float32", device="cpu")
    sound = model.forward.hidden
    model.forward.hidden = lambda *a: (_ for _ in ()).throw(MemoryError("out of memory"))  # type: ignore[method-assign]
    (answer,) = answers(model, ASKS[:1], Sampling(max_tokens=5))[0]
    assert answer.failure is not None and answer.failure.kind == "MemoryError"
    model.forward.hidden = sound  # type: ignore[method-assign]
    assert answers(model, ASKS[:1], Sampling(max_tokens=5))[0][0].failure is None


def test_templates(tiny: LocalModel, make: Callable[..., Path]) -> None:
    plain = LocalModel.load(
        str(make("llama", template=False, bos=True)), dtype="float32", device="cpu"
    )
    assert plain.template.render(ASKS[3]).endswith("User: a\n\nAssistant:")
    assert plain.template.prompt(ASKS[3]).ids[0] == plain.forward.tokenizer.bos_token_id
    with pytest.raises(UserError, match="without messages"):
        tiny.template.render(Conversation())
    strict = ChatTemplate(tiny.forward.tokenizer)
    strict.tokenizer = _NoSystem(tiny.forward.tokenizer)
    assert strict.render(ASKS[3]).count(SYSTEM) == 1
    (tooled,) = answers(tiny, ASKS[:1], Sampling(max_tokens=2, tools=(Tool("look", "looks"),)))[0]
    assert tooled.failure is None


class _NoSystem:
    """A tokenizer whose template refuses a system role, as Gemma's does."""

    def __init__(self, inner: Any) -> None:
        self.chat_template = "x"
        self._inner = inner

    def apply_chat_template(self, rows: list[dict[str, Any]], **kwargs: Any) -> Any:
        if rows[0]["role"] == "system":
            raise ValueError("System role not supported")
        return self._inner.apply_chat_template(rows, **kwargs)


def test_specs_and_what_can_be_wrong_with_them(make: Callable[..., Path], tmp_path: Path) -> None:
    path = make("llama")
    model = resolve(f"local:{path},dtype=float32,batch=3", "model")
    assert (
        isinstance(model, Model)
        and isinstance(model, LogprobModel)
        and isinstance(model, StreamingModel)
    )
    assert isinstance(model, LocalModel) and model.dtype == "float32"
    assert model.lineage.base_sha256
    half = resolve(f"local:{path},dtype=bfloat16", "model")
    assert half.lineage.hash != model.lineage.hash
    for spec, word in (
        (f"local:{path},batch=0", "less than 1"),
        (f"local:{path},batsh=3", "unknown argument 'batsh'"),
        (f"local:{path},dtype=float99", "float99"),
        (
            f"local:{path},device=cuda"
            if not torch.cuda.is_available()
            else f"local:{path},device=nope",
            "device",
        ),
        ("local:smollm3", "did you mean 'smollm2'"),
        ("local:./no/such", "no such folder"),
        (f"local:{tmp_path}", "no config.json"),
    ):
        with pytest.raises(UserError, match=word):
            resolve(spec, "model")


def test_a_damaged_folder_is_one_clear_line(make: Callable[..., Path], tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(make("llama"), broken)
    (broken / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match="cannot be loaded"):
        resolve(f"local:{broken}", "model")
    shutil.copytree(make("llama"), tmp_path / "mute")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "mute" / file).unlink()
    with pytest.raises(UserError, match="tokenizer cannot be read"):
        resolve(f"local:{tmp_path / 'mute'}", "model")
