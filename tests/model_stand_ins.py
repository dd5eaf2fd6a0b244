"""A small data set, a judge and a model for the tests of evaluations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from truing.core.ids import with_ids
from truing.core.types import (
    Answer,
    Conversation,
    DataInfo,
    Judgement,
    Lineage,
    Message,
    Preference,
    Response,
    Row,
    Sample,
    Sampling,
)


class MemoryDataset:
    """A data set in memory."""

    def __init__(self, rows: Sequence[Row], spec: str = "memory:rows") -> None:
        self._rows = list(rows)
        self._spec = spec

    @classmethod
    def of_size(cls, n: int, spec: str = "memory:rows") -> MemoryDataset:
        """Returns a data set of `n` distinct prompts with content ids."""
        prompts = (f"Question {i}: what is a kettle for?" for i in range(n))
        samples = with_ids(Sample(conversation=Conversation.of(p)) for p in prompts)
        return cls([Row(sample=s) for s in samples], spec)

    @property
    def info(self) -> DataInfo:
        return DataInfo(spec=self._spec, source="tests", licence="CC0")

    def sha256(self) -> str:
        return hashlib.sha256("".join(r.sample.id for r in self._rows).encode()).hexdigest()

    def rows(self) -> Iterator[Row]:
        yield from self._rows

    def preferences(self) -> Iterator[Preference]:
        yield from ()


class EvenJudge:
    """Gives the verdict True to answers of an even length."""

    def __init__(self, name: str = "test:even", question: str = "even") -> None:
        self.name = name
        self.question = question
        self.lineage = Lineage(name=name, hash=hashlib.sha256(name.encode()).hexdigest()[:16])
        self.calls = 0

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        self.calls += 1
        return Judgement(
            sample_id=sample.id,
            index=response.index,
            judge=self.name,
            question=self.question,
            verdict=len(response.text) % 2 == 0,
        )


class SeedModel:
    """Answers with the seed of the call, so that tests see the random stream of each sample."""

    name = "test:seed"
    lineage = Lineage(name="test:seed", hash="5eed5eed5eed5eed")

    def __init__(self) -> None:
        self.prompts: list[str] = []

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        self.prompts.append(conversation.prompt)
        return tuple(
            Answer(message=Message("assistant", f"{sampling.seed}/{i}")) for i in range(sampling.n)
        )
