"""`--cost-limit NAME,cost=(SPEC),threshold=T,...`: one more constraint of an RL run."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from truing.core.errors import PlanError, SpecError, did_you_mean
from truing.specs.parser import Spec, parse_spec
from truing.train.rl.constraint_settings import ConstraintSettings

_FIELDS = {field.name: field for field in msgspec.structs.fields(ConstraintSettings)}
_KEYS = ("cost", "rate", *(name for name in _FIELDS if name != "name"))


def parse_constraint(text: str) -> tuple[ConstraintSettings, Spec]:
    """Returns the settings of a constraint and the spec of its cost.

    `rate=R` is for costs that are verdicts: at most a share R of the answers, which is a threshold
    of 2R - 1. Raises PlanError that names the flag and what is wrong.
    """
    try:
        parsed = parse_spec(text)
    except SpecError as error:
        raise PlanError(f"--cost-limit: {error}") from error
    args: dict[str, Any] = parsed.reveal_values()
    name = parsed.kind
    # The constraint's name stands where the kind of a spec does. A spec's own name (after a colon)
    # is under "", and a constraint has none.
    if args.pop(""):
        raise PlanError(f"--cost-limit {text!r}: begins with NAME,cost=(SPEC)")
    return constraint_from_table(f"--cost-limit {name}", {"name": name, **args})


def constraint_from_table(place: str, table: dict[str, Any]) -> tuple[ConstraintSettings, Spec]:
    """Returns the settings of a constraint and the spec of its cost from a table of values.

    A table of a TOML plan has the keys of `--cost-limit`; `place` names it in errors.
    """
    table = dict(table)
    faults = [
        f"{place}: unknown key {key!r}{did_you_mean(key, _KEYS)}"
        for key in table
        if key != "name" and key not in _KEYS
    ]
    cost = table.pop("cost", None)
    if cost is None:
        faults.append(f"{place}: cost=(SPEC) is missing: the judge whose number is the cost")
    if "rate" in table:
        if "threshold" in table:
            faults.append(f"{place}: give threshold or rate, not both")
        table["threshold"] = _threshold_of_rate(place, table.pop("rate"))
    elif "threshold" not in table:
        faults.append(f"{place}: threshold=T is missing")
    if faults or cost is None:
        raise PlanError(*faults)
    try:
        settings = msgspec.convert(table, ConstraintSettings, strict=False)
    except msgspec.ValidationError as error:
        raise PlanError(f"{place}: {error}") from error
    return settings, cost if isinstance(cost, Spec) else parse_spec(str(cost))


def _threshold_of_rate(place: str, text: Any) -> float:
    """Returns the threshold of the mean cost for a rate; PlanError unless it is in [0, 1]."""
    try:
        rate = float(text)
    except (TypeError, ValueError):
        rate = math.nan
    if not 0 <= rate <= 1:
        raise PlanError(f"{place}: rate={text}: a share of answers, from 0 to 1")
    # A verdict counts as +1 or -1, so the mean over a share R of +1 is R - (1 - R).
    return 2 * rate - 1
