"""What a supervised training run is told, and what one row of it is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from truing.core.errors import PlanError, did_you_mean
from truing.core.lineage import digest

TrainingKind = Literal["sft", "distil", "reward", "cost", "dpo", "kto"]
TRAINING_KINDS: tuple[TrainingKind, ...] = ("sft", "distil", "reward", "cost", "dpo", "kto")
POLICY_KINDS = ("sft", "distil", "dpo", "kto")
# Settings that change how a run is kept, not what it computes.
_KEPT = ("out", "save_every", "keep", "tensorboard", "micro", "checkpointing")


class TrainingSettings(Struct, frozen=True, kw_only=True):
    """How to train. `batch` rows a step in all, in micro-batches of `micro` a process; the loss is the whole batch's."""

    kind: TrainingKind
    out: str
    base: str = "smollm2"
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
    dtype: str = "auto"
    checkpointing: bool = False
    shard: bool = False
    seed: int = 0
    save_every: int = 50
    keep: int = 2
    template: Literal["auto", "plain"] = "auto"
    turns: Literal["last", "all"] = "last"
    loss: str = ""
    beta: float = 0.1
    label_smoothing: float = 0.0
    level: Literal["sequence", "token"] = "sequence"
    regularization: float = 0.0
    center: float = 0.0
    temperature: float = 1.0
    teacher: str = ""
    held_out: float = 0.0
    benign: float = 0.3
    tensorboard: bool = True
    red_model: str | None = None

    def digest(self) -> str:
        """Identifies what is computed, so that a resumed run is the same run."""
        plain = msgspec.to_builtins(self)
        return digest(*(f"{k}={plain[k]}" for k in sorted(plain) if k not in _KEPT))

    def checked(self) -> TrainingSettings:
        """Itself, or a PlanError with all faults together."""
        faults = []
        if self.kind not in TRAINING_KINDS:
            faults.append(f"kind {self.kind!r} is unknown{did_you_mean(self.kind, TRAINING_KINDS)}")
        for name, low in (
            ("batch", 1),
            ("micro", 1),
            ("keep", 1),
            ("save_every", 1),
            ("max_length", 16),
            ("lora", 0),
        ):
            if getattr(self, name) < low:
                faults.append(f"{name} = {getattr(self, name)}: at least {low}")
        if self.steps is not None and self.steps < 1:
            faults.append(f"steps = {self.steps}: at least 1")
        if self.steps is None and not self.epochs > 0:
            faults.append(f"epochs = {self.epochs}: above 0")
        for name in ("lr", "beta", "temperature"):
            if not getattr(self, name) > 0:
                faults.append(f"{name} = {getattr(self, name)}: above 0")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            faults.append(
                f"dtype = {self.dtype!r}: auto, float32 or bfloat16 (float16 would need loss scaling)"
            )
        if (
            self.kind == "kto"
            and self.loss != "apo_zero_unpaired"
            and min(self.batch, self.micro) < 2
        ):
            faults.append(
                "kto takes its KL from the other rows of a micro-batch: batch and micro at least 2"
            )
        if not 0 <= self.held_out < 1 or not 0 <= self.benign < 1 or not 0 <= self.warmup < 1:
            faults.append("held_out, benign and warmup are shares: from 0 to below 1")
        if faults:
            raise PlanError(*faults)
        return self

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        return Path(self.out)

    @property
    def scalar(self) -> bool:
        """Whether the model gives a number instead of text."""
        return self.kind in ("reward", "cost")
