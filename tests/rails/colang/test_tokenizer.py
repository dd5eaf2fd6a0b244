"""The token stream: definitions, statements, and the block structure as indents and dedents."""

from __future__ import annotations

import pytest

from truing.rails.colang.lexer import read_logical_lines
from truing.rails.colang.statements import ColangSyntaxError
from truing.rails.colang.tokenizer import Tokenizer


def _token_types(content: str) -> list[str]:
    return [token.type for token in Tokenizer(read_logical_lines(content))]


def test_blocks_become_indents_and_dedents() -> None:
    content = "define flow a\n  if $x\n    bot b\n  else\n    bot c\n  bot d\n"
    assert _token_types(content) == [
        *("DEFINE_FLOW", "_INDENT"),
        *("IF", "_INDENT", "STEP", "_DEDENT"),
        *("ELSE", "_INDENT", "STEP", "_DEDENT"),
        *("STEP", "_DEDENT"),
    ]


def test_a_dedent_over_two_levels_closes_two_blocks() -> None:
    content = "define flow a\n  while $x\n    if $y\n      bot b\n  bot c\n"
    types = _token_types(content)
    assert types.count("_INDENT") == types.count("_DEDENT") == 3
    step = types.index("STEP")
    assert types[step:] == ["STEP", "_DEDENT", "_DEDENT", "STEP", "_DEDENT"]


def test_a_definition_closes_all_blocks() -> None:
    content = "define flow a\n  if $x\n    bot b\ndefine user c\nimport lib\n"
    assert _token_types(content)[-4:] == ["_DEDENT", "_DEDENT", "DEFINE_USER", "IMPORT"]


def test_modifiers_become_flow_properties() -> None:
    tokens = list(Tokenizer(read_logical_lines("define parallel extension flow a\n  bot b\n")))
    definition = tokens[0].value
    assert (definition.kind, definition.name) == ("flow", "a")
    assert definition.meta == {"allow_multiple": True, "is_extension": True}


def test_anonymous_flows_are_named_by_their_body() -> None:
    def name_of(body: str) -> str:
        tokens = Tokenizer(read_logical_lines(f"define flow\n  {body}\n"))
        return str(next(iter(tokens)).value.name)

    assert name_of("bot a").startswith("anonymous-")
    assert name_of("bot a") == name_of("bot a") != name_of("bot b")


def test_deeper_lines_under_a_statement_belong_to_it() -> None:
    content = "define flow a\n  execute f\n    x: 1\n    y: 2\n  bot b\n"
    statements = [
        token.value for token in Tokenizer(read_logical_lines(content)) if token.type == "STEP"
    ]
    assert [line.text for line in statements[0].indented_lines] == ["x: 1", "y: 2"]
    assert statements[1].indented_lines == []


def test_parameters_of_when_are_deeper_than_its_block() -> None:
    content = "define flow a\n  when user buy\n      product: book\n    bot thank\n"
    tokens = list(Tokenizer(read_logical_lines(content)))
    awaited, is_negated = next(token.value for token in tokens if token.type == "WHEN")
    assert [line.text for line in awaited.indented_lines] == ["product: book"]
    assert not is_negated
    assert next(token.value for token in tokens if token.type == "STEP").text == "bot thank"


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("bot b\n", 1, "expected 'define ...'"),
        ("define flow a\nbot b\n", 1, "expected an indented block"),
        ("define flow a\n  if\n    bot b\n", 2, "a condition is missing after 'if'"),
        ("define flow a\n  if $x\n  bot b\n", 2, "expected an indented block"),
        ("define flow a\n  exeute f\n", 2, "did you mean 'execute'"),
        ("define flow a\n  when flow b\n    bot c\n", 2, "'when' cannot wait for 'flow'"),
        ("define flwo a\n  bot b\n", 1, "did you mean 'flow'"),
        ("define bot\n  'x'\n", 1, "a name is missing after 'define bot'"),
        ("define bot a\n", 1, "expected an indented block after 'define bot'"),
    ],
)
def test_errors_have_their_line(content: str, line: int, message: str) -> None:
    with pytest.raises(ColangSyntaxError) as caught:
        _token_types(content)
    assert caught.value.line == line
    assert message in str(caught.value)
