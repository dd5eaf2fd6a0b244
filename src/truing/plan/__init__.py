"""Plans: TOML files that say what is measured (`truing run`) or trained (`truing train PLAN.toml`).

The only package beside `cli` and `serve` that resolves spec strings.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "evaluation": "DataPlan Plan PlanProgress RunPlan parse_plan plan_from_specs read_plan "
        "run_plan",
        "training_plan": "StepPlan TrainingPlan parse_training_plan read_training_plan",
        "training_run": "TrainingPlanResult run_training_plan",
    },
)
