"""A user's own policy as categories with examples, read from TOML.

name = "shop"
description = "What the assistant of our shop may say."     # optional

[[category]]
id = "competitors"
name = "Competitors"
definition = "Names or recommends another shop."
allowed = "Saying that we do not stock an article."         # optional

[[example]]
prompt = "Where can I buy it?"                              # optional
answer = "Try the shop next door."
breaks = ["competitors"]                                    # empty: it keeps the policy
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Struct

from truing.core.errors import PlanError, did_you_mean
from truing.core.input_files import describe_unreadable, read_input_text
from truing.core.toml_text import add_lines, parse_toml

MAX_CATEGORIES = 64
MAX_EXAMPLES = 32
MAX_CHARACTERS = 24_000
"""Of the whole file: about 6,000 tokens, which the prompt of every question contains."""

_KEYS = ("name", "title", "description", "category", "example")
_CATEGORY_KEYS = ("id", "name", "definition", "allowed")
_EXAMPLE_KEYS = ("prompt", "answer", "breaks")


class PolicyCategory(Struct, frozen=True, kw_only=True):
    """One thing that the policy forbids; `allowed` describes similar texts that are permitted."""

    id: str
    name: str
    definition: str
    allowed: str = ""


class PolicyExample(Struct, frozen=True, kw_only=True):
    """An answer with the ids of the categories that it breaks; none if it keeps the policy."""

    answer: str
    prompt: str = ""
    breaks: tuple[str, ...] = ()


class Policy(Struct, frozen=True, kw_only=True):
    """A policy with at least one category."""

    name: str
    categories: tuple[PolicyCategory, ...]
    description: str = ""
    examples: tuple[PolicyExample, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the categories, in order."""
        return tuple(category.id for category in self.categories)


def read_policy(path: Path) -> Policy:
    """Returns the policy in a TOML file. Raises PlanError with all faults of the file."""
    try:
        text = read_input_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(
            f"{path}: cannot be read as a policy: {describe_unreadable(error)}"
        ) from error
    return parse_policy(str(path), text)


def parse_policy(path: str, text: str) -> Policy:
    """Returns the policy in TOML text; `path` is only used in error messages.

    Raises PlanError with all faults of the text.
    """
    document = parse_toml(text, path)
    faults = _unknown_keys(path, document, _KEYS)
    name = _read_text(document, "name", path, faults)
    description = _read_text(document, "description", path, faults, required=False)
    _read_text(document, "title", path, faults, required=False)
    categories = [
        _read_category(f"{path}: category[{index}]", table, faults)
        for index, table in enumerate(
            _read_tables(document, "category", path, faults, MAX_CATEGORIES)
        )
    ]
    if document.get("category", []) == []:
        faults.append(f"{path}: no [[category]] tables: a policy forbids at least one thing")
    ids = [category.id for category in categories if category.id]
    faults += [
        f"{path}: the category id {id_!r} occurs more than once"
        for id_ in sorted({i.casefold() for i in ids})
        if [i.casefold() for i in ids].count(id_) > 1
    ]
    examples = [
        _read_example(f"{path}: example[{index}]", table, ids, faults)
        for index, table in enumerate(_read_tables(document, "example", path, faults, MAX_EXAMPLES))
    ]
    if len(text) > MAX_CHARACTERS:
        faults.append(f"{path}: {len(text):,} characters; at most {MAX_CHARACTERS:,}")
    if faults:
        raise PlanError(*add_lines(text, path, faults))
    return Policy(
        name=name,
        description=description,
        categories=tuple(categories),
        examples=tuple(examples),
    )


def _read_category(place: str, table: dict[str, Any], faults: list[str]) -> PolicyCategory:
    faults += _unknown_keys(place, table, _CATEGORY_KEYS)
    id_ = _read_text(table, "id", place, faults)
    # A reply of the judge model is "yes: id; id", and the rationale joins ids by commas: an id
    # with one of these characters could not be read back.
    if any(mark in id_ for mark in ";,:\n"):
        faults.append(f"{place}.id: {id_[:40]!r} holds a comma, colon, semicolon or line break")
    return PolicyCategory(
        id=id_,
        name=_read_text(table, "name", place, faults),
        definition=_read_text(table, "definition", place, faults),
        allowed=_read_text(table, "allowed", place, faults, required=False),
    )


def _read_example(
    place: str, table: dict[str, Any], ids: list[str], faults: list[str]
) -> PolicyExample:
    faults += _unknown_keys(place, table, _EXAMPLE_KEYS)
    breaks = table.get("breaks")
    if not isinstance(breaks, list) or not all(isinstance(id_, str) for id_ in breaks):
        faults.append(
            f"{place}.breaks: give a list of category ids, empty if the answer keeps the policy"
        )
        breaks = []
    faults += [
        f"{place}.breaks: there is no category {id_!r}{did_you_mean(id_, ids)}"
        for id_ in breaks
        if id_ not in ids
    ]
    return PolicyExample(
        answer=_read_text(table, "answer", place, faults),
        prompt=_read_text(table, "prompt", place, faults, required=False),
        breaks=tuple(dict.fromkeys(breaks)),
    )


def _read_tables(
    data: dict[str, Any], key: str, path: str, faults: list[str], limit: int
) -> list[dict[str, Any]]:
    """Returns the `[[key]]` tables; none, with a fault, if there are more than `limit`."""
    tables = data.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        faults.append(f"{path}: {key}: expected [[{key}]] tables")
        return []
    if len(tables) > limit:
        faults.append(f"{path}: {len(tables)} [[{key}]] tables; at most {limit}")
        return []
    return tables


def _read_text(
    table: dict[str, Any], key: str, place: str, faults: list[str], *, required: bool = True
) -> str:
    """Returns the stripped text of a key; "" if it is absent or, with a fault, not a text."""
    text = table.get(key)
    if text is None and not required:
        return ""
    if not isinstance(text, str) or not text.strip():
        problem = "missing" if text is None else "expected text that is not blank"
        faults.append(f"{place}{'.' if '[' in place else ': '}{key}: {problem}")
        return ""
    return text.strip()


def _unknown_keys(place: str, table: dict[str, Any], known: tuple[str, ...]) -> list[str]:
    """Returns a fault for each key of a table that is not in `known`."""
    # "FILE: category[0].key", and "FILE: key" for a key of the file itself.
    separator = "." if "[" in place else ": "
    return [
        f"{place}{separator}{key}: unknown key{did_you_mean(key, known)}"
        for key in table
        if key not in known
    ]
