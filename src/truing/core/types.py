"""The data model: immutable values that all packages exchange and that run folders store.

A `Model` returns `Answer`s; the scheduler stores them as `Response`s to a `Sample`; a `Judge` turns
a response into a `Judgement`; people and rankers produce `Preference`s. A `Failure` records a
run-time error. All are msgspec Structs: `msgspec.json.encode` writes them,
`msgspec.json.decode(..., type=T)` reads them, and their field names are the keys of the files.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from truing.core.episodes import Environment as Environment
from truing.core.episodes import Episode as Episode
from truing.core.messages import Conversation as Conversation
from truing.core.messages import ImageMessage as ImageMessage
from truing.core.messages import Message as Message
from truing.core.messages import MessageFormatError as MessageFormatError
from truing.core.messages import Role as Role
from truing.core.messages import Tool as Tool
from truing.core.messages import ToolCall as ToolCall

Expect = Literal["comply", "refuse", "clarify", "abstain", "support", "none"]
Dimension = Literal["helpful", "safe"]

MAX_ANSWERS = 10_000
"""The most answers to one sample; readers refuse files with a higher index."""

AnswerIndex = Annotated[int, Meta(ge=0, lt=MAX_ANSWERS)]
"""The number of an answer among those to the same sample, from 0."""


_TRANSIENT_KINDS = frozenset(
    {"auth", "connect", "dropped", "rate_limited", "timeout", "tls", "worker"}
)


class Failure(Struct, frozen=True):
    """A run-time error that is recorded instead of raised.

    `stage` names the component (``model``, ``judge``, ``rail``, ``attack``, and ``floor`` for the
    output filter), `kind` the class of error (``timeout``, ``http``, ``unparsable``, ``empty``,
    ...), `message` is one line for a human.
    """

    stage: str
    kind: str
    message: str

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later: the endpoint was down, unreachable, out of
        quota or without a valid key, or the process behind it died.

        A reply that could not be read, an exception of the user's code and a request that the
        endpoint refuses are not: the same request leads to the same failure.
        """
        if self.kind == "http":
            # The message begins with the status.
            return self.message.startswith(("408", "425", "5"))
        return self.kind in _TRANSIENT_KINDS


class AnswerCheck(Struct, frozen=True):
    """A programmatic check of an answer, for the judge `rules:check`.

    `kind` names the check function, `values` are its arguments.
    """

    kind: str
    values: tuple[str, ...] = ()


class Sample(Struct, frozen=True, kw_only=True):
    """One prompt for a model, with what is known about it in advance.

    - `harms`: category ids of a taxonomy
    - `expect`: the desired behaviour
    - `pair`: a name that a prompt and its benign (or more specific) counterpart share
    - `choices`, `answer`: a multiple-choice question; `answer` holds the indexes of the correct
      choices, or a text
    - `check`: a programmatic check of the answer
    - `source`: the data set (``builtin:safety``)
    - `parent`: the id of the original sample, if this one is the result of an attack
    - `environment`: the simulated world of an agent's task; not stored for other samples
    - `tags`: further attributes from the data set (``{"direct": "yes"}``)
    """

    conversation: Conversation
    id: str = ""
    harms: tuple[str, ...] = ()
    expect: Expect = "none"
    pair: str | None = None
    choices: tuple[str, ...] = ()
    answer: str | tuple[int, ...] | None = None
    check: AnswerCheck | None = None
    source: str = ""
    parent: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    # Left out of the JSON of all other samples, whose ids and files stay as they are.
    environment: Environment | UnsetType = UNSET

    @property
    def prompt(self) -> str:
        """The text of the newest user message."""
        return self.conversation.prompt


class Sampling(Struct, frozen=True, kw_only=True):
    """Sampling parameters.

    `temperature` 0 is greedy decoding; `seed` and the index of an answer determine its random
    stream. `environment` is the world in which an agent works; other models ignore it.
    """

    n: int = 1
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    logprobs: int | None = None
    environment: Environment | None = None


class Usage(Struct, frozen=True):
    """Token counts of a request; `cached_tokens` are those prompt tokens that a cache served."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class TokenLogprob(Struct, frozen=True):
    """Natural-log probability of one token, with the top alternatives if requested."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


class ContinuationScores(Struct, frozen=True):
    """Natural-log probability of each token of a given continuation.

    `cut`: number of prefix tokens dropped to fit the context window; `merged`: whether one token
    spans the boundary between prefix and continuation; `failure`: why there are no
    log-probabilities.
    """

    logprobs: tuple[float, ...] = ()
    cut: int = 0
    merged: bool = False
    failure: Failure | None = None


class Ruling(Struct, frozen=True, kw_only=True):
    """The decision of a guardrail, with its reason.

    `text` replaces the message if `ruling` is ``rewrite`` or ``block``. `call_ids` names the tool
    calls that a block is about, by their own text or by what they returned; unset where it is about
    something else, or about all of them.
    """

    name: str
    stage: str
    ruling: Literal["allow", "rewrite", "block"]
    reason: str = ""
    text: str | None = None
    score: float | None = None
    evidence: str | None = None
    ms: float = 0.0
    llm_calls: int = 0
    call_ids: tuple[str, ...] | UnsetType = UNSET


class Answer(Struct, frozen=True, kw_only=True):
    """What a model returns.

    `finish_reason` is one of stop, length, tool_calls, content_filter, abstained, blocked, error.
    `episode` is what an agent did before it gave this answer. `blocked_calls` are the tool calls
    that rails kept back with it: an agent may tell its model that they were denied.
    """

    message: Message
    finish_reason: str = "stop"
    usage: Usage = Usage()
    logprobs: tuple[TokenLogprob, ...] | None = None
    rulings: tuple[Ruling, ...] = ()
    failure: Failure | None = None
    episode: Episode | UnsetType = UNSET
    blocked_calls: tuple[ToolCall, ...] = ()

    @classmethod
    def of(cls, text: str, *, finish_reason: str = "stop") -> Answer:
        """Returns an answer of plain text."""
        return cls(message=Message("assistant", text), finish_reason=finish_reason)

    @classmethod
    def failed(cls, kind: str, message: str, *, stage: str = "model") -> Answer:
        """Returns an empty answer with the failure that explains it."""
        return cls(
            message=Message("assistant", ""),
            finish_reason="error",
            failure=Failure(stage, kind, message),
        )

    @property
    def text(self) -> str:
        """The text of the message."""
        return self.message.content


class Response(Struct, frozen=True, kw_only=True):
    """The stored answer number `index` to a sample.

    `model` is ``recorded`` for answers that are part of a data set.
    """

    sample_id: str
    index: AnswerIndex = 0
    model: str = "recorded"
    message: Message
    finish_reason: str = "stop"
    usage: Usage = Usage()
    logprobs: tuple[TokenLogprob, ...] | None = None
    rulings: tuple[Ruling, ...] = ()
    failure: Failure | None = None
    episode: Episode | UnsetType = UNSET

    @classmethod
    def of(cls, sample_id: str, index: int, model: str, answer: Answer) -> Response:
        """Returns the response that records an answer to a sample."""
        return cls(
            sample_id=sample_id,
            index=index,
            model=model,
            message=answer.message,
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            logprobs=answer.logprobs,
            rulings=answer.rulings,
            failure=answer.failure,
            episode=answer.episode,
        )

    @property
    def text(self) -> str:
        """The text of the message."""
        return self.message.content


class Judgement(Struct, frozen=True, kw_only=True):
    """One judge's answer to one question about one response.

    `verdict` answers the question; None means *unscored* and counts neither as safe nor as harmful.
    `score` is the probability of True, `value` a number in the judge's own unit (a reward, a cost,
    a 1-5 grade), `harms` maps category to probability. Rates only count `verdict`.
    """

    sample_id: str
    index: AnswerIndex = 0
    judge: str
    rater: str | None = None
    question: str
    verdict: bool | None = None
    score: float | None = None
    value: float | None = None
    harms: dict[str, float] = field(default_factory=dict)
    rationale: str | None = None
    failure: Failure | None = None


class Row(Struct, frozen=True, kw_only=True):
    """One row of a data set: a sample, with recorded answers and human judgements if it has any."""

    sample: Sample
    responses: tuple[Response, ...] = ()
    judgements: tuple[Judgement, ...] = ()


class DataInfo(Struct, frozen=True, kw_only=True):
    """Metadata of a data set.

    `red_team` marks data that must not train a model without an explicit flag. `imitate` is False
    if the answers are meant for comparison or judging, so that supervised fine-tuning must not use
    them.
    """

    spec: str
    title: str = ""
    source: str = ""
    licence: str = ""
    labels: tuple[str, ...] = ()
    red_team: bool = False
    imitate: bool = True


class Preference(Struct, frozen=True, kw_only=True):
    """A preference pair.

    `dimension` separates reward (helpful) from cost (safe) data; `signs` are +1 for a safe, -1 for
    an unsafe answer (chosen, rejected).
    """

    conversation: Conversation
    chosen: Message
    rejected: Message
    dimension: Dimension
    signs: tuple[int, int] | None = None
    margin: float | None = None
    source: str = ""
    harms: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)


class Lineage(Struct, frozen=True, kw_only=True):
    """The origin of a judge, a guardrail or a model.

    `hash` identifies the component (weights, prompt, settings); `prompts` are short hashes of its
    normalised training prompts (`truing.core.lineage.hash_prompt`); `judges` are the lineages of
    the judges that labelled, selected or blocked for it. `red_model` is the stated reason if it was
    trained towards harm.
    """

    name: str = ""
    hash: str = ""
    base: str = ""
    base_sha256: str = ""
    data: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    judges: tuple[Lineage, ...] = ()
    licence: str = ""
    red_model: str | None = None
