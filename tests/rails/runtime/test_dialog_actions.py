"""The built-in actions of dialog rails: intent, next step, message, value, retrieval."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dialog_turns import ReplyListModel, make_turn

from truing.rails.actions import ActionResult
from truing.rails.runtime.chat_messages import ChatMessage
from truing.rails.runtime.dialog_actions import (
    ACTIONS,
    EMPTY_MESSAGE_REPLACEMENT,
    _parse_single_call,
    _parse_value,
    generate_bot_message,
    generate_intent_steps_message,
    generate_next_steps,
    generate_user_intent,
    generate_value,
    retrieve_relevant_chunks,
)
from truing.rails.runtime.event_types import (
    BotIntent,
    BotMessage,
    ContextUpdate,
    Event,
    StartFlow,
    UserIntent,
    UserMessage,
)
from truing.rails.runtime.stream_buffer import StreamBuffer
from truing.rails.runtime.turn_context import TurnContext

COLANG = """
define user greet
  "hello there"

define user ask price
  "how much is it"

define bot tell price
  "It costs {{ amount }} euros."

define flow price
  user ask price
  bot tell price
"""
# Prompts that show the variables alone, so that tests can name them exactly.
PROMPTS = """
prompts:
  - {task: generate_user_intent, content: "{{ examples }}|{{ potential_user_intents }}"}
  - {task: generate_next_steps, content: "{{ examples }}"}
  - {task: generate_bot_message, content: "{{ relevant_chunks }}|{{ examples }}"}
  - {task: generate_value, content: "{{ var_name }}|{{ instructions }}|{{ examples }}"}
  - {task: generate_intent_steps_message, content: "{{ examples }}|{{ potential_user_intents }}"}
"""


def turn_after(model: ReplyListModel, yaml: str = "", *events: Event) -> TurnContext:
    """Returns a turn of the configuration above after some events."""
    turn = make_turn(model, PROMPTS + yaml, COLANG)
    for event in events:
        turn.state.add(event)
    return turn


def user_message(text: str) -> Event:
    return UserMessage(text)


def first_event(result: ActionResult) -> Event:
    assert result.events is not None
    event = result.events[0]
    assert isinstance(event, Event)
    return event


# -- user intent


def find_intent(model: ReplyListModel, text: str, yaml: str = "") -> str:
    result = asyncio.run(generate_user_intent(turn_after(model, yaml, user_message(text))))
    event = first_event(result)
    assert isinstance(event, UserIntent)
    return event.intent


def test_the_llm_names_the_intent_and_sees_the_nearest_example_last() -> None:
    model = ReplyListModel("\nuser ask price\nmore text")
    assert find_intent(model, "how much") == "ask price"
    assert model.prompts == [
        'user "hello there"\n  greet\n\nuser "how much is it"\n  ask price\n\n|greet, ask price'
    ]
    assert model.samplings[0].temperature == 0.001


def test_an_empty_reply_is_an_unknown_message() -> None:
    assert find_intent(ReplyListModel(" \n"), "how much") == "unknown message"


@pytest.mark.parametrize(
    ("text", "calls"), [("how much is it", 0), ("hello there how much is it", 1)]
)
def test_a_clear_intent_needs_no_llm_call(text: str, calls: int) -> None:
    model = ReplyListModel("ask price")
    assert find_intent(model, text, "truing: {intent_margin: 0.5}\n") == "ask price"
    assert len(model.prompts) == calls


def test_a_best_intent_below_the_threshold_is_left_to_the_llm() -> None:
    model = ReplyListModel("greet")
    yaml = "truing: {intent_margin: 0.1, intent_threshold: 0.9}\n"
    assert find_intent(model, "how is it going with much else", yaml) == "greet"
    assert len(model.prompts) == 1


EMBEDDINGS_ONLY = """
rails:
  dialog:
    user_messages:
      embeddings_only: true
      embeddings_only_similarity_threshold: 0.9
"""


def test_embeddings_decide_alone_above_the_threshold() -> None:
    model = ReplyListModel("greet")
    assert find_intent(model, "how much is it", EMBEDDINGS_ONLY) == "ask price"
    assert model.prompts == []
    assert find_intent(model, "unrelated words", EMBEDDINGS_ONLY) == "greet"
    assert len(model.prompts) == 1


def test_the_fallback_intent_replaces_the_llm() -> None:
    fallback = "      embeddings_only_fallback_intent: ask again\n"
    assert find_intent(ReplyListModel(), "unrelated", EMBEDDINGS_ONLY + fallback) == "ask again"
    margin = "truing: {intent_margin: 0.5}\n"
    text = "hello there how much is it"
    assert find_intent(ReplyListModel(), text, EMBEDDINGS_ONLY + fallback + margin) == "ask again"
    assert find_intent(ReplyListModel(), text, EMBEDDINGS_ONLY + margin) == "ask price"


def test_without_user_messages_the_message_is_answered() -> None:
    turn = make_turn(ReplyListModel("the answer"))
    turn.state.add(user_message("hi"))
    result = asyncio.run(generate_user_intent(turn))
    assert result.events == [BotMessage("the answer")]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (generate_user_intent, "no user message"),
        (generate_intent_steps_message, "no user message"),
        (generate_next_steps, "no user intent"),
        (generate_bot_message, "no bot intent"),
    ],
)
def test_an_action_without_its_event_is_an_error(action: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        asyncio.run(action(turn_after(ReplyListModel())))


# -- next step


def find_next_step(reply: str, yaml: str = "") -> Event:
    event = UserIntent("ask price")
    return first_event(
        asyncio.run(generate_next_steps(turn_after(ReplyListModel(reply), yaml, event)))
    )


@pytest.mark.parametrize(
    ("reply", "intent"),
    [
        ("bot tell price", "tell price"),
        ('bot tell price "It costs 5."', "tell price"),
        ("bot tell price, then say bye", "tell price"),
        ("I would tell the price", "general response"),
        ("", "general response"),
    ],
)
def test_the_llms_line_becomes_a_bot_intent(reply: str, intent: str) -> None:
    assert find_next_step(reply) == BotIntent(intent)


def test_the_prompt_shows_the_nearest_flow() -> None:
    model = ReplyListModel("bot tell price")
    turn = turn_after(model, "", UserIntent("ask price"))
    asyncio.run(generate_next_steps(turn))
    assert model.prompts == ["user ask price\nbot tell price\n\n"]


def test_several_steps_become_a_flow_of_the_valid_lines() -> None:
    yaml = "enable_multi_step_generation: true\n"
    event = find_next_step('bot tell price\nbot say bye\nif "unclosed', yaml)
    assert event == StartFlow("dynamic-1", flow_body="bot tell price\nbot say bye")
    assert find_next_step("(((", yaml) == BotIntent("general response")


# -- bot message


def find_message(turn: TurnContext, intent: str) -> tuple[str, dict[str, Any]]:
    """Returns the text of a bot intent's message and the changes to the context."""
    turn.state.add(BotIntent(intent))
    result = asyncio.run(generate_bot_message(turn))
    return first_event(result).get("text"), result.context_updates or {}


def test_predefined_quoted_and_variable_messages_need_no_llm() -> None:
    turn = turn_after(ReplyListModel())
    turn.state.context.update(amount=5, offer="2 for 1\\nonly today")
    # A variable may hold what a model wrote: the output rails read the message.
    assert find_message(turn, "tell price") == ("It costs 5 euros.", {})
    assert find_message(turn, '"About $amount"') == ("About 5", {})
    assert find_message(turn, '"About five"') == ("About five", {"skip_output_rails": True})
    # A variable may hold a text of the LLM, so the output rails check it.
    assert find_message(turn, "$offer") == ("2 for 1\nonly today", {})


def test_the_llm_words_a_message_without_a_text() -> None:
    model = ReplyListModel('  "Good bye."')
    turn = turn_after(model)
    turn.state.add(ContextUpdate({"relevant_chunks": "a fact"}))
    text, updates = find_message(turn, "say bye")
    assert text == "Good bye."
    (prompt,) = model.prompts
    assert prompt.startswith("a fact|bot ")
    assert 'bot tell price\n  "It costs {{ amount }} euros."\n\n' in prompt
    assert updates == {"_last_bot_prompt": prompt}


def test_an_empty_message_is_replaced() -> None:
    assert find_message(turn_after(ReplyListModel('""')), "say bye")[0] == EMPTY_MESSAGE_REPLACEMENT


def test_passthrough_asks_with_the_callers_prompt() -> None:
    model = ReplyListModel("the answer")
    turn = turn_after(model, "passthrough: true\n")
    turn.state.context["user_message"] = "the question"
    text, updates = find_message(turn, "say bye")
    assert (text, updates["_last_bot_prompt"]) == ("the answer", "the question")
    assert model.prompts == ["the question"]


def test_flows_see_the_prompt_of_a_passthrough_in_the_form_of_callers() -> None:
    turn = turn_after(ReplyListModel("the answer"), "passthrough: true\n")
    turn.state.context["user_message"] = "the question"
    turn.messages = [ChatMessage(role="user", content="as it was sent")]
    _, updates = find_message(turn, "say bye")
    assert updates["_last_bot_prompt"] == [{"role": "user", "content": "the question"}]


def test_passthrough_without_a_prompt_is_an_error() -> None:
    with pytest.raises(ValueError, match="no prompt to pass through"):
        find_message(turn_after(ReplyListModel(), "passthrough: true\n"), "say bye")


def test_one_of_several_texts_is_drawn_by_the_seed() -> None:
    colang = 'define bot greet\n  "a"\n  "b"\n  "c"\n  "d"\n'

    def draw(seed: str) -> str:
        return find_message(
            make_turn(ReplyListModel(), "models: []\n", colang, seed=seed), "greet"
        )[0]

    drawn = [draw(str(seed)) for seed in range(40)]
    assert set(drawn) == {"a", "b", "c", "d"}
    assert drawn == [draw(str(seed)) for seed in range(40)]


def test_a_message_of_the_llm_is_streamed_without_its_quotes() -> None:
    async def stream() -> list[str]:
        turn = turn_after(ReplyListModel('  "Good bye."'))
        turn.stream = StreamBuffer()
        turn.state.add(BotIntent("say bye"))
        await generate_bot_message(turn)
        return [chunk async for chunk in turn.stream]

    assert "".join(asyncio.run(stream())) == "Good bye."


# -- values


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ('"Ada"', "Ada"),
        ("'Ada'", "Ada"),
        ("5", "5"),
        ("it's fine", "it's fine"),
        ('say "hi"', 'say "hi"'),
        ("a\\tb", "a\tb"),
        ('"half', '"half'),
        ("", ""),
    ],
)
def test_values_are_literals_or_texts(reply: str, value: str) -> None:
    assert _parse_value(reply) == value


def test_a_value_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        _parse_value("ends with a backslash\\")


def test_a_value_is_the_first_line_of_the_llms_reply() -> None:
    model = ReplyListModel('"Ada";\nand more')
    assert asyncio.run(generate_value(turn_after(model), "the user's name", "name")) == "Ada"
    assert model.prompts[0].startswith("name|the user's name|")


# -- single call

SINGLE_CALL = "rails: {dialog: {single_call: {enabled: true}}}\n"


@pytest.mark.parametrize(
    ("reply", "parsed"),
    [
        ('user ask price\nbot tell price\n  "5 euros"', ("ask price", "tell price", "5 euros")),
        (
            'User intent: ask price\nBot intent: tell price\n"5 euros"',
            ("ask price", "tell price", "5 euros"),
        ),
        (
            "user ask price\nsomething else",
            ("ask price", "general response", EMPTY_MESSAGE_REPLACEMENT),
        ),
        ("# a comment\n\nuser greet\nbot wave", ("greet", "wave", EMPTY_MESSAGE_REPLACEMENT)),
        ("user ask price", ("ask price", "general response", EMPTY_MESSAGE_REPLACEMENT)),
        ("ask price\nbot tell price", ("ask price", "tell price", EMPTY_MESSAGE_REPLACEMENT)),
    ],
)
def test_replies_of_the_single_call(reply: str, parsed: tuple[str, str, str]) -> None:
    assert _parse_single_call(reply) == parsed


def test_an_empty_single_call_is_an_error() -> None:
    with pytest.raises(ValueError, match="is empty"):
        _parse_single_call("\n# only a comment\n")


def test_the_next_two_actions_take_their_parts_of_the_single_call() -> None:
    model = ReplyListModel('user ask price\nbot state the price\n  "5 euros"')
    turn = turn_after(model, SINGLE_CALL, user_message("how much is it"))
    intent = first_event(asyncio.run(generate_user_intent(turn)))
    assert intent.get("intent") == "ask price"
    turn.state.add(intent)
    step = first_event(asyncio.run(generate_next_steps(turn)))
    assert step == BotIntent("state the price")
    assert find_message(turn, "state the price")[0] == "5 euros"
    # The example goes on as its flow does, with the predefined text of the bot message.
    assert model.prompts == [
        'user "hello there"\n  greet\n\n\nuser "how much is it"\n  ask price\nbot tell price\n'
        '  "It costs {{ amount }} euros."\n|ask price, greet'
    ]


def test_another_intent_than_that_of_the_single_call_asks_again() -> None:
    model = ReplyListModel('user ask price\nbot state the price\n  "5 euros"', '"Good bye."')
    turn = turn_after(model, SINGLE_CALL, user_message("how much is it"))
    turn.state.add(first_event(asyncio.run(generate_user_intent(turn))))
    assert find_message(turn, "say bye")[0] == "Good bye."
    assert len(model.prompts) == 2


# -- retrieval


class FixedKnowledgeBase:
    async def search_relevant_chunks(self, text: str) -> list[dict[str, str]]:
        return [{"body": f"about {text}"}, {"body": "more"}]


def test_chunks_of_the_knowledge_base() -> None:
    turn = turn_after(ReplyListModel(), "", user_message("kettles"))
    turn.services.kb = FixedKnowledgeBase()  # type: ignore[assignment]
    result = asyncio.run(retrieve_relevant_chunks(turn))
    assert result.return_value == "about kettles\nmore"
    assert result.context_updates == {
        "relevant_chunks": "about kettles\nmore",
        "relevant_chunks_sep": ["about kettles", "more"],
        "retrieved_for": "kettles",
    }


def test_without_a_knowledge_base_the_callers_chunks_stay() -> None:
    turn = turn_after(ReplyListModel(), "", user_message("kettles"))
    turn.state.context["relevant_chunks"] = "from the caller"
    result = asyncio.run(retrieve_relevant_chunks(turn))
    assert result.context_updates == {
        "relevant_chunks": "from the caller\n",
        "relevant_chunks_sep": [],
        "retrieved_for": None,
    }


def test_the_actions_have_nemos_names() -> None:
    assert [action.__name__ for action in ACTIONS] == [
        "generate_user_intent",
        "generate_next_steps",
        "generate_bot_message",
        "generate_value",
        "generate_intent_steps_message",
        "retrieve_relevant_chunks",
    ]
    assert vars(generate_value)["llm_calls"] == 1
