"""The built-in actions of dialog rails: user intent, next step, bot message, and values.

The functions' names are NeMo's action names; the tasks that they render are those of `prompts`.
"""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from truing.rails.actions import ActionResult
from truing.rails.colang.ast import BotText
from truing.rails.colang.expressions import compile_expression
from truing.rails.runtime.chat_messages import content_text
from truing.rails.runtime.conversation_state import is_valid_flow_body
from truing.rails.runtime.dialog_messages import (
    add_message_events,
    answer_without_dialog,
    ask_llm,
    original_messages,
    push_to_stream,
    read_chunks,
)
from truing.rails.runtime.event_types import (
    BotIntent,
    BotMessage,
    Event,
    StartFlow,
    UserIntent,
    UserMessage,
    event_from_nemo,
)
from truing.rails.runtime.example_index import nemo_similarity
from truing.rails.runtime.prompt_filters import (
    extract_bot_message,
    first_code_lines,
    first_nonempty_line,
    strip_quotes,
)
from truing.rails.runtime.script_dialog import answer_by_script
from truing.rails.runtime.templates import (
    dollar_to_jinja,
    render_bot_message,
    template_variables,
)
from truing.rails.runtime.turn_context import TurnContext

E = TypeVar("E", bound=Event)
EMPTY_MESSAGE_REPLACEMENT = "I'm not sure what to say."
FALLBACK_INTENT = "general response"
EXAMPLES_IN_PROMPT = 5
# Set by the library's rails: a reason in fixed words, and texts of the configuration.
_REFUSAL_VARIABLES = frozenset({"rail_reason", "rail_alternative", "rail_support"})
_VERBOSE_PARSERS = ("verbose_v1", "bot_message")


# -- user intent -------------------------------------------------------------------------------


async def generate_user_intent(turn: TurnContext) -> ActionResult:
    """Determines the canonical form of the user's message; without any, answers the message."""
    config = turn.services.config
    if config.script is not None:
        answer = await answer_by_script(turn)
        if answer is not None:
            return answer
    if config.single_call:
        return await generate_intent_steps_message(turn)
    event = turn.state.history.latest(UserMessage)
    if event is None:
        raise ValueError("there is no user message to understand")
    if not config.user_messages:
        return await answer_without_dialog(turn, event)
    text = content_text(event.text)
    intent = await _intent_by_margin(turn, text)
    if intent is None:
        intent = await _intent_by_examples(turn, text)
    return ActionResult(events=[UserIntent(intent)])


async def _intent_by_margin(turn: TurnContext, text: str) -> str | None:
    """Returns the best-scored intent if it leads by ``truing: {intent_margin: ...}``, else None.

    With embeddings only there is no LLM to ask: then the fallback intent or the best one is
    returned.
    """
    config, classifier = turn.services.config, turn.services.examples.intents
    margin = config.truing.get("intent_margin")
    if margin is None or not any(config.user_messages.values()):
        return None
    ranked = await classifier.rank(text)
    best_score, best = ranked[0]
    second_score = ranked[1][0] if len(ranked) > 1 else -1.0
    threshold = float(config.truing.get("intent_threshold", 0.0))
    if best_score - second_score >= float(margin) and best_score >= threshold:
        return best
    return (config.embeddings_fallback or best) if config.embeddings_only else None


async def _intent_by_examples(turn: TurnContext, text: str) -> str:
    """Returns the nearest example's intent (embeddings only), or asks the LLM with several."""
    config, index = turn.services.config, turn.services.examples.user_messages
    if not any(config.user_messages.values()):
        return await _intent_by_llm(turn, [])
    matches = await index.search(text, EXAMPLES_IN_PROMPT)
    if config.embeddings_only and matches:
        cosine, _, intent = matches[0]
        threshold = config.embeddings_threshold
        if threshold is None or nemo_similarity(cosine) >= threshold:
            return intent
        if config.embeddings_fallback:
            return config.embeddings_fallback
    return await _intent_by_llm(turn, [(example, intent) for _, example, intent in matches])


async def _intent_by_llm(turn: TurnContext, examples: list[tuple[str, str]]) -> str:
    """Asks the LLM for the intent; `examples` are (text, intent), the nearest first."""
    # The nearest example stands last, closest to the message.
    nearest_last = list(reversed(examples))
    variables = {
        "examples": "".join(f'user "{text}"\n  {intent}\n\n' for text, intent in nearest_last),
        "potential_user_intents": ", ".join(dict.fromkeys(intent for _, intent in nearest_last)),
    }
    temperature = turn.services.config.lowest_temperature
    reply = await ask_llm(turn, "generate_user_intent", variables, temperature=temperature)
    return (first_nonempty_line(reply) or "unknown message").removeprefix("user ")


# -- next step ---------------------------------------------------------------------------------


async def generate_next_steps(turn: TurnContext) -> ActionResult:
    """Determines the bot's next step by the LLM, where no flow decides it."""
    services, config = turn.services, turn.services.config
    event = turn.state.history.latest(UserIntent)
    if event is None:
        raise ValueError("there is no user intent to continue from")
    if config.single_call:
        return ActionResult(events=[_planned_event(event, "bot_intent_event", BotIntent)])
    flows = await services.examples.nearest_flows(event.intent, EXAMPLES_IN_PROMPT)
    variables = {"examples": "".join(f"{source}\n\n" for source in reversed(flows))}
    reply = await ask_llm(
        turn, "generate_next_steps", variables, temperature=config.lowest_temperature
    )
    if config.multi_step:
        return ActionResult(events=[_dynamic_flow_event(reply, services.new_flow_name())])
    line = first_nonempty_line(reply)
    if not line or not line.startswith("bot "):
        return ActionResult(events=[BotIntent(FALLBACK_INTENT)])
    intent = line.removeprefix("bot ")
    # LLMs like to go on with the message itself: bot express greeting "Hello".
    for mark in ('"', ","):
        if mark in intent:
            intent = intent.split(mark)[0].strip()
    return ActionResult(events=[BotIntent(intent)])


def _planned_event(event: UserIntent, name: str, kind: type[E]) -> E:
    """Returns an event that the single call planned; ValueError if the intent is not its own."""
    planned = event_from_nemo((event.additional_info or {})[name])
    if not isinstance(planned, kind):
        raise ValueError(f"{name} of the user intent is no {kind.kind}")
    return planned


def _dynamic_flow_event(reply: str, name: str) -> Event:
    """Returns the start event of the LLM's flow: the longest beginning that is valid Colang."""
    lines = reply.split("\n")
    while lines and not is_valid_flow_body("\n".join(lines)):
        lines.pop()
    if not lines:
        return BotIntent(FALLBACK_INTENT)
    return StartFlow(name, flow_body="\n".join(lines))


# -- bot message -------------------------------------------------------------------------------


async def generate_bot_message(turn: TurnContext) -> ActionResult:
    """Determines the text of a bot message: predefined, a variable's value, or by the LLM."""
    config, context = turn.services.config, turn.state.context
    event = turn.state.history.latest(BotIntent)
    if event is None:
        raise ValueError("there is no bot intent to put into words")
    intent = event.intent
    updates: dict[str, Any] = {}
    if intent in config.bot_messages or intent.startswith('"'):
        is_literal = intent not in config.bot_messages
        template = intent[1:-1] if is_literal else _choose_text(turn, config.bot_messages[intent])
        text: Any = render_bot_message(template, context)
        if _is_authors_own(template):
            updates["skip_output_rails"] = True  # the author's texts are trusted, as in NeMo
            turn.passed_texts.add(text.replace("\\n", "\n"))
        elif turn.running_stage == "output":
            updates["skip_output_rails"] = True  # no rail within a rail: the output gate reads it
    elif intent.startswith("$") and intent[1:] in context:
        text = context[intent[1:]]
    else:
        if config.single_call:
            single_call_result = await _message_of_single_call(turn, intent)
            if single_call_result is not None:
                return single_call_result
        text, prompt = await _message_by_llm(turn, event)
        updates["_last_bot_prompt"] = prompt  # `self check hallucination` draws other answers to it
    text = text.replace("\\n", "\n") if text else EMPTY_MESSAGE_REPLACEMENT
    await push_to_stream(turn, text)
    action_result = ActionResult(events=[], context_updates=updates)
    add_message_events(turn, action_result, text)
    return action_result


def _is_authors_own(template: str) -> bool:
    """Returns whether a predefined message says nothing but what the configuration's author wrote.

    A variable may hold what a model or a client wrote, but for those of truing's own refusals.
    """
    return template_variables(dollar_to_jinja(template)) <= _REFUSAL_VARIABLES


def _choose_text(turn: TurnContext, texts: Sequence[BotText]) -> str:
    """Draws one of a message's texts: of those whose conditions hold, or of all if none do."""
    context = turn.state.context
    candidates = [
        text
        for text in texts
        if all(compile_expression(condition)(context) for condition in text.conditions)
    ]
    candidates = candidates or list(texts)
    return candidates[0].text if len(candidates) == 1 else turn.choose(candidates).text


async def _message_of_single_call(turn: TurnContext, intent: str) -> ActionResult | None:
    """Returns the message of the single call, or None if it was written for another intent."""
    event = turn.state.history.latest(UserIntent)
    if event is None:
        raise ValueError("there is no user intent that the single call found")
    if _planned_event(event, "bot_intent_event", BotIntent).intent != intent:
        return None
    text = _planned_event(event, "bot_message_event", BotMessage).text
    await push_to_stream(turn, text)
    result = ActionResult(events=[], context_updates={})
    add_message_events(turn, result, text)
    return result


async def _message_by_llm(turn: TurnContext, event: BotIntent) -> tuple[str, Any]:
    """Returns the LLM's text for a bot intent, and the prompt."""
    services, config, prompts = turn.services, turn.services.config, turn.services.prompts
    llm = turn.llm("generate_bot_message")
    if turn.is_stage_check or (config.passthrough and turn.missing_input_rails):
        return "", None  # a model must not word the refusal of what it may not see
    if config.passthrough:
        messages = original_messages(turn, turn.state.context.get("user_message"))
        if not messages:
            raise ValueError("there is no prompt to pass through")
        reply = await llm(messages, stream=turn.stream, **turn.llm_params)
        turn.thinking, turn.finish_reason = reply.thinking, reply.finish_reason
        text = str(prompts.parse_task_output("general", reply.content))
        # A variable, which flows and actions see: in the form of callers.
        return text, messages if isinstance(messages, str) else [m.to_dict() for m in messages]
    matches: list[tuple[float, str, str]] = []
    if config.user_messages:
        matches = await services.examples.bot_messages.search(event.intent, EXAMPLES_IN_PROMPT)
    variables = {
        "examples": "".join(f'bot {name}\n  "{text}"\n\n' for _, name, text in reversed(matches)),
        "relevant_chunks": turn.state.history.fresh_chunks,
    }
    prompt = prompts.render_task_prompt("generate_bot_message", variables, turn.state.history)
    if turn.stream is not None:
        is_verbose = prompts.parser_name("generate_bot_message") in _VERBOSE_PARSERS
        turn.stream.expect('Bot message: "' if is_verbose else '  "', '"')
    reply = await llm(prompt, stream=turn.stream, **turn.llm_params)
    turn.thinking, turn.finish_reason = reply.thinking, reply.finish_reason
    text = str(prompts.parse_task_output("generate_bot_message", reply.content))
    return strip_quotes(extract_bot_message(text)), prompt


# -- values ------------------------------------------------------------------------------------


async def generate_value(
    turn: TurnContext, instructions: str | None = None, var_name: str | None = None
) -> Any:
    """Returns a variable's value (``$x = ...``) by the LLM: a literal, or the text as it is."""
    services = turn.services
    name = var_name or turn.state.history[-1].get("action_result_key")
    flows = await services.examples.nearest_flows(f"${name} = ", EXAMPLES_IN_PROMPT)
    # Flows that leave the value to the LLM themselves are no examples of values.
    examples = [source for source in flows if not re.search(r"=\s+\.\.\.", source)]
    variables = {
        "examples": "".join(f"{source}\n\n" for source in reversed(examples)),
        "instructions": instructions,
        "var_name": name,
    }
    temperature = services.config.lowest_temperature
    reply = await ask_llm(turn, "generate_value", variables, temperature=temperature)
    return _parse_value(reply.strip().split("\n")[0].removesuffix(";"))


def _parse_value(written_value: str) -> Any:
    if written_value[:1] in ("'", '"') and written_value[-1:] in ("'", '"'):
        try:
            return literal_eval(written_value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass
    # Not a literal: taken as a text, in which escapes such as \n still count.
    try:
        escaped = written_value.replace("'", "\\'").replace('"', '\\"')
        return literal_eval(f"'{escaped}'")
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"the value {written_value!r} cannot be read") from error


# -- single call -------------------------------------------------------------------------------


async def generate_intent_steps_message(turn: TurnContext) -> ActionResult:
    """Determines user intent, next step and message in one LLM call."""
    services, config = turn.services, turn.services.config
    event = turn.state.history.latest(UserMessage)
    if event is None:
        raise ValueError("there is no user message to understand")
    if not config.user_messages:
        text = (await ask_llm(turn, "general", {}, **turn.llm_params)).strip()
        text = text[1:-1] if text.startswith('"') else text
        await push_to_stream(turn, text)
        return ActionResult(events=[BotMessage(text)])
    message = content_text(event.text)
    # More matches than examples: their intents are the candidates that the prompt names.
    matches = await services.examples.user_messages.search(message, 2 * EXAMPLES_IN_PROMPT)
    examples = [
        await _single_call_example(turn, text, intent)
        for _, text, intent in matches[:EXAMPLES_IN_PROMPT]
    ]
    kb = services.kb
    chunks = await kb.search_relevant_chunks(message) if kb is not None else []
    chunks_text = "\n".join(chunk["body"] for chunk in chunks).strip()
    variables = {
        "examples": "\n\n".join(reversed(examples)),
        "potential_user_intents": ", ".join(dict.fromkeys(intent for _, _, intent in matches)),
        "relevant_chunks": await read_chunks(turn, chunks_text) if chunks_text else "",
    }
    params = {**turn.llm_params, "temperature": config.lowest_temperature}
    reply = await ask_llm(turn, "generate_intent_steps_message", variables, **params)
    user_intent, bot_intent, bot_message = _parse_single_call(reply)
    # The next two actions take these from the event instead of asking the LLM again.
    bot_events = {
        "bot_intent_event": BotIntent(bot_intent),
        "bot_message_event": BotMessage(bot_message),
    }
    return ActionResult(events=[UserIntent(user_intent, additional_info=bot_events)])


async def _single_call_example(turn: TurnContext, text: str, intent: str) -> str:
    """Returns an example: the message, its intent, and how the nearest flow goes on."""
    example = f'user "{text}"\n  {intent}\n'
    for source in await turn.services.examples.nearest_flows(intent, 2):
        first_line, _, following = source.partition("\n")
        if not following or first_line != f"user {intent}":
            continue
        example += f"{following}\n"
        last_line = following.rpartition("\n")[2]
        if last_line.startswith("bot "):
            name = last_line.removeprefix("bot ")
            texts = turn.services.config.bot_messages.get(name)
            example += f'  "{texts[0].text}"\n' if texts else f"  # a message for {name} follows\n"
        break
    return example


def _parse_single_call(reply: str) -> tuple[str, str, str]:
    """Returns (user intent, bot intent, bot message) of a reply in Colang or in verbose form."""
    lines = first_code_lines(reply, 2)
    if not lines:
        raise ValueError("the answer of the single call is empty")
    first, second = lines[0], lines[1] if len(lines) > 1 else ""
    if first.startswith("user "):
        user_intent = first.removeprefix("user ")
    else:
        user_intent = first.removeprefix("User intent: ")
    bot_intent = FALLBACK_INTENT
    for prefix in ("bot ", "Bot intent: "):
        if second.startswith(prefix):
            bot_intent = second.removeprefix(prefix)
            break
    message = ""
    if second and second in reply:
        message = strip_quotes(extract_bot_message(reply.partition(second)[2]))
    return user_intent, bot_intent, message if message.strip() else EMPTY_MESSAGE_REPLACEMENT


# -- retrieval ---------------------------------------------------------------------------------


async def retrieve_relevant_chunks(turn: TurnContext) -> ActionResult:
    """Sets $relevant_chunks to the knowledge base's chunks nearest to the user's message."""
    context, kb = turn.state.context, turn.services.kb
    message = context.get("last_user_message")
    if message and kb is not None:
        chunks = await kb.search_relevant_chunks(content_text(message))
        bodies = [chunk["body"] for chunk in chunks]
        updates: dict[str, Any] = {
            "relevant_chunks": "\n".join(bodies),
            "relevant_chunks_sep": bodies,
            "retrieved_for": message,
        }
    else:
        # Chunks may come from the caller's context; NeMo adds the line break.
        updates = {
            "relevant_chunks": context.get("relevant_chunks", "") + "\n",
            "relevant_chunks_sep": context.get("relevant_chunks_sep", []),
            "retrieved_for": None,
        }
    return ActionResult(updates["relevant_chunks"], context_updates=updates)


def _with_llm_calls(action: Callable[..., Any], calls: int) -> Callable[..., Any]:
    """Notes the LLM calls of an action, for the worst-case count of `truing rails check`."""
    vars(action)["llm_calls"] = calls
    return action


# The LLM calls of the other actions depend on the course of the turn: `static.calls` counts them
# there.
ACTIONS = (
    generate_user_intent,
    generate_next_steps,
    generate_bot_message,
    _with_llm_calls(generate_value, 1),
    generate_intent_steps_message,
    retrieve_relevant_chunks,
)
