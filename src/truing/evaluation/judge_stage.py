"""One judge of a run: which responses it has judged, and the file that its judgements go to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from truing.core.errors import BudgetExceeded
from truing.core.protocols import Judge
from truing.core.types import Failure, Judgement, Response, Sample
from truing.evaluation.validation import describe_exception, validate_judgement
from truing.runs.folder import RunWriter, encode_line, judgement_file
from truing.runs.index import LineSpans


class JudgeStage:
    """Judges responses and appends the judgements to the judge's file.

    `spans` maps the key of a response to its judgement in the file.
    """

    def __init__(
        self, judge: Judge, writer: RunWriter, read_spans: Callable[[str], LineSpans]
    ) -> None:
        self.judge = judge
        self.file = judgement_file(judge.name, judge.lineage.hash)
        self._writer = writer
        self._read_spans = read_spans
        self.reload()

    def reload(self) -> None:
        """Reads the judge's file again, after it was rewritten."""
        # Reading first: it replaces the file if lines are damaged.
        self.spans = self._read_spans(self.file)
        self._output = self._writer.open_file(self.file)

    async def judge_responses(
        self,
        keys: Sequence[int],
        sample: Sample,
        responses: Sequence[Response],
        is_stopped: Callable[[], bool],
    ) -> list[bool | None]:
        """Judges the responses without a judgement, stores the judgements, returns their verdicts.

        `is_stopped` is asked before each call of the judge. All judgements of a sample are appended
        in one write, so that a crash leaves all or none of them.
        """
        lines: list[tuple[int, bytes]] = []
        verdicts: list[bool | None] = []
        for key, response in zip(keys, responses):
            # A judge that was added later, or a crash, leaves samples that are judged in part.
            if key in self.spans or is_stopped():
                continue
            judgement = await judge_safely(self.judge, sample, response)
            lines.append((key, encode_line(judgement)))
            verdicts.append(judgement.verdict)
        if lines:
            offset = self._output.append(b"".join(line for _, line in lines))
            for key, line in lines:
                self.spans.add(key, offset, len(line))
                offset += len(line)
        return verdicts


async def judge_safely(judge: Judge, sample: Sample, response: Response) -> Judgement:
    """Returns the judgement; an unscored one if the response or the judge failed.

    Raises BudgetExceeded, the only error that ends a run.
    """
    failure = response.failure
    if failure is None:
        try:
            judgement = validate_judgement(await judge.judge(sample, response))
            # A user's judge may leave the ids out, or copy those of another response.
            if judgement.sample_id == sample.id and judgement.index == response.index:
                return judgement
            return replace(judgement, sample_id=sample.id, index=response.index)
        except BudgetExceeded:
            raise
        except Exception as error:
            failure = Failure("judge", "exception", describe_exception(error))
    return Judgement(
        sample_id=sample.id,
        index=response.index,
        judge=judge.name,
        question=judge.question,
        failure=failure,
    )
