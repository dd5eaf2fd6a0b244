"""What every hook rests on: a check of what is new in a conversation, as the rails leave it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.integrations.hook_rails_folder import REFUSED_INPUT, REFUSED_OUTPUT, write_rails

from truing.core.types import Conversation, Message, Ruling, Sampling, Tool, ToolCall
from truing.integrations.hook_rails import HookCheck, HookRails, MissingModel
from truing.integrations.nemo.rails_config import RailsConfig
from truing.models.scripted import ScriptedModel


@pytest.fixture
def hook(tmp_path: Path) -> HookRails:
    return HookRails(write_rails(tmp_path / "rails"))


def check_rows(hook: HookRails, *rows: Any, **arguments: Any) -> HookCheck:
    messages = tuple(row if isinstance(row, Message) else Message(*row) for row in rows)
    return asyncio.run(hook.check(Conversation(messages), **arguments))


def check_answer(hook: HookRails, *rows: Any, **arguments: Any) -> HookCheck:
    """Checks rows whose last one comes from a model."""
    return check_rows(hook, *rows, ends_in_answer=True, **arguments)


def test_texts_come_back_as_the_rails_leave_them(hook: HookRails) -> None:
    result = check_rows(hook, ("user", "Write to ana@example.org."))
    assert result.allowed
    assert [m.content for m in result.messages] == ["Write to <EMAIL_ADDRESS>."]
    assert [rail["ruling"] for rail in result.record["rails"]] == ["allow", "rewrite"]


def test_an_objection_has_the_reply_of_its_rail_and_no_messages(hook: HookRails) -> None:
    result = check_rows(hook, ("user", "FORBIDDEN"))
    assert (result.allowed, result.reply, result.messages) == (False, REFUSED_INPUT, ())


def test_the_newest_answer_is_an_answer_and_earlier_ones_are_what_a_client_says(
    hook: HookRails,
) -> None:
    refused = check_answer(hook, ("user", "hello"), ("assistant", "FORBIDDEN"))
    assert (refused.allowed, refused.reply) == (False, REFUSED_OUTPUT)
    forged = check_rows(hook, ("assistant", "FORBIDDEN"), ("user", "hello"))
    assert (forged.allowed, forged.reply) == (False, REFUSED_INPUT)


def test_what_has_passed_is_not_read_again_in_its_session(hook: HookRails) -> None:
    first = check_rows(hook, ("user", "hello"), session="a")
    assert first.rulings
    again = check_rows(hook, ("user", "hello"), session="a")
    assert again.allowed and not again.rulings
    assert check_rows(hook, ("user", "hello"), session="b").rulings
    blocked = [check_rows(hook, ("user", "FORBIDDEN"), session="a") for _ in range(2)]
    assert [result.allowed for result in blocked] == [False, False]


def test_an_own_answer_goes_on_as_history_though_the_input_rails_would_object(
    tmp_path: Path,
) -> None:
    folder = write_rails(tmp_path / "rails")
    (folder / "rails.co").write_text(
        'define subflow no forbidden input\n  if "quote" in $user_message\n    stop\n\n'
        "define subflow no forbidden output\n  pass\n\n"
        "define subflow no forbidden result\n  pass\n"
    )
    hook = HookRails(folder)
    turn = (("user", "hello"), ("assistant", "a quote of it"))
    assert check_answer(hook, *turn, session="a").allowed
    assert check_rows(hook, *turn, ("user", "go on"), session="a").allowed
    for session in ("b", ""):
        assert not check_rows(hook, *turn, ("user", "go on"), session=session).allowed


def test_a_client_cannot_sign_an_answer_of_its_own(tmp_path: Path) -> None:
    rows = (("user", "hello"), ("assistant", "Sure. FORBIDDEN"))
    hook = HookRails(write_rails(tmp_path / "rails"))
    prefill = check_rows(hook, *rows, session="a")
    assert (prefill.allowed, prefill.reply) == (False, REFUSED_INPUT)
    without_output_rails = HookRails(
        RailsConfig.from_content(
            colang_content='define subflow no quote\n  if "quote" in $user_message\n    stop\n',
            yaml_content="rails: {input: {flows: [no quote]}}",
        )
    )
    signed = (("user", "hello"), ("assistant", "a quote"))
    assert not check_rows(without_output_rails, *signed, session="a").allowed
    assert not check_rows(without_output_rails, *signed, ("user", "go"), session="a").allowed
    call = Message("assistant", "", (ToolCall("1", "search", '{"query": "quote"}'),))
    assert not check_rows(without_output_rails, ("user", "hello"), call).allowed


def test_a_refused_message_is_withheld_where_its_refusal_follows(hook: HookRails) -> None:
    rows = (("user", "FORBIDDEN"), ("assistant", REFUSED_INPUT), ("user", "hello"))
    result = check_rows(hook, *rows)
    assert result.allowed and "FORBIDDEN" not in result.messages[0].content


def test_calls_and_results_keep_the_ids_of_the_framework(hook: HookRails) -> None:
    call = ToolCall("call_abc", "search", '{"query": "plums"}')
    rows = (
        Message("user", "find plums"),
        Message("assistant", "", (call,)),
        Message("tool", "ripe at ana@example.org", tool_call_id="call_abc"),
    )
    result = check_rows(hook, *rows, tools=(Tool("search"),))
    assert result.allowed
    assert result.messages[1].tool_calls == (call,)
    assert result.messages[2].tool_call_id == "call_abc"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("drop_table", "{}"), ("search", '{"query": "%s"}' % ("x" * 50)), ("search", "no JSON")],
)
def test_a_call_that_no_rail_lets_pass_is_blocked(
    hook: HookRails, name: str, arguments: str
) -> None:
    call = Message("assistant", "", (ToolCall("1", name, arguments),))
    assert not check_answer(
        hook, ("user", "go"), call, tools=(Tool("search"), Tool("drop_table"))
    ).allowed


def test_without_rails_on_tools_the_output_rails_read_and_rewrite_arguments() -> None:
    config = RailsConfig.from_content(
        yaml_content="rails:\n  config:\n    sensitive_data_detection:\n"
        "      output: {entities: [EMAIL_ADDRESS]}\n"
        "  output: {flows: [mask sensitive data on output]}\n"
    )
    call = ToolCall("c", "send", '{"to": "ana@example.org"}')
    result = check_answer(HookRails(config), ("user", "go"), Message("assistant", "", (call,)))
    assert result.messages[1].tool_calls[0].arguments == '{"to": "<EMAIL_ADDRESS>"}'


def test_a_rail_that_asks_the_main_model_blocks_where_there_is_none() -> None:
    config = RailsConfig.from_content(
        yaml_content="rails: {input: {flows: [self check input]}}\nprompts:\n"
        '  - {task: self_check_input, content: "Is it bad? {{ user_input }}"}\n'
    )
    result = check_rows(HookRails(config), ("user", "hello"))
    assert not result.allowed and result.reply
    asked = HookRails(config, model=ScriptedModel(lambda conversation, sampling: "No"))
    assert check_rows(asked, ("user", "hello")).allowed
    answer = asyncio.run(MissingModel().generate(Conversation(), Sampling()))[0]
    assert answer.failure is not None


def test_messages_without_a_text_for_any_rail_pass(hook: HookRails) -> None:
    assert asyncio.run(hook.check(Conversation())) == HookCheck(allowed=True)


def test_decisions_are_passed_on_and_a_failing_callback_changes_nothing(tmp_path: Path) -> None:
    folder = write_rails(tmp_path / "rails")
    seen: list[Ruling] = []
    check_rows(HookRails(folder, on_rulings=seen.extend), ("user", "hello"))
    assert {ruling.name for ruling in seen} == {
        "no forbidden input",
        "mask sensitive data on input",
    }

    def fail(rulings: tuple[Ruling, ...]) -> None:
        raise OSError("the disk is full")

    assert check_rows(HookRails(folder, on_rulings=fail), ("user", "hello")).allowed


def test_what_no_rail_can_read_is_blocked_with_a_reason(hook: HookRails) -> None:
    result = hook.block("input", "an image is read by no rail")
    assert not result.allowed and result.record["rails"][0]["reason"].startswith("an image")
