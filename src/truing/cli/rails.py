"""`truing rails check` and `truing rails test`: a guardrails configuration looked at, and run through dialogues."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from truing.core.errors import PlanError
from truing.core.protocols import Model
from truing.specs.resolve import resolve


def check(
    folder: Path,
    *,
    picture: Path | None = None,
    tree: bool = False,
    strict: bool = False,
    json: bool = False,
) -> int:
    """Checks a configuration without running it; exit status 2 if it has errors.

    Parameters
    ----------
    folder
        The configuration (NeMo's format): config.yml, *.co, prompts.yml, actions.py, kb/.
    picture
        Write the flows as an SVG image there.
    tree
        Show the flows as a tree.
    strict
        Warnings count as errors.
    json
        Print JSON.
    """
    from truing.rails.static import check
    from truing.rails.static.diagram import render_svg
    from truing.rails.static.diagram import render_tree as tree_of

    report = check.check_rails_config(folder)
    flows = report.config.flows if report.config is not None else []
    if picture is not None and report.config is not None:
        picture.write_text(render_svg(flows), encoding="utf-8")
    warnings = len(report.findings) - len(report.errors)
    calls = report.calls
    if json:
        made = {
            "path": report.path,
            "findings": report.findings,
            "errors": len(report.errors),
            "warnings": warnings,
            "llm_calls": None
            if calls is None
            else {
                "most": calls.total.most,
                "bounded": not calls.total.open,
                "open": sorted(calls.total.open),
                "parts": {k: v.most for k, v in calls.parts.items()},
            },
        }
        print(msgspec.json.encode(made).decode())
    else:
        if tree and flows:
            print(tree_of(flows))
        for finding in report.findings:
            print(finding)
        if calls is not None:
            parts = ", ".join(f"{name} {cost}" for name, cost in calls.parts.items())
            print(f"LLM calls a turn, at most: {calls.total} ({parts})")
            for why in sorted(calls.total.open):
                print(f"  without a bound: {why}")
        print(f"{report.path}: {len(report.errors)} errors, {warnings} warnings")
    return 2 if report.errors or (strict and warnings) else 0


def run_dialogues(
    folder: Path,
    *dialogues: Path,
    model: str | None = None,
    filter: str = "",
    nemo_alias: bool = False,
    json: bool = False,
) -> int:
    """Runs the dialogues of a configuration (DIR/tests/*.yml); exit status 2 if one fails.

    Parameters
    ----------
    folder
        The configuration. Its actions.py is imported and run.
    dialogues
        Files of dialogues instead.
    model
        Spec of the model that answers where a dialogue scripts no LLM. Without it the `models:` of the configuration.
    filter
        Only dialogues whose name holds this.
    nemo_alias
        Let actions.py import from nemoguardrails.
    json
        Print JSON.
    """
    from truing.rails import dialogue_tests as d
    from truing.rails.config.loader import RailsConfig
    from truing.rails.runtime.app import RuntimeParts

    config = RailsConfig.load(folder)
    chosen = [
        one
        for one in d.read_dialogues(d.find_dialogue_files(folder, dialogues))
        if filter in one.name
    ]
    if not chosen:
        raise PlanError(f"no dialogue's name holds {filter!r}")
    talker = _model(model, config) if any(one.llm is None for one in chosen) else None
    runner = d.DialogueRunner(config, talker, RuntimeParts(nemo_alias=True if nemo_alias else None))
    outcomes = runner.run(chosen)
    failed = [one for one in outcomes if not one.passed]
    if json:
        made = {"passed": len(outcomes) - len(failed), "failed": len(failed), "dialogues": outcomes}
        print(msgspec.json.encode(made).decode())
    else:
        for one in outcomes:
            print(
                f"{'passed' if one.passed else 'FAILED'}  {one.dialogue}  ({one.place}, {one.seconds * 1000:.0f} ms)"
            )
            for fault in one.faults:
                print(f"        {fault}")
        print(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed")
    return 2 if failed else 0


def _model(given: str | None, config: object) -> Model | None:
    """The model of the command line or of the configuration; none if neither names one."""
    from truing.cli.rails_models import main_model
    from truing.rails.config.loader import RailsConfig

    if given is not None:
        made: Model = resolve(given, "model")
        return made
    assert isinstance(config, RailsConfig)
    if not any(m.type == "main" for m in config.models):
        print(
            "truing: no model is named: dialogues without llm: must not need one", file=sys.stderr
        )
        return None
    return main_model(config)
