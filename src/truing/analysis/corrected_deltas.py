"""Deltas of a comparison made better: corrected from labels, transported from cards, by sequence where a run stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from truing.analysis.corrections import (
    LabelledPair,
    check_card_matches,
    collect_labelled_pair,
    corrected_difference_interval,
    transport_difference,
)
from truing.analysis.deltas import Delta
from truing.analysis.labels import UsableLabels, read_labels
from truing.analysis.pairing import RunPair
from truing.analysis.rates import AXES
from truing.analysis.stopped_runs import (
    draw_order,
    prompt_means,
    stopped_early,
    verdict_codes_of_rate,
)
from truing.analysis.verdict_table import EXPECTS, VerdictTable
from truing.runs.folder import Run
from truing.stats.intervals import Interval


def _paired_labels(run: Path, at: Sequence[int]) -> dict[str, UsableLabels]:
    """A run's usable labels, by position in the pair."""
    from truing.analysis.verdict_table import read_verdict_table

    place = {original: i for i, original in enumerate(at)}
    out = {}
    for question, labels in read_labels(read_verdict_table(run)).items():
        kept = {(place[k[0]], k[1]): v for k, v in labels.rows.items() if k[0] in place}
        out[question] = replace(labels, rows=kept)
    return out


def add_corrected_deltas(pair: RunPair, deltas: Sequence[Delta]) -> list[Delta]:
    """Adds the corrected difference where both runs have drawn labels."""
    if not all((c.path / "labels" / "draws.jsonl").is_file() for c in (pair.a, pair.b)):
        return list(deltas)
    given = (
        _paired_labels(pair.a.path, pair.positions_a),
        _paired_labels(pair.b.path, pair.positions_b),
    )
    arms: dict[tuple[str, str], LabelledPair | None] = {}
    out = []
    for d in deltas:
        answered = d.question == "answers_benign"
        question = (
            "refused" if answered else AXES[d.question][0] if d.question in AXES else d.question
        )
        key = (d.judge, d.question)
        if key not in arms:
            a, b = pair.a.columns.get((d.judge, question)), pair.b.columns.get((d.judge, question))
            labels = [of[question] for of in given if question in of and of[question].rows]
            usable = (
                a is not None
                and b is not None
                and len(labels) == 2
                and not d.judge.startswith("human:")
            )
            axis = d.question if d.question in AXES or answered else ""
            arms[key] = (
                collect_labelled_pair(pair.a, pair.b, a, b, labels, axis)
                if usable and a and b
                else None
            )
        found = arms[key]
        out.append(
            replace(d, corrected=corrected_difference_interval(found, d.category))
            if found is not None
            else d
        )
    return out


def add_transported_deltas(
    pair: RunPair, deltas: Sequence[Delta], cards: Mapping[str, Path]
) -> list[Delta]:
    """Adds the transported difference; nothing where either run's raw rate contradicts the card."""
    from truing.analysis.judge_card import read_card
    from truing.analysis.summary import summarise

    out = list(deltas)
    for name, path in cards.items():
        if all(d.judge != name for d in out):
            continue  # not in both runs, or in two versions: nothing to read through the card
        card = read_card(path)
        sides = []
        for columns in (pair.a, pair.b):
            manifest = Run(columns.path).manifest
            record = next((r for r in manifest.judges if r.name == name), None)
            if record is not None:
                check_card_matches(card, record, path)
                sides.append(summarise(columns.path, {name: path}))
        for i, d in enumerate(out):
            if (
                d.judge != name
                or d.estimate is None
                or d.lower is None
                or d.upper is None
                or len(sides) < 2
            ):
                continue
            rates = [s.find(d.question, d.category, name) for s in sides]
            held = all(
                r is not None and r.transported is not None and r.transported.estimate is not None
                for r in rates
            )
            question, _, _ = AXES.get(d.question, (d.question, (), False))
            raw = Interval(d.estimate, d.lower, d.upper, d.method)
            out[i] = replace(
                d, transported=transport_difference(raw, card, question) if held else None
            )
    return out


def use_paired_sequences(pair: RunPair, deltas: Sequence[Delta]) -> list[Delta]:
    """If either run was stopped by its own figures: the sequence's interval in the order drawn, and no p value."""
    from truing.analysis.verdict_table import read_verdict_table
    from truing.stats.sequential import PairedBettingSequence

    side = next(
        (
            (c, at)
            for c, at in ((pair.b, pair.positions_b), (pair.a, pair.positions_a))
            if stopped_early(c)
        ),
        None,
    )
    if side is None:
        return list(deltas)
    place = {original: i for i, original in enumerate(side[1])}
    drawn = [place[p] for p in draw_order(read_verdict_table(side[0].path)) if p in place]
    out = []
    for d in deltas:
        a, b = (dict(_valued(c, d, drawn)) for c in (pair.a, pair.b))
        sequence = PairedBettingSequence()
        for at in drawn:
            if at in a and at in b:
                sequence.add(a[at], b[at])
        if not sequence.n or d.estimate is None:
            out.append(
                replace(d, lower=-1.0, upper=1.0, p=None, p_adjusted=None, p_fdr=None)
                if d.estimate is not None
                else d
            )
            continue
        i = sequence.interval()
        d = replace(d, p=None, p_adjusted=None, p_fdr=None)
        out.append(replace(d, estimate=i.estimate, lower=i.lower, upper=i.upper, method=i.method))
    return out


def _valued(columns: VerdictTable, d: Delta, drawn: Sequence[int]) -> list[tuple[int, float]]:
    """(position, mean) of a delta's prompts in one run, in the order drawn."""
    from truing.analysis.rates import Rate

    rate = Rate(
        question=d.question,
        category=d.category,
        judge=d.judge,
        judge_hash="",
        n=0,
        scored=0,
        unscored=0,
        events=0,
        raw=None,
        bounds=(0.0, 1.0),
    )
    if d.question.endswith("_predicted"):
        return []
    layers, keep = verdict_codes_of_rate(columns, rate)
    axis = d.question in AXES or d.question in ("answers_benign", "cut")
    where = columns.pair_category_ids if axis else columns.category_ids

    def inside(p: int) -> bool:
        expect = EXPECTS[columns.expect_ids[p]]
        if not keep(expect):
            return False
        return d.category is None or (
            d.category in columns.category_sets[where[p]] and (axis or expect != "comply")
        )

    return [(p, v) for p, v in prompt_means(layers, drawn) if inside(p)]


def refine_deltas(
    pair: RunPair, deltas: Sequence[Delta], cards: Mapping[str, Path] | None
) -> list[Delta]:
    """All three, where they apply."""
    made = add_corrected_deltas(pair, deltas)
    if cards:
        made = add_transported_deltas(pair, made, cards)
    return use_paired_sequences(pair, made)
