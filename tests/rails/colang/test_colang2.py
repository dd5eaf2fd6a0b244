"""Colang 2: what configurations of rails use is translated, everything else refused with its line."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from truing.core.errors import PlanError
from truing.core.types import Conversation, Sampling
from truing.models.scripted import ScriptedModel
from truing.rails.colang.colang2 import translate_colang2
from truing.rails.config.key_effects import find_differences
from truing.rails.config.loader import RailsConfig
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.embeddings import LexicalEncoder

MAIN = "import core\nimport llm\n\nflow main\n  activate llm continuation\n"
CORE = "import core\n"
RAILS = '''\
import guardrails
import nemoguardrails.library.self_check

flow input rails $input_text
  """Checks the input."""
  regex check input   # ours
  await content safety check input $model="guard"
  service check input $input_text

flow output rails $output_text
  regex check output
'''
DIALOG = """\
@active
flow greeting
  user expressed greeting
  bot express greeting

flow user expressed greeting
  user said "hi # there"
    or user said "hello"

flow bot express greeting
  bot say "Hello world!"

flow never used
  user expressed greeting
"""


def test_rails_are_those_of_the_stages() -> None:
    (main, rails), script = translate_colang2([("main.co", MAIN), ("rails.co", RAILS)])
    assert script is None  # there is no dialog
    assert main.continuation_line == 5
    assert rails.rails == {
        "input": [
            "regex check input",
            'content safety check input $model="guard"',
            "service check input",
        ],
        "output": ["regex check output"],
    }
    assert rails.rail_lines == {"input": 4, "output": 10}


def test_dialog_flows_keep_their_lines() -> None:
    (_, dialog), script = translate_colang2([("main.co", MAIN), ("dialog.co", DIALOG)])
    assert script is not None
    assert set(script.flows) >= {"main", "greeting"}
    assert "never used" not in script.flows
    lines = dialog.colang.split("\n")
    assert lines[1:4] == [
        "define flow greeting",
        "  user expressed greeting",
        "  bot express greeting",
    ]
    assert lines[5:8] == [
        "define user expressed greeting",
        '  "hi # there"',
        '  "hello"',
    ]
    assert "never used" not in dialog.colang


def test_a_folder_runs_and_names_the_difference(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(
        'colang_version: "2.x"\n'
        "rails:\n  config:\n    regex_detection: {input: {patterns: [FORBIDDEN]}}\n"
        "  dialog: {user_messages: {embeddings_only: true}}\n"
    )
    (tmp_path / "main.co").write_text(MAIN)
    (tmp_path / "dialog.co").write_text(DIALOG)
    (tmp_path / "rails.co").write_text(
        "import guardrails\nflow input rails $input_text\n  regex check input\n"
    )
    config = RailsConfig.load(tmp_path)
    assert config.rails.input.flows == ["regex check input"]
    assert config.locate("key", "rails.input.flows.0") == "rails.co:2"
    assert ("main.co:5", True) in [(p, "Colang 2" in m) for p, m in find_differences(config)]
    parts = RuntimeParts(encoder=LexicalEncoder())
    bot = GuardedModel(config, ScriptedModel("x"), parts=parts)
    texts = [
        asyncio.run(bot.answer(Conversation.of(text), Sampling())).text
        for text in ("hello", "FORBIDDEN")
    ]
    assert texts == ["Hello world!", "I'm sorry, I can't respond to that."]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("flow main\n  activate x\n", 2, "there is no flow 'x' that truing knows"),
        ('flow main\n  user said "hi"\n', 2, "need `import core`"),
        (CORE + "flow main\n  $x = ...\n", 3, "a value by the LLM"),
        (CORE + 'flow main\n  $x = ..."a number"\n', 3, "a value by the LLM"),
        (CORE + "flow main\n  match UnhandledEvent(event=1) as $e\n", 3, "needs Colang 2's"),
        (CORE + "flow main\n  send HelloWorld\n", 3, "send of this event"),
        (CORE + "flow main\n  match $ref.Finished()\n", 3, "expected a flow"),
        (CORE + 'flow main\n  GestureBotAction(gesture="x")\n', 3, "needs Colang 2's"),
        (CORE + 'flow main\n  bot say "a" or user said "b"\n', 3, "not both"),
        (CORE + "flow main\n  user said ((\n", 3, "is not an expression"),
        (CORE + "flow main\n  if\n    abort\n", 3, "expected if"),
        (CORE + "flow main\n  tell 1 2\nflow tell $x\n  abort\n", 3, "takes the parameters"),
        (CORE + "flow main\n    abort\n  abort\n", 4, "unexpected indentation"),
        (CORE + "flow main\n  start_new_flow_instance:\n", 3, "is not translated"),
        ("import avatars\nflow main\n  abort\n", 1, "import avatars: its flows need"),
        ("import timing\n" + MAIN, 1, "import timing: its flows need"),
        (MAIN + "@loop('x')\nflow a\n  user b\n", 6, "@loop('x') is not translated"),
        (MAIN + "flow bot a $name\n  bot say $name\n", 6, "flows with parameters"),
        (MAIN + "@active\nflow a\n  match E()\n", 8, "'match E()' is not translated"),
        (MAIN + 'flow bot a\n  bot say "x" and bot gesture "y"\n', 7, "is not translated"),
        (MAIN + "flow input rails $input_text\n  $x = await check\n", 7, "may name rails"),
        (MAIN + "flow input rails $input_text\n  abort\n", 7, "may name rails"),
        (MAIN + "match E()\n", 6, "is not translated"),
        ("  match E()\nflow main\n  activate llm continuation\n", 1, "outside of a flow"),
        (
            MAIN + 'flow user a\n  user said "x" or user said "y"\nflow user b\n  user said "z"\n',
            7,
            "",
        ),
    ],
)
def test_everything_else_is_refused_with_its_line(text: str, line: int, message: str) -> None:
    if not message:
        translate_colang2([("main.co", text)])
        return
    with pytest.raises(PlanError) as caught:
        translate_colang2([("main.co", text)])
    assert any(f.startswith(f"main.co:{line}: Colang 2: ") for f in caught.value.faults)
    assert message in str(caught.value)


def _find_faults(text: str) -> tuple[str, ...]:
    try:
        translate_colang2([("main.co", text)])
    except PlanError as error:
        return error.faults
    return ()


def test_half_written_files_are_faults_and_nothing_else() -> None:
    whole = MAIN + RAILS + DIALOG
    for end in range(0, len(whole), 7):
        assert all(fault.startswith("main.co:") for fault in _find_faults(whole[:end]))
