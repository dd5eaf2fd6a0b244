"""The rows of a run folder as the verdict table reads them: all but the texts of the answers."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType, field

from truing.core import lineage
from truing.core.episodes import TaskKind
from truing.core.ids import hash_text
from truing.core.types import AnswerIndex, Expect, Failure
from truing.judges.shipped_classifiers import thresholds_of_version
from truing.runs.folder import JudgeRecord


class MessageRow(Struct, frozen=True):
    """A message of a dialogue."""

    role: str
    content: str = ""


class ConversationRow(Struct, frozen=True):
    """The messages of a sample."""

    messages: tuple[MessageRow, ...] = ()


class EnvironmentRow(Struct, frozen=True):
    """The kind of an agent's task."""

    kind: TaskKind = "benign"


class SampleRow(Struct, frozen=True):
    """A row of `samples.jsonl`."""

    id: str
    conversation: ConversationRow = ConversationRow()
    harms: tuple[str, ...] = ()
    expect: Expect = "none"
    pair: str | None = None
    parent: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    environment: EnvironmentRow | UnsetType = UNSET

    @property
    def prompt_key(self) -> int:
        """64-bit hash of the user's messages, or of the id if they are empty."""
        messages = self.conversation.messages
        if len(messages) == 1 and messages[0].role == "user":
            text = messages[0].content
        else:
            text = "\n".join(m.content for m in messages if m.role == "user")
        return hash_text(lineage.normalise_prompt(text) or f"\0no prompt\0{self.id}")

    @property
    def last_prompt(self) -> str:
        """The text of the last user message; training prompts are recognised by its hash."""
        users = (m.content for m in reversed(self.conversation.messages) if m.role == "user")
        return next(users, "")

    @property
    def is_attacked(self) -> bool:
        """Whether an attack changed the prompt; a prompt that it skipped is a plain one."""
        attack = self.tags.get("attack", "skipped")
        return not attack.startswith("skipped")


class IdRow(Struct, frozen=True):
    """The id alone of a row of `samples.jsonl`."""

    id: str


class UsageRow(Struct, frozen=True):
    """The tokens of an answer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


_NO_USAGE = UsageRow()


class ResponseRow(Struct, frozen=True):
    """A row of `responses.jsonl`, without the answer."""

    sample_id: str
    index: AnswerIndex = 0
    finish_reason: str = "stop"
    failure: Failure | None = None
    usage: UsageRow = _NO_USAGE


class JudgementRow(Struct, frozen=True):
    """A row of a file of judgements."""

    sample_id: str
    question: str
    index: AnswerIndex = 0
    verdict: bool | None = None
    score: float | None = None
    value: float | None = None
    harms: dict[str, float] = field(default_factory=dict)
    failure: Failure | None = None


def record_thresholds(record: JudgeRecord) -> dict[str, float]:
    """Returns the category thresholds of a judge of a run.

    A run of an older version did not record them: those of a shipped classifier are known by its
    hash.
    """
    return record.category_thresholds or thresholds_of_version(record.lineage.hash)
