"""The rules of a gate: what must hold of a run, always as a bound, never as an estimate.

    rules = ["harm.upper < 0.02", "answers_benign.lower > 0.9", "no-regression vs runs/main"]
    cards = ["cards/moderation.json"]          # relative to this file

    [[rule]]
    check = "harm[self_harm].corrected.upper < 0.05"
    judge = "moderation:default"                  # default: the judge quoted for the question
    allow = ["uncarded"]                       # uncarded, transported, overlap: see the gate

A bound is `QUESTION[CATEGORY].FIGURE.BOUND OP NUMBER`. Category and figure (raw, corrected,
transported) may be left out: then all rows, and corrected if there are labels, else raw.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, cast

from msgspec import Struct
from msgspec.structs import replace

from truing.analysis.claims import find_margin_fault
from truing.core.errors import PlanError, did_you_mean
from truing.core.input_files import describe_unreadable, read_input_text
from truing.core.struct_fields import read_struct_fields
from truing.core.toml_text import add_lines, find_key_lines, parse_toml

FigureKind = Literal["auto", "raw", "corrected", "transported"]
FIGURES = ("raw", "corrected", "transported")
Allowance = Literal["uncarded", "transported", "overlap"]
ALLOWANCES: tuple[Allowance, ...] = ("uncarded", "transported", "overlap")
"""Reasons to distrust a figure that a rule may allow."""
DEFAULT_MARGIN = 0.05

_BOUND = re.compile(
    r"^(?P<question>[a-z][a-z0-9_-]*)(?:\[(?P<category>[^\]]+)\])?(?:\.(?P<figure>[a-z]+))?"
    r"\.(?P<bound>[a-z]+)\s*(?P<op><=|>=|<|>)\s*(?P<limit>[-+]?[0-9.eE+-]+)\s*(?P<percent>%)?$"
)
_VERSUS = re.compile(
    r"^(?P<kind>no-regression|safer)(?:\[(?P<questions>[^\]]+)\])?\s+vs\s+(?P<run>.+?)"
    r"(?:\s+within\s+(?P<margin>[0-9.]+))?$"
)
_OPERATOR_OF_BOUND = {"upper": "<", "lower": ">"}


class GateRule(Struct, frozen=True, kw_only=True):
    """One rule. `kind` is ``bound``, ``no-regression`` or ``safer``; the last two need `run`.

    `line` is where the rule stands in its file, from 1; 1 as well where it was not found.
    """

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
    margin: float = DEFAULT_MARGIN
    questions: tuple[str, ...] = ()
    name: str = ""
    line: int = 1


class GateRules(Struct, frozen=True, kw_only=True):
    """A whole rules file; paths in it are relative to `folder`."""

    rules: tuple[GateRule, ...]
    cards: tuple[Path, ...] = ()
    folder: Path = Path()
    title: str = "gate"


def parse_rule(text: str) -> GateRule:
    """Parses one rule. Raises ValueError with what is wrong."""
    # TOML strings may span lines.
    text = " ".join(text.split())
    versus = _VERSUS.match(text)
    if versus:
        return _parse_comparison(text, versus)
    match = _BOUND.match(text)
    if match is None:
        raise ValueError(
            "expected QUESTION.upper < NUMBER, QUESTION.lower > NUMBER, or no-regression vs RUN"
        )
    bound, op, figure = match["bound"], match["op"][0], match["figure"]
    if figure is not None and figure not in FIGURES:
        raise ValueError(f"{figure!r} is no figure{did_you_mean(figure, FIGURES)}")
    if bound not in _OPERATOR_OF_BOUND:
        raise ValueError(f"a gate binds on a bound, not on {bound!r}: use .upper < or .lower >")
    if op != _OPERATOR_OF_BOUND[bound]:
        # The less data, the lower the lower bound: "lower < x" would reward having none.
        raise ValueError(f".{bound} {op} is passed by knowing little: use .upper < or .lower >")
    try:
        limit = float(match["limit"]) / (100 if match["percent"] else 1)
    except ValueError:
        raise ValueError(f"{match['limit']!r} is no number") from None
    if not 0 <= limit <= 1:
        raise ValueError(f"{limit:g} is no rate: it lies between 0 and 1 (or write %)")
    return GateRule(
        text=text,
        question=match["question"],
        category=match["category"],
        figure=cast(FigureKind, figure or "auto"),
        bound=bound,
        limit=limit,
    )


def _parse_comparison(text: str, match: re.Match[str]) -> GateRule:
    margin = float(match["margin"]) if match["margin"] else DEFAULT_MARGIN
    if fault := find_margin_fault(margin):
        raise ValueError(f"within {fault}")
    questions = (question.strip() for question in (match["questions"] or "").split(","))
    return GateRule(
        text=text,
        kind=match["kind"],
        run=match["run"],
        margin=margin,
        questions=tuple(question for question in questions if question),
    )


class RuleTable(Struct, frozen=True, kw_only=True):
    """A `[[rule]]` table as it is written; what it leaves out is taken from its check."""

    check: str
    name: str = ""
    judge: str | None = None
    category: str | None = None
    figure: FigureKind | None = None
    margin: float | None = None
    allow: tuple[Allowance, ...] = ()


_FILE_KEYS = ("rules", "rule", "cards", "title")


def _parse_table(
    table: dict[str, Any], where: str, faults: list[str], line: int
) -> GateRule | None:
    """Parses a [[rule]] table; adds what is wrong to `faults`, with its key path."""
    written = read_struct_fields(RuleTable, table, where, faults)
    if "check" not in written:
        if "check" not in table:
            faults.append(f'{where}.check: missing, such as "harm.upper < 0.02"')
        return None
    try:
        rule = parse_rule(written["check"])
    except ValueError as error:
        faults.append(f"{where}.check: {written['check']!r}: {error}")
        return None
    figure = written.get("figure", rule.figure)
    if rule.figure not in ("auto", figure):
        faults.append(f"{where}.figure: {figure!r}, but the check says {rule.figure!r}")
    margin = float(written.get("margin", rule.margin))
    if fault := find_margin_fault(margin):
        faults.append(f"{where}.margin: {fault}")
    return replace(
        rule,
        name=written.get("name", ""),
        judge=written.get("judge"),
        figure=figure,
        category=written.get("category", rule.category),
        margin=margin,
        allow=tuple(written.get("allow", ())),
        line=line,
    )


def parse_rules(text: str, where: str = "rules", folder: Path = Path()) -> GateRules:
    """Parses rules from TOML. Raises PlanError with every fault, each with its key path."""
    document = parse_toml(text, where)
    faults = [
        f"{where}: {key}: unknown key{did_you_mean(key, _FILE_KEYS)}"
        for key in document
        if key not in _FILE_KEYS
    ]
    checks = document.get("rules", [])
    if not isinstance(checks, list):
        faults.append(f"{where}: rules: expected a list of rules")
        checks = []
    lines = find_key_lines(text)
    parsed = [
        _parse_table({"check": check}, f"{where}: rules[{i}]", faults, lines.get(f"rules[{i}]", 1))
        for i, check in enumerate(checks)
    ]
    tables = document.get("rule", [])
    for i, table in enumerate(tables if isinstance(tables, list) else [tables]):
        if isinstance(table, dict):
            line = lines.get(f"rule[{i}]", 1)
            parsed.append(_parse_table(table, f"{where}: rule[{i}]", faults, line))
        else:
            faults.append(f"{where}: rule[{i}]: expected a table")
    cards = document.get("cards", [])
    if not isinstance(cards, list) or not all(isinstance(card, str) for card in cards):
        faults.append(f"{where}: cards: expected a list of paths")
        cards = []
    rules = tuple(rule for rule in parsed if rule is not None)
    if not rules and not faults:
        faults.append(f"{where}: no rule: a gate that asks nothing passes nothing")
    if faults:
        raise PlanError(*add_lines(text, where, faults))
    return GateRules(
        rules=rules,
        cards=tuple(folder / card for card in cards),
        folder=folder,
        title=str(document.get("title", "gate")),
    )


def read_rules(path: Path) -> GateRules:
    """Reads rules from a TOML file. Raises PlanError if it cannot be read or has faults."""
    try:
        return parse_rules(read_input_text(path), str(path), path.parent)
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: {describe_unreadable(error)}") from error
