"""The flags of `truing train ppo|ppo-lag|reward-shaping|rloo|grpo`, the same for all."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Group

from truing.cli.parameters import Common
from truing.cli.settings_flags import fields_of, flags_of
from truing.cli.training import PlannedSliceFlags
from truing.plan.step_inputs import RLInputs
from truing.train.rl.settings import RLSettings

_CONSTRAINT = (
    "threshold",
    "constraint",
    "tail",
    "lambda_init",
    "lambda_control",
    "lambda_lr",
    "lambda_max",
    "lambda_min",
    "window",
    "delay",
    "surrogate",
    "nu",
)
_POLICY = (
    "clip",
    "clip_high",
    "ratio_level",
    "importance_cap",
    "clip_value",
    "gamma",
    "gae_lambda",
    "reduction",
    "whiten",
    "kl",
    "kl_place",
    "kl_target",
    "kl_step_limit",
    "kl_limit",
    "clip_reward",
    "normalise_reward",
    "normalise_cost",
    "empty_answer_score",
    "special_token_score",
    "truncation_penalty",
    "overlong_buffer",
    "mask_truncated",
    "cut_answers",
    "max_unscored",
    "baseline",
    "scale",
    "loss",
    "dynamic_sampling",
    "ptx",
)
# Settings that the command itself gives, or that `--cost-limit` and `SampleFlags` stand for.
_ELSEWHERE = ("method", "out", "constraints", "sample_every")
# Settings that only Python and plans have.
_WITHOUT_FLAG = ("score_micro", "weight_decay", "kl_horizon", "clip_score", "ptx_batch")


@flags_of(
    fields_of(
        RLSettings,
        without=(*_CONSTRAINT, *_POLICY, *_ELSEWHERE, *_WITHOUT_FLAG),
    ),
    fields_of(RLInputs, ("limit", "allow_red_team", "allow_measurement_prompts", "generator")),
    common=("base", "steps", "prompts", "max_new", "lr", "lora", "device", "seed", "limit"),
)
class RLRunFlags(PlannedSliceFlags):
    """The run.

    Parameters
    ----------
    n
        Answers to each prompt (default: 1; 4 for rloo and grpo, which compare them).
    workers
        Ray Train workers; 0 uses this process, or those of `accelerate launch -m truing train ...`.
    """

    n: Annotated[int | None, Common] = None
    workers: int = 0


@flags_of(
    fields_of(RLInputs, ("reward_weight", "ptx_data")),
    fields_of(RLSettings, _POLICY),
    group=Group("Policy", sort_key=3),
)
class PolicyFlags:
    """How the policy learns."""


@flags_of(
    fields_of(RLInputs, ("cost", "cost_weight", "cost_limit")),
    fields_of(RLSettings, _CONSTRAINT),
    group=Group("Constraint", sort_key=4),
)
class ConstraintFlags:
    """The constraint on the cost."""


@flags_of(
    fields_of(RLSettings, ("sample_every",)),
    fields_of(RLInputs, ("sample_data", "sample_judge", "sample_limit")),
    group=Group("Evaluation during the training", sort_key=5),
)
class SampleFlags:
    """Evaluation during the training."""
