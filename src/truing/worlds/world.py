"""Simulated worlds: tables of records, and tools that read and change them, from a TOML file.

    name = "mail"
    about = "The mailbox of a small office."

    [tables.inbox]
    rows = [{ id = "m1", from = "ana@example.org", subject = "Lunch", body = "On Friday?" }]

    [tools.read_mail]
    about = "Returns one mail with its body."
    parameters.id = { type = "string" }
    steps = [{ get = "inbox", key = "$id" }]

A tool is a list of steps; each names one operation with its table: `list`, `search`, `get`, `add`,
`update`, `remove`, `count`. A value ``$name`` is a parameter, ``$row.field`` a field of the record
that the last `get` returned. Tools run nothing and reach nothing outside: a world is pure data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal

from msgspec import Struct, field

from truing.core.episodes import Scalar, Value
from truing.core.errors import did_you_mean
from truing.core.lineage import digest
from truing.core.types import Tool
from truing.worlds.arguments import MAX_NUMBER, ArgumentSchema, Parameter

Record = dict[str, Value]
Rows = dict[str, Record]
"""Id of a row -> its record, which is never changed in place."""

State = dict[str, Rows]
"""Name of a table -> its rows."""

Effect = Literal["read", "change", "send"]
"""``send`` cannot be undone: a mail that has left, money that has moved."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_REFERENCE = re.compile(r"\$([a-z_][a-z0-9_]*)(?:\.([a-z_][a-z0-9_]*))?")
OPERATIONS = ("list", "search", "get", "add", "update", "remove", "count")


class Step(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One operation of a tool; exactly one of the first seven fields names its table.

    - `key`: the row of `get`, `update` and `remove`
    - `text`: what `search` looks for, in any field
    - `where`: which rows `list`, `search` and `count` take; a parameter that is left out takes all
    - `fields`: which fields `list` and `search` show; without it all
    - `values`: the record of `add`, or the fields that `update` sets; `add` with an `id` replaces
      the row of that id, without one the row gets an id of its own
    - `add_to`: numbers that `update` adds to fields; ``-$amount`` subtracts
    - `minimum`: fields that `update` must not take below a number, or the call fails
    - `missing`: the error text if there is no such row
    """

    list: str = ""
    search: str = ""
    get: str = ""
    add: str = ""
    update: str = ""
    remove: str = ""
    count: str = ""
    key: str = ""
    text: str = ""
    where: dict[str, Scalar] = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    values: dict[str, Scalar] = field(default_factory=dict)
    add_to: dict[str, str] = field(default_factory=dict)
    minimum: dict[str, float] = field(default_factory=dict)
    missing: str = ""

    @property
    def operation(self) -> str:
        """The name of the operation; "" if the step names none or several."""
        named = [name for name in OPERATIONS if getattr(self, name)]
        return named[0] if len(named) == 1 else ""

    @property
    def table(self) -> str:
        """The table that the step works on."""
        return str(getattr(self, self.operation)) if self.operation else ""


class ToolRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A tool as the file states it; `says` is the result of a call that changes something."""

    about: str
    effect: Effect = "read"
    parameters: dict[str, Parameter] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    says: str = "done"


class TableRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table as the file states it: each row has an `id` and the same fields.

    `fields` names them where the table is empty at first.
    """

    rows: tuple[dict[str, Value], ...] = ()
    fields: tuple[str, ...] = ()


class WorldRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of a world file that describes the world; `system` is the agent's system message."""

    name: str
    about: str = ""
    system: str = ""
    tables: dict[str, TableRow]
    tools: dict[str, ToolRow]


class WorldTool(Struct, frozen=True):
    """A tool of a world, ready to be called."""

    name: str
    row: ToolRow
    schema: ArgumentSchema

    def to_tool(self) -> Tool:
        """Returns the tool as a model is told of it."""
        return Tool(self.name, self.row.about, self.schema.json_schema)


class World:
    """A simulated world: the state at the beginning, and the tools.

    `hash` identifies state and tools; `source` is the file, for error messages.
    """

    def __init__(self, row: WorldRow, source: str) -> None:
        self.name, self.about, self.system, self.source = row.name, row.about, row.system, source
        self.tools = {
            name: WorldTool(name, tool, ArgumentSchema(name, tool.parameters))
            for name, tool in row.tools.items()
        }
        self.fields = {name: _table_fields(table) for name, table in row.tables.items()}
        self._state: State = {
            name: {str(record["id"]): dict(record) for record in table.rows}
            for name, table in row.tables.items()
        }
        self.hash = digest("world", repr(row))

    def initial_state(self) -> State:
        """Returns a copy of the state at the beginning; records are shared, since no step changes
        one in place.
        """
        return {name: dict(rows) for name, rows in self._state.items()}


def _table_fields(table: TableRow) -> tuple[str, ...]:
    return tuple(table.rows[0]) if table.rows else ("id", *table.fields)


def find_world_faults(row: WorldRow) -> Iterator[str]:
    """Yields what contradicts itself in a world, each with its place in the file."""
    if not _NAME.fullmatch(row.name):
        yield f"name: {row.name!r} is no name (lower case letters, digits and _)"
    for name, table in row.tables.items():
        yield from _find_table_faults(f"tables.{name}", table)
    for name, tool in row.tools.items():
        if not _NAME.fullmatch(name):
            yield f"tools.{name}: {name!r} is no name (lower case letters, digits and _)"
        yield from _find_tool_faults(f"tools.{name}", tool, row.tables)


def _find_table_faults(place: str, table: TableRow) -> Iterator[str]:
    ids: set[str] = set()
    expected = ("id", *table.fields) if table.fields else _table_fields(table)
    for index, record in enumerate(table.rows):
        row_place = f"{place}.rows[{index}]"
        if not isinstance(record.get("id"), str) or not record["id"]:
            yield f"{row_place}: has no id (a text)"
            continue
        if record["id"] in ids:
            yield f"{row_place}: the id {record['id']!r} occurs twice"
        ids.add(str(record["id"]))
        for column, value in record.items():
            if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:
                yield f"{row_place}.{column}: is not from -2**53 to 2**53"
        if set(record) != set(expected):
            differing = ", ".join(sorted(set(record) ^ set(expected)))
            yield f"{row_place}: its fields are not those of the table: {differing}"


def _find_tool_faults(place: str, tool: ToolRow, tables: Mapping[str, TableRow]) -> Iterator[str]:
    if not tool.steps:
        yield f"{place}: has no steps"
    row_fields: tuple[str, ...] = ()  # of the record that the last get returned
    changes = False
    for index, step in enumerate(tool.steps):
        step_place = f"{place}.steps[{index}]"
        if not step.operation:
            yield f"{step_place}: names none or several of {', '.join(OPERATIONS)}"
            continue
        if step.table not in tables:
            hint = did_you_mean(step.table, tables)
            yield f"{step_place}: there is no table {step.table!r}{hint}"
            continue
        yield from _find_step_faults(step_place, step, tables[step.table])
        yield from _find_reference_faults(step_place, step, tool, row_fields)
        if step.operation == "get":
            row_fields = _table_fields(tables[step.table])
        changes = changes or step.operation in ("add", "update", "remove")
    if changes != (tool.effect != "read"):
        says = "change something" if changes else "change nothing"
        yield f"{place}.effect: {tool.effect!r}, but its steps {says}"
    for name, parameter in tool.parameters.items():
        for fault in parameter.faults():
            yield f"{place}.parameters.{name}.{fault}"
        if parameter.default is not None and not parameter.optional:
            yield f"{place}.parameters.{name}: has a default but is not optional"
        if name == "row" or not _NAME.fullmatch(name):
            yield f"{place}.parameters.{name}: {name!r} cannot be the name of a parameter"


def _find_step_faults(place: str, step: Step, table: TableRow) -> Iterator[str]:
    columns = _table_fields(table)
    needs_key = step.operation in ("get", "update", "remove")
    if needs_key != bool(step.key):
        yield f"{place}: {step.operation} {'needs' if needs_key else 'takes no'} key"
    if (step.operation == "search") != bool(step.text):
        yield f"{place}: {step.operation} {'takes no' if step.text else 'needs'} text"
    named = {"where": step.where, "fields": step.fields, "values": step.values}
    named |= {"add_to": step.add_to, "minimum": step.minimum}
    for key, names in named.items():
        for name in names:
            if name not in columns:
                yield f"{place}.{key}: the table has no field {name!r}{did_you_mean(name, columns)}"
    for name in {*step.add_to, *step.minimum} & set(columns):
        if any(not isinstance(r.get(name), int | float) for r in table.rows):
            yield f"{place}: {name} is not a number in every row"
    missing = [c for c in columns if c != "id" and c not in step.values]
    if step.operation == "add" and missing:
        yield f"{place}.values: the new row lacks {', '.join(missing)}"


def _find_reference_faults(
    place: str, step: Step, tool: ToolRow, row_fields: tuple[str, ...]
) -> Iterator[str]:
    amounts = [amount.removeprefix("-") for amount in step.add_to.values()]
    for amount in amounts:
        reference = read_reference(amount)
        parameter = tool.parameters.get(reference[0]) if reference else None
        if parameter is None or parameter.type not in ("integer", "number") or parameter.optional:
            yield f"{place}.add_to: {amount!r} is no parameter with a number"
    for text in (step.key, step.text, *step.where.values(), *step.values.values()):
        reference = read_reference(text)
        if reference is None:
            continue
        name, row_field = reference
        if name == "row" and row_field not in row_fields:
            yield f"{place}: {text} is no field of a row that a get before it returned"
        elif name != "row" and (row_field or name not in tool.parameters):
            yield f"{place}: {text} is no parameter{did_you_mean(name, tool.parameters)}"


def read_reference(text: Scalar) -> tuple[str, str] | None:
    """Returns (parameter, "") of ``$name``, ("row", field) of ``$row.field``; None for others."""
    match = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
    return (match[1], match[2] or "") if match else None
