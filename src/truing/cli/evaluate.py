"""`truing evaluate`: a model on a data set, judged, into a run folder; the same command goes on where it stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from truing.analysis.stopping_rule import parse_stopping_rule as parse_until
from truing.cli.progress import Bar, report
from truing.core.errors import PlanError, UserError
from truing.core.types import Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.specs.resolve import RoleName, resolve

Many = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class How:
    """How to run.

    Parameters
    ----------
    limit
        Take only the first so many rows.
    concurrency
        Requests in flight.
    max_tokens
        The longest answer.
    n
        Answers to each sample.
    seed
        Seed of the run; each sample and each answer draws from a stream of its own.
    temperature
        0 is greedy.
    top_p
        Nucleus of the distribution to draw from.
    taxonomy
        Harm categories: a name, or a TOML file of yours.
    retry_failures
        Ask samples again whose answers failed in an earlier call.
    authorised
        Who allowed an attack on an endpoint that is not this machine; the manifest keeps it.
    rate
        The most requests a second to the model's endpoint (5 in such an attack unless given).
    """

    limit: int | None = None
    concurrency: int = 16
    max_tokens: int = 256
    n: int = 1
    seed: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    taxonomy: str = "beavertails"
    retry_failures: Annotated[bool, Parameter(negative="")] = False
    authorised: str = ""
    rate: float | None = None


def command(
    *,
    data: str,
    out: Path,
    model: str | None = None,
    judge: Many = None,
    attack: str | None = None,
    until: str | None = None,
    how: How | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Runs a model on a data set and judges the answers; the same command again goes on where it stopped.

    Parameters
    ----------
    data
        Spec of the data set, such as builtin:safety or file:rows.jsonl.
    out
        The run folder.
    model
        Spec of the model, such as openai:NAME,base_url=URL or local:smollm2. Without it, the answers recorded in the
        data set are judged.
    judge
        Specs of judges, such as rules:refusal; may be given several times.
    attack
        Spec of an attack on each sample before it is asked.
    until
        Stop when enough is known, such as "harm(width<0.05)", "harm(upper<0.02 or lower>0.02)" or "decided vs RUN".
    json
        Print the result as JSON.
    """
    given = how or How()
    asked: list[tuple[str | None, RoleName]] = [
        (model, "model"),
        (data, "data"),
        (attack, "attack"),
    ]
    asked += [(spec, "judge") for spec in judge or ()]
    made = resolve_all(asked)
    with Bar("asking" if model else "judging", quiet=json, resumes=True) as bar:
        options = EvaluateOptions(
            sampling=Sampling(
                n=given.n,
                max_tokens=given.max_tokens,
                temperature=given.temperature,
                top_p=given.top_p,
            ),
            seed=given.seed,
            limit=given.limit,
            concurrency=given.concurrency,
            taxonomy=given.taxonomy,
            retry_failures=given.retry_failures,
            authorised=given.authorised,
            rate=given.rate,
            until=parse_until(until, made[3:]) if until else None,
            plan={"model": model, "data": data, "attack": attack, "judges": judge or []},
            progress=bar,
        )
        evaluate(made[0], made[1], made[3:], out, attack=made[2], options=options)
    return report(out, as_json=json)


def resolve_all(asked: list[tuple[str | None, RoleName]]) -> list[Any]:
    """The objects of some specs (none stays none); all faults together."""
    made: list[Any] = []
    faults: list[str] = []
    for spec, role in asked:
        try:
            made.append(None if spec is None else resolve(spec, role))
        except UserError as error:
            faults += error.faults
    if faults:
        raise PlanError(*faults)
    return made
