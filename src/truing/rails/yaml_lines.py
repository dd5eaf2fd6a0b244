"""Safe YAML: no tags that build objects, no alias bombs, and the line of every key."""

from __future__ import annotations

from typing import Any

import yaml

MAX_NODES = 200_000
MAX_ALIASES = 1_000
MAX_DEPTH = 60
MAX_KEY_DEPTH = 40  # deeper keys get no line number

# The path of a key or list item: dictionary keys and list indices from the root.
KeyPath = tuple[str | int, ...]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, if it is installed


def safe_load(text: str) -> Any:
    """Returns the value of a document; yaml.YAMLError if it is malformed or too large."""
    return load_with_lines(text)[0]


def load_with_lines(text: str) -> tuple[Any, dict[KeyPath, int]]:
    """Returns the value of a document, and the line of each key and list item by its path."""
    try:
        # Parser events come before any object is built: a bomb costs nothing here.
        _check_depth_and_aliases(text)
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error
    except ValueError as error:
        raise yaml.YAMLError(str(error)) from error
    loader = _LOADER(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None, {}
        _count_nodes(root, {}, frozenset())
        lines: dict[KeyPath, int] = {}
        _collect_lines(root, (), lines)
        return loader.construct_document(root), lines
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error
    except ValueError as error:
        raise yaml.YAMLError(str(error)) from error
    finally:
        loader.dispose()


def _check_depth_and_aliases(text: str) -> None:
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


def _count_nodes(node: Any, counts: dict[int, int], ancestors: frozenset[int]) -> int:
    """Returns the number of nodes under `node` once aliases are followed.

    An alias is the same node object again, so that counting each object once is fast even for a
    document that would expand to billions of nodes. Raises yaml.YAMLError for one of those, and
    for a node that contains itself.
    """
    known = counts.get(id(node))
    if known is not None:
        return known
    if id(node) in ancestors:
        raise yaml.YAMLError("an alias refers to a node that contains it")
    count = 1
    for child in _child_nodes(node):
        if isinstance(child, yaml.ScalarNode):
            count += 1
        else:
            count += _count_nodes(child, counts, ancestors | {id(node)})
    if count > MAX_NODES:
        raise yaml.YAMLError("too many nodes (aliases that multiply?)")
    counts[id(node)] = count
    return count


def _child_nodes(node: Any) -> list[Any]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if isinstance(node, yaml.MappingNode):
        return [part for key_and_value in node.value for part in key_and_value]
    return []


def _collect_lines(node: Any, path: KeyPath, lines: dict[KeyPath, int]) -> None:
    if len(lines) > MAX_NODES or len(path) > MAX_KEY_DEPTH:
        return
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            key_path = (*path, str(key.value))
            lines[key_path] = key.start_mark.line + 1
            _collect_lines(value, key_path, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _collect_lines(item, (*path, index), lines)
