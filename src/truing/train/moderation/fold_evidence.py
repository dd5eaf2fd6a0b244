"""Out-of-fold logits of a run: of the networks, from their folders, and of the n-gram models."""

from __future__ import annotations

import numpy as np

from truing.judges.moderation.settings import MODERATION_QUESTIONS
from truing.train.moderation.calibration import Floats, OutOfFoldLogits
from truing.train.moderation.loss import UNLISTED_CATEGORY_WEIGHT, sets_with_categories
from truing.train.moderation.ngram_fit import NgramRegression, fit_ngram_regression, ngram_matrix
from truing.train.moderation.run_context import RunContext, split_in_halves

LOGITS_FILE = "logits.npy"  # in the folder of a fold: the logits of its rows


def collect_evidence(context: RunContext) -> tuple[OutOfFoldLogits, NgramRegression | None]:
    """Returns the logits of the measured rows, and the n-gram model of all rows.

    There is no n-gram model if `ngram_bits` is 0. With one fold the logits are of rows that were
    learned.
    """
    targets = np.array([item.targets for item in context.items], float)
    encoder_logits = np.zeros_like(targets)
    for fold in range(context.settings.trained_folds):
        inside = context.in_fold(fold) if context.settings.folds > 1 else context.is_measured
        encoder_logits[inside] = np.load(context.fold_folders[fold] / LOGITS_FILE)
    ngram_logits, ngram_model = _fit_ngram_models(context, targets)
    measured = context.is_measured
    evidence = OutOfFoldLogits(
        encoder_logits[measured],
        ngram_logits[measured],
        targets[measured],
        _calibration_folds(context)[measured],
        _number_sets(context)[measured] if context.settings.calibrate == "sets" else None,
    )
    return evidence, ngram_model


def _fit_ngram_models(
    context: RunContext, targets: Floats
) -> tuple[Floats, NgramRegression | None]:
    """Returns the out-of-fold logits of a model per fold, and the model of all rows."""
    settings = context.settings
    logits = np.zeros_like(targets)
    if not settings.ngram_bits:
        return logits, None
    x = ngram_matrix([item.row for item in context.items], settings.ngram_bits)
    weight = _label_weights(context, targets.shape[1])
    if settings.folds > 1:
        for fold in range(settings.trained_folds):
            inside = context.in_fold(fold)
            learned = np.flatnonzero(~inside)
            model = fit_ngram_regression(x[learned], targets[learned], weight[learned])
            logits[inside] = model.logits(x[np.flatnonzero(inside)])
    whole_model = fit_ngram_regression(x, targets, weight)
    if settings.folds == 1:
        logits[:] = whole_model.logits(x)
    return logits, whole_model


def _label_weights(context: RunContext, outputs: int) -> Floats:
    """Returns the weight of each label `[n, outputs]`: the passes over its set.

    The categories of sets that list none weigh less, as in the loss of the networks.
    """
    passes = context.passes
    listing_sets = sets_with_categories(context.items)
    row_weights = np.array([passes[item.source] for item in context.items])
    weights = np.repeat(row_weights[:, None], outputs, 1)
    is_unlisted = [item.source not in listing_sets for item in context.items]
    weights[is_unlisted, len(MODERATION_QUESTIONS) :] *= UNLISTED_CATEGORY_WEIGHT
    return weights


def _calibration_folds(context: RunContext) -> np.ndarray:
    """Returns the parts of the rows for cross-fitting: the folds.

    If only one fold is measured, its prompts are split into two halves instead.
    """
    settings = context.settings
    if settings.trained_folds > 1 or settings.folds == 1:
        return context.folds
    return split_in_halves(context.items, settings.folds)


def _number_sets(context: RunContext) -> np.ndarray:
    """Returns the number of each item's data set."""
    sources = [item.source for item in context.items]
    numbers = {source: number for number, source in enumerate(dict.fromkeys(sources))}
    return np.array([numbers[source] for source in sources])
