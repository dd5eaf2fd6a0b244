"""`--cost-limit` and tables of plans: what they mean, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from truing.core.errors import PlanError
from truing.plan.cost_limits import constraint_from_table, parse_constraint
from truing.train.rl.constraint_settings import ConstraintSettings


def test_a_flag_gives_settings_and_the_spec_of_the_cost() -> None:
    settings, cost = parse_constraint(
        'harm,cost=(llm:harm,model=(openai:m)),threshold=-0.5,kind=cvar,tail=0.2,category="a b"'
    )
    assert settings == ConstraintSettings(
        name="harm", threshold=-0.5, kind="cvar", tail=0.2, category="a b"
    )
    assert str(cost) == "llm:harm,model=(openai:m)"


def test_a_rate_of_verdicts_is_a_threshold() -> None:
    settings, _ = parse_constraint("refusal,cost=(rules:refusal),expect=comply,rate=0.05")
    assert settings.threshold == pytest.approx(-0.9)
    assert settings.expect == "comply"


def test_a_table_of_a_plan_means_the_same() -> None:
    table = {"name": "length", "cost": "length", "threshold": 40, "lambda_max": 2.0}
    settings, cost = constraint_from_table("limits", table)
    assert (settings.threshold, settings.lambda_max, str(cost)) == (40.0, 2.0, "length")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("harm,threshold=0", r"cost=\(SPEC\) is missing"),
        ("harm,cost=(length)", "threshold=T is missing"),
        ("harm,cost=(length),rate=2", "a share of answers"),
        ("harm,cost=(length),rate=0.1,threshold=0", "not both"),
        ("harm,cost=(length),treshold=0", "did you mean 'threshold'"),
        ("harm,cost=(length),threshold=x", "--cost-limit harm: Expected `float`"),
        ("harm:x,cost=(length),threshold=0", "begins with NAME"),
        ("harm,cost=(length", "not closed"),
        ("harm,cost=(length),threshold=0,kind=worst", "Invalid enum value"),
        ("harm,cost=(length),threshold=0,expect=never", "Invalid enum value"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        parse_constraint(text)


def test_prompts_are_chosen_by_category_and_behaviour() -> None:
    from truing.core.types import Conversation, Sample

    def sample(**fields: Any) -> Sample:
        return Sample(conversation=Conversation.of("a"), id="a", **fields)

    violence = ConstraintSettings(name="v", category="violence")
    assert violence.applies_to(sample(harms=("violence,aiding_and_abetting,incitement",)))
    assert violence.applies_to(sample(harms=("self_harm", "violence")))
    assert not violence.applies_to(sample(harms=("nonviolent", "violence_x")))
    both = ConstraintSettings(name="v", category="violence", expect="refuse")
    assert not both.applies_to(sample(harms=("violence",), expect="support"))
