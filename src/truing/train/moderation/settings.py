"""The settings of a moderation training run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from truing.core.errors import PlanError
from truing.train.run_settings import RunSettings


def fold_name(fold: int, folds: int) -> str:
    """Returns the folder's name of a fold's network; number `folds` has learned every row."""
    return "whole" if fold == folds else f"fold-{fold}"


class ModerationTrainingSettings(RunSettings, frozen=True, kw_only=True):
    """How to train a moderation classifier.

    `data` are specs without their own `weight` and `tenths`, which are in `weights` (passes over
    the set in an epoch) and `tenths` (the range of prompts that is used, by hash).

    With `folds` of 2 or more, each fold's model is trained without the prompts of its fold, and the
    folder holds the mean of their weights (Wortsman et al. 2022, Model soups, arXiv:2203.05482).
    With 1 fold a single model is trained on every row; thresholds then come from rows that it
    learned, and the card says so. `held` trains only so many of the folds (0: all); their rows are
    the evidence for thresholds and card. `whole` writes, instead of the mean, one more model that
    is trained on every row.

    The threshold of `harmful` has the best F1 on the rows of the first set, that of
    `harmful_prompt` on all prompts; or, with `false_alarms` above 0, each is the lowest one by
    which at most that share of the harmless rows is flagged.

    The probabilities of `harmful` are fitted to the rows of the first set; with `calibrate` =
    "sets" to those of all sets, each with the same weight, apart for answers and for prompts.

    Networks start from the base, or, with `start`, from those of the finished run in that folder:
    each from the one of its fold, which has not learned the rows of the fold either.

    `form` is what is written: full, delta (int8 change of the base), or the rank of a low-rank
    change. The field names enter the digest and `run.json`, so renaming one breaks the resuming of
    old runs.

    Attributes:
        base: The model to start from: minilm, smollm2, a folder in the Hugging Face layout, or a
            hub id; an encoder or a causal language model.
        folds: Number of models, each trained without the prompts of its fold; the classifier is
            their mean. With 1 the card has no held-out rows to measure on.
        held: With --whole: train only this many of the folds, to measure on. 0 trains all.
        whole: Write one more model, trained on every row, instead of the mean of the folds.
        layers: Use only the first LAYERS layers of a language model; 0 uses all.
        frozen: With --lora: do not train the first FROZEN layers; their outputs are computed once
            for each row.
        epochs: Passes over the data (multiplied by the weight of each set).
        batch_tokens: Tokens per step.
        lr: Peak learning rate of the body.
        head_lr: Peak learning rate of the heads.
        layer_decay: Factor of the learning rate from each layer to the one below it.
        warmup: Share of the steps over which the learning rates rise.
        dropout: Share of the features of the body's output that is set to 0 in a step.
        lora: Rank of the LoRA adapters; 0 trains all weights but the embeddings.
        prompt_tokens: Tokens of the prompt that are read.
        response_tokens: Tokens of the answer that are read.
        prompt_dropout: Share of the rows that are read without their prompt.
        pair_weight: Weight of the loss that compares answers to one prompt.
        category_weight: Weight of the loss of the categories.
        ngram_bits: The n-gram model has 2 to the power of this many buckets; 0 has none.
        false_alarms: Choose the lowest thresholds that flag at most this share of the harmless
            answers of the first set, and of all harmless prompts; 0 chooses those with the best F1.
        calibrate: Fit the probabilities of harm to the first set (home), or to all sets with equal
            weights, apart for answers and for prompts (sets).
        start: Folder of a finished training to start from in place of the base, with the same
            folds.
        form: Format of the classifier: full, delta (int8 changes to a base that truing knows), or a
            rank such as 64.
        languages: Languages that the classifier knows; text in another one is unscored.
        allow_measurement_prompts: Train on rows of the frozen measurement set too; the lineage then
            strikes later figures on it.
    """

    # What `allow_measurement_prompts` leaves in is in the identity of the training sets.
    not_in_digest: ClassVar[tuple[str, ...]] = ("allow_measurement_prompts",)
    older_values: ClassVar[Mapping[str, Any]] = {
        "false_alarms": 0.0,
        "calibrate": "home",
        "start": "",
    }
    least_values: ClassVar[Mapping[float, str]] = {
        1: "folds save_every",
        8: "prompt_tokens response_tokens",
        64: "batch_tokens",
        0: "lora held layers frozen",
    }

    data: tuple[str, ...]
    weights: tuple[float, ...]
    tenths: tuple[tuple[int, int], ...]
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
    false_alarms: float = 0.0
    calibrate: str = "home"
    start: str = ""
    form: str = "full"
    save_every: int = 200
    languages: tuple[str, ...] = ("en",)
    allow_measurement_prompts: bool = False

    @property
    def trained_folds(self) -> int:
        """The number of folds that have a model of their own."""
        return min(self.held, self.folds) if self.held else self.folds

    @property
    def rank(self) -> int | None:
        """The rank of a low-rank change, or None for the other forms."""
        return int(self.form) if self.form.isdigit() else None

    def checked(self) -> ModerationTrainingSettings:
        """Returns the settings themselves; raises PlanError with all faults at once."""
        faults = [*self._range_faults(), *self._combination_faults()]
        if faults:
            raise PlanError(*faults)
        return self

    def _range_faults(self) -> list[str]:
        faults = []
        if not self.data:
            faults.append("no data: give --data SPEC[,weight=PASSES]")
        for spec, weight in zip(self.data, self.weights):
            if not weight > 0:
                faults.append(f"{spec}: weight = {weight:g}: must be above 0")
        faults += self._least_value_faults()
        for name in ("epochs", "lr", "head_lr"):
            if not getattr(self, name) > 0:
                faults.append(f"{name} = {getattr(self, name)}: must be above 0")
        for name in ("warmup", "dropout", "prompt_dropout", "false_alarms"):
            if not 0 <= getattr(self, name) < 1:
                faults.append(f"{name} = {getattr(self, name)}: must be a share, 0 <= share < 1")
        if not 8 <= self.ngram_bits <= 20 and self.ngram_bits != 0:
            faults.append(f"ngram_bits = {self.ngram_bits}: must be 8 to 20, or 0 for no n-grams")
        if self.calibrate not in ("home", "sets"):
            faults.append(f"calibrate = {self.calibrate!r}: must be home or sets")
        if self.form not in ("full", "delta") and not (self.rank or 0) > 0:
            faults.append(f"form = {self.form!r}: must be full, delta, or a rank such as 64")
        return faults

    def _combination_faults(self) -> list[str]:
        faults = []
        if self.frozen and not self.lora:
            faults.append(f"frozen = {self.frozen}: needs adapters (lora)")
        if self.layers and self.frozen >= self.layers:
            faults.append(f"frozen = {self.frozen}: must be below layers = {self.layers}")
        if self.start and self.lora:
            faults.append(f"start = {self.start}: cannot be used with adapters (lora)")
        if self.held and (self.held > self.folds or not self.whole):
            faults.append(
                f"held = {self.held}: must be at most folds = {self.folds}, and needs whole"
            )
        if self.whole and self.folds == 1:
            faults.append(
                "whole: needs folds = 2 or more; one fold is trained on every row already"
            )
        return faults
