"""Training: supervised (sft, distil, reward, cost, dpo, kto), reinforcement learning (`rl`), and
moderation classifiers (`moderation`). Needs the `train` extra.

`train_supervised`, `train_rl` and `train_moderation` train into a folder and resume there;
`read_training_set` reads a data set for the first, `losses` holds the loss functions.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "": "losses",
        "adapter_merging": "merge_adapter",
        "checkpoint": "latest_checkpoint read_identity",
        "device_speed": "measure_speed",
        "examples": "TrainingSet",
        "frozen_prompts": "TrainableRows",
        "harm_check": "require_red_model_reason",
        "labelled_answers": "LabelledAnswer LabelledAnswers read_labelled_answers",
        "losses": "DPO_KINDS",
        "memory_plan": "MemoryPlan plan_memory",
        "model_card": "TrainedModelCard is_exported_as_set read_model_card render_model_card",
        "moderation.blend": "blend_classifiers",
        "moderation.classifier_export": "ModerationResult",
        "moderation.examples": "ModerationTrainingSet read_moderation_set",
        "moderation.finished_run": "read_run_settings",
        "moderation.run": "train_moderation",
        "moderation.settings": "ModerationTrainingSettings",
        "optimizer": "learning_rate",
        "probe": "TrainedProbes train_probes",
        "probe_fit": "ProbeFit count_label_faults fit_probe",
        "probe_settings": "ProbeSettings",
        "publishing": "push_model",
        "rl.constraint": "CostConstraint",
        "rl.constraint_set": "ConstraintSet",
        "rl.constraint_settings": "ConstraintSettings",
        "rl.diagnosis": "RunDiagnosis",
        "rl.generate": "AnswerGenerator",
        "rl.policy_models": "CRITICS_BY_METHOD PolicyModels SeparateModels critic_roles",
        "rl.reward_signals": "FunctionSignal GlobalScores RewardSignals answer_length_signal",
        "rl.reward_spec": "RewardSource RewardSpec SharedScorer",
        "rl.rollout": "TokenizedPrompt",
        "rl.run": "RLOptions RLResult train_rl",
        "rl.settings": "GROUP_METHODS METHODS Method RLSettings",
        "rl.trainer": "RLTrainer",
        "rl.vllm": "vllm_generator_factory",
        "run_lock": "lock_run_folder",
        "scale_model": "Cluster ModelSize RolloutSize predict_rl predict_supervised",
        "settings": "LOSSES TRAINING_KINDS TrainingKind TrainingSettings default_beta",
        "step_loop": "SliceLimit ends_in_any_process",
        "supervised": "TrainingResult train_supervised",
        "trainable_model": "find_base_model",
        "training_data": "check_no_test_overlap read_training_set",
        "training_log": "read_log",
    },
)
