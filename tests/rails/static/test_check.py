"""`truing rails check`: each fault with place and nearest name, the worst-case calls, the picture; nothing is run."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from truing.cli.rails import check as command
from truing.core.errors import PlanError
from truing.rails.static.check import RailsCheckReport, check_rails_config
from truing.rails.static.diagram import render_svg, render_tree

MESSAGES = """
define user express greeting
  "hello"

define user ask price
  "how much is it"

define bot say hello
  "Hello!"
"""


def _check(
    folder: Path, colang: str = "", config: str = "models: []\n", actions: str | None = None
) -> RailsCheckReport:
    (folder / "config.yml").write_text(config)
    if colang:
        (folder / "rails.co").write_text(MESSAGES + colang)
    if actions is not None:
        (folder / "actions.py").write_text(actions)
    return check_rails_config(folder)


def _said(report: RailsCheckReport, level: str = "error") -> list[str]:
    return [str(f) for f in report.findings if f.level == level]


def test_a_good_configuration_has_no_finding(tmp_path: Path) -> None:
    report = _check(tmp_path, "\ndefine flow\n  user express greeting\n  bot say hello\n")
    assert report.findings == []


@pytest.mark.parametrize(
    ("flow", "line", "said"),
    [
        (
            "  user express greting\n  bot say hello\n",
            12,
            "intent 'express greting' is not defined; did you mean 'express greeting'",
        ),
        (
            "  user express greeting\n  bot say helo\n",
            13,
            "message 'say helo' is not defined; did you mean 'say hello'",
        ),
        ("  user express greeting\n  do greet\n", 13, "no subflow 'greet'"),
        (
            "  user express greeting\n  execute find_prise\n",
            13,
            "no action 'find_prise'; did you mean 'find_price'",
        ),
        (
            "  user express greeting\n  execute find_price(thin=1)\n",
            13,
            "takes no parameter 'thin'; did you mean 'thing'",
        ),
        (
            "  user express greeting\n  stop\n  bot say hello\n",
            14,
            "unreachable: line 13 ends the block",
        ),
        (
            "  user express greeting\n  if False\n    bot say hello\n",
            13,
            "the condition 'False' never holds",
        ),
        (
            "  user express greeting\n  if True\n    bot say hello\n  else\n    stop\n",
            16,
            "'True' always holds",
        ),
        (
            "  user express greeting\n  $a = 1\n  if $a\n    stop\n  else if $a\n    stop\n",
            16,
            "stands in an earlier branch",
        ),
        (
            "  user express greeting\n  if 1 > 0\n    stop\n  else\n    stop\n  bot say hello\n",
            16,
            "always holds",
        ),
        (
            "  when user ask price\n    bot say hello\n  else when user ...\n    stop\n",
            12,
            "line 14 waits for the same",
        ),
        ("  user ask price or user express greeting\n  bot say hello\n", 12, "never match"),
        ("  user express greeting\n  while True\n    $a = 1\n", 13, "never ends"),
        ("  user express greeting\n  $a = (1 +\n", 13, "is not an expression"),
        ("  user express greeting\n  execute create_event\n", 13, "an event is created by"),
        ("  user express greeting\n  goto nowhere\n", 13, "no label 'nowhere'"),
    ],
)
def test_each_fault_has_its_line_and_a_hint(
    tmp_path: Path, flow: str, line: int, said: str
) -> None:
    actions = "from truing.rails.actions import action\n@action()\nasync def find_price(thing, llm=None): ...\n"
    report = _check(tmp_path, f"\ndefine flow\n{flow}", actions=actions)
    assert any(s.startswith(f"rails.co:{line}: error:") and said in s for s in _said(report)), (
        report.findings
    )


def test_unknown_keys_and_flow_for_flows(tmp_path: Path) -> None:
    report = _check(tmp_path, config="rails:\n  output:\n    flow:\n      - x\nmodel: []\n")
    assert _said(report) == [
        "config.yml:3: error: unknown key 'flow' in rails.output; did you mean 'flows'?",
        "config.yml:5: error: unknown key 'model' in the document; did you mean 'models'?",
    ]


def test_rails_without_a_flow_or_a_prompt(tmp_path: Path) -> None:
    report = _check(
        tmp_path,
        config="rails:\n  input:\n    flows:\n      - self chek input\n      - self check input\n",
    )
    said = _said(report)
    assert said[0].startswith(
        "config.yml:4: error: there is no flow 'self chek input'; did you mean 'self check input'"
    )
    assert said[1] == (
        "config.yml:5: error: the rail 'self check input' needs a prompt for the task 'self_check_input' under prompts"
    )


def test_actions_py_is_never_imported(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    actions = (
        f"open({str(mark)!r}, 'w')\nfrom nowhere import action as mark\n@mark(name='look up')\nclass Look:\n"
        "  def run(self, a): ...\n"
    )
    report = _check(
        tmp_path, "\ndefine flow\n  user ask price\n  execute look up(b=1)\n", actions=actions
    )
    assert not mark.exists()
    assert any("takes no parameter 'b'" in s for s in _said(report))


def test_python_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    assert _said(
        _check(tmp_path, "\ndefine flow\n  user ask price\n  stop\n", actions="def (:\n")
    ) == ["actions.py:1: error: invalid syntax"]


def test_variables_that_nothing_sets_are_a_warning(tmp_path: Path) -> None:
    report = _check(
        tmp_path, "\ndefine flow\n  user ask price\n  $amount = 3\n  if $amoun\n    bot say hello\n"
    )
    assert _said(report, "warning") == [
        "rails.co:14: warning: nothing sets the variable $amoun; did you mean 'amount'?"
    ]


def test_intents_may_be_left_to_the_llm_in_so_many_words(tmp_path: Path) -> None:
    flow = "\ndefine flow\n  user feel good\n  bot say hello\n"
    assert len(_said(_check(tmp_path, flow))) == 1
    assert _said(_check(tmp_path, flow, config="truing: {generated_intents: true}\n")) == []


def test_messages_may_be_left_to_the_llm_in_so_many_words(tmp_path: Path) -> None:
    flow = "\ndefine flow\n  user ask price\n  bot tell a story\n"
    assert len(_said(_check(tmp_path, flow))) == 1
    assert _said(_check(tmp_path, flow, config="truing: {generated_messages: true}\n")) == []


FLOW = "\ndefine flow\n  user ask price\n"
SAY = "  bot say hello\n"
EMBEDDED = "rails: {dialog: {user_messages: {embeddings_only: true}}}\n"

# -- the worst case, counted by hand -----------------------------------------------------------------------------------

SELF_CHECK = """
prompts:
  - {task: self_check_input, content: "?"}
  - {task: self_check_output, content: "?"}
rails:
  input: {flows: [self check input]}
  output: {flows: [self check output]}
"""


@pytest.mark.parametrize(
    ("config", "flow", "most"),
    [
        ("models: []\n", "", 1),  # the answer
        (SELF_CHECK, "", 3),  # check, answer, check
        ("models: []\n", FLOW + SAY, 3),  # intent, next step, message
        (SELF_CHECK, FLOW + SAY, 5),  # both checks more
        (EMBEDDED, FLOW + SAY, 2),
        ("rails: {dialog: {single_call: {enabled: true}}}\n", FLOW + SAY, 1),
        (
            "models: []\n",
            FLOW + "  bot tell a\n  bot tell b\n  bot tell c\n",
            4,
        ),  # intent, 3 messages
        ("models: []\n", FLOW + "  bot tell a\n  user ask price\n  bot tell b\n  bot tell c\n", 3),
        (
            "models: []\n",
            FLOW
            + "  if $a\n    bot tell a\n  else\n    bot tell b\n    $x = ...\n    bot tell c\n",
            4,
        ),
    ],
)
def test_the_worst_case_of_llm_calls(tmp_path: Path, config: str, flow: str, most: int) -> None:
    calls = _check(tmp_path, flow, config).calls
    assert calls is not None
    assert (calls.total.most, calls.total.open) == (most, frozenset())


def test_calls_in_a_loop_have_no_bound(tmp_path: Path) -> None:
    calls = _check(
        tmp_path,
        "\ndefine flow\n  user ask price\n  while $a < 3\n    bot tell a\n    $a = $a + 1\n",
    ).calls
    assert calls is not None
    assert calls.total.open == frozenset(
        {"a loop in " + next(iter(calls.total.open)).split("a loop in ")[1]}
    )
    assert str(calls.total).endswith("or more")


def test_a_rail_that_stops_the_turn_does_not_add_to_the_dialog(tmp_path: Path) -> None:
    rail = "\ndefine flow block\n  if $a\n    bot tell a\n    bot tell b\n    stop\n"
    config = "rails: {input: {flows: [block]}, dialog: {user_messages: {embeddings_only: true}}}\n"
    calls = _check(tmp_path, rail, config).calls
    assert calls is not None
    assert calls.total.most == 2


def test_an_output_rail_that_says_a_generated_message_runs_again(tmp_path: Path) -> None:
    calls = _check(
        tmp_path, "\ndefine subflow own\n  bot tell a\n", "rails: {output: {flows: [own]}}\n"
    ).calls
    assert calls is not None
    assert calls.total.open


def test_a_name_in_two_files_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "more.co").write_text('define bot say hello\n  "Good day!"\n')
    report = _check(tmp_path, FLOW + SAY)
    assert _said(report, "warning") == [
        "rails.co:8: warning: the bot message 'say hello' is not used: more.co:1 defines it too, and comes first"
    ]


def test_rails_that_cannot_run_side_by_side_or_beside_the_answer_are_named(tmp_path: Path) -> None:
    rails = "\ndefine subflow one\n  $a = 1\n\ndefine subflow two\n  if $a\n    stop\n\ndefine subflow own\n  execute mine\n"
    actions = "from truing.rails.actions import action\n@action()\nasync def mine(): ...\n"
    yaml = "truing: {concurrent: true, speculative: true}\nrails:\n  input: {flows: [one, own]}\n  output: {flows: [one, two]}\n"
    said = _said(_check(tmp_path, rails, yaml, actions), "warning")
    assert [s.split(": ", 2)[2] for s in said] == [
        "own: its effects are not known, so nothing is generated ahead of the input rails",
        "own: what it does to the others is not known, so the input rails run one after the other",
        "one of the output rails writes what another reads, so they run one after the other",
    ]


# -- the picture -------------------------------------------------------------------------------------------------------


def test_the_picture_is_well_formed_and_holds_every_step(tmp_path: Path) -> None:
    flow = (
        "\ndefine flow prices & <more>\n  user ask price\n"
        "  if $a < 3\n    bot say hello\n  else\n    execute generate_value\n"
        "  when user express greeting\n    stop\n  else when user ask price\n    bot say hello\n"
    )
    report = _check(tmp_path, flow)
    assert report.config is not None
    root = ET.fromstring(render_svg(report.config.flows))
    texts = "".join(root.itertext())
    for part in (
        "prices & <more>",
        "user ask price",
        "if $a < 3",
        "bot say hello",
        "when user express greeting",
        "stop",
    ):
        assert part in texts
    assert "├─ user ask price" in render_tree(report.config.flows)


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_says_2_for_a_finding_and_prints_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _check(tmp_path, "\ndefine flow\n  user ask prise\n  bot say hello\n")
    assert command(tmp_path, json=True, picture=tmp_path / "flows.svg") == 2
    made = json.loads(capsys.readouterr().out)
    assert made["errors"] == 1
    assert made["findings"][0]["place"] == "rails.co:12"
    assert made["llm_calls"]["most"] == 3
    assert (tmp_path / "flows.svg").read_text().startswith("<svg")


def test_the_command_says_0_for_warnings_unless_strict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _check(tmp_path, "\ndefine flow\n  user ask price\n  if $x\n    bot say hello\n")
    assert command(tmp_path) == 0
    assert command(tmp_path, strict=True) == 2
    assert "1 warnings" in capsys.readouterr().out


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no such rails folder"):
        command(tmp_path / "nothing")


def test_a_rail_that_rewrites_what_another_has_judged_is_named(tmp_path: Path) -> None:
    def said(*flows: str) -> list[str]:
        config = f"rails: {{output: {{flows: [{', '.join(flows)}]}}}}\n"
        return [f.what for f in _check(tmp_path, config=config).findings if f.kind == "order"]

    (found,) = said("check text output", "moderation check output", "tone check output")
    assert "'tone check output' rewrites what 'moderation check output' has judged" in found
    assert said("tone check output", "moderation check output") == said("tone check output") == []
