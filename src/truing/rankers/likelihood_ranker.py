"""Any model that gives log-probabilities as a `Ranker`: multiple choice and perplexity ranking of any candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from truing.core.errors import UserError, did_you_mean
from truing.core.protocols import LogprobModel
from truing.core.types import Conversation
from truing.rankers.text_likelihood import LIKELIHOOD_UNITS, PromptForm, measure_likelihood


class LikelihoodRanker:
    """Scores candidates by their log-probability in a unit (total, token, byte, char, word), or by `pmi`.

    Candidates that cannot be scored raise UserError with the reason.
    """

    def __init__(
        self, model: LogprobModel, by: str = "token", form: PromptForm | None = None
    ) -> None:
        if by not in (*LIKELIHOOD_UNITS, "pmi"):
            raise UserError(
                f"by={by!r} is none of {', '.join((*LIKELIHOOD_UNITS, 'pmi'))}{did_you_mean(by, (*LIKELIHOOD_UNITS, 'pmi'))}"
            )
        self.model: Any = model
        self.by = by
        self.form = form or PromptForm()

    @property
    def name(self) -> str:
        """The model's, and the unit."""
        return f"likelihood:{self.by},model=({self.model.name})"

    async def rank(self, conversation: Conversation, candidates: Sequence[str]) -> list[float]:
        """One score for each candidate."""
        asked = await measure_likelihood(
            self.model, self.form.prefix(conversation), candidates, self.form
        )
        if asked.failure is not None:
            raise UserError(f"{self.name}: {asked.failure.message}")
        if self.by != "pmi":
            return [m.per(self.by) for m in asked.measures]
        alone = await measure_likelihood(
            self.model, self.form.without(conversation), candidates, self.form
        )
        if alone.failure is not None:
            raise UserError(f"{self.name}: {alone.failure.message}")
        return [m.total - a.total for m, a in zip(asked.measures, alone.measures)]
