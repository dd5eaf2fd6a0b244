"""`truing gate`: checks a run against rules, for CI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from truing.cli.parameters import Flag, OptionalPaths
from truing.cli.tables import print_json, print_next_steps, print_text
from truing.core.errors import UserError
from truing.core.private_files import create_folder

if TYPE_CHECKING:
    from truing.gates.verdict import GateVerdict


@Parameter(name="*")
@dataclass(frozen=True)
class OutputFlags:
    """Where the verdict is written.

    Parameters
    ----------
    junit
        Write the verdict as JUnit XML to this file.
    sarif
        Write the verdict as SARIF to this file.
    comment
        Write the verdict as Markdown, for a comment on a pull request, to this file.
    json
        Print the verdict as JSON.
    """

    junit: Path | None = None
    sarif: Path | None = None
    comment: Path | None = None
    json: Flag = False


def command(
    run: Path,
    rules: Path,
    /,
    *,
    card: OptionalPaths = None,
    baseline: Path | None = None,
    without_baseline: Flag = False,
    outputs: OutputFlags | None = None,
) -> int:
    """Checks a run against rules; the exit status is 0 passed, 1 error, 2 failed, 3 inconclusive.

    Rules apply to the bounds of the intervals, and unscored rows count as the worst case. Unless a
    rule allows it, nothing passes on a judge without a card, on a transported figure, or on a judge
    that helped to make the model.

    Parameters
    ----------
    run
        The run folder.
    rules
        The rules (TOML); see docs/gate.md.
    card
        Cards of the run's judges, in addition to those that the rules name.
    baseline
        The run that BASELINE stands for in the rules.
    without_baseline
        Leave out rules on BASELINE, as before the first run of the main branch; they are listed as
        not tested.
    """
    from truing.cli.run_folders import open_run
    from truing.core.private_files import replace_file
    from truing.gates.gate import gate_run
    from truing.gates.junit import to_junit
    from truing.gates.markdown import to_markdown
    from truing.gates.rules import read_rules
    from truing.gates.sarif import to_sarif

    if baseline is not None and without_baseline:
        raise UserError("--baseline and --without-baseline exclude each other")
    verdict = gate_run(
        open_run(run),
        read_rules(rules),
        cards=card or (),
        baseline=baseline,
        without_baseline=without_baseline,
    )
    outputs = outputs or OutputFlags()
    for path, content in (
        (outputs.junit, to_junit(verdict)),
        (outputs.sarif, to_sarif(verdict, rules.as_posix())),
        (outputs.comment, to_markdown(verdict)),
    ):
        if path is not None:
            create_folder(path.parent)
            replace_file(path, content)
    if outputs.json:
        import msgspec

        fields = {**msgspec.to_builtins(verdict), "exit": verdict.exit}
        print_json(msgspec.json.encode(fields))
    else:
        print_verdict(verdict)
        if verdict.verdict == "inconclusive":
            print_next_steps([("truing", "label", run, "--n", 60), ("truing", "ui", run)])
        elif verdict.verdict == "failed":
            print_next_steps([("truing", "ui", run)])
    return verdict.exit


def print_verdict(verdict: GateVerdict) -> None:
    """Prints the outcome of each rule with its reason, and what was not tested."""
    for outcome in verdict.outcomes:
        print_text(f"{outcome.status:<13} {outcome.name or outcome.rule}")
        print_text(f"{'':<13} {outcome.reason}")
    for note in verdict.notes:
        print_text(f"note: {note}")
    if verdict.not_tested:
        print_text("not tested: " + "; ".join(verdict.not_tested))
    print_text(f"{verdict.title}: {verdict.verdict}")
