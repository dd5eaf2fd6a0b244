"""`truing judges compare`: any judges on any labelled sets, as one page and JSON."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field
from rich.markup import escape

from truing.cli.card import format_interval
from truing.cli.parameters import Flag, Strings, resolve_all
from truing.cli.tables import make_console, make_table, print_json, print_text
from truing.core.errors import DataError, PlanError, UserError
from truing.core.private_files import create_folder, replace_file
from truing.core.protocols import Dataset

if TYPE_CHECKING:
    from truing.analysis.judge_comparison import JudgesComparison
    from truing.analysis.judge_figures import JudgeOnSet, Speed
    from truing.cli.judge_process import Judged, JudgeDescription
    from truing.cli.progress import ProgressBar
    from truing.evaluation.judge_sets import LabelledRows
    from truing.runs.folder import Run

_SPEED_FILE = "speed.json"


def command(
    *judges: str,
    data: Strings,
    out: Path,
    sample: int | None = None,
    seed: int = 0,
    concurrency: int = 16,
    title: str = "Judges compared",
    json: Flag = False,
) -> int:
    """Compares judges on labelled sets: figures at their own thresholds and at fixed rates of false
    alarms, agreement, differences from the first judge, time and memory.

    Rows that a judge was trained on are struck for it. Every judge runs in a process of its own;
    what is judged is stored, and the same command continues.

    Parameters
    ----------
    judges
        Specs of judges, such as moderation:default; the first is the baseline of the differences.
    data
        Specs of labelled sets, such as beavertails or xstest,part=completions; run:DIR for the
        answers of a model to benign prompts.
    out
        Folder for report.html, report.md, report.json and the judged answers.
    sample
        Use a random sample of so many rows of each set, whole prompts together.
    seed
        Seed of the sample.
    concurrency
        Answers that a judge judges at a time.
    title
        Title of the page.
    json
        Print the comparison as JSON.
    """
    from truing.analysis.judge_comparison import (
        ComparedJudge,
        SetSource,
        check_comparable,
        compare_judges,
    )
    from truing.cli.judge_process import JudgeProcessDied
    from truing.cli.progress import ProgressBar
    from truing.evaluation.judge_sets import LabelledRows
    from truing.report.judges_page import write_judges_page

    _check_arguments(judges, data, sample, concurrency)
    datasets = _resolve_sets(data)
    described = _describe_judges(judges)
    store = _Store(out, concurrency)
    runs = [store.read_set(LabelledRows(d, sample=sample, seed=seed)) for d in datasets]
    sources = [SetSource(run.path, d.info.labels) for run, d in zip(runs, datasets)]
    compared = [
        ComparedJudge.of(spec, judge.name, judge.question, judge.lineage)
        for spec, judge in zip(judges, described)
    ]
    lineages = {judge.name: judge.lineage for judge in described}
    to_judge = check_comparable(compared, lineages, sources)

    died: list[str] = []
    for spec, judge in zip(judges, described):
        with ProgressBar(judge.name, quiet=json, resumable=True) as progress:
            try:
                store.judge(spec, judge, to_judge[judge.name], progress)
            except JudgeProcessDied as death:
                died.append(f"{judge.name} did not finish: {death.reason}")
                print_text(f"truing: {died[-1]}", file=sys.stderr)
    comparison = compare_judges(
        compared, sources, lineages=lineages, speeds=store.speeds(described, runs)
    )
    comparison = msgspec.structs.replace(comparison, problems=(*died, *comparison.problems))
    written = write_judges_page(comparison, out, title=title, created=date.today().isoformat())
    if json:
        print_json(written["json"].read_text(encoding="utf-8"))
    else:
        print_comparison(comparison)
        print_text(f"report: {written['html']}  (also .md and .json)")
    return 1 if died else 0


def _check_arguments(
    judges: Sequence[str], data: Sequence[str], sample: int | None, concurrency: int
) -> None:
    faults = []
    if not judges:
        faults.append("judges compare: give one judge or more, such as moderation:default")
    faults += [
        f"{what} {spec} is given more than once"
        for what, specs in (("the judge", judges), ("--data", data))
        for spec in dict.fromkeys(specs)
        if list(specs).count(spec) > 1
    ]
    if sample is not None and sample < 1:
        faults.append(f"--sample {sample}: must be 1 or more")
    if concurrency < 1:
        faults.append(f"--concurrency {concurrency}: must be 1 or more")
    if faults:
        raise PlanError(*faults)


def _resolve_sets(data: Sequence[str]) -> list[Dataset]:
    datasets: list[Dataset] = resolve_all([(spec, "data") for spec in data])
    names = [dataset.info.spec for dataset in datasets]
    if len(set(names)) < len(names):
        raise PlanError(f"--data: the same set is given twice: {', '.join(names)}")
    return datasets


def _describe_judges(specs: Sequence[str]) -> list[JudgeDescription]:
    """Returns the judges' names and versions; raises PlanError with the faults of all specs."""
    from truing.cli.judge_process import describe_judge

    described: list[JudgeDescription] = []
    faults: list[str] = []
    for spec in specs:
        try:
            described.append(describe_judge(spec))
        except UserError as error:
            faults += error.faults
    if faults:
        raise PlanError(*faults)
    return described


class _Measured(Struct, forbid_unknown_fields=True):
    """The sums over all calls that judged a set with a judge."""

    rows: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    concurrency: int = 0
    peak_bytes: int | None = None


class _SpeedFile(Struct):
    """speed.json: run folder's name -> judgement file -> measured."""

    sets: dict[str, dict[str, _Measured]] = field(default_factory=dict)


class _Store:
    """The output folder: a run folder for each set below sets/, and the measured times."""

    def __init__(self, out: Path, concurrency: int) -> None:
        self._out = out
        self._concurrency = concurrency
        create_folder(out / "sets")
        self._speed_path = out / _SPEED_FILE
        self._speed = self._read_speed()

    def _read_speed(self) -> _SpeedFile:
        from truing.core.input_files import read_input_bytes

        if not self._speed_path.exists():
            return _SpeedFile()
        try:
            content = read_input_bytes(self._speed_path)
            return msgspec.json.decode(content, type=_SpeedFile)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(
                f"{self._speed_path}: cannot be read: {error}; delete it, and the times of what is "
                "judged already are unknown"
            ) from error

    def read_set(self, rows: LabelledRows) -> Run:
        """Stores a set with its labels, or reads it back."""
        from truing.evaluation.judge_sets import store_set

        spec = rows.info.spec
        slug = re.sub(r"[^a-z0-9]+", "-", spec.lower()).strip("-")[:40]
        # By the files' content too: a set that has changed is another set.
        digest = sha256(f"{spec}\n{rows.sha256()}".encode()).hexdigest()[:8]
        return store_set(rows, self._out / "sets" / f"{slug}-{digest}")

    def judge(
        self, spec: str, judge: JudgeDescription, folders: Sequence[Path], progress: ProgressBar
    ) -> None:
        """Judges the sets that the judge has not judged yet, in a process of its own."""
        from truing.cli.judge_process import JudgeTask, judge_folders
        from truing.evaluation.judge_sets import is_judged
        from truing.runs.folder import Run, judgement_file

        pending = [
            folder
            for folder in folders
            if not is_judged(Run(folder), judge.name, judge.lineage.hash)
        ]
        if not pending:
            return
        file = judgement_file(judge.name, judge.lineage.hash)

        def record(event: Judged) -> None:
            measured = self._speed.sets.setdefault(Path(event.folder).name, {}).setdefault(
                file, _Measured()
            )
            measured.rows += event.rows
            measured.seconds += event.seconds
            measured.cpu_seconds += event.cpu_seconds
            measured.concurrency = self._concurrency
            peaks = [p for p in (measured.peak_bytes, event.peak_bytes) if p is not None]
            measured.peak_bytes = max(peaks, default=None)
            replace_file(self._speed_path, msgspec.json.encode(self._speed) + b"\n")

        task = JudgeTask(spec, tuple(map(str, pending)), self._concurrency)
        judge_folders(task, on_progress=progress, on_judged=record)

    def speeds(
        self, judges: Sequence[JudgeDescription], runs: Sequence[Run]
    ) -> dict[tuple[str, str], Speed]:
        """Returns what was measured, by judge and spec of the set."""
        from truing.analysis.judge_figures import Speed
        from truing.runs.folder import judgement_file

        speeds = {}
        for run in runs:
            by_file = self._speed.sets.get(run.path.name, {})
            for judge in judges:
                measured = by_file.get(judgement_file(judge.name, judge.lineage.hash))
                if measured is None or not measured.rows:
                    continue
                peak = measured.peak_bytes
                speeds[judge.name, run.manifest.data[0].spec] = Speed(
                    rows=measured.rows,
                    seconds=measured.seconds,
                    cpu_seconds=measured.cpu_seconds,
                    concurrency=measured.concurrency,
                    peak_mib=None if peak is None else peak / (1 << 20),
                )
        return speeds


def print_comparison(comparison: JudgesComparison) -> None:
    """Prints a table for each set, and what a reader has to know first."""
    console = make_console()
    for compared in comparison.sets:
        table = make_table(
            escape(compared.spec),
            ["", "rows", "AUROC", "F1", "recall", "false alarms", "ECE", "unscored", "ms"],
        )
        for result in comparison.results:
            if result.data == compared.spec:
                table.add_row(*_table_row(result))
        console.print(table)
    for problem in comparison.problems:
        console.print(f"note: {problem}", markup=False)


def _table_row(judge_result: JudgeOnSet) -> list[str]:
    from truing.report.sections.judge_provenance import format_ms

    figures = (judge_result.auroc, judge_result.f1, judge_result.recall, judge_result.false_alarm)
    speed = judge_result.speed.ms_per_row if judge_result.speed else None
    cells = [
        f"{judge_result.judge} ({judge_result.question})",
        f"{judge_result.n:,}"
        + (f" ({judge_result.struck:,} struck)" if judge_result.struck else ""),
        *(format_interval(figure) for figure in figures),
        "–" if judge_result.ece is None else f"{judge_result.ece:.3f}",
        f"{judge_result.unscored:,}",
        "–" if speed is None else format_ms(speed),
    ]
    return [escape(cell) for cell in cells]
