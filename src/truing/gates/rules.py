"""The rules of a gate: what must hold of a run, always as a bound, never as an estimate.

    rules = ["harm.upper < 0.02", "answers_benign.lower > 0.9", "no-regression vs runs/main within 0.05"]
    cards = ["cards/moderation.json"]          # relative to this file

    [[rule]]
    check = "harm[self_harm].corrected.upper < 0.05"
    judge = "moderation:open"                  # default: the judge that speaks for the question
    allow = ["uncarded"]                       # uncarded, transported, overlap: what the gate would not pass on

A bound is `QUESTION[CATEGORY].FIGURE.BOUND OP NUMBER`; category and figure (raw, corrected, transported) may be left
out: then all rows, and corrected where there are labels, else raw.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Literal, cast

from msgspec import Struct

from truing.core.errors import PlanError, did_you_mean

FigureKind = Literal["auto", "raw", "corrected", "transported"]
ALLOWANCES = ("uncarded", "transported", "overlap")
FIGURES = ("raw", "corrected", "transported")
_BOUND = re.compile(
    r"^(?P<question>[a-z][a-z0-9_-]*)(?:\[(?P<category>[^\]]+)\])?(?:\.(?P<figure>[a-z]+))?\.(?P<bound>[a-z]+)"
    r"\s*(?P<op><=|>=|<|>)\s*(?P<limit>[-+]?[0-9.eE+-]+)\s*(?P<percent>%)?$"
)
_VERSUS = re.compile(
    r"^(?P<what>no-regression|safer)(?:\[(?P<questions>[^\]]+)\])?\s+vs\s+(?P<run>.+?)(?:\s+within\s+(?P<margin>[0-9.]+))?$"
)


class GateRule(Struct, frozen=True, kw_only=True):
    """One rule. `kind` is ``bound``, ``no-regression`` or ``safer``; the last two need `run`."""

    text: str
    kind: str = "bound"
    question: str = ""
    category: str | None = None
    figure: FigureKind = "auto"
    bound: str = ""
    limit: float = 0.0
    judge: str | None = None
    allow: tuple[str, ...] = ()
    run: str = ""
    margin: float = 0.05
    questions: tuple[str, ...] = ()
    name: str = ""


class GateRules(Struct, frozen=True, kw_only=True):
    """A whole rules file; paths in it are relative to `folder`."""

    rules: tuple[GateRule, ...]
    cards: tuple[Path, ...] = ()
    folder: Path = Path()
    title: str = "gate"


def parse_rule(text: str) -> GateRule:
    """One rule from its text; ValueError says what is wrong."""
    given = " ".join(text.split())
    versus = _VERSUS.match(given)
    if versus:
        questions = tuple(q.strip() for q in (versus["questions"] or "").split(",") if q.strip())
        margin = float(versus["margin"]) if versus["margin"] else 0.05
        if not 0 <= margin < 1:
            raise ValueError(f"within {margin}: a margin lies in [0, 1)")
        return GateRule(
            text=given, kind=versus["what"], run=versus["run"], margin=margin, questions=questions
        )
    found = _BOUND.match(given)
    if found is None:
        raise ValueError(
            "expected QUESTION.upper < NUMBER, QUESTION.lower > NUMBER, or no-regression vs RUN"
        )
    bound, op, figure = found["bound"], found["op"][0], found["figure"]
    if figure is not None and figure not in FIGURES:
        raise ValueError(f"{figure!r} is no figure{did_you_mean(figure, FIGURES)}")
    if bound not in ("upper", "lower"):
        raise ValueError(f"a gate binds on a bound, not on {bound!r}: use .upper < or .lower >")
    if (bound, op) not in (("upper", "<"), ("lower", ">")):
        raise ValueError(f".{bound} {op} is passed by knowing little: use .upper < or .lower >")
    try:
        limit = float(found["limit"]) / (100 if found["percent"] else 1)
    except ValueError:
        raise ValueError(f"{found['limit']!r} is no number") from None
    if not 0 <= limit <= 1:
        raise ValueError(f"{limit:g} is no rate: it lies between 0 and 1 (or write %)")
    return GateRule(
        text=given,
        question=found["question"],
        category=found["category"],
        figure=cast(FigureKind, figure or "auto"),
        bound=bound,
        limit=limit,
    )


_KEYS: dict[str, type | tuple[type, ...]] = {
    "check": str,
    "name": str,
    "judge": str,
    "category": str,
    "figure": str,
    "margin": (int, float),
    "allow": list,
}


def _table(given: dict[str, Any], where: str, faults: list[str]) -> GateRule | None:
    for key, value in given.items():
        if key not in _KEYS:
            faults.append(f"{where}.{key}: unknown key{did_you_mean(key, _KEYS)}")
        elif not isinstance(value, _KEYS[key]) or isinstance(value, bool):
            faults.append(f"{where}.{key}: {value!r} is of the wrong type")
    if not isinstance(given.get("check"), str):
        faults.append(f'{where}.check: missing, such as "harm.upper < 0.02"')
        return None
    try:
        rule = parse_rule(given["check"])
    except ValueError as error:
        faults.append(f"{where}.check: {given['check']!r}: {error}")
        return None
    allow = given.get("allow", [])
    for word in allow if isinstance(allow, list) else ():
        if word not in ALLOWANCES:
            faults.append(f"{where}.allow: {word!r}{did_you_mean(str(word), ALLOWANCES)}")
    figure = given.get("figure", rule.figure)
    if figure not in ("auto", *FIGURES):
        faults.append(f"{where}.figure: {figure!r}{did_you_mean(str(figure), FIGURES)}")
    if "figure" in given and rule.figure not in ("auto", figure):
        faults.append(f"{where}.figure: {figure!r}, but the check says {rule.figure!r}")
    from msgspec.structs import replace

    return replace(
        rule,
        name=str(given.get("name", "")),
        judge=given.get("judge"),
        figure=figure,
        category=given.get("category", rule.category),
        margin=float(given.get("margin", rule.margin)),
        allow=tuple(map(str, allow)) if isinstance(allow, list) else (),
    )


def parse_rules(text: str, where: str = "rules", folder: Path = Path()) -> GateRules:
    """Rules from TOML text; PlanError with every fault, each with its key path."""
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"{where}: {error}") from error
    faults = [
        f"{where}: {k}: unknown key{did_you_mean(k, ('rules', 'rule', 'cards', 'title'))}"
        for k in given
        if k not in ("rules", "rule", "cards", "title")
    ]
    made: list[GateRule | None] = []
    plain = given.get("rules", [])
    if not isinstance(plain, list):
        faults.append(f"{where}: rules: expected a list of rules")
        plain = []
    for at, one in enumerate(plain):
        made.append(_table({"check": one}, f"{where}: rules[{at}]", faults))
    tables = given.get("rule", [])
    for at, one in enumerate(tables if isinstance(tables, list) else [tables]):
        if isinstance(one, dict):
            made.append(_table(one, f"{where}: rule[{at}]", faults))
        else:
            faults.append(f"{where}: rule[{at}]: expected a table")
    cards = given.get("cards", [])
    if not isinstance(cards, list) or not all(isinstance(c, str) for c in cards):
        faults.append(f"{where}: cards: expected a list of paths")
        cards = []
    rules = tuple(r for r in made if r is not None)
    if not rules and not faults:
        faults.append(f"{where}: no rule: a gate that asks nothing passes nothing")
    if faults:
        raise PlanError(*faults)
    return GateRules(
        rules=rules,
        cards=tuple(folder / c for c in cards),
        folder=folder,
        title=str(given.get("title", "gate")),
    )


def read_rules(path: Path) -> GateRules:
    """Rules from a TOML file."""
    try:
        return parse_rules(path.read_text(encoding="utf-8"), str(path), path.parent)
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: {error}") from error
