"""A model that returns log-probabilities as a `Ranker` of any candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from truing.core.errors import UserError, did_you_mean
from truing.core.protocols import LogprobModel
from truing.core.types import Conversation
from truing.rankers.text_likelihood import LIKELIHOOD_UNITS, PromptForm, measure_likelihood


class LikelihoodRanker:
    """Scores candidates by their log-probability in a unit (total, token, byte, char, word), or by
    `pmi`.

    Candidates that cannot be scored raise UserError with the reason.
    """

    def __init__(
        self, model: LogprobModel, by: str = "token", form: PromptForm | None = None
    ) -> None:
        units = (*LIKELIHOOD_UNITS, "pmi")
        if by not in units:
            raise UserError(f"by={by!r} is none of {', '.join(units)}{did_you_mean(by, units)}")
        self.model: Any = model
        self.by = by
        self.form = form or PromptForm()

    @property
    def name(self) -> str:
        """Returns the unit and the name of the model."""
        return f"likelihood:{self.by},model=({self.model.name})"

    async def rank(self, conversation: Conversation, candidates: Sequence[str]) -> list[float]:
        """Returns one score for each candidate."""
        conditional = await measure_likelihood(
            self.model, self.form.prefix(conversation), candidates, self.form
        )
        if conditional.failure is not None:
            raise UserError(f"{self.name}: {conditional.failure.message}")
        if self.by != "pmi":
            return [m.per(self.by) for m in conditional.measures]
        unconditional = await measure_likelihood(
            self.model, self.form.without(conversation), candidates, self.form
        )
        if unconditional.failure is not None:
            raise UserError(f"{self.name}: {unconditional.failure.message}")
        return [m.total - a.total for m, a in zip(conditional.measures, unconditional.measures)]
