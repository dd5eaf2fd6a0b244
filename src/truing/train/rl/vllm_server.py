"""Answers sampled by `vllm serve` (`--generator URL`), with one request for each answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from truing.core.errors import PlanError, RunError
from truing.core.types import Failure
from truing.distributed.process_group import ProcessGroup
from truing.http.client import Endpoint
from truing.train.rl.policy_models import PolicyModels
from truing.train.rl.reward_signals import BackgroundEventLoop
from truing.train.rl.vllm_protocol import PolicyVersion, VllmAnswer


class _Logprobs(Struct):
    token_logprobs: list[float | None]


class _Choice(Struct):
    token_ids: list[int] | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Completion(Struct):
    choices: list[_Choice]


class VllmServerEngine:
    """`vllm serve --enable-lora` over HTTP; the server must see the folders of the adapters."""

    def __init__(self, url: str) -> None:
        root = url.rstrip("/").removesuffix("/v1")
        self._event_loop = BackgroundEventLoop()
        self._completions = self._open_endpoint(f"{root}/v1/completions")
        self._load_adapter = self._open_endpoint(f"{root}/v1/load_lora_adapter")
        self._unload_adapter = self._open_endpoint(f"{root}/v1/unload_lora_adapter")
        self._adapter_name = ""

    def close(self) -> None:
        """Closes the connections to the server; the engine cannot be used any more."""
        self._event_loop.close()

    def _open_endpoint(self, url: str) -> Endpoint:
        async def open_in_loop() -> Endpoint:
            # An HTTP client belongs to the event loop in which it is made.
            return Endpoint(url)

        return self._event_loop.run(open_in_loop())

    def push_weights(self, models: PolicyModels, version: PolicyVersion) -> None:
        """Loads the newest adapter and unloads the one before."""
        if version.adapter is None:
            raise PlanError(
                "a vLLM server takes adapters, not whole weights: --lora 16, or --generator vllm"
            )
        processes = ProcessGroup()
        if processes.is_main:
            body = {"lora_name": version.name, "lora_path": str(version.adapter)}
            self._post(self._load_adapter, body)
            if self._adapter_name:
                self._post(self._unload_adapter, {"lora_name": self._adapter_name})
        processes.barrier()
        self._adapter_name = version.name

    def _post(self, endpoint: Endpoint, body: dict[str, str]) -> None:
        request = endpoint.send_request(msgspec.json.encode(body), lambda data: data.decode())
        result = self._event_loop.run(request)
        if isinstance(result, Failure):
            raise RunError(
                f"{endpoint.url}: {result.message} (does the server run with --enable-lora and "
                f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and can it read "
                f"{body.get('lora_path', 'the folder')}?)"
            )

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sequence[dict[str, Any]]
    ) -> list[VllmAnswer]:
        """Samples with one request per answer, all at once; the server batches them."""
        return self._event_loop.run(self._sample_all(prompts, sampling))

    async def _sample_all(
        self, prompts: Sequence[Sequence[int]], sampling: Sequence[dict[str, Any]]
    ) -> list[VllmAnswer]:
        requests = (self._sample_one(p, parameters) for p, parameters in zip(prompts, sampling))
        return list(await asyncio.gather(*requests))

    async def _sample_one(self, prompt: Sequence[int], sampling: dict[str, Any]) -> VllmAnswer:
        body = {
            "model": self._adapter_name,
            "prompt": list(prompt),
            "return_token_ids": True,
            **sampling,
        }
        answer = await self._completions.send_request(msgspec.json.encode(body), _parse_completion)
        if isinstance(answer, Failure):
            raise RunError(
                f"{self._completions.url}: {answer.message}; the same command resumes from the "
                f"last checkpoint"
            )
        return answer


def _parse_completion(data: bytes) -> VllmAnswer:
    choice = msgspec.json.decode(data, type=_Completion).choices[0]
    if choice.token_ids is None or choice.logprobs is None:
        raise ValueError("no token_ids or logprobs in the answer: vLLM 0.10.2 or newer is needed")
    log_probs = [x or 0.0 for x in choice.logprobs.token_logprobs]
    return VllmAnswer(choice.token_ids, log_probs, choice.finish_reason == "stop")
