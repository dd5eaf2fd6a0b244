"""What a configuration gives up is reported with its line."""

from __future__ import annotations

from pathlib import Path

from truing.rails.static.check import check_rails_config

YAML = """\
models: []
truing:
  trusted_roles: [system, tool]
  client_options:
    rails: true
    context: [user_name]
"""


def given_up(folder: Path, yaml: str) -> list[tuple[int, str]]:
    (folder / "config.yml").write_text(yaml)
    findings = check_rails_config(folder).findings
    assert all(f.level == "warning" for f in findings)
    return [(int(f.place.rpartition(":")[2]), f.what) for f in findings if f.kind == "given_up"]


def test_each_choice_is_a_warning_with_its_line(tmp_path: Path) -> None:
    (roles_line, roles), (rails_line, _), (context_line, context) = given_up(tmp_path, YAML)
    assert (roles_line, rails_line, context_line) == (3, 5, 6)
    assert "system, tool" in roles
    assert "user_name" in context


def test_unjoined_turns_are_given_up_where_there_are_input_rails(tmp_path: Path) -> None:
    yaml = "models: []\ntruing: {join_turns: false}\n"
    assert given_up(tmp_path, yaml) == []
    ((line, what),) = given_up(tmp_path, "rails: {input: {flows: [check text input]}}\n" + yaml)
    assert line == 3
    assert "split over several answered turns" in what


def test_without_a_choice_there_is_none(tmp_path: Path) -> None:
    yaml = "models: []\ntruing: {client_options: {rails: false, llm_params: {max_tokens: 9}}}\n"
    assert given_up(tmp_path, yaml) == []


def test_a_wrong_value_is_an_error_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(
        "truing:\n  trusted_roles: [user]\n  client_options:\n"
        "    llm_params: {n: 2}\n    context: [skip_output_rails]\n"
    )
    findings = check_rails_config(tmp_path).findings
    messages = " ".join(str(f) for f in findings)
    assert "config.yml:2" in messages and "'user' cannot be trusted" in messages
    assert "'n' is none of" in messages
    assert "'skip_output_rails'" in messages
