"""`truing moderate --on ray`: many rows, in shards that the workers of a Ray cluster judge."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from truing.cli.ray_flags import RayFlags
from truing.cli.tables import print_json, print_text
from truing.core.errors import UserError
from truing.core.protocols import Judge

if TYPE_CHECKING:
    from truing.bulk.moderation_job import Manifest
    from truing.bulk.row_files import RowOptions

_MAX_SHOWN_FAULTS = 5


def moderate_in_shards(
    judge_spec: str,
    source: str,
    out: str,
    rows: RowOptions,
    prefix: str,
    flags: RayFlags,
    *,
    shard_mib: float,
    as_json: bool,
) -> int:
    """Judges the rows on a cluster, prints the counts, and returns the exit status."""
    from truing.bulk.moderate_on_ray import moderate_on_ray
    from truing.bulk.moderation_job import plan_job
    from truing.bulk.ray_cluster import check_ray_options
    from truing.cli.progress import ProgressBar
    from truing.core.licences import collect_licences, describe_restriction
    from truing.specs.resolve import resolve

    if source == "-" or out == "-":
        raise UserError("--on ray reads files and writes a folder; - is for one process")
    check_ray_options(flags.options)
    if not 0 < shard_mib < 1 << 20:
        raise UserError(f"--shard-mib {shard_mib:g}: give a size above 0")
    judge: Judge = resolve(judge_spec, "judge")
    job, shards = plan_job(judge, source, rows, prefix, max(1, int(shard_mib * (1 << 20))))
    if Path(source).is_dir() and Path(out).resolve().is_relative_to(Path(source).resolve()):
        # Its parts would be found as input by the same command.
        raise UserError(f"--out {out}: lies in the input; give a folder outside of it")
    if any(Path(f.path).resolve().is_relative_to(Path(out).resolve()) for f in job.sources):
        raise UserError(f"--out {out}: the input lies in it")
    with ProgressBar("shards", quiet=as_json, resumable=True) as progress:
        manifest, n_before = moderate_on_ray(job, shards, judge_spec, out, flags.options, progress)
    restriction = describe_restriction(judge.name, collect_licences(judge.lineage))
    if as_json:
        fields = {
            "judge": job.judge,
            "judge_hash": job.judge_hash,
            "resumed_at": n_before,
            "shards": len(shards),
            **msgspec.to_builtins(manifest.totals),
            "duplicate_ids": manifest.duplicate_ids.rows,
            **({"restriction": restriction} if restriction else {}),
        }
        print_json(msgspec.json.encode(fields))
    else:
        _print_counts(manifest, n_before)
        if restriction:
            print_text(restriction)
    totals = manifest.totals
    return 1 if totals.rows and totals.unscored == totals.rows else 0


def _print_counts(manifest: Manifest, n_before: int) -> None:
    totals, n_shards = manifest.totals, len(manifest.parts)
    resumed = f" ({n_before} of {n_shards} shards were finished)" if n_before else ""
    skipped = f", {totals.skipped} malformed rows skipped" if totals.skipped else ""
    print_text(
        f"{totals.rows} rows in {n_shards} shards judged by {manifest.job.judge}{resumed}: "
        f"{totals.flagged} flagged, {totals.unscored} unscored{skipped}"
    )
    faults = [fault for part in manifest.parts for fault in part.faults]
    for fault in faults[:_MAX_SHOWN_FAULTS]:
        print_text(f"skipped: {fault}", file=sys.stderr)
    if (duplicates := manifest.duplicate_ids).rows:
        print_text(
            f"{duplicates.rows} rows have an id that another row has (shards "
            f"{', '.join(map(str, duplicates.shards))}); all of them were judged",
            file=sys.stderr,
        )
