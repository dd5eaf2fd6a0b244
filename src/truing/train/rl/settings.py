"""The settings of an RL run: method, sizes, KL penalty, critics, constraint, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec

from truing.core.errors import PlanError, did_you_mean
from truing.train.rl.constraint_settings import MAIN_CONSTRAINT, ConstraintSettings
from truing.train.run_settings import BaseDtype, RunSettings
from truing.train.settings import ExportDtype, weight_faults

Method = Literal["ppo", "ppo-lag", "reward-shaping", "rloo", "grpo"]
METHODS: tuple[Method, ...] = ("ppo", "ppo-lag", "reward-shaping", "rloo", "grpo")
GROUP_METHODS: tuple[Method, ...] = ("rloo", "grpo")

# Older versions wrote it into the digest, although it changes no step.
_ALWAYS_IN_DIGEST = {"max_unscored": 0.2}


class RLSettings(RunSettings, frozen=True, kw_only=True):
    """The settings of one RL run. `truing train` makes its flags of these fields, plans their keys.

    A step samples `n` answers to each of `prompts` prompts, scores them, and takes `epochs` passes
    over them, with one gradient step per `minibatch` answers and forward passes of `micro` answers.
    All sizes count the answers of all processes. `kl_place` reward uses the k1 estimator, as Safe
    RLHF, loss the k3 estimator, as GRPO; `kl_target` adapts β as Ziegler et al. 2019. Sequence
    ratios are GSPO's, `clip_high`, `dynamic_sampling` and `overlong_buffer` DAPO's (2503.14476).
    `surrogate` combined is the code of Safe RLHF, separate its paper.

    Attributes:
        method: ppo, ppo-lag, reward-shaping, rloo or grpo.
        steps: Rollouts, each with its gradient steps.
        prompts: Prompts per step.
        n: Answers to each prompt (default: 1; 4 for rloo and grpo, which compare them).
        epochs: Passes of gradient steps over the answers of a step.
        minibatch: Answers per gradient step; 0 takes all.
        micro: Answers that are held in memory at a time; changes the result with --loss bnpo alone.
        score_micro: Answers that a judge of the run scores at a time.
        max_new: Maximum tokens of an answer.
        max_prompt: Prompts with more tokens are left out.
        temperature: Sampling temperature of the answers; training uses the same distribution.
        top_p: Nucleus sampling. Below 1 the answers come from a narrower distribution than training
            assumes.
        empty_answer_score: Reward of an empty answer: a number, lowest (the lowest reward of the
            run so far), or unscored. Its cost is the mean of the step's other answers.
        special_token_score: Reward of an answer with special tokens in it: a number, lowest, judged
            (as it stands), or hidden (judged without them). Its cost is judged.
        truncation_penalty: Subtracted from the reward of an answer that was cut off: a number, or
            auto (one standard deviation of the step's rewards).
        overlong_buffer: If above 0, the penalty for cut answers rises over this many tokens before
            --max-new.
        mask_truncated: Leave answers that were cut off out of the gradient.
        cut_answers: Reward and cost models read a cut answer as it stands (open) or with an end
            token appended (closed).
        lr: Learning rate of the policy; 0 means 1e-4 for LoRA, 1e-5 for all weights.
        critic_lr: Learning rate of the critics; 0 means half of the policy's.
        warmup: Share of the steps over which the learning rates rise.
        schedule: How the learning rates fall after the warm-up.
        weight_decay: Weight decay of AdamW, on matrices only.
        clip_norm: Maximum norm of the gradient; 0 does not clip it.
        lora: Rank of the LoRA adapters; 0 trains all weights, in a separate copy of each model.
        lora_from: First layer that gets adapters, counted from 0; a high one saves time and memory.
        base_dtype: Type that the frozen base is held in: auto (that of --dtype), float32, bfloat16
            or int8.
        checkpointing: Recompute activations in the backward pass to save memory.
        export_dtype: Type of the weights in the model folder; auto is the base's.
        shard: Shard the weights over the processes of `accelerate launch` or Ray (FSDP2).
        clip: The probability ratio is clipped to 1 ± CLIP.
        clip_high: If given, the upper limit is 1 + CLIP_HIGH (clip-higher of DAPO: 0.28).
        ratio_level: Clip the ratio of each token, or (sequence) its mean over each answer: GSPO,
            with --clip 3e-4 --clip-high 4e-4.
        importance_cap: Where another engine or precision samples, weight tokens by their
            probability in training over that in sampling, at most this; 0 does not.
        clip_value: Maximum change of a critic's value in a step (value clipping).
        gamma: Discount factor.
        gae_lambda: λ of generalised advantage estimation.
        reduction: Average the loss over each answer first (row), or over all tokens (token).
        whiten: Scale the advantages to mean 0 and variance 1.
        kl: β: coefficient of the KL from the reference model.
        kl_place: Put the KL into the reward (k1 estimator) or the loss (k3); auto is loss for grpo,
            else reward.
        kl_target: If above 0, adapt β so that the KL of an answer stays at this value.
        kl_horizon: Answers over which --kl-target adapts β.
        kl_step_limit: If above 0, end the passes over a rollout when the KL per token from the
            sampling policy exceeds this value.
        kl_limit: If above 0, end the run when the KL of an answer from the reference exceeds this
            value.
        clip_score: Scores of reward and cost models are clipped to ± this value.
        clip_reward: Rewards are clipped to ± this value.
        normalise_reward: Statistics by which rewards are normalised: none, running, or ema (moving
            averages).
        normalise_cost: Statistics by which costs are scaled; the threshold stays in the unit of the
            cost.
        max_unscored: The run stops if a larger share of a step's answers could not be scored; 1
            never stops it.
        threshold: Limit of the cost, which the Lagrange multiplier λ enforces.
        lambda_init: Initial value of the Lagrange multiplier.
        lambda_control: How the Lagrange multiplier follows the cost: PID control once a rollout, or
            gradient ascent at each gradient step (as Safe RLHF).
        lambda_lr: Speed of the control: the gains of pid are proportional to it; gradient's
            learning rate.
        lambda_max: Upper bound of the Lagrange multiplier.
        lambda_min: Lower bound of the Lagrange multiplier.
        window: Number of recent answers whose cost is compared with the threshold.
        delay: Gradient steps before the Lagrange multiplier is first updated.
        constraint: Constrain the mean cost, or the mean over the worst --tail of the answers
            (cvar).
        tail: Share of the worst answers for cvar.
        surrogate: Combine the advantages of reward and cost and clip the result, or clip each
            separately.
        nu: ν: fixed price of the cost in reward-shaping.
        constraints: Further constraints, each with a cost and a λ of its own.
        baseline: Compare an answer with the others to its prompt (group), or with all answers of
            the step that the reward or the constraint counts (step); step also takes --n 1.
        scale: Divide group advantages by the deviation of the group, of the batch, or not at all.
        loss: How grpo averages its loss: per answer (grpo), over the tokens of a micro-batch (bnpo)
            or of the step (dapo), or by --max-new (dr_grpo).
        dynamic_sampling: Redraw groups whose answers all score alike from other prompts, up to this
            many times.
        ptx: Weight of the language-model loss on --ptx-data.
        ptx_batch: Rows of --ptx-data in a step.
        save_every: Steps between checkpoints.
        keep: Number of checkpoints to keep.
        sample_every: Steps between evaluations; each becomes a run folder under OUT/samples. 0:
            none.
        template: Format of the conversations: auto (the tokenizer's chat template) or plain.
        red_model: Train towards harm, for this reason; marks the model folder permanently.
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
        "lora_from": 0,
        "clip_high": None,
        "ratio_level": "token",
        "importance_cap": 0.0,
        "dynamic_sampling": 0,
        "baseline": "group",
    }
    least_values: ClassVar[Mapping[float, str]] = {
        1: "steps prompts n epochs micro score_micro max_new max_prompt save_every keep ptx_batch",
        1e-6: "temperature clip",
        0: "minibatch lora lora_from delay sample_every warmup ptx kl kl_target overlong_buffer "
        "importance_cap dynamic_sampling nu lr critic_lr",
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
    lora_from: int = 0
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
    baseline: Literal["group", "step"] = "group"
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
        faults = self._least_value_faults()
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
        faults += weight_faults(self)
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
        if self.uses_groups and self.n < 2 and self.baseline == "group":
            faults.append(
                f"{self.method} compares the answers to one prompt: n = {self.n}, at least 2"
            )
        if self.ratio_level == "sequence" and self.method != "grpo":
            faults.append(f"ratio_level = sequence (GSPO) is of grpo, not of {self.method}")
        if not self.uses_groups and (self.dynamic_sampling or self.baseline == "step"):
            faults.append(f"dynamic_sampling and baseline are of rloo and grpo, not {self.method}")
        if self.clip_high is not None and not self.clip_high > 0:
            faults.append(f"clip_high = {self.clip_high}: must be above 0")
        if self.method == "rloo" and self.kl_place == "loss":
            faults.append("rloo has its KL penalty in the reward (kl_place); grpo in the loss")
        return faults
