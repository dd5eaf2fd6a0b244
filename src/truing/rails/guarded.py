"""A model behind rails is a model: `truing run` measures it like any other.

Every rail's decision stands in `Answer.rulings`. What cannot be finished is not answered: a rail that fails, an action that
hangs, a flow that does not end give an answer with `finish_reason` blocked and a ruling that names the reason.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from truing.core.lineage import digest
from truing.core.protocols import Closeable, Judge, Model
from truing.core.types import (
    Answer,
    Conversation,
    Failure,
    Lineage,
    Message,
    Ruling,
    Sampling,
    stream_seed,
)
from truing.rails.build import build_runtime
from truing.rails.config.loader import RailsConfig, list_rail_flow_names
from truing.rails.config.models import build_task_models
from truing.rails.library.safety import judge_specs
from truing.rails.runtime.app import Parts, RailsError, Result
from truing.rails.runtime.llm_client import LlmError
from truing.rails.runtime.stream_buffer import Sink
from truing.rails.runtime.stream_guard import StreamGuard
from truing.specs.resolve import resolve

BLOCKED = "I can't answer this: a check that has to run first did not finish."


class Guarded:
    """The model behind the rails of a configuration. `judges` (spec -> judge) are used instead of resolving what it names."""

    def __init__(
        self,
        config: RailsConfig | str | Path,
        model: Model,
        *,
        judges: Mapping[str, Judge] | None = None,
        parts: Parts | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config if isinstance(config, RailsConfig) else RailsConfig.load(config)
        parts = parts or Parts()
        if judges is not None:
            parts.judges = {**parts.judges, **judges}
        needed = judge_specs(self.config.truing, list_rail_flow_names(self.config))
        missing = {spec: resolve(spec, "judge") for spec in needed if spec not in parts.judges}
        parts.judges = {**missing, **parts.judges}
        parts.models = {**build_task_models(self.config, parts.models), **parts.models}
        self.model = model
        self.runtime = build_runtime(self.config, model, parts)
        self.options = options
        self.name = f"guarded:{Path(self.config.path).name or 'rails'},of=({model.name})"
        used = tuple(one.lineage for one in (*parts.judges.values(), *parts.models.values()))
        own = digest(
            "guarded",
            json.dumps(self.config.raw, sort_keys=True, default=str),
            *(f.source or f.name for f in self.config.flows),
            model.lineage.hash,
        )
        inner = model.lineage
        self.lineage = Lineage(
            name=self.name,
            hash=own,
            base=inner.base,
            base_sha256=inner.base_sha256,
            data=inner.data,
            prompts=inner.prompts,
            judges=(*inner.judges, *used),
            licence=inner.licence,
            red_model=inner.red_model,
        )

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """`sampling.n` answers, each through all rails."""
        one = replace(sampling, n=1)
        if sampling.n == 1:
            return (await self.answer(conversation, one),)
        seeds = (stream_seed(sampling.seed, i) for i in range(sampling.n))
        return tuple(
            await asyncio.gather(*(self.answer(conversation, replace(one, seed=s)) for s in seeds))
        )

    async def answer(
        self,
        conversation: Conversation,
        sampling: Sampling,
        *,
        options: Mapping[str, Any] | None = None,
        sink: Sink | None = None,
        session: str = "",
        asked: Collection[str] | None = None,
    ) -> Answer:
        """One answer through all rails; the doors also give options, a sink for streaming, a `session` (conversations of
        different sessions share no state even where their words are the same) and what of the sampling was `asked` for
        (it goes before the configuration's `parameters`; without it, what differs from `Sampling`'s defaults does)."""
        longest = int(self.config.truing.get("max_message", 200_000))
        if any(len(m.content) > longest for m in conversation.messages):
            return blocked("too_long", f"a message is longer than {longest} characters")
        began = time.perf_counter()
        try:
            result = await self.runtime.turn(
                conversation.to_openai(),
                options=options or self.options,
                sampling=sampling,
                sink=sink,
                session=session,
                asked=asked,
            )
        except LlmError as error:
            return replace(
                Answer.failed(error.failure.kind, error.failure.message), rulings=_rulings(error)
            )
        except RailsError as error:
            return blocked(
                error.failure.kind, str(error), _rulings(error), time.perf_counter() - began
            )
        except Exception as error:  # nothing of a turn that broke down may be shown
            why = f"the turn broke down: {type(error).__name__}: {error}"
            return blocked("internal", why, seconds=time.perf_counter() - began)
        return as_answer(result)

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """The answer in pieces. Nothing is shown that is then blocked: with output rails the text is held back until they
        have passed it; without, it comes as the model writes it."""
        async for piece in self.streamed(conversation, sampling):
            if isinstance(piece, str):
                yield piece
            elif piece.failure is not None:
                raise ConnectionError(f"{piece.failure.kind}: {piece.failure.message}")

    async def streamed(
        self,
        conversation: Conversation,
        sampling: Sampling,
        *,
        options: Mapping[str, Any] | None = None,
        session: str = "",
        asked: Collection[str] | None = None,
    ) -> AsyncIterator[str | Answer]:
        """As `stream`, and last the whole answer with its decisions."""
        guard = StreamGuard(
            self.answer,
            self.config,
            conversation,
            sampling,
            options or self.options,
            session,
            asked,
        )
        async for piece in guard.pieces():
            yield piece

    async def warm(self) -> None:
        """Loads what the first turn would otherwise wait for."""
        await self.runtime.warm()

    async def close(self) -> None:
        """Closes its models."""
        for model in (self.model, *self.runtime.services.models.values()):
            if isinstance(model, Closeable):
                await model.close()


def _rulings(error: BaseException) -> tuple[Ruling, ...]:
    return tuple(getattr(error, "rulings", ()))


def as_answer(result: Result) -> Answer:
    """A turn's result as an answer."""
    reason = (
        "blocked" if result.blocked else "tool_calls" if result.tool_calls else result.finish_reason
    )
    failed = result.failure
    if failed is not None:
        reason = "blocked"
    rulings = result.rulings
    if failed is not None and not any(r.ruling == "block" for r in rulings):
        rulings = (
            *rulings,
            Ruling(name="runtime", stage="dialog", ruling="block", reason=failed.message),
        )
    message = Message(
        "assistant", result.text if result.message["role"] == "assistant" else "", result.tool_calls
    )
    if result.message["role"] == "exception":
        message = Message("assistant", str(result.message["content"].get("message") or BLOCKED))
    return Answer(message=message, finish_reason=reason, usage=result.usage, rulings=rulings)


def blocked(kind: str, why: str, rulings: tuple[Ruling, ...] = (), seconds: float = 0.0) -> Answer:
    """No answer of the model: the rails could not finish."""
    ruling = Ruling(
        name="runtime",
        stage="dialog",
        ruling="block",
        reason=why,
        text=BLOCKED,
        ms=round(seconds * 1000, 3),
    )
    return Answer(
        message=Message("assistant", BLOCKED),
        finish_reason="blocked",
        rulings=(*rulings, ruling),
        failure=None if kind != "options" else Failure("rail", kind, why),
    )


def guarded(model: Model, config: str | Path | RailsConfig, **given: Any) -> Guarded:
    """The model behind the rails of a folder."""
    return Guarded(config, model, **given)
