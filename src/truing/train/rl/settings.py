"""What an RL run is told: method, sizes, KL, critics, the constraint, the group, what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from truing.core.errors import PlanError, did_you_mean
from truing.core.lineage import digest

Method = Literal["ppo", "ppo-lag", "reward-shaping", "rloo", "grpo"]
METHODS: tuple[Method, ...] = ("ppo", "ppo-lag", "reward-shaping", "rloo", "grpo")
GROUP: tuple[Method, ...] = ("rloo", "grpo")
# Settings that change how a run is kept or cut into pieces, not what it computes.
_KEPT = (
    "out",
    "shard",
    "steps",
    "save_every",
    "keep",
    "sample_every",
    "micro",
    "score_micro",
    "tensorboard",
)


class RLSettings(Struct, frozen=True, kw_only=True):
    """One RL run. A step draws `prompts` × `n` answers, has them scored, and takes `epochs` passes of gradient steps
    over them, `minibatch` answers each (0 = all), in forwards of `micro` answers.

    Sizes count answers over all processes. `kl` is β; `kl_place` puts KL to the reference into the reward (k1, as
    Safe RLHF) or the loss (k3, as GRPO); `kl_target` > 0 makes β adaptive (Ziegler et al. 2019). `kl_step_limit` ends
    the passes over a rollout, `kl_limit` the run. `constraint` is what λ holds below `threshold`: the mean cost of
    the last `window` answers, or the mean of their worst `tail` share (CVaR). `surrogate`: advantages combined and
    then clipped (Safe RLHF's code), or each clipped by itself (its paper). `nu` is the fixed price of reward shaping.
    """

    method: Method
    out: str
    base: str = "smollm2"
    steps: int = 100
    prompts: int = 16
    n: int = 1
    epochs: int = 1
    minibatch: int = 0
    micro: int = 8
    score_micro: int = 16
    # answers
    max_new: int = 64
    max_prompt: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    truncation_penalty: float = 0.0
    # optimisers
    lr: float = 0.0
    critic_lr: float = 0.0
    warmup: float = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    lora: int = 16
    dtype: str = "auto"
    shard: bool = False
    # policy
    clip: float = 0.2
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
    # scores
    clip_score: float | None = 50.0
    clip_reward: float | None = None
    normalise_reward: Literal["none", "running", "ema"] = "none"
    normalise_cost: Literal["none", "running", "ema"] = "none"
    max_unscored: float = 0.2
    # constraint
    threshold: float = 0.0
    lambda_init: float = 1.0
    lambda_lr: float = 0.1
    lambda_max: float | None = 5.0
    lambda_min: float | None = None
    window: int = 128
    delay: int = 0
    constraint: Literal["mean", "cvar"] = "mean"
    tail: float = 0.1
    surrogate: Literal["combined", "separate"] = "combined"
    nu: float = 1.0
    # group methods
    scale: Literal["group", "batch", "none", "auto"] = "auto"
    loss: Literal["grpo", "bnpo", "dr_grpo", "dapo", "auto"] = "auto"
    # pre-training mix
    ptx: float = 0.0
    ptx_batch: int = 8
    # what is kept
    seed: int = 0
    save_every: int = 10
    keep: int = 2
    sample_every: int = 0
    tensorboard: bool = True
    template: Literal["auto", "plain"] = "auto"
    red_model: str | None = None

    def digest(self) -> str:
        """Identifies what is computed, so that a resumed run is the same run."""
        plain = msgspec.to_builtins(self)
        return digest(*(f"{k}={plain[k]}" for k in sorted(plain) if k not in _KEPT))

    @property
    def kind(self) -> str:
        """The method, as model folders and checkpoints name it."""
        return self.method

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        return Path(self.out)

    @property
    def max_length(self) -> int:
        """Tokens of the longest prompt and answer."""
        return self.max_prompt + self.max_new

    @property
    def scalar(self) -> bool:
        """Whether the model gives a number instead of text: a policy does not."""
        return False

    @property
    def answers(self) -> int:
        """Answers a step."""
        return self.prompts * self.n

    @property
    def grouped(self) -> bool:
        """Whether answers are compared within their prompt, without a critic."""
        return self.method in GROUP

    @property
    def rows(self) -> int:
        """Answers a gradient step."""
        return self.minibatch or self.answers

    @property
    def kl_in_loss(self) -> bool:
        """Whether the KL stands in the loss (the default of GRPO alone)."""
        return self.kl_place == "loss" or (self.kl_place == "auto" and self.method == "grpo")

    @property
    def actor_lr(self) -> float:
        """The learning rate as given, or 1e-4 for adapters and 1e-5 for whole models."""
        return self.lr or (1e-4 if self.lora else 1e-5)

    @property
    def value_lr(self) -> float:
        """The critics' rate as given, or half of the actor's (Safe RLHF: 9.65e-6 and 5e-6)."""
        return self.critic_lr or self.actor_lr / 2

    def checked(self, *, costs: bool) -> RLSettings:
        """Itself, or a PlanError with all faults together; `costs` says whether there is a cost signal."""
        faults = [*self._sizes(), *self._shares()]
        if self.method not in METHODS:
            faults.append(f"method {self.method!r} is unknown{did_you_mean(self.method, METHODS)}")
        if self.method in ("ppo-lag", "reward-shaping") and not costs:
            faults.append(
                f"{self.method} needs a cost: --cost SPEC (a judge whose value or score is the cost)"
            )
        if self.method == "ppo" and costs:
            faults.append(
                "ppo has no use for a cost: ppo-lag holds it below --threshold, reward-shaping subtracts it"
            )
        if self.grouped and self.n < 2:
            faults.append(
                f"{self.method} compares the answers to one prompt: n = {self.n}, at least 2"
            )
        if self.answers % self.rows:
            faults.append(
                f"minibatch = {self.minibatch} does not divide the {self.answers} answers of a step"
            )
        if self.method == "rloo" and self.kl_place == "loss":
            faults.append("rloo keeps its KL in the reward; grpo has it in the loss")
        if faults:
            raise PlanError(*faults)
        return self

    def _sizes(self) -> list[str]:
        least = {
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
            "window": 1,
            "delay": 0,
            "save_every": 1,
            "keep": 1,
            "sample_every": 0,
            "ptx_batch": 1,
            "warmup": 0,
            "ptx": 0,
            "kl": 0,
            "kl_target": 0,
            "nu": 0,
            "temperature": 1e-6,
            "clip": 1e-6,
            "lr": 0,
            "critic_lr": 0,
            "lambda_lr": 0,
        }
        return [
            f"{k} = {getattr(self, k)}: at least {low}"
            for k, low in least.items()
            if not getattr(self, k) >= low
        ]

    def _shares(self) -> list[str]:
        faults = [
            f"{k} = {getattr(self, k)}: above 0 and at most 1"
            for k in ("top_p", "tail", "gamma", "gae_lambda")
            if not 0 < getattr(self, k) <= 1
        ]
        if not 0 <= self.max_unscored < 1:
            faults.append(f"max_unscored = {self.max_unscored}: a share from 0 to below 1")
        if not self.lambda_init > 0:
            faults.append(f"lambda_init = {self.lambda_init}: above 0, for λ lives in log space")
        low, high = self.lambda_min or 0.0, self.lambda_max
        if high is not None and not low <= self.lambda_init <= high:
            faults.append(
                f"lambda_init = {self.lambda_init} lies outside its bounds [{low}, {high}]"
            )
        return faults
