"""Answers drawn by vLLM: the engine in this process (`--generator vllm`), or `vllm serve` (`--generator http://host:8000`).

The policy's weights are pushed before each step: the adapter, as a folder that engine and server can read (a server needs
VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora --max-lora-rank), or whole weights into the engine of this
process. Training reads every
answer again with its own arithmetic; where vLLM's log-probabilities differ from that by more than `limit` a token, the
weights are out of step and the run stops (trl #5312, #6688).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import torch
from msgspec import Struct

from truing.core.errors import MissingExtra, PlanError, RunError
from truing.core.types import Failure
from truing.distributed.process_group import World
from truing.http.client import Endpoint
from truing.train.rl.policy_models import ACTOR, Crew, SharedCrew
from truing.train.rl.reward_signals import Loop
from truing.train.rl.rollout import Answered
from truing.train.rl.settings import RLSettings
from truing.train.trainable_model import find_base_model


class Draw(NamedTuple):
    """One answer of vLLM: ids, log-probabilities, whether it ended."""

    ids: list[int]
    log_probs: list[float]
    ended: bool


class Engine(Protocol):
    """What draws; `adapter` is the folder of the newest adapter, or none for whole weights."""

    def push(self, crew: Crew, version: int, adapter: Path | None) -> None:
        """Takes the policy's weights."""
        ...

    def draw(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], settings: RLSettings
    ) -> list[Draw]:
        """One answer a prompt."""
        ...


class VllmGenerator:
    """A `Generator` on an engine; pushes the newest weights first."""

    def __init__(
        self,
        crew: Crew,
        settings: RLSettings,
        engine: Engine,
        ends: Sequence[int],
        *,
        limit: float = 0.2,
    ) -> None:
        self.crew, self.settings, self.engine, self.ends, self.limit = (
            crew,
            settings,
            engine,
            frozenset(ends),
            limit,
        )
        self.world = World()
        self.version = 0

    def __call__(self, prompts: Sequence[Sequence[int]], draws: np.ndarray) -> Answered:
        """Answers under the newest weights; each has a seed of its own."""
        begun = time.perf_counter()
        self.version += 1
        self.engine.push(self.crew, self.version, self._adapter())
        seeds = [int(row[0] * 2**31) for row in draws]
        made = self.engine.draw(prompts, seeds, self.settings)
        ids = tuple(tuple(self._ended(d)) for d in made)
        log_probs = torch.zeros(len(ids), max(map(len, ids), default=1))
        for at, d in enumerate(made):
            log_probs[at, : len(d.log_probs)] = torch.tensor(d.log_probs)
        return Answered(ids, log_probs, tuple(d.ended for d in made), time.perf_counter() - begun)

    def _ended(self, d: Draw) -> list[int]:
        """The ids with the end token, which some versions leave out."""
        return (
            d.ids if not d.ended or (d.ids and d.ids[-1] in self.ends) else [*d.ids, min(self.ends)]
        )

    def _adapter(self) -> Path | None:
        if not isinstance(self.crew, SharedCrew):
            return None
        root = self.settings.folder / "pushed"
        target = root / f"policy-{self.version}"
        if self.world.first:
            shutil.rmtree(root / f"policy-{self.version - 2}", ignore_errors=True)
            self.crew.save_adapter(target)
        self.world.wait()
        return target.resolve()

    def check(self, drift: float) -> None:
        """RunError where the engine's log-probabilities are not those of the policy."""
        if drift > self.limit:
            raise RunError(
                f"vLLM's log-probabilities differ by {drift:.3g} a token from the policy's (limit "
                f"{self.limit}): its weights "
                f"are out of step, or its arithmetic is another; nothing was learned from these answers"
            )


class LocalEngine:
    """vLLM in this process, beside the training (colocated)."""

    def __init__(self, settings: RLSettings, path: str) -> None:
        try:
            import vllm
            from vllm.lora.request import LoRARequest
        except ImportError as error:
            raise MissingExtra("vllm", "generation by vLLM (package vllm)") from error
        self._vllm, self._request, self._name = vllm, LoRARequest, path
        more = (
            {"enable_lora": True, "max_lora_rank": max(8, settings.lora)} if settings.lora else {}
        )
        self._llm = vllm.LLM(
            model=path,
            dtype=settings.dtype,
            max_model_len=settings.max_length,
            gpu_memory_utilization=0.35,
            enable_prefix_caching=True,
            **more,
        )
        self._adapter: Any = None

    def push(self, crew: Crew, version: int, adapter: Path | None) -> None:
        """The adapter by its folder, or every tensor of the actor."""
        if adapter is not None:
            self._adapter = self._request(f"policy-{version}", version, str(adapter))
            return
        with crew.role(ACTOR) as model:
            inner = self._llm.llm_engine.model_executor.driver_worker.model_runner.model
            inner.load_weights((name, p.data) for name, p in model.named_parameters())
        self._llm.reset_prefix_cache()

    def draw(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], settings: RLSettings
    ) -> list[Draw]:
        """One batch."""
        params = [
            self._vllm.SamplingParams(
                max_tokens=settings.max_new,
                temperature=settings.temperature,
                top_p=settings.top_p,
                seed=s,
                logprobs=0,
            )
            for s in seeds
        ]
        asked = [self._vllm.TokensPrompt(prompt_token_ids=list(p)) for p in prompts]
        made = []
        for out in self._llm.generate(asked, params, lora_request=self._adapter, use_tqdm=False):
            one = out.outputs[0]
            found = [d[t].logprob for t, d in zip(one.token_ids, one.logprobs)]
            made.append(Draw(list(one.token_ids), found, one.finish_reason == "stop"))
        return made


class _Logprobs(Struct):
    token_logprobs: list[float | None]


class _Choice(Struct):
    token_ids: list[int] | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Completion(Struct):
    choices: list[_Choice]


class ServerEngine:
    """`vllm serve --enable-lora` over HTTP; adapters are loaded by their folder, which the server must see."""

    def __init__(self, url: str) -> None:
        root = url.rstrip("/").removesuffix("/v1")
        self._loop = Loop()
        self._root = root
        self._complete, self._load, self._unload = (
            self._loop.wait(self._endpoint(f"{root}/v1/{p}"))
            for p in ("completions", "load_lora_adapter", "unload_lora_adapter")
        )
        self._name = ""

    @staticmethod
    async def _endpoint(url: str) -> Endpoint:
        return Endpoint(url)

    def push(self, crew: Crew, version: int, adapter: Path | None) -> None:
        """Loads the newest adapter, and lets go of the one before."""
        if adapter is None:
            raise PlanError(
                "a vLLM server takes adapters, not whole weights: --lora 16, or --generator vllm"
            )
        if World().first:
            name = f"policy-{version}"
            self._tell(self._load, {"lora_name": name, "lora_path": str(adapter)})
            if self._name:
                self._tell(self._unload, {"lora_name": self._name})
        World().wait()
        self._name = f"policy-{version}"

    def _tell(self, endpoint: Endpoint, body: dict[str, str]) -> None:
        made = self._loop.wait(
            endpoint.send_request(msgspec.json.encode(body), lambda data: data.decode())
        )
        if isinstance(made, Failure):
            raise RunError(
                f"{endpoint.url}: {made.message} (does the server run with --enable-lora and "
                f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and does it see {body.get('lora_path', 'the folder')}?)"
            )

    def draw(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], settings: RLSettings
    ) -> list[Draw]:
        """One request an answer, all at once."""
        return self._loop.wait(self._draw(prompts, seeds, settings))

    async def _draw(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], settings: RLSettings
    ) -> list[Draw]:
        import asyncio

        async def one(prompt: Sequence[int], seed: int) -> Draw:
            body = {
                "model": self._name,
                "prompt": list(prompt),
                "max_tokens": settings.max_new,
                "temperature": settings.temperature,
                "top_p": settings.top_p,
                "seed": seed,
                "logprobs": 0,
                "return_token_ids": True,
            }
            made = await self._complete.send_request(msgspec.json.encode(body), _read)
            if isinstance(made, Failure):
                raise RunError(
                    f"{self._complete.url}: {made.message}; the same command goes on from the last checkpoint"
                )
            return made

        return list(await asyncio.gather(*(one(p, s) for p, s in zip(prompts, seeds))))


def _read(data: bytes) -> Draw:
    choice = msgspec.json.decode(data, type=_Completion).choices[0]
    if choice.token_ids is None or choice.logprobs is None:
        raise ValueError("no token_ids or logprobs in the answer: vLLM 0.10.2 or newer is needed")
    return Draw(
        choice.token_ids,
        [x or 0.0 for x in choice.logprobs.token_logprobs],
        choice.finish_reason == "stop",
    )


def maker(name: str) -> Callable[[Crew, RLSettings], VllmGenerator]:
    """What makes the generator of `--generator vllm` or of a server's URL once the crew is there."""

    def make(crew: Crew, settings: RLSettings) -> VllmGenerator:
        from truing.hf.loading import eos_token_ids

        engine: Engine
        if name == "vllm":
            engine = LocalEngine(settings, str(find_base_model(settings.base).weights.path))
        else:
            engine = ServerEngine(name)
        with crew.role(ACTOR) as model:
            ends = sorted(eos_token_ids(model, crew.tokenizer))
        return VllmGenerator(crew, settings, engine, ends)

    return make
