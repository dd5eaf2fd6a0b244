"""LLM calls of dialog actions, and the events of the messages that they result in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from truing.rails.actions import ActionResult
from truing.rails.runtime.chat_messages import (
    MODEL_ROLES,
    ChatMessage,
    ModelPrompt,
    content_text,
    with_flow_content,
)
from truing.rails.runtime.event_types import BotMessage, BotThinking, BotToolCalls, UserMessage
from truing.rails.runtime.stage_runner import run_stage
from truing.rails.runtime.turn_context import TurnContext, UncheckedError


async def ask_llm(turn: TurnContext, task: str, variables: dict[str, Any], **params: Any) -> str:
    """Makes the LLM call of a task and returns its parsed reply."""
    prompts = turn.services.prompts
    prompt = prompts.render_task_prompt(task, variables, turn.state.history)
    reply = await turn.llm(task)(prompt, stop=prompts.get_stop_tokens(task), **params)
    turn.thinking = reply.thinking
    return str(prompts.parse_task_output(task, reply.content))


async def answer_without_dialog(turn: TurnContext, event: UserMessage) -> ActionResult:
    """Returns the main LLM's answer to the user's message."""
    prompts = turn.services.prompts
    llm, params = turn.llm("generate_user_intent"), turn.llm_params
    if turn.services.config.passthrough:
        prompt: ModelPrompt = original_messages(turn, event.text)
        reply = await llm(prompt, stream=turn.stream, tools=turn.tools, **params)
        text = str(prompts.parse_task_output("general", reply.content))
    else:
        chunks = await _relevant_chunks(turn, event)
        prompt = prompts.render_task_prompt(
            "general", {"relevant_chunks": chunks}, turn.state.history
        )
        prompt = _with_tool_messages(turn, prompt, event)
        if turn.stream is not None:
            turn.stream.expect(stop=["User:"])
        reply = await llm(prompt, stop=["User:"], stream=turn.stream, tools=turn.tools, **params)
        text = str(prompts.parse_task_output("general", reply.content)).strip()
        if text.startswith('"'):
            text = text[1:-1]
    await push_to_stream(turn, text)
    turn.thinking, turn.finish_reason = reply.thinking, reply.finish_reason
    result = ActionResult(events=[], context_updates={})
    add_message_events(turn, result, text, reply.tool_calls)
    return result


async def _relevant_chunks(turn: TurnContext, event: UserMessage) -> str | None:
    kb = turn.services.kb
    if kb is None:
        chunks = turn.state.history.chunks
    else:
        nearest_chunks = await kb.search_relevant_chunks(content_text(event.text))
        chunks = "\n".join(chunk["body"] for chunk in nearest_chunks)
    return await read_chunks(turn, chunks) if chunks else chunks


async def read_chunks(turn: TurnContext, chunks: str) -> str:
    """Returns retrieved chunks as the retrieval rails leave them; UncheckedError if one objects.

    For prompts outside of `bot ...` steps, before which the flows run these rails.
    """
    if turn.is_speculative_copy or not turn.is_stage_on("retrieval"):
        return chunks
    outcome = await run_stage(turn, turn.state, "retrieval", chunks)
    turn.rulings += outcome.rulings
    if not outcome.passed:
        raise UncheckedError(outcome.reason)
    return str(outcome.content)


def original_messages(turn: TurnContext, text: Any) -> str | list[ChatMessage]:
    """Returns the caller's messages, the last user message with the text that the input rails left.

    Without any messages (a conversation of events) the text itself is the prompt.
    """
    messages = [message for message in turn.messages if message.role in MODEL_ROLES]
    if not messages:
        return content_text(text or "")
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].role == "user":
            messages[index] = with_flow_content(messages[index], text)
            break
    return messages


def _with_tool_messages(turn: TurnContext, prompt: ModelPrompt, event: UserMessage) -> ModelPrompt:
    """Returns the prompt; with the original messages if these have tool calls.

    The rendered history has no form for tool calls and results. The system message of the prompt
    stays.
    """
    has_tools = any(m.role == "tool" or m.tool_calls for m in turn.messages)
    if isinstance(prompt, str) or not has_tools:
        return prompt
    system = [m for m in prompt if isinstance(m, dict) and m.get("type") == "system"][:1]
    original = original_messages(turn, event.text)
    assert not isinstance(original, str), "a conversation with tool messages has messages"
    return [*system, *(message for message in original if message.role != "system")]


async def push_to_stream(turn: TurnContext, text: str) -> None:
    """Streams a text as a whole; dropped if the LLM's own stream has already finished."""
    if turn.stream is not None:
        await turn.stream.push(text)


def add_message_events(
    turn: TurnContext, result: ActionResult, text: str, tool_calls: Sequence[Any] = ()
) -> None:
    """Adds the bot message (or the tool calls), and before it the LLM's thinking."""
    events = result.events if result.events is not None else []
    if turn.thinking:
        events.append(BotThinking(turn.thinking))
        result.context_updates = {**(result.context_updates or {}), "bot_thinking": turn.thinking}
        turn.thinking = None
    if tool_calls:
        events.append(BotToolCalls([call.to_openai() for call in tool_calls]))
    else:
        events.append(BotMessage(text))
    result.events = events
