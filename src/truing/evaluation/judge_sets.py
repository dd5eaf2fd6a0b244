"""Judges labelled sets, for the comparison of judges.

Each set is read once into a run folder, to which every judge adds its judgements.

    folder = store_set(labelled_rows(dataset, sample=400), "out/sets/a")
    time = judge_set(folder, judge)              # continues where an earlier call ended
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from truing.core.jsonl import read_complete_lines
from truing.core.lineage import normalise_prompt
from truing.core.protocols import Dataset, Judge
from truing.core.types import (
    Answer,
    Conversation,
    DataInfo,
    Lineage,
    Preference,
    Response,
    Row,
    Sample,
)
from truing.evaluation.evaluate import evaluate, judge_run, run_coroutine
from truing.evaluation.failures import RESPONSES, find_repeated
from truing.evaluation.options import EvaluateOptions, ProgressCallback
from truing.evaluation.row_sample import RowSample, prompt_of
from truing.http.limits import close_connections
from truing.runs.folder import Run, judgement_file

_NO_ANSWER = Response.of("", 0, "recorded", Answer.of(""))
_WARM_UP = Sample(id="warm-up", conversation=Conversation.of("Which tea goes with toast?"))


class LabelledRows:
    """A data set for judging: a sample of its rows, each with an answer.

    A row without an answer gets an empty one: judges of prompts ignore it, and judges of answers
    leave it unscored.
    """

    def __init__(self, dataset: Dataset, *, sample: int | None = None, seed: int = 0) -> None:
        self._dataset = dataset
        self._sample = sample
        self._seed = seed

    @property
    def info(self) -> DataInfo:
        """The description of the data set; the spec names the sample."""
        info = self._dataset.info
        if self._sample is None:
            return info
        return replace(info, spec=f"{info.spec} (sample of {self._sample}, seed {self._seed})")

    @property
    def judges(self) -> tuple[Lineage, ...]:
        """The lineages of the judges that chose or labelled the answers, if the set has any."""
        judges: tuple[Lineage, ...] = getattr(self._dataset, "judges", ())
        return judges

    def sha256(self) -> str:
        """Returns the hash of the data set's files."""
        return self._dataset.sha256()

    def rows(self) -> Iterator[Row]:
        """Yields the rows of the sample, in the order of the data set."""
        for row in self._drawn():
            if row.responses:
                yield row
            else:
                answer = replace(_NO_ANSWER, sample_id=row.sample.id)
                yield replace(row, responses=(answer,))

    def _drawn(self) -> Iterator[Row]:
        if self._sample is None:
            yield from self._dataset.rows()
            return
        drawn = RowSample(self._sample, self._seed, key=_prompt_or_goal)
        for row in self._dataset.rows():
            drawn.add(row)
        yield from drawn.drawn()

    def preferences(self) -> Iterator[Preference]:
        """Yields none: judges are measured on single answers."""
        yield from ()


def _prompt_or_goal(sample: Sample) -> str:
    # Attacks with one goal are drawn together, since their answers are not independent.
    goal = sample.tags.get("goal")
    return f"goal {normalise_prompt(goal)}" if goal else prompt_of(sample)


def store_set(rows: LabelledRows, folder: Path) -> Run:
    """Reads the rows with their labels into a run folder; a complete folder is read back.

    Raises RunError if the folder holds other rows, and DataError for rows that cannot be read.
    """
    return evaluate(None, rows, [], folder)


class JudgingTime(Struct, frozen=True):
    """How many answers a call judged, and the wall-clock seconds that it took.

    `cpu_seconds` is processor time, summed over threads. On a busy machine it is the better measure
    of a judge that computes locally; for a judge behind an endpoint it is meaningless.
    """

    rows: int
    seconds: float
    cpu_seconds: float


def is_judged(run: Run, judge: str, judge_hash: str) -> bool:
    """Whether a judge has judged every answer of a run, without failures worth repeating."""
    path = run.file(judgement_file(judge, judge_hash))
    if count_lines(path) < count_lines(run.file(RESPONSES)):
        return False
    return next(find_repeated(path, EvaluateOptions()), None) is None


def judge_set(
    run: Run,
    judge: Judge,
    *,
    concurrency: int = 16,
    progress: ProgressCallback | None = None,
) -> JudgingTime:
    """Judges what the judge has not judged of a set yet, and measures the time.

    One answer is judged before the clock starts, since the first use of a judge loads its weights
    or opens a connection.
    """
    path = run.file(judgement_file(judge.name, judge.lineage.hash))
    judged_before = count_lines(path)
    if judged_before < count_lines(run.file(RESPONSES)):
        run_coroutine(_warm_up(judge))
    start, cpu_start = time.perf_counter(), time.process_time()
    judge_run(run, judge, options=EvaluateOptions(concurrency=concurrency, progress=progress))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return JudgingTime(count_lines(path) - judged_before, seconds, cpu_seconds)


async def _warm_up(judge: Judge) -> None:
    """Judges one harmless answer and drops the judgement."""
    response = Response.of("warm-up", 0, "recorded", Answer.of("Black tea, with a little milk."))
    try:
        await judge.judge(_WARM_UP, response)
    except Exception:
        pass  # what fails here fails on the rows too, and is recorded there
    finally:
        await close_connections()


def count_lines(path: Path) -> int:
    """Returns the number of complete lines of a file; 0 if there is no file."""
    return sum(1 for _ in read_complete_lines(path))
