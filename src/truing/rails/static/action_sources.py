"""The actions of a configuration's Python files, found by reading them as syntax trees: nothing is imported or run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from truing.rails.static.findings import Finding

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(slots=True)
class ActionSource:
    """An action as it stands in a file; `parameters` is none where it takes any (``**kwargs``)."""

    name: str
    place: str
    parameters: frozenset[str] | None = None
    required: frozenset[str] = frozenset()
    asks_llm: bool = False


@dataclass(slots=True)
class ActionSources:
    """All actions by name. `open_ended`: some are registered in a way that cannot be read, so an unknown name may exist."""

    actions: dict[str, ActionSource] = field(default_factory=dict)
    updates: set[str] = field(default_factory=set)
    open_ended: bool = False
    findings: list[Finding] = field(default_factory=list)


# Parameters that the runtime fills in.
GIVEN = frozenset({"events", "context", "config", "llm", "llms", "llm_task_manager", "kb", "self"})


def read_action_sources(files: list[str], root: Path | None) -> ActionSources:
    """Reads the files of `RailsConfig.code`."""
    found = ActionSources()
    for file in files:
        path = Path(file)
        name = (
            str(path.relative_to(root))
            if root is not None and path.is_relative_to(root)
            else path.name
        )
        try:
            text = path.read_bytes().decode("utf-8")
            tree = ast.parse(text)
        except SyntaxError as error:
            found.findings.append(
                Finding(place=f"{name}:{error.lineno or 1}", kind="syntax", what=f"{error.msg}")
            )
            continue
        except (UnicodeDecodeError, ValueError, OSError, RecursionError, MemoryError) as error:
            said = "not valid UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            found.findings.append(Finding(place=f"{name}:1", kind="syntax", what=said))
            continue
        _File(name, tree, found).read()
    return found


class _File:
    """One file's tree."""

    def __init__(self, name: str, tree: ast.Module, into: ActionSources) -> None:
        self.name, self.tree, self.into = name, tree, into
        self.marks = {"action"}
        self.functions: dict[str, Function | ast.ClassDef] = {}

    def read(self) -> None:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                self.marks |= {a.asname for a in node.names if a.name == "action" and a.asname}
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self.functions.setdefault(node.name, node)
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                for name in self._names(node):
                    self._add(name, node)
            elif isinstance(node, ast.Call):
                self._call(node)

    def _names(self, node: Function | ast.ClassDef) -> Iterator[str]:
        """The action's name if the node carries the mark."""
        for mark in node.decorator_list:
            call = mark if isinstance(mark, ast.Call) else None
            target = call.func if call is not None else mark
            word = (
                target.id
                if isinstance(target, ast.Name)
                else target.attr
                if isinstance(target, ast.Attribute)
                else ""
            )
            if word not in self.marks:
                continue
            given = _argument(call, "name", 1) if call is not None else None
            if given is None:
                yield node.name
            elif isinstance(given, ast.Constant) and isinstance(given.value, str):
                yield given.value
            else:
                self.into.open_ended = True

    def _add(self, name: str, node: Function | ast.ClassDef) -> None:
        function: Function | None = None
        if isinstance(node, ast.ClassDef):
            methods = [
                n for n in node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
            ]
            function = next((m for m in methods if m.name == "run"), None)
        else:
            function = node
        place = f"{self.name}:{node.lineno}"
        if function is None:
            self.into.actions[name] = ActionSource(name, place)
            return
        arguments = function.args
        every = [*arguments.posonlyargs, *arguments.args]
        optional = len(arguments.defaults)
        needed = {a.arg for a in every[: len(every) - optional]}
        needed |= {a.arg for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults) if d is None}
        names = frozenset(a.arg for a in (*every, *arguments.kwonlyargs))
        self.into.actions[name] = ActionSource(
            name,
            place,
            None if arguments.kwarg is not None else names,
            frozenset(needed - GIVEN),
            asks_llm=bool(names & {"llm", "llms"}),
        )

    def _call(self, call: ast.Call) -> None:
        word = (
            call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        )
        if word == "ActionResult":
            self._updates(_argument(call, "context_updates", 2))
        elif word == "register_action":
            target, given = _argument(call, "action", 0), _argument(call, "name", 1)
            known = self.functions.get(target.id) if isinstance(target, ast.Name) else None
            if isinstance(given, ast.Constant) and isinstance(given.value, str):
                if known is not None:
                    self._add(given.value, known)
                else:
                    self.into.actions[given.value] = ActionSource(
                        given.value, f"{self.name}:{call.lineno}"
                    )
            elif given is None and known is not None:
                for name in [*self._names(known)] or [known.name]:
                    self._add(name, known)
            else:
                self.into.open_ended = True
        elif word in ("register_actions", "register_action_param"):
            self.into.open_ended = self.into.open_ended or word == "register_actions"

    def _updates(self, given: ast.expr | None) -> None:
        if isinstance(given, ast.Dict):
            self.into.updates |= {str(k.value) for k in given.keys if isinstance(k, ast.Constant)}


def _argument(call: ast.Call | None, name: str, at: int) -> ast.expr | None:
    """A call's argument by name or place."""
    if call is None:
        return None
    by_name = next((k.value for k in call.keywords if k.arg == name), None)
    return by_name if by_name is not None else (call.args[at] if len(call.args) > at else None)
