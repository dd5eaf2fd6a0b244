"""Likelihoods: the numbers of one plain forward pass, whatever is shared, batched or padded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from truing.core.errors import UserError
from truing.core.types import ContinuationScores, Conversation
from truing.hf.loading import load_causal_lm
from truing.models.local import LocalModel
from truing.models.local.likelihood import LikelihoodScorer, PassBudget, ScoreQuery

SHARED = "the cat sat on the mat and looked at the rain in the garden. "
QUERIES = [
    ScoreQuery("the cat sat on", (" the mat", " the garden", " rain", " the mat and looked")),
    ScoreQuery("the cat sat on", (" it",)),
    ScoreQuery("the cat", (" sat on the mat", " looked")),
    ScoreQuery(
        SHARED * 3 + "how do I repair",
        (" a wheel?", " the rain?", " a bicycle wheel that is out of true?"),
    ),
    ScoreQuery(SHARED * 3 + "what is", (" a wheel", " a")),
    ScoreQuery(SHARED * 3 + "what is", (" a wheel", " a")),
    ScoreQuery(
        Conversation.of("how do I repair a wheel?"), ("Ask a patient helper.", "the rain", "Ask")
    ),
    ScoreQuery(Conversation.of("the cat", system=SHARED * 2), ("sat", "0123456789 " * 8)),
    ScoreQuery("", ("the cat sat", "<|im_start|>the cat")),
    ScoreQuery("numbers ", ("0123", "12")),  # a space at the end goes to the continuation
]


def plain(path: str, query: ScoreQuery, model: LocalModel) -> list[list[float]]:
    """One continuation at a time: the whole text tokenised, one forward pass of transformers' own attention."""
    loaded = load_causal_lm(path, dtype="float32", device="cpu")
    made = []
    for continuation in query.continuations:
        context = (
            query.prefix if isinstance(query.prefix, str) else model.template.render(query.prefix)
        )
        cut = context.rstrip() if isinstance(query.prefix, str) else context
        before = loaded.tokenizer(cut).input_ids if cut else [loaded.tokenizer.bos_token_id]
        whole = loaded.tokenizer(context + continuation).input_ids
        if not context and whole[:1] != before:
            whole = before + whole
        ids = [*before, *whole[len(before) :]]
        with torch.inference_mode():
            logs = torch.log_softmax(loaded.model(torch.tensor([ids[:-1]])).logits[0].float(), -1)
        made.append([float(logs[at - 1, ids[at]]) for at in range(len(before), len(ids))])
    return made


def check(
    made: list[list[ContinuationScores]], wanted: list[list[list[float]]], tolerance: float = 1e-4
) -> int:
    """How many continuations were compared; each within the tolerance."""
    compared = 0
    for scores, rows in zip(made, wanted, strict=True):
        for score, row in zip(scores, rows, strict=True):
            assert score.failure is None
            assert np.abs(np.array(score.logprobs) - np.array(row)).max() < tolerance
            compared += 1
    return compared


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("mistral", {"sliding_window": 24}),
    ("gemma2", {"sliding_window": 24, "query_pre_attn_scalar": 16, "tie_word_embeddings": False}),
    ("granite", {"logits_scaling": 4.0}),
    ("gpt2", {"tie_word_embeddings": False}),
]


@pytest.mark.parametrize(("kind", "more"), KINDS, ids=[k for k, _ in KINDS])
def test_numbers_are_those_of_a_plain_pass_under_any_budget(
    make: Callable[..., Path], kind: str, more: dict[str, Any]
) -> None:
    path = str(make(kind, **more))
    model = LocalModel.load(path, dtype="float32", device="cpu")
    wanted = [plain(path, q, model) for q in QUERIES]
    with torch.inference_mode():
        assert check(model.likelihood.score(QUERIES), wanted)
        for budget in (
            PassBudget(tree=16, head=4),
            PassBudget(tokens=20, tree=8, head=1),
            PassBudget(tree=40, head=999, logits=1),
        ):
            assert check(
                LikelihoodScorer(model.forward, model.template, budget).score(QUERIES), wanted
            )
        assert check([model.likelihood.score([q])[0] for q in QUERIES], wanted)
        assert check(model.likelihood.score(QUERIES[::-1])[::-1], wanted)


def test_the_real_model_too(smollm2: LocalModel) -> None:
    chosen = [QUERIES[0], QUERIES[3], QUERIES[4], QUERIES[6]]
    with torch.inference_mode():
        assert check(
            smollm2.likelihood.score(chosen), [plain("smollm2", q, smollm2) for q in chosen]
        )


def test_each_shared_token_is_read_once(tiny: LocalModel) -> None:
    read: list[int] = []
    sound = tiny.forward.hidden

    def counted(ids: torch.Tensor, at: torch.Tensor, step: Any) -> torch.Tensor:
        read.append(len(ids))
        return sound(ids, at, step)

    tiny.forward.hidden = counted  # type: ignore[method-assign]
    try:
        with torch.inference_mode():
            header = SHARED * 3
            asked = [
                ScoreQuery(header + f"{n}. what is", (" a wheel", " a mat", " rain"))
                for n in range(9)
            ]
            tiny.likelihood.score(asked)
            once = sum(read)
            read.clear()
            for query in asked:
                tiny.likelihood.score([query])
    finally:
        tiny.forward.hidden = sound  # type: ignore[method-assign]
    length = len(tiny.forward.encode(header))
    assert length > 40
    assert once < length + 9 * 30  # the header once, not nine times
    assert sum(read) > 8 * length


def test_what_cannot_be_scored_is_said(tiny: LocalModel, make: Callable[..., Path]) -> None:
    def one(prefix: Conversation | str, *continuations: str) -> list[ContinuationScores]:
        with torch.inference_mode():
            return tiny.likelihood.score([ScoreQuery(prefix, continuations)])[0]

    empty, sound = one("the cat", "", " sat")
    assert empty.failure is not None and "no token of its own" in empty.failure.message
    assert sound.failure is None
    (merged,) = one("the ca", "t sat on the mat")
    assert merged.merged and merged.failure is None
    (swallowed,) = one("the ca", "t")
    assert swallowed.failure is not None and swallowed.merged
    assert one(Conversation(), "x")[0].failure is not None
    (long,) = one("the cat", " rain 0123456789" * 200)
    assert long.failure is not None and long.failure.kind == "context"
    with pytest.raises(UserError, match="the model reads 256"):
        asyncio.run(tiny.logprobs("the cat", [" rain 0123456789" * 200]))


def test_a_prefix_beyond_the_window_loses_its_first_tokens(tiny: LocalModel) -> None:
    far = "the rain in the garden " * 120
    near = ScoreQuery(far + "the cat", (" sat on the mat",))
    with torch.inference_mode():
        (score,) = tiny.likelihood.score([near])[0]
        ids = tiny.forward.encode(far + "the cat sat on the mat")
        assert score.cut == len(ids) - 1 - tiny.forward.window
        kept = torch.tensor([ids[score.cut : -1]])
        logs = torch.log_softmax(tiny.forward.model(kept).logits[0].float(), -1)
    n = len(score.logprobs)
    assert score.logprobs == pytest.approx(
        [float(logs[-n + i, ids[len(ids) - n + i]]) for i in range(n)], abs=1e-4
    )


def test_logits_that_are_no_numbers_come_out_as_they_are(make: Callable[..., Path]) -> None:
    model = LocalModel.load(str(make("llama")), dtype="float32", device="cpu")
    with torch.no_grad():
        model.forward.head.weight.fill_(float("nan"))
    made = asyncio.run(model.logprobs("the cat", [" sat"]))
    assert np.isnan(made[0]).all()


def test_no_template_means_plain_turns(make: Callable[..., Path]) -> None:
    path = str(make("llama", template=False, bos=True))
    model = LocalModel.load(path, dtype="float32", device="cpu")
    query = ScoreQuery(Conversation.of("how do I repair a wheel?"), (" Ask a helper.", " Rain"))
    with torch.inference_mode():
        assert check(model.likelihood.score([query]), [plain(path, query, model)])
