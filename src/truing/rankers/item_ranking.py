"""Ranks single items by one method: in this process, or in a worker of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from truing.core.errors import UserError
from truing.core.protocols import LogprobModel, Model
from truing.core.types import Conversation
from truing.rankers.items import AnswerPair, ChoiceQuestion, LabelledAnswer
from truing.rankers.multiple_choice import (
    RankedChoices,
    rank_by_generation,
    rank_by_letter,
    rank_by_likelihood,
)
from truing.rankers.perplexity import (
    ComparedPair,
    MeasuredAnswer,
    compare_pair,
    measure_answer,
)
from truing.rankers.text_likelihood import PromptForm

RANKING_METHODS = ("likelihood", "letter", "generation")
PAIRS, ANSWERS = "pairs", "answers"  # the methods of `rank perplexity`


class RankingOptions(Struct, frozen=True, kw_only=True):
    """How to rank: methods, form of the prompt, orders by letter, number of items, concurrency.

    `limit` takes the first so many items, or with a `seed` so many at random (sets often lie
    sorted).
    """

    how: tuple[str, ...] = ("likelihood", "letter")
    form: PromptForm = PromptForm()
    permutations: int = 26
    limit: int | None = None
    seed: int | None = None
    together: int = 512
    plain_too: bool = True


class PairInContext(Struct, frozen=True, kw_only=True):
    """A pair of answers, and the prompt of another pair after which they are measured too."""

    pair: AnswerPair
    unrelated_prompt: Conversation | None = None

    @property
    def id(self) -> str:
        """The id of the pair."""
        return self.pair.id


RankingItem = ChoiceQuestion | PairInContext | LabelledAnswer
RankedItem = RankedChoices | ComparedPair | MeasuredAnswer
# Of each method: the type of its items, and that of its rows.
ITEM_TYPES: dict[str, type[RankingItem]] = {
    **dict.fromkeys(RANKING_METHODS, ChoiceQuestion),
    PAIRS: PairInContext,
    ANSWERS: LabelledAnswer,
}
ROW_TYPES: dict[str, type[RankedItem]] = {
    **dict.fromkeys(RANKING_METHODS, RankedChoices),
    PAIRS: ComparedPair,
    ANSWERS: MeasuredAnswer,
}


class ItemRanker:
    """Ranks items by one method; raises UserError for a model that the method cannot use."""

    def __init__(self, model: Model, method: str, options: RankingOptions) -> None:
        if method != "generation":
            require_logprobs(model)
        self.model, self.method, self.options = model, method, options

    async def rank(self, item: Any) -> RankedItem:
        """Returns the row of an item; what the model could not answer is a failure in it."""
        model: Any = self.model
        options = self.options
        if self.method == "likelihood":
            return await rank_by_likelihood(model, item, options.form)
        if self.method == "letter":
            return await rank_by_letter(
                model, item, options.form, permutations=options.permutations
            )
        if self.method == "generation":
            return await rank_by_generation(
                model, item, permutations=options.permutations if options.permutations < 26 else 1
            )
        if self.method == PAIRS:
            return await compare_pair(
                model, item.pair, item.unrelated_prompt, options.form, plain=options.plain_too
            )
        return await measure_answer(model, item, options.form)


MapItems = Callable[[ItemRanker, Sequence[RankingItem]], Iterator[list[RankedItem]]]
"""Does elsewhere what an `ItemRanker` does; yields the rows as they arrive, in any order."""


def require_logprobs(model: Model) -> None:
    """Raises UserError for a model that gives no log-probabilities."""
    if not isinstance(model, LogprobModel):
        raise UserError(
            f"{model.name}: returns no log-probabilities of a given text, so it cannot be ranked "
            "by likelihood, letter or perplexity; by generation it can (rank mcq --by generation)"
        )
