"""Reinforcement learning from feedback under a safety constraint.

PPO, PPO-Lagrangian, reward shaping, RLOO and GRPO share one loop (`trainer.RLTrainer`): sample
answers, score them, update the Lagrange multiplier λ, take gradient steps. `run.train_rl` runs it
from data sets and judges to a model folder. The losses are those of `truing.train.losses`.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "constraint": "CostConstraint",
        "constraint_set": "ConstraintSet",
        "constraint_settings": "ConstraintSettings",
        "diagnosis": "RunDiagnosis",
        "generate": "AnswerGenerator",
        "policy_models": "CRITICS_BY_METHOD PolicyModels SeparateModels critic_roles",
        "reward_signals": "FunctionSignal GlobalScores RewardSignals answer_length_signal",
        "reward_spec": "RewardSource RewardSpec SharedScorer",
        "rollout": "TokenizedPrompt",
        "run": "RLOptions RLResult train_rl",
        "settings": "GROUP_METHODS METHODS Method RLSettings",
        "trainer": "RLTrainer",
        "vllm": "vllm_generator_factory",
    },
)
