"""Judge cards: how well a judge agrees with people on a labelled set, and where it comes from.

    card = make_card(run, "rules:refusal")      # a run over the recorded answers of a labelled set
    write_card(card, Path("card.json"))
    read_card("card.json")

A labelled set is read as samples, recorded answers and judgements by `human:NAME`, so that a card
is the comparison of two judges. Rows that the judge was trained on are left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import msgspec
from msgspec import Struct, field

from truing.analysis.judge_calibration import CardCalibration
from truing.analysis.lineage_relations import training_prompts
from truing.analysis.scalar_scores import student_mean_interval
from truing.analysis.verdict_rows import record_thresholds
from truing.analysis.verdict_table import INAPPLICABLE_KINDS, read_verdict_table
from truing.core.errors import DataError, LineageError, RunError
from truing.core.flagged_categories import flag_categories
from truing.core.lineage import hash_prompt
from truing.core.types import Judgement, Lineage
from truing.runs.folder import JudgeRecord, Run
from truing.runs.parts import read_run_records
from truing.stats.agreement import cohen_kappa
from truing.stats.agreement_intervals import BootstrapOptions
from truing.stats.calibration import ReliabilityBin, brier_score, ece, reliability_bins
from truing.stats.classification import (
    ClassificationScores,
    classification_scores,
    spearman_correlation,
)
from truing.stats.intervals import Interval

RowKey = tuple[str, int]  # (sample id, answer index)
_MANY_ROWS = 20_000  # from here on, kappa's interval takes 100 draws instead of 1,000


class GradedAgreement(Struct, frozen=True, kw_only=True):
    """A judge's probability against labels that are degrees from 0 to 1.

    Rank correlation (Spearman), mean difference judge minus label (clustered by prompt), and mean
    absolute difference.
    """

    n: int
    spearman: Interval | None
    difference: Interval | None
    absolute: float


class QuestionCard(Struct, frozen=True, kw_only=True):
    """How a judge answers one question, against people's labels of the same rows."""

    n: int
    n_positive: int
    unscored: int
    sensitivity: Interval | None
    specificity: Interval | None
    precision: Interval | None
    f1: Interval | None
    auroc: Interval | None
    ap: Interval | None
    kappa: Interval | None
    ece: float | None = None
    brier: float | None = None
    graded: GradedAgreement | None = None
    reliability: tuple[ReliabilityBin, ...] = ()


class CardLineage(Struct, frozen=True, kw_only=True):
    """What the judge was made from.

    `prompt_hashes` are those of all prompts that it, or a judge behind it, was trained on.
    """

    base: str = ""
    base_sha256: str = ""
    prompt_hashes: tuple[str, ...] = ()
    data: tuple[str, ...] = ()


class JudgeCard(Struct, frozen=True, kw_only=True):
    """The card of one version of a judge, on one labelled set.

    Attributes:
        n: number of rows, without those `left_out` because the judge was trained on them.
        raters: whose labels these are.
        per_category: the judge's own categories against people's (`per_category_of` is
            ``labels``), or the question over the rows of each category.
        against: the question of the labels, where it is not the judge's own (``toxicity`` for a
            judge of harm). The labels may then be another judge's that came with the set.
        ece, kappa: those of the judge's question.
        calibration: a map of its probabilities that was fitted on these rows, if asked for.
    """

    judge: str
    judge_hash: str
    data: str
    data_hash: str
    n: int
    left_out: int = 0
    raters: tuple[str, ...] = ()
    questions: dict[str, QuestionCard]
    per_category: dict[str, ClassificationScores]
    per_category_of: str = ""
    against: str = ""
    ece: float | None = None
    kappa: Interval | None = None
    lineage: CardLineage
    licence: str = ""
    calibration: CardCalibration | None = None


class _RowLabels(Struct):
    """The labels of one row, one item per rater who gave the value."""

    verdicts: list[bool] = field(default_factory=list)
    harms: list[dict[str, float]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


class _Sample(Struct, frozen=True):
    id: str
    conversation: msgspec.Raw
    harms: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)


class _Message(Struct, frozen=True):
    role: str
    content: str = ""


class _Conversation(Struct, frozen=True):
    messages: tuple[_Message, ...] = ()


class _CardRow(Struct, frozen=True, kw_only=True):
    """One row of a card: the judge's answer and people's; `prompt` is the number of its prompt."""

    prompt: int
    verdict: bool
    probability: float | None
    truth: bool
    judge_categories: dict[str, float]
    flagged_categories: tuple[str, ...]
    label_categories: frozenset[str] | None
    sample_categories: tuple[str, ...]
    degree: float | None


class _CardRows(Struct):
    rows: list[_CardRow] = field(default_factory=list)
    unscored: int = 0
    left_out: int = 0


def make_card(run: Run | str | Path, judge: str, *, against: str = "") -> JudgeCard:
    """Makes the card of a judge from a run over a labelled set that it has judged.

    Args:
        run: the judged run.
        judge: name of the judge in the run.
        against: compare with labels of this question, those of a machine included.

    Raises:
        RunError: the run lacks the judge, or labels of its question.
        LineageError: the judge was trained on every labelled row.
        DataError: the judge scored none of the labelled rows.
    """
    folder = run if isinstance(run, Run) else Run(run)
    manifest = folder.manifest
    record = next((r for r in manifest.judges if r.name == judge), None)
    if record is None:
        raise RunError(f"{folder.path}: {judge} has not judged this run")
    labels, raters = _read_labels(folder, against or record.question, judge if against else "")
    if not labels:
        raise RunError(_no_labels_message(folder, judge, against or record.question))
    collected = _collect_rows(folder, record, labels)
    if not collected.rows:
        if collected.left_out:
            raise LineageError(
                f"{judge} was trained on all {collected.left_out} labelled prompts: "
                "no card can be made of them"
            )
        raise DataError(
            f"{folder.path}: {judge} scored none of the {len(labels)} labelled rows "
            f"({collected.unscored} unscored)"
        )
    question = _make_question_card(collected)
    per_category, per_category_of = _scores_per_category(collected.rows)
    lineage = record.lineage
    return JudgeCard(
        judge=judge,
        judge_hash=lineage.hash,
        data=", ".join(data.spec for data in manifest.data),
        data_hash=",".join(data.sha256 for data in manifest.data),
        n=question.n,
        left_out=collected.left_out,
        raters=tuple(raters),
        questions={record.question: question},
        per_category=per_category,
        per_category_of=per_category_of,
        against=against,
        ece=question.ece,
        kappa=question.kappa,
        licence=lineage.licence,
        lineage=CardLineage(
            base=lineage.base,
            base_sha256=lineage.base_sha256,
            data=lineage.data,
            prompt_hashes=tuple(sorted(training_prompts(lineage))),
        ),
    )


def samples_trained_on(run: Run, lineage: Lineage) -> frozenset[str]:
    """Returns the ids of samples whose prompts a judge, or one behind it, was trained on.

    An attack (with the tag `goal`) counts as one of them if its goal is a training prompt.
    """
    known = training_prompts(lineage)
    if not known:
        return frozenset()
    return frozenset(
        sample.id
        for sample in read_run_records(run.path, "samples.jsonl", _Sample)
        if any(hash_prompt(text) in known for text in _known_by(sample))
    )


def _known_by(sample: _Sample) -> tuple[str, ...]:
    goal = sample.tags.get("goal")
    return (_last_prompt(sample), goal) if goal else (_last_prompt(sample),)


def _last_prompt(sample: _Sample) -> str:
    messages = msgspec.json.decode(sample.conversation, type=_Conversation).messages
    return next((m.content for m in reversed(messages) if m.role == "user"), "")


def _read_labels(
    run: Run, question: str, except_by: str
) -> tuple[dict[RowKey, _RowLabels], list[str]]:
    """Returns people's labels of a question by row, and the names of the raters.

    With `except_by`, the judgements of every judge but that one are taken for labels.
    """
    labels: dict[RowKey, _RowLabels] = {}
    raters: dict[str, None] = {}
    for record in run.manifest.judges:
        is_rater = record.name.startswith("human:") or (except_by and record.name != except_by)
        if not is_rater:
            continue
        # The labels that come with a set may answer several questions in one file.
        for row in read_run_records(run.path, record.file, Judgement):
            if row.verdict is None or row.question != question:
                continue
            raters[record.name] = None
            of_row = labels.setdefault((row.sample_id, row.index), _RowLabels())
            of_row.verdicts.append(row.verdict)
            if row.score is not None:
                of_row.scores.append(row.score)
            if row.harms:
                of_row.harms.append(row.harms)
    return labels, list(raters)


def _no_labels_message(run: Run, judge: str, question: str) -> str:
    labelled_questions: dict[str, None] = {}
    for record in run.manifest.judges:
        if record.name != judge:
            # The first lines tell the questions; label files may have a million.
            rows = islice(read_run_records(run.path, record.file, Judgement), 200)
            labelled_questions.update(dict.fromkeys(row.question for row in rows))
    hint = (
        f"; its labels answer {', '.join(labelled_questions)}: name one by --against"
        if labelled_questions
        else ""
    )
    return (
        f"{run.path}: nobody labelled {question!r} here; a card needs a set with labels of it{hint}"
    )


def _majority(votes: Sequence[bool]) -> bool | None:
    """Returns what most raters say, None for a tie."""
    yes = sum(votes)
    return None if 2 * yes == len(votes) else 2 * yes > len(votes)


def _majority_categories(ratings: Sequence[Mapping[str, float]]) -> frozenset[str] | None:
    """Returns the categories that most raters gave; None if nobody names categories."""
    if not ratings:
        return None
    named = {category for rating in ratings for category in rating}
    return frozenset(
        category
        for category in named
        if sum(rating.get(category, 0.0) for rating in ratings) / len(ratings) > 0.5
    )


def _collect_rows(run: Run, record: JudgeRecord, labels: Mapping[RowKey, _RowLabels]) -> _CardRows:
    """Joins the judge's verdicts with people's labels; ties among people are left out."""
    samples = read_run_records(run.path, "samples.jsonl", _Sample)
    categories_of_sample = {sample.id: sample.harms for sample in samples}
    thresholds = record_thresholds(record)
    table = read_verdict_table(run, ids=True)
    # Rows with one prompt are not independent, whatever their ids are.
    prompt_of_sample = dict(zip(table.ids or (), table.prompt_ids))
    trained_on = samples_trained_on(run, record.lineage)
    collected = _CardRows()
    for row in read_run_records(run.path, record.file, Judgement):
        of_row = labels.get((row.sample_id, row.index))
        categories = categories_of_sample.get(row.sample_id)
        if of_row is None or categories is None or row.question != record.question:
            continue
        truth = _majority(of_row.verdicts)
        if truth is None:
            continue
        if row.failure is not None and row.failure.kind in INAPPLICABLE_KINDS:
            continue
        # On training rows a judge errs less than it will on others.
        if row.sample_id in trained_on:
            collected.left_out += 1
        elif row.verdict is None:
            collected.unscored += 1
        else:
            scores = of_row.scores
            collected.rows.append(
                _CardRow(
                    prompt=prompt_of_sample[row.sample_id],
                    verdict=row.verdict,
                    probability=row.score,
                    truth=truth,
                    judge_categories=row.harms,
                    flagged_categories=flag_categories(row.harms, thresholds),
                    label_categories=_majority_categories(of_row.harms),
                    sample_categories=categories,
                    degree=sum(scores) / len(scores) if scores else None,
                )
            )
    return collected


def _make_question_card(collected: _CardRows) -> QuestionCard:
    rows = collected.rows
    verdicts, truth = [row.verdict for row in rows], [row.truth for row in rows]
    prompts = [row.prompt for row in rows]
    scores = _score_rows(rows)
    with_probability = [
        (row.probability, float(row.truth)) for row in rows if row.probability is not None
    ]
    p, y = [p for p, _ in with_probability], [y for _, y in with_probability]
    draws = BootstrapOptions(draws=1000 if len(rows) < _MANY_ROWS else 100)
    # Kappa is undefined if judge and people give one and the same answer to all rows.
    varied = len(set(verdicts)) + len(set(truth)) > 2
    return QuestionCard(
        n=scores.n,
        n_positive=scores.n_positive,
        unscored=collected.unscored,
        sensitivity=scores.recall,
        specificity=scores.specificity,
        precision=scores.precision,
        f1=scores.f1,
        auroc=scores.auroc,
        ap=scores.ap,
        kappa=cohen_kappa(verdicts, truth, prompts, options=draws) if varied else None,
        ece=ece(p, y) if p else None,
        brier=brier_score(p, y) if p else None,
        graded=_graded_agreement(rows),
        # A judge with two values of its probability states verdicts: no diagram.
        reliability=tuple(reliability_bins(p, y)) if len(set(p)) > 2 else (),
    )


def _score_rows(rows: Sequence[_CardRow]) -> ClassificationScores:
    return classification_scores(
        [row.verdict for row in rows],
        [row.truth for row in rows],
        [row.probability for row in rows],
        [row.prompt for row in rows],
    )


def _graded_agreement(rows: Sequence[_CardRow]) -> GradedAgreement | None:
    """Returns None unless labels are degrees (not all 0 or 1) and the judge gives probabilities."""
    graded = [
        (row.prompt, row.probability, row.degree)
        for row in rows
        if row.probability is not None and row.degree is not None
    ]
    if not graded or all(degree in (0, 1) for _, _, degree in graded):
        return None
    differences: dict[int, list[float]] = {}
    for prompt, p, degree in graded:
        differences.setdefault(prompt, []).append(p - degree)
    # The answers to one prompt are a cluster: Student's interval is over prompts.
    means_by_prompt = [sum(values) / len(values) for values in differences.values()]
    return GradedAgreement(
        n=len(graded),
        spearman=spearman_correlation([p for _, p, _ in graded], [d for _, _, d in graded]),
        difference=student_mean_interval(means_by_prompt),
        absolute=sum(abs(p - d) for _, p, d in graded) / len(graded),
    )


def _scores_per_category(rows: Sequence[_CardRow]) -> tuple[dict[str, ClassificationScores], str]:
    """Returns scores by category, and what they compare (see `JudgeCard.per_category_of`)."""
    judge_categories = {category for row in rows for category in row.judge_categories}
    # Rows on which nobody names categories say nothing about the judge's.
    labelled = [row for row in rows if row.label_categories is not None]
    scores: dict[str, ClassificationScores] = {}
    if judge_categories and labelled:
        label_categories = {c for row in labelled for c in row.label_categories or ()}
        for category in sorted(judge_categories | label_categories):
            p = [row.judge_categories.get(category) for row in labelled]
            scores[category] = classification_scores(
                [category in row.flagged_categories for row in labelled],
                [category in (row.label_categories or ()) for row in labelled],
                p,
                [row.prompt for row in labelled],
            )
        return scores, "labels"
    for category in sorted({category for row in rows for category in row.sample_categories}):
        scores[category] = _score_rows([r for r in rows if category in r.sample_categories])
    return scores, "rows of the category" if scores else ""
