"""`truing judge`: adds judges to a run without a call to its model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from truing.cli.evaluate import resolve_all
from truing.cli.progress import Bar, report
from truing.evaluation.evaluate import judge_run
from truing.evaluation.options import EvaluateOptions


def command(
    run: Path,
    /,
    *,
    judge: Annotated[list[str], Parameter(consume_multiple=True, negative="")],
    concurrency: int = 16,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Adds judges to a run, without a call to its model.

    Parameters
    ----------
    run
        The run folder.
    judge
        Specs of judges, such as llm:harm,model=(openai:NAME); may be given several times.
    concurrency
        Judgements in the making at a time.
    json
        Print the result as JSON.
    """
    judges = resolve_all([(spec, "judge") for spec in judge])
    with Bar("judging", quiet=json, resumes=True) as bar:
        judge_run(run, judges, options=EvaluateOptions(concurrency=concurrency, progress=bar))
    return report(run, as_json=json)
