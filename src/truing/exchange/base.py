"""What the readers of other tools' results share: a `Dataset` over one file, rows with their ids, verdicts with a name."""

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
"""The question whether a probe, a scorer's objective, an attack reached its goal, as its own tool says."""


class ToolResultsDataset:
    """A `truing.core.protocols.Dataset` over a file that another tool left; `read` gives its rows without ids."""

    def __init__(
        self, spec: str, path: Path, tool: str, read: Callable[[Path], Iterator[Row]]
    ) -> None:
        self.path = path
        self.skipped = 0
        self._spec, self._tool, self._read = spec, tool, read
        self._sha = ""

    @property
    def info(self) -> DataInfo:
        """Spec and tool; such prompts do not train a model unless that is asked for."""
        return DataInfo(
            spec=self._spec,
            title=f"results of {self._tool}",
            source=str(self.path.name),
            red_team=True,
            imitate=False,
        )

    def sha256(self) -> str:
        """Of the file."""
        if not self._sha:
            with self.path.open("rb") as stream:
                self._sha = hashlib.file_digest(stream, "sha256").hexdigest()
        return self._sha

    def rows(self) -> Iterator[Row]:
        """Samples with the tool's answers and verdicts; equal samples are numbered in their order."""
        seen: dict[str, int] = {}
        for row in self._read(self.path):
            base = content_id(row.sample)
            count = seen.get(base, 0)
            seen[base] = count + 1
            id_ = base if count == 0 else f"{base}-{count}"
            yield Row(
                sample=replace(row.sample, id=id_, source=row.sample.source or self._tool),
                responses=tuple(replace(r, sample_id=id_) for r in row.responses),
                judgements=tuple(replace(j, sample_id=id_) for j in row.judgements),
            )

    def preferences(self) -> Iterator[Preference]:
        """None."""
        yield from ()


def make_response(index: int, text: str | None, model: str, trouble: str = "") -> Response:
    """A recorded answer; where there is none, a failure that says why."""
    if text is not None and not trouble:
        return Response(
            sample_id="", index=index, model=model or "recorded", message=Message("assistant", text)
        )
    failure = Failure(
        "model",
        "error" if trouble else "empty",
        " ".join(trouble.split())[:300] or "no answer was recorded",
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
    """A tool's verdict, under the tool's name; without one it is unscored."""
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
    """The file of a spec; SpecError if it is not there."""
    path = Path(args.name).expanduser()
    if not args.name or not path.is_file():
        beside = (
            [p.name for p in path.parent.glob("*")] if args.name and path.parent.is_dir() else []
        )
        raise args.fault(
            f"there is no file {args.name!r} ({what}){did_you_mean(path.name, beside) if beside else ''}"
        )
    return path


def decode_json(path: Path, data: bytes, kind: type, line: int | None = None) -> object:
    """Part of a file as a type; DataError with file and line."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError.at(path, line, str(error)) from error
