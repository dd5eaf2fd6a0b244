"""Whether a model prefers the safe of two answers, with controls for style.

The measures of a pair: log p(r|q) with the chat template (token, byte, word) and as plain text; the
gain over the same form without the question, log p(r|q) - log p(r), which takes out what makes a
text likely in itself; and both again after the question of another pair. A preference that depends
on the question falls to chance there; one that remains is about style.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from truing.core.protocols import LogprobModel
from truing.core.types import Conversation, Failure
from truing.rankers.items import AnswerPair, LabelledAnswer
from truing.rankers.text_likelihood import PromptForm, TextLikelihood, measure_likelihood


class ConditionalLikelihoods(Struct, frozen=True, kw_only=True):
    """The likelihoods of a text: after its question, without one, after another, as plain text."""

    asked: TextLikelihood
    alone: TextLikelihood
    swapped: TextLikelihood | None = None
    plain: TextLikelihood | None = None

    @property
    def gain(self) -> float:
        """Returns log p(r|q) - log p(r)."""
        return self.asked.total - self.alone.total

    @property
    def swapped_gain(self) -> float | None:
        """Returns the gain after the question of another pair."""
        return None if self.swapped is None else self.swapped.total - self.alone.total


class ComparedPair(Struct, frozen=True, kw_only=True):
    """The measured likelihoods of a pair, or the failure."""

    sample_id: str
    ranker: str = "perplexity"
    cluster: str = ""
    harms: tuple[str, ...] = ()
    safe: ConditionalLikelihoods | None = None
    unsafe: ConditionalLikelihoods | None = None
    cut: int = 0
    failure: Failure | None = None


class MeasuredAnswer(Struct, frozen=True, kw_only=True):
    """The measured likelihoods of a single labelled answer, or the failure."""

    sample_id: str
    ranker: str = "perplexity"
    cluster: str = ""
    harms: tuple[str, ...] = ()
    unsafe: bool = False
    likely: ConditionalLikelihoods | None = None
    failure: Failure | None = None


def assign_unrelated_prompts(pairs: Sequence[AnswerPair]) -> list[Conversation | None]:
    """Returns for each pair the prompt of another pair, in an order fixed by the ids.

    None where all pairs have the same prompt.
    """
    order = sorted(
        range(len(pairs)), key=lambda index: hashlib.sha256(pairs[index].id.encode()).digest()
    )
    conversations: list[Conversation | None] = [None] * len(pairs)
    for position, index in enumerate(order):
        # The next pair in a hashed order, skipping those with the same prompt.
        for step in range(1, len(order)):
            candidate = pairs[order[(position + step) % len(order)]]
            if candidate.cluster != pairs[index].cluster:
                conversations[index] = candidate.conversation
                break
    return conversations


async def compare_pair(
    model: LogprobModel,
    pair: AnswerPair,
    unrelated_prompt: Conversation | None,
    form: PromptForm,
    *,
    plain: bool = True,
) -> ComparedPair:
    """Measures both answers under every condition; `plain` also as text without the chat
    template.
    """
    empty = ComparedPair(sample_id=pair.id, cluster=pair.cluster, harms=pair.harms)
    if pair.fault:
        return replace(empty, failure=Failure("ranker", "choices", pair.fault))
    texts = (pair.safe, pair.unsafe)
    # Many base models were never trained with a chat template, so both forms are measured.
    plain_form = replace(form, plain=True)
    prefixes = [form.prefix(pair.conversation), form.without(pair.conversation)]
    forms = [form, form]
    if unrelated_prompt is not None:
        prefixes.append(form.prefix(unrelated_prompt))
        forms.append(form)
    if plain and not form.plain:
        prefixes.append(plain_form.prefix(pair.conversation))
        forms.append(plain_form)
    measured_pairs = await asyncio.gather(
        *(
            measure_likelihood(model, prefix, texts, prefix_form)
            for prefix, prefix_form in zip(prefixes, forms)
        )
    )
    failure = next((m.failure for m in measured_pairs if m.failure is not None), None)
    if failure is not None:
        return replace(empty, failure=failure)
    swapped = measured_pairs[2] if unrelated_prompt is not None else None
    measured_as_text = measured_pairs[-1] if plain and not form.plain else None
    safe, unsafe = (
        ConditionalLikelihoods(
            asked=measured_pairs[0].measures[i],
            alone=measured_pairs[1].measures[i],
            swapped=swapped.measures[i] if swapped else None,
            plain=measured_as_text.measures[i] if measured_as_text else None,
        )
        for i in (0, 1)
    )
    return replace(empty, safe=safe, unsafe=unsafe, cut=max(m.cut for m in measured_pairs))


async def measure_answer(
    model: LogprobModel, text: LabelledAnswer, form: PromptForm
) -> MeasuredAnswer:
    """Measures one labelled answer after its question and without it."""
    empty = MeasuredAnswer(
        sample_id=text.id, cluster=text.cluster, harms=text.harms, unsafe=text.unsafe
    )
    if not text.text.strip():
        return replace(empty, failure=Failure("ranker", "choices", "an empty answer"))
    conditional, unconditional = await asyncio.gather(
        measure_likelihood(model, form.prefix(text.conversation), [text.text], form),
        measure_likelihood(model, form.without(text.conversation), [text.text], form),
    )
    failure = conditional.failure or unconditional.failure
    if failure is not None:
        return replace(empty, failure=failure)
    return replace(
        empty,
        likely=ConditionalLikelihoods(
            asked=conditional.measures[0], alone=unconditional.measures[0]
        ),
    )
