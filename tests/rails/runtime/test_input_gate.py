"""The input stage over every text of a client, in whole turns."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from truing.align.prompted import prompted
from truing.core.types import Answer, Conversation, Lineage, Message, Sampling, Tool, ToolCall
from truing.rails.config.loader import RailsConfig
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.client_texts import WITHHELD_TEXT
from truing.rails.runtime.generation_log import TurnRecord

REFUSAL = "I'm sorry, I can't respond to that."
COLANG = """
define subflow keyword
  $count = execute count_reading(text=$user_message)
  if "FORBIDDEN" in $user_message
    bot refuse to respond
    stop

define subflow mask
  $user_message = $user_message.replace("SECRET", "[hidden]")
"""
INPUT = "passthrough: true\nrails: {input: {flows: [keyword]}}\n"


class RecordingModel:
    """Answers every call with a text, and keeps the conversations that it saw."""

    name = "recording"
    lineage = Lineage(name="recording")

    def __init__(self, reply: str = "fine") -> None:
        self.reply = reply
        self.seen: list[Conversation] = []

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        self.seen.append(conversation)
        return (Answer.of(self.reply),)

    @property
    def seen_text(self) -> str:
        return str(self.seen)


class Guard:
    """A guarded model with the texts that the input rail has read."""

    def __init__(self, yaml: str = INPUT, reply: str = "fine") -> None:
        self.inner = RecordingModel(reply)
        self.read: list[str] = []
        self.model = GuardedModel(RailsConfig.from_text(yaml, COLANG), self.inner)
        self.model.runtime.register_action(self._count_reading, "count_reading")

    async def _count_reading(self, text: str) -> int:
        self.read.append(text)
        return len(self.read)

    def ask(self, *messages: Message, **arguments: Any) -> Answer:
        sampling = arguments.pop("sampling", Sampling())
        conversation = Conversation(messages)
        return asyncio.run(self.model.answer(conversation, sampling, **arguments))


def message(role: Any, text: str = "", **fields: Any) -> Message:
    return Message(role, text, **fields)


CALL = (ToolCall("c1", "look_up", '{"q": "FORBIDDEN"}'),)
TWO_KEYS = (ToolCall("c1", "look_up", '{"q": "FORBIDDEN", "q": "\\u0041"}'),)
CUT_OFF = (ToolCall("c1", "look_up", '{"q": "F\\u004fRBIDDEN"'),)


@pytest.mark.parametrize("yaml", [INPUT, INPUT.replace("passthrough: true\n", "")])
@pytest.mark.parametrize(
    "messages",
    [
        (message("user", "FORBIDDEN"), message("system", "x")),
        (message("user", "FORBIDDEN"), message("assistant", "x")),
        (message("user", "FORBIDDEN"), message("tool", "x")),
        (message("user", "FORBIDDEN"), message("user", "hi")),
        (message("system", "FORBIDDEN"), message("user", "hi")),
        (message("user", "hi"), message("assistant", "FORBIDDEN")),
        (message("user", "hi"), message("assistant", "FORBIDDEN"), message("user", "go on")),
        (message("user", "hi"), message("assistant", tool_calls=CALL), message("tool", "x")),
        (message("user", "hi"), message("tool", "FORBIDDEN", tool_call_id="c1")),
        (message("user", "FORBID"), message("user", "DEN")),
        (message("assistant", "FORBIDDEN"),),
        (message("system", "FORBIDDEN"),),
        (message("assistant", tool_calls=TWO_KEYS), message("user", "hi")),
        (message("assistant", tool_calls=CUT_OFF), message("user", "hi")),
    ],
)
def test_no_text_of_a_client_reaches_the_model_unread(
    yaml: str, messages: tuple[Message, ...]
) -> None:
    guard = Guard(yaml)
    answer = guard.ask(*messages)
    assert (answer.finish_reason, answer.text) == ("blocked", REFUSAL)
    assert answer.rulings[-1].ruling == "block"
    assert answer.rulings[-1].reason
    assert guard.inner.seen == []


def test_the_definition_of_a_tool_is_read_too() -> None:
    guard = Guard()
    tools = (Tool("look_up", "FORBIDDEN"),)
    answer = guard.ask(message("user", "hi"), sampling=Sampling(tools=tools))
    assert answer.finish_reason == "blocked"
    assert guard.inner.seen == []


def test_a_long_conversation_is_not_read_again_and_a_forged_one_is() -> None:
    guard = Guard()
    history: tuple[Message, ...] = ()
    for number in range(5):
        history += (message("user", f"question {number}"),)
        answer = guard.ask(*history)
        history += (answer.message,)
    assert [text for text in guard.read if "\n" not in text] == [
        f"question {number}" for number in range(5)
    ]
    # Joined to the questions before it, each of them is read once more.
    assert len(guard.read) == 9
    guard.read.clear()
    forged = (*history[:-1], message("assistant", "an answer that the model never gave"))
    guard.ask(*forged, message("user", "and?"))
    assert "an answer that the model never gave" in guard.read
    assert not any(f"question {number}" in guard.read for number in range(5))


def test_what_one_session_has_read_does_not_count_in_another() -> None:
    guard = Guard()
    for session in ("one", "two", "one"):
        guard.ask(message("system", "rules"), message("user", "hi"), session=session)
    assert guard.read.count("rules") == 2


def test_an_answer_does_not_count_as_a_message_of_the_user() -> None:
    guard = Guard(reply="FORBIDDEN")
    answer = guard.ask(message("user", "hi"))
    assert answer.text == "FORBIDDEN"  # no output rails here
    again = guard.ask(message("user", "FORBIDDEN"), message("user", "go on"))
    assert again.finish_reason == "blocked"


def test_a_rewritten_earlier_text_is_what_the_model_sees() -> None:
    guard = Guard(INPUT.replace("[keyword]", "[mask]"))
    call = (ToolCall("c1", "look_up", '{"q": "SECRET"}'),)
    answer = guard.ask(
        message("system", "SECRET 1"),
        message("user", "SECRET 2"),
        message("assistant", tool_calls=call),
        message("tool", "SECRET 3", tool_call_id="c1"),
        message("user", "SECRET 4"),
    )
    assert answer.text == "fine"
    assert "SECRET" not in guard.inner.seen_text
    assert guard.inner.seen_text.count("[hidden]") == 5


@pytest.mark.parametrize(
    "row",
    [
        {"role": "user", "content": "hello", "name": "a SECRET"},
        {"role": "context", "content": {"note": {"inner": "a SECRET"}}},
    ],
)
def test_a_text_that_cannot_be_rewritten_is_blocked_where_its_equal_was(
    row: dict[str, Any],
) -> None:
    """What is remembered of a text that was rewritten is no answer for a name or a nested value."""
    guard = Guard(INPUT.replace("[keyword]", "[mask]"))
    equal: dict[str, Any] = {"role": row["role"], "content": "a SECRET"}
    if row["role"] == "context":
        equal["content"] = {"note": "a SECRET"}
    rows = [equal, {"role": "user", "content": "hello"}]
    assert asyncio.run(guard.model.answer_messages(rows)).finish_reason != "blocked"
    rows = [equal, row, {"role": "user", "content": "hello again"}]
    assert asyncio.run(guard.model.answer_messages(rows)).finish_reason == "blocked"
    assert "SECRET" not in guard.inner.seen_text


def test_a_refused_message_is_withheld_when_the_conversation_goes_on() -> None:
    guard = Guard()
    first = guard.ask(message("user", "FORBIDDEN"))
    assert first.text == REFUSAL
    history = (message("user", "FORBIDDEN"), first.message, message("user", "and the weather?"))
    assert guard.ask(*history).text == "fine"
    # A server that has not seen the first turn decides the same.
    other = Guard()
    assert other.ask(*history).text == "fine"
    for seen in (guard.inner.seen_text, other.inner.seen_text):
        assert "FORBIDDEN" not in seen
        assert WITHHELD_TEXT in seen


@pytest.mark.parametrize("role", ["system", "assistant", "tool"])
def test_the_operator_can_trust_a_role(role: str) -> None:
    guard = Guard(INPUT + f"truing: {{trusted_roles: [{role}]}}\n")
    answer = guard.ask(message(role, "FORBIDDEN"), message("user", "hi"))
    assert answer.text == "fine"
    assert guard.ask(message("user", "FORBIDDEN"), message(role, "x")).finish_reason == "blocked"


def test_tool_results_go_through_their_own_stage_where_there_is_one() -> None:
    colang = 'define subflow tool rail\n  if "BAD RESULT" in $tool_message\n    bot refuse to respond\n    stop\n'
    yaml = (
        "passthrough: true\nrails: {input: {flows: [keyword]}, tool_input: {flows: [tool rail]}}\n"
    )
    guard = Guard()
    guard.model = GuardedModel(RailsConfig.from_text(yaml, COLANG + colang), guard.inner)
    guard.model.runtime.register_action(guard._count_reading, "count_reading")
    calls = message("assistant", tool_calls=(ToolCall("c1", "look_up"),))
    asked = (message("user", "hi"), calls)
    bad = guard.ask(*asked, message("tool", "BAD RESULT", tool_call_id="c1"))
    assert (bad.finish_reason, bad.rulings[-1].stage) == ("blocked", "tool_input")
    # In the middle of a conversation too.
    bad = guard.ask(
        *asked, message("tool", "BAD RESULT", tool_call_id="c1"), message("user", "so?")
    )
    assert bad.finish_reason == "blocked"
    assert guard.ask(*asked, message("tool", "FORBIDDEN", tool_call_id="c1")).text == "fine"


def test_a_rail_that_fails_on_an_earlier_text_blocks() -> None:
    guard = Guard()

    async def fail(text: str) -> int:
        raise RuntimeError("no")

    guard.model.runtime.register_action(fail, "count_reading")
    answer = guard.ask(message("user", "one"), message("user", "two"))
    assert answer.finish_reason == "blocked"
    assert guard.inner.seen == []


@pytest.mark.parametrize("last", [(), (message("user", "hi"),)])
def test_a_refusal_passes_the_output_rails_whichever_text_is_refused(
    last: tuple[Message, ...],
) -> None:
    colang = (
        'define bot refuse to respond\n  "I will not say: $user_message"\n'
        'define subflow shown\n  if "FORBIDDEN" in $bot_message\n    bot inform withheld\n    stop\n'
        'define bot inform withheld\n  "withheld"\n'
    )
    yaml = INPUT.replace("[keyword]}", "[keyword]}, output: {flows: [shown]}")
    inner = RecordingModel()
    model = GuardedModel(RailsConfig.from_text(yaml, COLANG + colang), inner)
    model.runtime.register_action(lambda text: 1, "count_reading")
    messages = (message("user", "FORBIDDEN"), *last)
    answer = asyncio.run(model.answer(Conversation(messages), Sampling()))
    assert answer.finish_reason == "blocked"
    assert "FORBIDDEN" not in answer.text
    assert inner.seen == []


def test_flows_that_leave_out_the_input_rails_get_no_answer() -> None:
    colang = (
        "define parallel flow process user input\n"
        '  event UtteranceUserActionFinished(final_transcript="...")\n'
        '  $user_message = $event["final_transcript"]\n'
        "  create event UserMessage(text=$user_message)\n"
    )
    inner = RecordingModel()
    model = GuardedModel(RailsConfig.from_text(INPUT, COLANG + colang), inner)
    answer = asyncio.run(model.answer(Conversation.of("hi"), Sampling()))
    assert answer.finish_reason == "blocked"
    assert "keyword did not run" in answer.rulings[-1].reason
    assert inner.seen == []


def test_a_turn_without_rails_reads_nothing_and_remembers_nothing_of_the_user() -> None:
    guard = Guard("passthrough: true\n")
    assert guard.ask(message("user", "FORBIDDEN"), message("user", "hi")).text == "fine"
    assert guard.read == []


# -- tool call ids, an operator's prefix, several answers ----------------------------------------


def test_a_model_sees_own_ids_and_the_client_keeps_those_of_its_conversation() -> None:
    guard = Guard("passthrough: true\n")
    call = ToolCall("FORBIDDEN", "look_up")
    guard.ask(
        message("user", "hi"),
        message("assistant", tool_calls=(call,)),
        message("tool", "rain", tool_call_id="FORBIDDEN"),
        message("tool", "sun", tool_call_id="never called FORBIDDEN"),
    )
    assert "FORBIDDEN" not in guard.inner.seen_text
    sent = guard.inner.seen[0].messages
    assert sent[-3].tool_calls[0].id == sent[-2].tool_call_id != sent[-1].tool_call_id


def test_a_conversation_with_calls_goes_on_from_its_cached_state() -> None:
    guard = Guard("passthrough: true\n")
    issued = Answer(message=message("assistant", tool_calls=(ToolCall("toolu_7", "look_up"),)))

    async def generate(conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        return (issued,)

    guard.inner.generate = generate  # type: ignore[method-assign]
    answer = guard.ask(message("user", "hi"))
    assert answer.message.tool_calls == issued.message.tool_calls
    states = guard.model.runtime._states
    before = set(states)
    continued: list[bytes] = []
    fork = states.fork
    states.fork = lambda key: continued.append(key) or fork(key)  # type: ignore[func-returns-value,method-assign]
    guard.ask(message("user", "hi"), answer.message, message("tool", "x", tool_call_id="toolu_7"))
    assert before & set(continued)


PREFIX = (message("user", "what is FORBIDDEN?"), message("assistant", "I do not say."))


def test_the_prefix_of_a_wrapper_is_the_operators_and_not_read() -> None:
    guard = Guard()
    model = prompted(guard.model, PREFIX, system="Be kind.")

    async def ask(*messages: Message) -> Answer:
        (answer,) = await model.generate(Conversation(messages), Sampling())
        return answer

    assert asyncio.run(ask(message("user", "hi"))).text == "fine"
    assert guard.read == ["hi"]
    assert guard.inner.seen[-1].messages[1] == PREFIX[0]
    # The same words of a client, after the prefix, are a client's.
    assert asyncio.run(ask(*PREFIX, message("user", "hi"))).finish_reason == "blocked"
    # One system message, in which a client's text may stand, is read.
    assert asyncio.run(ask(message("system", "FORBIDDEN"), message("user", "hi"))).text == REFUSAL


def test_several_answers_read_the_conversation_once() -> None:
    guard = Guard()
    conversation = Conversation((message("system", "rules."), message("user", "hi")))
    answers = asyncio.run(guard.model.generate(conversation, Sampling(n=4, temperature=1.0)))
    assert [answer.text for answer in answers] == ["fine"] * 4
    assert guard.read.count("rules.") == guard.read.count("rules.\nhi") == 1
    assert guard.read.count("hi") == 4  # each answer is a turn: its flows read the newest message


def test_a_reading_that_breaks_off_is_not_shared() -> None:
    guard = Guard()
    entered, released = asyncio.Event(), asyncio.Event()

    async def read(text: str) -> int:
        guard.read.append(text)
        if len(guard.read) == 1:
            entered.set()
            await released.wait()
        return 0

    guard.model.runtime.register_action(read, "count_reading")
    conversation = Conversation((message("system", "rules."), message("user", "hi")))

    async def ask_twice() -> Answer:
        first = asyncio.create_task(guard.model.answer(conversation, Sampling()))
        await entered.wait()
        second = asyncio.create_task(guard.model.answer(conversation, Sampling()))
        await asyncio.sleep(0)
        first.cancel()  # its client has left
        await asyncio.gather(first, return_exceptions=True)
        return await second

    assert asyncio.run(ask_twice()).text == "fine"
    assert guard.read.count("rules.") == 2


# -- texts split over several ----------------------------------------------------------------------


def split_call(*values: str) -> ToolCall:
    pairs = ", ".join(f'"key{number}": "{value}"' for number, value in enumerate(values))
    return ToolCall("c1", "look_up", f"{{{pairs}}}")


@pytest.mark.parametrize(
    ("messages", "tools"),
    [
        ((message("assistant", tool_calls=(split_call("a FORBID", "DEN b"),)),), ()),
        ((message("assistant", "a FORBID", tool_calls=(split_call("DEN b"),)),), ()),
        ((message("assistant", tool_calls=(split_call("FORBID"), split_call("DEN"))),), ()),
        ((message("assistant", tool_calls=(split_call("FORBID"),)), message("tool", "DEN")), ()),
        (
            (message("assistant", tool_calls=(ToolCall("c1", "f", '{"FORBID": 1, "DEN": 2}'),)),),
            (),
        ),
        ((message("user", "FORBID"), message("assistant", "x"), message("user", "DEN")), ()),
        ((message("system", "FORBID"), message("user", "x"), message("system", "DEN")), ()),
        ((message("tool", "FORBID"), message("user", "x"), message("tool", "DEN")), ()),
        ((), (Tool("f", "a FORBID"), Tool("g", "DEN b"))),
        (
            (),
            (
                Tool("f", "a FORBID", '{"properties": {"q": {"description": "b"}}}'),
                Tool("g", "DEN"),
            ),
        ),
        ((message("user", "DEN b"),), (Tool("f", "a FORBID"),)),
        ((message("assistant", tool_calls=(ToolCall("c1", "f", '{"FORBID": "DEN"}'),)),), ()),
        ((message("assistant", tool_calls=(ToolCall("c1", "FORBID", '{"q": "DEN"}'),)),), ()),
        ((message("assistant", tool_calls=(ToolCall("c", "FORBID"), ToolCall("d", "DEN"))),), ()),
        ((), (Tool("a_FORBID", "DEN b"),)),
        ((), (Tool("FORBID"), Tool("DEN"))),
        ((), (Tool("f", "", '{"properties": {"FORBID": {"type": "string"}, "DEN": {}}}'),)),
        ((), (Tool("f", "", '{"properties": {"q": {"type": "FORBID"}, "r": {"type": "DEN"}}}'),)),
        ((), (Tool("f", "", '{"properties": {"FORBID": {"description": "DEN"}}}'),)),
        ((), (Tool("f", "", '{"required": ["FORBID", "DEN"]}'),)),
    ],
)
def test_no_text_that_is_split_reaches_the_model(
    messages: tuple[Message, ...], tools: tuple[Tool, ...]
) -> None:
    conversation = messages if tools and messages else (*messages, message("user", "and?"))
    unsafe = msgspec.json.encode((conversation, tools))
    for written in (unsafe, unsafe.replace(b"FORBID", b"PERMIT").replace(b"DEN", b"TED")):
        sent, offered = msgspec.json.decode(
            written, type=tuple[tuple[Message, ...], tuple[Tool, ...]]
        )
        guard = Guard()
        answer = guard.ask(*sent, sampling=Sampling(tools=offered))
        assert (answer.text == "fine") is (written != unsafe)
        assert bool(guard.inner.seen) is (written != unsafe)


def test_a_text_split_around_a_real_answer_is_read() -> None:
    guard = Guard()
    first = guard.ask(message("user", "a FORBID"))
    assert first.text == "fine"
    answer = guard.ask(message("user", "a FORBID"), first.message, message("user", "DEN b"))
    assert (answer.finish_reason, answer.text) == ("blocked", REFUSAL)
    assert len(guard.inner.seen) == 1
    harmless = guard.ask(message("user", "a FORBID"), first.message, message("user", "then b"))
    assert harmless.text == "fine"


def test_a_text_that_a_real_answer_begins_is_read() -> None:
    guard = Guard(reply="well, FORBID")
    first = guard.ask(message("user", "say the half"))
    assert first.text == "well, FORBID"
    answer = guard.ask(message("user", "say the half"), first.message, message("user", "DEN b"))
    assert (answer.finish_reason, answer.text) == ("blocked", REFUSAL)
    harmless = guard.ask(message("user", "say the half"), first.message, message("user", "then"))
    assert harmless.text == "well, FORBID"


def test_a_text_that_a_real_answer_begins_and_a_forged_one_ends_is_read() -> None:
    guard = Guard(reply="well, FORBID")
    first = guard.ask(message("user", "say the half"))
    head = (message("user", "say the half"), first.message, message("system", "so"))
    assert guard.ask(*head, message("assistant", "DEN b")).finish_reason == "blocked"
    assert guard.ask(*head, message("assistant", "then b")).text == "well, FORBID"


def test_an_answer_that_the_input_rails_object_to_is_no_objection_by_itself() -> None:
    guard = Guard(reply="FORBIDDEN")  # there are no output rails
    history: tuple[Message, ...] = ()
    for number in range(3):
        history += (message("user", f"question {number}"),)
        answer = guard.ask(*history)
        assert answer.text == "FORBIDDEN"
        history += (answer.message,)


def test_the_ends_of_a_refused_answer_are_joined_to_their_neighbours() -> None:
    """The rails object to the answer by itself, so it is not joined whole; its ends are."""
    middle = "a FORBIDDEN word " + "x" * 300
    for reply, after in ((f"{middle} FORBID", "DEN b"), ("FORBIDDEN FORBID", "DEN b")):
        guard = Guard(reply=reply)  # there are no output rails
        head = (message("user", "say it"), guard.ask(message("user", "say it")).message)
        assert guard.ask(*head, message("user", after)).finish_reason == "blocked"
        assert guard.ask(*head, message("user", "then b")).text == reply
    guard = Guard(reply=f"DEN {middle}")
    head = (message("user", "a FORBID"), guard.ask(message("user", "a FORBID")).message)
    assert guard.ask(*head, message("user", "go on")).finish_reason == "blocked"


def test_a_variable_named_content_is_rewritten_and_never_withheld() -> None:
    guard = Guard("rails: {input: {flows: [keyword, mask]}}\npassthrough: true\n")
    for name in ("content", "call:0"):
        rows: list[dict[str, Any]] = [
            {"role": "context", "content": {name: "a SECRET"}},
            {"role": "user", "content": "hi"},
        ]
        record = TurnRecord()
        asyncio.run(guard.model.answer_messages(rows, record=record))
        assert record.result is not None
        assert record.result.context[name] == "a [hidden]"
        rows[0] = {"role": "context", "content": {name: "a FORBIDDEN"}}
        # An assistant's message like the refusal, and an exception, withhold messages only.
        rows.insert(1, {"role": "assistant", "content": REFUSAL})
        assert asyncio.run(guard.model.answer_messages(rows)).finish_reason == "blocked"


def test_a_text_split_over_a_variable_and_a_message_is_read() -> None:
    for context, is_blocked in (({"note": "FORBID"}, True), ({"note": "PERMIT"}, False)):
        guard = Guard()
        answer = guard.ask(message("user", "DEN b"), context=context)
        assert (answer.finish_reason == "blocked") is is_blocked


def test_a_turn_of_a_long_conversation_reads_one_joined_text() -> None:
    guard = Guard(reply="The answer is long enough. " * 12)
    history: tuple[Message, ...] = ()
    for number in range(9):
        guard.read.clear()
        history += (message("user", f"This is a question about number {number}, is it not " * 5),)
        history += (guard.ask(*history).message,)
        assert len(guard.read) == (1 if number == 0 else 2)
    # A rail that limits the length of a text is asked for each joined text by itself.
    limited = GuardedModel(
        RailsConfig.from_text(INPUT, COLANG.replace('"FORBIDDEN" in $user_message', "$count == 0")),
        guard.inner,
    )
    limited.runtime.register_action(lambda text: int(len(text) <= 600), "count_reading")
    assert asyncio.run(limited.answer(Conversation(history[:-1]), Sampling())).text.startswith(
        "The"
    )


def test_the_operator_can_leave_answered_turns_unjoined() -> None:
    guard = Guard(INPUT + "truing: {join_turns: false}\n")
    first = guard.ask(message("user", "a FORBID"))
    answer = guard.ask(message("user", "a FORBID"), first.message, message("user", "DEN b"))
    assert answer.text == "fine"
    assert guard.read == ["a FORBID", "DEN b"]
    # What follows each other without an answer is joined all the same.
    assert guard.ask(message("user", "FORBID"), message("user", "DEN")).finish_reason == "blocked"


def test_the_flows_refuse_a_message_that_is_refused_alone() -> None:
    guard = Guard(INPUT + "enable_rails_exceptions: true\n")
    colang = COLANG.replace(
        "    bot refuse to respond\n", '    create event InputRailException(message="no")\n'
    )
    guard.model = GuardedModel(
        RailsConfig.from_text(INPUT + "enable_rails_exceptions: true\n", colang), guard.inner
    )
    guard.model.runtime.register_action(guard._count_reading, "count_reading")
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": "FORBIDDEN"}]
    result = asyncio.run(guard.model.runtime.run_turn(messages))
    assert result.message["role"] == "exception"
    assert result.message["content"]["message"] == "no"
    assert [ruling.ruling for ruling in result.rulings] == ["allow", "block"]


def test_flows_that_let_a_message_pass_after_an_objection_get_no_answer() -> None:
    guard = Guard()

    async def object_once(text: str) -> int:
        guard.read.append(text)
        return len(guard.read)

    colang = COLANG.replace('if "FORBIDDEN" in $user_message', "if $count == 2 or $count == 3")
    guard.model = GuardedModel(RailsConfig.from_text(INPUT, colang), guard.inner)
    guard.model.runtime.register_action(object_once, "count_reading")
    answer = guard.ask(message("system", "x"), message("user", "hi"))
    assert guard.read == ["x", "x\nhi\n---\nxhi", "hi", "hi"]
    assert answer.finish_reason == "blocked"
    assert guard.inner.seen == []


# -- tool results with rails of their own, and the answer of a check -------------------------------

TOOL_YAML = (
    "passthrough: true\nrails: {input: {flows: [keyword]}, tool_input: {flows: [tool rail]}}\n"
)
TOOL_COLANG = COLANG + (
    'define subflow tool rail\n  if "BAD RESULT" in $tool_message\n    bot refuse to respond\n    stop\n'
    '  $tool_message = "[" + $tool_message + "]"\n'
)


@pytest.mark.parametrize(
    ("texts", "blocked"),
    [
        ((("user", "FORBID"), ("tool", "DEN")), True),
        ((("tool", "FORBID"), ("user", "DEN")), True),
        ((("user", "FOR"), ("tool", "BID"), ("user", "DEN")), True),
        ((("tool", "FORBID"), ("tool", "DEN")), True),
        ((("tool", "BAD"), ("tool", "RESULT")), False),
        ((("tool", "a BAD"), ("tool", "b")), False),
        # The stage of the tool results lets this one pass, which is for the operator to say.
        ((("user", "hi"), ("tool", "FORBIDDEN")), False),
        ((("user", "FORBID"), ("tool", "FORBIDDEN"), ("user", "DEN")), True),
    ],
)
def test_texts_split_beside_tool_results_are_read(
    texts: tuple[tuple[Any, str], ...], blocked: bool
) -> None:
    guard = Guard()
    colang = TOOL_COLANG.replace('  $tool_message = "[" + $tool_message + "]"\n', "")
    guard.model = GuardedModel(RailsConfig.from_text(TOOL_YAML, colang), guard.inner)
    guard.model.runtime.register_action(guard._count_reading, "count_reading")
    answer = guard.ask(*(message(role, text) for role, text in texts))
    assert (answer.finish_reason == "blocked") is blocked


def test_a_tool_rail_that_always_rewrites_refuses_no_neighbours() -> None:
    guard = Guard()
    guard.model = GuardedModel(RailsConfig.from_text(TOOL_YAML, TOOL_COLANG), guard.inner)
    guard.model.runtime.register_action(guard._count_reading, "count_reading")
    answer = guard.ask(message("user", "hi"), message("tool", "one"), message("tool", "two"))
    assert answer.text == "fine"
    assert [m.content for m in guard.inner.seen[0].messages][-2:] == ["[one]", "[two]"]


def test_a_check_joins_the_message_and_the_answer() -> None:
    guard = Guard()
    split = Conversation((message("user", "FORBID"), message("assistant", "DEN")))
    assert asyncio.run(guard.model.check(split)).allowed is False
    whole = Conversation((message("user", "hi"), message("assistant", "there")))
    assert asyncio.run(guard.model.check(whole)).allowed is None  # there are no output rails


def test_the_words_of_a_rail_that_objects_in_a_check_pass_the_output_rails() -> None:
    colang = (
        'define bot refuse to respond\n  "I will not say: $user_message"\n'
        'define subflow shown\n  if "FORBIDDEN" in $bot_message\n    bot inform withheld\n    stop\n'
        'define bot inform withheld\n  "withheld"\n'
    )
    yaml = INPUT.replace("[keyword]}", "[keyword]}, output: {flows: [shown]}")
    model = GuardedModel(RailsConfig.from_text(yaml, COLANG + colang), RecordingModel())
    model.runtime.register_action(lambda text: 1, "count_reading")
    result = asyncio.run(model.check(Conversation.of("FORBIDDEN")))
    assert result.allowed is False
    assert "FORBIDDEN" not in str(result.message)
    assert result.rulings[-1].name == "shown"
    assert asyncio.run(Guard().model.check(Conversation.of("FORBIDDEN"))).message == REFUSAL


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        ((message("system", "FORBIDDEN"), message("user", "hi")), "in the system message"),
        ((message("assistant", "FORBIDDEN"), message("user", "hi")), "in an earlier answer"),
        ((message("user", "FORBID"), message("user", "DEN")), "in several texts, read together"),
    ],
)
def test_a_block_says_where_the_text_stands(messages: tuple[Message, ...], place: str) -> None:
    (block,) = [r for r in Guard().ask(*messages).rulings if r.ruling == "block"]
    assert block.reason.endswith(f"({place})")


def test_a_block_says_that_it_is_about_a_tool_and_the_users_own_text_needs_no_place() -> None:
    tools = (Tool("look_up", "FORBIDDEN"),)
    about_tool = Guard().ask(message("user", "hi"), sampling=Sampling(tools=tools)).rulings[-1]
    assert about_tool.reason.endswith("(in the definition of a tool)")
    assert "(in" not in Guard().ask(message("user", "FORBIDDEN")).rulings[-1].reason
