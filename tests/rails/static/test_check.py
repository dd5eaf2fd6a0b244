"""`check_rails_config`: faults of all kinds in one report, sorted by place; nothing is executed."""

from __future__ import annotations

from pathlib import Path

import pytest
from static_helpers import PRICE_FLOW, check_folder, lines_of

from truing.core.errors import PlanError
from truing.rails.static.check import check_rails_config, collect_builtin_actions


def test_a_good_configuration_has_no_finding(tmp_path: Path) -> None:
    report = check_folder(tmp_path, PRICE_FLOW + "  bot say hello\n")
    assert report.findings == []
    assert report.config is not None
    assert report.calls is not None


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no such rails folder"):
        check_rails_config(tmp_path / "nothing")


def test_unknown_keys(tmp_path: Path) -> None:
    report = check_folder(tmp_path, config="rails:\n  output:\n    flow:\n      - x\nmodel: []\n")
    assert lines_of(report) == [
        "config.yml:3: error: unknown key 'flow' in rails.output; did you mean 'flows'?",
        "config.yml:5: error: unknown key 'model' in the document; did you mean 'models'?",
    ]
    assert report.config is None


@pytest.mark.parametrize(
    ("step", "line", "message"),
    [
        ("$a = (1 +", 13, "is not an expression"),
        ("execute create_event", 13, "an event is created by"),
        ("goto nowhere", 13, "no label 'nowhere'"),
        ("stop\n  bot say hello", 14, "unreachable: line 13 ends the block"),
    ],
)
def test_faults_in_flows(tmp_path: Path, step: str, line: int, message: str) -> None:
    errors = lines_of(check_folder(tmp_path, f"{PRICE_FLOW}  {step}\n"))
    assert any(
        error.startswith(f"rails.co:{line}: error:") and message in error for error in errors
    )


def test_rails_without_a_flow_or_a_prompt(tmp_path: Path) -> None:
    config = "rails:\n  input:\n    flows:\n      - self chek input\n      - self check input\n"
    unknown, without_prompt = lines_of(check_folder(tmp_path, config=config))
    assert unknown.startswith(
        "config.yml:4: error: there is no flow 'self chek input'; did you mean 'self check input'"
    )
    assert without_prompt == (
        "config.yml:5: error: the rail 'self check input' needs a prompt for the task "
        "'self_check_input' under prompts"
    )


def test_faults_of_models(tmp_path: Path) -> None:
    config = (
        "models:\n"
        "  - type: main\n"
        "    engine: truing\n"
        "    model: scripted:echo\n"
        "    parameters:\n"
        "      temperature: hot\n"
        "      max_token: 30\n"
        "  - {type: self_check_input, engine: opanai, model: x}\n"
        "  - {type: embeddings, engine: FastEmbed, model: y, parameters: {device: cpu}}\n"
    )
    report = check_folder(tmp_path, config=config)
    assert [str(finding).split(", got")[0] for finding in report.findings] == [
        "config.yml:6: error: parameters.temperature: expected a number from 0 to 2",
        "config.yml:7: error: the parameter 'max_token' of the model is not known; "
        "did you mean 'max_tokens'?",
        "config.yml:8: warning: the engine 'opanai' is not known; did you mean 'openai'? "
        "(engine: truing takes any truing spec)",
        "config.yml:9: difference: y: truing finds examples and chunks with its own encoder, "
        "all-MiniLM-L6-v2, instead",
    ]


def test_malformed_templates(tmp_path: Path) -> None:
    config = "prompts:\n  - {task: general, content: '{{ history'}\n"
    flow = '\ndefine bot tell\n  "{% if %}"\n'
    kinds = [(f.place, f.kind) for f in check_folder(tmp_path, flow, config).findings]
    assert kinds == [("config.yml:2", "template"), ("rails.co:11", "template")]


def test_unknown_kinds_of_personal_data(tmp_path: Path) -> None:
    config = (
        "rails:\n"
        "  config:\n"
        "    sensitive_data_detection:\n"
        "      input:\n"
        "        entities:\n"
        "          - EMAIL_ADDRESS\n"
        "          - EMALI\n"
    )
    (finding,) = check_folder(tmp_path, config=config).findings
    assert (finding.place, finding.kind) == ("config.yml:7", "entity")
    assert "EMALI" in finding.what


def test_a_name_in_two_files_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "more.co").write_text('define bot say hello\n  "Good day!"\n')
    report = check_folder(tmp_path, PRICE_FLOW + "  bot say hello\n")
    assert lines_of(report, "warning") == [
        "rails.co:8: warning: the bot message 'say hello' is not used: "
        "more.co:1 defines it too, and comes first"
    ]


def test_rails_that_cannot_run_in_parallel_or_beside_the_generation(tmp_path: Path) -> None:
    rails = (
        "\ndefine subflow writes\n  $a = 1\n"
        "\ndefine subflow reads\n  if $a\n    stop\n"
        "\ndefine subflow unknown\n  execute my_action\n"
    )
    actions = "from truing.rails.actions import action\n@action()\nasync def my_action(): ...\n"
    config = (
        "truing: {concurrent: true, speculative: true}\n"
        "rails:\n"
        "  input: {flows: [writes, unknown]}\n"
        "  output: {flows: [writes, reads]}\n"
    )
    warnings = lines_of(check_folder(tmp_path, rails, config, actions), "warning")
    assert [warning.split(": ", 2)[2] for warning in warnings] == [
        "unknown: its effects are not known, so nothing is generated ahead of the input rails",
        "unknown: what it does to the others is not known, "
        "so the input rails run one after the other",
        "one of the output rails writes what another reads, so they run one after the other",
    ]


@pytest.mark.parametrize(
    ("flows", "has_finding"),
    [
        (["check text output", "moderation check output", "tone check output"], True),
        (["tone check output", "moderation check output"], False),
        (["tone check output"], False),
    ],
)
def test_a_rail_that_rewrites_what_another_has_judged(
    tmp_path: Path, flows: list[str], has_finding: bool
) -> None:
    config = f"rails: {{output: {{flows: [{', '.join(flows)}]}}}}\n"
    messages = [f.what for f in check_folder(tmp_path, config=config).findings if f.kind == "order"]
    expected = "'tone check output' rewrites what 'moderation check output' has judged"
    assert [expected in message for message in messages] == [True] * has_finding


def test_builtin_actions_are_found_by_name() -> None:
    actions = collect_builtin_actions()
    assert {"generate_user_intent", "create_event", "run_input_rails_in_parallel"} <= set(actions)
