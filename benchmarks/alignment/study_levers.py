"""Models of the study that no trained folder is: best of n, a lever over its seeds, and openings.

Openings are the first words of our own texts. What a model decides, to decline or to answer, it
decides there; in whole answers these words are a small part of the loss.
"""

from __future__ import annotations

from pathlib import Path

from truing.align.best_of import best_of
from truing.core.errors import UserError
from truing.core.protocols import Model
from truing.core.types import Answer, Conversation, Lineage, Response, Sampling
from truing.runs.folder import Run
from truing.specs.resolve import resolve

BEST_OF = 8
OPENING_WORDS = 8
COST_CEILING = 0.0
"""A cost model's own border between safe and unsafe."""


def build_best_of(model: Model, reward: Path, cost: Path) -> Model:
    """Returns the model with best of 8 by a reward model, among answers under the cost ceiling."""
    judges = [
        resolve(f"{kind}:{folder},dtype=bfloat16", "judge")
        for kind, folder in (("reward", reward), ("cost", cost))
    ]
    return best_of(model, BEST_OF, judges[0], ceiling=judges[1], below=COST_CEILING)


class StoredAnswers:
    """Stored answers as a model: one for each conversation."""

    def __init__(self, name: str, lineage: Lineage, answers: dict[Conversation, Answer]) -> None:
        self.name = name
        self.lineage = lineage
        self._answers = answers

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns the one stored answer; a failure for a conversation that has none."""
        missing = Answer.failed("missing", f"{self.name}: no stored answer to this conversation")
        return (self._answers.get(conversation, missing),)


class RotatedSeeds(StoredAnswers):
    """The stored answers of a lever's seeds: prompt k was answered by seed k mod their number.

    So each prompt has one answer of the lever, and a claim about it is one about all of its seeds.
    """

    def __init__(self, name: str, runs: list[Path]) -> None:
        folders = [Run(run) for run in runs]
        super().__init__(name, folders[0].manifest.lineage, {})
        for run, folder in zip(runs, folders):
            answers = _answers_by_conversation(folder)
            repeated = self._answers.keys() & answers.keys()
            if repeated:
                raise UserError(f"{run}: {len(repeated)} prompts have the answer of two seeds")
            self._answers |= answers


class OpeningTexts:
    """The first words of written answers, recorded as cut, so that no end is learned from them."""

    def __init__(self, answers: dict[Conversation, str]) -> None:
        self.name = "openings of our own texts"
        self.lineage = Lineage(name=self.name, licence="Apache-2.0")
        self._openings = {
            conversation: " ".join(text.split()[:OPENING_WORDS])
            for conversation, text in answers.items()
        }

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns the opening of the written answer."""
        return (Answer.of(self._openings[conversation], finish_reason="length"),)


def answer_of(response: Response) -> Answer:
    """Returns a stored response as the answer that a model gives."""
    return Answer(
        message=response.message,
        finish_reason=response.finish_reason,
        usage=response.usage,
        failure=response.failure,
    )


def _answers_by_conversation(run: Run) -> dict[Conversation, Answer]:
    conversations = {sample.id: sample.conversation for sample in run.samples()}
    return {conversations[response.sample_id]: answer_of(response) for response in run.responses()}
