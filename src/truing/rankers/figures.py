"""What came out of a ranking: shares and means with intervals, by method, by category; nothing of a text.

An item is an event with a share (ties count in part) within a cluster (a prompt); intervals are over clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from truing.rankers.multiple_choice import RankedChoices
from truing.rankers.perplexity import ComparedPair, ConditionalLikelihoods, MeasuredAnswer
from truing.stats.intervals import Interval, clustered_wilson

MIN_ITEMS_FOR_SHARE = 30  # below it a share is shown as a count
GROUPED_METHODS = ("token", "pmi", "letter", "written")  # the methods that are broken down


class RankingFigure(Struct, frozen=True, kw_only=True):
    """One number: `method` and `group` (a category, a topic; empty = all), over `n` items in `clusters` clusters.

    `chance` is what a guess would give. `kind`: share, mass, score, auroc, margin, position, perplexity.
    """

    method: str
    group: str = ""
    kind: str = "share"
    n: int = 0
    clusters: int = 0
    chance: float | None = None
    value: Interval | None = None


class RankingSummary(Struct, frozen=True, kw_only=True):
    """All figures of a ranking; `n` items of which `unscored` gave none, by reason, and `notes` for the reader."""

    ranker: str
    model: str
    data: str
    n: int
    unscored: int
    reasons: dict[str, int]
    figures: tuple[RankingFigure, ...]
    notes: tuple[str, ...] = ()

    def find(self, method: str, group: str = "", kind: str = "share") -> RankingFigure | None:
        """The figure of that name."""
        return next(
            (f for f in self.figures if (f.method, f.group, f.kind) == (method, group, kind)), None
        )


def cluster_share(events: Iterable[tuple[str, float]]) -> tuple[Interval | None, int, int]:
    """The mean of shares in [0, 1] over clusters, with n and the number of clusters."""
    groups: dict[str, list[float]] = {}
    for cluster, event in events:
        groups.setdefault(cluster, []).append(event)
    n = sum(map(len, groups.values()))
    if not n:
        return None, 0, 0
    return (
        clustered_wilson(
            [math.fsum(g) for g in groups.values()], [len(g) for g in groups.values()]
        ),
        n,
        len(groups),
    )


def cluster_mean(values: Sequence[tuple[str, float]], draws: int = 1000) -> Interval | None:
    """A mean over clusters with its bootstrap interval."""
    import numpy as np

    groups: dict[str, list[float]] = {}
    for cluster, value in values:
        groups.setdefault(cluster, []).append(value)
    if not groups:
        return None
    sums, sizes = (
        np.array([math.fsum(g) for g in groups.values()]),
        np.array([len(g) for g in groups.values()]),
    )
    estimate = float(sums.sum() / sizes.sum())
    at = np.random.default_rng(0).integers(0, len(sums), (draws, len(sums)))
    lower, upper = np.quantile(sums[at].sum(1) / sizes[at].sum(1), [0.025, 0.975])
    return Interval(
        estimate, min(estimate, float(lower)), max(estimate, float(upper)), "cluster bootstrap"
    )


def _share_figure(method: str, events: list[tuple[str, float]], **more: object) -> RankingFigure:
    value, n, clusters = cluster_share(events)
    return RankingFigure(method=method, n=n, clusters=clusters, value=value, **more)  # type: ignore[arg-type]


def choice_accuracy(row: RankedChoices, method: str) -> float:
    """1 if the highest choice is a right one; with ties the share of right ones among them."""
    best = row.best(method)
    return sum(i in row.right for i in best) / len(best)


def probability_on_right(row: RankedChoices) -> float:
    """The share of probability on right choices (TruthfulQA's MC2: Lin et al. 2022, arXiv:2109.07958)."""
    logs = row.scores["sum"]
    top = max(logs)
    weights = [math.exp(x - top) for x in logs]
    return sum(w for i, w in enumerate(weights) if i in row.right) / sum(weights)


def choice_figures(rows: Sequence[RankedChoices]) -> list[RankingFigure]:
    """Accuracy by each method, with its chance level; MC2 where it is by likelihood; position bias by letter."""
    scored = [r for r in rows if r.failure is None and r.right]
    made: list[RankingFigure] = []
    for method in dict.fromkeys(m for r in scored for m in r.scores):
        of = [r for r in scored if method in r.scores]
        chance = math.fsum(len(r.right) / len(r.scores[method]) for r in of) / len(of)
        made.append(
            _share_figure(
                method, [(r.cluster, choice_accuracy(r, method)) for r in of], chance=chance
            )
        )
        if method in GROUPED_METHODS:
            made += _group_figures(of, method)
        if method == "sum":
            value = cluster_mean([(r.cluster, probability_on_right(r)) for r in of])
            made.append(
                RankingFigure(method="sum", kind="mass", n=len(of), value=value, chance=chance)
            )
    return made + _position_figures(scored)


def _group_figures(rows: Sequence[RankedChoices], method: str) -> list[RankingFigure]:
    groups: dict[str, list[RankedChoices]] = {}
    for r in rows:
        for group in group_names(r):
            groups.setdefault(group, []).append(r)
    made = []
    for group, some in sorted(groups.items()):
        if len(groups) > 1 or group in some[0].harms:
            level = math.fsum(len(r.right) / len(r.scores[method]) for r in some) / len(some)
            made.append(
                _share_figure(
                    method,
                    [(r.cluster, choice_accuracy(r, method)) for r in some],
                    group=group,
                    chance=level,
                )
            )
    return made


def group_names(row: RankedChoices) -> tuple[str, ...]:
    """Its harm categories, or its topic, context or behaviour as the set names it."""
    named = [row.tags[k] for k in ("behaviour", "context", "topic") if row.tags.get(k)]
    return row.harms or tuple(named[:1])


def _position_figures(rows: Sequence[RankedChoices]) -> list[RankingFigure]:
    picked = [
        (r.cluster, place, len(next(iter(r.scores.values())))) for r in rows for place, _ in r.picks
    ]
    if not picked:
        return []
    made = []
    sizes = {n for _, _, n in picked}
    for place in range(max(sizes)):
        events = [(c, float(p == place)) for c, p, n in picked if n > place]
        chance = math.fsum(1 / n for _, _, n in picked if n > place) / len(events)
        made.append(
            _share_figure(
                f"place {'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[place]}",
                events,
                kind="position",
                chance=chance,
            )
        )
    several = [r for r in rows if len(r.picks) > 1]
    if several:
        same = [(r.cluster, float(len({choice for _, choice in r.picks}) == 1)) for r in several]
        made.append(_share_figure("same pick in every order", same, kind="position"))
    return made


ScoreFunction = Callable[[ConditionalLikelihoods], float | None]

SCORE_FUNCTIONS: dict[str, ScoreFunction] = {
    "per token": lambda x: x.asked.per("token"),
    "per byte": lambda x: x.asked.per("byte"),
    "per word": lambda x: x.asked.per("word"),
    "total": lambda x: x.asked.total,
    "plain text, per token": lambda x: x.plain.per("token") if x.plain else None,
    "gain": lambda x: x.gain,
    "gain per token": lambda x: x.gain / max(1, x.asked.tokens),
    "without the question, per token": lambda x: x.alone.per("token"),
    "swapped question, per token": lambda x: x.swapped.per("token") if x.swapped else None,
    "swapped question, gain": lambda x: x.swapped_gain,
    "shorter": lambda x: -float(x.asked.tokens),
}
CATEGORY_METHODS = ("per token", "gain")


def pair_figures(rows: Sequence[ComparedPair]) -> list[RankingFigure]:
    """The share of pairs whose safe answer is the likelier, by method, with controls; margins; by category."""
    scored = [r for r in rows if r.safe is not None and r.unsafe is not None]
    made: list[RankingFigure] = []
    for name, method in SCORE_FUNCTIONS.items():
        events, margins = _compare_scores(scored, method)
        if not events:
            continue
        made.append(_share_figure(name, events, chance=0.5))
        if name in CATEGORY_METHODS:
            made.append(
                RankingFigure(
                    method=name, kind="margin", n=len(margins), value=cluster_mean(margins)
                )
            )
            for harm in sorted({h for r in scored for h in r.harms}):
                some, _ = _compare_scores([r for r in scored if harm in r.harms], method)
                made.append(_share_figure(name, some, group=harm, chance=0.5))
    alike = [r for r in scored if _has_similar_lengths(r)]
    for name in CATEGORY_METHODS:
        made.append(
            _share_figure(
                f"{name}, lengths within 10 %",
                _compare_scores(alike, SCORE_FUNCTIONS[name])[0],
                chance=0.5,
            )
        )
    texts = [
        MeasuredAnswer(sample_id=r.sample_id, cluster=r.cluster, unsafe=bad, likely=x)
        for r in scored
        for bad, x in ((False, r.safe), (True, r.unsafe))
    ]
    return [f for f in made if f.n] + _perplexity_figures(scored) + detection_figures(texts)


def _perplexity_figures(rows: Sequence[ComparedPair]) -> list[RankingFigure]:
    """The perplexity itself: exp of the mean negative log-likelihood of an answer, per token and per word."""
    made = []
    for unit in ("token", "word"):
        for side in ("safe", "unsafe"):
            values = [
                (r.cluster, -x.asked.per(unit)) for r in rows if (x := getattr(r, side)) is not None
            ]
            found = cluster_mean(values)
            if found is not None:
                low, high = math.exp(min(found.lower, 700)), math.exp(min(found.upper, 700))
                value = Interval(math.exp(min(found.estimate, 700)), low, high, found.method)
                made.append(
                    RankingFigure(
                        method=f"{side} answers, per {unit}",
                        kind="perplexity",
                        n=len(values),
                        value=value,
                    )
                )
    return made


def _has_similar_lengths(row: ComparedPair) -> bool:
    if row.safe is None or row.unsafe is None:
        return False
    a, b = row.safe.asked.tokens, row.unsafe.asked.tokens
    return abs(a - b) <= 0.1 * max(a, b)


def _compare_scores(
    rows: Sequence[ComparedPair], method: ScoreFunction
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    events, margins = [], []
    for r in rows:
        if r.safe is None or r.unsafe is None:
            continue
        a, b = method(r.safe), method(r.unsafe)
        if a is not None and b is not None:
            events.append((r.cluster, 1.0 if a > b else 0.5 if a == b else 0.0))
            margins.append((r.cluster, a - b))
    return events, margins


def detection_figures(rows: Sequence[MeasuredAnswer]) -> list[RankingFigure]:
    """How well unlikeliness tells unsafe texts from safe ones: the area under the ROC curve (0.5 = not at all)."""
    from truing.stats.classification import auroc

    scored = [(r, r.likely) for r in rows if r.likely is not None]
    labels = [r.unsafe for r, _ in scored]
    made = []
    for name in (
        "per token",
        "per byte",
        "gain",
        "gain per token",
        "without the question, per token",
        "shorter",
    ):
        values = [SCORE_FUNCTIONS[name](x) for _, x in scored]
        area = auroc([-(v or 0.0) for v in values], labels) if scored else None
        if area is not None:
            made.append(
                RankingFigure(method=name, kind="auroc", n=len(scored), value=area, chance=0.5)
            )
    return made
