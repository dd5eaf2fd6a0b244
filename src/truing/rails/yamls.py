"""YAML, read safely: no tags that build objects, no alias bombs, the line of every key."""

from __future__ import annotations

from typing import Any

import yaml

MAX_NODES = 200_000
MAX_ALIASES = 1_000


class _Loader(yaml.SafeLoader):
    """The safe loader with a limit on nodes, counted as they would be after aliases are followed."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.size: dict[int, int] = {}
        self.aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > MAX_ALIASES:
                raise yaml.YAMLError("too many aliases")
        node = super().compose_node(parent, index)
        if node is not None and id(node) not in self.size:
            self.size[id(node)] = 1 + sum(self.size.get(id(child), 1) for child in _children(node))
            if self.size[id(node)] > MAX_NODES:
                raise yaml.YAMLError("too many nodes (aliases that multiply?)")
        return node


def _children(node: Any) -> list[Any]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return []


def safe_load(text: str) -> Any:
    """The value of a document; yaml.YAMLError for a malformed one or a bomb."""
    return load_with_lines(text)[0]


def load_with_lines(text: str) -> tuple[Any, dict[tuple[str | int, ...], int]]:
    """The value of a document and the line of each key and list item by its path."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, {}
        lines: dict[tuple[str | int, ...], int] = {}
        _place(node, (), lines)
        return loader.construct_document(node), lines
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error
    except ValueError as error:
        raise yaml.YAMLError(str(error)) from error
    finally:
        loader.dispose()


def _place(node: Any, path: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int]) -> None:
    if len(lines) > MAX_NODES or len(path) > 40:
        return
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = (*path, str(key.value))
            lines[name] = key.start_mark.line + 1
            _place(value, name, lines)
    elif isinstance(node, yaml.SequenceNode):
        for at, value in enumerate(node.value):
            _place(value, (*path, at), lines)
