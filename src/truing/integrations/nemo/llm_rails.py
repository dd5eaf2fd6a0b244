"""`LLMRails` on truing's runtime: generate, stream, check, explain, register.

`from truing.integrations.nemo import LLMRails, RailsConfig` takes the place of the import from
`nemoguardrails`. A turn in which a rail or a flow fails answers with a refusal and a ruling that
says why, where NeMo Guardrails may raise. Where the model itself fails, `generate` and
`stream_async` raise ConnectionError.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any, Self

from truing.core.errors import PlanError
from truing.core.protocols import Model
from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.http.limits import close_connections
from truing.integrations.nemo.responses import (
    ExplainInfo,
    GenerationLog,
    GenerationResponse,
    LLMCallInfo,
    read_options,
)
from truing.rails.config.loader import RailsConfig as LoadedConfig
from truing.rails.config.models import build_model
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.conversation_check import CheckResult
from truing.rails.runtime.generation_log import (
    TurnRecord,
    build_generation_log,
    select_output_data,
)
from truing.rails.runtime.prompt_filters import render_colang
from truing.rails.runtime.turn_result import TurnResult
from truing.specs.resolve import resolve

Messages = list[dict[str, Any]]


class LangChainModel:
    """A LangChain chat model or LLM as a `Model`: its `ainvoke` is called with (role, text).

    Temperature, top p and maximum tokens are those that the LangChain model was made with; stop
    texts are passed on. Tools, and conversations with tool calls, are failures: bind tools to an
    agent of LangChain and put the rails around its model.
    """

    def __init__(self, llm: Any) -> None:
        self.llm = llm
        self.name = f"langchain:{type(llm).__name__}"
        self.lineage = Lineage(name=self.name)

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns `sampling.n` answers; an exception of the model is a failure."""
        if sampling.tools or any(m.tool_calls or m.role == "tool" for m in conversation.messages):
            reason = f"{self.name}: tools are not passed to a LangChain model"
            return (Answer.failed("unsupported", reason),) * sampling.n
        rows = [(message.role, message.content) for message in conversation.messages]
        options: dict[str, Any] = {"stop": list(sampling.stop)} if sampling.stop else {}
        answers = []
        for _ in range(sampling.n):
            try:
                reply = await self.llm.ainvoke(rows, **options)
            except Exception as error:
                answers.append(Answer.failed("model", f"{type(error).__name__}: {error}"))
                continue
            answers.append(_read_reply(reply))
        return tuple(answers)


def _read_reply(reply: Any) -> Answer:
    """Returns the text of a LangChain message (its content may be a list of parts) or of an LLM; a
    failure for a message with tool calls, or with content that is no text.
    """
    if getattr(reply, "tool_calls", None):
        return Answer.failed(
            "unsupported", "the LangChain model called tools, which it was not given"
        )
    content = getattr(reply, "content", reply)
    content_parts = content if isinstance(content, list) else [content]
    texts = []
    for part in content_parts:
        text = part.get("text") if isinstance(part, Mapping) else part
        if isinstance(text, str):
            texts.append(text)
        elif not isinstance(part, Mapping):
            return Answer.failed("model", f"an answer of type {type(part).__name__} is no text")
    if content_parts and not texts:
        return Answer.failed("model", "the LangChain model's answer has no text")
    return Answer.of("".join(texts))


class LLMRails:
    """A configuration in front of a model.

    `llm` is a truing model, a spec such as `openai:gpt-4o-mini`, or a LangChain model; without it
    the configuration's model of type main is used.
    """

    def __init__(
        self,
        config: LoadedConfig,
        llm: Model | str | Any | None = None,
        verbose: bool = False,
        *,
        parts: RuntimeParts | None = None,
    ) -> None:
        self.config = config
        self.llm = _build_llm(config, llm)
        self.guarded = GuardedModel(config, self.llm, parts=parts)
        self.runtime = self.guarded.runtime
        self.runtime.records_calls = True
        self._last_result: TurnResult | None = None

    # -- generation --------------------------------------------------------------------------------

    async def generate_async(
        self,
        prompt: str | None = None,
        messages: Messages | None = None,
        options: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> str | dict[str, Any] | GenerationResponse:
        """Returns the bot's text for a prompt, its message for messages, and a
        `GenerationResponse` where options or a state are given.

        `state` is that of an earlier response, or {}. Raises OptionsError for wrong options.
        """
        rows = [*_read_state(state), *_read_messages(prompt, messages)]
        options = read_options(options)
        record = TurnRecord()
        message, answer = await self._answer(rows, options, record)
        turn_result = self._last_result = record.result
        if options is None and state is None:
            return str(message["content"]) if prompt is not None else message
        selected = options or {}
        log = build_generation_log(turn_result, selected.get("log"))
        calls = [call.to_openai() for call in answer.message.tool_calls]
        return GenerationResponse(
            response=str(message["content"]) if prompt is not None else [message],
            output_data=select_output_data(turn_result, selected.get("output_vars")),
            log=GenerationLog.of(log) if log is not None else None,
            state={"messages": [*rows, message]} if state is not None else None,
            tool_calls=calls or None,
            rulings=answer.rulings,
        )

    async def _answer(
        self, rows: Messages, options: Mapping[str, Any] | None, record: TurnRecord
    ) -> tuple[dict[str, Any], Answer]:
        """Returns the message of a turn, in NeMo's form, and the answer with its rulings."""
        answer = await self.guarded.answer_messages(rows, options=options, record=record)
        if record.result is not None:
            return dict(record.result.message), answer
        if answer.failure is not None:
            raise ConnectionError(f"{answer.failure.kind}: {answer.failure.message}")
        return {"role": "assistant", "content": answer.text}, answer

    def generate(
        self,
        prompt: str | None = None,
        messages: Messages | None = None,
        options: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> str | dict[str, Any] | GenerationResponse:
        """As `generate_async`; raises RuntimeError inside a running event loop."""
        result: str | dict[str, Any] | GenerationResponse = _run(
            self.generate_async(prompt, messages, options, state)
        )
        return result

    async def stream_async(
        self,
        prompt: str | None = None,
        messages: Messages | None = None,
        options: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
        include_generation_metadata: bool = False,
    ) -> AsyncIterator[Any]:
        """Yields the text in chunks; nothing is yielded that the rails block later.

        With `include_generation_metadata` a chunk is a dictionary of `text` and
        `generation_info`, which is empty. Messages may set variables (role context); events are
        not streamed. Raises ConnectionError where the model fails.
        """
        rows = [*_read_state(state), *_read_messages(prompt, messages)]
        variables: dict[str, Any] = {}
        for row in rows:
            if row.get("role") == "context":
                variables |= row["content"]
        chat = [row for row in rows if row.get("role") != "context"]
        record = TurnRecord()
        chunks = self.guarded.stream_with_answer(
            Conversation.from_openai(chat),
            Sampling(),
            options=read_options(options),
            context=variables or None,
            record=record,
        )
        async for chunk in chunks:
            if isinstance(chunk, str):
                is_plain = not include_generation_metadata
                yield chunk if is_plain else {"text": chunk, "generation_info": {}}
            elif chunk.failure is not None:
                raise ConnectionError(f"{chunk.failure.kind}: {chunk.failure.message}")
        self._last_result = record.result

    async def check_async(self, messages: Messages) -> CheckResult:
        """Returns whether the rails allow the messages, in every stage that they contain."""
        return await self.guarded.check(Conversation.from_openai(messages))

    def check(self, messages: Messages) -> CheckResult:
        """As `check_async`; raises RuntimeError inside a running event loop."""
        result: CheckResult = _run(self.check_async(messages))
        return result

    def explain(self) -> ExplainInfo:
        """Returns the LLM calls of the last turn with their prompts, and its events as Colang."""
        result = self._last_result
        if result is None:
            return ExplainInfo()
        calls = [LLMCallInfo.of(record) for record in result.llm_records]
        return ExplainInfo(calls, render_colang(result.events))

    # -- events ------------------------------------------------------------------------------------

    async def generate_events_async(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns the events that follow on a history of events, as NeMo's dictionaries, each with
        its `uid`, `event_created_at` and `source_uid`.

        The last event is what the bot reacts to, such as `UtteranceUserActionFinished`.
        """
        rows = [{"role": "event", "event": dict(event)} for event in events]
        record = TurnRecord()
        await self._answer(rows, None, record)
        result = self._last_result = record.result
        source = str(self.config.raw.get("event_source_uid") or "default")
        return [stamp_event(event, source) for event in (result.events if result else ())]

    def generate_events(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """As `generate_events_async`; raises RuntimeError inside a running event loop."""
        result: list[dict[str, Any]] = _run(self.generate_events_async(events))
        return result

    async def process_events_async(
        self, events: list[dict[str, Any]], state: Mapping[str, Any] | None = None
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Returns the events that follow, and the state to pass with the next ones."""
        history = [*((state or {}).get("events") or ()), *events]
        produced = await self.generate_events_async(history)
        return produced, {"events": [*history, *produced]}

    def process_events(
        self, events: list[dict[str, Any]], state: Mapping[str, Any] | None = None
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """As `process_events_async`; raises RuntimeError inside a running event loop."""
        result: tuple[list[dict[str, Any]], dict[str, Any]] = _run(
            self.process_events_async(events, state)
        )
        return result

    # -- registration ------------------------------------------------------------------------------

    def register_action(self, action: Any, name: str | None = None) -> Self:
        """Adds an action."""
        self.runtime.register_action(action, name)
        return self

    def register_action_param(self, name: str, value: Any) -> Self:
        """Adds a value that actions get if they have a parameter of that name."""
        self.runtime.register_action_param(name, value)
        return self

    def register_prompt_context(self, name: str, value_or_fn: Any) -> Self:
        """Adds a variable (or a function that returns it) to all prompts."""
        self.runtime.register_prompt_context(name, value_or_fn)
        return self

    def register_filter(self, filter_fn: Any, name: str | None = None) -> Self:
        """Raises PlanError: the templates of all configurations share their filters."""
        self.runtime.register_filter(filter_fn, name)
        return self

    def update_llm(self, llm: Model | str | Any) -> None:
        """Answers with another model from now on."""
        self.llm = _build_llm(self.config, llm)
        self.guarded.replace_model(self.llm)

    def register_output_parser(self, output_parser: Any, name: str) -> Self:
        """Adds a parser that prompts can name."""
        self.runtime.register_output_parser(output_parser, name)
        return self

    def register_embedding_provider(self, cls: Any, name: str | None = None) -> Self:
        """Encodes with a class whose `encode` takes a list of texts, where the configuration
        names it as `embedding_engine`.
        """
        self.runtime.register_embedding_provider(cls, name)
        return self

    def register_embedding_search_provider(self, name: str, cls: Any) -> Self:
        """Searches with a class that has the methods of NeMo's `EmbeddingsIndex`, where the
        configuration names it as its `embedding_search_provider`.
        """
        self.runtime.register_embedding_search_provider(name, cls)
        return self


def stamp_event(event: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Returns an event with what NeMo's events carry beside their own fields."""
    return {
        "uid": str(uuid.uuid4()),
        "event_created_at": datetime.now(UTC).isoformat(),
        "source_uid": source,
        **event,
    }


def _build_llm(config: LoadedConfig, llm: Any) -> Model:
    if isinstance(llm, str):
        model: Model = resolve(llm, "model")
        return model
    if isinstance(llm, Model):
        return llm
    if llm is not None:
        return LangChainModel(llm)
    entry = next((entry for entry in config.models if entry.type == "main"), None)
    if entry is None:
        raise PlanError(f"{config.path or 'config'}: no model of type main; pass llm=")
    return build_model(entry, config)


def _read_messages(prompt: str | None, messages: Messages | None) -> Messages:
    if (prompt is None) == (messages is None):
        raise ValueError("give prompt or messages")
    return [{"role": "user", "content": prompt}] if prompt is not None else list(messages or [])


def _read_state(state: Mapping[str, Any] | None) -> Messages:
    if not state:
        return []
    rows = state.get("messages")
    if not isinstance(rows, list):
        raise ValueError('state: expected {"messages": [...]} of an earlier response, or {}')
    return list(rows)


def _run(coroutine: Any) -> Any:
    """Runs a coroutine outside of any event loop, and closes the connections that it opened."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        coroutine.close()
        raise RuntimeError("inside async code, await generate_async or check_async instead")

    async def run() -> Any:
        try:
            return await coroutine
        finally:
            await close_connections()

    return asyncio.run(run())
