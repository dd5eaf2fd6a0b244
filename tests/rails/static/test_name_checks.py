"""Names that lead nowhere, each with its line and the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest
from static_helpers import PRICE_FLOW, check_folder, lines_of

ACTIONS = "from truing.rails.actions import action\n@action()\nasync def find_price(thing, llm=None): ...\n"


@pytest.mark.parametrize(
    ("steps", "line", "message"),
    [
        (
            "  user express greting\n  bot say hello\n",
            12,
            "intent 'express greting' is not defined; did you mean 'express greeting'",
        ),
        (
            "  user ask price\n  bot say helo\n",
            13,
            "message 'say helo' is not defined; did you mean 'say hello'",
        ),
        ("  user ask price\n  do greet\n", 13, "no subflow 'greet'"),
        (
            "  user ask price\n  execute find_prise\n",
            13,
            "no action 'find_prise'; did you mean 'find_price'",
        ),
        (
            "  user ask price\n  execute summarize_document\n",
            13,
            "the action 'summarize_document' of NeMo Guardrails is not part of truing",
        ),
        (
            "  user ask price\n  execute find_price(thin=1)\n",
            13,
            "takes no parameter 'thin'; did you mean 'thing'",
        ),
    ],
)
def test_unknown_names_are_errors(tmp_path: Path, steps: str, line: int, message: str) -> None:
    errors = lines_of(check_folder(tmp_path, f"\ndefine flow\n{steps}", actions=ACTIONS))
    assert any(
        error.startswith(f"rails.co:{line}: error:") and message in error for error in errors
    )


def test_a_missing_parameter_is_a_warning(tmp_path: Path) -> None:
    report = check_folder(tmp_path, PRICE_FLOW + "  execute find_price\n", actions=ACTIONS)
    assert lines_of(report, "warning") == [
        "rails.co:13: warning: the action 'find_price' needs the parameter 'thing'"
    ]


def test_an_unknown_action_is_a_warning_if_some_are_registered_unseen(tmp_path: Path) -> None:
    actions = "def init(app):\n  app.register_actions(load_all())\n"
    report = check_folder(tmp_path, PRICE_FLOW + "  execute look_up\n", actions=actions)
    assert report.errors == []
    assert "there is no action 'look_up'" in lines_of(report, "warning")[0]


def test_variables_that_nothing_sets_are_warnings(tmp_path: Path) -> None:
    flow = PRICE_FLOW + "  $amount = 3\n  if $amoun\n    bot say hello\n"
    assert lines_of(check_folder(tmp_path, flow), "warning") == [
        "rails.co:14: warning: nothing sets the variable $amoun; did you mean 'amount'?"
    ]


def test_variables_of_actions_and_of_the_runtime_are_known(tmp_path: Path) -> None:
    actions = (
        "from truing.rails.actions import ActionResult, action\n"
        "@action()\n"
        "async def count():\n"
        "  return ActionResult(return_value=1, context_updates={'total': 1})\n"
    )
    flow = (
        PRICE_FLOW + "  $n = execute count\n  if $n and $total and $last_user_message\n    stop\n"
    )
    report = check_folder(tmp_path, flow, actions=actions)
    assert [str(finding) for finding in report.findings] == [
        "actions.py:1: note: needs --trust-code: Python code"
    ]


def test_subflows_that_are_never_called_are_warnings(tmp_path: Path) -> None:
    subflow = "\ndefine subflow greet\n  bot say hello\n"
    assert lines_of(check_folder(tmp_path, subflow), "warning") == [
        "rails.co:11: warning: the subflow 'greet' is never called"
    ]
    dynamic = PRICE_FLOW + '  $name = "greet"\n  do $name\n'
    assert check_folder(tmp_path, subflow + dynamic).findings == []


@pytest.mark.parametrize(
    ("setting", "steps"),
    [
        ("generated_intents", "  user feel good\n  bot say hello\n"),
        ("generated_messages", "  user ask price\n  bot tell a story\n"),
    ],
)
def test_undefined_names_can_be_declared_as_generated(
    tmp_path: Path, setting: str, steps: str
) -> None:
    flow = f"\ndefine flow\n{steps}"
    # NeMo Guardrails runs it: the LLM writes the message, or finds the intent by its name.
    report = check_folder(tmp_path, flow)
    assert (len(lines_of(report)), len(lines_of(report, "warning"))) == (0, 1)
    declared = f"truing: {{{setting}: true}}\n"
    assert check_folder(tmp_path, flow, config=declared).findings == []
    refused = f"truing: {{{setting}: false}}\n"
    assert len(lines_of(check_folder(tmp_path, flow, config=refused))) == 1


def test_embeddings_do_not_find_an_intent_without_examples(tmp_path: Path) -> None:
    config = "rails: {dialog: {user_messages: {embeddings_only: true}}}\n"
    flow = "\ndefine flow\n  user feel good\n  bot say hello\n"
    (error,) = lines_of(check_folder(tmp_path, flow, config=config))
    assert "the intent 'feel good' is not defined" in error
