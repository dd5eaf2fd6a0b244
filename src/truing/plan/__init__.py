"""Plans: TOML files that say what is measured (`truing run`) or trained (`truing train PLAN.toml`).

The only package beside `cli` and `serve` that resolves spec strings.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "cost_limits": "parse_constraint",
        "estimates": "estimate_plan",
        "evaluation": "DataPlan Plan RunPlan find_run_faults parse_plan read_plan read_plan_table",
        "evaluation_run": "PlanProgress run_plan",
        "from_specs": "plan_from_specs",
        "recorded_answers": "without_recordings",
        "spending": "find_budget_faults read_variant_prices",
        "step_inputs": "DataInputs ProbeInputs RLInputs SampledInputs SupervisedInputs",
        "training_plan": (
            "DEFAULT_GROUP_SIZE StepPlan TrainingPlan list_presets parse_training_plan "
            "read_plan_text read_preset read_training_plan"
        ),
        "training_run": "TrainingPlanOptions TrainingPlanResult run_training_plan",
        "training_steps": (
            "StepOptions train_probe_step train_rl_step train_sampled_step train_supervised_step"
        ),
    },
)
