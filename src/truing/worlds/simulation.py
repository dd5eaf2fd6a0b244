"""Runs the tools of a world on a copy of its state, and says what they changed."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from msgspec.structs import replace

from truing.core.episodes import Environment, Scalar, StateChange, Value
from truing.core.types import Tool
from truing.worlds.fixed_tools import find_injected_description
from truing.worlds.world import Record, State, Step, World, read_reference

_MAX_ROWS = 10_000


class ToolError(Exception):
    """A call that the tool refuses; the message is written for the model."""


class Simulation:
    """One agent's copy of a world, with the injection of its task in it."""

    def __init__(self, world: World, environment: Environment | None = None) -> None:
        self.world = world
        self.world_name, self.world_hash = world.name, world.hash
        self._environment = environment
        self._start = starting_state(world, environment)
        self.state: State = {name: dict(rows) for name, rows in self._start.items()}
        self._calls = 0

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools as a model is told of them."""
        tools = tuple(tool.to_tool() for tool in self.world.tools.values())
        injected = find_injected_description(self._environment, list(self.world.tools))
        return tuple(
            replace(tool, description=f"{tool.description}\n{injected[tool.name]}")
            if tool.name in injected
            else tool
            for tool in tools
        )

    def call(self, name: str, arguments: str) -> str:
        """Executes a call and returns its result as text.

        Raises ArgumentError for wrong arguments and ToolError for a call that is refused; both
        change nothing. Raises KeyError if there is no such tool.
        """
        tool = self.world.tools[name]
        decoded = tool.schema.decode(arguments)
        self._calls += 1
        # The steps work on copies of the tables, so that a call that fails has changed nothing.
        draft = {table: dict(rows) for table, rows in self.state.items()}
        result: Any = None
        row: Record = {}
        for step in tool.row.steps:
            result = _Operation(step, decoded, row, draft, f"n{self._calls}").run()
            if step.operation == "get":
                row = result
        self.state = draft
        return tool.row.says if tool.row.effect != "read" else _encode(result)

    def changes(self) -> tuple[StateChange, ...]:
        """Returns the rows that differ from the beginning, in the order of tables and rows."""
        changes = []
        for table, rows in self._start.items():
            current = self.state[table]
            for row in dict.fromkeys((*rows, *current)):
                before, after = rows.get(row), current.get(row)
                if before is not after and before != after:
                    changes.append(StateChange(table=table, row=row, before=before, after=after))
        return tuple(changes)


def starting_state(world: World, environment: Environment | None) -> State:
    """Returns the state at the beginning of a task: the world's, with the injection if there is
    one.
    """
    state = world.initial_state()
    injection = environment.injection if environment is not None else None
    if injection is not None and injection.place != "tool_description":
        record = state[injection.table][injection.row]
        text = f"{record[injection.field]}\n\n{injection.written}"
        state[injection.table][injection.row] = {**record, injection.field: text}
    return state


def apply_changes(state: State, changes: tuple[StateChange, ...]) -> State:
    """Returns the state after some changes."""
    changed = {name: dict(rows) for name, rows in state.items()}
    for change in changes:
        rows = changed.setdefault(change.table, {})
        if change.after is None:
            rows.pop(change.row, None)
        else:
            rows[change.row] = change.after
    return changed


class _Operation:
    """One step of a call: its table in the draft of the state, and the values that it refers to."""

    def __init__(
        self, step: Step, arguments: dict[str, Any], row: Record, draft: State, new_id: str
    ) -> None:
        self._step, self._arguments, self._row = step, arguments, row
        self._rows, self._new_id = draft[step.table], new_id

    def run(self) -> Any:
        """Returns the record or the records of the step; raises ToolError."""
        return getattr(self, f"_{self._step.operation}")()

    def _value(self, text: Scalar) -> Value:
        reference = read_reference(text)
        if reference is None:
            return text
        name, field = reference
        return self._row[field] if name == "row" and field else self._arguments[name]

    def _selected(self) -> list[Record]:
        conditions = {field: self._value(text) for field, text in self._step.where.items()}
        return [
            record
            for record in self._rows.values()
            if all(v is None or _same(record[f], v) for f, v in conditions.items())
        ]

    def _select_fields(self, records: list[Record]) -> list[Record]:
        fields = self._step.fields
        return [{f: r[f] for f in fields} for r in records] if fields else records

    def _list(self) -> list[Record]:
        return self._select_fields(self._selected())

    def _count(self) -> int:
        return len(self._selected())

    def _search(self) -> list[Record]:
        words = str(self._value(self._step.text)).casefold().split()
        matches = [r for r in self._selected() if all(w in _encode(r).casefold() for w in words)]
        return self._select_fields(matches)

    def _get(self) -> Record:
        key = self._value(self._step.key)
        if str(key) not in self._rows:
            raise ToolError(self._step.missing or f"there is no {self._step.table} row {key!r}")
        return self._rows[str(key)]

    def _add(self) -> Record:
        if len(self._rows) >= _MAX_ROWS:
            raise ToolError(f"{self._step.table} is full")
        key = self._step.values.get("id")
        row_id = str(self._value(key)) if key is not None else self._unused_id()
        record = {field: self._value(text) for field, text in self._step.values.items()}
        self._rows[row_id] = {"id": row_id, **record}
        return self._rows[row_id]

    def _unused_id(self) -> str:
        # Two steps of one call may add to one table, and a world may have such a row at first.
        row_id, number = self._new_id, 1
        while row_id in self._rows:
            number += 1
            row_id = f"{self._new_id}.{number}"
        return row_id

    def _update(self) -> Record:
        record = dict(self._get())
        record |= {field: self._value(text) for field, text in self._step.values.items()}
        for field, amount in self._step.add_to.items():
            sign = -1 if amount.startswith("-") else 1
            added = self._value(amount.removeprefix("-"))
            number = record[field]
            assert isinstance(added, int | float) and isinstance(number, int | float)
            try:
                total = round(number + sign * added, 2)
            except OverflowError as error:
                raise ToolError(f"{field} would be too large") from error
            if not math.isfinite(total):
                raise ToolError(f"{field} would be too large")
            record[field] = total
        for field, minimum in self._step.minimum.items():
            number = record[field]
            if isinstance(number, int | float) and number < minimum:
                raise ToolError(f"{field} would be {number:g}, below {minimum:g}")
        self._rows[str(record["id"])] = record
        return record

    def _remove(self) -> Record:
        record = self._get()
        del self._rows[str(record["id"])]
        return record


def _same(value: Value, other: Value) -> bool:
    if isinstance(value, str) and isinstance(other, str):
        return value.casefold() == other.casefold()
    return value == other


def _encode(result: Any) -> str:
    return msgspec.json.encode(result).decode()
