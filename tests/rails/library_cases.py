"""Helpers of the library's tests: a rail in front of a scripted model, and a keyword judge."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import yaml

from truing.core.types import (
    Answer,
    Conversation,
    Failure,
    Judgement,
    Lineage,
    Message,
    Response,
    Ruling,
    Sample,
    Sampling,
    Tool,
)
from truing.models.scripted import ScriptedModel
from truing.rails.guarded import GuardedModel


class KeywordJudge:
    """Harmful where the text says `bad` (0.9), risky at `risky` (0.4), unscored at `odd`."""

    question = "harmful"

    def __init__(self, name: str = "test:harm") -> None:
        self.name = name
        self.lineage = Lineage(name=name, hash=name)

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        text = response.text
        fields: dict[str, Any] = {
            "sample_id": "rail",
            "judge": self.name,
            "question": self.question,
        }
        if "odd" in text:
            return Judgement(**fields, failure=Failure("judge", "language", "not English"))
        score = 0.9 if "bad" in text else 0.4 if "risky" in text else 0.05
        harms = {"violence,aiding_and_abetting,incitement": score, "self_harm": score / 2}
        return Judgement(**fields, verdict=score >= 0.5, score=score, harms=harms)


def echo_model() -> ScriptedModel:
    """A model that answers with the prompt."""
    return ScriptedModel(lambda conversation, sampling: conversation.prompt, name="echo")


def rails(**stages: list[str]) -> dict[str, Any]:
    """The `rails` block of a configuration."""
    return {"rails": {stage: {"flows": flows} for stage, flows in stages.items()}}


def guard(
    folder: Path,
    config: dict[str, Any],
    model: Any = None,
    judges: dict[str, Any] | None = None,
    **arguments: Any,
) -> GuardedModel:
    """Writes a configuration and puts a model behind it (the echo model unless one is given)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    judges = {"test": KeywordJudge()} if judges is None else judges
    return GuardedModel(folder, model or echo_model(), judges=judges, **arguments)


def ask(model: GuardedModel, text: str, *, tools: tuple[Tool, ...] = ()) -> Answer:
    """The answer to one message of a user."""
    conversation = Conversation((Message("user", text),))
    return asyncio.run(model.generate(conversation, Sampling(tools=tools)))[0]


def decisive_ruling(answer: Answer) -> Ruling:
    """The first ruling that is not `allow`, or else the last one."""
    return next((r for r in answer.rulings if r.ruling != "allow"), answer.rulings[-1])
