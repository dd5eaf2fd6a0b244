"""`RailsMiddleware`: the rails of a configuration in an agent of `create_agent`.

    agent = create_agent(model, tools, middleware=[RailsMiddleware("my_rails")])

The model of every step stands behind the rails: they read the messages before it does, tool results
among them, and its answer and tool calls before anybody gets them, streams included. Each call is
checked before its tool runs, and each result before it goes anywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from truing.core.types import Conversation, Message, ToolCall
from truing.integrations.background_loop import BACKGROUND_LOOP
from truing.integrations.hook_rails import HookCheck, UncheckedContent
from truing.integrations.langchain.chat_model import GuardedChatModel, current_thread
from truing.integrations.langchain.messages import (
    read_arguments_object,
    read_calls,
    read_content,
    read_messages,
    read_tools,
)
from truing.integrations.langchain.turns import ChatRails
from truing.rails.config.loader import RailsConfig
from truing.specs.extras import needs_extra

with needs_extra("truing.integrations.langchain", "langchain"):
    from langchain.agents.middleware import AgentMiddleware
    from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage, ToolMessage
    from langgraph.types import Command


_UNREAD_RESULT = "a tool gives a result other than messages of tools"


class BypassedRails(RuntimeError):
    """An answer of the agent's model that did not come through the rails."""


class RailsMiddleware(AgentMiddleware):
    """The arguments are those of `ChatRails`: `on_rulings`, `keep_reasoning`, `judges`, `parts`,
    `trust_code`, `key_variables`.

    Put it last in the list of middleware: one after it could put another model in the place of the
    guarded one; the answer of such a model raises BypassedRails.
    """

    def __init__(self, rails: ChatRails | RailsConfig | str | Path, **arguments: Any) -> None:
        super().__init__()
        self.rails = rails if isinstance(rails, ChatRails) else ChatRails(rails, **arguments)

    # -- the model -------------------------------------------------------------------------------

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        """Puts the model of a step behind the rails."""
        return self._require_checked(handler(self._guard(request)))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        """As `wrap_model_call`, in async code."""
        return self._require_checked(await handler(self._guard(request)))

    def _guard(self, request: Any) -> Any:
        return request.override(model=GuardedChatModel(request.model, self.rails))

    def _require_checked(self, response: Any) -> Any:
        messages = [response] if isinstance(response, BaseMessage) else response.result
        for message in messages:
            if isinstance(message, AIMessage) and not self.rails.has_answered(message):
                raise BypassedRails(
                    "the answer did not come from the model behind the rails: put RailsMiddleware "
                    "last in the list of middleware"
                )
        return response

    # -- tools -----------------------------------------------------------------------------------

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        """Checks a call, runs its tool, and checks the result."""
        request, refusal = BACKGROUND_LOOP.run(self._check_call(request))
        if refusal is not None:
            return refusal
        return BACKGROUND_LOOP.run(self._check_result(request, handler(request)))

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        """As `wrap_tool_call`, in async code."""
        request, refusal = await self._check_call(request)
        if refusal is not None:
            return refusal
        return await self._check_result(request, await handler(request))

    async def _check_call(self, request: Any) -> tuple[Any, Any]:
        """Returns the request as the rails leave it, and the refusal if they object.

        A call that a turn has let pass is not read twice, and nobody is asked about it twice; one
        that was edited since is read.
        """
        if self.rails.take_passed_call(current_thread(), request.tool_call):
            return request, None
        message = Message(
            "assistant", "", read_calls(AIMessage("", tool_calls=[request.tool_call]))
        )
        check = await self._check(request, message, ends_in_answer=True)
        if not check.allowed:
            return request, self._refuse(request, check)
        checked = check.messages[-1].tool_calls[0]
        if checked.name != request.tool_call["name"]:
            check = self.rails.block("tool_output", "a rail rewrites the name of a call")
            return request, self._refuse(request, check)
        arguments = read_arguments_object(checked.arguments)
        if arguments is None:
            check = self.rails.block("tool_output", "a rail left arguments that are no JSON object")
            return request, self._refuse(request, check)
        if arguments == request.tool_call["args"]:
            return request, None
        return request.override(tool_call={**request.tool_call, "args": arguments}), None

    async def _check_result(self, request: Any, tool_result: Any) -> Any:
        """Returns the result of a tool as the rails leave it: a message, a Command with some, or a
        list of these. Messages in any other form are refused.
        """
        if isinstance(tool_result, ToolMessage):
            return await self._check_message(request, tool_result)
        if isinstance(tool_result, list):
            return [await self._check_result(request, part) for part in tool_result]
        if not isinstance(tool_result, Command):
            return self._refuse(request, self.rails.block("tool_input", _UNREAD_RESULT))
        update: Any = tool_result.update
        if update is None or (isinstance(update, dict) and not update.get("messages")):
            return tool_result
        if not isinstance(update, dict):
            return self._refuse(request, self.rails.block("tool_input", _UNREAD_RESULT))
        rows = update["messages"]
        rows = list(rows) if isinstance(rows, list | tuple) else [rows]
        if not all(isinstance(row, ToolMessage | RemoveMessage) for row in rows):
            return self._refuse(request, self.rails.block("tool_input", _UNREAD_RESULT))
        checked = [
            row if isinstance(row, RemoveMessage) else await self._check_message(request, row)
            for row in rows
        ]
        return Command(
            graph=tool_result.graph,
            update={**update, "messages": checked},
            resume=tool_result.resume,
            goto=tool_result.goto,
        )

    async def _check_message(self, request: Any, message: Any) -> Any:
        try:
            text = read_content(message.content)
        except UncheckedContent as error:
            return self._refuse(request, self.rails.block("tool_input", str(error)))
        call = ToolCall(message.tool_call_id, request.tool_call["name"])
        calls = read_calls(AIMessage("", tool_calls=[request.tool_call]))
        check = await self._check(
            request,
            Message("assistant", "", tuple(replace(c, id=call.id) for c in calls)),
            Message("tool", text, tool_call_id=message.tool_call_id),
        )
        if not check.allowed:
            return self._refuse(request, check)
        checked = check.messages[-1].content
        if getattr(request.tool, "return_direct", False):
            # The result is the answer of the run too.
            answer = Message("assistant", checked)
            check = await self._check(request, answer, ends_in_answer=True)
            if not check.allowed:
                return self._refuse(request, check)
            checked = check.messages[-1].content
        return message if checked == text else message.model_copy(update={"content": checked})

    async def _check(
        self, request: Any, *messages: Message, ends_in_answer: bool = False
    ) -> HookCheck:
        try:
            earlier = _earlier_messages(request.state)
        except UncheckedContent as error:
            return self.rails.block("input", str(error))
        conversation = Conversation((*earlier, *messages))
        tools = read_tools([request.tool]) if request.tool is not None else ()
        return await self.rails.check(
            conversation,
            tools=tools,
            session=current_thread(),
            ends_in_answer=ends_in_answer,
        )

    def _refuse(self, request: Any, check: HookCheck) -> Any:
        """Returns what the model gets in the place of a result."""
        message = ToolMessage(
            check.reply,
            tool_call_id=request.tool_call["id"],
            name=request.tool_call["name"],
            status="error",
        )
        message.response_metadata = {"truing": check.record}
        return message


def _earlier_messages(state: Any) -> tuple[Message, ...]:
    """Returns the messages of an agent's state before the newest one with tool calls."""
    rows = state.get("messages") if isinstance(state, dict) else getattr(state, "messages", None)
    earlier: list[Any] = list(rows or ())
    while earlier and not (isinstance(earlier[-1], AIMessage) and read_calls(earlier[-1])):
        earlier.pop()
    return read_messages(earlier[:-1]).messages
