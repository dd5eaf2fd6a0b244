"""`trl:FILE`: rows with TRL's column names, as plain text or as conversations.

| columns | what they are |
|---|---|
| `messages`, or `prompt` and `completion` | an answer to imitate |
| `prompt`, `chosen`, `rejected` (or whole dialogues) | a pair, `dimension=helpful` or `safe` |
| `prompt`, `completion`, `label` | an answer labelled good (true) or bad |

`prompt`, `completion`, `chosen` and `rejected` are text or lists of messages; `margin` is a number,
`signs` (ours) two of +1 safe, -1 unsafe. `cut` (ours) is true where a token limit ended the
answers: training then learns no end from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from truing.core.errors import DataError
from truing.core.types import (
    Conversation,
    Dimension,
    Judgement,
    Message,
    Preference,
    Response,
    Row,
    Sample,
)
from truing.datasets.base import (
    DatasetOptions,
    FileDataset,
    PublishedDataset,
    parse_options,
    recorded_judgement,
    recorded_response,
)
from truing.datasets.readers import Record
from truing.specs.resolve import Args

Messages = tuple[Message, ...]


def _read_messages(record: Record, key: str, role: str) -> Messages:
    messages = record.value(key)
    if isinstance(messages, str):
        if not messages.strip():
            raise record.error(f"{key}: empty text")
        return (Message("user" if role == "user" else "assistant", messages),)
    if not isinstance(messages, list) or not messages:
        raise record.error(f"{key}: expected text or a list of messages")
    try:
        return Conversation.from_openai(messages).messages
    except ValueError as error:
        raise record.error(f"{key}: {error}") from error


def _last_answer(record: Record, key: str, turns: Messages) -> Message:
    if turns[-1].role != "assistant" or not turns[-1].content.strip():
        raise record.error(f"{key}: ends with no answer of the assistant")
    return turns[-1]


def _read_example(record: Record) -> tuple[Conversation, Message | None]:
    """Returns the conversation and the answer (if any) of a row without a pair."""
    if "messages" in record.data:
        turns = _read_messages(record, "messages", "user")
        return Conversation(turns[:-1]), _last_answer(record, "messages", turns)
    prompt = _read_messages(record, "prompt", "user")
    if "completion" not in record.data:
        return Conversation(prompt), None
    turns = _read_messages(record, "completion", "assistant")
    return Conversation((*prompt, *turns[:-1])), _last_answer(record, "completion", turns)


def convert(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """Converts an example with its answer; of a preference pair only the prompt."""
    if "chosen" in record.data:
        yield Row(sample=Sample(conversation=_read_pair(record)[0]))
        return
    conversation, answer = _read_example(record)
    judgements: tuple[Judgement, ...] = ()
    if record.has("label"):
        judgements = (recorded_judgement("file", "helpful", record.flag("label")),)
    responses: tuple[Response, ...] = ()
    if answer is not None:
        finish_reason = "length" if _is_cut(record) else "stop"
        responses = (replace(recorded_response(answer.content), finish_reason=finish_reason),)
    yield Row(sample=Sample(conversation=conversation), responses=responses, judgements=judgements)


def _is_cut(record: Record) -> bool:
    return record.has("cut") and record.flag("cut")


def _read_pair(record: Record) -> tuple[Conversation, Message, Message]:
    chosen, rejected = (_read_messages(record, key, "assistant") for key in ("chosen", "rejected"))
    answers = _last_answer(record, "chosen", chosen), _last_answer(record, "rejected", rejected)
    if "prompt" in record.data:
        head = _read_messages(record, "prompt", "user")
        # Some TRL sets have a prompt column and also whole dialogues in `chosen` and `rejected`.
        repeats_prompt = chosen[: len(head)] == head
        return Conversation(chosen[:-1] if repeats_prompt else (*head, *chosen[:-1])), *answers
    # TRL calls this the implicit prompt: the common beginning of both dialogues.
    if len(chosen) < 2 or chosen[:-1] != rejected[:-1]:
        raise record.error("chosen, rejected: without a prompt both begin with the same dialogue")
    return Conversation(chosen[:-1]), *answers


def convert_pairs(record: Record, options: DatasetOptions) -> Iterable[Preference]:
    """Yields the preference pair of a row that has one."""
    if "chosen" not in record.data or "rejected" not in record.data:
        return
    conversation, chosen, rejected = _read_pair(record)
    dimension: Dimension = "safe" if options.extra.get("dimension") == "safe" else "helpful"
    yield Preference(
        conversation=conversation,
        chosen=chosen,
        rejected=rejected,
        dimension=dimension,
        signs=record.signs(),
        margin=record.number("margin") if record.has("margin") else None,
        tags={"cut": "yes"} if _is_cut(record) else {},
    )


DATASET = PublishedDataset(
    kind="trl",
    title="own rows, TRL's columns",
    source="",
    licence="not stated",
    parts={},
    convert=convert,
    convert_pairs=convert_pairs,
    extra_arguments=("dimension",),
)


def build(args: Args) -> FileDataset:
    """`trl:PATH[,dimension=safe][,licence=TEXT]`."""
    path = Path(args.name).expanduser()
    if not path.is_file():
        raise DataError(f"{args.name or 'trl:'}: no such file")
    about = replace(DATASET, source=args.name, licence=args.text("licence", DATASET.licence))
    return FileDataset(about, (path,), parse_options(args, about), str(args.spec))
