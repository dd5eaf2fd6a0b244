"""`truing train moderation`: trains a classifier for harm and its categories."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec.structs import replace

from truing.cli.parameters import Flag, OptionalPaths, OptionalStrings
from truing.cli.settings_flags import fields_of, flags_of, setting_values
from truing.cli.tables import print_json, print_text
from truing.cli.training import GOES_ON, SliceFlags, make_slice_limit
from truing.core.errors import SpecError, UserError
from truing.plan.step_inputs import DataInputs
from truing.specs.extras import needs_extra
from truing.specs.parser import Spec, parse_spec
from truing.train.moderation.settings import ModerationTrainingSettings

if TYPE_CHECKING:
    from truing.train.moderation.classifier_export import ModerationResult
    from truing.train.moderation.examples import ModerationTrainingSet

STEPS_PER_LINE = 50


# Settings that only Python has; `languages` is that of the training data.
_WITHOUT_FLAG = (
    "head_lr",
    "layer_decay",
    "warmup",
    "dropout",
    "prompt_dropout",
    "pair_weight",
    "category_weight",
    "languages",
)


@flags_of(
    fields_of(
        ModerationTrainingSettings, without=("data", "weights", "tenths", "out", *_WITHOUT_FLAG)
    ),
    fields_of(DataInputs, ("limit",)),
    group=None,
)
class ModerationFlags(SliceFlags):
    """How to train."""


class WeightedSpec(NamedTuple):
    """A data spec, its weight, and the first and last tenth of its prompts that are used."""

    spec: Spec
    weight: float
    tenths: tuple[int, int]


def parse_weighted_spec(text: str) -> WeightedSpec:
    """Parses a data spec and takes out the trainer's own arguments, `weight` and `tenths`."""
    spec = parse_spec(text)
    args = dict(spec.args)
    weight, tenths = str(args.pop("weight", "1")), str(args.pop("tenths", "0-9"))
    first, _, last = tenths.partition("-")
    try:
        parsed_weight, parsed_tenths = float(weight), (int(first), int(last or first))
    except ValueError as error:
        message = f"spec '{text}': weight must be a number, tenths a range such as 0-6"
        raise SpecError(message) from error
    if not 0 <= parsed_tenths[0] <= parsed_tenths[1] <= 9:
        raise SpecError(f"spec '{text}': tenths={tenths}: must be from 0 to 9")
    return WeightedSpec(msgspec.structs.replace(spec, args=args), parsed_weight, parsed_tenths)


def command(
    *,
    out: Path,
    data: OptionalStrings = None,
    blend: OptionalPaths = None,
    flags: ModerationFlags | None = None,
    json: Flag = False,
) -> int:
    """Trains a moderation classifier: harmful or not, refused or not, and the 14 categories.

    Parameters
    ----------
    out
        Folder for the log, the checkpoints and the classifier; the judge is moderation:OUT.
    data
        Specs of labelled sets. The argument weight= is the number of passes over the set in an
        epoch; tenths=0-6 uses only those tenths of its prompts. Thresholds are chosen and the card
        is measured on the first set.
    blend
        Instead of --data: two folders of finished trainings on the same data and folds; the
        classifier is their weighted blend.
    json
        Print the card's figures as JSON.
    """
    flags = flags or ModerationFlags()
    rows = DataInputs(**setting_values(flags, DataInputs))
    if bool(data) == bool(blend):
        raise UserError("give either --data SPEC... or --blend FOLDER FOLDER")
    with needs_extra("truing train moderation", "train"):
        from truing.train.moderation.blend import blend_classifiers
        from truing.train.moderation.finished_run import read_run_settings
        from truing.train.moderation.run import train_moderation

    if blend:
        # The data of the first training; the trainer checks that the second had the same.
        settings = read_run_settings(blend[0])
        specs = [
            WeightedSpec(parse_spec(text), weight, tenths)
            for text, weight, tenths in zip(settings.data, settings.weights, settings.tenths)
        ]
        # The training sets are read again: the weights of the blend are fitted on held-out rows.
        rows = replace(rows, allow_measurement_prompts=settings.allow_measurement_prompts)
        trained_classifier = blend_classifiers(blend, _read_training_sets(specs, rows), out)
    else:
        specs = [parse_weighted_spec(text) for text in data or ()]
        training_sets = _read_training_sets(specs, rows)
        settings = ModerationTrainingSettings(
            data=tuple(str(s.spec) for s in specs),
            weights=tuple(s.weight for s in specs),
            tenths=tuple(s.tenths for s in specs),
            out=str(out),
            **setting_values(flags, ModerationTrainingSettings),
        )
        trained = train_moderation(
            settings,
            training_sets,
            on_log=None if json else _print_step,
            limit=make_slice_limit(flags.max_steps, flags.max_minutes),
        )
        if trained is None:
            print_text(f"{out}: the slice ends here; {GOES_ON}", file=sys.stderr)
            return 0
        trained_classifier = trained
    _print_result(trained_classifier, as_json=json)
    return 0


def _read_training_sets(
    specs: Sequence[WeightedSpec], rows: DataInputs
) -> list[ModerationTrainingSet]:
    from truing.core.taxonomy import load_taxonomy
    from truing.specs.resolve import resolve
    from truing.train.moderation.examples import read_moderation_set

    categories = load_taxonomy().ids
    return [
        read_moderation_set(
            resolve(s.spec, "data"),
            categories,
            weight=s.weight,
            tenths=s.tenths,
            limit=rows.limit,
            allow_frozen=rows.allow_measurement_prompts,
        )
        for s in specs
    ]


def _print_step(row: dict[str, Any]) -> None:
    """Prints every fiftieth step to standard error."""
    if int(row["step"]) % STEPS_PER_LINE == 0:
        step = f"step {row['step']} of {row['steps']}"
        print_text(f"fold {row['fold']}  {step}  loss {row['loss']:.3f}", file=sys.stderr)


def _print_result(result: ModerationResult, *, as_json: bool) -> None:
    card = result.card
    judge = f"moderation:{result.folder}"
    if as_json:
        fields = {"judge": judge, "judge_hash": result.hash, "card": card}
        print_json(msgspec.json.encode(fields))
        return
    print_text(f"{judge} ({result.hash}); {card.method}")
    for dataset, questions in card.sets.items():
        for question, measured in questions.items():
            scores = measured.scores
            if scores.auroc is not None and scores.f1 is not None:
                print_text(
                    f"  {dataset:<20} {question:<15} n {scores.n:<6} "
                    f"AUROC {scores.auroc.estimate:.3f}  F1 {scores.f1.estimate:.3f}"
                )
    if card.micro_f1 is not None:
        macro = ""
        if card.macro_f1 is not None:
            macro = f", macro-F1 {card.macro_f1:.3f} over {len(card.macro_over)}"
        print_text(f"  categories: micro-F1 {card.micro_f1.estimate:.3f}{macro}")
    for note in card.notes:
        print_text(f"  {note}")
