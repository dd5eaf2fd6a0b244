"""`GuardedChatModel`: a chat model of LangChain behind rails, itself a chat model.

It goes wherever a chat model goes: in chains (`prompt | guarded | parser`), in graphs, with
`bind_tools` and `with_structured_output`. Its stream holds only text that the rails have passed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from truing.integrations.background_loop import BACKGROUND_LOOP
from truing.integrations.hook_rails import UncheckedContent
from truing.integrations.langchain.messages import read_calls, read_tools
from truing.integrations.langchain.turns import ChatRails, ChatTurn
from truing.rails.config.loader import RailsConfig
from truing.specs.extras import needs_extra

with needs_extra("truing.integrations.langchain", "langchain"):
    from langchain_core.language_models.chat_models import BaseChatModel
    from langchain_core.messages import AIMessageChunk
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
    from langchain_core.runnables.config import ensure_config
    from pydantic import ConfigDict


# Besides numbers: `tools` are read as definitions, the others hold no text for a model.
_READ_ARGUMENTS = frozenset(
    {"tools", "tool_choice", "stop", "user", "service_tier", "reasoning_effort", "model"}
    | {"ls_structured_output_format"}
)


class GuardedChatModel(BaseChatModel):
    """`model` behind `rails`: a folder, a `RailsConfig`, or the `ChatRails` of another model.

    A blocked turn is an answer with the refusal, `finish_reason` content_filter; the decisions
    stand in `response_metadata["truing"]`. An exception of the model is raised as it is.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: Any
    rails: Any
    bound_model: Any = None
    bound_tools: tuple[Any, ...] = ()

    def __init__(
        self, model: Any, rails: ChatRails | RailsConfig | str | Path, **fields: Any
    ) -> None:
        chat_rails = rails if isinstance(rails, ChatRails) else ChatRails(rails)
        super().__init__(model=model, rails=chat_rails, **fields)

    @property
    def _llm_type(self) -> str:
        return "truing-guarded"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> GuardedChatModel:
        """Returns this model with tools bound to the model inside."""
        tools = list(tools)
        return type(self)(
            self.model,
            self.rails,
            bound_model=self.model.bind_tools(tools, **kwargs),
            bound_tools=tuple(read_tools(tools)),
        )

    async def _agenerate(
        self, messages: list[Any], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Any:
        try:
            turn = self._start_turn(messages, stop, kwargs)
        except UncheckedContent as error:
            answer = self.rails.refuse(error)
        else:
            answer = await self.rails.answer(turn, current_thread())
        return ChatResult(generations=[ChatGeneration(message=answer)])

    async def _astream(
        self, messages: list[Any], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        try:
            turn = self._start_turn(messages, stop, kwargs)
        except UncheckedContent as error:
            answer = self.rails.refuse(error)
            yield _chunk(answer.content)
            yield _last_chunk(answer)
            return
        async for part in self.rails.stream(turn, current_thread()):
            yield _chunk(part) if isinstance(part, str) else _last_chunk(part)

    def _generate(
        self, messages: list[Any], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Any:
        return BACKGROUND_LOOP.run(self._agenerate(messages, stop, **kwargs))

    def _stream(
        self, messages: list[Any], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[Any]:
        return BACKGROUND_LOOP.iterate(self._astream(messages, stop, **kwargs))

    def _start_turn(self, messages: list[Any], stop: Any, kwargs: dict[str, Any]) -> ChatTurn:
        arguments = {**kwargs, **({"stop": stop} if stop else {})}
        _refuse_unread_arguments(arguments)
        offered = read_tools(arguments.get("tools") or ())
        bound_model = self.bound_model if self.bound_model is not None else self.model
        tools = (*self.bound_tools, *offered)
        return ChatTurn(self.model, bound_model, messages, tools, arguments, self.rails.keeps)


def _refuse_unread_arguments(arguments: dict[str, Any]) -> None:
    """Raises UncheckedContent for an argument that may hold text which no rail reads."""
    for name, value in arguments.items():
        is_setting = value is None or isinstance(value, bool | int | float)
        if not is_setting and name not in _READ_ARGUMENTS:
            raise UncheckedContent(f"the argument {name[:40]!r} of a call is read by no rail")


def current_thread() -> str:
    """Returns the thread of LangGraph that a call belongs to: threads share no state of rails."""
    return str((ensure_config().get("configurable") or {}).get("thread_id") or "")


def _chunk(text: Any) -> Any:
    return ChatGenerationChunk(message=AIMessageChunk(content=text))


def _last_chunk(answer: Any) -> Any:
    """Returns the chunk that ends a stream: no text, the calls and the decisions."""
    calls = [
        {"name": call.name, "args": call.arguments, "id": call.id, "index": index}
        for index, call in enumerate(read_calls(answer))
    ]
    return ChatGenerationChunk(
        message=AIMessageChunk(
            content="",
            tool_call_chunks=calls,
            response_metadata=answer.response_metadata,
            usage_metadata=answer.usage_metadata,
            chunk_position="last",
        ),
        generation_info={"finish_reason": answer.response_metadata["finish_reason"]},
    )
