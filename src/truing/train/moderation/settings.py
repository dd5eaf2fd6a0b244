"""What a moderation training run is told."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from truing.core.errors import PlanError
from truing.core.lineage import digest

# Settings that change how a run is kept, not what it computes.
_KEPT = ("out", "save_every", "tensorboard")


class ModerationTrainingSettings(Struct, frozen=True, kw_only=True):
    """How to train. `data` are specs with their weights taken out; `weights` are passes over each set an epoch.

    `folds` 1 trains one model on every row (then thresholds come from the rows that it learned, and the card says so);
    from 2 on each fold's model leaves out the prompts of its fold, and the folder holds the mean of their weights
    (Wortsman et al. 2022, Model soups, arXiv:2203.05482). `whole` puts one more model in the mean's place, trained on every
    row, with the thresholds of the folds; `held` trains only so many of the folds (0 = all), which then are the evidence.
    `form`: full, delta (int8), or the rank of a low-rank delta. Of a language model the first `layers` layers are used (0 =
    all), and the first `frozen` of them stay as they are: what they make of a row is computed once.
    """

    data: tuple[str, ...]
    weights: tuple[float, ...]
    tenths: tuple[tuple[int, int], ...]
    out: str
    base: str = "minilm"
    folds: int = 3
    held: int = 0
    whole: bool = False
    layers: int = 0
    frozen: int = 0
    epochs: float = 1.0
    batch_tokens: int = 2048
    lr: float = 1.2e-4
    head_lr: float = 1e-3
    layer_decay: float = 0.95
    warmup: float = 0.06
    dropout: float = 0.1
    lora: int = 0
    prompt_tokens: int = 72
    response_tokens: int = 116
    prompt_dropout: float = 0.08
    pair_weight: float = 0.5
    category_weight: float = 4.0
    ngram_bits: int = 16
    form: str = "full"
    dtype: str = "auto"
    device: str = "auto"
    seed: int = 0
    save_every: int = 200
    tensorboard: bool = True
    languages: tuple[str, ...] = ("en",)

    def digest(self) -> str:
        """Identifies what is computed, so that a resumed run is the same run."""
        plain = msgspec.to_builtins(self)
        return digest(*(f"{k}={plain[k]}" for k in sorted(plain) if k not in _KEPT))

    @property
    def trained_folds(self) -> int:
        """How many folds have a model of their own."""
        return min(self.held, self.folds) if self.held else self.folds

    @property
    def folder(self) -> Path:
        """Where log, checkpoints and the trained folder go."""
        return Path(self.out)

    @property
    def rank(self) -> int | None:
        """The rank of a low-rank delta, or none."""
        return int(self.form) if self.form.isdigit() else None

    def checked(self) -> ModerationTrainingSettings:
        """Itself, or a PlanError with all faults together."""
        faults = []
        if not self.data:
            faults.append("no data: give --data SPEC[,weight=PASSES]")
        for spec, weight in zip(self.data, self.weights):
            if not weight > 0:
                faults.append(f"{spec}: weight = {weight:g}: above 0")
        for name, low in (
            ("folds", 1),
            ("batch_tokens", 64),
            ("lora", 0),
            ("save_every", 1),
            ("prompt_tokens", 8),
            ("held", 0),
            ("layers", 0),
            ("frozen", 0),
            ("response_tokens", 8),
        ):
            if getattr(self, name) < low:
                faults.append(f"{name} = {getattr(self, name)}: at least {low}")
        for name in ("epochs", "lr", "head_lr"):
            if not getattr(self, name) > 0:
                faults.append(f"{name} = {getattr(self, name)}: above 0")
        for name in ("warmup", "dropout", "prompt_dropout"):
            if not 0 <= getattr(self, name) < 1:
                faults.append(f"{name} = {getattr(self, name)}: a share from 0 to below 1")
        if not 8 <= self.ngram_bits <= 20 and self.ngram_bits != 0:
            faults.append(f"ngram_bits = {self.ngram_bits}: 8 to 20, or 0 for no n-grams")
        if self.form not in ("full", "delta") and not (self.form.isdigit() and int(self.form) > 0):
            faults.append(f"form = {self.form!r}: full, delta, or a rank such as 64")
        if self.frozen and not self.lora:
            faults.append(f"frozen = {self.frozen}: only with adapters (lora)")
        if self.layers and self.frozen >= self.layers:
            faults.append(f"frozen = {self.frozen}: below layers = {self.layers}")
        if self.held and (self.held > self.folds or not self.whole):
            faults.append(f"held = {self.held}: at most folds = {self.folds}, and only with whole")
        if self.whole and self.folds == 1:
            faults.append("whole: only with folds = 2 or more; one fold is the whole already")
        if faults:
            raise PlanError(*faults)
        return self
