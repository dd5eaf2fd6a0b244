"""Two runs of a simulated world, judged by judges whose errors may differ by model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from truing.analysis.card_files import write_card
from truing.analysis.judge_card import CardLineage, JudgeCard, QuestionCard
from truing.core.types import Conversation, Lineage, Sample
from truing.stats.intervals import wilson

JUDGE = Lineage(name="judge", hash="1" * 16)
SECOND = Lineage(name="second", hash="2" * 16)


class World(Struct, kw_only=True):
    """Rates of the baseline and of the variant.

    Attributes:
        harm: true harm on harmful prompts; benign prompts have none.
        sensitivity, false_alarms: of the judge on the answers of either model.
        second: sensitivity and false alarms of a second judge, the same on both; None: no such.
        n: harmful prompts, and as many benign ones.
        answers: answers to each prompt; they are alike, so that only prompts are independent.
    """

    harm: tuple[float, float]
    sensitivity: tuple[float, float] = (1.0, 1.0)
    false_alarms: tuple[float, float] = (0.0, 0.0)
    second: tuple[float, float] | None = None
    n: int = 400
    answers: int = 1


class JudgedPair(Struct):
    """The folders of both runs, and the truth about their harmful prompts."""

    paths: tuple[Path, Path]
    truths: tuple[NDArray[np.bool_], NDArray[np.bool_]]


def judge_pair(
    make_run: Callable[..., Path], world: World, seed: int, **options: Any
) -> JudgedPair:
    """Builds the runs of a world; options are those of `make_run`, for the variant."""
    rng = np.random.default_rng(seed)
    n = world.n
    samples = [
        Sample(
            id=f"{expect}{i}",
            conversation=Conversation.of(f"{expect} {i}"),
            expect=expect,
            pair=f"p{i}",
        )
        for expect in ("refuse", "comply")
        for i in range(n)
    ]
    paths, truths = [], []
    for side in (0, 1):
        truth = rng.random(n) < world.harm[side]
        of_all = np.concatenate([truth, np.zeros(n, bool)])
        judged = _judge(rng, of_all, world.sensitivity[side], world.false_alarms[side])
        verdicts = {"harmful@judge": [[bool(v)] * world.answers for v in judged]}
        if world.second is not None:
            by_second = _judge(rng, of_all, *world.second)
            verdicts["harmful@second"] = [[bool(v)] * world.answers for v in by_second]
        verdicts["degenerate"] = [[False] * world.answers] * (2 * n)
        verdicts["refused"] = [[False] * world.answers] * (2 * n)
        lineages = {"judge": JUDGE, "second": SECOND, **options.get("lineages", {})}
        chosen = {**options, "lineages": lineages} if side else {"lineages": lineages}
        paths.append(make_run(f"{'ab'[side]}{seed}", samples, verdicts, **chosen))
        truths.append(truth)
    return JudgedPair((paths[0], paths[1]), (truths[0], truths[1]))


def _judge(
    rng: np.random.Generator, truth: NDArray[np.bool_], sensitivity: float, false_alarms: float
) -> NDArray[np.bool_]:
    return np.where(
        truth, rng.random(len(truth)) < sensitivity, rng.random(len(truth)) < false_alarms
    )


def write_judge_card(
    path: Path, sensitivity: float, specificity: float, rows: int = 2000
) -> dict[str, Path]:
    """Writes a card of the judge with these rates; returns it as `compare` takes cards."""
    empty = dict.fromkeys(("precision", "f1", "auroc", "ap", "kappa"))
    question = QuestionCard(
        n=2 * rows,
        n_positive=rows,
        unscored=0,
        sensitivity=wilson(sensitivity * rows, rows),
        specificity=wilson(specificity * rows, rows),
        **empty,
    )
    card = JudgeCard(
        judge="judge",
        judge_hash=JUDGE.hash,
        data="d",
        data_hash="",
        n=2 * rows,
        questions={"harmful": question},
        per_category={},
        lineage=CardLineage(),
    )
    write_card(card, path)
    return {"judge": path}
