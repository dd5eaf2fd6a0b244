"""The settings of an RL run: method, sizes, KL penalty, critics, constraint, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec

from truing.core.errors import PlanError, did_you_mean
from truing.train.rl.constraint_settings import MAIN_CONSTRAINT, ConstraintSettings
from truing.train.run_settings import BaseDtype, RunSettings
from truing.train.settings import EXPORT_DTYPES, ExportDtype, base_dtype_faults

Method = Literal["ppo", "ppo-lag", "reward-shaping", "rloo", "grpo"]
METHODS: tuple[Method, ...] = ("ppo", "ppo-lag", "reward-shaping", "rloo", "grpo")
GROUP_METHODS: tuple[Method, ...] = ("rloo", "grpo")

# Older versions wrote it into the digest, although it changes no step.
_ALWAYS_IN_DIGEST = {"max_unscored": 0.2}

_MINIMUM: dict[str, float] = {
    "steps": 1,
    "prompts": 1,
    "n": 1,
    "epochs": 1,
    "minibatch": 0,
    "micro": 1,
    "score_micro": 1,
    "max_new": 1,
    "max_prompt": 1,
    "lora": 0,
    "delay": 0,
    "save_every": 1,
    "keep": 1,
    "sample_every": 0,
    "ptx_batch": 1,
    "warmup": 0,
    "ptx": 0,
    "kl": 0,
    "kl_target": 0,
    "overlong_buffer": 0,
    "importance_cap": 0,
    "dynamic_sampling": 0,
    "nu": 0,
    "temperature": 1e-6,
    "clip": 1e-6,
    "lr": 0,
    "critic_lr": 0,
}


class RLSettings(RunSettings, frozen=True, kw_only=True):
    """The settings of one RL run.

    A step samples `n` answers to each of `prompts` prompts, scores them, and takes `epochs` passes
    over them, with one gradient step per `minibatch` answers (0 = all at once) and forward passes
    of `micro` answers. All sizes count the answers of all processes. `base_dtype` is the type that
    a frozen base is held in (auto: that of the forward pass); `checkpointing` recomputes
    activations in the backward pass.

    `kl` is β. `kl_place` puts the KL from the reference into the reward (k1 estimator, as Safe
    RLHF) or into the loss (k3, as GRPO); `kl_target` > 0 adapts β (Ziegler et al. 2019).
    `kl_step_limit` ends the passes over a rollout, `kl_limit` the run.

    The ratio of probabilities is clipped to [1 - `clip`, 1 + `clip_high`] (None: `clip`), per token
    or, with `ratio_level` sequence, as a mean over each answer (GSPO). `importance_cap` > 0 weights
    tokens by min(π_old / μ, cap) where another engine or precision (μ) sampled. With
    `dynamic_sampling` k, groups whose answers all score alike are redrawn up to k times from other
    prompts (DAPO).

    The answer contract gives scores to answers that no judge can read as answers.
    `empty_answer_score` is the reward of an empty answer: a number, or lowest (of all answers of
    the run so far); its cost is the mean of the step's other answers; unscored leaves empty answers
    out. `special_token_score` is the reward of an answer with special tokens in it, such as
    a sampled `<|im_start|>`: a number, lowest, judged (as it stands), or hidden (judged without
    them); its cost is judged. `truncation_penalty` is subtracted from the reward of an answer that
    was cut at `max_new`; auto is one standard deviation of the step's rewards.
    `overlong_buffer` > 0 lets the penalty rise over the last tokens before `max_new` (DAPO, 2025,
    2503.14476); `mask_truncated` leaves cut answers out of the gradient. `cut_answers` open scores
    them by reward and cost models as they stand, closed with an end token appended.

    `constraint` is what λ holds below `threshold`: the mean cost of the last `window` answers, or
    the mean of their worst share `tail` (CVaR). `lambda_control` pid sets λ once a rollout,
    gradient at each gradient step (the update of Safe RLHF); `lambda_lr` is the speed of either.
    `surrogate` says whether reward and cost advantages are combined and then clipped (the code of
    Safe RLHF) or clipped separately (its paper). `nu` is the fixed price ν of the cost in reward
    shaping. `constraints` are further constraints, each with a cost and a λ of its own.
    """

    # Where and how often a run is saved or how it is batched does not change what it computes.
    not_in_digest: ClassVar[tuple[str, ...]] = (
        "shard",
        "steps",
        "keep",
        "sample_every",
        "micro",
        "score_micro",
        "device",
        "export_dtype",
        "checkpointing",
        "max_unscored",
    )
    older_values: ClassVar[Mapping[str, Any]] = {
        "empty_answer_score": "unscored",
        "special_token_score": "hidden",
        "cut_answers": "closed",
        "overlong_buffer": 0,
        "mask_truncated": False,
        "constraints": (),
        "base_dtype": "auto",
        "clip_high": None,
        "ratio_level": "token",
        "importance_cap": 0.0,
        "dynamic_sampling": 0,
    }

    method: Method
    steps: int = 100
    prompts: int = 16
    n: int = 1
    epochs: int = 1
    minibatch: int = 0
    micro: int = 8
    score_micro: int = 16
    # sampling
    max_new: int = 64
    max_prompt: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    # answer contract
    empty_answer_score: float | Literal["lowest", "unscored"] = "lowest"
    special_token_score: float | Literal["lowest", "judged", "hidden"] = "lowest"
    truncation_penalty: float | Literal["auto"] = "auto"
    overlong_buffer: int = 0
    mask_truncated: bool = False
    cut_answers: Literal["open", "closed"] = "open"
    # optimisers
    lr: float = 0.0
    critic_lr: float = 0.0
    warmup: float = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    lora: int = 16
    base_dtype: BaseDtype = "auto"
    checkpointing: bool = False
    export_dtype: ExportDtype = "auto"
    shard: bool = False
    # policy
    clip: float = 0.2
    clip_high: float | None = None
    ratio_level: Literal["token", "sequence"] = "token"
    importance_cap: float = 2.0
    clip_value: float | None = 5.0
    gamma: float = 1.0
    gae_lambda: float = 0.95
    reduction: Literal["row", "token"] = "row"
    whiten: bool = False
    kl: float = 0.02
    kl_place: Literal["auto", "reward", "loss"] = "auto"
    kl_target: float = 0.0
    kl_horizon: float = 10_000.0
    kl_step_limit: float = 0.0
    kl_limit: float = 0.0
    # rewards and costs
    clip_score: float | None = 50.0
    clip_reward: float | None = None
    normalise_reward: Literal["none", "running", "ema"] = "none"
    normalise_cost: Literal["none", "running", "ema"] = "none"
    max_unscored: float = 0.2
    # constraint
    threshold: float = 0.0
    lambda_init: float = 1.0
    lambda_control: Literal["pid", "gradient"] = "pid"
    lambda_lr: float = 0.1
    lambda_max: float | None = 5.0
    lambda_min: float | None = None
    window: int = 128
    delay: int = 0
    constraint: Literal["mean", "cvar"] = "mean"
    tail: float = 0.1
    surrogate: Literal["combined", "separate"] = "combined"
    nu: float = 1.0
    constraints: tuple[ConstraintSettings, ...] = ()
    # group methods
    scale: Literal["group", "batch", "none", "auto"] = "auto"
    loss: Literal["grpo", "bnpo", "dr_grpo", "dapo", "auto"] = "auto"
    dynamic_sampling: int = 0
    # language-model loss on pre-training text (ptx)
    ptx: float = 0.0
    ptx_batch: int = 8
    # checkpoints, samples
    save_every: int = 10
    keep: int = 2
    sample_every: int = 0
    template: Literal["auto", "plain"] = "auto"
    red_model: str | None = None

    def result_settings(self) -> dict[str, Any]:
        """Returns the settings that decide the result of a step, by name."""
        values = RunSettings.result_settings(self)
        # bnpo averages within micro-batches (see policy_loss.averages_over_tokens).
        if "constraints" in values:
            values["constraints"] = list(values["constraints"])  # as in JSON
        values |= _ALWAYS_IN_DIGEST
        if self.method == "grpo" and self.loss == "bnpo":
            values["micro"] = self.micro
        # The setting is newer than runs by gradient: without it their checkpoints still match.
        if self.lambda_control == "gradient" or self.method in ("ppo", "reward-shaping"):
            del values["lambda_control"]
        return values

    def as_begun(self, stored: dict[str, Any]) -> RLSettings:
        """Returns the settings with which a run goes on that an older version has begun.

        `stored` are the settings of its manifest. What did not exist then keeps its older meaning,
        unless this command asks for something else than the default.
        """
        defaults = {f.name: f.default for f in msgspec.structs.fields(self)}
        older = {**self.older_values, "lambda_control": "gradient"}
        changes = {
            name: value
            for name, value in older.items()
            if name not in stored and defaults[name] not in (value, msgspec.NODEFAULT)
            if getattr(self, name) == defaults[name]
        }
        # Its default was 0 before cut answers could be left open.
        if "cut_answers" not in stored and self.truncation_penalty == "auto":
            changes["truncation_penalty"] = stored.get("truncation_penalty", 0.0)
        return msgspec.structs.replace(self, **changes)

    @property
    def kind(self) -> str:
        """The method, as model folders and checkpoints name it."""
        return self.method

    @property
    def max_length(self) -> int:
        """The largest number of tokens of a prompt with its answer."""
        return self.max_prompt + self.max_new

    @property
    def scalar(self) -> bool:
        """Whether the trained model returns a number (a reward model); a policy returns text."""
        return False

    @property
    def main_constraint(self) -> ConstraintSettings:
        """The constraint on the cost that needs no name (`--cost`, `--threshold`)."""
        return ConstraintSettings(
            name=MAIN_CONSTRAINT,
            threshold=self.threshold,
            kind=self.constraint,
            tail=self.tail,
            lambda_init=self.lambda_init,
            lambda_lr=self.lambda_lr,
            lambda_max=self.lambda_max,
            lambda_min=self.lambda_min,
            window=self.window,
        )

    def all_constraints(self, *, costs: bool) -> list[ConstraintSettings]:
        """Returns all constraints; `costs` says whether the run has a cost without a name."""
        return [*([self.main_constraint] if costs else []), *self.constraints]

    @property
    def answers_per_step(self) -> int:
        """Answers of one step, over all processes."""
        return self.prompts * self.n

    @property
    def uses_groups(self) -> bool:
        """Whether the answers to one prompt are compared with each other, without a critic."""
        return self.method in GROUP_METHODS

    @property
    def minibatch_size(self) -> int:
        """Answers of one gradient step, over all processes."""
        return self.minibatch or self.answers_per_step

    @property
    def kl_in_loss(self) -> bool:
        """Whether the KL penalty is part of the loss (the default of GRPO) or of the reward."""
        return self.kl_place == "loss" or (self.kl_place == "auto" and self.method == "grpo")

    @property
    def needs_reference(self) -> bool:
        """Whether anything depends on the KL from the reference model: its penalty or its limit."""
        return bool(self.kl or self.kl_target or self.kl_limit)

    @property
    def takes_one_step(self) -> bool:
        """Whether a rollout has one gradient step alone, in which the policy is the old one."""
        return self.epochs == 1 and self.minibatch_size == self.answers_per_step

    @property
    def policy_learning_rate(self) -> float:
        """`lr`, or by default 1e-4 for adapters and 1e-5 for whole models."""
        return self.lr or (1e-4 if self.lora else 1e-5)

    @property
    def critic_learning_rate(self) -> float:
        """`critic_lr`, or by default half of the policy's (Safe RLHF: 9.65e-6 and 5e-6)."""
        return self.critic_lr or self.policy_learning_rate / 2

    def validated(self, *, costs: bool) -> RLSettings:
        """Returns the settings themselves; `costs` says whether the run has a cost signal.

        Raises PlanError with all faults together.
        """
        faults = [*self._range_faults(), *self._constraint_faults(), *self._method_faults(costs)]
        if self.answers_per_step % self.minibatch_size:
            faults.append(
                f"minibatch = {self.minibatch} does not divide the {self.answers_per_step} answers "
                f"of a step"
            )
        if faults:
            raise PlanError(*faults)
        return self

    def _range_faults(self) -> list[str]:
        # `not x >= y` and not `x < y`: a NaN must be a fault too.
        faults = [
            f"{name} = {getattr(self, name)}: at least {minimum}"
            for name, minimum in _MINIMUM.items()
            if not getattr(self, name) >= minimum
        ]
        faults += [
            f"{name} = {getattr(self, name)}: above 0 and at most 1"
            for name in ("top_p", "gamma", "gae_lambda")
            if not 0 < getattr(self, name) <= 1
        ]
        if not 0 <= self.max_unscored <= 1:
            faults.append(f"max_unscored = {self.max_unscored}: a share, from 0 to 1")
        return [*faults, *self._contract_faults()]

    def _contract_faults(self) -> list[str]:
        faults = []
        words = {
            "empty_answer_score": ("lowest", "unscored"),
            "special_token_score": ("lowest", "judged", "hidden"),
            "truncation_penalty": ("auto",),
        }
        for name, allowed in words.items():
            value = getattr(self, name)
            if isinstance(value, str):
                if value not in allowed:
                    faults.append(f"{name} = {value!r}: a number, or {' or '.join(allowed)}")
            elif not math.isfinite(value):
                faults.append(f"{name} = {value}: must be finite")
        if not isinstance(self.truncation_penalty, str) and self.truncation_penalty < 0:
            faults.append(f"truncation_penalty = {self.truncation_penalty}: at least 0")
        if self.overlong_buffer >= self.max_new > 0 and self.overlong_buffer:
            faults.append(
                f"overlong_buffer = {self.overlong_buffer}: must be below max_new = {self.max_new}"
            )
        return faults

    def _constraint_faults(self) -> list[str]:
        limits = [self.main_constraint, *self.constraints]
        faults = [fault for limit in limits for fault in limit.faults()]
        names = [limit.name for limit in limits]
        faults += [
            f"constraint {name!r} is given twice, or is the name of the constraint on --cost"
            for name in sorted({name for name in names if names.count(name) > 1})
        ]
        if self.constraints and self.method in ("ppo", "reward-shaping"):
            faults.append(f"{self.method} holds no constraint; ppo-lag, rloo and grpo do")
        return faults

    def _method_faults(self, costs: bool) -> list[str]:
        faults = []
        if self.method not in METHODS:
            faults.append(f"method {self.method!r} is unknown{did_you_mean(self.method, METHODS)}")
        faults += base_dtype_faults(self.base_dtype, self.lora, shard=self.shard)
        if self.export_dtype not in EXPORT_DTYPES:
            faults.append(
                f"export_dtype = {self.export_dtype!r}: must be one of {', '.join(EXPORT_DTYPES)}"
            )
        constrained = costs or bool(self.constraints)
        if self.method in ("ppo-lag", "reward-shaping") and not constrained:
            faults.append(
                f"{self.method} needs a cost: --cost SPEC (a judge whose value or score is the "
                f"cost)"
            )
        if self.method == "ppo" and costs:
            faults.append(
                "ppo does not use a cost: ppo-lag keeps it below --threshold, reward-shaping "
                "subtracts it from the reward"
            )
        if self.uses_groups and self.n < 2:
            faults.append(
                f"{self.method} compares the answers to one prompt: n = {self.n}, at least 2"
            )
        if self.ratio_level == "sequence" and self.method != "grpo":
            faults.append(f"ratio_level = sequence (GSPO) is of grpo, not of {self.method}")
        if self.dynamic_sampling and not self.uses_groups:
            faults.append(f"dynamic_sampling redraws groups, which {self.method} has not")
        if self.clip_high is not None and not self.clip_high > 0:
            faults.append(f"clip_high = {self.clip_high}: must be above 0")
        if self.method == "rloo" and self.kl_place == "loss":
            faults.append("rloo has its KL penalty in the reward (kl_place); grpo in the loss")
        return faults
