"""Multiple choice: by the likelihood of each choice, by its letter, or by generation.

By likelihood, a choice is scored as the model's own answer (sum; per token, byte, character), and
by how much the question makes it likelier (PMI: Holtzman et al. 2021, arXiv:2104.08315). By letter,
the options are shown in every rotation and the probabilities of a choice averaged, so that no
position is favoured; the picks by position are kept (position bias: Zheng et al. 2024,
arXiv:2309.03882).
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import Sequence
from string import ascii_uppercase

from msgspec import Struct, field

from truing.core.protocols import LogprobModel, Model
from truing.core.types import Conversation, Failure, Message, Sampling
from truing.rankers.items import ChoiceQuestion
from truing.rankers.text_likelihood import PromptForm, TextLikelihood, measure_likelihood

LETTER_INSTRUCTION = "Answer with the letter alone."


class RankedChoices(Struct, frozen=True, kw_only=True):
    """The scored choices of one question: method -> a score for each choice, higher is better.

    `measures` are by likelihood; `picks` are (position, choice) for each rotation, by letter.
    """

    sample_id: str
    ranker: str
    right: tuple[int, ...] = ()
    scores: dict[str, tuple[float, ...]] = field(default_factory=dict)
    measures: tuple[TextLikelihood, ...] = ()
    picks: tuple[tuple[int, int], ...] = ()
    cluster: str = ""
    harms: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    merged: bool = False
    failure: Failure | None = None

    def best(self, method: str) -> tuple[int, ...]:
        """Returns the indexes of the highest score: one, or all that tie."""
        row = self.scores[method]
        top = max(row)
        return tuple(i for i, x in enumerate(row) if x == top)


def _unscored_ranking(question: ChoiceQuestion, ranker: str) -> RankedChoices:
    return RankedChoices(
        sample_id=question.id,
        ranker=ranker,
        right=question.right,
        cluster=question.cluster,
        harms=question.harms,
        tags=question.tags,
    )


def failed_ranking(question: ChoiceQuestion, ranker: str, failure: Failure) -> RankedChoices:
    """Returns the result of a question that could not be ranked."""
    from msgspec.structs import replace

    return replace(_unscored_ranking(question, ranker), failure=failure)


async def rank_by_likelihood(
    model: LogprobModel, question: ChoiceQuestion, form: PromptForm
) -> RankedChoices:
    """Returns the scores `sum`, `token`, `byte`, `char` and `pmi` (sum minus that without the
    question).
    """
    from msgspec.structs import replace

    if question.fault:
        return failed_ranking(question, "likelihood", Failure("ranker", "choices", question.fault))
    conditional, unconditional = await asyncio.gather(
        measure_likelihood(model, form.prefix(question.conversation), question.choices, form),
        # The form without the question has the part of the domain premise in PMI_DC (Holtzman et
        # al.).
        measure_likelihood(model, form.without(question.conversation), question.choices, form),
    )
    failure = conditional.failure or unconditional.failure
    if failure is not None:
        return failed_ranking(question, "likelihood", failure)
    scores = {u: tuple(m.per(u) for m in conditional.measures) for u in ("token", "byte", "char")}
    scores["sum"] = tuple(m.total for m in conditional.measures)
    scores["pmi"] = tuple(
        m.total - a.total for m, a in zip(conditional.measures, unconditional.measures)
    )
    return replace(
        _unscored_ranking(question, "likelihood"),
        scores=scores,
        measures=conditional.measures,
        cut=conditional.cut,
        merged=conditional.merged,
    )


def choice_orders(question: ChoiceQuestion, limit: int) -> list[tuple[int, ...]]:
    """Returns at most `limit` rotations of the choices; the first depends on the question's id."""
    n = len(question.choices)
    # With fewer rotations than choices the start matters: by the id, so that it varies over the
    # questions and is the same in every run.
    first = int.from_bytes(hashlib.sha256(question.id.encode()).digest()[:4], "big") % n
    return [tuple((first + r + i) % n for i in range(n)) for r in range(min(n, max(1, limit)))]


def letter_options(question: ChoiceQuestion, order: Sequence[int]) -> Conversation:
    """Returns the question with lettered options as the last user turn."""
    turns = question.conversation.messages
    options = "\n".join(
        f"{ascii_uppercase[place]}. {question.choices[i].strip()}" for place, i in enumerate(order)
    )
    text = turns[-1].content
    if question.ask:
        text = f"A user wrote:\n{text}\n\n{question.ask}"
    return Conversation(
        (*turns[:-1], Message("user", f"{text}\n\n{options}\n\n{LETTER_INSTRUCTION}"))
    )


async def rank_by_letter(
    model: LogprobModel, question: ChoiceQuestion, form: PromptForm, *, permutations: int = 26
) -> RankedChoices:
    """Returns the score `letter`: the mean share of probability of a choice's letter."""
    from msgspec.structs import replace

    fault = question.fault or ("more choices than letters" if len(question.choices) > 26 else None)
    if fault:
        return failed_ranking(question, "letter", Failure("ranker", "choices", fault))
    n = len(question.choices)
    total, picks, cut = [0.0] * n, [], 0
    orders = choice_orders(question, permutations)
    likelihoods_by_order = await asyncio.gather(
        *(
            measure_likelihood(
                model, form.prefix(letter_options(question, order)), ascii_uppercase[:n], form
            )
            for order in orders
        )
    )
    for order, likelihoods in zip(orders, likelihoods_by_order):
        if likelihoods.failure is not None:
            return failed_ranking(question, "letter", likelihoods.failure)
        logs = [m.total for m in likelihoods.measures]
        top = max(logs)
        # Renormalised over the letters: what the model gives to other tokens is left out.
        weights = [math.exp(x - top) for x in logs]
        for place, i in enumerate(order):
            # Indexed by choice and not by position: the mean over rotations cancels a preference
            # for A.
            total[i] += weights[place] / sum(weights) / len(orders)
        place = weights.index(max(weights))
        picks.append((place, order[place]))
        cut = max(cut, likelihoods.cut)
    return replace(
        _unscored_ranking(question, "letter"),
        scores={"letter": tuple(total)},
        picks=tuple(picks),
        cut=cut,
    )


_LETTER_AT_START = re.compile(
    r"^\W*+(?:the\s+)?(?:correct\s+|right\s+|best\s+)?(?:answer|option|choice)?(?:\s+is)?\W*+([A-Z])(?=[.):,\n*]|\s*$)",
    re.I,
)
_LETTER_IN_SENTENCE = re.compile(
    r"\b(?:answer|option|choice)(?:\s+is)?\s*+:?\s*+\W?([A-Z])\b(?![a-z' ]\w)"
)


def parse_choice(text: str, choices: Sequence[str]) -> int | None:
    """Returns the position that a reply names, or None if it is unclear.

    By a letter at its start, by "the answer is B", or by the text of exactly one choice.
    """
    match = _LETTER_AT_START.match(text.strip()) or _LETTER_IN_SENTENCE.search(text)
    if match:
        place = ascii_uppercase.index(match.group(1).upper())
        return place if place < len(choices) else None
    folded_text = text.strip().casefold()
    # Two choices in a reply (one may be quoted to be rejected) leave the answer unclear.
    mentioned = [index for index, c in enumerate(choices) if c.strip().casefold() in folded_text]
    return mentioned[0] if len(mentioned) == 1 else None


async def rank_by_generation(
    model: Model, question: ChoiceQuestion, *, permutations: int = 1, max_tokens: int = 16
) -> RankedChoices:
    """Returns the score `written`: the share of rotations whose reply names the choice.

    A question without any clear reply is unscored.
    """
    from msgspec.structs import replace

    fault = question.fault or ("more choices than letters" if len(question.choices) > 26 else None)
    if fault:
        return failed_ranking(question, "generation", Failure("ranker", "choices", fault))
    total, picks = [0.0] * len(question.choices), []
    orders = choice_orders(question, permutations)
    sampling = Sampling(max_tokens=max_tokens)
    replies = await asyncio.gather(
        *(model.generate(letter_options(question, order), sampling) for order in orders)
    )
    for order, (reply,) in zip(orders, replies):
        if reply.failure is not None:
            return failed_ranking(question, "generation", reply.failure)
        place = parse_choice(reply.text, [question.choices[i] for i in order])
        if place is not None:
            total[order[place]] += 1 / len(orders)
            picks.append((place, order[place]))
    if not picks:
        return failed_ranking(
            question, "generation", Failure("ranker", "unparsable", "the answer names no choice")
        )
    return replace(
        _unscored_ranking(question, "generation"),
        scores={"written": tuple(total)},
        picks=tuple(picks),
    )
