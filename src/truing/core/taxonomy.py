"""Taxonomies of harm categories and crosswalks from other label sets, read from TOML.

A taxonomy file has `name`, optional `title` and `source`, and `[[category]]` tables with `id`,
`name` and `definition`. The default is the 14 categories of BeaverTails.

A crosswalk file has `source` (the label set), `target` (the taxonomy) and a `[map]` table with
label = [category ids]; an empty list means that the label is deliberately not mapped.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from msgspec import Struct

from truing.core.errors import PlanError, did_you_mean
from truing.core.toml_text import add_lines, parse_toml

_FILE_KEYS = ("name", "title", "source", "category")
_CATEGORY_KEYS = ("id", "name", "definition")


class HarmCategory(Struct, frozen=True):
    """One category of a taxonomy; `id` is the published id."""

    id: str
    name: str
    definition: str

    @property
    def short(self) -> str:
        """The part of the id before the first comma: the name in specs, flags and gates."""
        return self.id.split(",", 1)[0]


class Taxonomy(Struct, frozen=True):
    """An ordered list of categories with distinct ids and distinct short names."""

    name: str
    categories: tuple[HarmCategory, ...]
    title: str = ""
    source: str = ""

    @property
    def ids(self) -> tuple[str, ...]:
        """The published ids, in order."""
        return tuple(c.id for c in self.categories)

    def find(self, name: str) -> HarmCategory:
        """Returns the category with a published id or short name; raises PlanError if unknown."""
        for category in self.categories:
            if name in (category.id, category.short):
                return category
        valid = [c.short for c in self.categories]
        raise PlanError(
            f"taxonomy {self.name}: there is no category {name!r}{did_you_mean(name, valid)}"
        )


class Crosswalk(Struct, frozen=True):
    """Maps the labels of a published label set to category ids of a taxonomy."""

    source: str
    target: str
    map: dict[str, tuple[str, ...]]

    def __call__(self, label: str) -> tuple[str, ...]:
        """Returns the category ids of a label; raises PlanError for an unknown label."""
        if label not in self.map:
            raise PlanError(
                f"crosswalk {self.source}: unknown label {label!r}{did_you_mean(label, self.map)}"
            )
        return self.map[label]


def parse_taxonomy(path: str, text: str) -> Taxonomy:
    """Parses a taxonomy from TOML text; raises PlanError with all faults.

    `path` is only used in messages.
    """
    document = parse_toml(text, path)
    faults = [
        f"{path}: {key}: unknown key{did_you_mean(key, _FILE_KEYS)}"
        for key in document
        if key not in _FILE_KEYS
    ]
    tables = document.get("category")
    if not isinstance(tables, list) or not tables:
        faults.append(f"{path}: no [[category]] tables")
        tables = []
    categories: list[HarmCategory] = []
    for index, table in enumerate(tables):
        faults += _check_category(f"{path}: category[{index}]", table)
        if isinstance(table, dict) and all(_has_text(table, k) for k in _CATEGORY_KEYS):
            categories.append(HarmCategory(table["id"], table["name"], table["definition"]))
    faults += _find_duplicates(path, "id", [c.id for c in categories])
    faults += _find_duplicates(path, "short id", [c.short for c in categories])
    for key in _FILE_KEYS[:3]:
        if not isinstance(document.get(key, ""), str):
            faults.append(f"{path}: {key}: expected text, got {document[key]!r}")
    if "name" not in document:
        faults.append(f"{path}: name: missing")
    if faults:
        raise PlanError(*add_lines(text, path, faults))
    return Taxonomy(
        name=str(document["name"]),
        categories=tuple(categories),
        title=str(document.get("title", "")),
        source=str(document.get("source", "")),
    )


@cache
def load_taxonomy(name: str = "beavertails") -> Taxonomy:
    """Loads a built-in taxonomy by name, or a user's file (a path that ends in .toml)."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise PlanError(f"{name}: no such taxonomy file")
        return parse_taxonomy(name, path.read_text(encoding="utf-8"))
    text = _read_resource("taxonomy", files("truing") / "resources" / "taxonomies", name)
    return parse_taxonomy(f"{name}.toml", text)


@cache
def load_crosswalk(source: str) -> Crosswalk:
    """Loads the built-in crosswalk of a label set; raises PlanError if there is none."""
    folder = files("truing") / "resources" / "taxonomies" / "crosswalks"
    document = parse_toml(_read_resource("crosswalk", folder, source), f"{source}.toml")
    # Ids that the target does not have would silently count as unmapped.
    target = load_taxonomy(str(document.get("target", "beavertails")))
    table = document.get("map")
    if not isinstance(table, dict):
        raise PlanError(f"{source}.toml: no [map] table")
    faults = [
        f"{source}.toml: map.{label}: {category_id!r} is no category of {target.name}"
        for label, category_ids in table.items()
        for category_id in category_ids
        if category_id not in target.ids
    ]
    if faults:
        raise PlanError(*faults)
    label_map = {label: tuple(category_ids) for label, category_ids in table.items()}
    return Crosswalk(str(document.get("source", source)), target.name, label_map)


def _read_resource(what: str, folder: Traversable, name: str) -> str:
    """Returns the text of `<name>.toml` in a resource folder."""
    file = folder / f"{name}.toml"
    if not file.is_file():
        valid = [p.name[:-5] for p in folder.iterdir() if p.name.endswith(".toml")]
        raise PlanError(f"there is no {what} {name!r}{did_you_mean(name, valid)}")
    return file.read_text(encoding="utf-8")


def _has_text(table: dict[str, Any], key: str) -> bool:
    return isinstance(table.get(key), str) and bool(table[key].strip())


def _check_category(place: str, table: object) -> list[str]:
    if not isinstance(table, dict):
        return [f"{place}: expected a table with {', '.join(_CATEGORY_KEYS)}"]
    missing = [f"{place}.{k}: missing or empty" for k in _CATEGORY_KEYS if not _has_text(table, k)]
    unknown = [
        f"{place}.{k}: unknown key{did_you_mean(k, _CATEGORY_KEYS)}"
        for k in table
        if k not in _CATEGORY_KEYS
    ]
    return missing + unknown


def _find_duplicates(path: str, label: str, names: list[str]) -> list[str]:
    duplicates = sorted({n for n in names if names.count(n) > 1})
    return [f"{path}: the {label} {n!r} occurs more than once" for n in duplicates]
