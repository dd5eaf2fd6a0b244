"""Writes the classifier folder of a finished run: tensors, thresholds, settings, card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from truing.core.licences import collect_licences, describe_restriction, join_licences
from truing.core.lineage import hash_prompts
from truing.core.measurement_set import frozen_hashes
from truing.core.types import Lineage
from truing.hf.loading import load_encoder, truncate_layers
from truing.judges.moderation.network import ModerationNetwork
from truing.judges.moderation.network_files import write_body, write_head
from truing.judges.moderation.ngrams import quantise_columns
from truing.judges.moderation.scorer import hash_classifier_folder
from truing.judges.moderation.settings import (
    MODERATION_QUESTIONS,
    ClassifierSettings,
    ClassifierThresholds,
    write_json,
)
from truing.train.moderation.calibration import (
    Calibration,
    OutOfFoldLogits,
    cross_fit,
    fit_calibration,
    sigmoid,
)
from truing.train.moderation.card import (
    ClassifierCard,
    build_card,
    compute_card_metrics,
    list_origins,
    write_card,
)
from truing.train.moderation.examples import ModerationExample
from truing.train.moderation.fold_evidence import collect_evidence
from truing.train.moderation.ngram_fit import NgramRegression
from truing.train.moderation.run_context import RunContext
from truing.train.moderation.settings import ModerationTrainingSettings
from truing.train.moderation.weight_average import load_final_network

# In OUT/folds: the mixed logits of the measured rows, which a blend is fitted on.
MIXED_LOGITS_FILE = "mixed.npy"


@dataclass(frozen=True)
class ModerationResult:
    """The folder of a trained classifier, its hash and its card."""

    folder: Path
    hash: str
    card: ClassifierCard


def export_classifier(context: RunContext) -> ModerationResult:
    """Calibrates the trained networks and writes the folder that `moderation:OUT` loads.

    `truing.json` is written last of the files that make a classifier: a folder with it is complete.
    """
    settings, folder = context.settings, context.settings.folder
    evidence, ngram_model = collect_evidence(context)
    measured = context.measured_items
    is_home, is_prompt = mark_rows(measured, context.home)
    calibration = fit_calibration(evidence, is_home, is_prompt, false_alarms=settings.false_alarms)
    mixed_logits = calibration.mix.apply(evidence.encoder, evidence.ngrams)
    np.save(folder / "folds" / MIXED_LOGITS_FILE, mixed_logits)

    (folder / "truing.json").unlink(missing_ok=True)
    network, note = load_final_network(context)
    ngram_tensors = fold_mix_into_head(network, ngram_model, calibration)
    write_head(network, folder, ngram_tensors)
    base_state = None if settings.form == "full" else _base_state(context)
    write_body(network, context.tokenizer, folder, base_state, settings.rank)
    write_json(folder / "thresholds.json", build_thresholds(context.category_ids, calibration))
    classifier_settings = _build_classifier_settings(context)
    write_json(folder / "truing.json", classifier_settings)
    card = _build_card(context, classifier_settings, evidence, measured, note)
    write_card(folder / "card.json", card)
    return ModerationResult(folder, card.judge_hash, card)


def mark_rows(items: Sequence[ModerationExample], home: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns which items are of the home set, and which are prompts without an answer."""
    is_home = np.array([item.source == home for item in items])
    is_prompt = np.array([item.is_prompt for item in items])
    return is_home, is_prompt


def _base_state(context: RunContext) -> dict[str, torch.Tensor]:
    loaded = load_encoder(context.base, dtype="float32", device="cpu")
    body = truncate_layers(loaded.model, context.settings.layers)
    return {name: tensor.clone() for name, tensor in body.state_dict().items()}


def fold_mix_into_head(
    network: ModerationNetwork, ngram_model: NgramRegression | None, calibration: Calibration
) -> dict[str, torch.Tensor]:
    """Changes the head so that it gives the mixed logits; returns the n-gram tensors to write.

    The mix is linear, so a and g go into the head's weights, b into those of the n-grams.
    """
    mix, questions = calibration.mix, len(MODERATION_QUESTIONS)
    a, b, gate, c = (
        torch.tensor(values, dtype=torch.float32) for values in (mix.a, mix.b, mix.gate, mix.bias)
    )
    head = network.head
    with torch.no_grad():
        weight, bias = head.weight.clone(), head.bias.clone()
        head.weight.copy_(weight * a[:, None])
        head.bias.copy_(bias * a + c)
        head.weight[questions:] += gate[:, None] * weight[0]
        head.bias[questions:] += gate * bias[0]
        if ngram_model is None:
            return {}
        head.bias.add_(torch.from_numpy(ngram_model.bias) * b)
    quantised, scale = quantise_columns(ngram_model.weight * np.asarray(mix.b, np.float32))
    return {
        "weight": torch.from_numpy(quantised),
        "scale": torch.from_numpy(scale),
        "idf": torch.from_numpy(ngram_model.idf).half(),
    }


def build_thresholds(category_ids: Sequence[str], calibration: Calibration) -> ClassifierThresholds:
    """Returns `thresholds.json` of a calibration."""
    # A text of unknown role may be either side, so it gets the stricter of the two thresholds.
    unknown_role = max(calibration.harmful, calibration.harmful_prompt)
    return ClassifierThresholds(
        harmful={
            "pair": calibration.harmful,
            "prompt": calibration.harmful_prompt,
            "response": unknown_role,
        },
        refused=calibration.refused,
        categories={
            name: float(threshold)
            for name, threshold in zip(category_ids, calibration.categories, strict=True)
        },
    )


def _build_classifier_settings(context: RunContext) -> ClassifierSettings:
    settings, base, sources = context.settings, context.base, context.sources
    start = context.start.lineage if context.start else Lineage()
    judges = {judge.hash or judge.name: judge for s in sources for judge in s.judges}
    judges |= {judge.hash or judge.name: judge for judge in start.judges}
    licences = join_licences(*(source.licence for source in sources), start.licence)
    training_sets = tuple(dict.fromkeys((*(source.spec for source in sources), *start.data)))
    prompts = hash_prompts(i.content.turns[-1] for i in context.items if i.content.turns)
    lineage = Lineage(
        name=f"moderation:{settings.folder.name}",
        base=base.title or base.name,
        base_sha256=base.sha256,
        data=training_sets,
        prompts=tuple(sorted({*prompts, *start.prompts})),
        licence=licences,
        judges=tuple(judges.values()),
    )
    is_full = settings.form == "full"
    return ClassifierSettings(
        kind="moderation",
        base=settings.base,
        base_sha256=base.sha256,
        form="full" if is_full else "delta",
        # The config of a full body says how many layers it has.
        layers=0 if is_full else settings.layers,
        categories=context.category_ids,
        prompt_tokens=settings.prompt_tokens,
        response_tokens=settings.response_tokens,
        languages=settings.languages,
        data=training_sets,
        lineage=lineage,
        licence=licences,
        notice=_describe_restrictions(lineage),
    )


def _describe_restrictions(lineage: Lineage) -> str:
    """Returns what a user of the classifier must know: licences that are not free, frozen rows."""
    restriction = describe_restriction("it", collect_licences(lineage))
    notes = [restriction] if restriction else []
    learned = len(frozen_hashes().intersection(lineage.prompts))
    if learned:
        notes.append(f"{learned} of its training prompts are of the frozen measurement set")
    return "; ".join(notes)


def _build_card(
    context: RunContext,
    settings: ClassifierSettings,
    evidence: OutOfFoldLogits,
    measured: Sequence[ModerationExample],
    note: str,
) -> ClassifierCard:
    is_home, is_prompt = mark_rows(measured, context.home)
    alarms = context.settings.false_alarms
    if context.settings.folds > 1:
        probabilities, verdicts = cross_fit(evidence, is_home, is_prompt, false_alarms=alarms)
        method = _describe_method(context.settings)
    else:
        calibration = fit_calibration(evidence, is_home, is_prompt, false_alarms=alarms)
        probabilities = sigmoid(calibration.mix.apply(evidence.encoder, evidence.ngrams))
        verdicts = probabilities >= calibration.thresholds
        method = "on the rows that it was trained on: says nothing of new ones (folds = 1)"
    metrics = compute_card_metrics(
        measured, probabilities, verdicts, context.home, context.category_ids
    )
    category_targets = evidence.targets[:, len(MODERATION_QUESTIONS) :]
    absent = [
        name
        for name, has_positive in zip(context.category_ids, (category_targets == 1).any(0))
        if not has_positive
    ]
    notes = [note, f"no positive row for: {', '.join(absent)}" if absent else ""]
    start = context.start
    origins = list_origins(settings.lineage, context.sources, context.base.licence)
    return build_card(
        metrics,
        settings,
        hash_classifier_folder(context.settings.folder),
        context.sources[0],
        method=method,
        origins=tuple(dict.fromkeys((*origins, *(start.origins if start else ())))),
        notes=tuple(text for text in notes if text),
    )


def _describe_method(settings: ModerationTrainingSettings) -> str:
    """Returns how the card's figures were obtained, for two folds and more."""
    text = f"{settings.folds} folds by normalised prompt"
    if settings.trained_folds == 1:
        text += ", one of them measured; mix and thresholds for each half of it chosen on the other"
    elif settings.trained_folds < settings.folds:
        text += f", {settings.trained_folds} of them measured"
        text += "; mix and thresholds chosen without the fold"
    else:
        text += "; mix and thresholds chosen without the fold"
    if settings.whole:
        text += "; what is shipped learned every row and was not measured itself"
    return text
