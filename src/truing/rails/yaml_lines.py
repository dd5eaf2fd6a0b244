"""YAML, read safely: no tags that build objects, no alias bombs, the line of every key."""

from __future__ import annotations

from typing import Any

import yaml

MAX_NODES = 200_000
MAX_ALIASES = 1_000
MAX_DEPTH = 60
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where it is there


def _counted(text: str) -> None:
    """Refuses what is too deep or has too many aliases, before anything is built of it."""
    depth = aliases = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise yaml.YAMLError("nested too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
            if aliases > MAX_ALIASES:
                raise yaml.YAMLError("too many aliases")


def _sized(node: Any, sizes: dict[int, int], path: frozenset[int]) -> int:
    """How many nodes there are once aliases are followed; refuses bombs, and nodes that hold themselves."""
    known = sizes.get(id(node))
    if known is not None:
        return known
    if id(node) in path:
        raise yaml.YAMLError("an alias that refers to what holds it")
    inner = path | {id(node)}
    size = 1 + sum(
        1 if isinstance(c, yaml.ScalarNode) else _sized(c, sizes, inner) for c in _children(node)
    )
    if size > MAX_NODES:
        raise yaml.YAMLError("too many nodes (aliases that multiply?)")
    sizes[id(node)] = size
    return size


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
    try:
        _counted(text)
    except (RecursionError, ValueError) as error:
        raise yaml.YAMLError(
            "nested too deeply" if isinstance(error, RecursionError) else str(error)
        ) from error
    loader = _LOADER(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, {}
        _sized(node, {}, frozenset())
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
