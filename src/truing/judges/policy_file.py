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

import tomllib
from pathlib import Path
from typing import Any

from msgspec import Struct

from truing.core.errors import PlanError, did_you_mean
from truing.core.input_files import read_input_text

MAX_CATEGORIES = 64
MAX_EXAMPLES = 32
MAX_CHARACTERS = 24_000
"""Of all texts of a policy together: about 6,000 tokens, which every question repeats."""

_KEYS = ("name", "title", "description", "category", "example")
_CATEGORY_KEYS = ("id", "name", "definition", "allowed")
_EXAMPLE_KEYS = ("prompt", "answer", "breaks")


class PolicyCategory(Struct, frozen=True, kw_only=True):
    """One thing that the policy forbids; `allowed` says what is close to it and permitted."""

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
    """Reads a policy file; raises PlanError with all its faults."""
    try:
        text = read_input_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: cannot be read as a policy: {error}") from error
    return parse_policy(str(path), text)


def parse_policy(path: str, text: str) -> Policy:
    """Parses a policy from TOML text; `path` is only used in messages.

    Raises PlanError with all faults together.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"{path}: {error}") from error
    faults = _unknown_keys(path, data, _KEYS)
    name = _text(data, "name", path, faults)
    description = _text(data, "description", path, faults, required=False)
    _text(data, "title", path, faults, required=False)
    categories = [
        _read_category(f"{path}: category[{index}]", table, faults)
        for index, table in enumerate(_tables(data, "category", path, faults, MAX_CATEGORIES))
    ]
    if not categories and not faults:
        faults.append(f"{path}: no [[category]] tables: a policy forbids at least one thing")
    ids = [category.id for category in categories if category.id]
    faults += [
        f"{path}: the category id {id_!r} occurs more than once"
        for id_ in sorted({i.casefold() for i in ids})
        if [i.casefold() for i in ids].count(id_) > 1
    ]
    examples = [
        _read_example(f"{path}: example[{index}]", table, ids, faults)
        for index, table in enumerate(_tables(data, "example", path, faults, MAX_EXAMPLES))
    ]
    if len(text) > MAX_CHARACTERS:
        faults.append(f"{path}: {len(text):,} characters; at most {MAX_CHARACTERS:,}")
    if faults:
        raise PlanError(*faults)
    return Policy(
        name=name,
        description=description,
        categories=tuple(categories),
        examples=tuple(examples),
    )


def _read_category(place: str, table: dict[str, Any], faults: list[str]) -> PolicyCategory:
    faults += _unknown_keys(place, table, _CATEGORY_KEYS)
    id_ = _text(table, "id", place, faults)
    # Ids stand in replies of the judge model, in a list that semicolons and commas divide.
    if any(mark in id_ for mark in ";,:\n"):
        faults.append(f"{place}.id: {id_[:40]!r} holds a comma, colon, semicolon or line break")
    return PolicyCategory(
        id=id_,
        name=_text(table, "name", place, faults),
        definition=_text(table, "definition", place, faults),
        allowed=_text(table, "allowed", place, faults, required=False),
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
        answer=_text(table, "answer", place, faults),
        prompt=_text(table, "prompt", place, faults, required=False),
        breaks=tuple(dict.fromkeys(breaks)),
    )


def _tables(
    data: dict[str, Any], key: str, path: str, faults: list[str], most: int
) -> list[dict[str, Any]]:
    tables = data.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        faults.append(f"{path}: {key}: expected [[{key}]] tables")
        return []
    if len(tables) > most:
        faults.append(f"{path}: {len(tables)} [[{key}]] tables; at most {most}")
        return []
    return tables


def _text(
    table: dict[str, Any], key: str, place: str, faults: list[str], *, required: bool = True
) -> str:
    value = table.get(key)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or not value.strip():
        what = "missing" if value is None else "expected text that is not blank"
        faults.append(f"{place}{'.' if '[' in place else ': '}{key}: {what}")
        return ""
    return value.strip()


def _unknown_keys(place: str, table: dict[str, Any], known: tuple[str, ...]) -> list[str]:
    separator = "." if "[" in place else ": "
    return [
        f"{place}{separator}{key}: unknown key{did_you_mean(key, known)}"
        for key in table
        if key not in known
    ]
