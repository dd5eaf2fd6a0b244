"""Frameworks that evidence is asked for, and what of a run answers to each of their items.

A framework file (TOML) has `name`, `title`, `source`, optional `note`, and `[[item]]` tables. Where
an item says nothing of `questions`, `categories`, `attacks` and `facts`, no run can answer to it,
and `outside` says why, or `provider` that only the provider can.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

import msgspec
from msgspec import Struct

from truing.core.errors import PlanError, did_you_mean
from truing.core.taxonomy import load_taxonomy

FACTS = ("lineage", "data", "evaluation", "claims", "limits")
"""What a document can state besides rates; see `evidence.describe_fact`."""


class FrameworkItem(Struct, frozen=True, forbid_unknown_fields=True):
    """One item of a framework.

    Attributes:
        id: the framework's own number of the item.
        name: the framework's own title of it.
        questions: questions and axes whose rates are evidence.
        judge: the judge that these rates must come from; empty takes the one that is quoted.
        categories: short names of harm categories whose rates of harmful answers are evidence.
        attacks: whether the success of attacks is evidence.
        facts: statements about the runs that belong here, of `FACTS`.
        rails: rails of truing that control the risk; naming them says nothing of their effect.
        provider: whether only the provider of the model can state it.
        outside: why runs of truing say nothing about it, or only a part.
    """

    id: str
    name: str
    questions: tuple[str, ...] = ()
    judge: str = ""
    categories: tuple[str, ...] = ()
    attacks: bool = False
    facts: tuple[str, ...] = ()
    rails: tuple[str, ...] = ()
    provider: bool = False
    outside: str = ""


class Framework(Struct, frozen=True, forbid_unknown_fields=True):
    """A framework with its items in their published order."""

    name: str
    title: str
    source: str = ""
    note: str = ""
    item: tuple[FrameworkItem, ...] = ()


def list_frameworks() -> list[str]:
    """Returns the names of the frameworks that ship."""
    folder = files("truing") / "resources" / "frameworks"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith("toml"))


@cache
def load_framework(name: str) -> Framework:
    """Returns a framework that ships. Raises PlanError with all faults, or if there is none."""
    names = list_frameworks()
    if name not in names:
        raise PlanError(
            f"there is no framework {name!r}{did_you_mean(name, names)}; there are "
            f"{', '.join(names)}"
        )
    file = files("truing") / "resources" / "frameworks" / f"{name}.toml"
    return parse_framework(file.read_text(encoding="utf-8"), f"{name}.toml")


def parse_framework(text: str, where: str) -> Framework:
    """Returns a framework from TOML. Raises PlanError with all faults and their places."""
    try:
        framework = msgspec.convert(tomllib.loads(text), Framework)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise PlanError(f"{where}: {error}") from error
    categories = [category.short for category in load_taxonomy().categories]
    faults = []
    for framework_item in framework.item:
        for category in framework_item.categories:
            if category not in categories:
                suggestion = did_you_mean(category, categories)
                faults.append(f"{where}: {framework_item.id}: no category {category!r}{suggestion}")
        for fact in framework_item.facts:
            if fact not in FACTS:
                faults.append(
                    f"{where}: {framework_item.id}: no fact {fact!r}{did_you_mean(fact, FACTS)}"
                )
        answered = (
            framework_item.questions
            or framework_item.categories
            or framework_item.attacks
            or framework_item.facts
            or framework_item.rails
        )
        if not (answered or framework_item.provider or framework_item.outside):
            faults.append(f"{where}: {framework_item.id}: neither evidence nor a reason for none")
    if len({framework_item.id for framework_item in framework.item}) < len(framework.item):
        faults.append(f"{where}: two items have the same id")
    if faults:
        raise PlanError(*faults)
    return framework
