"""Finds the actions of a configuration's Python files in their syntax trees.

Nothing is imported or executed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from truing.rails.static.findings import Finding

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(slots=True)
class ActionSource:
    """An action as it is defined in a file.

    `parameters` is None if any are accepted (``**kwargs``), or if the definition is not known.
    """

    name: str
    place: str
    parameters: frozenset[str] | None = None
    required: frozenset[str] = frozenset()
    takes_llm: bool = False


@dataclass(slots=True)
class ActionSources:
    """The actions of all files by name.

    `updates` holds the context variables that actions set. `open_ended` is true if actions are also
    registered in a way that cannot be read, so that an unknown name may exist after all.
    """

    actions: dict[str, ActionSource] = field(default_factory=dict)
    updates: set[str] = field(default_factory=set)
    open_ended: bool = False
    findings: list[Finding] = field(default_factory=list)


# Parameters that the runtime fills in.
_INJECTED_PARAMETERS = frozenset(
    {"events", "context", "config", "llm", "llms", "llm_task_manager", "kb", "self"}
)


def read_action_sources(files: list[str], root: Path | None) -> ActionSources:
    """Reads the files of `RailsConfig.code`; a file that cannot be read is a finding."""
    sources = ActionSources()
    for file in files:
        path = Path(file)
        is_inside = root is not None and path.is_relative_to(root)
        name = str(path.relative_to(root)) if is_inside and root is not None else path.name
        try:
            tree = ast.parse(path.read_bytes().decode("utf-8"))
        except SyntaxError as error:
            place = f"{name}:{error.lineno or 1}"
            sources.findings.append(Finding(place=place, kind="syntax", what=error.msg))
        except (UnicodeDecodeError, ValueError, OSError, RecursionError, MemoryError) as error:
            is_decoding = isinstance(error, UnicodeDecodeError)
            message = "not valid UTF-8" if is_decoding else str(error)
            sources.findings.append(Finding(place=f"{name}:1", kind="syntax", what=message))
        else:
            _FileReader(name, tree, sources).read()
    return sources


class _FileReader:
    """Collects the actions of one file."""

    def __init__(self, file: str, tree: ast.Module, sources: ActionSources) -> None:
        self.file = file
        self.tree = tree
        self.sources = sources
        self.decorator_names = {"action"}
        self.definitions: dict[str, _Definition] = {}

    def read(self) -> None:
        # Imports and definitions first: actions are registered by names that may come later.
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                self.decorator_names |= {
                    alias.asname for alias in node.names if alias.name == "action" and alias.asname
                }
            elif isinstance(node, _Definition):
                self.definitions.setdefault(node.name, node)
        for node in ast.walk(self.tree):
            if isinstance(node, _Definition):
                for name in self._find_decorated_names(node):
                    self._add_action(name, node)
            elif isinstance(node, ast.Call):
                self._read_call(node)

    def _find_decorated_names(self, definition: _Definition) -> Iterator[str]:
        """Yields the action's name for each ``@action`` decorator of a definition."""
        for decorator in definition.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            if (
                _called_name(call.func if call is not None else decorator)
                not in self.decorator_names
            ):
                continue
            name = _find_argument(call, "name", 1) if call is not None else None
            if name is None:
                yield definition.name
            elif isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value
            else:
                self.sources.open_ended = True

    def _add_action(self, name: str, definition: _Definition) -> None:
        place = f"{self.file}:{definition.lineno}"
        function = _find_function(definition)
        if function is None:
            self.sources.actions[name] = ActionSource(name, place)
            return
        arguments = function.args
        positional = [*arguments.posonlyargs, *arguments.args]
        without_default = positional[: len(positional) - len(arguments.defaults)]
        required = {argument.arg for argument in without_default}
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults):
            if default is None:
                required.add(argument.arg)
        parameters = frozenset(argument.arg for argument in (*positional, *arguments.kwonlyargs))
        self.sources.actions[name] = ActionSource(
            name,
            place,
            parameters=None if arguments.kwarg is not None else parameters,
            required=frozenset(required - _INJECTED_PARAMETERS),
            takes_llm=bool(parameters & {"llm", "llms"}),
        )

    def _read_call(self, call: ast.Call) -> None:
        name = _called_name(call.func)
        if name == "ActionResult":
            updates = _find_argument(call, "context_updates", 2)
            if isinstance(updates, ast.Dict):
                keys = [key.value for key in updates.keys if isinstance(key, ast.Constant)]
                self.sources.updates |= {str(key) for key in keys}
        elif name == "register_action":
            self._read_registration(call)
        elif name == "register_actions":
            self.sources.open_ended = True

    def _read_registration(self, call: ast.Call) -> None:
        """Reads ``app.register_action(function, "name")``."""
        target = _find_argument(call, "action", 0)
        name = _find_argument(call, "name", 1)
        definition = self.definitions.get(target.id) if isinstance(target, ast.Name) else None
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            if definition is not None:
                self._add_action(name.value, definition)
            else:
                place = f"{self.file}:{call.lineno}"
                self.sources.actions[name.value] = ActionSource(name.value, place)
        elif name is None and definition is not None:
            for action_name in [*self._find_decorated_names(definition)] or [definition.name]:
                self._add_action(action_name, definition)
        else:
            self.sources.open_ended = True


def _called_name(function: ast.expr) -> str:
    """Returns the last part of a dotted name; "" for any other expression."""
    if isinstance(function, ast.Name):
        return function.id
    return function.attr if isinstance(function, ast.Attribute) else ""


def _find_function(definition: _Definition) -> _Function | None:
    """Returns the function that an action runs: itself, or the method ``run`` of a class."""
    if not isinstance(definition, ast.ClassDef):
        return definition
    for node in definition.body:
        if isinstance(node, _Function) and node.name == "run":
            return node
    return None


def _find_argument(call: ast.Call, name: str, position: int) -> ast.expr | None:
    """Returns a call's argument, passed by name or by position."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    return call.args[position] if len(call.args) > position else None
