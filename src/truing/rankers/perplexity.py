"""Which of two answers does the model find likelier, and is that because one is safe or because of its style?

The measures of a pair: log p(r|q) with the chat template (token, byte, word) and as plain text; the gain over the same
form without the question, log p(r|q) - log p(r), which takes out what makes a text likely in itself; and both again
behind the question of another pair. A preference for safety in answer to the question must fall to chance there.
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
    """One text under each condition: after its question, after none, after another's, and after it as plain text."""

    asked: TextLikelihood
    alone: TextLikelihood
    swapped: TextLikelihood | None = None
    plain: TextLikelihood | None = None

    @property
    def gain(self) -> float:
        """log p(r|q) - log p(r)."""
        return self.asked.total - self.alone.total

    @property
    def swapped_gain(self) -> float | None:
        """The same behind another pair's question."""
        return None if self.swapped is None else self.swapped.total - self.alone.total


class ComparedPair(Struct, frozen=True, kw_only=True):
    """A pair as measured; `failure` where it could not be."""

    sample_id: str
    ranker: str = "perplexity"
    cluster: str = ""
    harms: tuple[str, ...] = ()
    safe: ConditionalLikelihoods | None = None
    unsafe: ConditionalLikelihoods | None = None
    cut: int = 0
    failure: Failure | None = None


class MeasuredAnswer(Struct, frozen=True, kw_only=True):
    """A single labelled text as measured."""

    sample_id: str
    ranker: str = "perplexity"
    cluster: str = ""
    harms: tuple[str, ...] = ()
    unsafe: bool = False
    likely: ConditionalLikelihoods | None = None
    failure: Failure | None = None


def assign_unrelated_prompts(pairs: Sequence[AnswerPair]) -> list[Conversation | None]:
    """For each pair the conversation of another one, at random but fixed; none where all ask the same."""
    order = sorted(range(len(pairs)), key=lambda i: hashlib.sha256(pairs[i].id.encode()).digest())
    made: list[Conversation | None] = [None] * len(pairs)
    for at, i in enumerate(order):
        for step in range(1, len(order)):
            other = pairs[order[(at + step) % len(order)]]
            if other.cluster != pairs[i].cluster:
                made[i] = other.conversation
                break
    return made


async def compare_pair(
    model: LogprobModel,
    pair: AnswerPair,
    other: Conversation | None,
    form: PromptForm,
    *,
    plain: bool = True,
) -> ComparedPair:
    """Measures both answers under every condition; `plain` also as text without the chat template."""
    empty = ComparedPair(sample_id=pair.id, cluster=pair.cluster, harms=pair.harms)
    if pair.fault:
        return replace(empty, failure=Failure("ranker", "choices", pair.fault))
    texts = (pair.safe, pair.unsafe)
    bare = replace(form, plain=True)
    wanted = [form.prefix(pair.conversation), form.without(pair.conversation)]
    forms = [form, form]
    if other is not None:
        wanted.append(form.prefix(other))
        forms.append(form)
    if plain and not form.plain:
        wanted.append(bare.prefix(pair.conversation))
        forms.append(bare)
    made = await asyncio.gather(
        *(measure_likelihood(model, prefix, texts, how) for prefix, how in zip(wanted, forms))
    )
    failure = next((m.failure for m in made if m.failure is not None), None)
    if failure is not None:
        return replace(empty, failure=failure)
    swapped = made[2] if other is not None else None
    as_text = made[-1] if plain and not form.plain else None
    safe, unsafe = (
        ConditionalLikelihoods(
            asked=made[0].measures[i],
            alone=made[1].measures[i],
            swapped=swapped.measures[i] if swapped else None,
            plain=as_text.measures[i] if as_text else None,
        )
        for i in (0, 1)
    )
    return replace(empty, safe=safe, unsafe=unsafe, cut=max(m.cut for m in made))


async def measure_answer(
    model: LogprobModel, text: LabelledAnswer, form: PromptForm
) -> MeasuredAnswer:
    """Measures one labelled text after its question and without it."""
    empty = MeasuredAnswer(
        sample_id=text.id, cluster=text.cluster, harms=text.harms, unsafe=text.unsafe
    )
    if not text.text.strip():
        return replace(empty, failure=Failure("ranker", "choices", "an empty answer"))
    asked, alone = await asyncio.gather(
        measure_likelihood(model, form.prefix(text.conversation), [text.text], form),
        measure_likelihood(model, form.without(text.conversation), [text.text], form),
    )
    failure = asked.failure or alone.failure
    if failure is not None:
        return replace(empty, failure=failure)
    return replace(
        empty, likely=ConditionalLikelihoods(asked=asked.measures[0], alone=alone.measures[0])
    )
