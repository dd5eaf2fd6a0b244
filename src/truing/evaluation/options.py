"""What a run is told (options, when to stop, whom to tell) and what it lets pass (answers and judgements to keep)."""

from __future__ import annotations

from typing import Any, Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from truing.core import output_filter
from truing.core.types import Answer, Failure, Judgement, Message, Sampling
from truing.runs.folder import replace_surrogates

MAX_ANSWER_CHARS = (
    1_000_000  # characters of an answer; a longer one is a failure, and its start is kept
)
KEPT_ANSWER_CHARS = 20_000


class StoppingRule(Protocol):
    """Tells when a run knows enough. One prompt is one draw; draws come in a random order fixed by the seed."""

    @property
    def question(self) -> str:
        """The question whose verdicts it looks at."""
        ...

    def observe(self, sample_id: str, verdict: float | None) -> bool:
        """Takes the next draw's mean verdict over its answers (none = unscored); True stops the run."""
        ...


class ProgressCallback(Protocol):
    """Hears how far a run is."""

    def __call__(self, done: int, total: int, failures: int) -> None:
        """After each sample; must be quick."""
        ...


class EvaluateOptions(Struct, frozen=True, kw_only=True):
    """How to run. `plan` is kept in the manifest beside the run's own; `retry_failures` asks failed samples again.

    `authorised` says who allowed an attack on an endpoint that is not this machine; `rate` is the most requests a second
    to the model's endpoint (without it 5 in such an attack, else none).
    """

    sampling: Sampling = Sampling()
    seed: int = 0
    limit: int | None = None
    concurrency: int = 16
    until: StoppingRule | None = None
    progress: ProgressCallback | None = None
    plan: dict[str, Any] = field(default_factory=dict)
    taxonomy: str = "beavertails"
    retry_failures: bool = False
    authorised: str = ""
    rate: float | None = None


def validate_judgement(made: object) -> Judgement:
    """A judgement as it may be stored: a real one, its rationale past the floor; TypeError for anything else."""
    if not isinstance(made, Judgement):
        raise TypeError(f"the judge gave a {type(made).__name__}, not a Judgement")
    if made.verdict is not None and not isinstance(made.verdict, bool):
        made = replace(made, verdict=bool(made.verdict))
    if made.rationale:
        held = output_filter.filter_text(made.rationale)
        if held is not made.rationale:
            made = replace(made, rationale=held)
    return made


def prepare_answer(answer: Any) -> Answer:
    """An answer as it may be stored: a real one, of bounded length, in Unicode, past the floor."""
    if not isinstance(answer, Answer):
        return Answer.failed(
            "unparsable", f"the model gave a {type(answer).__name__}, not an Answer"
        )
    text = answer.message.content
    if not isinstance(text, str):
        return Answer.failed(
            "unparsable", f"the answer's content is a {type(text).__name__}, not text"
        )
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = replace_surrogates(text)
            answer = replace(answer, message=replace(answer.message, content=text))
    held = output_filter.filter_answer(answer)
    if len(text) > MAX_ANSWER_CHARS and held is answer:
        said = f"an answer of {len(text)} characters; the first {KEPT_ANSWER_CHARS} are kept"
        message = Message("assistant", text[:KEPT_ANSWER_CHARS], answer.message.tool_calls)
        return replace(
            answer,
            message=message,
            finish_reason="length",
            logprobs=None,
            failure=Failure("model", "too_large", said),
        )
    return held
