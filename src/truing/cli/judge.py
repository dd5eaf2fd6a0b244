"""`truing judge`: adds judges to a run without a call to its model."""

from __future__ import annotations

from pathlib import Path

from truing.cli.parameters import Flag, Strings, resolve_all
from truing.cli.ray_flags import RayFlags


def command(
    run: Path,
    /,
    *,
    judge: Strings,
    concurrency: int = 16,
    ray: RayFlags | None = None,
    json: Flag = False,
) -> int:
    """Adds judges to a run, without a call to its model.

    Parameters
    ----------
    run
        The run folder.
    judge
        Specs of judges, such as llm:harm,model=(openai:NAME); may be given several times.
    concurrency
        Answers that are judged at a time.
    json
        Print the result as JSON.
    """
    from truing.bulk.evaluate_on_ray import judge_on_ray
    from truing.cli.progress import ProgressBar, finish_run
    from truing.evaluation.evaluate import judge_run
    from truing.evaluation.options import EvaluateOptions

    judges = resolve_all([(spec, "judge") for spec in judge])
    with ProgressBar("judging", quiet=json, resumable=True) as progress:
        options = EvaluateOptions(concurrency=concurrency, progress=progress)
        if ray is not None and ray.on:
            judge_on_ray(run, judge, ray.options, options=options)
        else:
            judge_run(run, judges, options=options)
    return finish_run(run, as_json=json)
