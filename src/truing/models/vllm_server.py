"""`vllm serve` over HTTP: an OpenAI-compatible endpoint that also scores a given answer.

Log-probabilities of a conversation's continuation come by `prompt_logprobs` of `/chat/completions`,
with the server's own chat template; `/tokenize` (beside `/v1`) returns the number of tokens before
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from truing.core.errors import UserError
from truing.core.types import Conversation, Failure
from truing.http.client import Endpoint, join_url, validate_url
from truing.models.openai import OpenAIModel
from truing.models.openai import build as build_openai
from truing.specs.resolve import Args

_encode = msgspec.json.Encoder().encode


class _Probability(Struct):
    logprob: float


_PromptLogprobs = list[dict[str, _Probability] | None]


class _Choice(Struct):
    prompt_logprobs: _PromptLogprobs | None = None


class _Scored(Struct):
    choices: list[_Choice]
    prompt_logprobs: _PromptLogprobs | None = (
        None  # set for a chat; a completion has it in the choice
    )


class _Count(Struct):
    count: int


def _read_scored(data: bytes) -> _PromptLogprobs:
    reply = msgspec.json.decode(data, type=_Scored)
    logprobs = reply.prompt_logprobs or (
        reply.choices[0].prompt_logprobs if reply.choices else None
    )
    if logprobs is None:
        raise ValueError("no prompt_logprobs: the endpoint is no vLLM server")
    return logprobs


def _read_count(data: bytes) -> int:
    return msgspec.json.decode(data, type=_Count).count


class VllmServer(OpenAIModel):
    """A model behind `vllm serve`."""

    chat: Endpoint
    completions: Endpoint
    tokenize: Endpoint

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        """See `LogprobModel`. Raises UserError if the server returns no prompt
        log-probabilities.
        """
        name = self.name.partition(":")[2]
        if isinstance(prefix, str):
            start = await self._ask(self.tokenize, {"model": name, "prompt": prefix}, _read_count)
        else:
            # With the generation prompt: the assistant header belongs to the prefix, not to the
            # answer.
            head = {"model": name, "messages": prefix.to_openai(), "add_generation_prompt": True}
            start = await self._ask(self.tokenize, head, _read_count)
        logprobs = []
        for continuation in continuations:
            request_options = {
                "model": name,
                "max_tokens": 1,
                "temperature": 0,
                "prompt_logprobs": 0,
            }
            if isinstance(prefix, str):
                body = {**request_options, "prompt": prefix + continuation}
                endpoint = self.completions
            else:
                messages = [*prefix.to_openai(), {"role": "assistant", "content": continuation}]
                # The answer is rendered as an unfinished assistant turn, so that no end-of-turn
                # token follows it and is scored with it.
                chat_fields = {
                    "messages": messages,
                    "add_generation_prompt": False,
                    "continue_final_message": True,
                }
                body, endpoint = {**request_options, **chat_fields}, self.chat
            positions = await self._ask(endpoint, body, _read_scored)
            # With prompt_logprobs=0 each position lists the token of the prompt alone; position 0
            # is null because nothing precedes it.
            logprobs.append(
                [next(iter(p.values())).logprob for p in positions[max(start, 1) :] if p]
            )
        return logprobs

    async def _ask(self, endpoint: Endpoint, body: dict[str, Any], read: Any) -> Any:
        reply = await endpoint.send_request(_encode(body), read)
        if isinstance(reply, Failure):
            raise UserError(
                f"{self.name}: no log-probabilities from {endpoint.url}: {reply.message}"
            )
        return reply


def build(args: Args) -> VllmServer:
    """The model of a `vllm:` spec with `base_url=`; the other arguments are those of `openai:`."""
    base = validate_url(args, args.text("base_url", "")).rstrip("/")
    model = build_openai(args, VllmServer)
    model.name = f"vllm:{args.name}"
    model.lineage = msgspec.structs.replace(model.lineage, name=model.name)
    model.chat, model.completions = (
        model.endpoint,
        model.endpoint.with_url(join_url(base, "completions")),
    )
    # vLLM serves its own routes at the root, not below /v1.
    model.tokenize = model.endpoint.with_url(
        join_url(base.replace("/v1?", "?").removesuffix("/v1"), "tokenize")
    )
    return model
