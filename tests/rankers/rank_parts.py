"""A model whose log-probabilities are a function, and data sets that are lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from truing.core.types import (
    Answer,
    Conversation,
    DataInfo,
    Lineage,
    Preference,
    Row,
    Sample,
    Sampling,
)

Likely = Callable[[str, str], list[float]]


class FunctionModel:
    """`likely(prompt, text)` gives token log-probabilities; prompts reach it as the text of the
    last user turn.
    """

    def __init__(self, likely: Likely, says: Callable[[str], str] = lambda prompt: "") -> None:
        self.name = "knows"
        self.lineage = Lineage(name="knows", hash="0" * 16)
        self.likely = likely
        self.says = says
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        text = prefix if isinstance(prefix, str) else prefix.prompt
        self.asked.append((text, tuple(continuations)))
        return [self.likely(text, c) for c in continuations]

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        return (Answer.of(self.says(conversation.prompt)),)


class ListDataset:
    """A data set in memory."""

    def __init__(self, rows: Sequence[Row] = (), pairs: Sequence[Preference] = ()) -> None:
        self.info = DataInfo(spec="rows:test")
        self._rows, self._pairs = rows, pairs

    def sha256(self) -> str:
        return "0" * 64

    def rows(self) -> Iterator[Row]:
        return iter(self._rows)

    def preferences(self) -> Iterator[Preference]:
        return iter(self._pairs)


def choice(
    name: str, prompt: str, choices: Sequence[str], right: Sequence[int] | None, **tags: str
) -> Row:
    """One multiple-choice row."""
    answer = None if right is None else tuple(right)
    return Row(
        sample=Sample(
            id=name,
            conversation=Conversation.of(prompt),
            choices=tuple(choices),
            answer=answer,
            tags=tags,
        )
    )
