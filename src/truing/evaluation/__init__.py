"""Runs a model on a data set and judges its answers: `evaluate`, `judge_run`, `EvaluateOptions`.

`evaluate` prepares the run folder, `ingest` reads the data set into it, `scheduler` runs the
workers.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "": "evaluate",
        "cost_estimate": "CostEstimate RunSize estimate_cost",
        "evaluate": "is_attacked_dataset judge_run run_coroutine select_rate_limits",
        "failures": "RESPONSES find_repeated",
        "judge_sets": "JudgingTime LabelledRows is_judged judge_set store_set",
        "judge_stage": "judge_safely",
        "options": "DEFAULT_PART_ROWS EvaluateOptions ProgressCallback RunBudget",
        "row_sample": "keep_stored_sample",
        "run_parts": "PartDataset finish_parts prepare_judging prepare_parts",
        "spending": "read_spending",
    },
)
