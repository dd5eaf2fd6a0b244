"""Harm categories, read from TOML: the 14 of BeaverTails by default, a user's own file anywhere.

A taxonomy file has `name`, optional `title` and `source`, and `[[category]]` tables with `id`, `name`, `definition`.
A crosswalk file has `source` (the label set), `target` (the taxonomy) and `[map]` with label = [category ids] (an empty
list = explicitly unmapped).
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path

from msgspec import Struct

from truing.core.errors import PlanError, did_you_mean


class HarmCategory(Struct, frozen=True):
    """One category. `id` is the published id; `short` is what specs, flags and gates call it."""

    id: str
    name: str
    definition: str

    @property
    def short(self) -> str:
        """The part of the id before the first comma."""
        return self.id.split(",", 1)[0]


class Taxonomy(Struct, frozen=True):
    """An ordered set of categories with distinct ids and distinct short names."""

    name: str
    categories: tuple[HarmCategory, ...]
    title: str = ""
    source: str = ""

    @property
    def ids(self) -> tuple[str, ...]:
        """The published ids, in order."""
        return tuple(c.id for c in self.categories)

    def find(self, name: str) -> HarmCategory:
        """The category of a published id or short name; PlanError with the nearest name otherwise."""
        for category in self.categories:
            if name in (category.id, category.short):
                return category
        valid = [c.short for c in self.categories]
        raise PlanError(
            f"taxonomy {self.name}: there is no category {name!r}{did_you_mean(name, valid)}"
        )


class Crosswalk(Struct, frozen=True):
    """Maps the labels of one published set onto a taxonomy; a label that maps to nothing has an empty tuple."""

    source: str
    target: str
    map: dict[str, tuple[str, ...]]

    def __call__(self, label: str) -> tuple[str, ...]:
        """Category ids of a label; PlanError for a label that the crosswalk does not know."""
        if label not in self.map:
            raise PlanError(
                f"crosswalk {self.source}: unknown label {label!r}{did_you_mean(label, self.map)}"
            )
        return self.map[label]


def _read(path: str, text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"{path}: {error}") from error


def parse_taxonomy(path: str, text: str) -> Taxonomy:
    """A taxonomy from TOML text; all faults together in one PlanError."""
    data = _read(path, text)
    faults: list[str] = []
    made: list[HarmCategory] = []
    rows = data.get("category")
    if not isinstance(rows, list) or not rows:
        raise PlanError(f"{path}: no [[category]] tables")
    for at, row in enumerate(rows):
        keys = ("id", "name", "definition")
        missing = [k for k in keys if not isinstance(row.get(k), str) or not row[k].strip()]
        unknown = [k for k in row if k not in keys]
        faults += [f"{path}: category[{at}].{k}: missing or empty" for k in missing]
        faults += [
            f"{path}: category[{at}].{k}: unknown key{did_you_mean(k, keys)}" for k in unknown
        ]
        if not missing:
            made.append(HarmCategory(row["id"], row["name"], row["definition"]))
    for label, names in (("id", [c.id for c in made]), ("short id", [c.short for c in made])):
        doubled = sorted({n for n in names if names.count(n) > 1})
        faults += [f"{path}: the {label} {n!r} stands more than once" for n in doubled]
    if not isinstance(data.get("name"), str):
        faults.append(f"{path}: name: missing")
    if faults:
        raise PlanError(*dict.fromkeys(faults))
    return Taxonomy(
        str(data["name"]), tuple(made), str(data.get("title", "")), str(data.get("source", ""))
    )


@cache
def load_taxonomy(name: str = "beavertails") -> Taxonomy:
    """A taxonomy that ships (by name) or a user's own (a path that ends in .toml)."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise PlanError(f"{name}: no such taxonomy file")
        return parse_taxonomy(name, path.read_text(encoding="utf-8"))
    root = files("truing") / "resources" / "taxonomies"
    found = root / f"{name}.toml"
    if not found.is_file():
        valid = [p.name[:-5] for p in root.iterdir() if p.name.endswith(".toml")]
        raise PlanError(f"there is no taxonomy {name!r}{did_you_mean(name, valid)}")
    return parse_taxonomy(f"{name}.toml", found.read_text(encoding="utf-8"))


@cache
def load_crosswalk(source: str) -> Crosswalk:
    """The crosswalk that ships for a label set, `taxonomies/crosswalks/<source>.toml`."""
    root = files("truing") / "resources" / "taxonomies" / "crosswalks"
    found = root / f"{source}.toml"
    if not found.is_file():
        valid = [p.name[:-5] for p in root.iterdir() if p.name.endswith(".toml")]
        raise PlanError(f"there is no crosswalk {source!r}{did_you_mean(source, valid)}")
    data = _read(f"{source}.toml", found.read_text(encoding="utf-8"))
    target = load_taxonomy(str(data.get("target", "beavertails")))
    table = data.get("map")
    if not isinstance(table, dict):
        raise PlanError(f"{source}.toml: no [map] table")
    faults = [
        f"{source}.toml: map.{label}: {i!r} is no category of {target.name}"
        for label, ids in table.items()
        for i in ids
        if i not in target.ids
    ]
    if faults:
        raise PlanError(*faults)
    return Crosswalk(
        str(data.get("source", source)), target.name, {k: tuple(v) for k, v in table.items()}
    )
