"""Compares judges on labelled sets: the figures of each, their agreement, paired differences.

    comparison = compare_judges(judges, [SetSource(folder, dataset.info.labels)])

The first judge is the baseline of the differences. A row that a judge, or one of its ancestors
(teachers, labelling judges), was trained on is struck for that judge: left out of its figures.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from truing.analysis.judge_figures import (
    JudgeColumn,
    JudgeOnSet,
    Speed,
    measure_judge,
    select_rows,
)
from truing.analysis.judge_pairs import (
    JudgeAgreement,
    JudgeDifference,
    adjust_differences,
    agreements_of,
    differences_of,
)
from truing.analysis.judged_sets import MACHINE, UNLABELLED, YES, JudgedSet, LabelColumn
from truing.analysis.lineage_relations import training_prompts
from truing.core.errors import DataError, LineageError, PlanError
from truing.core.types import Lineage
from truing.core.version import __version__
from truing.runs.folder import Run


class ComparedJudge(Struct, frozen=True, kw_only=True):
    """A judge: the spec that names it, its version (`hash`), and where it comes from.

    `base` is its base model, `data` the data sets that it was trained on.
    """

    spec: str
    name: str
    hash: str
    question: str
    base: str = ""
    data: tuple[str, ...] = ()
    licence: str = ""
    n_training_prompts: int = 0

    @classmethod
    def of(cls, spec: str, name: str, question: str, lineage: Lineage) -> ComparedJudge:
        """Returns the description of a judge."""
        return cls(
            spec=spec,
            name=name,
            hash=lineage.hash,
            question=question,
            base=lineage.base,
            data=lineage.data,
            licence=lineage.licence,
            n_training_prompts=len(training_prompts(lineage)),
        )


class SetSource(Struct, frozen=True):
    """The run folder of a set, and the questions that the published set labels."""

    folder: Path
    labels: tuple[str, ...] = ()


class LabelCounts(Struct, frozen=True, kw_only=True):
    """The labels of one question of a set, and their source (`judged_sets.PEOPLE`, ...)."""

    question: str
    source: str
    raters: tuple[str, ...]
    n: int
    n_positive: int
    undecided: int
    contradicting: int


class ComparedSet(Struct, frozen=True, kw_only=True):
    """A labelled set as it was compared on: `rows` answers to `prompts` distinct prompts."""

    spec: str
    licence: str
    sha256: str
    rows: int
    prompts: int
    models: tuple[str, ...]
    labels: tuple[LabelCounts, ...]


class JudgesComparison(Struct, frozen=True, kw_only=True):
    """The whole comparison; `problems` are sentences that a reader has to see first."""

    version: str
    judges: tuple[ComparedJudge, ...]
    sets: tuple[ComparedSet, ...]
    results: tuple[JudgeOnSet, ...]
    agreements: tuple[JudgeAgreement, ...]
    differences: tuple[JudgeDifference, ...]
    problems: tuple[str, ...] = ()


def check_comparable(
    judges: Sequence[ComparedJudge], lineages: Mapping[str, Lineage], sources: Sequence[SetSource]
) -> dict[str, list[Path]]:
    """Returns the folders that each judge has to judge, by the judge's name: those of sets with
    labels for its question, unless every labelled row is struck for it.

    Checks everything that would make a comparison pointless, before anything is judged.

    Raises:
        PlanError: a judge is given twice, or no set has labels for a judge's question.
        DataError: a set has labels for none of the judges, or only contradicting ones.
        LineageError: every labelled row is struck for its judges.
    """
    names = Counter(judge.name for judge in judges)
    faults = [f"the judge {name} is given more than once" for name in names if names[name] > 1]
    if faults:
        raise PlanError(*faults)
    to_judge: dict[str, list[Path]] = {name: [] for name in names}
    has_labels: set[str] = set()
    for source in sources:
        judged = JudgedSet(Run(source.folder))
        has_labels_for_any = False
        for judge in judges:
            labels = judged.labels(judge.question, source.labels)
            if labels is None:
                continue
            has_labels_for_any = True
            is_labelled = labels.values != UNLABELLED
            if not is_labelled.any():
                faults.append(_explain_no_labels(judged.spec, judge.question, labels))
                continue
            has_labels.add(judge.name)
            lineage = lineages[judge.name]
            if (
                judged.conflict(lineage) is None
                and (is_labelled & ~judged.trained_on(lineage)).any()
            ):
                to_judge[judge.name].append(source.folder)
        if not has_labels_for_any:
            faults.append(_explain_unlabelled(judged, {judge.question for judge in judges}))
    if faults:
        raise DataError(*dict.fromkeys(faults))
    for judge in judges:
        if judge.name not in has_labels:
            faults.append(f"{judge.name}: no set has labels of its question, {judge.question!r}")
    if faults:
        raise PlanError(*faults)
    if not any(to_judge.values()):
        raise LineageError(
            "the judges were trained on the prompts of every labelled row, or had a part in the "
            "answers: no row is left to compare them on"
        )
    return to_judge


def _explain_no_labels(spec: str, question: str, labels: LabelColumn) -> str:
    return (
        f"{spec}: no label of {question!r} is left: {labels.contradicting:,} rows with equal text "
        f"are labelled both ways, {labels.undecided:,} have as many votes for as against"
    )


def _explain_unlabelled(judged: JudgedSet, questions: Iterable[str]) -> str:
    labelled_questions = judged.labelled_questions()
    hint = (
        f"; its labels answer {', '.join(labelled_questions)}: compare judges of that question"
        if labelled_questions
        else "; rows of file: have the column `harmful`, or `expect` for benign prompts"
    )
    return f"{judged.spec}: is not labelled for {', '.join(sorted(set(questions)))}{hint}"


def compare_judges(
    judges: Sequence[ComparedJudge],
    sources: Sequence[SetSource],
    *,
    lineages: Mapping[str, Lineage],
    speeds: Mapping[tuple[str, str], Speed] | None = None,
) -> JudgesComparison:
    """Returns the comparison of judges that have judged the sets.

    Args:
        judges: in the order in which they are shown; the first is the baseline.
        sources: the sets.
        lineages: judge's name -> lineage.
        speeds: (judge's name, spec of the set) -> measured time and memory.
    """
    sets: list[ComparedSet] = []
    results: list[JudgeOnSet] = []
    agreements: list[JudgeAgreement] = []
    differences: list[JudgeDifference] = []
    problems: list[str] = []
    for source in sources:
        judged = JudgedSet(Run(source.folder))
        label_counts: list[LabelCounts] = []
        for question in dict.fromkeys(judge.question for judge in judges):
            labels = judged.labels(question, source.labels)
            if labels is None:
                continue
            label_counts.append(_count_labels(question, labels))
            of_question = [judge for judge in judges if judge.question == question]
            columns = [_read_column(judged, labels, j, lineages[j.name]) for j in of_question]
            for column in columns:
                speed = (speeds or {}).get((column.judge, judged.spec))
                results.append(measure_judge(judged, labels, column, speed))
            agreements += agreements_of(judged, columns)
            differences += differences_of(judged, labels, columns)
        problems += [p for counts in label_counts for p in _label_problems(judged.spec, counts)]
        problems += [p for judge in judges for p in _unknown_training(judged.spec, judge)]
        sets.append(_describe_set(judged, label_counts))
    problems += _headline_problems(results)
    return JudgesComparison(
        version=__version__,
        judges=tuple(judges),
        sets=tuple(sets),
        results=tuple(results),
        agreements=tuple(agreements),
        differences=adjust_differences(differences),
        problems=tuple(problems),
    )


def _read_column(
    judged: JudgedSet, labels: LabelColumn, judge: ComparedJudge, lineage: Lineage
) -> JudgeColumn:
    import numpy as np

    verdict_scores = judged.verdicts(judge.name, judge.hash, judge.question)
    conflict = judged.conflict(lineage)
    # With a conflict the judge may not measure any of these answers.
    is_struck = np.ones(judged.size, bool) if conflict else judged.trained_on(lineage)
    measured, struck = select_rows(labels, verdict_scores, is_struck)
    return JudgeColumn(
        judge=judge.name,
        judge_hash=judge.hash,
        question=judge.question,
        verdict_scores=verdict_scores,
        measured=measured,
        struck=struck,
        struck_reason=conflict or "",
    )


def _count_labels(question: str, labels: LabelColumn) -> LabelCounts:
    return LabelCounts(
        question=question,
        source=labels.source,
        raters=labels.raters,
        n=int((labels.values != UNLABELLED).sum()),
        n_positive=int((labels.values == YES).sum()),
        undecided=labels.undecided,
        contradicting=labels.contradicting,
    )


def _describe_set(judged: JudgedSet, labels: Sequence[LabelCounts]) -> ComparedSet:
    return ComparedSet(
        spec=judged.spec,
        licence=judged.licence,
        sha256=judged.sha256,
        rows=judged.size,
        prompts=len(set(judged.prompts.tolist())),
        models=tuple(model for model in judged.models if model),
        labels=tuple(labels),
    )


def _label_problems(spec: str, counts: LabelCounts) -> Iterator[str]:
    """Yields sentences on labels of a machine, and on rows whose labels contradict each other."""
    if counts.source == MACHINE:
        raters = ", ".join(counts.raters)
        yield f"{spec}: the labels of {counts.question!r} are a machine's ({raters})"
    if counts.contradicting:
        yield (
            f"{spec}: {counts.contradicting:,} rows with equal text are labelled both ways "
            f"({counts.question!r}) and left out"
        )
    if counts.undecided:
        yield (
            f"{spec}: {counts.undecided:,} rows have as many votes for as against "
            f"({counts.question!r}) and are left out"
        )


def _unknown_training(spec: str, judge: ComparedJudge) -> Iterator[str]:
    """Yields a sentence if a judge learned from the set, but its lineage lists no prompt hashes."""
    kind = re.split(r"[:,\s]", spec, maxsplit=1)[0]  # `xstest` of `xstest,part=completions`
    sources = [
        source for source in judge.data if re.split(r"[:,\s]", source, maxsplit=1)[0] == kind
    ]
    if sources and not judge.n_training_prompts:
        yield (
            f"{judge.name} was tuned on {', '.join(sources)} and keeps no hashes of the prompts: "
            f"its rows of {spec} cannot be struck"
        )


def _headline_problems(results: Sequence[JudgeOnSet]) -> list[str]:
    """Returns a sentence for each judge and reason why it has no figures, or large gaps.

    Sets with the same reason share a sentence.
    """
    sets_by_note: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for note in _headline_notes(result):
            sets_by_note.setdefault((result.judge, note), []).append(result.data)
    return [f"{judge} on {'; '.join(sets)}: {note}" for (judge, note), sets in sets_by_note.items()]


def _headline_notes(result: JudgeOnSet) -> Iterator[str]:
    """Yields why a judge has no figures on a set, or that it left many rows unscored."""
    if not result.n or result.n == result.unscored:
        yield from result.notes
    elif result.unscored * 10 > result.n:  # more than a tenth; a convention of this project
        yield f"it left {result.unscored:,} of {result.n:,} rows unscored; see the bounds"
