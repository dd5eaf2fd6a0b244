"""`truing card`: how well a judge agrees with people on a labelled set."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from truing.analysis.judge_card import GradedAgreement, JudgeCard, make_card, write_card
from truing.cli.evaluate import resolve_all
from truing.cli.progress import Bar
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.stats.intervals import Interval


def command(
    judge: str,
    /,
    *,
    data: str,
    out: Path = Path("card.json"),
    run: Path | None = None,
    against: str = "",
    limit: int | None = None,
    concurrency: int = 16,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Judges the recorded answers of a labelled set and writes the judge's card: its error rates, with intervals.

    Rows that the judge was trained on are left out; if nothing else is left, no card is made.

    Parameters
    ----------
    judge
        Spec of the judge, such as rules:refusal or moderation:open.
    data
        Spec of a set with recorded answers and people's labels, such as xstest or beavertails:qa.
    out
        Where the card goes.
    run
        Keep the judged answers in this run folder, so that a card that was interrupted can be gone on with.
    against
        Compare with the set's labels of this question instead of the judge's own, such as toxicity; labels that a machine
        gave count then, and the card says whose they are.
    limit
        Take only the first so many rows.
    concurrency
        Judgements in the making at a time.
    json
        Print the card as JSON.
    """
    made, dataset = resolve_all([(judge, "judge"), (data, "data")])
    with (
        tempfile.TemporaryDirectory(prefix="truing-card-") as scratch,
        Bar("judging", quiet=json) as bar,
    ):
        options = EvaluateOptions(limit=limit, concurrency=concurrency, progress=bar)
        judged = evaluate(None, dataset, [made], run or Path(scratch) / "run", options=options)
        card = make_card(judged, made.name, against=against)
    write_card(card, out)
    if json:
        sys.stdout.write(out.read_text(encoding="utf-8"))
    else:
        show_card(card)
        print(f"card: {out}")
    return 0


def shown(i: Interval | None) -> str:
    """`0.92 [0.88, 0.95]`, or a dash."""
    return "–" if i is None else f"{i.estimate:.2f} [{i.lower:.2f}, {i.upper:.2f}]"


def graded_words(g: GradedAgreement) -> str:
    """How a judge's probabilities go with labels that are degrees."""
    return (
        f"Spearman {shown(g.spearman)} with degrees of {g.n:,} rows; judge minus label {shown(g.difference)} on "
        f"average, {g.absolute:.2f} in size"
    )


def show_card(card: JudgeCard) -> None:
    """The error rates of a judge, as a table."""
    from truing.cli.show import _console, _table
    from truing.report.formatting import category_label

    console = _console()
    console.print(
        f"{card.judge} ({card.judge_hash[:8]}) on {card.data}: {card.n:,} labelled rows by "
        f"{', '.join(card.raters)}",
        markup=False,
    )
    if card.left_out:
        console.print(
            f"{card.left_out} rows that the judge was trained on are left out", markup=False
        )
    table = _table("", ["", "positives", "sensitivity", "specificity", "precision", "F1", "AUROC"])
    for name, q in card.questions.items():
        cells = map(shown, (q.sensitivity, q.specificity, q.precision, q.f1, q.auroc))
        table.add_row(name, f"{q.n_positive} of {q.n}", *(c.replace("[", r"\[") for c in cells))
    for category, s in card.per_category.items():
        cells = map(shown, (s.recall, s.specificity, s.precision, s.f1, s.auroc))
        row = (c.replace("[", r"\[") for c in cells)
        table.add_row(f"  {category_label(category)}", f"{s.n_positive} of {s.n}", *row)
    console.print(table)
    for name, q in card.questions.items():
        kappa = shown(q.kappa)
        ece = "–" if q.ece is None else f"{q.ece:.3f}"
        whom = f"{', '.join(card.raters)} ({card.against})" if card.against else "people"
        console.print(
            f"{name}: kappa with {whom} {kappa}, ECE {ece}, {q.unscored} unscored", markup=False
        )
        if q.graded is not None:
            console.print(f"{name}: {graded_words(q.graded)}", markup=False)
