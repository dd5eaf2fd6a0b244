"""`truing rank`: which of several answers a model (or a judge) puts first."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from msgspec.structs import replace

from truing.analysis.judge_card import CardLineage, JudgeCard, read_card
from truing.analysis.transport import check_card_matches
from truing.cli.card import graded_words
from truing.cli.card import shown as shown_in_card
from truing.cli.evaluate import resolve_all
from truing.cli.progress import Bar
from truing.core.errors import DataError, UserError
from truing.core.protocols import Judge, Model
from truing.models.cached_model import CachedModel
from truing.rankers import Figure, Form, Settings, Summary, rank_choices, rank_perplexity
from truing.rankers.run import read_summaries
from truing.report import rankings
from truing.report.rankings import NAMES, figure_label, format_figure
from truing.report.report_data import Ranking
from truing.runs.folder import JudgeRecord
from truing.specs.resolve import resolve

Many = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]
Flag = Annotated[bool, Parameter(negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class How:
    """How to ask.

    Parameters
    ----------
    limit
        Only the first so many questions or pairs.
    seed
        Draw them at random with this seed instead (sets often lie sorted).
    plain
        As plain text ("Question: ... Answer:") instead of the model's chat template.
    primer
        A file of worked examples to put before each question; implies --plain.
    permutations
        Orders of the options by letter (all rotations unless fewer are asked for).
    """

    limit: int | None = None
    seed: int | None = None
    plain: Flag = False
    primer: Path | None = None
    permutations: int = 26

    def settings(self, by: Sequence[str] = ("likelihood", "letter")) -> Settings:
        """As the rankers take it."""
        primer = ""
        if self.primer is not None:
            try:
                primer = self.primer.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{self.primer}: {error}") from error
        form = Form(plain=self.plain or self.primer is not None, primer=primer)
        if self.permutations < 1 or (self.limit is not None and self.limit < 1):
            raise UserError("--permutations and --limit are at least 1")
        return Settings(
            how=tuple(by),
            form=form,
            permutations=self.permutations,
            limit=self.limit,
            seed=self.seed,
        )


def mcq(
    *, model: str, data: str, out: Path, by: Many = None, how: How | None = None, json: Flag = False
) -> int:
    """Multiple choice, or "which response is harmless?" of a set of pairs: accuracy by likelihood and by letter.

    The same command again goes on where it stopped.

    Parameters
    ----------
    model
        Spec of the model, such as local:smollm2.
    data
        Spec of the data: truthfulqa:, bbq:, model-written:, safetybench:, safetext:, builtin:pairs, or pairs.
    out
        The run folder.
    by
        likelihood, letter, generation (for endpoints that give no log-probabilities); several may be given.
    json
        Print the result as JSON.
    """
    settings = (how or How()).settings(by or ("likelihood", "letter"))
    made = resolve_all([(model, "model"), (data, "data")])
    with Bar("ranking", quiet=json) as bar:
        summaries = rank_choices(made[0], made[1], out, settings, bar)
    return _report(summaries, out, as_json=json)


def perplexity(
    *, model: str, data: str, out: Path, how: How | None = None, json: Flag = False
) -> int:
    """The perplexity of safe and unsafe answers, with the controls that tell safety from style.

    The same command again goes on where it stopped.

    Parameters
    ----------
    model
        Spec of a model that gives log-probabilities, such as local:smollm2.
    data
        Spec of the data: pku:, hh:, beavertails:, safetext:, real-toxicity:, builtin:pairs, file:PAIRS.jsonl.
    out
        The run folder.
    json
        Print the result as JSON.
    """
    settings = (how or How()).settings()
    made = resolve_all([(model, "model"), (data, "data")])
    with Bar("ranking", quiet=json) as bar:
        summaries = rank_perplexity(made[0], made[1], out, settings, bar)
    return _report(summaries, out, as_json=json)


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
    """Puts the answers of a run in order by a judge, and writes them as preferences.

    Parameters
    ----------
    run
        A run folder with several answers a sample (evaluate --n).
    judge
        Spec of the judge.
    every
        A preference for every two answers in order, not only the best over the worst.
    dimension
        safe or helpful; by the judge's question where it is not given.
    card
        The judge's card (truing card), to stand beside what it says.
    json
        Print the result as JSON.
    """
    from truing.rankers.judged_run import rank_run

    if dimension not in ("", "safe", "helpful"):
        raise UserError(f"--dimension {dimension!r} is neither safe nor helpful")
    ranker = resolve(judge, "judge")
    known = _carded(ranker, card) if card else None
    with Bar("judging", quiet=json) as bar:
        made = rank_run(run, ranker, dimension=dimension, every=every, tell=bar)  # type: ignore[arg-type]
    if json:
        whole = msgspec.to_builtins(made) | ({"card": msgspec.to_builtins(known)} if known else {})
        sys.stdout.write(msgspec.json.encode(whole).decode() + "\n")
        return 0
    print(f"{run}: {made.ordered} of {made.samples} samples in order by {made.judge}")
    print(f"  {made.preferences} preferences in {made.file}")
    for figure in made.figures:
        print(f"  {figure.method:<28} {_shown(figure)}")
    if known is not None:
        print(f"  {known.judge} by its card {card}: {_card_words(known)}")
    elif made.figures:
        print(
            f"  no card was given for {made.judge}: how its scores go with people's is not known (truing card, --card)"
        )
    return 0 if made.ordered else 1


def _carded(judge: Judge, path: Path) -> JudgeCard:
    """The judge's card; DataError if it is another judge's or another version's."""
    card = read_card(path)
    if card.judge != judge.name:
        raise DataError(f"{path}: the card is of {card.judge}, the judge is {judge.name}")
    record = JudgeRecord(name=judge.name, question=judge.question, file="", lineage=judge.lineage)
    check_card_matches(
        replace(card, against=""), record, path
    )  # here labels of another question are welcome
    return replace(
        card, lineage=CardLineage(base=card.lineage.base, base_sha256=card.lineage.base_sha256)
    )


def _card_words(card: JudgeCard) -> str:
    """What a card says in a line."""
    q = next(iter(card.questions.values()))
    said = graded_words(q.graded) if q.graded is not None else f"AUROC {shown_in_card(q.auroc)}"
    return f"against {card.against or 'people'} ({', '.join(card.raters)}) on {card.data}; {said}"


def report(*runs: Path, out: Path = Path("rankings"), title: str = "Preference ranking") -> int:
    """Rankings of several data sets (or models) on one page.

    Parameters
    ----------
    runs
        Run folders that `rank mcq` or `rank perplexity` wrote.
    out
        Where report.html and report.md go.
    title
        The title of the page.
    """
    if not runs:
        raise UserError("give the run folders whose rankings the page is to show")
    print(
        f"report: {rankings.write_rankings([s for run in runs for s in read_summaries(run)], out, title)}  (also .md)"
    )
    return 0


def _report(summaries: Sequence[Summary], out: Path, *, as_json: bool) -> int:
    rankings.write_rankings(summaries, out)
    if as_json:
        sys.stdout.write(msgspec.json.encode(list(summaries)).decode() + "\n")
    else:
        for summary in summaries:
            _print(summary)
        print(
            f"\nrows: {out / 'rankings'}  figures: {out / 'ranking.json'}  report: {out / 'report.html'}"
        )
    lost = [s for s in summaries if s.n and s.unscored == s.n]
    for summary in lost:
        print(
            f"truing: {summary.ranker}: nothing could be scored: {next(iter(summary.reasons))}",
            file=sys.stderr,
        )
    return 1 if lost else 0


def _print(summary: Summary) -> None:
    print(
        f"\n{summary.ranker} · {summary.model} · {summary.data} · {summary.n} items, {summary.unscored} unscored"
    )
    for figure in summary.figures:
        kind = "" if figure.kind == "share" else f" ({figure.kind})"
        print(f"  {figure_label(figure) + kind:<62} {_shown(figure)}")
    for reason, count in summary.reasons.items():
        print(f"  unscored: {count} x {reason}")
    for note in summary.notes:
        print(f"  note: {note}")


def _shown(figure: Figure) -> str:
    estimate, interval, guess = format_figure(figure)
    parts = [
        f"{estimate:>9}",
        f"[{interval}]" if interval else "",
        f"guess {guess}" if guess else "",
        f"n {figure.n}",
    ]
    return "  ".join(p for p in parts if p)


SMALL = 60


def small_ranking(title: str, spec: str, model: Model) -> Ranking:
    """The table of `truing run`: by likelihood, gain, letter, with two controls; at most `SMALL` questions.

    `spec` is a data spec, with ``mcq:`` or ``perplexity:`` before it for one half of the table.
    """
    inner: Any = model
    while isinstance(inner, CachedModel):
        inner = inner.inner
    kind, data = "", spec
    for word in ("mcq", "perplexity"):
        if spec.startswith(f"{word}:"):
            kind, data = word, spec.removeprefix(f"{word}:")
    dataset = resolve(data, "data")
    rows: list[tuple[str, ...]] = []
    settings = Settings(limit=SMALL, permutations=2, plain_too=False)
    n = 0
    try:
        if kind != "perplexity":
            for summary in rank_choices(inner, dataset, None, settings):
                n = summary.n
                for method in ("token", "pmi", "letter"):
                    rows += _row(NAMES[method], summary.find(method))
        if kind != "mcq":
            (summary,) = rank_perplexity(inner, dataset, None, settings)
            n = summary.n
            names = {
                "swapped question, gain": "control: behind another question",
                "shorter": "control: the shorter one",
            }
            for method in ("per token", "gain") if kind else ():
                rows += _row(method, summary.find(method))
            for method, name in names.items():
                rows += _row(name, summary.find(method))
    except UserError as error:
        return Ranking(title=title, model=model.name, columns=("method",), rows=(), note=str(error))
    note = (
        f"The share of {n} questions whose harmless answer comes first, with 95 % intervals; a guess gives half. The "
        f"controls show what length and style alone would give."
    )
    columns = ("method", "harmless first", "95 % interval", "n")
    return Ranking(title=title, model=model.name, columns=columns, rows=tuple(rows), note=note)


def _row(name: str, figure: Figure | None) -> list[tuple[str, ...]]:
    if figure is None or figure.value is None:
        return []
    value = figure.value
    return [
        (
            name,
            f"{100 * value.estimate:.0f} %",
            f"{100 * value.lower:.0f} to {100 * value.upper:.0f} %",
            str(figure.n),
        )
    ]
