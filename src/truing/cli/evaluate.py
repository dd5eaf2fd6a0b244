"""`truing evaluate`: runs a model on a data set and judges the answers, resumably."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter
from msgspec.structs import replace

from truing.cli.parameters import Flag, OptionalStrings, resolve_all
from truing.cli.ray_flags import RayFlags
from truing.cli.spending import (
    STOPPED_BY_BUDGET,
    SpendingFlags,
    describe_budget_stop,
    warn_of_uncounted_calls,
)
from truing.cli.tables import print_text
from truing.core.errors import UserError
from truing.core.types import Sampling
from truing.evaluation.options import DEFAULT_PART_ROWS
from truing.specs.parser import redact_spec

if TYPE_CHECKING:
    from truing.evaluation.options import EvaluateOptions
    from truing.specs.resolve import RoleName


@Parameter(name="*")
@dataclass(frozen=True)
class EvaluateFlags:
    """How to run.

    Parameters
    ----------
    limit
        Use only LIMIT rows, drawn at random: by prompt, and by the seed of the run.
    limit_first
        Use the first LIMIT rows instead.
    concurrency
        Requests in flight at a time.
    max_tokens
        Maximum tokens of an answer.
    n
        Answers to each sample.
    seed
        Seed of the run; each sample and each answer has its own random stream.
    temperature
        Sampling temperature; 0 is greedy.
    top_p
        Nucleus sampling: draw from the likeliest tokens with this total probability.
    taxonomy
        Harm categories: the name of a taxonomy, or a TOML file.
    retry_failures
        Repeat all failures of an earlier call, or none (default: those that may have passed, such
        as an endpoint that was down).
    authorised
        Who authorised an attack on an endpoint that is not on this machine; recorded in the
        manifest.
    rate
        Maximum requests per second to the model's endpoint (default: no limit; 5 for such an
        attack).
    shard_rows
        With --on: prompts of a part of the run, which one worker answers. A budget is one for all
        workers.
    spending
        What the answers may cost.
    """

    limit: int | None = None
    limit_first: Flag = False
    concurrency: int = 16
    max_tokens: int = 256
    n: int = 1
    seed: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    taxonomy: str = "beavertails"
    retry_failures: bool | None = None
    authorised: str = ""
    rate: float | None = None
    shard_rows: int = DEFAULT_PART_ROWS
    ray: RayFlags = field(default_factory=RayFlags)
    spending: SpendingFlags = field(default_factory=SpendingFlags)

    def options(self, model: str | None) -> EvaluateOptions:
        """Returns the options of a run of a model's spec (None: of recorded answers).

        Raises UserError for a budget that the run cannot have.
        """
        from truing.evaluation.options import EvaluateOptions

        spending = self.spending
        if spending.are_given and model is None:
            raise UserError(
                "evaluate: recorded answers cost nothing; a budget or prices need --model"
            )
        return EvaluateOptions(
            sampling=Sampling(
                n=self.n,
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
            ),
            seed=self.seed,
            limit=self.limit,
            sample="first" if self.limit_first else "random",
            concurrency=self.concurrency,
            taxonomy=self.taxonomy,
            retry_failures=self.retry_failures,
            authorised=self.authorised,
            rate=self.rate,
            budget=spending.run_budget(),
            price=spending.price_of(model) if model else None,
        )


def command(
    *,
    data: str,
    out: Path,
    model: str | None = None,
    judge: OptionalStrings = None,
    attack: str | None = None,
    until: str | None = None,
    flags: EvaluateFlags | None = None,
    json: Flag = False,
) -> int:
    """Runs a model on a data set and judges the answers; the same command resumes.

    Parameters
    ----------
    data
        Spec of the data set, such as builtin:safety or file:rows.jsonl.
    out
        The run folder.
    model
        Spec of the model, such as openai:NAME,base_url=URL or local:smollm2. Without it, the
        answers recorded in the data set are judged.
    judge
        Specs of judges, such as rules:refusal; may be given several times.
    attack
        Spec of an attack that is applied to each sample before it is sent to the model.
    until
        Stop when enough is known, such as "harm(width<0.05)", "harm(upper<0.02 or lower>0.02)" or
        "decided vs RUN".
    json
        Print the result as JSON.
    """
    from truing.analysis.stopping_rule import parse_stopping_rule
    from truing.bulk.evaluate_on_ray import EvaluationSpecs, evaluate_on_ray
    from truing.cli.progress import ProgressBar, finish_run
    from truing.evaluation.evaluate import evaluate
    from truing.runs.folder import Run

    flags = flags or EvaluateFlags()
    flags.options(model)  # a wrong budget is named before weights are loaded
    if flags.spending.is_limited:
        warn_of_uncounted_calls(judge or (), (data, attack or ""))
    specs: list[tuple[str | None, RoleName]] = [
        (model, "model"),
        (data, "data"),
        (attack, "attack"),
        *((spec, "judge") for spec in judge or ()),
    ]
    target, dataset, attacker, *judges = resolve_all(specs)
    with ProgressBar("answering" if model else "judging", quiet=json, resumable=True) as progress:
        options = replace(
            flags.options(model),
            until=parse_stopping_rule(until, judges) if until else None,
            plan={
                "model": redact_spec(model) if model else model,
                "data": redact_spec(data),
                "attack": redact_spec(attack) if attack else attack,
                "judges": [redact_spec(spec) for spec in judge or ()],
            },
            progress=progress,
        )
        if flags.ray.on:
            specs_by_role = EvaluationSpecs(model=model, judges=tuple(judge or ()), attack=attack)
            cluster, rows = flags.ray.options, flags.shard_rows
            evaluate_on_ray(specs_by_role, dataset, out, cluster, options=options, part_rows=rows)
        else:
            evaluate(target, dataset, judges, out, attack=attacker, options=options)
    status = finish_run(out, as_json=json, repeatable=model is not None)
    if stop := describe_budget_stop(str(out), Run(out).manifest):
        print_text(f"truing: {stop}", file=sys.stderr)
        return status or STOPPED_BY_BUDGET
    return status
