"""`truing card`: measures how well a judge agrees with people on a labelled set."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter
from msgspec.structs import replace

from truing.cli.parameters import Flag, resolve_all
from truing.cli.tables import make_console, make_table, print_json, print_text
from truing.core.errors import PlanError, did_you_mean
from truing.core.protocols import Judge

if TYPE_CHECKING:
    from truing.analysis.judge_card import GradedAgreement, JudgeCard
    from truing.stats.intervals import Interval


@Parameter(name="*")
@dataclass(frozen=True)
class LabelFlags:
    """How the labels are used.

    Parameters
    ----------
    against
        Compare with the set's labels of this question, such as toxicity, instead of those of the
        judge's own question. Labels from a machine count here, and the card says whose they are.
    calibrate
        Fit a calibration of the judge's probabilities on these rows, by platt or temperature, and
        store it in the card, for llm:policy,card=CARD.
    """

    against: str = ""
    calibrate: str = ""

    def check(self) -> None:
        """Raises PlanError for values that do not exist or do not go together."""
        from truing.analysis.judge_calibration import METHODS

        if self.calibrate and self.calibrate not in METHODS:
            raise PlanError(f"--calibrate {self.calibrate}{did_you_mean(self.calibrate, METHODS)}")
        if self.calibrate and self.against:
            raise PlanError(
                "--calibrate and --against: labels of another question calibrate nothing"
            )


def command(
    judge: str,
    /,
    *,
    data: str,
    out: Path = Path("card.json"),
    run: Path | None = None,
    labels: LabelFlags = LabelFlags(),
    limit: int | None = None,
    concurrency: int = 16,
    json: Flag = False,
) -> int:
    """Judges the recorded answers of a labelled set and writes the judge's error rates as a card.

    Rows that the judge was trained on are left out. It is an error if no other rows are left.

    Parameters
    ----------
    judge
        Spec of the judge, such as rules:refusal or moderation:default.
    data
        Spec of a set with recorded answers and people's labels, such as xstest or beavertails:qa.
    out
        The card to write.
    run
        Keep the judged answers in this run folder, so that an interrupted card can be continued.
    labels
        What the labels are compared with, and fitted on.
    limit
        Use only LIMIT rows, drawn at random by prompt.
    concurrency
        Answers that are judged at a time.
    json
        Print the card as JSON.
    """
    from truing.analysis.card_files import write_card
    from truing.analysis.judge_calibration import fit_calibration
    from truing.analysis.judge_card import make_card
    from truing.cli.progress import ProgressBar
    from truing.evaluation.evaluate import evaluate
    from truing.evaluation.options import EvaluateOptions

    labels.check()
    resolved_judge: Judge
    resolved_judge, dataset = resolve_all([(judge, "judge"), (data, "data")])
    with (
        tempfile.TemporaryDirectory(prefix="truing-card-") as scratch,
        ProgressBar("judging", quiet=json) as progress,
    ):
        options = EvaluateOptions(limit=limit, concurrency=concurrency, progress=progress)
        folder = run or Path(scratch) / "run"
        judged_run = evaluate(None, dataset, [resolved_judge], folder, options=options)
        card = make_card(judged_run, resolved_judge.name, against=labels.against)
        if labels.calibrate:
            fitted = fit_calibration(judged_run, resolved_judge.name, labels.calibrate)
            card = replace(card, calibration=fitted)
    write_card(card, out)
    if json:
        print_json(out.read_text(encoding="utf-8").rstrip("\n"))
    else:
        print_card(card)
        print_text(f"card: {out}")
    return 0


def format_interval(interval: Interval | None) -> str:
    """Formats an interval as `0.92 [0.88, 0.95]`; None is a dash."""
    if interval is None:
        return "–"
    return f"{interval.estimate:.2f} [{interval.lower:.2f}, {interval.upper:.2f}]"


def describe_graded_agreement(graded: GradedAgreement) -> str:
    """Describes how a judge's probabilities agree with labels that are degrees, not yes or no."""
    return (
        f"Spearman {format_interval(graded.spearman)} with degrees of {graded.n:,} rows; "
        f"judge minus label {format_interval(graded.difference)} on average, "
        f"{graded.absolute:.2f} in size"
    )


def print_card(card: JudgeCard) -> None:
    """Prints the error rates of a judge as a table: a row per question, a row per harm category."""
    from truing.core.licences import describe_restriction
    from truing.report.formatting import category_label

    console = make_console()
    console.print(
        f"{card.judge} ({card.judge_hash[:8]}) on {card.data}: {card.n:,} labelled rows by "
        f"{', '.join(card.raters)}",
        markup=False,
    )
    if card.left_out:
        console.print(
            f"{card.left_out} rows that the judge was trained on are left out", markup=False
        )
    if card.calibration is not None:
        fitted = card.calibration
        console.print(
            f"calibration by {fitted.method} on {fitted.n:,} rows: ECE {fitted.ece_before:.3f} "
            f"before, {fitted.ece_after:.3f} after, on the same rows",
            markup=False,
        )
    table = make_table(
        "", ["", "positives", "sensitivity", "specificity", "precision", "F1", "AUROC"]
    )
    for name, question_card in card.questions.items():
        figures = (
            question_card.sensitivity,
            question_card.specificity,
            question_card.precision,
            question_card.f1,
            question_card.auroc,
        )
        table.add_row(
            name, f"{question_card.n_positive} of {question_card.n}", *map(_interval_cell, figures)
        )
    for category, category_scores in card.per_category.items():
        figures = (
            category_scores.recall,
            category_scores.specificity,
            category_scores.precision,
            category_scores.f1,
            category_scores.auroc,
        )
        label = f"  {category_label(category)}"
        table.add_row(
            label,
            f"{category_scores.n_positive} of {category_scores.n}",
            *map(_interval_cell, figures),
        )
    console.print(table)

    restriction = describe_restriction(card.judge, [card.licence])
    if restriction:
        console.print(restriction, markup=False)
    raters = f"{', '.join(card.raters)} ({card.against})" if card.against else "people"
    for name, question_card in card.questions.items():
        ece = "–" if question_card.ece is None else f"{question_card.ece:.3f}"
        kappa = format_interval(question_card.kappa)
        console.print(
            f"{name}: kappa with {raters} {kappa}, ECE {ece}, {question_card.unscored} unscored",
            markup=False,
        )
        if question_card.graded is not None:
            console.print(
                f"{name}: {describe_graded_agreement(question_card.graded)}", markup=False
            )


def _interval_cell(interval: Interval | None) -> str:
    # rich would take "[0.88, 0.95]" for markup.
    return format_interval(interval).replace("[", r"\[")
