"""The interfaces of models, judges, data sets, rankers and attacks.

Each has one or two async methods for one item. Batching belongs to the implementation: callers make
concurrent calls, and an implementation may collect them into batches.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Protocol, cast, runtime_checkable

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


@runtime_checkable
class Model(Protocol):
    """Answers a conversation. Errors are returned as an `Answer` with a `failure`, not raised."""

    @property
    def name(self) -> str:
        """The spec-like name that reports show; contains no secret."""
        ...

    @property
    def lineage(self) -> Lineage:
        """What the model is made of, and the judges that selected, trained or blocked for it."""
        ...

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns `sampling.n` answers."""
        ...


@runtime_checkable
class StreamingModel(Protocol):
    """A model that can also return its answer in chunks; joined, they equal the answer's text."""

    def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """Yields chunks of text as they are generated."""
        ...


@runtime_checkable
class LogprobModel(Protocol):
    """A model that can compute the log-probability of a given continuation."""

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        """Returns the natural-log probability of each token of each continuation after the prefix.

        A `Conversation` is rendered with the chat template and the generation prompt; a `str` is
        used unchanged.
        """
        ...


@runtime_checkable
class TurnReadingModel(Protocol):
    """A model that can read finished turns: its chat template closes a last assistant turn.

    A guard model judges that turn; other models would go on writing it.
    """

    def turn_reader(self, *, keep_prefix: bool = False) -> Model:
        """Returns the model as a reader of finished turns.

        With `keep_prefix` the reader caches its prompts and runs only the tokens that follow the
        common prefix with an earlier one. Use one such reader for each growing conversation.
        """
        ...


@runtime_checkable
class LoopModel(Protocol):
    """A model that calls another one several times for an answer: an agent."""

    def around_model(self, wrap: Callable[[Model], Model]) -> Model:
        """Returns the model with `wrap` around the one that it calls."""
        ...


def iterate_models(model: object) -> Iterator[Model]:
    """Yields a model and those that it wraps, from the outside in: each names the one below as
    `model`.
    """
    # Not `isinstance`, which takes 20 microseconds for a protocol: this runs for each answer.
    while callable(getattr(model, "generate", None)):
        yield cast(Model, model)
        model = getattr(model, "model", None)


@runtime_checkable
class NamesAnswers(Protocol):
    """A model whose answers come from several sources, and are stored under the name of theirs."""

    def name_answer(self, conversation: Conversation) -> str:
        """Returns the name under which the answer to a conversation is stored."""
        ...


def name_answer(model: Model, conversation: Conversation) -> str:
    """Returns the name under which a model's answer to a conversation is stored."""
    return model.name_answer(conversation) if isinstance(model, NamesAnswers) else model.name


@runtime_checkable
class PrefixAware(Protocol):
    """A model that checks the texts of a conversation, and need not check an operator's prefix."""

    def expect_prefix(self, messages: Sequence[Message]) -> None:
        """Announces messages that a wrapper puts before every conversation."""
        ...


@runtime_checkable
class Closeable(Protocol):
    """An object that holds connections or processes."""

    async def close(self) -> None:
        """Releases them; may be called twice."""
        ...


@runtime_checkable
class Judge(Protocol):
    """Answers one question about a response.

    What it cannot judge is unscored: `verdict` None, with a `failure`.
    """

    @property
    def name(self) -> str:
        """The spec-like name under which judgements are stored."""
        ...

    @property
    def question(self) -> str:
        """The question that it answers: harmful, refused, degenerate, helpful, ..."""
        ...

    @property
    def lineage(self) -> Lineage:
        """Where the judge comes from; `lineage.hash` identifies it."""
        ...

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        """Judges one response."""
        ...


@runtime_checkable
class JudgeStream(Protocol):
    """The judgement of one answer while it is written; calls must not overlap."""

    async def push(self, text: str) -> Judgement | None:
        """Adds text; returns the verdict on all of it if a sentence has ended, else None."""
        ...

    async def flush(self) -> Judgement:
        """Returns the verdict on all of the text so far, within a sentence too."""
        ...

    async def finish(self) -> Judgement:
        """Returns the verdict on the whole answer: the one that `Judge.judge` gives."""
        ...


@runtime_checkable
class StreamingJudge(Protocol):
    """A judge that can judge an answer while it is written.

    In this process the cost is linear in the length of the answer: each sentence adds its own
    tokens, or one window. A judge whose model is at an endpoint sends all of the text again at each
    sentence, so that the text sent, and its price, grow with the square of the length; a server
    that caches prefixes saves only the computation.
    """

    def start(self, conversation: Conversation) -> JudgeStream:
        """Returns a new stream for one answer to a conversation."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """A data set, read as a stream; iterating twice reads the files twice."""

    @property
    def info(self) -> DataInfo:
        """Spec, source, licence."""
        ...

    def sha256(self) -> str:
        """Returns the hash of the files that the data set consists of."""
        ...

    def rows(self) -> Iterator[Row]:
        """Yields rows with their ids set; raises DataError with file and line."""
        ...

    def preferences(self) -> Iterator[Preference]:
        """Yields preference pairs; empty if the data set has none."""
        ...


@runtime_checkable
class Ranker(Protocol):
    """Scores candidate answers to one conversation: higher is better."""

    @property
    def name(self) -> str:
        """The name under which rankings are stored."""
        ...

    async def rank(self, conversation: Conversation, candidates: Sequence[str]) -> list[float]:
        """Returns one score for each candidate."""
        ...


@runtime_checkable
class Attack(Protocol):
    """Turns a sample into a harder one whose `parent` is the original."""

    @property
    def name(self) -> str:
        """The name under which results are grouped."""
        ...

    async def attack(self, sample: Sample, target: Model) -> Sample:
        """Returns the attacked sample; the attack may query the target while it searches."""
        ...
