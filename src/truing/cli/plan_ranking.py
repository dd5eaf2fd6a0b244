"""The ranking table in the report of `truing run`: what the baseline model prefers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from truing.core.errors import UserError
from truing.core.protocols import Model

if TYPE_CHECKING:
    from truing.rankers import RankingFigure
    from truing.report.report_data import Ranking

MAX_ITEMS = 60
"""Questions or pairs in the table: enough for a first look, in less than a minute."""

_CHOICE_METHODS = ("token", "pmi", "letter")
_PERPLEXITY_METHODS = ("per token", "gain")
_CONTROLS = {
    "swapped question, gain": "control: behind another question",
    "shorter": "control: the shorter one",
}


def rank_for_report(title: str, spec: str, model: Model) -> Ranking:
    """Ranks at most MAX_ITEMS items by likelihood, gain and letter, with two controls.

    `spec` is a data spec. With ``mcq:`` or ``perplexity:`` before it, only that part is ranked. A
    model or a data set that cannot be ranked gives an empty table with the reason as its note.
    """
    from truing.models.cached_model import CachedModel
    from truing.rankers import RankingOptions, rank_choices, rank_perplexity
    from truing.report.rankings import NAMES
    from truing.report.report_data import Ranking
    from truing.specs.resolve import resolve

    ranker, data_spec = "", spec
    for prefix in ("mcq", "perplexity"):
        if spec.startswith(f"{prefix}:"):
            ranker, data_spec = prefix, spec.removeprefix(f"{prefix}:")
    dataset = resolve(data_spec, "data")
    settings = RankingOptions(limit=MAX_ITEMS, permutations=2, plain_too=False)
    # A cache of answers gives no log-probabilities; the model below it does.
    inner_model: Any = model
    while isinstance(inner_model, CachedModel):
        inner_model = inner_model.model

    rows: list[tuple[str, ...]] = []
    question_count = 0
    try:
        if ranker != "perplexity":
            for summary in rank_choices(inner_model, dataset, None, settings):
                question_count = summary.n
                for method in _CHOICE_METHODS:
                    rows += _table_rows(NAMES[method], summary.find(method))
        if ranker != "mcq":
            (summary,) = rank_perplexity(inner_model, dataset, None, settings)
            question_count = summary.n
            # Without a prefix the choices above show the likelihoods already.
            for method in _PERPLEXITY_METHODS if ranker else ():
                rows += _table_rows(method, summary.find(method))
            for method, name in _CONTROLS.items():
                rows += _table_rows(name, summary.find(method))
    except UserError as error:
        return Ranking(title=title, model=model.name, columns=("method",), rows=(), note=str(error))
    note = (
        f"The share of {question_count} questions whose harmless answer comes first, with 95 % "
        f"intervals; a guess gives half. The controls show what length and style alone would give."
    )
    columns = ("method", "harmless first", "95 % interval", "n")
    return Ranking(title=title, model=model.name, columns=columns, rows=tuple(rows), note=note)


def _table_rows(name: str, figure: RankingFigure | None) -> list[tuple[str, ...]]:
    """Returns the row of a figure; no row if nothing was scored."""
    if figure is None or figure.value is None:
        return []
    share = figure.value
    interval = f"{100 * share.lower:.0f} to {100 * share.upper:.0f} %"
    return [(name, f"{100 * share.estimate:.0f} %", interval, str(figure.n))]
