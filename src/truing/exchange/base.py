"""What the readers of other tools' results share: a `Dataset` over one file, responses,
verdicts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from truing.core.errors import DataError, did_you_mean
from truing.core.ids import content_id
from truing.core.types import DataInfo, Failure, Judgement, Message, Preference, Response, Row
from truing.specs.resolve import Args

HIT_QUESTION = "hit"
"""The question whether a probe or an attack reached its goal, by the criterion of its tool."""


class ToolResultsDataset:
    """A `Dataset` over a results file of another tool; `read` yields its rows without ids."""

    def __init__(
        self, spec: str, path: Path, tool: str, read: Callable[[Path], Iterator[Row]]
    ) -> None:
        self.path = path
        self.skipped = 0
        self._spec, self._tool, self._read = spec, tool, read
        self._sha = ""

    @property
    def info(self) -> DataInfo:
        """Returns the description; the prompts are marked as red teaming, not for imitation."""
        return DataInfo(
            spec=self._spec,
            title=f"results of {self._tool}",
            source=str(self.path.name),
            red_team=True,
            imitate=False,
        )

    def sha256(self) -> str:
        """Returns the hash of the file."""
        if not self._sha:
            with self.path.open("rb") as stream:
                self._sha = hashlib.file_digest(stream, "sha256").hexdigest()
        return self._sha

    def rows(self) -> Iterator[Row]:
        """Yields samples with the tool's answers and verdicts; ids of equal samples are
        numbered.
        """
        seen: dict[str, int] = {}
        for row in self._read(self.path):
            base = content_id(row.sample)
            count = seen.get(base, 0)
            seen[base] = count + 1
            # Tools repeat a prompt (several generations, several probes); ids must be unique.
            id_ = base if count == 0 else f"{base}-{count}"
            yield Row(
                sample=replace(row.sample, id=id_, source=row.sample.source or self._tool),
                responses=tuple(replace(r, sample_id=id_) for r in row.responses),
                judgements=tuple(replace(j, sample_id=id_) for j in row.judgements),
            )

    def preferences(self) -> Iterator[Preference]:
        """Yields nothing: such files hold no pairs."""
        yield from ()


def make_response(index: int, text: str | None, model: str, error_text: str = "") -> Response:
    """Returns a recorded answer; without a text, or with an error, a failed response."""
    if text is not None and not error_text:
        return Response(
            sample_id="", index=index, model=model or "recorded", message=Message("assistant", text)
        )
    failure = Failure(
        "model",
        "error" if error_text else "empty",
        " ".join(error_text.split())[:300] or "no answer was recorded",
    )
    return Response(
        sample_id="",
        index=index,
        model=model or "recorded",
        message=Message("assistant", text or ""),
        finish_reason="error",
        failure=failure,
    )


def make_judgement(
    judge: str,
    question: str,
    verdict: bool | None,
    *,
    index: int = 0,
    score: float | None = None,
    value: float | None = None,
    rationale: str | None = None,
) -> Judgement:
    """Returns a tool's verdict as a judgement; without verdict and value it is unscored."""
    # A judgement without verdict and value needs a failure, or it would not even count as
    # unscored.
    unscored = (
        Failure("judge", "unscored", "the tool gave no verdict")
        if verdict is None and value is None
        else None
    )
    return Judgement(
        sample_id="",
        index=index,
        judge=judge,
        question=question,
        verdict=verdict,
        score=score,
        value=value,
        rationale=rationale or None,
        failure=unscored,
    )


def require_file(args: Args, what: str) -> Path:
    """Returns the file of a spec; raises SpecError if it does not exist."""
    path = Path(args.name).expanduser()
    if not args.name or not path.is_file():
        siblings = (
            [p.name for p in path.parent.glob("*")] if args.name and path.parent.is_dir() else []
        )
        raise args.fault(
            f"there is no file {args.name!r} "
            f"({what}){did_you_mean(path.name, siblings) if siblings else ''}"
        )
    return path


def decode_json(path: Path, data: bytes, kind: type, line: int | None = None) -> object:
    """Decodes part of a file as a type; raises DataError with file and line."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DataError.at(path, line, str(error)) from error
