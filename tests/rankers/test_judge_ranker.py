"""A run's answers in order by a judge, as preferences; the worst of n."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.rankers.rank_parts import ListDataset, choice

from truing.core.errors import UserError
from truing.core.lineage import digest
from truing.core.types import (
    Conversation,
    Judgement,
    Lineage,
    Message,
    Preference,
    Response,
    Row,
    Sample,
    Sampling,
)
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.models.scripted import ScriptedModel
from truing.rankers.judge_ranker import (
    JudgeRanker,
    make_preferences,
    order_answers,
    worst_case_figures,
)
from truing.rankers.run_ranking import rank_run


class Length:
    """More words, more harm: 0 for one, 1 for ten."""

    name, question = "test:length", "harmful"
    lineage = Lineage(name="test:length", hash=digest("length"))

    def __init__(self) -> None:
        self.calls = 0

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        self.calls += 1
        if response.text == "break":
            raise RuntimeError("out of order")
        n = len(response.text.split())
        return Judgement(
            sample_id=response.sample_id,
            index=response.index,
            judge=self.name,
            question=self.question,
            score=min(1.0, (n - 1) / 9),
            verdict=n > 5,
        )


def said(index: int, **more: Any) -> Judgement:
    return Judgement(sample_id="s", index=index, judge="j", question="q", **more)


def test_order_by_value_then_score_then_verdict() -> None:
    result = order_answers(
        "s",
        "j",
        [said(0, value=1.0), said(1, value=3.0), said(2), said(3, value=float("nan"))],
        lower=False,
    )
    assert (result.order, result.scores, result.unscored) == ((1, 0), (3.0, 1.0), 2)
    turned = order_answers(
        "s", "j", [said(0, score=0.2), said(1, score=0.9), said(2, verdict=False)], lower=True
    )
    assert turned.order == (2, 0, 1)
    assert order_answers("s", "j", [said(0), said(1)], lower=True).failure is not None


def test_preferences_are_best_over_worst_or_every_two() -> None:
    sample = Sample(id="s", conversation=Conversation.of("p"), harms=("self_harm",))
    answers = [
        Response(sample_id="s", index=i, message=Message("assistant", t))
        for i, t in enumerate("abca")
    ]
    placed = order_answers(
        "s", "j", [said(i, value=v) for i, v in enumerate((3.0, 2.0, 2.0, 1.0))], lower=False
    )
    assert (
        list(make_preferences(sample, answers, placed, dimension="safe")) == []
    )  # the same text first and last
    every = list(make_preferences(sample, answers, placed, dimension="safe", all_pairs=True))
    assert [(p.chosen.content, p.rejected.content, p.margin) for p in every] == [
        ("a", "b", 1.0),
        ("a", "c", 1.0),
        ("b", "a", 1.0),
        ("c", "a", 1.0),
    ]
    assert {p.harms for p in every} == {("self_harm",)}


def test_the_worst_of_n_by_hand() -> None:
    groups = [
        ("p", [said(0, score=0.2), said(1, score=0.7)]),
        ("q", [said(0, score=0.1), said(1)]),
        ("r", [said(0)]),
    ]
    expected, subset = worst_case_figures(groups)
    assert expected.value is not None and expected.value.estimate == pytest.approx((0.7 + 0.1) / 2)
    assert subset.value is not None and subset.value.estimate == 0.5
    assert worst_case_figures([("r", [said(0)])]) == []


def run(path: Path, n: int = 3) -> Path:
    words = ["one", "one two three four five six seven", "one two", "break"]
    rows = [choice(f"s{i}", f"prompt {i}", (), None) for i in range(4)]
    model = ScriptedModel(lambda c, s: words[s.seed % 4], version="v")
    evaluate(
        model,
        ListDataset([Row(sample=r.sample) for r in rows]),
        [],
        path,
        options=EvaluateOptions(sampling=Sampling(n=n, temperature=1.0)),
    )
    return path


def test_a_run_is_ordered_and_its_preferences_can_be_read(tmp_path: Path) -> None:
    path = run(tmp_path / "run", n=6)
    judge = Length()
    result = rank_run(path, judge, all_pairs=True)
    assert result.samples == 4 and result.ordered == 4 and judge.calls == 24
    lines = Path(result.file).read_bytes().splitlines()
    pairs = [msgspec.json.decode(line, type=Preference) for line in lines]
    assert len(pairs) == result.preferences > 0
    assert all(
        len(p.chosen.content.split()) < len(p.rejected.content.split()) for p in pairs
    )  # harmful: less is better
    assert {p.dimension for p in pairs} == {"safe"}
    assert all(
        "break" not in (p.chosen.content, p.rejected.content) for p in pairs
    )  # unscored: no place
    methods = [figure.method.rpartition(" ")[0] for figure in result.figures]
    assert methods == ["expected maximum of", "at least one of"]


def test_what_cannot_be_ordered_is_said(tmp_path: Path) -> None:
    single = run(tmp_path / "single", n=1)
    with pytest.raises(UserError, match="one answer a sample"):
        rank_run(single, Length())
    path = run(tmp_path / "run")
    manifest = (path / "manifest.json").read_bytes()
    chosen = msgspec.json.decode(manifest)
    chosen["lineage"]["judges"] = [msgspec.to_builtins(Length.lineage)]
    (path / "manifest.json").write_bytes(msgspec.json.encode(chosen))
    with pytest.raises(UserError, match="may not order the answers"):
        rank_run(path, Length())


def test_a_judge_is_a_ranker() -> None:
    ranker = JudgeRanker(Length())
    scores = asyncio.run(ranker.rank(Conversation.of("p"), ["one two", "one"]))
    assert scores[1] > scores[0]
