"""The built-in actions of dialog rails: canonical form, next step, message, value, and all three in one call."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Callable, Sequence
from typing import Any

from truing.rails.actions import ActionResult
from truing.rails.colang.ast import BotText
from truing.rails.colang.expressions import compile_expression
from truing.rails.runtime.conversation_state import flat_text, parses
from truing.rails.runtime.example_index import KnowledgeBase, nemo_score
from truing.rails.runtime.prompt_filters import first_line, first_lines, message_text, unquoted
from truing.rails.runtime.templates import render_message
from truing.rails.runtime.turn_context import Turn

Event = dict[str, Any]
SPEECHLESS = "I'm not sure what to say."


async def generate_user_intent(turn: Turn) -> ActionResult:
    """The canonical form of what the user said; without any canonical forms, the answer itself."""
    config = turn.services.config
    if config.single_call:
        return await generate_intent_steps_message(turn)
    event = turn.talk.history.recent("UserMessage")
    if event is None:
        raise ValueError("there is no user message to understand")
    if not config.user_messages:
        return await _answer(turn, event)
    text = flat_text(event["text"])
    intent, examples, potential = await _by_embedding(turn, text)
    if intent is None:
        intent = await _intent_by_llm(turn, examples, potential)
    return ActionResult(events=[{"type": "UserIntent", "intent": intent}])


async def _by_embedding(turn: Turn, text: str) -> tuple[str | None, str, str]:
    """The intent if embeddings alone decide it; and the examples and candidates for the LLM otherwise."""
    config, knowledge = turn.services.config, turn.services.knowledge
    if not any(config.user_messages.values()):
        return None, "", ""
    margin = config.truing.get("intent_margin")
    if margin is not None:
        ranked = await knowledge.intents.rank(text)
        second = ranked[1][0] if len(ranked) > 1 else -1.0
        certain = ranked[0][0] - second >= float(margin) and ranked[0][0] >= float(
            config.truing.get("intent_threshold", 0.0)
        )
        if certain or config.embeddings_only:
            return ranked[0][1] if certain else config.embeddings_fallback or ranked[0][1], "", ""
    found = await knowledge.users.search(text, 5)
    if config.embeddings_only and found:
        threshold = config.embeddings_threshold
        if threshold is None or nemo_score(found[0][0]) >= threshold:
            return found[0][2], "", ""
        if config.embeddings_fallback:
            return config.embeddings_fallback, "", ""
    examples = "".join(
        f'user "{example}"\n  {intent}\n\n' for _, example, intent in reversed(found)
    )
    return None, examples, ", ".join(dict.fromkeys(intent for _, _, intent in reversed(found)))


async def _intent_by_llm(turn: Turn, examples: str, potential: str) -> str:
    task = "generate_user_intent"
    given = {"examples": examples, "potential_user_intents": potential}
    said = await _ask(turn, task, given, temperature=turn.services.config.lowest_temperature)
    return (first_line(said) or "unknown message").removeprefix("user ")


async def _ask(turn: Turn, task: str, given: dict[str, Any], **params: Any) -> str:
    """One call of a task's prompt, its answer parsed."""
    prompts = turn.services.prompts
    prompt = prompts.render_task_prompt(task, given, turn.talk.history)
    reply = await turn.llm(task)(prompt, stop=prompts.get_stop_tokens(task), **params)
    turn.thinking = reply.thinking
    return str(prompts.parse_task_output(task, reply.content))


async def _answer(turn: Turn, event: Event) -> ActionResult:
    """The plain answer of the main LLM."""
    config, prompts = turn.services.config, turn.services.prompts
    llm, params = turn.llm("generate_user_intent"), turn.llm_params
    if config.passthrough:
        prompt: Any = _passed_through(turn, event["text"])
        reply = await llm(prompt, sink=turn.sink, tools=turn.tools, **params)
        text = str(prompts.parse_task_output("general", reply.content))
    else:
        kb = turn.services.kb
        if kb is not None:
            chunks: str | None = "\n".join(
                c["body"] for c in await kb.search_relevant_chunks(flat_text(event["text"]))
            )
        else:
            chunks = turn.talk.history.chunks
        prompt = _with_tools(
            turn,
            prompts.render_task_prompt("general", {"relevant_chunks": chunks}, turn.talk.history),
            event,
        )
        if turn.sink is not None:
            turn.sink.expect(stop=["User:"])
        reply = await llm(prompt, stop=["User:"], sink=turn.sink, tools=turn.tools, **params)
        text = str(prompts.parse_task_output("general", reply.content)).strip()
        if text.startswith('"'):
            text = text[1:-1]
    await _stream(turn, text)
    turn.thinking, turn.finish = reply.thinking, reply.finish
    result = ActionResult(events=[], context_updates={})
    _say(turn, result, text, reply.tool_calls)
    return result


def _say(turn: Turn, result: ActionResult, text: str, calls: Sequence[Any] = ()) -> None:
    """Adds the message (or the tool calls) and what was thought before it."""
    events = result.events if result.events is not None else []
    if turn.thinking:
        events.append({"type": "BotThinking", "content": turn.thinking})
        result.context_updates = {**(result.context_updates or {}), "bot_thinking": turn.thinking}
        turn.thinking = None
    if calls:
        events.append({"type": "BotToolCalls", "tool_calls": [call.to_openai() for call in calls]})
    else:
        events.append({"type": "BotMessage", "text": text})
    result.events = events


async def _stream(turn: Turn, text: str) -> None:
    if turn.sink is not None:
        await turn.sink.push(text)


def _passed_through(turn: Turn, text: Any) -> Any:
    """The user's conversation as it came, with the last message as the input rails left it."""
    rows = [
        dict(m)
        for m in turn.chat
        if m.get("role") in ("system", "user", "assistant", "tool", "developer")
    ]
    if not rows:
        return text
    at = next((i for i in range(len(rows) - 1, -1, -1) if rows[i]["role"] == "user"), None)
    if at is not None:
        rows[at]["content"] = text
    return rows


def _with_tools(turn: Turn, prompt: Any, event: Event) -> Any:
    """The prompt with the calls and results of tools, where the conversation has any: the system message, then all as it came."""
    if not isinstance(prompt, list) or not any(
        m.get("role") == "tool" or m.get("tool_calls") for m in turn.chat
    ):
        return prompt
    head = [row for row in prompt if row.get("type") == "system"][:1]
    return [
        *head,
        *(row for row in _passed_through(turn, event["text"]) if row["role"] != "system"),
    ]


async def generate_next_steps(turn: Turn) -> ActionResult:
    """The bot's next step where no flow decides it."""
    services, config = turn.services, turn.services.config
    event = turn.talk.history.recent("UserIntent")
    if event is None:
        raise ValueError("there is no user intent to continue from")
    if config.single_call:
        return ActionResult(events=[event["additional_info"]["bot_intent_event"]])
    near = await services.knowledge.near_flows(event["intent"], 5)
    examples = "".join(f"{code}\n\n" for code in reversed(near))
    said = await _ask(
        turn, "generate_next_steps", {"examples": examples}, temperature=config.lowest_temperature
    )
    if config.multi_step:
        return ActionResult(events=[_new_flow(said, services.new_flow_name())])
    row = first_line(said)
    if not row or not row.startswith("bot "):
        return ActionResult(events=[{"type": "BotIntent", "intent": "general response"}])
    intent = row[4:]
    for mark in ('"', ","):
        if mark in intent:
            intent = intent.split(mark)[0].strip()
    return ActionResult(events=[{"type": "BotIntent", "intent": intent}])


def _new_flow(said: str, name: str) -> Event:
    """The longest beginning of what the LLM wrote that can be read as a flow."""
    rows = said.split("\n")
    while rows and not parses("\n".join(rows)):
        rows.pop()
    if not rows:
        return {"type": "BotIntent", "intent": "general response"}
    return {"type": "start_flow", "flow_id": name, "flow_body": "\n".join(rows)}


async def generate_bot_message(turn: Turn) -> ActionResult:
    """The text of a bot message: predefined, a variable's value, or made by the LLM."""
    config, context = turn.services.config, turn.talk.context
    event = turn.talk.history.recent("BotIntent")
    if event is None:
        raise ValueError("there is no bot intent to put into words")
    intent = event["intent"]
    result = ActionResult(events=[], context_updates={})
    updates: dict[str, Any] = result.context_updates or {}
    result.context_updates = updates
    if turn.sink is not None and config.rails.output.streaming.enabled:
        updates["skip_output_rails"] = True
    if intent in config.bot_messages:
        text: Any = render_message(_choose(turn, config.bot_messages[intent]), context)
        updates["skip_output_rails"] = True
    elif intent.startswith('"'):
        text = render_message(intent[1:-1], context)
        updates["skip_output_rails"] = True
    elif intent.startswith("$") and intent[1:] in context:
        text = context[intent[1:]]
    else:
        if config.single_call:
            ready = await _from_single_call(turn, intent)
            if ready is not None:
                return ready
        text, prompt = await _message_by_llm(turn, event)
        updates["_last_bot_prompt"] = prompt
    if text:
        text = text.replace("\\n", "\n")
    else:
        text = SPEECHLESS
    await _stream(turn, text)
    _say(turn, result, text)
    return result


def _choose(turn: Turn, texts: Sequence[BotText]) -> str:
    fitting = [t for t in texts if all(_holds(c, turn.talk.context) for c in t.conditions)] or list(
        texts
    )
    return fitting[0].text if len(fitting) == 1 else turn.choose(fitting).text


def _holds(condition: str, context: dict[str, Any]) -> bool:
    return bool(compile_expression(condition)(context))


async def _from_single_call(turn: Turn, intent: str) -> ActionResult | None:
    """The message that the single call made, if it was made for this intent."""
    event = turn.talk.history.recent("UserIntent")
    if event is None:
        raise ValueError("there is no user intent that the single call found")
    info = event["additional_info"]
    if info["bot_intent_event"]["intent"] != intent:
        return None
    message = info["bot_message_event"]
    await _stream(turn, message["text"])
    result = ActionResult(events=[], context_updates={})
    _say(turn, result, message["text"])
    return result


async def _message_by_llm(turn: Turn, event: Event) -> tuple[str, Any]:
    services, config = turn.services, turn.services.config
    if config.passthrough:
        prompt = _passed_through(turn, turn.talk.context.get("user_message"))
        if not prompt:
            raise ValueError("there is no prompt to pass through")
        reply = await turn.llm("generate_bot_message")(prompt, sink=turn.sink, **turn.llm_params)
        turn.thinking, turn.finish = reply.thinking, reply.finish
        return str(services.prompts.parse_task_output("general", reply.content)), prompt
    near = await services.knowledge.bots.search(event["intent"], 5) if config.user_messages else []
    examples = "".join(f'bot {name}\n  "{text}"\n\n' for _, name, text in reversed(near))
    given = {"examples": examples, "relevant_chunks": turn.talk.history.fresh_chunks}
    prompt = services.prompts.render_task_prompt("generate_bot_message", given, turn.talk.history)
    if turn.sink is not None:
        parser = services.prompts.parser("generate_bot_message")
        turn.sink.expect(
            'Bot message: "' if parser in ("verbose_v1", "bot_message") else '  "', '"'
        )
    reply = await turn.llm("generate_bot_message")(prompt, sink=turn.sink, **turn.llm_params)
    turn.thinking, turn.finish = reply.thinking, reply.finish
    said = str(services.prompts.parse_task_output("generate_bot_message", reply.content))
    return unquoted(message_text(said)), prompt


async def generate_value(
    turn: Turn, instructions: str | None = None, var_name: str | None = None
) -> Any:
    """The value of a variable: a quoted literal, or the text as it is."""
    services = turn.services
    name = var_name or turn.talk.history[-1].get("action_result_key")
    near = [
        c
        for c in await services.knowledge.near_flows(f"${name} = ", 5)
        if not re.search(r"=\s+\.\.\.", c)
    ]
    given = {
        "examples": "".join(f"{c}\n\n" for c in reversed(near)),
        "instructions": instructions,
        "var_name": name,
    }
    said = await _ask(turn, "generate_value", given, temperature=services.config.lowest_temperature)
    value = said.strip().split("\n")[0].removesuffix(";")
    if value[:1] in ("'", '"') and value[-1:] in ("'", '"'):
        try:
            return literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass
    try:
        escaped = value.replace("'", "\\'").replace('"', '\\"')
        return literal_eval(f"'{escaped}'")
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"the value {value!r} cannot be read") from error


async def generate_intent_steps_message(turn: Turn) -> ActionResult:
    """Canonical form, next step and message in one call."""
    services, config = turn.services, turn.services.config
    event = turn.talk.history.recent("UserMessage")
    if event is None:
        raise ValueError("there is no user message to understand")
    if not config.user_messages:
        said = await _ask(turn, "general", {}, **turn.llm_params)
        text = said.strip()
        text = text[1:-1] if text.startswith('"') else text
        await _stream(turn, text)
        return ActionResult(events=[{"type": "BotMessage", "text": text}])
    found = await services.knowledge.users.search(flat_text(event["text"]), 10)
    potential = list(dict.fromkeys(intent for _, _, intent in found))
    kb: KnowledgeBase | None = services.kb
    chunks = await kb.search_relevant_chunks(flat_text(event["text"])) if kb is not None else []
    given = {
        "examples": "\n\n".join(reversed([await _example(turn, t, i) for _, t, i in found[:5]])),
        "potential_user_intents": ", ".join(potential),
        "relevant_chunks": "\n".join(c["body"] for c in chunks).strip(),
    }
    params = {**turn.llm_params, "temperature": config.lowest_temperature}
    said = await _ask(turn, "generate_intent_steps_message", given, **params)
    user, bot, message = _three(said)
    info = {
        "bot_intent_event": {"type": "BotIntent", "intent": bot},
        "bot_message_event": {"type": "BotMessage", "text": message},
    }
    return ActionResult(events=[{"type": "UserIntent", "intent": user, "additional_info": info}])


async def _example(turn: Turn, text: str, intent: str) -> str:
    """An example for the single call: the message, its form, and how the nearest flow goes on."""
    row = f'user "{text}"\n  {intent}\n'
    for code in await turn.services.knowledge.near_flows(intent, 2):
        first, _, rest = code.partition("\n")
        if rest and first[5:] == intent:
            row += f"{rest}\n"
            last = rest.rpartition("\n")[2]
            if last.startswith("bot "):
                texts = turn.services.config.bot_messages.get(last[4:])
                row += (
                    f'  "{texts[0].text}"\n' if texts else f"  # a message for {last[4:]} follows\n"
                )
            break
    return row


def _three(said: str) -> tuple[str, str, str]:
    """Canonical form, next step and message in what the LLM wrote."""
    rows = first_lines(said, 2)
    if not rows:
        raise ValueError("the answer of the single call is empty")
    user = (
        rows[0].removeprefix("user ")
        if rows[0].startswith("user ")
        else rows[0].removeprefix("User intent: ")
    )
    second = rows[1] if len(rows) > 1 else ""
    message = ""
    if second:
        at = said.find(second)
        message = unquoted(message_text(said[at + len(second) :])) if at >= 0 else ""
    if second.startswith("bot "):
        bot = second[4:]
    elif second.startswith("Bot intent: "):
        bot = second[12:]
    else:
        bot = "general response"
    return user, bot, message if message.strip() else SPEECHLESS


async def retrieve_relevant_chunks(turn: Turn) -> ActionResult:
    """The chunks of the knowledge base for the user's message, into $relevant_chunks."""
    context, kb = turn.talk.context, turn.services.kb
    message = context.get("last_user_message")
    if message and kb is not None:
        found = [c["body"] for c in await kb.search_relevant_chunks(flat_text(message))]
        updates: dict[str, Any] = {
            "relevant_chunks": "\n".join(found),
            "relevant_chunks_sep": found,
            "retrieved_for": message,
        }
    else:
        updates = {
            "relevant_chunks": context.get("relevant_chunks", "") + "\n",
            "relevant_chunks_sep": context.get("relevant_chunks_sep", []),
            "retrieved_for": None,
        }
    return ActionResult(updates["relevant_chunks"], context_updates=updates)


def _costs(call: Callable[..., Any], calls: int) -> Callable[..., Any]:
    vars(call)["llm_calls"] = calls
    return call


# What they ask the LLM for is counted by `static.calls` with the course of the turn, save for single values.
ACTIONS = (
    generate_user_intent,
    generate_next_steps,
    generate_bot_message,
    _costs(generate_value, 1),
    generate_intent_steps_message,
    retrieve_relevant_chunks,
)
