"""The words of the house: frozen values that every room passes on, and nothing else.

A `Model` gives `Answer`s; the engine makes them `Response`s of a `Sample`; a `Judge` turns a response into a
`Judgement`; people and rankers give `Preference`s. A `Failure` is the only carrier of run-time trouble.
All are msgspec Structs: `msgspec.json.encode` writes them, `msgspec.json.decode(..., type=T)` reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

Role = Literal["system", "user", "assistant", "tool"]
Expect = Literal["comply", "refuse", "clarify", "abstain", "support", "none"]
Dimension = Literal["helpful", "safe"]


class Failure(Struct, frozen=True):
    """Something that went wrong in the world and was recorded instead of raised.

    `stage` names the room (``model``, ``judge``, ``rail``, ``floor``, ...), `kind` the class of trouble
    (``timeout``, ``http``, ``unparsable``, ``empty``, ...), `message` one line for a person.
    """

    stage: str
    kind: str
    message: str


class ToolCall(Struct, frozen=True):
    """A call that the model asks for; `arguments` is the JSON text that the model wrote, unparsed."""

    id: str
    name: str
    arguments: str = "{}"

    def to_openai(self) -> dict[str, Any]:
        """Returns the call as the OpenAI chat API writes it under `tool_calls`."""
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }

    @classmethod
    def from_openai(cls, row: Any) -> ToolCall:
        """Reads what `to_openai` writes; an absent or null id is "", absent or empty arguments are "{}".

        Raises KeyError, TypeError or AttributeError for a row of another form.
        """
        function = row["function"]
        return cls(
            str(row.get("id") or ""), str(function["name"]), str(function.get("arguments") or "{}")
        )


class Tool(Struct, frozen=True):
    """A tool offered to the model; `parameters` is its JSON Schema as JSON text."""

    name: str
    description: str = ""
    parameters: str = '{"type":"object","properties":{}}'


class Message(Struct, frozen=True):
    """One turn. `content` is text; `tool_call_id` is set on role ``tool`` alone."""

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


class Conversation(Struct, frozen=True):
    """A sequence of messages, oldest first."""

    messages: tuple[Message, ...] = ()

    @classmethod
    def of(cls, prompt: str, *, system: str | None = None) -> Conversation:
        """One user turn, with a system message before it if given."""
        head = (Message("system", system),) if system else ()
        return cls((*head, Message("user", prompt)))

    @property
    def last(self) -> Message:
        """The newest message; raises IndexError on an empty conversation."""
        return self.messages[-1]

    @property
    def prompt(self) -> str:
        """The text of the newest user message, or an empty string."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def system(self) -> str | None:
        """The text of the leading system message, if there is one."""
        return (
            self.messages[0].content
            if self.messages and self.messages[0].role == "system"
            else None
        )

    def then(self, message: Message) -> Conversation:
        """This conversation with one message more."""
        return Conversation((*self.messages, message))

    def to_openai(self) -> list[dict[str, Any]]:
        """The `messages` array of the OpenAI chat API."""
        return [_to_wire(m) for m in self.messages]

    @classmethod
    def from_openai(cls, rows: Iterable[dict[str, Any]]) -> Conversation:
        """Reads the `messages` array of the OpenAI chat API (text parts joined); raises ValueError on anything else."""
        return cls(tuple(_from_wire(row, at) for at, row in enumerate(rows)))


def _to_wire(m: Message) -> dict[str, Any]:
    row: dict[str, Any] = {"role": m.role, "content": m.content}
    if m.tool_calls:
        row["tool_calls"] = [call.to_openai() for call in m.tool_calls]
    if m.tool_call_id is not None:
        row["tool_call_id"] = m.tool_call_id
    return row


def _from_wire(row: Any, at: int) -> Message:
    if not isinstance(row, dict):
        raise ValueError(f"messages[{at}]: expected an object, got {type(row).__name__}")
    roles: dict[object, Role] = {
        "system": "system",
        "developer": "system",
        "user": "user",
        "assistant": "assistant",
        "tool": "tool",
    }
    role = roles.get(row.get("role"))
    if role is None:
        raise ValueError(
            f"messages[{at}].role: {row.get('role')!r} is none of system, user, assistant, tool"
        )
    content = row.get("content")
    if isinstance(content, list):
        parts = [p for p in content if isinstance(p, dict)]
        if len(parts) != len(content) or not all(isinstance(p.get("text"), str) for p in parts):
            raise ValueError(f"messages[{at}].content: only text parts are supported")
        content = "".join(p["text"] for p in parts)
    if content is not None and not isinstance(content, str):
        raise ValueError(f"messages[{at}].content: expected text, got {type(content).__name__}")
    calls = row.get("tool_calls") or ()
    try:
        made = tuple(ToolCall.from_openai(call) for call in calls)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"messages[{at}].tool_calls: not in the OpenAI form") from error
    call_id = row.get("tool_call_id")
    if call_id is not None and not isinstance(call_id, str):
        raise ValueError(
            f"messages[{at}].tool_call_id: expected text, got {type(call_id).__name__}"
        )
    return Message(role, content or "", made, call_id)


class AnswerCheck(Struct, frozen=True):
    """A program check of an answer (`rules:check`): `kind` names the function, `values` are its arguments."""

    kind: str
    values: tuple[str, ...] = ()


class Sample(Struct, frozen=True, kw_only=True):
    """One thing to ask a model, and what is known of it before it answers.

    `harms` are category ids of a taxonomy, `expect` the right move, `pair` the shared name of a prompt and its benign
    or specified twin, `choices`/`answer` a multiple choice (indexes of the right ones, or a text), `check` a program
    check, `source` the data set (``builtin:safety``), `parent` the id of the sample before an attack, `tags` what the
    set says besides (``{"direct": "yes"}``).
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

    @property
    def prompt(self) -> str:
        """The text of the newest user message."""
        return self.conversation.prompt


class Sampling(Struct, frozen=True, kw_only=True):
    """How to draw answers. `temperature` 0 is greedy; `seed` and an answer's index fix its random stream."""

    n: int = 1
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    logprobs: int | None = None


class Usage(Struct, frozen=True):
    """Tokens read, tokens written, and of those read the ones that a cache served."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class TokenLogprob(Struct, frozen=True):
    """Natural-log probability of one token, with the likeliest alternatives where asked for."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


class ContinuationScores(Struct, frozen=True):
    """Natural-log probability of each token of a given continuation.

    `cut` tokens of its prefix did not fit the model's window; `merged` if a token reaches over the place where the
    continuation begins; `failure` where there are no numbers.
    """

    logprobs: tuple[float, ...] = ()
    cut: int = 0
    merged: bool = False
    failure: Failure | None = None


class Ruling(Struct, frozen=True, kw_only=True):
    """What a rail decided, always with a reason. `text` replaces the message when `ruling` is rewrite or block."""

    name: str
    stage: str
    ruling: Literal["allow", "rewrite", "block"]
    reason: str = ""
    text: str | None = None
    score: float | None = None
    evidence: str | None = None
    ms: float = 0.0
    llm_calls: int = 0


class Answer(Struct, frozen=True, kw_only=True):
    """What a model gives. `finish_reason`: stop, length, tool_calls, content_filter, abstained, blocked, error."""

    message: Message
    finish_reason: str = "stop"
    usage: Usage = Usage()
    logprobs: tuple[TokenLogprob, ...] | None = None
    rulings: tuple[Ruling, ...] = ()
    failure: Failure | None = None

    @classmethod
    def of(cls, text: str, *, finish_reason: str = "stop") -> Answer:
        """An assistant's answer of plain text."""
        return cls(message=Message("assistant", text), finish_reason=finish_reason)

    @classmethod
    def failed(cls, kind: str, message: str, *, stage: str = "model") -> Answer:
        """No answer, and why."""
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
    """The `index`-th answer to a sample, as stored. `model` is ``recorded`` for answers that came with a data set."""

    sample_id: str
    index: int = 0
    model: str = "recorded"
    message: Message
    finish_reason: str = "stop"
    usage: Usage = Usage()
    logprobs: tuple[TokenLogprob, ...] | None = None
    rulings: tuple[Ruling, ...] = ()
    failure: Failure | None = None

    @classmethod
    def of(cls, sample_id: str, index: int, model: str, answer: Answer) -> Response:
        """Ties an answer to its sample."""
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
        )

    @property
    def text(self) -> str:
        """The text of the message."""
        return self.message.content


class Judgement(Struct, frozen=True, kw_only=True):
    """One judge's answer to one question about one response.

    `verdict` true/false answers the question, none means *unscored* (never safe, never harmful). `score` is a
    probability of true, `value` the judge's own unit (a reward, a cost, a 1-5 grade), `harms` category -> probability.
    Rates count `verdict` alone.
    """

    sample_id: str
    index: int = 0
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
    """One row of a data set: its sample, and where the set has them, recorded answers and people's judgements."""

    sample: Sample
    responses: tuple[Response, ...] = ()
    judgements: tuple[Judgement, ...] = ()


class DataInfo(Struct, frozen=True, kw_only=True):
    """What a data set is; `red_team` marks sets that must not train a model without an explicit flag.

    `imitate` is false where the answers are there to be compared or judged, not to be imitated (no SFT on them).
    """

    spec: str
    title: str = ""
    source: str = ""
    licence: str = ""
    labels: tuple[str, ...] = ()
    red_team: bool = False
    imitate: bool = True


class Preference(Struct, frozen=True, kw_only=True):
    """Two answers in order. `dimension` separates reward (helpful) from cost (safe); `signs` are +1 safe, -1 unsafe."""

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
    """Where a judge, a rail or a model comes from.

    `hash` identifies what answers (weights, prompt, settings); `prompts` are short hashes of the normalised training
    prompts (`truing.core.lineage.hash_prompt`); `judges` are the lineages of the judges that labelled, chose or blocked
    for it. `red_model` is the reason given for training towards harm, if that was done.
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


def content_id(sample: Sample, occurrence: int = 0) -> str:
    """Sixteen hex digits of the sample's content; `-k` is appended to the k-th repetition of the same content."""
    blank = msgspec.structs.replace(sample, id="", source="", tags={})
    digest = hashlib.sha256(msgspec.json.encode(blank, order="deterministic")).hexdigest()[:16]
    return digest if occurrence == 0 else f"{digest}-{occurrence}"


def with_ids(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Gives each sample that has no id its content id; equal samples are numbered in order of occurrence."""
    seen: dict[str, int] = {}
    for sample in samples:
        if sample.id:
            yield sample
            continue
        base = content_id(sample)
        count = seen.get(base, 0)
        seen[base] = count + 1
        yield msgspec.structs.replace(sample, id=base if count == 0 else f"{base}-{count}")


def stream_seed(seed: int, *parts: str | int) -> int:
    """A 63-bit seed of its own for a sample (`seed, sample.id`) or an answer (`sampling.seed, index`)."""
    whole = hashlib.blake2b(str(seed).encode(), digest_size=8)
    for part in parts:
        whole.update(b"\0" + str(part).encode("utf-8", "surrogatepass"))
    return int.from_bytes(whole.digest(), "big") >> 1
