"""`truing watch`: judges new rows of files as they come, and raises an alarm on their harm rate."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from cyclopts import Parameter

from truing.cli.moderate_rows import RowFlags
from truing.cli.parameters import Flag
from truing.cli.tables import print_json, print_text
from truing.core.errors import DataError, UserError
from truing.core.private_files import replace_file
from truing.core.protocols import Closeable, Judge

if TYPE_CHECKING:
    from truing.bulk.watched_rows import Watcher, WatchState


@Parameter(name="*")
@dataclass(frozen=True)
class WatchFlags:
    """When to raise the alarm.

    Parameters
    ----------
    tolerated
        The harm rate up to which the alarm should stay silent.
    false_alarm
        The largest probability that it is ever raised at that rate (with --restarts: one over the
        mean number of rows between two false alarms).
    audit_rate
        The share of the rows that people are to label.
    restarts
        React to a change after a long quiet time, too.
    every
        Look for new rows every so many seconds, until the alarm is raised (default: once).
    metrics
        Write the counts to this file, in the text format of Prometheus.
    """

    tolerated: float = 0.05
    false_alarm: float = 0.01
    audit_rate: float = 0.01
    restarts: Flag = False
    every: float | None = None
    metrics: Path | None = None


def command(
    source: str,
    /,
    *,
    judge: str,
    out: Path,
    rows: RowFlags | None = None,
    flags: WatchFlags | None = None,
    json: Flag = False,
) -> int:
    """Judges the new rows of files, draws some for people, and raises an alarm on the harm rate.

    The exit status is 2 if the alarm is raised. People label the rows of OUT/to_label.jsonl in
    OUT/labels.jsonl: {"id": ..., "harmful": true}, one a line.

    Parameters
    ----------
    source
        A file, a folder or a pattern; JSON lines may grow, other files are read when they are new.
    judge
        Spec of the judge.
    out
        Folder of the verdicts, the rows to label and the labels; the same command continues.
    json
        Print the counts as JSON.
    """
    from truing.bulk.watched_rows import Watcher, WatchSettings
    from truing.specs.resolve import resolve

    flags = flags or WatchFlags()
    if "://" in source:
        raise UserError(f"watch: {source}: only files on a disk are watched")
    rates = (flags.tolerated, flags.false_alarm, flags.audit_rate)
    if not (all(0 < rate < 1 for rate in rates[:2]) and 0 < rates[2] <= 1):
        raise UserError("--tolerated, --false-alarm and --audit-rate lie between 0 and 1")
    if flags.every is not None and not flags.every > 0:
        raise UserError(f"--every {flags.every:g}: give seconds, above 0")
    resolved: Judge = resolve(judge, "judge")
    settings = WatchSettings(
        source=source,
        judge=resolved.name,
        judge_hash=resolved.lineage.hash,
        options=(rows or RowFlags()).options,
        tolerated=flags.tolerated,
        false_alarm=flags.false_alarm,
        audit_rate=flags.audit_rate,
        restarts=flags.restarts,
    )
    watcher = Watcher(settings, resolved, out)
    try:
        state, fault = asyncio.run(_watch(watcher, resolved, flags))
    finally:
        watcher.close()
    if json:
        print_json(msgspec.json.encode(state))
    else:
        _print_state(state, flags)
    if fault is not None and state.raised_at is None:
        raise fault
    for line in fault.faults if fault is not None else ():
        print_text(f"truing: {line}", file=sys.stderr)
    return 2 if state.raised_at is not None else 0


async def _watch(
    watcher: Watcher, judge: Judge, flags: WatchFlags
) -> tuple[WatchState, DataError | None]:
    """Returns the state at the end, and what was wrong with the input, which ends the watch."""
    from truing.bulk.watched_rows import format_metrics
    from truing.http.limits import close_connections

    fault = None
    try:
        while True:
            try:
                await watcher.judge_new_rows()
            except DataError as error:
                # The other files were judged: their rows count, and may raise the alarm.
                fault = error
            state = watcher.state()
            if flags.metrics is not None:
                metrics = format_metrics(state, watcher.settings)
                replace_file(flags.metrics, metrics.encode())
            if flags.every is None or state.raised_at is not None or fault is not None:
                return state, fault
            await asyncio.sleep(flags.every)
    finally:
        if isinstance(judge, Closeable):
            await judge.close()
        await close_connections()


def _print_state(state: WatchState, flags: WatchFlags) -> None:
    rate = "" if state.corrected_rate is None else f", corrected rate {state.corrected_rate:.2%}"
    skipped = f", {state.skipped} malformed rows skipped" if state.skipped else ""
    print_text(
        f"{state.rows} rows judged: {state.flagged} flagged, {state.unscored} unscored{skipped}"
        f"{rate}; "
        f"{state.labelled} of {state.audited} audited rows labelled"
    )
    if state.waiting:
        print_text(f"{state.waiting} rows wait for the label of an audited row before them")
    if state.unknown_labels:
        print_text(f"{state.unknown_labels} labels have the id of no row in to_label.jsonl")
    if state.raised_at is not None:
        if flags.restarts:
            error = f"a false alarm comes once in {1 / flags.false_alarm:,.0f} rows on average"
        else:
            error = f"at most {flags.false_alarm:.3g} of watches at that rate ever raise it"
        print_text(
            f"ALARM at row {state.raised_at}: the harm rate is above {flags.tolerated:g} ({error})"
        )
