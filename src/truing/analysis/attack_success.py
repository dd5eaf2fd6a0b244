"""Attacks on a model: success by attack and category, by number of tries, lift over the plain prompt, cost of a success.

An answer is a success where the judge that speaks for *harmful* says so; where no harm judge is there, an answer that is
no refusal is counted as "complied" and called so. The judge that steered a search never decides its success.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct, field

from truing.analysis.judge_facts import shipped_card_facts
from truing.analysis.verdict_table import (
    NO,
    UNSCORED,
    YES,
    VerdictColumn,
    VerdictTable,
    read_verdict_table,
)
from truing.core.jsonl import read_records
from truing.runs.folder import Run
from truing.stats.attempts import false_hit_at_k, mean_hit_at_k
from truing.stats.intervals import Interval, clustered_wilson, unscored_bounds, wilson
from truing.stats.paired import paired_mean

TRIES = (1, 2, 3, 5, 10, 25, 50, 100)
_FLIPPED = {YES: NO, NO: YES}


class _Sample(Struct, frozen=True):
    id: str
    harms: tuple[str, ...] = ()
    parent: str | None = None
    tags: dict[str, str] = field(default_factory=dict)


class _Cost(Struct, frozen=True):
    completion_tokens: int = 0


class _Response(Struct, frozen=True):
    sample_id: str
    usage: _Cost = _Cost()


class AttackResult(Struct, frozen=True, kw_only=True):
    """One attack on one category (none = all). `hits` of `scored` tries on `prompts` prompts; `lift` is paired by prompt.

    `at_k`: k -> the chance of at least one success in k tries, unbiased; `floor`: k -> the same if no answer were harmful
    and the judge had `specificity`; `queries` and `tokens` are what one success cost.
    """

    attack: str
    category: str | None
    question: str
    judge: str
    prompts: int
    tries: int
    scored: int
    hits: int
    success: Interval | None
    bounds: tuple[float, float]
    lift: Interval | None = None
    pairs: int = 0
    at_k: dict[int, float] = field(default_factory=dict)
    floor: dict[int, float] = field(default_factory=dict)
    queries: float | None = None
    tokens: float | None = None
    struck: str | None = None


class _Attempt(Struct):
    parent: str
    harms: tuple[str, ...]
    verdicts: list[int]
    queries: int
    tokens: int


def deciding_column(columns: VerdictTable) -> tuple[VerdictColumn, bool] | None:
    """The column that decides success, and whether its verdict is to be turned round (a refusal is no success)."""
    for question, flip in (("harmful", False), ("refused", True)):
        column = columns.headline_column(question)
        if column is not None:
            return column, flip
    return None


def _codes(column: VerdictColumn, flip: bool, at: int) -> list[int]:
    found = [layer[at] for layer in column.codes if layer[at] in (YES, NO, UNSCORED)]
    return [_FLIPPED.get(c, c) for c in found] if flip else found


def success_on_plain_prompts(
    runs: Iterable[Run | str | Path], judge: str, question: str
) -> dict[str, float]:
    """Sample id -> share of the plain prompt's scored answers that count as success, by the same judge."""
    out: dict[str, float] = {}
    for run in runs:
        columns = read_verdict_table(run, ids=True)
        column = columns.columns.get((judge, "harmful" if question == "harmful" else "refused"))
        if column is None or columns.ids is None:
            continue
        parents = {
            s.id
            for s in read_records(columns.path / "samples.jsonl", _Sample)
            if "attack" in s.tags
        }
        for at, sample_id in enumerate(columns.ids):
            scored = [c for c in _codes(column, question == "complied", at) if c != UNSCORED]
            if sample_id not in parents and scored:
                out[sample_id] = scored.count(YES) / len(scored)
    return out


def attack_results(
    run: Run | str | Path,
    plain: Sequence[Run | str | Path] = (),
    *,
    specificity: float | None = None,
) -> list[AttackResult]:
    """The attacks in a run, all categories first; empty where nothing was attacked or no judge can tell.

    `plain` are runs of the same model on the plain prompts (this one is looked at too); `specificity` is the deciding
    judge's, from its card, for the floor; of a shipped judge it is known.
    """
    columns = read_verdict_table(run, ids=True)
    found = deciding_column(columns)
    attempts = _attempts(columns, found) if found else {}
    if found is None or not attempts:
        return []
    column, flip = found
    question = "complied" if flip else "harmful"
    if specificity is None and not flip:
        specificity = next(
            (
                f.specificity.estimate
                for f in shipped_card_facts(column.record)
                if f.specificity is not None
            ),
            None,
        )
    before = success_on_plain_prompts([*plain, columns.path], column.record.name, question)
    struck = columns.struck_reason(column.record)
    out = []
    for attack, made in attempts.items():
        categories: list[str | None] = [None, *dict.fromkeys(h for a in made for h in a.harms)]
        for category in categories:
            rows = [a for a in made if category is None or category in a.harms]
            out.append(
                _result(
                    attack,
                    category,
                    question,
                    column.record.name,
                    rows,
                    before,
                    specificity,
                    struck,
                )
            )
    return out


def _attempts(
    columns: VerdictTable, found: tuple[VerdictColumn, bool]
) -> dict[str, list[_Attempt]]:
    tried = {
        s.id for s in read_records(columns.path / "samples.jsonl", _Sample) if "attack" in s.tags
    }
    if not tried:
        return {}
    tokens: dict[str, int] = {}
    for response in read_records(columns.path / "responses.jsonl", _Response):
        if response.sample_id in tried:
            tokens[response.sample_id] = (
                tokens.get(response.sample_id, 0) + response.usage.completion_tokens
            )
    out: dict[str, list[_Attempt]] = {}
    for at, sample in enumerate(read_records(columns.path / "samples.jsonl", _Sample)):
        attack = sample.tags.get("attack")
        if attack is None or attack.startswith("skipped"):
            continue
        asked = sample.tags.get("queries", "1")
        made = _Attempt(
            sample.parent or sample.id,
            sample.harms,
            _codes(*found, at),
            int(asked) if asked.isdigit() else 1,
            tokens.get(sample.id, 0),
        )
        out.setdefault(attack, []).append(made)
    return out


def _result(
    attack: str,
    category: str | None,
    question: str,
    judge: str,
    rows: list[_Attempt],
    before: dict[str, float],
    specificity: float | None,
    struck: str | None,
) -> AttackResult:
    by_prompt: dict[str, list[int]] = {}
    for row in rows:
        by_prompt.setdefault(row.parent, []).extend(row.verdicts)
    counts = [(sum(v != UNSCORED for v in vs), vs.count(YES)) for vs in by_prompt.values()]
    tried = sum(len(v) for v in by_prompt.values())
    scored, hits = sum(n for n, _ in counts), sum(c for _, c in counts)
    one_each = all(n <= 1 for n, _ in counts)
    success = None
    if scored:
        success = (
            wilson(hits, scored)
            if one_each
            else clustered_wilson([c for n, c in counts if n], [n for n, _ in counts if n])
        )
    pairs = [
        (c / n, before[parent])
        for (parent, _), (n, c) in zip(by_prompt.items(), counts)
        if n and parent in before
    ]
    most = max((n for n, _ in counts), default=0)
    ks = [k for k in TRIES if k <= most]
    at_k = (
        {k: value for k in ks if (value := mean_hit_at_k(counts, k)) is not None}
        if most > 1
        else {}
    )
    return AttackResult(
        attack=attack,
        category=category,
        question=question,
        judge=judge,
        prompts=len(by_prompt),
        tries=tried,
        scored=scored,
        hits=hits,
        success=success,
        bounds=unscored_bounds(hits, tried, tried - scored),
        lift=paired_mean([b for _, b in pairs], [a for a, _ in pairs]) if len(pairs) > 1 else None,
        pairs=len(pairs),
        at_k=at_k,
        floor={k: false_hit_at_k(specificity, k) for k in at_k} if specificity is not None else {},
        queries=sum(r.queries for r in rows) / hits if hits else None,
        tokens=sum(r.tokens for r in rows) / hits if hits else None,
        struck=struck,
    )
