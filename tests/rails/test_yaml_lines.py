"""YAML with the line of every key; bombs and recursive documents are refused."""

from __future__ import annotations

import pytest
import yaml

from truing.rails.yaml_lines import load_with_lines, safe_load


def test_lines_of_keys_and_list_items() -> None:
    value, lines = load_with_lines("a: 1\nb:\n  - x\n  - c:\n      d: 2\n")
    assert value == {"a": 1, "b": ["x", {"c": {"d": 2}}]}
    assert lines[("a",)] == 1
    assert lines[("b",)] == 2
    assert lines[("b", 0)] == 3
    assert lines[("b", 1, "c")] == 4
    assert lines[("b", 1, "c", "d")] == 5


def test_an_empty_document_is_none() -> None:
    assert load_with_lines("# nothing\n") == (None, {})


def test_aliases_are_followed() -> None:
    assert safe_load("a: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "too many nodes"),
        ("[" * 100 + "]" * 100, "nested too deeply"),
        ("a: &a [*a]", "a node that contains it"),
        ("x: &x 1\ny: [" + "*x, " * 1001 + "]", "too many aliases"),
        ("a: !!python/name:os.system x", "could not determine a constructor"),
        ("a: [1", "expected"),
    ],
)
def test_bombs_objects_and_malformed_documents_are_refused(text: str, message: str) -> None:
    with pytest.raises(yaml.YAMLError, match=message):
        safe_load(text)
