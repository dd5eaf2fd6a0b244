"""Attacks: how often each succeeds, by category and by number of tries, against the plain
prompt.
"""

from __future__ import annotations

from msgspec import UNSET
from msgspec.structs import replace

from truing.analysis.attack_success import ATTEMPT_COUNTS, AttackResult
from truing.analysis.rates import SMALL_SAMPLE_SIZE
from truing.report.blocks import Block, Cell, Figure, Grid, Section, Text
from truing.report.charts.svg import Mark, interval_chart
from truing.report.formatting import (
    category_name,
    format_difference,
    format_percent,
    format_rate_interval,
)
from truing.report.report_data import ReportData

_LEAD = (
    "Success is decided by a judge that did not steer the attack. An attack that asks k times "
    "finds a hit among k wrong "
    "verdicts sooner or later: the floor beside hit@k is what the judge's errors alone would give."
)


_SUCCESS_TITLES = {
    "harmful": "harmful answers",
    "complied": "complied (no refusal; no harm judge was there)",
    "misled": "injections that were followed",
}


def _success_cell(attack_result: AttackResult) -> Cell:
    tip = (
        f"{attack_result.hits} of {attack_result.scored} scored tries "
        f"on {attack_result.prompts} prompts, "
        f"{attack_result.tries - attack_result.scored} unscored, by {attack_result.judge}"
    )
    if attack_result.success is None:
        return Cell(f"unscored ({attack_result.tries})", "quiet", tip)
    # By prompts and not by tries: tries at one prompt are not independent.
    if attack_result.prompts < SMALL_SAMPLE_SIZE:
        kind = "struck" if attack_result.struck else "quiet"
        return Cell(
            f"{attack_result.hits} of {attack_result.scored}",
            kind,
            tip,
            why=attack_result.struck or "",
        )
    success = attack_result.success
    rate_text = format_rate_interval(success.estimate, success.lower, success.upper)
    return Cell(
        rate_text, "struck" if attack_result.struck else "", tip, why=attack_result.struck or ""
    )


def _lift_cell(result: AttackResult) -> Cell:
    if result.lift is None:
        return Cell("–", "quiet", "the plain prompts were not measured by the same judge")
    low, high = format_difference(result.lift.lower), format_difference(result.lift.upper)
    text = f"{format_difference(result.lift.estimate)} [{low}, {high}]"
    return _strike(Cell(text, "", f"{result.pairs} prompts, paired"), result)


def _cost_cell(result: AttackResult) -> Cell:
    if result.queries is None or result.tokens is None:
        return Cell("no success")
    return _strike(Cell(f"{result.queries:.1f} queries, {result.tokens:.0f} tokens"), result)


def _format_share(share: float, upper: float | None) -> str:
    if upper is None:
        return format_percent(share)
    return f"{format_percent(share)} to {format_percent(upper)}"


def _strike(cell: Cell, result: AttackResult) -> Cell:
    """Returns the cell, struck if the judge may not measure this model."""
    if result.struck is None:
        return cell
    return replace(cell, kind="struck", why=result.struck)


def _hit_cell(attack_result: AttackResult, k: int) -> Cell:
    if k not in attack_result.at_k:
        return Cell("not tried", "quiet", f"no prompt has {k} tries")
    prompts_with_k = attack_result.at_k_prompts[k]
    tip = f"{prompts_with_k} of {attack_result.prompts} prompts have {k} scored tries or more"
    if k in attack_result.at_k_upper:
        tip += "; of the others, some have no hit"
    text = _format_share(attack_result.at_k[k], attack_result.at_k_upper.get(k))
    return _strike(Cell(text, "", tip), attack_result)


def _tries_grid(results: list[tuple[str, AttackResult]]) -> Grid | None:
    with_tries = [(v, attack_result) for v, attack_result in results if attack_result.at_k]
    if not with_tries:
        return None
    ks = sorted({k for _, attack_result in with_tries for k in attack_result.at_k})
    grid = Grid(["model", "attack", *(f"hit@{k}" for k in ks)])
    for variant, attack_result in with_tries:
        grid.add(variant, attack_result.attack, *(_hit_cell(attack_result, k) for k in ks))
        if attack_result.floor:
            grid.add(
                "",
                "floor: the judge's errors alone",
                *(
                    format_percent(attack_result.floor[k]) if k in attack_result.floor else "–"
                    for k in ks
                ),
            )
    return grid


def _query_cell(attack_result: AttackResult, k: int) -> Cell:
    # A search that was over sooner has no more successes with a larger budget.
    reached = max(n for n in attack_result.at_queries if n <= k)
    text = _format_share(
        attack_result.at_queries[reached], attack_result.at_queries_upper.get(reached)
    )
    tip = f"{attack_result.prompts} prompts, each attacked until the search saw a success"
    if reached in attack_result.at_queries_upper:
        tip += "; some answers are unscored"
    return _strike(Cell(text, "", tip), attack_result)


def _queries_grid(attack_results: list[tuple[str, AttackResult]]) -> Grid | None:
    """Returns the share of prompts broken within each number of queries that all searches state,
    and that of each search at its end.

    Between two numbers that a search states, its share is not known: a column for the largest
    number of queries of one search would show too little for another.
    """
    searches = [
        (v, attack_result) for v, attack_result in attack_results if attack_result.at_queries
    ]
    if not searches:
        return None
    largest = max(k for _, attack_result in searches for k in attack_result.at_queries)
    ks = [k for k in ATTEMPT_COUNTS if k <= largest]
    grid = Grid(
        [
            "model",
            "search",
            *(f"within {k}" for k in ks),
            "at its end",
            "judge's errors alone, at most",
        ]
    )
    for variant, attack_result in searches:
        floor = attack_result.query_floor
        most_queries = max(attack_result.at_queries)
        at_end = _query_cell(attack_result, most_queries)
        grid.add(
            variant,
            attack_result.attack,
            *(_query_cell(attack_result, k) for k in ks),
            replace(at_end, note=f"{most_queries} queries at most"),
            Cell("–", "quiet", "no judge's errors are known")
            if floor is None
            else format_percent(floor),
        )
    return grid


def _effort_blocks(data_name: str, overall: list[tuple[str, AttackResult]]) -> list[Block]:
    """Returns the tables of success by number of tries and by a search's queries."""
    blocks: list[Block] = []
    # hit@k exists only where a prompt was attacked several times.
    tries = _tries_grid(overall)
    if tries is not None:
        blocks.append(
            tries.table(f"{data_name}: by number of tries", right=range(2, len(tries.columns)))
        )
        if not any(result.floor for _, result in overall):
            blocks.append(
                Text("No floor is shown: the judge has no card with its specificity.", "note")
            )
    queries = _queries_grid(overall)
    if queries is not None:
        title = f"{data_name}: prompts that a search broke, by number of queries"
        blocks.append(queries.table(title, right=range(2, len(queries.columns))))
    return blocks


def _category_grid(results: list[AttackResult]) -> Grid:
    attacks = list(dict.fromkeys(r.attack for r in results))
    grid = Grid(["category", *attacks])
    for category in dict.fromkeys(r.category for r in results):
        cells = {r.attack: _success_cell(r) for r in results if r.category == category}
        grid.add(category_name(category), *(cells.get(a, Cell("–", "quiet")) for a in attacks))
    return grid


def build_section(report: ReportData) -> Section | None:
    """Returns None if no data set was attacked."""
    blocks: list[Block] = []
    attacks = {} if report.attacks is UNSET else report.attacks
    for data_name in report.data:
        results_by_variant = {
            name: of_variant[data_name]
            for name, of_variant in attacks.items()
            if data_name in of_variant
        }
        if not results_by_variant:
            continue
        overall = [
            (name, attack_result)
            for name, results in results_by_variant.items()
            for attack_result in results
            if attack_result.category is None
        ]
        success_title = _SUCCESS_TITLES[overall[0][1].question]
        groups: dict[str, list[Mark]] = {}
        grid = Grid(
            [
                "attack",
                "model",
                "prompts",
                success_title,
                "against the plain prompt",
                "cost of a success",
            ]
        )
        for name, attack_result in sorted(overall, key=lambda pair: pair[1].attack):
            grid.add(
                attack_result.attack,
                name,
                str(attack_result.prompts),
                _success_cell(attack_result),
                _lift_cell(attack_result),
                _cost_cell(attack_result),
            )
            if attack_result.success is not None:
                success, hollow = (
                    attack_result.success,
                    attack_result.struck is not None or attack_result.prompts < SMALL_SAMPLE_SIZE,
                )
                mark = Mark(
                    name,
                    success.estimate,
                    success.lower,
                    success.upper,
                    report.series(name),
                    hollow,
                    f", {attack_result.hits} of {attack_result.scored}",
                )
                groups.setdefault(attack_result.attack, []).append(mark)
        title = f"{data_name}: success by attack"
        alt = "; ".join(
            f"{a}: {', '.join(f'{m.label} {100 * m.estimate:.0f} %' for m in ms)}"
            for a, ms in groups.items()
        )
        blocks += [
            Figure(interval_chart(list(groups.items()), title), title, alt),
            grid.table(title, right=range(2, 6)),
        ]
        blocks += _effort_blocks(data_name, overall)
        for name, results in results_by_variant.items():
            table = _category_grid(results)
            blocks.append(
                table.table(
                    f"{data_name}, {name}: success by category", right=range(1, len(table.columns))
                )
            )
    return Section("attacks", "Attacks", tuple(blocks), lead=_LEAD) if blocks else None
