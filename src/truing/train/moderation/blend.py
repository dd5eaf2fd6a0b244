"""`truing train moderation --blend A B`: one classifier of two, their logits weighed.

Both were trained on the same sets with the same folds; the weights are fitted on the rows of the
folds that neither learned. A language model and an encoder err in different places, so their blend
is better than each.

    OUT/truing.json  thresholds.json  blend.json  card.json
    OUT/NAME/    each member: its tensors and settings
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from truing.core.errors import PlanError, UserError
from truing.core.private_files import create_folder
from truing.core.taxonomy import load_taxonomy
from truing.core.types import Lineage
from truing.judges.moderation.scorer import hash_classifier_folder
from truing.judges.moderation.settings import (
    BlendWeights,
    ClassifierSettings,
    read_settings,
    write_json,
)
from truing.train.moderation.calibration import (
    LogitMix,
    OutOfFoldLogits,
    cross_fit,
    fit_calibration,
)
from truing.train.moderation.card import (
    CardOrigin,
    build_card,
    compute_card_metrics,
    write_card,
)
from truing.train.moderation.classifier_export import (
    MIXED_LOGITS_FILE,
    ModerationResult,
    build_thresholds,
    mark_rows,
)
from truing.train.moderation.examples import (
    ModerationExample,
    ModerationTrainingSet,
    fold_of,
    give_unique_names,
)
from truing.train.moderation.finished_run import read_origins, read_run_settings
from truing.train.moderation.run_context import split_in_halves
from truing.train.moderation.settings import ModerationTrainingSettings

# Settings that both members must share: otherwise no row is new to both.
_SHARED_SETTINGS = ("data", "tenths", "folds", "held")
_MEMBER_FILES = (
    "truing.json",
    "head.safetensors",
    "delta.safetensors",
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)


def blend_classifiers(
    members: Sequence[Path], sources: Sequence[ModerationTrainingSet], out: Path
) -> ModerationResult:
    """Writes the folder of the blend; `sources` are the members' own training data.

    Raises PlanError if the members were not trained alike, or on other data.
    """
    settings = _check_members(members)
    examples = [
        item
        for source in give_unique_names(sources)
        for item in source.items
        if fold_of(item.key, settings.folds) < settings.trained_folds
    ]
    evidence = _read_evidence(members, examples, settings)
    home = examples[0].source
    is_home, is_prompt = mark_rows(examples, home)
    calibration = fit_calibration(evidence, is_home, is_prompt, mix_on_all_rows=True)
    category_ids = load_taxonomy().ids

    create_folder(out)
    (out / "truing.json").unlink(missing_ok=True)
    names = _copy_members(members, out)
    write_json(out / "blend.json", _blend_weights(calibration.mix))
    write_json(out / "thresholds.json", build_thresholds(category_ids, calibration))
    classifier_settings = _build_classifier_settings(members, names, out)
    write_json(out / "truing.json", classifier_settings)

    p, verdicts = cross_fit(evidence, is_home, is_prompt, mix_on_all_rows=True)
    card = build_card(
        compute_card_metrics(examples, p, verdicts, home, category_ids),
        classifier_settings,
        hash_classifier_folder(out),
        sources[0],
        method=_describe_method(settings, names),
        origins=_merge_origins(members),
    )
    write_card(out / "card.json", card)
    return ModerationResult(out, card.judge_hash, card)


def _merge_origins(members: Sequence[Path]) -> tuple[CardOrigin, ...]:
    """Returns what the members were made from, each once."""
    return tuple(dict.fromkeys(o for member in members for o in read_origins(member)))


def _check_members(members: Sequence[Path]) -> ModerationTrainingSettings:
    """Returns the settings that the members share."""
    if len(members) != 2:
        raise PlanError(f"a blend has two members, not {len(members)}")
    first, second = (read_run_settings(member) for member in members)
    different = [k for k in _SHARED_SETTINGS if getattr(first, k) != getattr(second, k)]
    if different:
        raise PlanError(
            f"{members[0]} and {members[1]} were trained with other {', '.join(different)}: "
            "no row is new to both"
        )
    if first.folds < 2:
        raise PlanError("the members were trained with one fold: they learned every row")
    return first


def _read_evidence(
    members: Sequence[Path],
    examples: Sequence[ModerationExample],
    settings: ModerationTrainingSettings,
) -> OutOfFoldLogits:
    """Returns the mixed logits of both members, the second in the place of the n-grams."""
    logits = [_read_mixed_logits(member, len(examples)) for member in members]
    targets = np.array([item.targets for item in examples], float)
    if settings.trained_folds > 1:
        folds = np.array([fold_of(item.key, settings.folds) for item in examples])
    else:
        folds = split_in_halves(examples, settings.folds)
    return OutOfFoldLogits(logits[0], logits[1], targets, folds)


def _read_mixed_logits(member: Path, rows: int) -> np.ndarray:
    path = member / "folds" / MIXED_LOGITS_FILE
    try:
        logits = np.asarray(np.load(path), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise PlanError(f"{path}: {error}; repeat the member's training command") from error
    if len(logits) != rows:
        raise PlanError(
            f"{path}: has {len(logits)} rows, the data has {rows}: "
            "these are other data than the member was trained on"
        )
    return logits


def _blend_weights(mix: LogitMix) -> BlendWeights:
    a, b, gate, bias = (
        tuple(float(value) for value in values) for values in (mix.a, mix.b, mix.gate, mix.bias)
    )
    return BlendWeights(weights=(a, b), gate=gate, bias=bias)


def _copy_members(members: Sequence[Path], folder: Path) -> tuple[str, ...]:
    """Copies the members' files into folders of their names; returns the names."""
    names = tuple(member.resolve().name for member in members)
    if len(set(names)) < len(names):
        raise PlanError(f"the members are both called {names[0]}: rename one of the folders")
    for member, name in zip(members, names, strict=True):
        target = folder / name
        if target.resolve() == member.resolve():
            raise PlanError(f"--out {folder}: a member is in there; give another folder")
        shutil.rmtree(target, ignore_errors=True)
        create_folder(target)
        for file in _MEMBER_FILES:
            if (member / file).is_file():
                shutil.copyfile(member / file, target / file)
        # The hashes of the prompts are in the blend's own settings and need not be there twice.
        settings = read_settings(target)
        short_lineage = Lineage(name=settings.lineage.name)
        settings = msgspec.structs.replace(settings, lineage=short_lineage, data=())
        write_json(target / "truing.json", settings)
    return names


def _build_classifier_settings(
    members: Sequence[Path], names: tuple[str, ...], folder: Path
) -> ClassifierSettings:
    first, second = (read_settings(member) for member in members)
    if first.members or second.members or first.categories != second.categories:
        raise UserError(
            f"{members[1]}: members must have the same categories and no members of their own"
        )
    lineage = msgspec.structs.replace(
        first.lineage,
        name=f"moderation:{folder.name}",
        base=" + ".join(s.lineage.base or s.base for s in (first, second)),
    )
    return msgspec.structs.replace(first, members=names, lineage=lineage)


def _describe_method(settings: ModerationTrainingSettings, names: tuple[str, ...]) -> str:
    """Returns how the card's figures were obtained."""
    text = f"{' and '.join(names)}: {settings.folds} folds by normalised prompt, "
    if settings.trained_folds > 1:
        text += f"{settings.trained_folds} of them measured, "
        text += "weights and thresholds chosen without the fold"
    else:
        text += "one of them measured, "
        text += "weights and thresholds for each half of it chosen on the other"
    if settings.whole:
        text += "; what is shipped learned every row and was not measured itself"
    return text
