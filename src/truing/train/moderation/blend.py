"""`truing train moderation --blend A B`: two trained classifiers as one, their logits weighed against each other.

Both were trained on the same sets with the same folds; the weights come from the rows of those folds that neither had
learned. A language model and an encoder err in different places: their blend is better than each (docs/log).

    OUT/truing.json thresholds.json blend.json card.json    OUT/NAME/    each member: its tensors and settings
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from truing.core.errors import PlanError, UserError
from truing.core.taxonomy import load_taxonomy
from truing.core.types import Lineage
from truing.judges.moderation.scorer import hash_classifier_folder
from truing.judges.moderation.settings import BlendWeights, read_settings
from truing.judges.moderation.settings import ClassifierSettings as FolderSettings
from truing.judges.moderation.settings import write_json as write_json
from truing.train.moderation import card as cards
from truing.train.moderation.calibration import (
    Calibration,
    OutOfFoldLogits,
    cross_fit,
    fit_calibration,
)
from truing.train.moderation.examples import (
    ModerationExample,
    ModerationTrainingSet,
    fold_of,
    give_unique_names,
)
from truing.train.moderation.run import (
    MIXED_LOGITS_FILE,
    ModerationResult,
    build_thresholds,
    split_in_halves,
)
from truing.train.moderation.settings import ModerationTrainingSettings

_SHARED = ("data", "tenths", "folds", "held")
_TAKEN = (
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


def read_run_settings(member: Path) -> ModerationTrainingSettings:
    """What a member's training was told; PlanError where the folder is of no finished training."""
    path = member / "run.json"
    try:
        given = msgspec.json.decode(path.read_bytes())["settings"]
        made = msgspec.convert(given, ModerationTrainingSettings)
    except (OSError, KeyError, TypeError, msgspec.MsgspecError) as error:
        raise PlanError(
            f"{path}: no training run of a moderation classifier ({str(error)[:120]})"
        ) from error
    if not (member / "truing.json").is_file():
        raise PlanError(f"{member}: its training is not finished; give that command again")
    return made


def blend_classifiers(
    members: Sequence[Path], sources: Sequence[ModerationTrainingSet], out: Path
) -> ModerationResult:
    """Writes the blend's folder. `sources` are the members' own data; PlanError where they were trained differently."""
    told = _alike(members)
    measured = [
        i
        for s in give_unique_names(sources)
        for i in s.items
        if fold_of(i.key, told.folds) < told.trained_folds
    ]
    evidence = _evidence(members, measured, told)
    home = np.array([i.source == measured[0].source for i in measured])
    prompts = np.array([i.alone for i in measured])
    choice = fit_calibration(evidence, home, prompts, wide=True)
    ids = load_taxonomy().ids
    out.mkdir(parents=True, exist_ok=True)
    (out / "truing.json").unlink(missing_ok=True)
    names = _copied(members, out)
    write_json(out / "blend.json", _weights(choice))
    write_json(out / "thresholds.json", build_thresholds(ids, choice))
    settings = _settings(members, names, out)
    write_json(out / "truing.json", settings)
    p, said = cross_fit(evidence, home, prompts, wide=True)
    found = cards.compute_card_metrics(measured, p, said, measured[0].source, ids)
    asked = found["questions"].get("harmful")
    card = cards.ClassifierCard(
        judge=settings.lineage.name,
        judge_hash=hash_classifier_folder(out),
        data=sources[0].spec,
        data_hash=sources[0].sha256,
        method=_method(told, names),
        ece=asked.ece if asked else None,
        kappa=asked.kappa if asked else None,
        languages=settings.languages,
        lineage=cards.summarise_lineage(settings.lineage),
        licence=settings.licence,
        **found,
    )
    cards.write_card(out / "card.json", card)
    return ModerationResult(out, card.judge_hash, card)


def _alike(members: Sequence[Path]) -> ModerationTrainingSettings:
    if len(members) != 2:
        raise PlanError(f"a blend has two members, not {len(members)}")
    one, two = (read_run_settings(m) for m in members)
    differ = [k for k in _SHARED if getattr(one, k) != getattr(two, k)]
    if differ:
        raise PlanError(
            f"{members[0]} and {members[1]} were trained with other {', '.join(differ)}: no row is new to both"
        )
    if one.folds < 2:
        raise PlanError(
            "the members were trained with one fold: there is no row that they have not learned"
        )
    return one


def _evidence(
    members: Sequence[Path], measured: Sequence[ModerationExample], told: ModerationTrainingSettings
) -> OutOfFoldLogits:
    found = []
    for member in members:
        path = member / "folds" / MIXED_LOGITS_FILE
        try:
            z = np.asarray(np.load(path), dtype=np.float64)
        except (OSError, ValueError) as error:
            raise PlanError(f"{path}: {error}; give the member's training command again") from error
        if len(z) != len(measured):
            raise PlanError(
                f"{path}: {len(z)} rows, the data has {len(measured)}: other data than the member's training saw"
            )
        found.append(z)
    targets = np.array([i.targets for i in measured], float)
    parts = np.array([fold_of(i.key, told.folds) for i in measured])
    return OutOfFoldLogits(
        found[0],
        found[1],
        targets,
        parts if told.trained_folds > 1 else split_in_halves(measured, told.folds),
    )


def _weights(choice: Calibration) -> BlendWeights:
    mix = choice.mix
    a, b, gate, bias = (tuple(map(float, values)) for values in (mix.a, mix.b, mix.gate, mix.bias))
    return BlendWeights(weights=(a, b), gate=gate, bias=bias)


def _copied(members: Sequence[Path], out: Path) -> tuple[str, ...]:
    """The members' files under their folders' names; the hashes of the prompts stand in the blend's own settings."""
    names = tuple(m.resolve().name for m in members)
    if len(set(names)) < len(names):
        raise PlanError(f"the members are both called {names[0]}: rename one of the folders")
    for member, name in zip(members, names):
        target = out / name
        if target.resolve() == member.resolve():
            raise PlanError(f"--out {out}: a member stands there; give a folder of its own")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for file in _TAKEN:
            if (member / file).is_file():
                shutil.copyfile(member / file, target / file)
        own = read_settings(target)
        write_json(
            target / "truing.json",
            msgspec.structs.replace(own, lineage=Lineage(name=own.lineage.name), data=()),
        )
    return names


def _settings(members: Sequence[Path], names: tuple[str, ...], out: Path) -> FolderSettings:
    own = [read_settings(m) for m in members]
    first = own[0]
    if any(s.members for s in own) or own[1].categories != first.categories:
        raise UserError(f"{members[1]}: a member has the same categories and no members of its own")
    lineage = msgspec.structs.replace(
        first.lineage,
        name=f"moderation:{out.name}",
        base=" + ".join(s.lineage.base or s.base for s in own),
    )
    return msgspec.structs.replace(first, members=names, lineage=lineage)


def _method(told: ModerationTrainingSettings, names: tuple[str, ...]) -> str:
    part = "one of them measured, weights and thresholds for each half of it chosen on the other"
    if told.trained_folds > 1:
        part = (
            f"{told.trained_folds} of them measured, weights and thresholds chosen without the fold"
        )
    shipped = (
        "; what is shipped learned every row and was not measured itself" if told.whole else ""
    )
    return f"{' and '.join(names)}: {told.folds} folds by normalised prompt, {part}{shipped}"
