"""Many rows: moderated in shards, by one process or a Ray cluster.

`input_shards` plans ranges of files, `moderation_job` judges and commits one, `ray_shards` spreads
them over a cluster. Nothing but `ray_shards` imports Ray.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "": "evaluate_on_ray moderate_on_ray rank_on_ray",
        "evaluate_on_ray": "EvaluationSpecs judge_on_ray",
        "input_shards": "DEFAULT_SHARD_BYTES",
        "moderation_job": "Manifest ShardRunner begin_job finish_job plan_job run_shards",
        "rank_on_ray": "open_ranking_workers",
        "ray_cluster": "RayOptions check_ray_options",
        "row_files": "Format InputRow RowFile RowOptions TakenName check_output_format",
        "row_judgements": "ADDED_FIELDS CHUNK_SIZE judge_rows judged_values",
        "shard_store": "ShardStore",
        "watched_rows": "WatchSettings WatchState Watcher format_metrics",
    },
)
