"""Does a judge agree with people as well as the people agree with each other?

    TRUING_DATA=... python benchmarks/redteam/crowd.py --judge keywords --judge moderation:research

On two published sets with every person's rating: DICES-990 (answers of a chat model, 60 to 100
people each; Aroyo et al. 2023) and ConvAbuse (user turns to bots, up to 8 experts; Curry et al.
2021). Only figures are printed, no text.

- *alpha*: Krippendorff's, nominal, over all ratings.
- *person with the rest*: each rating against the majority of the others on that item; every item
  counts once.
- *kappa*: the judge's verdict against the majority of all. Kappa is Cohen's; intervals are from
  2,000 bootstrap draws of items, the difference paired by item.
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
# [items, 4]: weights of (both true, first only, second only, neither).
AgreementTable = NDArray[np.float64]


def read_votes(row: Row) -> list[bool]:
    """Returns the people's verdicts on a row, without those who could not decide."""
    return [j.verdict for j in row.judgements if j.rater is not None and j.verdict is not None]


def person_with_rest(votes: list[bool]) -> list[float]:
    """Returns the 2x2 table of each vote against the majority of the other votes on the item.

    It is scaled to sum 1, so that each item counts once; ties among the others are left out.
    """
    table = np.zeros(4)
    yes = sum(votes)
    half = (len(votes) - 1) / 2
    for vote in votes:
        other_yes = yes - vote
        if other_yes != half:
            table[table_cell(vote, other_yes > half)] += 1
    return list(table / table.sum()) if table.sum() else [0.0] * 4


def table_cell(first: bool, second: bool) -> int:
    """Returns the column of an `AgreementTable`."""
    return 2 * (not first) + (not second)


def kappa(tables: AgreementTable) -> Any:
    """Returns Cohen's kappa of summed tables [..., 4]; NaN without variance."""
    total = tables.sum(-1)
    both, first, second, neither = (tables[..., k] / total for k in range(4))
    chance = (both + first) * (both + second) + (second + neither) * (first + neither)
    with np.errstate(divide="ignore", invalid="ignore"):
        return ((both + neither) - chance) / (1 - chance)


def percentile_bounds(values: NDArray[np.float64]) -> list[float]:
    """Returns the 2.5 and 97.5 % percentiles of bootstrap values."""
    low, high = np.nanquantile(values, [0.025, 0.975])
    return [round(float(low), 3), round(float(high), 3)]


def user_turn_as_answer(row: Row) -> tuple[Sample, Response]:
    """Puts the last user turn in the place of the answer.

    For rows whose user turn was rated, and judges that read answers.
    """
    *earlier, last = row.sample.conversation.messages
    sample = Sample(id=row.sample.id, conversation=Conversation(tuple(earlier)))
    return sample, Response(sample_id=row.sample.id, message=Message("assistant", last.content))


async def judge_rows(judge: Judge, rows: list[Row], question: str) -> list[bool | None]:
    """Returns the judge's verdict on each row; None where it is unscored."""

    async def judge_row(row: Row) -> bool | None:
        placeholder = Response(sample_id=row.sample.id, message=Message("assistant", "."))
        sample, response = row.sample, row.responses[0] if row.responses else placeholder
        if question == "harmful_prompt" and judge.question != question:
            sample, response = user_turn_as_answer(row)
        return (await judge.judge(sample, response)).verdict

    verdicts = list(await asyncio.gather(*(judge_row(row) for row in rows)))
    await close_connections()
    return verdicts


def measure_crowd(rows: list[Row]) -> tuple[dict[str, Any], AgreementTable, list[bool | None]]:
    """Measures the people's agreement: figures, tables by item, majority of each item.

    The majority is None at a tie.
    """
    votes = [read_votes(row) for row in rows]
    width = max(map(len, votes))
    matrix = np.full((width, len(rows)), np.nan)  # raters x items, as krippendorff_alpha expects
    for k, item in enumerate(votes):
        matrix[: len(item), k] = item
    alpha = krippendorff_alpha(matrix, "nominal", options=BootstrapOptions(draws=200))
    tables = np.array([person_with_rest(s) for s in votes])
    majority = [None if 2 * sum(s) == len(s) else 2 * sum(s) > len(s) for s in votes]
    figures = {
        "items": len(rows),
        "ratings": sum(map(len, votes)),
        "called harmful by most": sum(bool(m) for m in majority),
        "alpha": [round(alpha.estimate, 3), round(alpha.lower, 3), round(alpha.upper, 3)],
    }
    return figures, tables, majority


def compare(
    tables: AgreementTable, majority: list[bool | None], verdicts: list[bool | None], seed: int
) -> dict[str, Any]:
    """Compares a judge's agreement with the majority to that of a person."""
    judged = np.zeros_like(tables)
    for k, (verdict, vote) in enumerate(zip(verdicts, majority, strict=True)):
        if verdict is not None and vote is not None:
            judged[k, table_cell(verdict, vote)] = 1
    scored = judged.sum(1) > 0
    people, judged = tables[scored], judged[scored]
    # A bootstrap draw of items is a vector of counts; the same draws for both give the pairing.
    draws = np.random.default_rng(seed).multinomial(
        len(people), np.full(len(people), 1 / len(people)), DRAWS
    )
    judge_draws, person_draws = kappa(draws @ judged), kappa(draws @ people)
    judge_kappa, person_kappa = float(kappa(judged.sum(0))), float(kappa(people.sum(0)))
    both, first, second, _ = judged.sum(0)
    return {
        "scored": int(scored.sum()),
        "unscored": sum(v is None for v in verdicts),
        "kappa": [round(judge_kappa, 3), *percentile_bounds(judge_draws)],
        "person with the rest": [round(person_kappa, 3), *percentile_bounds(person_draws)],
        "difference": [
            round(judge_kappa - person_kappa, 3),
            *percentile_bounds(judge_draws - person_draws),
        ],
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
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for spec in arguments.data or ["dices", "convabuse,split=train"]:
        data = resolve(spec, "data")
        rows = [r for r in data.rows() if len(read_votes(r)) >= 2]
        question = next(j.question for j in rows[0].judgements)
        figures, tables, majority = measure_crowd(rows)
        for name in arguments.judge:
            judge = resolve(name, "judge")
            if question == "harmful_prompt" and hasattr(judge, "of_prompts"):
                judge = judge.of_prompts()
            verdicts = asyncio.run(judge_rows(judge, rows, question))
            figures[name] = compare(tables, majority, verdicts, arguments.seed)
        results[spec] = figures
    print(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
