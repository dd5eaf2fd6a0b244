"""A chat model of LangChain that answers from a list, and notes what it was sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field


class ListChatModel(BaseChatModel):
    """Answers with the next of `answers`: a text, an AIMessage, or an exception to raise."""

    answers: list[Any]
    seen: list[Any] = Field(default_factory=list)
    tools: list[Any] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "list"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        self.tools.append([getattr(tool, "name", tool) for tool in tools])
        return self

    def _next(self, messages: Any) -> Any:
        self.seen.append(list(messages))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return AIMessage(answer) if isinstance(answer, str) else answer

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> Any:
        return ChatResult(generations=[ChatGeneration(message=self._next(messages))])

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
    ) -> Iterator[Any]:
        answer = self._next(messages)
        for word in str(answer.content).split(" "):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=word + " "))
            if run_manager:
                run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk


def call(name: str, arguments: dict[str, Any], call_id: str = "call_1") -> Any:
    """An AIMessage that calls one tool."""
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": call_id}])
