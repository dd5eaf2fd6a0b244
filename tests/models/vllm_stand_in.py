"""What truing uses of vLLM's interface, with a real model behind it: the test machine has no card.

The shapes are those of vLLM's `AsyncLLM`, `SamplingParams`, `RequestOutput` (V1 engine): unknown arguments are refused,
the engine belongs to the event loop that made it, a request id is used once, cumulative output unless told otherwise,
a prompt that is too long is a ValueError, a cancelled request is aborted.
"""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TypedDict

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


class RequestOutputKind(Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = 16
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE

    def __post_init__(self) -> None:
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}.")
        if self.temperature < 0:
            raise ValueError(f"temperature must be non-negative, got {self.temperature}.")


class TokensPrompt(TypedDict):
    prompt_token_ids: list[int]


@dataclass
class AsyncEngineArgs:
    model: str
    dtype: str = "auto"
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    tensor_parallel_size: int = 1
    enable_prefix_caching: bool | None = None
    disable_log_stats: bool = False


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: str | None = None


@dataclass
class RequestOutput:
    request_id: str
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    num_cached_tokens: int | None = None


@dataclass
class _Row:
    ids: list[int]
    text: str = ""
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)


class AsyncLLMEngine:
    """Decodes token by token with a real model."""

    made: list[AsyncLLMEngine] = []  # noqa: RUF012 what the tests look at

    def __init__(self, args: AsyncEngineArgs) -> None:
        self.loop = asyncio.get_running_loop()
        self.args = args
        self.tokenizer = AutoTokenizer.from_pretrained(args.model)
        dtype = torch.float32 if args.dtype == "float32" else torch.bfloat16
        self.model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).eval()
        self.longest = args.max_model_len or self.model.config.max_position_embeddings
        self.seen: set[str] = set()
        self.aborted: list[str] = []
        self.params: list[SamplingParams] = []
        self.down = False
        type(self).made.append(self)

    @classmethod
    def from_engine_args(cls, engine_args: AsyncEngineArgs) -> AsyncLLMEngine:
        return cls(engine_args)

    def shutdown(self) -> None:
        self.down = True

    def _logprobs(self, ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            return self.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)

    def _entry(self, row: torch.Tensor, token: int, top: int) -> dict[int, Logprob]:
        ids = [token, *(int(t) for t in row.topk(top).indices if int(t) != token)]
        return {
            t: Logprob(float(row[t]), int((row > row[t]).sum()) + 1, self.tokenizer.decode([t]))
            for t in ids
        }

    async def generate(
        self, prompt: TokensPrompt, sampling_params: SamplingParams, request_id: str
    ) -> AsyncIterator[RequestOutput]:
        assert asyncio.get_running_loop() is self.loop, "the engine belongs to another event loop"
        assert request_id not in self.seen, f"request {request_id} stands already"
        if self.down:
            raise RuntimeError("EngineDeadError")
        self.seen.add(request_id)
        self.params.append(sampling_params)
        p, ids = sampling_params, list(prompt["prompt_token_ids"])
        if len(ids) > self.longest:
            raise ValueError(
                f"The decoder prompt (length {len(ids)}) is longer than the maximum of {self.longest}."
            )
        scored = None
        if p.prompt_logprobs is not None:
            rows = self._logprobs(ids)
            scored = [
                None,
                *(self._entry(rows[k - 1], ids[k], p.prompt_logprobs) for k in range(1, len(ids))),
            ]
        generator = torch.Generator().manual_seed(p.seed if p.seed is not None else 0)
        row, finish, sent = _Row([]), None, 0
        try:
            while finish is None:
                await asyncio.sleep(0)
                last = self._logprobs(ids + row.ids)[-1]
                if p.temperature == 0:
                    token = int(last.argmax())
                else:
                    token = int(
                        torch.multinomial(
                            (last / p.temperature).softmax(-1), 1, generator=generator
                        )
                    )
                row.ids.append(token)
                if p.logprobs is not None:
                    row.logprobs.append(self._entry(last, token, p.logprobs))
                finish = self._end(row, token, p)
                whole = row.text
                if p.output_kind is not RequestOutputKind.FINAL_ONLY or finish is not None:
                    text = whole[sent:] if p.output_kind is RequestOutputKind.DELTA else whole
                    sent = len(whole)
                    out = CompletionOutput(
                        0,
                        text,
                        list(row.ids),
                        row.logprobs if p.logprobs is not None else None,
                        finish,
                    )
                    yield RequestOutput(request_id, ids, [out], finish is not None, scored, 0)
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted.append(request_id)
            raise

    def _end(self, row: _Row, token: int, p: SamplingParams) -> str | None:
        row.text = self.tokenizer.decode(row.ids, skip_special_tokens=True)
        for stop in p.stop or ():
            if stop in row.text:
                row.text = row.text[: row.text.index(stop)]
                return "stop"
        if token == self.tokenizer.eos_token_id:
            return "stop"
        return "length" if len(row.ids) == p.max_tokens else None


def module() -> types.ModuleType:
    """A module of these, as `import vllm` gives them."""
    made, inner = types.ModuleType("vllm"), types.ModuleType("vllm.sampling_params")
    for name in (
        "AsyncEngineArgs",
        "AsyncLLMEngine",
        "SamplingParams",
        "TokensPrompt",
        "RequestOutput",
    ):
        setattr(made, name, getattr(sys.modules[__name__], name))
    inner.RequestOutputKind = RequestOutputKind  # type: ignore[attr-defined]
    made.sampling_params = inner  # type: ignore[attr-defined]
    return made
