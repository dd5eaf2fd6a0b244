"""`truing rails check` and `truing rails test`: checks and tests guardrail configurations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from truing.cli.parameters import KeyVariables
from truing.cli.tables import print_json, print_next_steps, print_text
from truing.core.errors import PlanError
from truing.core.private_files import replace_file
from truing.core.protocols import Model

if TYPE_CHECKING:
    from truing.rails.config.loader import RailsConfig
    from truing.rails.dialogue_tests import DialogueOutcome
    from truing.rails.static.check import RailsCheckReport


def check(
    folder: Path,
    *,
    picture: Path | None = None,
    tree: bool = False,
    strict: bool = False,
    allow_key_env: KeyVariables = None,
    json: bool = False,
) -> int:
    """Checks a configuration without running it; the exit status is 2 if it has errors.

    An error is a fault: the configuration would not run. A difference runs otherwise than in NeMo
    Guardrails. Warnings and notes are advice.

    Parameters
    ----------
    folder
        The configuration (NeMo's format): config.yml, *.co, prompts.yml, actions.py, kb/.
    picture
        Write the flows as an SVG image to this file.
    tree
        Show the flows as a tree.
    strict
        Treat warnings and differences as errors.
    allow_key_env
        An environment variable with a key that the configuration may send to the address that it
        names.
    json
        Print JSON.
    """
    from truing.rails.static.check import check_rails_config
    from truing.rails.static.diagram import render_svg, render_tree

    report = check_rails_config(folder, key_variables=allow_key_env or ())
    flows = report.config.flows if report.config is not None else []
    if picture is not None and report.config is not None:
        replace_file(picture, render_svg(flows).encode())
    if json:
        print_json(msgspec.json.encode(_report_fields(report)))
    else:
        if tree and flows:
            print_text(render_tree(flows))
        _print_report(report)
    is_strict_fault = strict and (_count(report, "warning") or _count(report, "difference"))
    return 2 if report.errors or is_strict_fault else 0


def _count(report: RailsCheckReport, level: str) -> int:
    return sum(finding.level == level for finding in report.findings)


def _report_fields(report: RailsCheckReport) -> dict[str, Any]:
    llm_calls = None
    if report.calls is not None:
        total = report.calls.total
        llm_calls = {
            "most": total.most,
            "bounded": not total.open,
            "open": sorted(total.open),
            "parts": {name: count.most for name, count in report.calls.parts.items()},
        }
    return {
        "path": report.path,
        "findings": report.findings,
        "errors": len(report.errors),
        "differences": _count(report, "difference"),
        "warnings": _count(report, "warning"),
        "llm_calls": llm_calls,
    }


def _print_report(report: RailsCheckReport) -> None:
    for finding in report.findings:
        print_text(str(finding))
    if report.calls is not None:
        parts = ", ".join(f"{name} {count}" for name, count in report.calls.parts.items())
        print_text(f"LLM calls a turn, at most: {report.calls.total} ({parts})")
        for reason in sorted(report.calls.total.open):
            print_text(f"  without a bound: {reason}")
    print_text(
        f"{report.path}: {len(report.errors)} errors, {_count(report, 'difference')} differences, "
        f"{_count(report, 'warning')} warnings"
    )
    if not report.errors:
        print_next_steps([("truing", "rails", "test", report.path)])


def run_dialogues(
    folder: Path,
    *dialogues: Path,
    model: str | None = None,
    filter: str = "",
    nemo_alias: bool = False,
    trust_code: bool = False,
    allow_key_env: KeyVariables = None,
    json: bool = False,
) -> int:
    """Runs the dialogue tests of a configuration (DIR/tests/*.yml); exit status 2 if one fails.

    Parameters
    ----------
    folder
        The configuration.
    dialogues
        Run these files of dialogues instead.
    model
        Spec of the model for dialogues that script no LLM replies. Default: the `models:` of the
        configuration.
    filter
        Run only dialogues whose name contains this text.
    nemo_alias
        Let actions.py import from nemoguardrails.
    trust_code
        Run the code of the configuration, such as its actions.py (`truing rails check` lists it).
    allow_key_env
        An environment variable with a key that the configuration may send to the address that it
        names.
    json
        Print JSON.
    """
    from truing.rails.config.loader import RailsConfig
    from truing.rails.config.trust import require_trusted_code
    from truing.rails.dialogue_tests import DialogueRunner, find_dialogue_files, read_dialogues
    from truing.rails.runtime.app import RuntimeParts

    config = RailsConfig.load(folder, trust_code=trust_code, key_variables=allow_key_env or ())
    require_trusted_code(config)
    tests = [
        test
        for test in read_dialogues(find_dialogue_files(folder, dialogues))
        if filter in test.name
    ]
    if not tests:
        raise PlanError(f"no dialogue has a name that contains {filter!r}")
    # Scripted dialogues need no model, and a configuration in CI may have no key for its own.
    needs_model = any(test.llm is None for test in tests)
    dialogue_model = _find_model(model, config) if needs_model else None
    parts = RuntimeParts(nemo_alias=True if nemo_alias else None)
    outcomes = DialogueRunner(config, dialogue_model, parts).run(tests)
    failed = sum(not outcome.passed for outcome in outcomes)
    if json:
        fields = {"passed": len(outcomes) - failed, "failed": failed, "dialogues": outcomes}
        print_json(msgspec.json.encode(fields))
    else:
        for outcome in outcomes:
            _print_outcome(outcome)
        print_text(f"{len(outcomes) - failed} passed, {failed} failed")
        if not failed:
            print_next_steps([("truing", "serve", "--rails", folder)])
    return 2 if failed else 0


def _find_model(spec: str | None, config: RailsConfig) -> Model | None:
    """Returns the model of --model, else of the configuration; warns if neither names one."""
    from truing.cli.rails_models import load_main_model
    from truing.specs.resolve import resolve

    if spec is not None:
        model: Model = resolve(spec, "model")
        return model
    if any(entry.type == "main" for entry in config.models):
        return load_main_model(config)
    print_text(
        "truing: no model is named: dialogues without llm: can only test rails that need none",
        file=sys.stderr,
    )
    return None


def _print_outcome(outcome: DialogueOutcome) -> None:
    status = "passed" if outcome.passed else "FAILED"
    milliseconds = f"{outcome.seconds * 1000:.0f} ms"
    print_text(f"{status}  {outcome.dialogue}  ({outcome.place}, {milliseconds})")
    for fault in outcome.faults:
        print_text(f"        {fault}")
