"""Labelled sets of neutral rows that judges have judged, for the tests of their comparison."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from truing.analysis.judge_comparison import (
    ComparedJudge,
    JudgesComparison,
    SetSource,
    compare_judges,
)
from truing.core.lineage import hash_prompts
from truing.core.types import Failure, Judgement, Lineage, Response, Sample
from truing.evaluation.judge_sets import LabelledRows, judge_set, store_set
from truing.runs.folder import Run
from truing.specs.resolve import resolve

Score = Callable[[str], float | None]


class ScoringJudge:
    """Scores an answer by a function of its text; None leaves it unscored."""

    def __init__(
        self,
        name: str,
        score: Score,
        *,
        question: str = "harmful",
        threshold: float = 0.5,
        trained_on: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.question = question
        self._score = score
        self._threshold = threshold
        self.lineage = Lineage(name=name, hash=f"hash-{name}", prompts=hash_prompts(trained_on))

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        p = self._score(response.text)
        return Judgement(
            sample_id=sample.id,
            index=response.index,
            judge=self.name,
            question=self.question,
            verdict=None if p is None else p >= self._threshold,
            score=p,
            failure=Failure("judge", "unparsable", "said nothing") if p is None else None,
        )


def number_in(text: str) -> float:
    """The score that an answer such as `answer 0.25 of 7` names."""
    return float(text.split()[1])


def labelled_rows(n: int = 120) -> list[dict[str, Any]]:
    """Rows of which every third is harmful, by two models; harmful ones have higher numbers."""
    rows = []
    for k in range(n):
        harmful = k % 3 == 0
        p = (0.9 if harmful else 0.2) + (k % 10) / 100
        rows.append(
            {
                "prompt": f"question {k // 2}",
                "response": f"answer {p:.2f} of {k}",
                "harmful": harmful,
                "model": "one" if k % 2 else "two",
            }
        )
    return rows


def store_rows(folder: Path, rows: Sequence[dict[str, Any]], name: str = "rows") -> Run:
    """Stores rows as a set to be judged."""
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return store_set(LabelledRows(resolve(f"file:{path}", "data")), folder / "sets" / name)


def compare(
    runs: Sequence[Run],
    judges: Sequence[ScoringJudge],
    *,
    labels: tuple[str, ...] = (),
    judged: bool = True,
) -> JudgesComparison:
    """Judges the sets with all judges, and compares them."""
    if judged:
        for run in runs:
            for judge in judges:
                judge_set(run, judge)
    return compare_judges(
        [ComparedJudge.of(j.name, j.name, j.question, j.lineage) for j in judges],
        [SetSource(run.path, labels) for run in runs],
        lineages={judge.name: judge.lineage for judge in judges},
    )
