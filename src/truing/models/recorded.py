"""Recorded answers of the variants of a plan, so that a first run need not draw all of them.

    file = read_recording("answers.jsonl.gz")
    model = file.replay("plain", live, origin, sampling)   # refuses what was not recorded of this

A recording is gzip of JSON lines: a header (`Recording`), then one line an answer. It names what
each variant was: its spec, the SHA-256 of its weights and a digest of its prompts and rails, the
sampling, the seed and the version. A replayed variant has the lineage of the live one, for a judge
may measure neither or both, and a name that says that its answers are recorded.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from truing.core.errors import DataError, PlanError, did_you_mean
from truing.core.input_files import read_input_bytes
from truing.core.lineage import digest
from truing.core.private_files import replace_file
from truing.core.protocols import Model
from truing.core.types import Answer, Conversation, Message, Ruling, Sampling, Usage

FORMAT = 1
_MAX_BYTES = 16 << 20  # compressed; the file of the default run has below 1 MB
_MAX_TEXT_BYTES = 256 << 20


class VariantOrigin(Struct, frozen=True, kw_only=True):
    """What a variant was when its answers were recorded.

    `settings` is a digest of the prompts and rails around the model, `weights` the SHA-256 of its
    weights.
    """

    spec: str
    weights: str
    settings: str

    def find_difference(self, recorded: VariantOrigin) -> str | None:
        """Returns in which respect a variant is not the recorded one, or None."""
        for name, current, earlier in (
            ("weights", self.weights, recorded.weights),
            ("spec", self.spec, recorded.spec),
            ("prompts or rails", self.settings, recorded.settings),
        ):
            if current != earlier:
                return f"its {name} are {current!r}, recorded were {earlier!r}"
        return None


class RecordedSampling(Struct, frozen=True, kw_only=True):
    """The sampling of all recorded answers, one to a prompt."""

    max_tokens: int
    temperature: float
    top_p: float
    stop: tuple[str, ...] = ()
    seed: int


class Recording(Struct, frozen=True, kw_only=True):
    """The header: `answers` lines follow it, of which `sha256` is the digest."""

    format: int
    version: str
    created: str
    data: str
    sampling: RecordedSampling
    variants: dict[str, VariantOrigin]
    answers: int
    sha256: str


class RecordedAnswer(Struct, frozen=True, array_like=True):
    """One answer of a variant to the prompt with this key."""

    variant: str
    key: str
    text: str
    finish_reason: str
    usage: Usage
    rulings: tuple[Ruling, ...] = ()

    def to_answer(self) -> Answer:
        """Returns the answer as the variant gave it."""
        return Answer(
            message=Message("assistant", self.text),
            finish_reason=self.finish_reason,
            usage=self.usage,
            rulings=self.rulings,
        )


def conversation_key(conversation: Conversation) -> str:
    """Returns the digest under which the answer to a conversation is recorded."""
    return digest(*(part for m in conversation.messages for part in (m.role, m.content)))


_MARK = ", recorded "


def find_recording_mark(model: str) -> str | None:
    """Returns when and by which version answers of a run were recorded, from the model's name in
    its manifest; None if all were drawn in the run.
    """
    return model.rpartition(_MARK)[2] if _MARK in model else None


class ReplayedModel:
    """A variant whose recorded answers stand in for new ones; without one the variant is asked."""

    def __init__(self, live: Model, header: Recording, answers: Mapping[str, Answer]) -> None:
        self.model = live
        self.name = f"{live.name}{_MARK}{header.created} by truing {header.version}"
        self.lineage = live.lineage
        self._answers = answers

    def name_answer(self, conversation: Conversation) -> str:
        """Returns the variant's name, or the one that says that the answer is recorded."""
        return self.name if conversation_key(conversation) in self._answers else self.model.name

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns the recorded answer, else the live one."""
        recorded = self._answers.get(conversation_key(conversation))
        if recorded is not None:
            return (recorded,)
        return await self.model.generate(conversation, sampling)


class RecordingFile:
    """A recording in memory."""

    def __init__(self, path: Path, header: Recording, answers: Iterable[RecordedAnswer]) -> None:
        self.path, self.header = path, header
        self._answers: dict[str, dict[str, Answer]] = {name: {} for name in header.variants}
        for answer in answers:
            self._answers.setdefault(answer.variant, {})[answer.key] = answer.to_answer()

    def replay(
        self, variant: str, live: Model, origin: VariantOrigin, sampling: RecordedSampling
    ) -> ReplayedModel:
        """Returns the recorded answers of a variant as a model.

        Raises PlanError if the variant is not in the file, or not what was recorded.
        """
        recorded = self.header.variants.get(variant)
        if recorded is None:
            raise PlanError(
                f"{self.path.name} has no answers of {variant!r}"
                f"{did_you_mean(variant, self.header.variants)}; draw them anew with --fresh"
            )
        difference = origin.find_difference(recorded)
        if difference is None and sampling != self.header.sampling:
            difference = f"the sampling is {sampling}, recorded was {self.header.sampling}"
        if difference is not None:
            raise PlanError(
                f"the recorded answers in {self.path.name} are not of this {variant}: "
                f"{difference}; draw them anew with --fresh"
            )
        return ReplayedModel(live, self.header, self._answers[variant])

    def count_recorded(self, variant: str, conversations: Iterable[Conversation]) -> int:
        """Returns how many of the conversations a variant has a recorded answer to."""
        answers = self._answers.get(variant, {})
        return sum(conversation_key(c) in answers for c in conversations)


def read_recording(path: str | Path) -> RecordingFile:
    """Reads a recording; raises DataError if it is none, of another format, cut or changed."""
    path = Path(path)
    data = _decompress(path)
    header_line, _, body = data.partition(b"\n")
    try:
        version = msgspec.json.decode(header_line, type=_Format).format
        if version != FORMAT:
            raise DataError(
                f"{path}: format {version} of recorded answers; this version reads {FORMAT}"
            )
        header = msgspec.json.decode(header_line, type=Recording)
        if hashlib.sha256(body).hexdigest() != header.sha256:
            raise DataError(f"{path}: is damaged: its answers are not those that its header names")
        answers = [msgspec.json.decode(line, type=RecordedAnswer) for line in body.splitlines()]
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: no recorded answers: {error}") from error
    if len(answers) != header.answers:
        raise DataError(f"{path}: has {len(answers)} answers, its header says {header.answers}")
    return RecordingFile(path, header, answers)


class _Format(Struct):
    """The part of a header that every format has."""

    format: int


def _decompress(path: Path) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(read_input_bytes(path, _MAX_BYTES))) as stream:
            data = stream.read(_MAX_TEXT_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as recorded answers: {error}") from error
    if len(data) > _MAX_TEXT_BYTES:
        raise DataError(f"{path}: has more than {_MAX_TEXT_BYTES:,} bytes of answers")
    return data


def write_recording(path: str | Path, header: Recording, answers: Iterable[RecordedAnswer]) -> None:
    """Writes a recording; `answers` and `sha256` of the header are filled in."""
    lines = [msgspec.json.encode(answer) for answer in answers]
    body = b"\n".join(lines)
    header = msgspec.structs.replace(
        header, answers=len(lines), sha256=hashlib.sha256(body).hexdigest()
    )
    # No time in the file: the same answers give the same bytes.
    packed = gzip.compress(msgspec.json.encode(header) + b"\n" + body, 9, mtime=0)
    replace_file(Path(path), packed)
