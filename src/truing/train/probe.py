"""Trains linear probes: what people or judges say of answers, read off a model's own states.

The model is not changed, and nothing of it is trained. For each question that the answers have
labels for (harmful, refused, helpful, ...) a logistic regression learns from the mean state over an
answer's tokens. It costs one pass over the answers; a few thousand labels suffice, where a reward
model of all weights needs many more. The states are stored in OUT/states, so that a
command that was stopped goes on and new labels need no new pass.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from truing.core.errors import DataError, PlanError, UserError, did_you_mean
from truing.core.licences import join_licences
from truing.core.lineage import digest, hash_prompts
from truing.core.measurement_set import frozen_hashes
from truing.core.private_files import create_folder, replace_file
from truing.core.types import Lineage
from truing.hf.answer_states import AnswerReader, AnswerTokens, States
from truing.hf.chat_tokens import AnswerTooLong
from truing.judges.probe import PROBE_FILE, Probes, QuestionProbe
from truing.train.labelled_answers import LabelledAnswer, LabelledAnswers
from truing.train.model_card import (
    CARD_FILE,
    README_FILE,
    TrainedModelCard,
    read_model_card,
    render_model_card,
)
from truing.train.probe_fit import ProbeFit, fit_probe
from truing.train.probe_settings import ProbeSettings
from truing.train.run_lock import lock_run_folder
from truing.train.trainable_model import BaseModel, find_base_model

EVALUATION_FILE = "evaluation.json"
STATES_FOLDER = "states"
_CHUNK = 256
"""So many answers are read and stored at a time."""


class TrainedProbes(Struct, frozen=True, kw_only=True):
    """The folder of the probes, how each question's does on held-out prompts, and its lineage.

    `layer` is the one that is read, of `layers`; `n_too_long` rows did not fit.
    """

    folder: Path
    layer: int
    fits: dict[str, ProbeFit]
    n_too_long: int
    lineage: Lineage


class _Evaluation(Struct, frozen=True, kw_only=True):
    """`evaluation.json` of one question: everything of the fit but the weights."""

    penalty: float
    n: int
    n_true: int
    held_out_auroc: tuple[float, float, float]
    auroc_of_length: tuple[float, float, float]


def train_probes(
    settings: ProbeSettings,
    sources: Sequence[LabelledAnswers],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> TrainedProbes:
    """Reads the answers with the base, fits the probes and writes the folder `settings.out`.

    `on_progress` is called with the answers read and their number. Probes that are there already
    are replaced. Raises PlanError for settings that do not fit, DataError if a question has too few
    labels, and UserError for a folder that holds another model.
    """
    folder = Path(settings.out)
    items = [item for source in sources for item in source.items]
    questions = _chosen_questions(settings, items)
    if settings.max_length < 1:
        raise PlanError(f"--max-length {settings.max_length}: at least 1 token")
    card = read_model_card(folder)
    if card is not None and card.kind != "probe":
        raise UserError(f"{folder}: holds a {card.kind} model; give another --out")
    base = find_base_model(settings.base)
    reader = AnswerReader.load(
        base.weights,
        layer=settings.layer,
        dtype=settings.dtype,
        device=settings.device,
        window=settings.max_length,
    )
    with lock_run_folder(folder):
        rows = [_encode(reader, item) for item in items]
        used = [(item, row) for item, row in zip(items, rows) if row is not None]
        if not used:
            raise DataError(f"no answer fits into {settings.max_length} tokens with its prompt")
        tokens = [row for _, row in used]
        states = _read_states(reader, base, settings.dtype, folder, tokens, on_progress)
        fits = {
            question: _fit_question(question, used, states, settings.seed) for question in questions
        }
        lineage = _build_lineage(folder, base, sources)
        _write_folder(folder, settings, base, reader, fits, lineage)
    return TrainedProbes(
        folder=folder,
        layer=reader.layer,
        fits=fits,
        n_too_long=len(items) - len(used),
        lineage=lineage,
    )


def _chosen_questions(settings: ProbeSettings, items: Sequence[LabelledAnswer]) -> tuple[str, ...]:
    labelled = sorted({question for item in items for question in item.labels})
    for question in settings.questions:
        if question not in labelled:
            raise DataError(
                f"{question}: no answer has a label for it{did_you_mean(question, labelled)}; the "
                f"data has labels for {', '.join(labelled) or 'nothing'}"
            )
    return settings.questions or tuple(labelled)


def _encode(reader: AnswerReader, item: LabelledAnswer) -> AnswerTokens | None:
    """Returns the tokens of an answer, None if it does not fit."""
    try:
        return reader.encode(item.conversation, item.text, is_cut=item.is_cut)
    except AnswerTooLong:
        return None


def _read_states(
    reader: AnswerReader,
    base: BaseModel,
    dtype: str,
    folder: Path,
    rows: Sequence[AnswerTokens],
    on_progress: Callable[[int, int], None] | None,
) -> States:
    """Returns the states of all rows; what OUT/states holds is not read again."""
    create_folder(folder / STATES_FOLDER)
    states = np.zeros((len(rows), reader.width), dtype=np.float32)
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        texts = (f"{row.start} {row.ids}" for row in chunk)
        key = digest(base.weights.sha256, str(reader.layer), dtype, *texts)
        stored = folder / STATES_FOLDER / f"{key}.npy"
        read = _load_states(stored, (len(chunk), reader.width))
        if read is None:
            read = reader.states(chunk)
            file = io.BytesIO()
            np.save(file, read)
            replace_file(stored, file.getvalue())
        states[start : start + _CHUNK] = read
        if on_progress is not None:
            on_progress(start + len(chunk), len(rows))
    return states


def _load_states(stored: Path, shape: tuple[int, int]) -> States | None:
    """Returns stored states; None if there are none, or if the file is damaged."""
    try:
        read = np.load(stored, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    is_whole = read.shape == shape and read.dtype == np.float32 and np.isfinite(read).all()
    return read if is_whole else None


def _fit_question(
    question: str, used: Sequence[tuple[LabelledAnswer, AnswerTokens]], states: States, seed: int
) -> ProbeFit:
    has_label = np.array([question in item.labels for item, _ in used])
    labelled = [pair for pair, is_labelled in zip(used, has_label) if is_labelled]
    return fit_probe(
        question,
        states[has_label],
        np.array([item.labels[question] for item, _ in labelled]),
        [item.conversation.prompt for item, _ in labelled],
        [len(row.ids) - row.start for _, row in labelled],
        seed=seed,
    )


def _build_lineage(folder: Path, base: BaseModel, sources: Sequence[LabelledAnswers]) -> Lineage:
    inherited = base.lineage
    prompts = hash_prompts(item.conversation.prompt for s in sources for item in s.items)
    judges = {
        judge.hash or judge.name: judge
        for judge in (*(j for s in sources for j in s.judges), *inherited.judges)
    }
    return Lineage(
        name=f"probe:{folder.name}",
        base=inherited.base or inherited.name,
        base_sha256=inherited.base_sha256,
        data=(*inherited.data, *(source.spec for source in sources)),
        prompts=tuple(sorted({*prompts, *inherited.prompts})),
        judges=tuple(judges.values()),
        licence=join_licences(inherited.licence, *(source.licence for source in sources)),
        red_model=inherited.red_model,
    )


def _write_folder(
    folder: Path,
    settings: ProbeSettings,
    base: BaseModel,
    reader: AnswerReader,
    fits: dict[str, ProbeFit],
    lineage: Lineage,
) -> None:
    """Writes the probes, their evaluation, and the card last: a folder with a card is complete."""
    probes = Probes(
        layer=reader.layer,
        max_length=settings.max_length,
        questions={
            question: QuestionProbe(weights=fit.weights, bias=fit.bias)
            for question, fit in fits.items()
        },
    )
    (folder / CARD_FILE).unlink(missing_ok=True)
    encoded = msgspec.json.encode(probes)
    replace_file(folder / PROBE_FILE, encoded)
    replace_file(folder / EVALUATION_FILE, _format_json(dict(_evaluations(fits))))
    used_settings = {
        "layer": reader.layer,
        "questions": list(fits),
        "held_out_auroc": {q: round(fit.held_out.estimate, 3) for q, fit in fits.items()},
        "max_length": settings.max_length,
        "dtype": settings.dtype,
        "seed": settings.seed,
    }
    card = TrainedModelCard(
        kind="probe",
        base=settings.base.removeprefix("local:"),
        base_sha256=base.weights.sha256,
        data=lineage.data,
        lineage=msgspec.structs.replace(lineage, hash=digest("probe", encoded.decode())),
        max_length=settings.max_length,
        red_model=lineage.red_model,
        measurement_prompts=len(frozen_hashes().intersection(lineage.prompts)),
        settings=used_settings,
    )
    replace_file(folder / README_FILE, render_model_card(card).encode())
    replace_file(folder / CARD_FILE, _format_json(card))


def _evaluations(fits: dict[str, ProbeFit]) -> Iterator[tuple[str, _Evaluation]]:
    for question, fit in fits.items():
        held_out, length = fit.held_out, fit.by_length
        yield (
            question,
            _Evaluation(
                penalty=fit.penalty,
                n=fit.n,
                n_true=fit.n_true,
                held_out_auroc=(held_out.estimate, held_out.lower, held_out.upper),
                auroc_of_length=(length.estimate, length.lower, length.upper),
            ),
        )


def _format_json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
