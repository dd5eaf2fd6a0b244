"""`truing train moderation`: a classifier for harm and its categories, from labelled sets; the same command goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from truing.core.errors import SpecError, UserError
from truing.specs.parser import parse_spec
from truing.specs.resolve import load_object, resolve

if TYPE_CHECKING:
    from truing.specs.parser import Spec


@Parameter(name="*")
@dataclass(frozen=True)
class How:
    """How to train.

    Parameters
    ----------
    base
        minilm, smollm2, a folder in the Hugging Face layout, a hub id; an encoder or a causal language model.
    folds
        Models that are trained, each without the prompts of its fold; the classifier is their mean. 1 = no card worth the name.
    held
        Train only so many of the folds, as evidence; with --whole. 0 = all.
    whole
        Write not the folds' mean but one more model, trained on every row.
    layers
        Use only the first so many layers of a language model; 0 = all.
    frozen
        The first so many of them do not learn: what they make of a row is computed once. With --lora.
    epochs
        Passes over the mix (a set's weight multiplies them).
    lora
        Rank of the adapters; 0 trains all of the body but its embeddings.
    form
        What is written: full, delta (int8 changes of a base that truing knows), or a rank such as 64.
    batch_tokens
        Tokens a step.
    lr
        The highest learning rate of the body.
    prompt_tokens
        Tokens of the prompt that are read.
    response_tokens
        Tokens of the answer that are read.
    ngram_bits
        The n-gram model has 2 to this power buckets; 0 = none.
    dtype
        auto (bfloat16 where the hardware has it), float32 or bfloat16; weights stay in float32.
    device
        auto, cpu or cuda.
    seed
        Seed of initialisation and order.
    save_every
        Steps between checkpoints.
    tensorboard
        Write event files under OUT/tb.
    limit
        Take only the first so many rows of each data set.
    """

    base: str = "minilm"
    folds: int = 3
    held: int = 0
    whole: Annotated[bool, Parameter(negative="")] = False
    layers: int = 0
    frozen: int = 0
    epochs: float = 1.0
    lora: int = 0
    form: str = "full"
    batch_tokens: int = 2048
    lr: float = 1.2e-4
    prompt_tokens: int = 72
    response_tokens: int = 116
    ngram_bits: int = 16
    dtype: str = "auto"
    device: str = "auto"
    seed: int = 0
    save_every: int = 200
    tensorboard: bool = True
    limit: int | None = None


def taken_out(text: str) -> tuple[Spec, float, tuple[int, int]]:
    """A data spec without the trainer's own arguments: its weight, and the tenths of its prompts."""
    spec = parse_spec(text)
    args = dict(spec.args)
    weight, tenths = str(args.pop("weight", "1")), str(args.pop("tenths", "0-9"))
    first, _, last = tenths.partition("-")
    try:
        made = (float(weight), (int(first), int(last or first)))
    except ValueError as error:
        raise SpecError(f"spec '{text}': weight is a number, tenths such as 0-6") from error
    if not 0 <= made[1][0] <= made[1][1] <= 9:
        raise SpecError(f"spec '{text}': tenths={tenths}: from 0 to 9")
    return msgspec.structs.replace(spec, args=args), *made


def command(
    *,
    out: Path,
    data: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    blend: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")] = None,
    how: How | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Trains a moderation classifier: harmful or not, refused or not, and the 14 categories.

    Parameters
    ----------
    out
        Where log, checkpoints and the classifier go; the judge is moderation:OUT.
    data
        Specs of labelled sets; weight= is how many passes an epoch takes over the set, tenths=0-6 takes the prompts that lie
        in those tenths. The first set is the one on which thresholds are chosen and the card is made.
    blend
        In the place of --data: two folders of finished trainings over the same data and folds; the classifier weighs both.
    json
        Print the card's figures as JSON.
    """
    given = how or How()
    if bool(data) == bool(blend):
        raise UserError("give either --data SPEC... or --blend FOLDER FOLDER")
    if blend:
        told = load_object("truing.train.moderation.blend:read_run_settings")(blend[0])
        same = zip(map(parse_spec, told.data), told.weights, told.tenths)
        result = load_object("truing.train.moderation.blend:blend_classifiers")(
            blend, _sources(list(same), given.limit), out
        )
        _show(result, as_json=json)
        return 0
    asked = [taken_out(text) for text in data or ()]
    sources = _sources(asked, given.limit)
    more = {f: getattr(given, f) for f in given.__dataclass_fields__ if f != "limit"}
    settings = load_object("truing.train.moderation.settings:ModerationTrainingSettings")(
        data=tuple(str(s) for s, _, _ in asked),
        weights=tuple(w for _, w, _ in asked),
        tenths=tuple(t for _, _, t in asked),
        out=str(out),
        **more,
    )
    result = load_object("truing.train.moderation.run:train_moderation")(
        settings, sources, tell=None if json else _Teller()
    )
    _show(result, as_json=json)
    return 0


def _sources(asked: Sequence[tuple[Spec, float, tuple[int, int]]], limit: int | None) -> list[Any]:
    read, names = (
        load_object("truing.train.moderation.examples:read_training_set"),
        load_object("truing.core.taxonomy:load_taxonomy")().ids,
    )
    return [
        read(resolve(spec, "data"), names, weight=weight, tenths=tenths, limit=limit)
        for spec, weight, tenths in asked
    ]


class _Teller:
    """A line on standard error every fifty steps."""

    def __call__(self, row: dict[str, Any]) -> None:
        import sys

        if int(row["step"]) % 50 == 0:
            print(
                f"fold {row['fold']}  step {row['step']} of {row['steps']}  loss {row['loss']:.3f}",
                file=sys.stderr,
            )


def _show(result: Any, *, as_json: bool) -> None:
    card = result.card
    if as_json:
        print(
            msgspec.json.encode(
                {"judge": f"moderation:{result.folder}", "judge_hash": result.hash, "card": card}
            ).decode()
        )
        return
    print(f"moderation:{result.folder} ({result.hash}); {card.method}")
    for source, questions in card.sets.items():
        for question, made in questions.items():
            s = made.scores
            if s.auroc is not None and s.f1 is not None:
                print(
                    f"  {source:<20} {question:<15} n {s.n:<6} AUROC {s.auroc.estimate:.3f}  F1 {s.f1.estimate:.3f}"
                )
    if card.micro_f1 is not None:
        macro = (
            f", macro-F1 {card.macro_f1:.3f} over {len(card.macro_over)}"
            if card.macro_f1 is not None
            else ""
        )
        print(f"  categories: micro-F1 {card.micro_f1.estimate:.3f}{macro}")
    for note in card.notes:
        print(f"  {note}")
