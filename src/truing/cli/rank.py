"""`truing rank mcq|perplexity|by|report`: which of several answers a model (or a judge) prefers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from cyclopts import Parameter
from msgspec.structs import replace

from truing.cli.card import describe_graded_agreement, format_interval
from truing.cli.parameters import Flag, OptionalStrings, resolve_all
from truing.cli.ray_flags import RayFlags
from truing.cli.tables import print_json, print_text
from truing.core.errors import DataError, UserError
from truing.core.protocols import Judge
from truing.core.types import Dimension

if TYPE_CHECKING:
    from truing.analysis.judge_card import JudgeCard
    from truing.rankers import RankingFigure, RankingOptions, RankingSummary
    from truing.rankers.item_ranking import MapItems

DEFAULT_METHODS = ("likelihood", "letter")
# The value of --dimension -> that of the rankers; None: by the judge's question.
_DIMENSIONS: dict[str, Dimension | None] = {"": None, "safe": "safe", "helpful": "helpful"}


@Parameter(name="*")
@dataclass(frozen=True)
class RankFlags:
    """How to ask.

    Parameters
    ----------
    limit
        Use only the first LIMIT questions or pairs.
    seed
        Draw them at random with this seed instead (sets are often sorted).
    plain
        Ask as plain text ("Question: ... Answer:"), not through the model's chat template.
    primer
        A file of worked examples to put before each question; implies --plain.
    permutations
        Maximum orders of the options when the model answers by letter (default: all rotations).
    shard_items
        With --on: questions or pairs that one worker ranks at a time.
    """

    limit: int | None = None
    seed: int | None = None
    plain: Flag = False
    primer: Path | None = None
    permutations: int = 26
    shard_items: int = 64
    ray: RayFlags = field(default_factory=RayFlags)

    def open_workers(self, model: str) -> AbstractContextManager[MapItems | None]:
        """Returns what ranks items on a cluster by a model's spec, or None without --on."""
        if not self.ray.on:
            return nullcontext()
        from truing.bulk.rank_on_ray import open_ranking_workers

        return open_ranking_workers(model, self.ray.options, shard_items=self.shard_items)

    def settings(self, methods: Sequence[str] = DEFAULT_METHODS) -> RankingOptions:
        """Returns the settings of the rankers; raises UserError for a value out of range."""
        from truing.core.input_files import describe_unreadable, read_input_text
        from truing.rankers import PromptForm, RankingOptions

        if self.permutations < 1 or (self.limit is not None and self.limit < 1):
            raise UserError("--permutations and --limit must be 1 or more")
        primer = ""
        if self.primer is not None:
            try:
                primer = read_input_text(self.primer)
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{self.primer}: {describe_unreadable(error)}") from error
        return RankingOptions(
            how=tuple(methods),
            form=PromptForm(plain=self.plain or self.primer is not None, primer=primer),
            permutations=self.permutations,
            limit=self.limit,
            seed=self.seed,
        )


def mcq(
    *,
    model: str,
    data: str,
    out: Path,
    by: OptionalStrings = None,
    flags: RankFlags | None = None,
    json: Flag = False,
) -> int:
    """Multiple choice, or "which response is harmless?" for pairs: accuracy by several methods.

    The same command continues an interrupted run.

    Parameters
    ----------
    model
        Spec of the model, such as local:smollm2.
    data
        Spec of the data: truthfulqa:, bbq:, model-written:, safetybench:, safetext:, builtin:pairs,
        or pairs.
    out
        The run folder.
    by
        likelihood, letter, or generation (for endpoints without log-probabilities); several may be
        given.
    json
        Print the result as JSON.
    """
    from truing.cli.progress import ProgressBar
    from truing.rankers import rank_choices

    flags = flags or RankFlags()
    settings = flags.settings(by or DEFAULT_METHODS)
    target, dataset = resolve_all([(model, "model"), (data, "data")])
    with (
        flags.open_workers(model) as map_items,
        ProgressBar("ranking", quiet=json) as progress,
    ):
        summaries = rank_choices(target, dataset, out, settings, progress, map_items)
    return _report_summaries(summaries, out, as_json=json)


def perplexity(
    *, model: str, data: str, out: Path, flags: RankFlags | None = None, json: Flag = False
) -> int:
    """The perplexity of safe and unsafe answers, with controls that separate safety from style.

    The same command continues an interrupted run.

    Parameters
    ----------
    model
        Spec of a model that gives log-probabilities, such as local:smollm2.
    data
        Spec of the data: pku:, hh:, beavertails:, safetext:, real-toxicity:, builtin:pairs,
        file:PAIRS.jsonl.
    out
        The run folder.
    json
        Print the result as JSON.
    """
    from truing.cli.progress import ProgressBar
    from truing.rankers import rank_perplexity

    flags = flags or RankFlags()
    settings = flags.settings()
    target, dataset = resolve_all([(model, "model"), (data, "data")])
    with (
        flags.open_workers(model) as map_items,
        ProgressBar("ranking", quiet=json) as progress,
    ):
        summaries = rank_perplexity(target, dataset, out, settings, progress, map_items)
    return _report_summaries(summaries, out, as_json=json)


def by(
    run: Path,
    /,
    *,
    judge: str,
    every: Flag = False,
    dimension: str = "",
    card: Path | None = None,
    json: Flag = False,
) -> int:
    """Orders the answers of a run by a judge, and writes them as preferences.

    Parameters
    ----------
    run
        A run folder with several answers to each sample (evaluate --n).
    judge
        Spec of the judge.
    every
        Write a preference for every two ordered answers, not only for the best over the worst.
    dimension
        safe or helpful. Default: by the judge's question.
    card
        The judge's card (from `truing card`), to be shown with the result.
    json
        Print the result as JSON.
    """
    from truing.cli.progress import ProgressBar
    from truing.rankers.run_ranking import rank_run
    from truing.specs.resolve import resolve

    if dimension not in _DIMENSIONS:
        raise UserError(f"--dimension {dimension!r}: must be safe or helpful")
    resolved_judge: Judge = resolve(judge, "judge")
    judge_card = _read_matching_card(resolved_judge, card) if card else None
    with ProgressBar("judging", quiet=json) as progress:
        ranking = rank_run(
            run,
            resolved_judge,
            dimension=_DIMENSIONS[dimension],
            all_pairs=every,
            on_progress=progress,
        )
    if json:
        fields = msgspec.to_builtins(ranking)
        if judge_card is not None:
            fields["card"] = msgspec.to_builtins(judge_card)
        print_json(msgspec.json.encode(fields))
        return 0
    print_text(f"{run}: {ranking.ordered} of {ranking.samples} samples in order by {ranking.judge}")
    print_text(f"  {ranking.preferences} preferences in {ranking.file}")
    for figure in ranking.figures:
        print_text(f"  {figure.method:<28} {_format_figure(figure)}")
    if judge_card is not None:
        print_text(f"  {judge_card.judge} by its card {card}: {_describe_card(judge_card)}")
    elif ranking.figures:
        print_text(
            f"  no card of {ranking.judge} is given: its agreement with people is unknown "
            f"(truing card, --card)"
        )
    return 0 if ranking.ordered else 1


def report(*runs: Path, out: Path = Path("rankings"), title: str = "Preference ranking") -> int:
    """Writes the rankings of several data sets (or models) on one page.

    Parameters
    ----------
    runs
        Run folders that `rank mcq` or `rank perplexity` wrote.
    out
        Folder for report.html and report.md.
    title
        Title of the page.
    """
    from truing.rankers.ranking import read_summaries
    from truing.report import rankings

    if not runs:
        raise UserError("rank report: give the run folders whose rankings the page is to show")
    summaries = [summary for run in runs for summary in read_summaries(run)]
    page = rankings.write_rankings(summaries, out, title)
    print_text(f"report: {page}  (also .md)")
    return 0


def _read_matching_card(judge: Judge, path: Path) -> JudgeCard:
    """Reads the judge's card; raises DataError if it is of another judge or version."""
    from truing.analysis.card_files import read_card
    from truing.analysis.judge_card import CardLineage
    from truing.analysis.transport import check_card_matches
    from truing.runs.folder import JudgeRecord

    card = read_card(path)
    if card.judge != judge.name:
        raise DataError(f"{path}: the card is of {card.judge}, the judge is {judge.name}")
    record = JudgeRecord(name=judge.name, question=judge.question, file="", lineage=judge.lineage)
    # A card against labels of another question is good enough here: it only describes the judge.
    check_card_matches(replace(card, against=""), record, path)
    # Its prompt hashes (the training data) would fill the output.
    lineage = CardLineage(base=card.lineage.base, base_sha256=card.lineage.base_sha256)
    return replace(card, lineage=lineage)


def _describe_card(card: JudgeCard) -> str:
    """Describes in one line how the judge agrees with the labels of its card."""
    question = next(iter(card.questions.values()))
    if question.graded is not None:
        agreement = describe_graded_agreement(question.graded)
    else:
        agreement = f"AUROC {format_interval(question.auroc)}"
    return (
        f"against {card.against or 'people'} ({', '.join(card.raters)}) on {card.data}; {agreement}"
    )


def _report_summaries(summaries: Sequence[RankingSummary], out: Path, *, as_json: bool) -> int:
    """Writes the report, prints the figures; returns 1 if a ranker could score nothing, else 0."""
    from truing.report import rankings

    rankings.write_rankings(summaries, out)
    if as_json:
        print_json(msgspec.json.encode(list(summaries)))
    else:
        for summary in summaries:
            _print_summary(summary)
        print_text(
            f"\nrows: {out / 'rankings'}  figures: {out / 'ranking.json'}  "
            f"report: {out / 'report.html'}"
        )
    # A model without log-probabilities, or one whose every call failed.
    empty = [summary for summary in summaries if summary.n and summary.unscored == summary.n]
    for summary in empty:
        reason = next(iter(summary.reasons))
        print_text(f"truing: {summary.ranker}: nothing could be scored: {reason}", file=sys.stderr)
    return 1 if empty else 0


def _print_summary(summary: RankingSummary) -> None:
    from truing.report import rankings

    print_text(
        f"\n{summary.ranker} · {summary.model} · {summary.data} · {summary.n} items, "
        f"{summary.unscored} unscored"
    )
    for figure in summary.figures:
        kind = "" if figure.kind == "share" else f" ({figure.kind})"
        print_text(f"  {rankings.figure_label(figure) + kind:<62} {_format_figure(figure)}")
    for reason, count in summary.reasons.items():
        print_text(f"  unscored: {count} x {reason}")
    for note in summary.notes:
        print_text(f"  note: {note}")


def _format_figure(figure: RankingFigure) -> str:
    from truing.report import rankings

    estimate, interval, guess = rankings.format_figure(figure)
    parts = [f"{estimate:>9}"]
    if interval:
        parts.append(f"[{interval}]")
    if guess:
        parts.append(f"guess {guess}")
    parts.append(f"n {figure.n}")
    return "  ".join(parts)
