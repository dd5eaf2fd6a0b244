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
        "budget_waves": "WavePlan plan_waves",
        "cost_estimate": "CostEstimate RunSize estimate_cost",
        "evaluate": (
            "evaluate_part is_attacked_dataset judge_run run_coroutine select_rate_limits"
        ),
        "failures": "RESPONSES find_repeated",
        "judge_sets": "JudgingTime LabelledRows is_judged judge_set store_set",
        "judge_stage": "judge_safely",
        "options": "DEFAULT_PART_ROWS EvaluateOptions ProgressCallback RunBudget",
        "row_sample": "keep_stored_sample",
        "run_parts": "PartDataset finish_parts prepare_judging prepare_parts save_lost",
        "shared_account": "AccountState AccountVisit PartPass SpendingAccount",
        "spending": "read_lost read_spending",
    },
)
