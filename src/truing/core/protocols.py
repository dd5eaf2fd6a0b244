"""What a part must do to be used by an act: one or two async methods each.

Everything that answers is a `Model`, everything that gives an opinion is a `Judge`. Batching is the
implementation's own affair: callers make concurrent calls, and the implementation may gather them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol, runtime_checkable

from truing.core.types import (
    Answer,
    Conversation,
    DataInfo,
    Judgement,
    Lineage,
    Preference,
    Response,
    Row,
    Sample,
    Sampling,
)


@runtime_checkable
class Model(Protocol):
    """Answers a conversation. Trouble comes back as an `Answer` with a `failure`, never as an exception."""

    @property
    def name(self) -> str:
        """The spec-like name under which reports show it; holds no secret."""
        ...

    @property
    def lineage(self) -> Lineage:
        """What it is made of, and the judges that chose, trained or blocked for it."""
        ...

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Gives `sampling.n` answers."""
        ...


@runtime_checkable
class StreamingModel(Protocol):
    """A model that can also give its answer piece by piece; pieces concatenated equal the answer's text."""

    def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """Yields text as it comes."""
        ...


@runtime_checkable
class LogprobModel(Protocol):
    """A model that tells how likely it finds given continuations."""

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        """Natural-log probability of each token of each continuation, given the prefix.

        A `Conversation` goes through the chat template (with the generation prompt); a `str` is taken as it stands.
        """
        ...


@runtime_checkable
class Closeable(Protocol):
    """Anything that holds connections or processes."""

    async def close(self) -> None:
        """Lets go of them; may be called twice."""
        ...


@runtime_checkable
class Judge(Protocol):
    """Answers one question about a response. What it cannot judge is unscored (`verdict` none, with a `failure`)."""

    @property
    def name(self) -> str:
        """The spec-like name under which judgements are stored."""
        ...

    @property
    def question(self) -> str:
        """harmful, refused, degenerate, helpful, ..."""
        ...

    @property
    def lineage(self) -> Lineage:
        """Where it comes from; `lineage.hash` is the judge's hash."""
        ...

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        """Judges one response."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """A data set, read as a stream; iterating twice reads twice. Sets of pairs also give `preferences`."""

    @property
    def info(self) -> DataInfo:
        """Spec, source, licence."""
        ...

    def sha256(self) -> str:
        """Hash of the files that were (or will be) read."""
        ...

    def rows(self) -> Iterator[Row]:
        """Rows with their ids set; raises DataError with file and line."""
        ...

    def preferences(self) -> Iterator[Preference]:
        """Pairs in order of preference; empty where the set has none."""
        ...


@runtime_checkable
class Ranker(Protocol):
    """Scores candidates for one conversation: higher is better."""

    @property
    def name(self) -> str:
        """The name under which rankings are stored."""
        ...

    async def rank(self, conversation: Conversation, candidates: Sequence[str]) -> list[float]:
        """One score for each candidate."""
        ...


@runtime_checkable
class Attack(Protocol):
    """Turns a sample into a harder one whose `parent` is the first."""

    @property
    def name(self) -> str:
        """The name under which results are grouped."""
        ...

    async def attack(self, sample: Sample, target: Model) -> Sample:
        """The attacked sample; the target may be asked on the way."""
        ...
