"""What all steps of a moderation training run share: settings, encoded examples, folds, base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from truing.core.errors import PlanError
from truing.core.lineage import digest
from truing.core.taxonomy import load_taxonomy
from truing.hf.loading import load_encoder
from truing.hf.weights import Weights, find_weights
from truing.judges.moderation.inputs import EncodedInput, build_input_encoder
from truing.train.checkpoint import CheckpointIdentity
from truing.train.moderation.examples import (
    ModerationExample,
    ModerationTrainingSet,
    fold_of,
    give_unique_names,
)
from truing.train.moderation.finished_run import StartingPoint, read_starting_point
from truing.train.moderation.settings import ModerationTrainingSettings, fold_name

SHARED_SAMPLE_SIZE = 1000  # rows on which the logits of all networks are compared


@dataclass(frozen=True)
class RunContext:
    """The inputs of a run. `folds` has the fold of each item."""

    settings: ModerationTrainingSettings
    sources: Sequence[ModerationTrainingSet]
    items: list[ModerationExample]
    folds: npt.NDArray[np.int64]
    base: Weights
    tokenizer: Any
    category_ids: tuple[str, ...]
    identity: CheckpointIdentity
    start: StartingPoint | None = None

    @property
    def pad_id(self) -> int:
        """The token id for padding."""
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def home(self) -> str:
        """The name of the set on whose rows thresholds are chosen: the first one."""
        return self.sources[0].items[0].source

    @property
    def passes(self) -> dict[str, float]:
        """The passes over each set in an epoch."""
        return {source.items[0].source: source.weight for source in self.sources}

    def in_fold(self, fold: int) -> npt.NDArray[np.bool_]:
        """Returns which items the model of a fold does not learn (with one fold: none of them)."""
        if self.settings.folds == 1:
            return np.zeros(len(self.items), bool)
        return np.asarray(self.folds == fold)

    @property
    def is_measured(self) -> npt.NDArray[np.bool_]:
        """Which items a model has scored that did not learn them (with one fold: all items)."""
        if self.settings.folds == 1:
            return np.ones(len(self.items), bool)
        return np.asarray(self.folds < self.settings.trained_folds)

    @property
    def measured_items(self) -> list[ModerationExample]:
        """The items that are measured."""
        return [item for item, measured in zip(self.items, self.is_measured) if measured]

    @property
    def shared_sample(self) -> list[EncodedInput]:
        """The same rows for every network, spread over all sets."""
        step = max(1, len(self.items) // SHARED_SAMPLE_SIZE)
        return [item.row for item in self.items[::step]]

    @property
    def fold_folders(self) -> dict[int, Path]:
        """The folder of each network to train; the one that learns every row is number `folds`."""
        folder = self.settings.folder / "folds"
        folds = [*range(self.settings.trained_folds)]
        if self.settings.whole:
            folds.append(self.settings.folds)
        return {fold: folder / fold_name(fold, self.settings.folds) for fold in folds}


def prepare_run(
    settings: ModerationTrainingSettings, sources: Sequence[ModerationTrainingSet]
) -> RunContext:
    """Encodes the examples and assigns their folds.

    Raises PlanError if there are too few prompts for the folds.
    """
    sources = give_unique_names(sources)
    start = read_starting_point(settings)
    base = find_weights(settings.base)
    tokenizer = load_encoder(base, dtype="float32", device="cpu").tokenizer
    encoder = build_input_encoder(
        tokenizer, prompt=settings.prompt_tokens, response=settings.response_tokens
    )
    examples = [item for source in sources for item in source.items]
    rows = encoder.encode([item.content for item in examples])
    examples = [
        msgspec.structs.replace(i, encoded=row) for i, row in zip(examples, rows, strict=True)
    ]
    folds = np.array([fold_of(item.key, settings.folds) for item in examples])
    used_folds = len(set(folds.tolist()))
    if settings.folds > 1 and used_folds < settings.folds:
        raise PlanError(f"folds = {settings.folds}: the prompts fill only {used_folds} of them")
    identity = CheckpointIdentity(
        step=0,
        kind="moderation",
        digest=digest(
            settings.digest(),
            *(source.identity for source in sources),
            *([start.hash] if start else []),
        ),
        base_sha256=base.sha256,
    )
    return RunContext(
        settings,
        sources,
        examples,
        folds,
        base,
        tokenizer,
        load_taxonomy().ids,
        identity,
        start,
    )


def split_in_halves(items: Sequence[ModerationExample], folds: int) -> npt.NDArray[np.int64]:
    """Returns 0 or 1 for each item by the hash of its prompt, independent of fold and tenth."""
    return np.array([int(item.key, 16) // (30 * folds) % 2 for item in items])
