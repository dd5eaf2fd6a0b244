"""A plan without a file: made of the specs that a command names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from truing.core.errors import PlanError, SpecError
from truing.plan.evaluation import FOLDER_NAME_RULE, DataPlan, Plan, RunPlan, is_folder_name
from truing.specs.parser import parse_spec, redact_spec


def plan_from_specs(models: Sequence[str], data: Sequence[str], judges: Sequence[str]) -> Plan:
    """Returns the plan for specs from the command line, each of them `SPEC` or `NAME=SPEC`.

    A spec without a name is called by what it names (`local:smollm2` -> `smollm2`); the first model
    is the baseline. Raises PlanError for a name that is no folder name, or that two specs have.
    """
    faults: list[str] = []
    named_models = _name_specs(models, "--model", faults)
    named_data = _name_specs(data, "--data", faults)
    if faults:
        raise PlanError(*faults)
    return Plan(
        title=" / ".join(named_models),
        models=named_models,
        data={name: DataPlan(spec=spec) for name, spec in named_data.items()},
        run=RunPlan(judges=tuple(judges)),
    )


def _name_specs(specs: Sequence[str], flag: str, faults: list[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for text in specs:
        # A spec has no "=" before its first colon or comma, so this one ends a name.
        name_and_spec = re.match(r"([^:,=()\"]+)=(.+)", text, re.DOTALL)
        name, spec = name_and_spec.groups() if name_and_spec else (_short_name(text), text)
        if not is_folder_name(name):
            faults.append(f"{flag} {redact_spec(text)}: {name!r} {FOLDER_NAME_RULE}")
        elif name in named:
            faults.append(
                f"{flag} {redact_spec(text)}: a second {name!r}; name them: {flag} NAME=SPEC"
            )
        named[name] = spec
    return named


def _short_name(text: str) -> str:
    """Returns a folder name for a spec: the last part of its name, or its kind."""
    try:
        spec = parse_spec(text)
    except SpecError:
        return "variant"  # the fault of the spec is reported when it is resolved
    last = re.sub(r"[^\w.+-]+", "-", spec.name.rstrip("/").rpartition("/")[2]).strip("-._")
    return last[:60] or spec.kind
