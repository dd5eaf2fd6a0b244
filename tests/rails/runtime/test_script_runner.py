"""Scripts (Colang 2 flows that react to exact words) answer as NeMo Guardrails does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from truing.models.scripted import ScriptedModel
from truing.rails.config.loader import RailsConfig
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.app import RailsError, RuntimeParts
from truing.rails.runtime.embeddings import LexicalEncoder

# What nemoguardrails 0.17.0 answers, turn by turn, with the state that it returns.
RECORDED = json.loads((Path(__file__).parent / "nemo_scripts.json").read_text())
VERSION = 'colang_version: "2.x"\n'


def _build(colang: str, yaml: str = VERSION, parts: RuntimeParts | None = None) -> GuardedModel:
    config = RailsConfig.from_text(yaml, colang)
    parts = parts or RuntimeParts()
    parts.encoder = LexicalEncoder()
    return GuardedModel(config, ScriptedModel("from the LLM"), parts=parts)


def _converse(bot: GuardedModel, texts: list[str]) -> list[str]:
    history: list[Any] = []
    answers = []
    for text in texts:
        history.append({"role": "user", "content": text})
        result = asyncio.run(bot.runtime.run_turn(list(history)))
        history.append(result.message)
        answers.append(result.text)
    return answers


@pytest.mark.parametrize("name", RECORDED)
def test_answers_are_those_of_nemo(name: str) -> None:
    recorded = RECORDED[name]
    bot = _build("\n".join(recorded["colang"]))
    assert _converse(bot, recorded["user"]) == recorded["bot"]


def test_another_process_continues_a_conversation() -> None:
    recorded = RECORDED["order"]
    history: list[Any] = []
    for user, bot_text in zip(recorded["user"], recorded["bot"], strict=True):
        history.append({"role": "user", "content": user})
        fresh = _build("\n".join(recorded["colang"]))  # no state is cached
        assert asyncio.run(fresh.runtime.run_turn(list(history))).text == bot_text
        history.append({"role": "assistant", "content": bot_text})


def test_two_continuations_of_one_conversation() -> None:
    recorded = RECORDED["order"]
    bot = _build("\n".join(recorded["colang"]))
    history: list[Any] = []
    for user, text in zip(recorded["user"], recorded["bot"], strict=True):
        history.append({"role": "user", "content": user})
        # Each message is answered twice: what the first answer moved on does not change the second.
        results = [asyncio.run(bot.runtime.run_turn(list(history))) for _ in range(2)]
        assert [result.text for result in results] == [text, text]
        history.append(results[0].message)


def test_what_no_flow_waits_for_goes_to_the_llm_where_main_says_so() -> None:
    flows = 'import core\nflow greeting\n  user said "hi"\n  bot say "Hello!"\n'
    greets = "flow main\n  activate greeting\n"
    with pytest.raises(Exception, match="dialog flow may hold"):
        # A flow that the LLM continues holds names of intents and messages.
        _build(flows + "flow main\n  activate llm continuation\n  activate greeting\n")
    assert _converse(_build(flows + greets), ["hi", "x"]) == ["Hello!", ""]
    named = (
        'import llm\nflow user greeted\n  user said "hi"\nflow bot greet\n  bot say "Hello!"\n'
        "flow greeting\n  user greeted\n  bot greet\n"
        "flow main\n  activate llm continuation\n  activate greeting\n"
    )
    bot = _build(named)
    assert _converse(bot, ["hi", "x"]) == ["Hello!", "from the LLM"]


def test_an_action_runs_once_and_gets_its_arguments() -> None:
    calls: list[int] = []

    async def double(n: int) -> int:
        calls.append(n)
        return 2 * n

    colang = (
        "import core\nflow main\n  while True\n    $text = user said something\n"
        "    $result = await DoubleAction(n=len($text))\n"
        '    bot say "{$result}"\n'
    )
    parts = RuntimeParts(actions={"DoubleAction": double})
    assert _converse(_build(colang, parts=parts), ["a", "bb", "ccc"]) == ["2", "4", "6"]
    assert calls == [1, 2, 3]


def test_an_action_that_fails_ends_the_turn_without_an_answer() -> None:
    def fail() -> None:
        raise ValueError("secret")

    colang = "import core\nflow main\n  user said something\n  await FailAction()\n"
    bot = _build(colang, parts=RuntimeParts(actions={"FailAction": fail}))
    with pytest.raises(RailsError, match="FailAction"):
        _converse(bot, ["x"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("while True\n    $x = 1", "do not come to an end: too many steps for one message"),
        ('while True\n    bot say "x"', "do not come to an end: too many steps for one message"),
        ("call main again", r"main\.co:4: too many flows run inside of each other"),
        ("user said something\n  bot say $a[1]", r"error evaluating '\$a\[1\]'"),
    ],
)
def test_flows_without_an_end_and_failing_expressions_are_errors_of_the_turn(
    body: str, message: str
) -> None:
    colang = f"import core\nflow main\n  {body}\nflow call main again\n  call main again\n"
    with pytest.raises(RailsError, match=message):
        _converse(_build(colang), ["x"])


def test_rails_read_what_the_user_and_the_bot_say() -> None:
    colang = (
        "import core\nimport guardrails\n"
        'flow main\n  while True\n    $x = user said something\n    bot say "{$x}!"\n'
        "flow input rails $input_text\n  regex check input\n"
        "flow output rails $output_text\n  regex check output\n"
    )
    yaml = (
        VERSION + "rails:\n  config:\n    regex_detection:\n"
        "      input: {patterns: [FORBIDDEN]}\n      output: {patterns: ['LOUD!']}\n"
    )
    answers = _converse(_build(colang, yaml), ["fine", "FORBIDDEN", "LOUD", "x"])
    refusal = "I'm sorry, I can't respond to that."
    assert answers == ["fine!", refusal, refusal, "x!"]


def test_many_turns_and_flows() -> None:
    flows = "".join(f'flow f{n}\n  user said "{n}"\n  bot say "answer {n}"\n' for n in range(20))
    main = "flow main\n" + "".join(f"  activate f{n}\n" for n in range(20))
    bot = _build(f"import core\n{flows}{main}")
    answers = _converse(bot, [str(n % 20) for n in range(30)])
    assert answers == [f"answer {n % 20}" for n in range(30)]
