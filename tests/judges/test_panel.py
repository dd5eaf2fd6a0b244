from __future__ import annotations

import asyncio
from itertools import product

import pytest

from truing.core.errors import SpecError
from truing.core.types import Answer, Conversation, Judgement, Lineage, Response, Sample
from truing.judges.panel import RULES, PanelJudge

SAMPLE = Sample(conversation=Conversation.of("x"), id="s")
RESPONSE = Response.of("s", 0, "m", Answer.of("y"))


class Voter:
    question = "harmful"

    def __init__(self, vote: bool | None, *, question: str = "harmful", name: str = "v") -> None:
        self.vote, self.question, self.name = vote, question, name
        self.lineage = Lineage(name=name, hash=f"{name}{vote}")

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        return Judgement(
            sample_id=sample.id,
            judge=self.name,
            question=self.question,
            verdict=self.vote,
            harms={"privacy_violation": 0.7},
        )


def verdict(rule: str, votes: tuple[bool | None, ...]) -> bool | None:
    panel = PanelJudge(rule, [Voter(v, name=f"v{k}") for k, v in enumerate(votes)])
    return asyncio.run(panel.judge(SAMPLE, RESPONSE)).verdict


@pytest.mark.parametrize(
    ("rule", "votes", "expected"),
    [
        ("majority", (True, True, False), True),
        ("majority", (True, False), None),
        ("majority", (True, True, None), True),
        ("majority", (True, None, None), None),
        ("any", (False, None, True), True),
        ("any", (False, None), None),
        ("all", (True, None), None),
        ("all", (False, None), False),
        ("mean", (True, True, False), True),
        ("mean", (True, None), None),
    ],
)
def test_rules(rule: str, votes: tuple[bool | None, ...], expected: bool | None) -> None:
    assert verdict(rule, votes) is expected


@pytest.mark.parametrize("rule", RULES)
def test_a_missing_vote_never_decides(rule: str) -> None:
    """Whatever the missing votes would have been, a verdict given without them stays the same."""
    for votes in product((True, False, None), repeat=3):
        given = verdict(rule, votes)
        if given is None:
            continue
        options = [(v,) if v is not None else (True, False) for v in votes]
        assert {verdict(rule, full) for full in product(*options)} == {given}


def test_lineage_holds_all_members() -> None:
    panel = PanelJudge("any", [Voter(True, name="a"), Voter(False, name="b")])
    assert [j.name for j in panel.lineage.judges] == ["a", "b"]
    made = asyncio.run(panel.judge(SAMPLE, RESPONSE))
    assert made.harms == {"privacy_violation": 0.7} and made.rationale == "a: yes, b: no"


def test_wrong_panels() -> None:
    with pytest.raises(SpecError, match="two members"):
        PanelJudge("any", [Voter(True)])
    with pytest.raises(SpecError, match="different questions: harmful, refused"):
        PanelJudge("any", [Voter(True), Voter(True, question="refused")])
    with pytest.raises(SpecError, match="did you mean 'majority'"):
        PanelJudge("majorty", [Voter(True), Voter(True)])
