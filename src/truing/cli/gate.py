"""`truing gate`: a run against rules, for CI: 0 passed, 1 error, 2 failed, 3 inconclusive."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from truing.gates.gate import gate_run
from truing.gates.rules import read_rules
from truing.gates.verdict import GateVerdict


def command(
    run: Path,
    rules: Path,
    /,
    *,
    card: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")] = None,
    baseline: Path | None = None,
    junit: Path | None = None,
    sarif: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Holds a run against rules; the exit status is 0 passed, 1 error, 2 failed, 3 inconclusive.

    Rules bind on bounds, with unscored rows at their worst. Nothing passes on a judge without a card, on a transported
    figure, or on a judge that made the model, unless the rule allows it.

    Parameters
    ----------
    run
        The run folder.
    rules
        The rules (TOML); see docs/gate.md.
    card
        Cards of the run's judges, besides those that the rules name.
    baseline
        The run that BASELINE stands for in the rules.
    junit
        Write the verdict as JUnit XML here.
    sarif
        Write the verdict as SARIF here.
    json
        Print the verdict as JSON.
    """
    from truing.cli.show import one_run
    from truing.gates.junit import to_junit as as_junit
    from truing.gates.sarif import to_sarif as as_sarif
    from truing.runs.folder import replace_file

    verdict = gate_run(one_run(run), read_rules(rules), cards=card or (), baseline=baseline)
    for path, data in ((junit, as_junit(verdict)), (sarif, as_sarif(verdict, rules.as_posix()))):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, data)
    if json:
        import msgspec

        made = {**msgspec.to_builtins(verdict), "exit": verdict.exit}
        sys.stdout.write(msgspec.json.encode(made).decode() + "\n")
    else:
        show(verdict)
    return verdict.exit


def show(verdict: GateVerdict) -> None:
    """The verdict with its grounds, and what was not tested."""
    for outcome in verdict.outcomes:
        print(f"{outcome.status:<13} {outcome.name or outcome.rule}")
        print(f"{'':<13} {outcome.reason}")
    for note in verdict.notes:
        print(f"note: {note}")
    if verdict.not_tested:
        print("not tested: " + "; ".join(verdict.not_tested))
    print(f"{verdict.title}: {verdict.verdict}")
