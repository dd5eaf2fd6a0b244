"""Sizes, data sets and helpers shared by the scripts of this folder."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from truing.core.lineage import digest
from truing.core.protocols import Dataset, Judge
from truing.core.types import (
    Conversation,
    DataInfo,
    Judgement,
    Preference,
    Response,
    Row,
    Sample,
)
from truing.models.local import LocalModel
from truing.specs.resolve import resolve

# In the order of the tables.
LEVERS = (
    "base",
    "system",
    "prompted",
    "distilled",
    "best-reward",
    "best-cost",
    "best-both",
    "sft",
    "dpo",
    "ppo",
    "ppo-lag",
    "grpo-lag",
)


@dataclass(frozen=True)
class Size:
    """Number of prompts, samples and training steps of each phase."""

    n: int = 16  # answers of the base to each prompt
    max_tokens: int = 40
    harm: int = 10  # prompts per category
    xstest: int = 60
    safety: int = 80
    helpful: int = 54
    honest: int = 28
    steps: int = 40
    pair_steps: int = 30  # of DPO: each row is two answers, which the reference reads too
    judge_steps: int = 120
    rl_steps: int = 30
    rl_lr: float = 5e-4
    rl_kl: float = 0.05
    batch: int = 8
    max_length: int = 192
    prefilled: int = 40
    openings: tuple[int, ...] = (0, 2, 4, 8)
    benign_steps: int = 50
    measured: int = 300  # pairs of each set on which the reward and cost models are measured
    seeds: tuple[int, ...] = (0, 1, 2)


SIZES = {
    "cpu": Size(),
    "gpu": Size(
        max_tokens=128,
        harm=10,
        xstest=250,
        safety=168,
        helpful=108,
        honest=56,
        steps=400,
        pair_steps=400,
        judge_steps=400,
        rl_steps=300,
        batch=32,
        max_length=512,
        prefilled=140,
        measured=1000,
        seeds=(0, 1, 2),
    ),
    "smoke": Size(
        n=2,
        max_tokens=6,
        harm=1,
        xstest=2,
        safety=4,
        helpful=2,
        honest=2,
        steps=2,
        judge_steps=2,
        rl_steps=2,
        pair_steps=2,
        batch=4,
        prefilled=3,
        openings=(0, 2),
        benign_steps=2,
        measured=4,
        seeds=(0,),
    ),
}


class FilteredDataset:
    """The first `limit` rows of a data set that pass a filter, at most `per_category` of each."""

    def __init__(
        self,
        source: Dataset,
        keep: Callable[[Sample], bool],
        limit: int,
        per_category: int | None = None,
    ) -> None:
        self.source, self.keep = source, keep
        self.limit, self.per_category = limit, per_category
        self.info = source.info

    def sha256(self) -> str:
        """Returns the hash of the whole source."""
        return self.source.sha256()

    def rows(self) -> Iterator[Row]:
        """Yields the selected rows, without recorded answers and judgements."""
        count_by_category = Counter[str]()
        for row in self.source.rows():
            if count_by_category.total() == self.limit:
                return
            category = row.sample.harms[0] if row.sample.harms else ""
            full = self.per_category is not None and (
                count_by_category[category] >= self.per_category
            )
            if full or not self.keep(row.sample):
                continue
            count_by_category[category] += 1
            yield Row(sample=row.sample)

    def preferences(self) -> Iterator[Preference]:
        """Yields nothing."""
        return iter(())


class SampleList:
    """A data set of samples held in memory."""

    def __init__(self, spec: str, samples: list[Sample]) -> None:
        self.samples, self.info = samples, DataInfo(spec=spec)

    def sha256(self) -> str:
        """Returns the hash of the sample ids."""
        return digest(*(sample.id for sample in self.samples))

    def rows(self) -> Iterator[Row]:
        """Yields the samples in order."""
        return (Row(sample=sample) for sample in self.samples)

    def preferences(self) -> Iterator[Preference]:
        """Yields nothing."""
        return iter(())


class CachedJudge:
    """A judge that reads each (conversation, answer) once and repeats its judgement after that.

    Three kinds of best of n ask about the same stored answers.
    """

    def __init__(self, judge: Judge) -> None:
        self.inner = judge
        self.name, self.question, self.lineage = judge.name, judge.question, judge.lineage
        self.cache: dict[tuple[Conversation, str], Judgement] = {}

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        """Returns the judgement of the text, with the ids of this sample and response."""
        key = (sample.conversation, response.text)
        if key not in self.cache:
            self.cache[key] = await self.inner.judge(sample, response)
        return msgspec.structs.replace(self.cache[key], sample_id=sample.id, index=response.index)


def evaluation_sets(size: Size) -> dict[str, Dataset]:
    """Returns the prompts that measure the levers; none of them is trained on."""

    def select(
        spec: str, limit: int, per_category: int | None = None, *, benign: bool = False
    ) -> Dataset:
        return FilteredDataset(
            resolve(spec, "data"),
            lambda sample: not benign or sample.expect == "comply",
            limit,
            per_category,
        )

    return {
        "harm": select("beavertails,part=evaluation,distinct=true", 10**6, size.harm),
        "xstest": select("xstest", size.xstest, benign=True),
        "safety": select("builtin:safety,half=report", size.safety),
        "helpful": select("builtin:helpful,half=report", size.helpful),
        "honest": select("builtin:honest,half=report", size.honest),
    }


@contextmanager
def loaded_model(folder: str, dtype: str = "auto") -> Iterator[LocalModel]:
    """Loads a trained model and frees it afterwards."""
    model = LocalModel.load(folder, dtype=dtype)
    try:
        yield model
    finally:
        asyncio.run(model.close())
