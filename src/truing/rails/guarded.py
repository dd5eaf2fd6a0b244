"""A model behind rails is itself a Model, so that `truing run` measures it like any other.

Every rail's ruling stands in `Answer.rulings`. A turn that cannot be finished (a rail that fails,
an action that hangs, a flow without end) shows nothing: the answer's `finish_reason` is blocked,
and a ruling names the reason.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from truing.core.errors import PlanError
from truing.core.ids import stream_seed
from truing.core.lineage import digest
from truing.core.model_parts import iterate_parts
from truing.core.protocols import Closeable, Judge, LoopModel, Model
from truing.core.types import (
    Answer,
    Conversation,
    Lineage,
    Message,
    Ruling,
    Sampling,
    Tool,
)
from truing.rails.build import build_runtime
from truing.rails.config.client_settings import ClientSettings
from truing.rails.config.generation_options import require_options
from truing.rails.config.key_effects import find_differences
from truing.rails.config.loader import RailsConfig
from truing.rails.config.models import build_task_models
from truing.rails.config.service_addresses import list_used_rails
from truing.rails.config.trust import require_trusted_code, resolve_configured_spec
from truing.rails.library.gliner_model import build_gliner
from truing.rails.library.guard_models import build_guard_judges
from truing.rails.library.safety import choose_stream_mode, required_judge_specs
from truing.rails.library.service_protocols import SERVICE_PROTOCOLS
from truing.rails.library.service_rails import build_services
from truing.rails.library.tool_guards import required_tool_judges
from truing.rails.runtime.app import RailsError, RuntimeParts
from truing.rails.runtime.chat_messages import messages_of_conversation
from truing.rails.runtime.conversation_check import CheckResult, NoStageError
from truing.rails.runtime.generation_log import TurnRecord
from truing.rails.runtime.llm_client import LlmError
from truing.rails.runtime.output_gate import BLOCKED_MESSAGE
from truing.rails.runtime.stream_buffer import StreamBuffer
from truing.rails.runtime.stream_guard import StreamGuard, TurnSettings, stream_mode
from truing.rails.runtime.turn_answer import answer_from_result
from truing.rails.runtime.turn_answer import blocked_answer as blocked_answer
from truing.rails.runtime.turn_context import EVIDENCE_CHARACTERS

_LOG = logging.getLogger("truing.rails")
DEFAULT_MAX_MESSAGE = 200_000  # characters
MAX_MESSAGES = 5_000  # of a conversation


class GuardedModel:
    """The model behind the rails of a configuration (or of the folder that holds it).

    `judges` (spec -> judge) are used instead of resolving the judges that the configuration names.
    `options` are NeMo's generation options for all calls that bring none. `trust_code` lets a
    folder run its `actions.py` and what else `rails check` lists, `key_variables` names environment
    variables with keys that it may send; a `RailsConfig` says both itself.
    """

    def __init__(
        self,
        config: RailsConfig | str | Path,
        model: Model,
        *,
        judges: Mapping[str, Judge] | None = None,
        parts: RuntimeParts | None = None,
        options: Mapping[str, Any] | None = None,
        trust_code: bool = False,
        key_variables: Sequence[str] = (),
    ) -> None:
        if not isinstance(config, RailsConfig):
            config = RailsConfig.load(config, trust_code=trust_code, key_variables=key_variables)
        self.config = config
        require_trusted_code(config)
        for place, message in find_differences(config):
            _LOG.warning("%s: differs from NeMo Guardrails: %s", place, message)
        parts = parts or RuntimeParts()
        if judges is not None:
            parts.judges = {**parts.judges, **judges}
        rails = list_used_rails(self.config)
        required = [
            *required_judge_specs(self.config.truing, rails),
            *required_tool_judges(self.config.truing, rails),
        ]
        resolved = {
            spec: resolve_configured_spec(config, spec, "judge")
            for spec in required
            if spec not in parts.judges
        }
        parts.judges = {**resolved, **parts.judges}
        parts.models = {**build_task_models(self.config, parts.models), **parts.models}
        parts.judges = {**build_guard_judges(self.config, parts.models), **parts.judges}
        clients = build_services(self.config, SERVICE_PROTOCOLS) | build_gliner(self.config)
        parts.service_clients = {**clients, **parts.service_clients}
        _require_no_loop(model)
        self.model, self.parts = model, parts
        self.runtime = build_runtime(self.config, model, parts)
        require_options(options)
        self.options = options
        self.client_settings = ClientSettings.of(self.config.truing)
        self._default_stream_mode = choose_stream_mode(config, parts.judges)
        self.name = self._make_name()
        self.lineage = self._make_lineage(parts)

    def replace_model(self, model: Model) -> None:
        """Answers with another model from now on, under its name and lineage.

        Raises PlanError for an agent.
        """
        _require_no_loop(model)
        self.model = self.runtime.services.model = model
        self.name = self._make_name()
        self.lineage = self._make_lineage(self.parts)

    def _make_name(self) -> str:
        return f"guarded:{Path(self.config.path).name or 'rails'},of=({self.model.name})"

    def _make_lineage(self, parts: RuntimeParts) -> Lineage:
        """Returns the lineage, with all that the rails ask: none of it may measure the model."""
        model = self.model.lineage
        used = tuple(
            part.lineage
            for named_parts in (parts.judges, parts.service_clients, parts.models)
            for part in named_parts.values()
        )
        config_hash = digest(
            "guarded",
            json.dumps(self.config.raw, sort_keys=True, default=str),
            *(flow.source or flow.name for flow in self.config.flows),
            *([] if self.config.script is None else [self.config.script.source]),
            model.hash,
        )
        return Lineage(
            name=self.name,
            hash=config_hash,
            base=model.base,
            base_sha256=model.base_sha256,
            data=model.data,
            prompts=model.prompts,
            judges=(*model.judges, *used),
            licence=model.licence,
            red_model=model.red_model,
        )

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns `sampling.n` answers, each through all rails and with a seed of its own."""
        single = replace(sampling, n=1)
        if sampling.n == 1:
            return (await self.answer(conversation, single),)
        seeds = (stream_seed(sampling.seed, index) for index in range(sampling.n))
        calls = (self.answer(conversation, replace(single, seed=seed)) for seed in seeds)
        return tuple(await asyncio.gather(*calls))

    async def answer(
        self,
        conversation: Conversation,
        sampling: Sampling,
        *,
        options: Mapping[str, Any] | None = None,
        stream: StreamBuffer | None = None,
        session: str = "",
        explicit_fields: Collection[str] | None = None,
        context: Mapping[str, Any] | None = None,
        record: TurnRecord | None = None,
    ) -> Answer:
        """Returns one answer through all rails. Raises OptionsError for wrong `options`.

        Conversations of different `session`s share no state, even where their messages are equal.
        `explicit_fields` names the sampling fields that the request sets itself: they override the
        configuration's `parameters` (None: those that differ from `Sampling`'s defaults). `context`
        sets variables of the conversation; their texts pass the input stage like messages. `record`
        is given the whole result of the turn.
        """
        require_options(options)
        fault = self._find_size_fault(conversation, context)
        if fault is not None:
            return blocked_answer("too_long", fault)
        return await self._run_turn(
            messages_of_conversation(conversation, context),
            record,
            options=options or self.options,
            sampling=sampling,
            stream=stream,
            session=session,
            explicit_fields=explicit_fields,
        )

    async def answer_messages(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        options: Mapping[str, Any] | None = None,
        record: TurnRecord | None = None,
    ) -> Answer:
        """As `answer`, for messages in NeMo's form, which may also be of the roles context, event
        and exception. They are the operator's: variables are set without `client_options`.
        """
        require_options(options)
        bound = int(self.config.truing.get("max_message", DEFAULT_MAX_MESSAGE))
        if len(messages) > MAX_MESSAGES:
            return blocked_answer("too_long", f"more than {MAX_MESSAGES} messages")
        if any(len(str(message.get("content"))) > bound for message in messages):
            return blocked_answer("too_long", f"a message is longer than {bound} characters")
        return await self._run_turn(messages, record, options=options or self.options)

    async def _run_turn(
        self, messages: Sequence[Any], record: TurnRecord | None, **arguments: Any
    ) -> Answer:
        """Runs a turn; one that cannot be finished is a blocked or a failed answer."""
        start_time = time.perf_counter()
        try:
            turn_result = await self.runtime.run_turn(messages, **arguments)
        except LlmError as error:
            # The model's failure, not a decision of the rails: a run may count or repeat it as
            # such.
            answer = Answer.failed(error.failure.kind, error.failure.message)
            return replace(answer, rulings=error.rulings)
        except RailsError as error:
            seconds = time.perf_counter() - start_time
            return blocked_answer(error.failure.kind, str(error), error.rulings, seconds)
        except Exception as error:
            # Nothing of a turn that broke down may be shown, whatever the reason.
            reason = f"the turn broke down: {type(error).__name__}"
            seconds = time.perf_counter() - start_time
            return blocked_answer("internal", reason, seconds=seconds, evidence=str(error))
        if record is not None:
            record.result = turn_result
        return answer_from_result(turn_result)

    def _find_size_fault(
        self, conversation: Conversation, context: Mapping[str, Any] | None
    ) -> str | None:
        """Returns what makes a conversation too large to be read, or None."""
        bound = int(self.config.truing.get("max_message", DEFAULT_MAX_MESSAGE))
        if len(conversation.messages) > MAX_MESSAGES:
            return f"a conversation has more than {MAX_MESSAGES} messages"
        for message in conversation.messages:
            if any(len(text) > bound for text in _message_texts(message)):
                return f"a message is longer than {bound} characters"
        if context and len(json.dumps(context, default=str)) > bound:
            return f"the context is longer than {bound} characters"
        return None

    async def check(
        self,
        conversation: Conversation,
        *,
        tools: tuple[Tool, ...] = (),
        context: Mapping[str, Any] | None = None,
        session: str | None = None,
        ends_in_answer: bool = False,
    ) -> CheckResult:
        """Runs every stage that the conversation contains over all its text; asks no main model.

        With a `session`, what the rails have let pass in it is not read again, and only a last
        message that the caller has from a model (`ends_in_answer`) is an answer. Raises
        NoStageError if the conversation contains no stage. A rail that fails, and a text that is
        too long to be read, are not allowed.
        """
        fault = self._find_size_fault(conversation, context)
        if fault is not None:
            ruling = Ruling(name="runtime", stage="input", ruling="block", reason=fault)
            return CheckResult(allowed=False, message=BLOCKED_MESSAGE, rulings=(ruling,))
        sampling = Sampling(tools=tools)
        try:
            messages = messages_of_conversation(conversation, context)
            return await self.runtime.check_messages(messages, sampling, session, ends_in_answer)
        except NoStageError:
            raise
        except Exception as error:
            # As in `answer`: what broke down has not been read.
            ruling = Ruling(
                name="runtime",
                stage="input",
                ruling="block",
                reason=f"the check broke down: {type(error).__name__}",
                evidence=str(error)[:EVIDENCE_CHARACTERS],
            )
            return CheckResult(allowed=False, message=BLOCKED_MESSAGE, rulings=(ruling,))

    def rulings_for_clients(self, rulings: tuple[Ruling, ...]) -> tuple[Ruling, ...]:
        """Returns the decisions as a client may see them.

        Evidence quotes a judge or an exception, and output rails do not check it. So it is removed
        if the configuration has output rails.
        """
        if not self.config.rails.output.flows:
            return rulings
        return tuple(replace(ruling, evidence=None) for ruling in rulings)

    def accept_client_options(self, options: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Returns the options of a client's request over those of this model.

        Raises ValueError for an option that the configuration does not let clients set.
        """
        accepted = self.client_settings.accept_options(options)
        return {**(self.options or {}), **accepted} if accepted else None

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """Yields the answer in chunks; nothing is yielded that the rails block later.

        With output rails the text is held until they have passed it; without, it comes as the model
        writes it. Raises ConnectionError if the answer fails.
        """
        async for chunk in self.stream_with_answer(conversation, sampling):
            if isinstance(chunk, str):
                yield chunk
            elif chunk.failure is not None:
                raise ConnectionError(f"{chunk.failure.kind}: {chunk.failure.message}")

    async def stream_with_answer(
        self,
        conversation: Conversation,
        sampling: Sampling,
        *,
        options: Mapping[str, Any] | None = None,
        session: str = "",
        explicit_fields: Collection[str] | None = None,
        context: Mapping[str, Any] | None = None,
        record: TurnRecord | None = None,
    ) -> AsyncIterator[str | Answer]:
        """Yields the chunks as `stream` does, and last the whole Answer with its rulings."""
        guard = StreamGuard(
            partial(self.answer, record=record),
            self.config,
            conversation,
            sampling,
            TurnSettings(
                options=options or self.options,
                session=session,
                explicit_fields=explicit_fields,
                context=context,
            ),
            self.runtime.remember_answer,
            self._default_stream_mode,
        )
        async for chunk in guard.chunks():
            yield chunk

    @property
    def stream_mode(self) -> str:
        """How streams are sent behind output rails: hold, chunked or sentences."""
        return stream_mode(self.config, self._default_stream_mode)

    def expect_prefix(self, messages: Sequence[Message]) -> None:
        """Announces messages that the operator puts before every conversation, outside the rails.

        At the head of a conversation the input stage does not read them.
        """
        self.runtime.input_gate.prefixes.add(messages)

    async def warm_up(self) -> None:
        """Loads what the first turn would otherwise wait for."""
        await self.runtime.warm_up()

    async def close(self) -> None:
        """Closes the model and the models of single tasks."""
        for model in (self.model, *self.runtime.services.models.values()):
            if isinstance(model, Closeable):
                await model.close()


def _message_texts(message: Message) -> Iterator[str]:
    yield message.content
    for call in message.tool_calls:
        yield call.name
        yield call.arguments


def _require_no_loop(model: Model) -> None:
    """Raises PlanError for an agent, also inside of other models and in pools: rails around all of
    its loop would read neither the calls that it makes nor their results.
    """
    if any(isinstance(inner, LoopModel) for inner in iterate_parts(model)):
        raise PlanError(
            "an agent calls tools in a loop, and rails around it read none of the calls; "
            "put the rails directly around the agent: guarded:DIR,of=(agent,...), with other "
            "models (prompted, best-of) outside, or guard_model(agent, DIR) in Python"
        )


def guard_model(model: Model, config: str | Path | RailsConfig, **arguments: Any) -> Model:
    """Returns the model behind the rails of a folder; the arguments are those of `GuardedModel`.

    The rails of an agent stand inside of its loop: they read every result before the agent's model
    does, and every call before it is executed. Raises PlanError for an agent inside of another
    model.
    """
    if isinstance(model, LoopModel):
        return model.around_model(lambda inner: GuardedModel(config, inner, **arguments))
    return GuardedModel(config, model, **arguments)
