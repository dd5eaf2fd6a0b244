"""A judge's card: how well it agrees with people on a labelled set, with intervals, and where it comes from.

    make_card(run, judge)         # the run is over the recorded answers of a labelled set, judged by this judge
    read_card("card.json")        # DataError if it is no card

A labelled set reads as samples, recorded answers and judgements by `human:NAME`, so that a card is the comparison of
two judges. Rows that the judge was trained on are left out and counted; if nothing else is left, there is no card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import msgspec
from msgspec import Struct

from truing.analysis.scalar_scores import student_mean_interval
from truing.analysis.verdict_table import INAPPLICABLE_KINDS
from truing.core.errors import DataError, LineageError, RunError
from truing.core.jsonl import read_records
from truing.core.lineage import ancestors, hash_prompt
from truing.core.types import Judgement, Lineage
from truing.runs.folder import JudgeRecord, Run, replace_file
from truing.stats.calibration import ReliabilityBin
from truing.stats.classification import ClassificationScores, classification_scores
from truing.stats.intervals import Interval

Key = tuple[str, int]


class GradedAgreement(Struct, frozen=True, kw_only=True):
    """A judge's probability beside labels that are degrees from 0 to 1: rank correlation (Spearman), the mean difference
    judge minus label (clustered by sample), and the mean absolute one."""

    n: int
    spearman: Interval | None
    difference: Interval | None
    absolute: float


class QuestionCard(Struct, frozen=True, kw_only=True):
    """How a judge answers one question: against people's labels, row by row."""

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
    """What the judge was made from; `prompt_hashes` are those of all its training prompts, and of its judges'."""

    base: str = ""
    base_sha256: str = ""
    prompt_hashes: tuple[str, ...] = ()
    data: tuple[str, ...] = ()


class JudgeCard(Struct, frozen=True, kw_only=True):
    """A judge's card. `per_category` compares its own categories with people's (``labels``), or by rows' category.

    `against` names the question of the labels where it is not the judge's own (``toxicity`` for a judge of harm); then the
    labels may be another judge's that came with the set (`raters`), and the card says so.
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


class _Told(Struct):
    verdicts: list[bool]
    harms: list[dict[str, float]]
    scores: list[float]


class _Asked(Struct, frozen=True):
    id: str
    conversation: msgspec.Raw
    harms: tuple[str, ...] = ()


class _Turn(Struct, frozen=True):
    role: str
    content: str = ""


class _Turns(Struct, frozen=True):
    messages: tuple[_Turn, ...] = ()


def _prompt(raw: msgspec.Raw) -> str:
    turns = msgspec.json.decode(raw, type=_Turns).messages
    return next((t.content for t in reversed(turns) if t.role == "user"), "")


def _people(run: Run, question: str, not_by: str = "") -> tuple[dict[Key, _Told], list[str]]:
    """What people said of each row, and their names; with `not_by`, everybody but that judge."""
    out: dict[Key, _Told] = {}
    names = []
    for record in run.manifest.judges:
        if not (record.name.startswith("human:") or (not_by and record.name != not_by)):
            continue
        asked = 0
        for row in read_records(
            run.path / record.file, Judgement
        ):  # a set's own labels may answer several questions
            if row.verdict is not None and row.question == question:
                asked += 1
                told = out.setdefault((row.sample_id, row.index), _Told([], [], []))
                told.verdicts.append(row.verdict)
                if row.score is not None:
                    told.scores.append(row.score)
                if row.harms:
                    told.harms.append(row.harms)
        if asked:
            names.append(record.name)
    return out, list(dict.fromkeys(names))


def _truth(votes: Sequence[bool]) -> bool | None:
    yes = sum(votes)
    return None if 2 * yes == len(votes) else 2 * yes > len(votes)


def _known_prompts(lineage: Lineage) -> frozenset[str]:
    return frozenset(lineage.prompts).union(*(j.prompts for j in ancestors(lineage)))


def samples_trained_on(run: Run, lineage: Lineage) -> frozenset[str]:
    """The ids of the samples whose prompts a judge (or a judge behind it) was trained on."""
    known = _known_prompts(lineage)
    if not known:
        return frozenset()
    asked = read_records(run.path / "samples.jsonl", _Asked)
    return frozenset(s.id for s in asked if hash_prompt(_prompt(s.conversation)) in known)


class _Rows(Struct):
    """The rows of a card: verdict, probability and categories of the judge, truth and categories of people."""

    groups: list[str]
    verdicts: list[bool]
    p: list[float | None]
    truth: list[bool]
    mine: list[dict[str, float]]
    theirs: list[frozenset[str] | None]
    asked: list[tuple[str, ...]]
    degrees: list[float | None]
    unscored: int = 0
    left_out: int = 0


def _collect(run: Run, record: JudgeRecord, people: Mapping[Key, _Told]) -> _Rows:
    known = _known_prompts(record.lineage)
    samples: dict[str, tuple[tuple[str, ...], bool]] = {}
    for sample in read_records(run.path / "samples.jsonl", _Asked):
        trained = bool(known) and hash_prompt(_prompt(sample.conversation)) in known
        samples[sample.id] = (sample.harms, trained)
    rows = _Rows([], [], [], [], [], [], [], [])
    for row in read_records(run.path / record.file, Judgement):
        told = people.get((row.sample_id, row.index))
        at = samples.get(row.sample_id)
        truth = _truth(told.verdicts) if told is not None else None
        if told is None or truth is None or at is None or row.question != record.question:
            continue
        if row.failure is not None and row.failure.kind in INAPPLICABLE_KINDS:
            continue
        if at[1]:
            rows.left_out += 1
            continue
        if row.verdict is None:
            rows.unscored += 1
            continue
        rows.groups.append(row.sample_id)
        rows.verdicts.append(row.verdict)
        rows.p.append(row.score)
        rows.truth.append(truth)
        rows.mine.append(row.harms)
        rows.theirs.append(_categories(told.harms))
        rows.asked.append(at[0])
        rows.degrees.append(sum(told.scores) / len(told.scores) if told.scores else None)
    return rows


def _categories(given: Sequence[Mapping[str, float]]) -> frozenset[str] | None:
    """The categories that most of the raters who named any gave to a row; none if nobody names categories."""
    if not given:
        return None
    named = {c for g in given for c in g}
    return frozenset(c for c in named if sum(g.get(c, 0.0) for g in given) / len(given) > 0.5)


def _question(rows: _Rows) -> QuestionCard:
    from truing.stats.agreement import BootstrapOptions, cohen_kappa
    from truing.stats.calibration import brier_score, ece, reliability_bins

    made = classification_scores(rows.verdicts, rows.truth, rows.p, rows.groups)
    known = [(p, float(y)) for p, y in zip(rows.p, rows.truth) if p is not None]
    ps, ys = [p for p, _ in known], [y for _, y in known]
    both = len(set(rows.verdicts)) + len(set(rows.truth)) > 2
    draws = BootstrapOptions(draws=200 if len(rows.truth) < 20000 else 50)
    return QuestionCard(
        n=made.n,
        n_positive=made.n_positive,
        unscored=rows.unscored,
        sensitivity=made.recall,
        specificity=made.specificity,
        precision=made.precision,
        f1=made.f1,
        auroc=made.auroc,
        ap=made.ap,
        kappa=cohen_kappa(rows.verdicts, rows.truth, options=draws) if both else None,
        ece=ece(ps, ys) if known else None,
        brier=brier_score(ps, ys) if known else None,
        graded=_graded(rows),
        reliability=tuple(reliability_bins(ps, ys)) if len(set(ps)) > 2 else (),
    )


def _graded(rows: _Rows) -> GradedAgreement | None:
    """None unless labels are degrees (not all of them 0 or 1) and the judge gives probabilities."""
    from truing.stats.classification import spearman_correlation

    found = [
        (g, p, d)
        for g, p, d in zip(rows.groups, rows.p, rows.degrees)
        if p is not None and d is not None
    ]
    if not found or all(d in (0, 1) for _, _, d in found):
        return None
    apart: dict[str, list[float]] = {}
    for group, p, d in found:
        apart.setdefault(group, []).append(p - d)
    return GradedAgreement(
        n=len(found),
        spearman=spearman_correlation([p for _, p, _ in found], [d for _, _, d in found]),
        difference=student_mean_interval([sum(v) / len(v) for v in apart.values()]),
        absolute=sum(abs(p - d) for _, p, d in found) / len(found),
    )


def _per_category(rows: _Rows) -> tuple[dict[str, ClassificationScores], str]:
    own = {c for m in rows.mine for c in m}
    labelled = [i for i, t in enumerate(rows.theirs) if t is not None]
    out: dict[str, ClassificationScores] = {}
    if own and labelled:
        for category in sorted(own | {c for i in labelled for c in rows.theirs[i] or ()}):
            p = [rows.mine[i].get(category) for i in labelled]
            verdicts = [v is not None and v >= 0.5 for v in p]
            truth = [category in (rows.theirs[i] or ()) for i in labelled]
            out[category] = classification_scores(
                verdicts, truth, p, [rows.groups[i] for i in labelled]
            )
        return out, "labels"
    for category in sorted({c for a in rows.asked for c in a}):
        at = [i for i, a in enumerate(rows.asked) if category in a]
        out[category] = classification_scores(
            [rows.verdicts[i] for i in at],
            [rows.truth[i] for i in at],
            [rows.p[i] for i in at],
            [rows.groups[i] for i in at],
        )
    return out, "rows of the category" if out else ""


def _asked(run: Run, judge: str) -> list[str]:
    """The questions that somebody other than the judge answered, in a run's first lines."""
    found: dict[str, None] = {}
    for record in run.manifest.judges:
        if record.name != judge:
            found.update(
                dict.fromkeys(
                    row.question
                    for row in islice(read_records(run.path / record.file, Judgement), 200)
                )
            )
    return list(found)


def make_card(run: Run | str | Path, judge: str, *, against: str = "") -> JudgeCard:
    """The card of a judge from a judged run over a labelled set.

    With `against`, labels of that question count, also those of a machine that came with the set.

    RunError if the judge or people's labels of its question are not in the run; LineageError if the judge was trained
    on every labelled row; DataError if it scored none.
    """
    found = run if isinstance(run, Run) else Run(run)
    manifest = found.manifest
    record = next((r for r in manifest.judges if r.name == judge), None)
    if record is None:
        raise RunError(f"{found.path}: {judge} has not judged this run")
    question_of_labels = against or record.question
    people, names = _people(found, question_of_labels, judge if against else "")
    if not people:
        others = _asked(found, judge)
        hint = f"; its labels answer {', '.join(others)}: name one by --against" if others else ""
        what = f"nobody labelled {question_of_labels!r} here; a card needs a set with labels of it"
        raise RunError(f"{found.path}: {what}{hint}")
    rows = _collect(found, record, people)
    if not rows.truth:
        if rows.left_out:
            raise LineageError(
                f"{judge} was trained on all {rows.left_out} labelled prompts: no card can be made of them"
            )
        raise DataError(
            f"{found.path}: {judge} scored none of the {len(people)} labelled rows ({rows.unscored} unscored)"
        )
    question = _question(rows)
    per_category, kind = _per_category(rows)
    lineage = record.lineage
    return JudgeCard(
        judge=judge,
        judge_hash=lineage.hash,
        data=", ".join(d.spec for d in manifest.data),
        data_hash=",".join(d.sha256 for d in manifest.data),
        n=question.n,
        left_out=rows.left_out,
        raters=tuple(names),
        questions={record.question: question},
        per_category=per_category,
        per_category_of=kind,
        against=against,
        ece=question.ece,
        kappa=question.kappa,
        licence=lineage.licence,
        lineage=CardLineage(
            base=lineage.base,
            base_sha256=lineage.base_sha256,
            data=lineage.data,
            prompt_hashes=tuple(sorted(_known_prompts(lineage))),
        ),
    )


def write_card(card: JudgeCard, path: Path) -> None:
    """Writes a card as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n")


def read_card(path: str | Path) -> JudgeCard:
    """A card from its file; DataError if it cannot be read or is no card."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=JudgeCard)
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(f"{path}: no judge's card: {error}") from error
