"""`file:PATH`: a user's rows in JSONL, JSON, CSV, TSV or Parquet.

Columns: `prompt` or `messages`; optional `id`, `response`, `category`, `expect`, `choices`,
`answer`, `pair`, `language`, `harmful` (a human label of the response, or of the prompt where there
is none). Other names by `prompt=COLUMN`. A row with `chosen` and `rejected` is a preference
(`dimension=helpful|safe`).
"""

from __future__ import annotations

from collections.abc import Iterable
from glob import glob
from pathlib import Path

from msgspec.structs import replace

from truing.core.errors import DataError, PlanError, did_you_mean
from truing.core.types import (
    Conversation,
    Dimension,
    Expect,
    Judgement,
    Message,
    Preference,
    Response,
    Row,
    Sample,
)
from truing.datasets.base import (
    EXPECTATIONS,
    DatasetOptions,
    FileDataset,
    PublishedDataset,
    parse_options,
    recorded_judgement,
    recorded_response,
)
from truing.datasets.readers import Record
from truing.specs.resolve import Args

COLUMNS = (
    "prompt",
    "messages",
    "id",
    "response",
    "category",
    "expect",
    "choices",
    "answer",
    "pair",
    "harmful",
    "chosen",
    "rejected",
)


class _ColumnMap:
    """Maps our column names to the user's names for one row."""

    def __init__(self, record: Record, options: DatasetOptions) -> None:
        self.record = record
        self.names = {k: options.extra.get(k, k) for k in COLUMNS}
        for key, name in options.extra.items():
            if key in COLUMNS and name and name not in record.data:
                raise record.error(f"no column {name!r}{did_you_mean(name, record.data)}")

    def has(self, key: str) -> bool:
        """Returns whether the row has a value that is neither null nor empty."""
        return self.record.data.get(self.names[key]) not in (None, "")

    def name(self, key: str) -> str:
        """Returns the user's name of a column."""
        return self.names[key]


def _read_conversation(columns: _ColumnMap) -> tuple[Conversation, str | None]:
    record = columns.record
    if columns.has("prompt") or not columns.has("messages"):
        return Conversation.of(record.text(columns.name("prompt"))), None
    rows = record.list_value(columns.name("messages"))
    try:
        conversation = Conversation.from_openai(rows)
    except ValueError as error:
        raise record.error(str(error)) from error
    messages = conversation.messages
    if not messages or not conversation.prompt.strip():
        raise record.error("messages: no user turn with text")
    if messages[-1].role == "assistant":  # the dialogue ends with the recorded answer
        return Conversation(messages[:-1]), messages[-1].content
    return conversation, None


def _read_harms(columns: _ColumnMap, options: DatasetOptions) -> tuple[str, ...]:
    if not columns.has("category"):
        return ()
    record, key = columns.record, columns.name("category")
    harms_field = record.value(key)
    try:
        if isinstance(harms_field, dict):
            return tuple(options.taxonomy.find(k).id for k, v in harms_field.items() if v)
        if isinstance(harms_field, list):
            return tuple(options.taxonomy.find(str(v)).id for v in harms_field)
        try:
            return (options.taxonomy.find(str(harms_field)).id,)
        except PlanError:
            # Tried whole first: an id of a user's own taxonomy may contain the separator.
            if "|" not in str(harms_field):
                raise
            return tuple(options.taxonomy.find(v.strip()).id for v in str(harms_field).split("|"))
    except PlanError as error:
        raise record.error(
            f"{key}: {error} (taxonomy=FILE.toml sets another taxonomy; category= ignores the "
            "column)"
        ) from error


def _read_answer(columns: _ColumnMap, choices: tuple[str, ...]) -> str | tuple[int, ...] | None:
    if not columns.has("answer"):
        return None
    record, key = columns.record, columns.name("answer")
    answer_field = record.value(key)
    if isinstance(answer_field, list) and all(isinstance(v, int) for v in answer_field):
        indices = tuple(answer_field)
    elif choices and isinstance(answer_field, int | float):
        indices = (int(answer_field),)
    # The text of a choice before its index: choices may themselves be numbers.
    elif choices and str(answer_field) in choices:
        indices = (choices.index(str(answer_field)),)
    elif choices and str(answer_field).strip().isdigit():
        indices = (int(answer_field),)
    else:
        return str(answer_field)
    if not all(0 <= w < len(choices) for w in indices):
        raise record.error(f"{key}: no such choice; there are {len(choices)}, counted from 0")
    return indices


def _read_choices(columns: _ColumnMap) -> tuple[str, ...]:
    if not columns.has("choices"):
        return ()
    key = columns.name("choices")
    value = columns.record.value(key)
    # CSV cells hold no lists: `a|b|c`, or a JSON array as text.
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return tuple(v.strip() for v in value.split("|"))
    return tuple(str(v) for v in columns.record.list_value(key))


def convert(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """Converts one row of the user's file."""
    columns = _ColumnMap(record, options)
    conversation, last_answer = _read_conversation(columns)
    expect: Expect = "none"
    if columns.has("expect"):
        expect = EXPECTATIONS[record.choice(columns.name("expect"), EXPECTATIONS)]
    choices = _read_choices(columns)
    column_names = {columns.name(k) for k in COLUMNS}
    tags = {
        k: str(v)
        for k, v in record.data.items()
        if k not in column_names and isinstance(v, str | int | float | bool)
    }
    sample = Sample(
        conversation=conversation,
        id=record.optional_text(columns.name("id")) or "",
        harms=_read_harms(columns, options),
        expect=expect,
        pair=record.optional_text(columns.name("pair")),
        choices=choices,
        answer=_read_answer(columns, choices),
        tags=tags,
    )
    responses = _read_responses(columns, last_answer)
    judgements: tuple[Judgement, ...] = ()
    if columns.has("harmful"):
        question = "harmful" if responses else "harmful_prompt"
        verdict = record.flag(columns.name("harmful"))
        judgements = (
            recorded_judgement(
                "file", question, verdict, harms=dict.fromkeys(sample.harms, float(verdict))
            ),
        )
    yield Row(sample=sample, responses=responses, judgements=judgements)


def _read_responses(columns: _ColumnMap, last_answer: str | None) -> tuple[Response, ...]:
    record, key = columns.record, columns.name("response")
    if key not in record.data or record.data[key] is None:
        return () if last_answer is None else (recorded_response(last_answer),)
    value = record.data[key]
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(v, str) for v in texts):
        raise record.error(f"{key}: expected text or a list of texts")
    return tuple(recorded_response(text, index) for index, text in enumerate(texts))


def convert_pairs(record: Record, options: DatasetOptions) -> Iterable[Preference]:
    """Yields a preference if the row has `chosen` and `rejected`."""
    columns = _ColumnMap(record, options)
    if not (columns.has("chosen") and columns.has("rejected")):
        return
    conversation, _ = _read_conversation(columns)
    dimension_name = options.extra.get("dimension") or record.data.get("dimension")
    dimension: Dimension = "safe" if dimension_name == "safe" else "helpful"
    signs = record.signs()
    margin = None if record.data.get("margin") is None else record.number("margin")
    yield Preference(
        conversation=conversation,
        chosen=Message("assistant", record.text(columns.name("chosen"))),
        rejected=Message("assistant", record.text(columns.name("rejected"))),
        dimension=dimension,
        harms=_read_harms(columns, options),
        signs=signs,
        margin=margin,
    )


DATASET = PublishedDataset(
    kind="file",
    title="own rows",
    source="",
    licence="not stated",
    parts={},
    convert=convert,
    convert_pairs=convert_pairs,
    extra_arguments=(*COLUMNS, "dimension"),
)


def build(args: Args) -> FileDataset:
    """`file:PATH[,prompt=COLUMN,...,only=CATEGORY,dimension=safe,licence=TEXT]`; PATH may be a
    pattern.
    """
    about = replace(DATASET, source=args.name, licence=args.text("licence", DATASET.licence))
    return FileDataset(about, _find_files(args), parse_options(args, about), str(args.spec))


def _find_files(args: Args) -> tuple[Path, ...]:
    if not args.name:
        raise args.fault("give a file: file:PATH")
    path = Path(args.name).expanduser()
    if path.is_file():
        return (path,)
    if path.is_dir():
        raise DataError(
            f"{args.name}: is a folder; name a file, or a pattern such as "
            f"{args.name.rstrip('/')}/*.jsonl"
        )
    matches = sorted(glob(str(path), recursive=True)) if _is_glob_pattern(args.name) else []
    if not matches:
        raise DataError(f"{args.name}: no such file")
    return tuple(Path(f) for f in matches)


def _is_glob_pattern(name: str) -> bool:
    return any(mark in name for mark in "*?[")
