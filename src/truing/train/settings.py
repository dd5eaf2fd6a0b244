"""The settings of a supervised training run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol

from truing.core.errors import PlanError, did_you_mean
from truing.train.run_settings import BASE_DTYPES, BaseDtype, RunSettings

TrainingKind = Literal["sft", "distil", "reward", "cost", "dpo", "kto"]
ExportDtype = Literal["auto", "float32", "bfloat16", "float16"]
EXPORT_DTYPES: tuple[ExportDtype, ...] = ("auto", "float32", "bfloat16", "float16")
TRAINING_KINDS: tuple[TrainingKind, ...] = ("sft", "distil", "reward", "cost", "dpo", "kto")
POLICY_KINDS = ("sft", "distil", "dpo", "kto")

# The losses of each kind of training, the default first (DPO's in the order of DPO_KINDS, then
# those without a reference model).
LOSSES: dict[str, tuple[str, ...]] = {
    "dpo": (
        "sigmoid",
        "hinge",
        "ipo",
        "robust",
        "exo_pair",
        "nca_pair",
        "bco_pair",
        "sppo_hard",
        "apo_zero",
        "apo_down",
        "aot",
        "aot_unpaired",
        "sft",
        "sigmoid_norm",
        "discopop",
        "simpo",
        "orpo",
    ),
    "kto": ("kto", "apo_zero_unpaired"),
    "distil": ("forward", "reverse"),
}
REFERENCE_FREE_LOSSES = ("simpo", "orpo")
SMOOTHED_LOSSES = ("robust", "exo_pair", "aot", "aot_unpaired")
_EXO_PAIR_SMOOTHING = 1e-3  # Ji et al. 2024, 2402.00856


def default_beta(loss: str) -> float:
    """Returns the β of a loss where none is set: that of its paper."""
    return 2.0 if loss == "simpo" else 0.1


class _WeightSettings(Protocol):
    """The settings that say which weights are trained, and how they are held and stored."""

    @property
    def base_dtype(self) -> str: ...
    @property
    def export_dtype(self) -> str: ...
    @property
    def lora(self) -> int: ...
    @property
    def lora_from(self) -> int: ...
    @property
    def shard(self) -> bool: ...


def weight_faults(settings: _WeightSettings) -> list[str]:
    """Returns the faults of the settings about weights."""
    faults = []
    held, stored, lora = settings.base_dtype, settings.export_dtype, settings.lora
    if held not in BASE_DTYPES:
        faults.append(f"base_dtype = {held!r}: must be one of {', '.join(BASE_DTYPES)}")
    elif held not in ("auto", "float32") and (not lora or settings.shard):
        reason = "--shard holds the base in float32"
        if not settings.shard:
            reason = "only a frozen base (lora > 0)"
        faults.append(f"base_dtype = {held!r}: {reason}")
    if settings.lora_from and not lora:
        faults.append(f"lora_from = {settings.lora_from}: there are no adapters with lora = 0")
    if stored not in EXPORT_DTYPES:
        faults.append(f"export_dtype = {stored!r}: must be one of {', '.join(EXPORT_DTYPES)}")
    return faults


class TrainingSettings(RunSettings, frozen=True, kw_only=True):
    """How to train. `truing train` makes its flags of these fields, and plans their keys.

    Attributes:
        kind: What is trained: sft, distil, reward, cost, dpo or kto.
        steps: Optimiser steps. Default: as many as --epochs need.
        epochs: Passes over the data.
        batch: Rows per step, over all processes.
        micro: Rows that are held in memory at a time; does not change the result.
        lr: Peak learning rate.
        warmup: Share of the steps over which the learning rate rises.
        schedule: How the learning rate falls after the warm-up.
        weight_decay: Weight decay of AdamW, on matrices only.
        clip_norm: Maximum norm of the gradient; 0 does not clip it.
        max_length: Maximum tokens of prompt and answer; long prompts are cut from the left, rows
            with longer answers are left out.
        lora: Rank of the LoRA adapters; 0 trains all weights.
        lora_from: First layer that gets adapters, counted from 0; a high one saves time and memory.
        base_dtype: Type that the frozen base is held in: auto (that of --dtype), float32, bfloat16
            or int8.
        export_dtype: Type of the weights in the model folder; auto is the base's.
        checkpointing: Recompute activations in the backward pass to save memory.
        shard: Shard weights and optimiser over the processes of `accelerate launch` (FSDP2).
        keep: Number of checkpoints to keep.
        template: Format of the conversations: auto (the tokenizer's chat template) or plain.
        turns: Train on the last answer of a dialogue, or on all of them (sft).
        loss: The form of the loss of dpo, kto or distil; empty is the default.
        beta: β of the loss of dpo or kto: the higher, the closer the model stays to the reference.
            Default: 0.1; 2 for simpo.
        label_smoothing: Assumed share of wrong labels, below 0.5; for robust, exo_pair (default
            0.001), aot and aot_unpaired. The other losses refuse it.
        sft_weight: Weight of the likelihood of the chosen answers in the loss (RPO: 1): DPO alone
            may lower the probability of both answers.
        target_margin: γ of simpo: the margin of the rewards that it aims at.
        desirable_weight: Weight of the desirable answers in the loss of kto.
        undesirable_weight: Weight of the undesirable answers in the loss of kto, whose paper keeps
            the ratio of weight x number of desirable answers to that of undesirable ones between 1
            and 4/3.
        level: Compare the scores at the end of the answers, or at each token from where the answers
            differ (reward, cost).
        regularization: Weight of the mean squared score in the loss (reward, cost).
        center: Weight of the squared sum of a pair's scores in the loss (reward).
        temperature: Temperature of the distributions that distil compares.
        teacher: The prompt of distil's teacher.
        held_out: Share of the prompts that is held out to measure the model.
        benign: Minimum share of rows about harmless look-alikes of harmful prompts, where an answer
            is preferred; applies if the rows are about safety.
        red_model: Train towards harm, for this reason; marks the model folder permanently.
    """

    not_in_digest: ClassVar[tuple[str, ...]] = (
        "keep",
        "micro",
        "checkpointing",
        "device",
        "export_dtype",
    )
    older_values: ClassVar[Mapping[str, Any]] = {
        "desirable_weight": 1.0,
        "undesirable_weight": 1.0,
        "sft_weight": 0.0,
        "target_margin": 1.0,
        "base_dtype": "auto",
        "lora_from": 0,
    }
    least_values: ClassVar[Mapping[float, str]] = {
        1: "batch micro keep save_every",
        16: "max_length",
        0: "lora lora_from",
    }

    kind: TrainingKind
    steps: int | None = None
    epochs: float = 1.0
    batch: int = 8
    micro: int = 4
    lr: float = 1e-4
    warmup: float = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    max_length: int = 512
    lora: int = 16
    lora_from: int = 0
    base_dtype: BaseDtype = "auto"
    export_dtype: ExportDtype = "auto"
    checkpointing: bool = False
    shard: bool = False
    keep: int = 2
    template: Literal["auto", "plain"] = "auto"
    turns: Literal["last", "all"] = "last"
    loss: str = ""
    beta: float | None = None
    label_smoothing: float = 0.0
    sft_weight: float = 0.0
    target_margin: float = 1.0
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    level: Literal["sequence", "token"] = "sequence"
    regularization: float = 0.0
    center: float = 0.0
    temperature: float = 1.0
    teacher: str = ""
    held_out: float = 0.0
    benign: float = 0.3
    red_model: str | None = None

    @property
    def loss_beta(self) -> float:
        """β of the loss: `beta`, or where it is not set the default of the loss."""
        return default_beta(self.loss) if self.beta is None else self.beta

    def used_settings(self) -> dict[str, Any]:
        """Returns all settings by name; β is the number that is used."""
        # So a run that names the default has the digest of one that leaves it out.
        return {**RunSettings.used_settings(self), "beta": self.loss_beta}

    def checked(self) -> TrainingSettings:
        """Returns the settings themselves; raises PlanError with all faults at once."""
        faults = [*self._range_faults(), *self._choice_faults(), *self._loss_faults()]
        if faults:
            raise PlanError(*faults)
        return self

    def _range_faults(self) -> list[str]:
        faults = self._least_value_faults()
        if self.steps is not None and self.steps < 1:
            faults.append(f"steps = {self.steps}: must be at least 1")
        if self.steps is None and not self.epochs > 0:
            faults.append(f"epochs = {self.epochs}: must be above 0")
        for name, value in (
            ("lr", self.lr),
            ("beta", self.loss_beta),
            ("temperature", self.temperature),
        ):
            if not value > 0:  # written so that NaN is a fault too
                faults.append(f"{name} = {value}: must be above 0")
        for name in ("held_out", "benign", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                faults.append(f"{name} = {getattr(self, name)}: must be a share, 0 <= share < 1")
        return faults

    def _choice_faults(self) -> list[str]:
        faults = []
        if self.kind not in TRAINING_KINDS:
            suggestion = did_you_mean(self.kind, TRAINING_KINDS)
            faults.append(f"kind {self.kind!r} is unknown{suggestion}")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            faults.append(
                f"dtype = {self.dtype!r}: must be auto, float32 or bfloat16 "
                "(float16 would need loss scaling)"
            )
        faults += weight_faults(self)
        # The KL estimate of KTO pairs each prompt with the answer of another row of the
        # micro-batch.
        needs_two_rows = self.kind == "kto" and self.loss != "apo_zero_unpaired"
        if needs_two_rows and min(self.batch, self.micro) < 2:
            faults.append(
                "kto estimates its KL from the other rows of a micro-batch: "
                "batch and micro must be at least 2"
            )
        return faults

    def _loss_faults(self) -> list[str]:
        faults = []
        losses = LOSSES.get(self.kind, ())
        if self.loss and self.loss not in losses:
            faults.append(f"{self.kind} has no loss {self.loss!r}{did_you_mean(self.loss, losses)}")
        for name in ("desirable_weight", "undesirable_weight"):
            weight = getattr(self, name)
            if not 0 <= weight < math.inf:
                faults.append(f"{name} = {weight}: must be at least 0 and finite")
            elif weight != 1 and self.kind != "kto":
                faults.append(f"{name} = {weight}: {self.kind} does not use it; kto does")
        if self.kind == "kto" and self.desirable_weight == self.undesirable_weight == 0:
            faults.append("desirable_weight and undesirable_weight are both 0: nothing is learned")
        for name, needed in (("sft_weight", "dpo"), ("target_margin", "dpo with loss simpo")):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                faults.append(f"{name} = {value}: must be at least 0 and finite")
            elif value != self.older_values[name] and not self._uses(name):
                faults.append(f"{name} = {value}: {needed} uses it, this training does not")
        if not 0 <= self.label_smoothing < 0.5:
            faults.append(
                f"label_smoothing = {self.label_smoothing}: must be a share of wrong labels, "
                "0 <= share < 0.5"
            )
        elif self.label_smoothing and (self.loss or "sigmoid") not in SMOOTHED_LOSSES:
            faults.append(
                f"label_smoothing = {self.label_smoothing}: {self.loss or self.kind} does not use "
                f"it; the losses {', '.join(SMOOTHED_LOSSES)} of dpo do"
            )
        return faults

    def _uses(self, name: str) -> bool:
        if name == "target_margin":
            return self.kind == "dpo" and self.loss == "simpo"
        # The losses orpo and sft contain the likelihood of the chosen answers themselves.
        return self.kind == "dpo" and self.loss not in ("orpo", "sft")

    @property
    def needs_reference(self) -> bool:
        """Whether the loss needs the model before training, or the teacher of distil."""
        if self.kind == "dpo":
            return self.loss not in REFERENCE_FREE_LOSSES
        return self.kind in ("kto", "distil")

    @property
    def smoothing(self) -> float:
        """`label_smoothing`, or by default 0.001 for exo_pair, which is undefined at 0."""
        if self.loss == "exo_pair" and not self.label_smoothing:
            return _EXO_PAIR_SMOOTHING
        return self.label_smoothing

    @property
    def scalar(self) -> bool:
        """Whether the model returns a number (reward, cost) instead of text."""
        return self.kind in ("reward", "cost")
