"""Trains linear probes: what raters or judges say of answers, read off a model's own states.

The model is not changed. For each question that the answers have labels for (harmful, refused,
helpful, ...) a logistic regression learns from the mean state over an answer's tokens. It costs one
pass over the answers. The states are stored in OUT/states by answer: a command that was stopped
goes on there, and of new labels only answers that had none before are read.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from truing.core.errors import DataError, UserError, did_you_mean
from truing.core.lineage import digest
from truing.core.measurement_set import frozen_hashes
from truing.core.private_files import create_folder, replace_file
from truing.core.types import Lineage
from truing.hf.answer_states import AnswerStateEncoder, AnswerTokens, States
from truing.hf.chat_tokens import AnswerTooLong
from truing.judges.probe import ARGUMENTS, PROBE_FILE, Probes, QuestionProbe
from truing.train.labelled_answers import LabelledAnswer, LabelledAnswers
from truing.train.model_card import (
    CARD_FILE,
    README_FILE,
    TrainedModelCard,
    read_model_card,
    render_model_card,
)
from truing.train.model_folder import inherit_lineage
from truing.train.probe_fit import ProbeFit, count_label_faults, fit_probe
from truing.train.probe_settings import ProbeSettings
from truing.train.run_lock import lock_run_folder
from truing.train.trainable_model import BaseModel, find_base_model

EVALUATION_FILE = "evaluation.json"
STATES_FOLDER = "states"
_CHUNK = 256
"""So many answers are read and stored at a time."""
_QUESTION = re.compile(r"[A-Za-z]\w*")


class TrainedProbes(Struct, frozen=True, kw_only=True):
    """The folder of the probes, how each question's does on held-out prompts, and its lineage.

    `layer` is the one that is read. `left_out` are the questions with too few labels, with the
    reason, `unreadable` counts the answers that were left out, by reason.
    """

    folder: Path
    layer: int
    fits: dict[str, ProbeFit]
    left_out: dict[str, str]
    unreadable: dict[str, int]
    lineage: Lineage


class _Evaluation(Struct, frozen=True, kw_only=True):
    """`evaluation.json` of one question: everything of the fit but weights and logits."""

    penalty: float
    n: int
    n_true: int
    held_out_auroc: tuple[float, float, float]
    auroc_of_length: tuple[float, float, float]
    precision: float
    recall: float


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
    _choose_questions(settings, items)
    _check_folder(folder)
    base = find_base_model(settings.base)
    encoder = AnswerStateEncoder.load(
        base.weights,
        layer=settings.layer,
        dtype=settings.dtype,
        device=settings.device,
        window=settings.max_length,
    )
    with lock_run_folder(folder):
        unreadable: Counter[str] = Counter()
        encoded = [(item, _encode(encoder, item, unreadable)) for item in items]
        used = [(item, row) for item, row in encoded if row is not None]
        if not used:
            reasons = ", ".join(f"{count} {reason}" for reason, count in unreadable.items())
            raise DataError(f"no answer can be read: {reasons}")
        # Again, of what can be read; before, it told faults without loading the model.
        questions, left_out = _choose_questions(settings, [item for item, _ in used])
        states = StoredStates(folder / STATES_FOLDER, encoder, base.weights.sha256).read(
            [row for _, row in used], on_progress
        )
        fits = {
            question: _fit_question(question, used, states, settings.seed) for question in questions
        }
        lineage = inherit_lineage(f"probe:{folder.name}", base, sources, base.lineage.red_model)
        _write_folder(folder, settings, base, encoder, fits, lineage)
    return TrainedProbes(
        folder=folder,
        layer=encoder.layer,
        fits=fits,
        left_out=left_out,
        unreadable=dict(unreadable),
        lineage=lineage,
    )


def _choose_questions(
    settings: ProbeSettings, items: Sequence[LabelledAnswer]
) -> tuple[list[str], dict[str, str]]:
    """Returns the questions to learn, and those that nobody named and that have too few labels.

    Raises DataError if one that was named has too few, or if none is left.
    """
    labelled = sorted({question for item in items for question in item.labels})
    questions: list[str] = []
    left_out: dict[str, str] = {}
    faults: list[str] = []
    for question in settings.questions or labelled:
        rows = [item for item in items if question in item.labels]
        if not rows:
            faults.append(
                f"{question}: no answer has a label for it{did_you_mean(question, labelled)}; the "
                f"data has labels for {', '.join(labelled) or 'nothing'}"
            )
            continue
        labels = [item.labels[question] for item in rows]
        missing = count_label_faults(question, labels, [i.conversation.prompt for i in rows])
        if not missing and not _is_argument_name(question):
            missing = [f"{question!r}: a probe's question is one word of letters, digits and _"]
        if not missing:
            questions.append(question)
        elif settings.questions:
            faults += missing
        else:
            left_out[question] = "; ".join(missing)
    if faults or not questions:
        raise DataError(*(faults or left_out.values()))
    return questions, left_out


def _is_argument_name(question: str) -> bool:
    """Whether a question can stand in the spec of the judge, with its weight."""
    return bool(_QUESTION.fullmatch(question)) and question not in ARGUMENTS


def _check_folder(folder: Path) -> None:
    card = read_model_card(folder)
    if card is not None and card.kind != "probe":
        raise UserError(f"{folder}: holds a {card.kind} model; give another --out")
    if (folder / "config.json").exists():
        raise UserError(f"{folder}: holds a model; give another --out")
    for name in (README_FILE, EVALUATION_FILE, "manifest.json"):
        if card is None and (folder / name).exists():
            raise UserError(f"{folder}: holds {name} of something else; give another --out")


def _encode(
    encoder: AnswerStateEncoder, item: LabelledAnswer, unreadable: Counter[str]
) -> AnswerTokens | None:
    """Returns the tokens of an answer; None, and counts it, if it cannot be read whole."""
    try:
        return encoder.encode(item.conversation, item.text, is_cut=item.is_cut)
    except AnswerTooLong:
        unreadable[f"longer than {encoder.window} tokens with the prompt"] += 1
    except UserError:
        unreadable["refused or changed by the chat template"] += 1
    return None


class StoredStates:
    """States of answers in the files of a folder, by the hash of base, layer, type and tokens."""

    def __init__(self, folder: Path, encoder: AnswerStateEncoder, base_sha256: str) -> None:
        self.folder, self.encoder = folder, encoder
        self.identity = digest(base_sha256, str(encoder.layer), encoder.dtype)

    def read(
        self, rows: Sequence[AnswerTokens], on_progress: Callable[[int, int], None] | None
    ) -> States:
        """Returns the states of all rows, `[rows, width]`; reads and stores what is not there."""
        create_folder(self.folder)
        keys = [digest(self.identity, f"{row.start} {row.ids}") for row in rows]
        states = np.zeros((len(rows), self.encoder.width), dtype=np.float32)
        stored = self._stored_rows(set(keys))
        missing = []
        for index, key in enumerate(keys):
            if key in stored:
                states[index] = stored[key]
            else:
                missing.append(index)
        del stored
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            states[chunk] = self.encoder.states([rows[index] for index in chunk])
            self._store([keys[index] for index in chunk], states[chunk])
            if on_progress is not None:
                on_progress(len(rows) - len(missing) + start + len(chunk), len(rows))
        return states

    def _stored_rows(self, wanted: set[str]) -> dict[str, States]:
        """Returns the stored states of the wanted keys; skips damaged files."""
        rows: dict[str, States] = {}
        for file in sorted(self.folder.glob("*.npz")):
            try:
                with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                    keys, states = arrays["keys"].tolist(), arrays["states"]
            except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
                continue
            shape = (len(keys), self.encoder.width)
            if states.shape == shape and states.dtype == np.float32 and np.isfinite(states).all():
                rows.update((k, row) for k, row in zip(keys, states, strict=True) if k in wanted)
        return rows

    def _store(self, keys: list[str], states: States) -> None:
        file = io.BytesIO()
        np.savez(file, keys=np.array(keys), states=states)
        replace_file(self.folder / f"{digest(*keys)}.npz", file.getvalue())


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


def _write_folder(
    folder: Path,
    settings: ProbeSettings,
    base: BaseModel,
    encoder: AnswerStateEncoder,
    fits: dict[str, ProbeFit],
    lineage: Lineage,
) -> None:
    """Writes the probes, their evaluation, and the card last: a folder with a card is complete."""
    probes = Probes(
        layer=encoder.layer,
        max_length=settings.max_length,
        questions={
            question: QuestionProbe(weights=fit.weights, bias=fit.bias, threshold=fit.threshold)
            for question, fit in fits.items()
        },
    )
    (folder / CARD_FILE).unlink(missing_ok=True)
    encoded = msgspec.json.encode(probes)
    replace_file(folder / PROBE_FILE, encoded)
    replace_file(folder / EVALUATION_FILE, _format_json(dict(_evaluations(fits))))
    used_settings = {
        "layer": encoder.layer,
        "questions": list(fits),
        "held_out_auroc": {q: round(fit.held_out.estimate, 3) for q, fit in fits.items()},
        "max_length": settings.max_length,
        "dtype": encoder.dtype,
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
                precision=fit.precision,
                recall=fit.recall,
            ),
        )


def _format_json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
