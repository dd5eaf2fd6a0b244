"""Judges beside a crowd: does a judge agree with the people as well as the people agree with each other?

    TRUING_DATA=... python benchmarks/redteam/crowd.py --judge keywords --judge moderation:default

Two published sets with every person's rating: DICES-990 (answers of a chat model, 60 to 100 people each; Aroyo et al. 2023) and
ConvAbuse (what users said to bots, up to 8 experts; Curry et al. 2021). Verdicts only; no text is printed.

- *alpha*: Krippendorff's, nominal, over all ratings.
- *a person with the rest*: each rating against the majority of the others on that item; every item counts once.
- *the judge with the crowd*: the judge's verdict against the majority of all. Kappa is Cohen's; intervals from 2,000 bootstrap
  draws of items, the difference paired by item.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from truing.core.protocols import Judge
from truing.core.types import Conversation, Message, Response, Row, Sample
from truing.http.limits import close_connections
from truing.specs.resolve import resolve
from truing.stats.agreement import BootstrapOptions, krippendorff_alpha

DRAWS = 2000
Table = NDArray[np.float64]  # one row an item: both true, first alone, second alone, neither


def votes(row: Row) -> list[bool]:
    """The people's verdicts of one row; who could not tell is left out."""
    return [j.verdict for j in row.judgements if j.rater is not None and j.verdict is not None]


def person_with_rest(said: list[bool]) -> list[float]:
    """A 2x2 table of each rating against the majority of the others, scaled so that the item counts once; ties left out."""
    table = np.zeros(4)
    yes = sum(said)
    for vote in said:
        rest = yes - vote
        half = (len(said) - 1) / 2
        if rest != half:
            table[_cell(vote, rest > half)] += 1
    return list(table / table.sum()) if table.sum() else [0.0] * 4


def _cell(first: bool, second: bool) -> int:
    return 0 if first and second else 1 if first else 2 if second else 3


def kappa(tables: Table) -> Any:
    """Cohen's kappa of summed tables [..., 4]; not a number without variance."""
    whole = tables.sum(-1)
    both, first, second, neither = (tables[..., k] / whole for k in range(4))
    chance = (both + first) * (both + second) + (second + neither) * (first + neither)
    with np.errstate(divide="ignore", invalid="ignore"):
        return ((both + neither) - chance) / (1 - chance)


def bounds(values: NDArray[np.float64]) -> list[float]:
    """95 % percentile bounds."""
    low, high = np.nanquantile(values, [0.025, 0.975])
    return [round(float(low), 3), round(float(high), 3)]


def swapped(row: Row) -> tuple[Sample, Response]:
    """Where people judged the user's turn and the judge reads answers: that turn in the answer's place."""
    before = row.sample.conversation.messages[:-1]
    said = row.sample.conversation.messages[-1].content
    return Sample(id=row.sample.id, conversation=Conversation(before)), Response(
        sample_id=row.sample.id, message=Message("assistant", said)
    )


async def verdicts(judge: Judge, rows: list[Row], question: str) -> list[bool | None]:
    """The judge's verdict on each row."""

    async def one(row: Row) -> bool | None:
        blank = Response(sample_id=row.sample.id, message=Message("assistant", "."))
        sample, response = row.sample, row.responses[0] if row.responses else blank
        if question == "harmful_prompt" and judge.question != question:
            sample, response = swapped(row)
        return (await judge.judge(sample, response)).verdict

    made = list(await asyncio.gather(*(one(r) for r in rows)))
    await close_connections()
    return made


def crowd(rows: list[Row]) -> tuple[dict[str, Any], Table, list[bool | None]]:
    """The people with each other: figures, tables by item, the majority of each item."""
    said = [votes(r) for r in rows]
    width = max(len(s) for s in said)
    matrix = np.full((width, len(rows)), np.nan)
    for at, s in enumerate(said):
        matrix[: len(s), at] = s
    alpha = krippendorff_alpha(matrix, "nominal", options=BootstrapOptions(draws=200))
    tables = np.array([person_with_rest(s) for s in said])
    majority = [None if 2 * sum(s) == len(s) else 2 * sum(s) > len(s) for s in said]
    figures = {
        "items": len(rows),
        "ratings": sum(map(len, said)),
        "called harmful by most": sum(bool(m) for m in majority),
        "alpha": [round(alpha.estimate, 3), round(alpha.lower, 3), round(alpha.upper, 3)],
    }
    return figures, tables, majority


def compare(
    tables: Table, majority: list[bool | None], given: list[bool | None], seed: int
) -> dict[str, Any]:
    """A judge beside the people."""
    judged = np.zeros_like(tables)
    for at, (verdict, most) in enumerate(zip(given, majority, strict=True)):
        if verdict is not None and most is not None:
            judged[at, _cell(verdict, most)] = 1
    kept = judged.sum(1) > 0
    people, judged = tables[kept], judged[kept]
    draws = np.random.default_rng(seed).multinomial(
        len(people), np.full(len(people), 1 / len(people)), DRAWS
    )
    own, theirs = kappa(draws @ judged), kappa(draws @ people)
    estimate, ceiling = float(kappa(judged.sum(0))), float(kappa(people.sum(0)))
    both, first, second, _ = judged.sum(0)
    return {
        "scored": int(kept.sum()),
        "unscored": sum(v is None for v in given),
        "kappa": [round(estimate, 3), *bounds(own)],
        "person with the rest": [round(ceiling, 3), *bounds(theirs)],
        "difference": [round(estimate - ceiling, 3), *bounds(own - theirs)],
        "sensitivity": round(float(both / (both + second)), 3) if both + second else None,
        "precision": round(float(both / (both + first)), 3) if both + first else None,
    }


def main() -> int:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append")
    parser.add_argument("--judge", action="append", required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for spec in given.data or ["dices", "convabuse,split=train"]:
        data = resolve(spec, "data")
        rows = [r for r in data.rows() if len(votes(r)) >= 2]
        question = next(j.question for j in rows[0].judgements)
        figures, tables, majority = crowd(rows)
        for name in given.judge:
            judge = resolve(name, "judge")
            if question == "harmful_prompt" and hasattr(judge, "of_prompts"):
                judge = judge.of_prompts()
            said = asyncio.run(verdicts(judge, rows, question))
            figures[name] = compare(tables, majority, said, given.seed)
        found[spec] = figures
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
