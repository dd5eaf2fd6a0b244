"""Conversation state: rendering as Colang, context, forks, dynamic flows, conversation keys."""

from __future__ import annotations

from truing.rails.colang.compiler import Program, compile_flow
from truing.rails.colang.parser import parse_colang
from truing.rails.runtime.chat_messages import ChatMessage, decode_messages
from truing.rails.runtime.conversation_state import (
    MASKED_MESSAGE,
    ConversationState,
    EventHistory,
    conversation_keys,
    extend_conversation_key,
    is_valid_flow_body,
)
from truing.rails.runtime.event_types import (
    BotIntent,
    ContextUpdate,
    Event,
    MaskPreviousUserMessage,
    StartFlow,
    StartUtterance,
    UserIntent,
    UserMessage,
)

EVENTS: list[Event] = [
    UserMessage("Hi!"),
    UserIntent("greet"),
    BotIntent("say hello"),
    StartUtterance("Hello."),
]


def make_state(colang: str = "define flow\n  user greet\n  bot say hello\n") -> ConversationState:
    flows = parse_colang("main.co", colang).flows
    return ConversationState(Program([compile_flow(flow) for flow in flows]), None)


def test_a_history_renders_as_colang_and_as_chat() -> None:
    history = EventHistory(EVENTS)
    assert history.colang() == 'user "Hi!"\n  greet\nbot say hello\n  "Hello."\n'
    assert history.colang(skip=2) == 'bot say hello\n  "Hello."\n'
    assert history.chat == [("user", "Hi!"), ("assistant", "Hello.")]
    assert history.latest(UserIntent) == EVENTS[1]
    assert history.latest(StartFlow) is None


def test_instructions_stand_above_the_last_bot_intent() -> None:
    history = EventHistory(EVENTS[:2])
    history.add(BotIntent("say hello", instructions="be warm"))
    assert history.colang() == 'user "Hi!"\n  greet\n# be warm\nbot say hello\n'


def test_a_blocked_message_is_masked() -> None:
    history = EventHistory([*EVENTS, MaskPreviousUserMessage()])
    assert history.colang().startswith(f'user "{MASKED_MESSAGE}"\n')
    assert history[0] == EVENTS[0]


def test_chunks_are_fresh_until_the_next_user_message() -> None:
    history = EventHistory([ContextUpdate({"relevant_chunks": " a \n"})])
    assert (history.chunks, history.fresh_chunks) == ("a", "a")
    history.add(EVENTS[0])
    assert (history.chunks, history.fresh_chunks) == ("a", None)


def test_a_fork_of_a_history_is_independent() -> None:
    history = EventHistory(EVENTS)
    fork = history.fork()
    fork.add(UserMessage("more"))
    assert len(history) == len(EVENTS)
    assert "more" in fork.colang()
    assert "more" not in history.colang()


def test_the_state_follows_context_and_flows() -> None:
    state = make_state()
    state.add(ContextUpdate({"name": "Ada"}))
    for event in EVENTS[:2]:
        state.add(event)
    assert state.next_steps() == [BotIntent("say hello")]
    assert state.context["name"] == "Ada"
    assert state.context["last_user_message"] == "Hi!"
    assert state.processed == len(state.history) == 3


def test_a_flow_of_the_llm_starts_by_its_name_and_stays_in_its_conversation() -> None:
    state = make_state()
    other = state.fork()
    state.add_dynamic_flow("dynamic-1", "bot ask name\nuser give name")
    state.add(StartFlow("dynamic-1"))
    assert state.next_steps() == [BotIntent("ask name")]
    assert "dynamic-1" in state.program.flows
    assert "dynamic-1" not in other.program.flows


def test_flow_bodies_are_valid_if_they_parse() -> None:
    assert is_valid_flow_body("bot say hello\nuser greet")
    assert not is_valid_flow_body("if $x\nbot say hello")


def test_keys_depend_on_every_message_and_on_the_session() -> None:
    rows = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    messages = decode_messages(rows)
    keys = conversation_keys(messages)
    assert len(set(keys)) == 2
    assert extend_conversation_key(keys[0], messages[1]) == keys[1]
    assert keys == conversation_keys(decode_messages(rows))
    assert set(keys).isdisjoint(conversation_keys(messages, "alice"))
    assert conversation_keys(messages, "alice") != conversation_keys(messages, "bob")


def test_keys_do_not_fail_on_values_that_json_lacks() -> None:
    message = ChatMessage(role="context", variables={"x": object, "y": "\ud800"})
    key = extend_conversation_key(b"", message)
    assert len(key) == 16
