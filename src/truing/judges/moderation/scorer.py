"""A loaded classifier folder: texts in, calibrated probabilities and verdicts out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import copy
from functools import cache
from pathlib import Path

import numpy as np
from msgspec import Struct

from truing.core.errors import UserError
from truing.core.language_id import detect_language, find_foreign_part
from truing.core.lineage import digest
from truing.core.text import replace_surrogates
from truing.core.types import Failure
from truing.hf.weights import sha256_file
from truing.judges.moderation.ensemble_member import EnsembleMember
from truing.judges.moderation.inputs import ModerationInput
from truing.judges.moderation.long_texts import (
    HARMFUL_OUTPUT,
    LongTextCurves,
    read_long_text_curves,
)
from truing.judges.moderation.settings import (
    BlendWeights,
    ClassifierSettings,
    ClassifierThresholds,
    read_blend,
    read_settings,
    read_thresholds,
)
from truing.judges.moderation.text_cleaning import clean_text
from truing.judges.moderation.windows import (
    MAX_CHARACTERS,
    InputTooLong,
    WindowEncoder,
    WindowPosition,
    WindowRow,
)
from truing.judges.shipped_classifiers import SHIPPED_NAMES, find_shipped_folder
from truing.judges.text_readings import alternative_readings
from truing.judges.token_windows import MAX_WINDOWS

# Columns of the logits (see settings.MODERATION_QUESTIONS)
HARMFUL, HARMFUL_PROMPT, REFUSED, FIRST_CATEGORY = range(4)
# Rows that are encoded before any of them is scored: bounds the memory of a batch of long texts.
_MAX_ROWS = 2048

_log = logging.getLogger("truing.moderation")
_notices_shown: set[str] = set()  # hashes of classifiers whose notice this process has logged

_HASHED_FILES = (
    "truing.json",
    "thresholds.json",
    "head.safetensors",
    "delta.safetensors",
    "model.safetensors",
    "tokenizer.json",
    "blend.json",
)


class _Reading(Struct, frozen=True):
    """What of an input is classified, and why that is not all of it."""

    mode: str
    rows: tuple[WindowRow, ...]
    failure: Failure | None = None


class ModerationScore(Struct, frozen=True, kw_only=True):
    """The scores of one input, all of which was read.

    `harmful` is the probability for the input's mode and `flagged` the verdict by its threshold;
    of several `windows` the worst counts, and `worst` says where it lies. All probabilities are
    corrected for the number of windows if the folder has curves (`long_texts`), so that the
    thresholds stay those of one window.
    """

    mode: str
    harmful: float
    flagged: bool
    refused: float
    categories: dict[str, float]
    flagged_categories: tuple[str, ...] = ()
    windows: int = 1
    worst: WindowPosition | None = None


def find_classifier_folder(name: str) -> Path:
    """Returns the folder of a shipped classifier or of a path; UserError if there is none."""
    shipped = find_shipped_folder(name)
    if shipped is not None:
        return shipped
    path = Path(name).expanduser()
    if not path.is_dir():
        raise UserError(f"moderation:{name}: no such folder (shipped: {', '.join(SHIPPED_NAMES)})")
    return path


def hash_classifier_folder(folder: Path) -> str:
    """Returns 16 hex digits over everything that decides a score or verdict of one window."""
    files = [
        f"{name} {sha256_file(folder / name)}"
        for name in _HASHED_FILES
        if (folder / name).is_file()
    ]
    members = sorted(path.parent for path in folder.glob("*/head.safetensors"))
    return digest(*files, *(f"{m.name} {hash_classifier_folder(m)}" for m in members))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -60.0, 60.0))))


class ModerationScorer:
    """Loads a classifier folder. Threads may share it.

    Raises UserError if the files of the folder do not fit together.
    """

    def __init__(
        self, folder: Path, *, engine: str = "auto", dtype: str = "auto", device: str = "auto"
    ) -> None:
        self.folder = folder
        self.settings: ClassifierSettings = read_settings(folder)
        self.thresholds: ClassifierThresholds = read_thresholds(folder, self.settings)
        self.curves: LongTextCurves | None = read_long_text_curves(folder, self.settings)
        self.hash = hash_classifier_folder(folder)
        self.blend: BlendWeights | None = None
        options = {"engine": engine, "dtype": dtype, "device": device}
        if self.settings.members:
            self.blend = read_blend(folder, self.settings)
            self.members = [self._load_member(name, options) for name in self.settings.members]
        else:
            self.members = [EnsembleMember(folder, self.settings, self.hash, **options)]
        self._windows = WindowEncoder([member.encoder for member in self.members])
        if self.settings.notice and self.hash not in _notices_shown:
            _notices_shown.add(self.hash)
            _log.warning("moderation:%s: %s", folder.name, self.settings.notice)

    def _load_member(self, name: str, options: dict[str, str]) -> EnsembleMember:
        folder = self.folder / name
        settings = read_settings(folder)
        if settings.members or settings.categories != self.settings.categories:
            raise UserError(
                f"{folder / 'truing.json'}: a member must have the blend's categories "
                "and no members of its own"
            )
        return EnsembleMember(folder, settings, hash_classifier_folder(folder), **options)

    @property
    def response_tokens(self) -> int:
        """Window of an answer in tokens: the smallest one of the members."""
        return min(member.encoder.response for member in self.members)

    def open_stream(self) -> ModerationScorer:
        """Returns a scorer for one growing text; members that can run only its new tokens."""
        scorer = copy(self)
        scorer.members = [member.open_stream() for member in self.members]
        return scorer

    def logits(self, rows: Sequence[WindowRow]) -> np.ndarray:
        """Returns uncalibrated logits `[len(rows), 3 + categories]`."""
        logits = [
            member.logits([row.rows[index] for row in rows])
            for index, member in enumerate(self.members)
        ]
        return logits[0] if self.blend is None else self.blend.apply(logits)

    def rows(self, moderation_input: ModerationInput) -> list[WindowRow]:
        """Returns the rows that cover an input; raises InputTooLong if it is over the bounds."""
        return self._windows.encode(_clean_input(moderation_input))

    def score(self, inputs: Sequence[ModerationInput]) -> list[ModerationScore | Failure]:
        """Returns one score per input, in order; a failure for one that was not read as a whole.

        A text without a prompt (mode `response`) may be either side of a dialogue, so it is scored
        as both and the worse score counts. A disguised text is read as it is and as what it may
        stand for (`text_readings`). A text with a part in an unknown language fails, unless it
        stands for a harmful one in a known language.
        """
        scores: list[ModerationScore | Failure] = []
        batch: list[_Reading] = []
        row_count = 0
        for moderation_input in inputs:
            reading = self._read(moderation_input)
            batch.append(reading)
            row_count += len(reading.rows)
            if row_count >= _MAX_ROWS:
                scores += self._score_batch(batch)
                batch, row_count = [], 0
        return scores + self._score_batch(batch)

    def _read(self, moderation_input: ModerationInput) -> _Reading:
        mode = moderation_input.mode
        try:
            clean = _clean_input(moderation_input)
            readings = _list_readings(clean)
            language = self._find_unknown_language(clean)
            if language is not None:
                # A reading that is English throughout shows what the text says, if it is harmful.
                readings = [r for r in readings[1:] if self._find_unknown_language(r) is None]
            rows = [row for reading in readings for row in self._windows.encode(reading)]
            if len(rows) > MAX_WINDOWS:
                raise InputTooLong(f"its readings need more than {MAX_WINDOWS} windows of tokens")
        except InputTooLong as error:
            return _Reading(mode, (), Failure("judge", "too-long", str(error)))
        if language is None:
            return _Reading(mode, tuple(rows))
        message = (
            f"the text or a part of it is in the language {language!r}, on which the classifier "
            "was not trained"
        )
        return _Reading(mode, tuple(rows), Failure("judge", "language", message))

    def _find_unknown_language(self, clean: ModerationInput) -> str | None:
        """Returns the language of a judged text, or of a part, that is none of the settings'."""
        known = self.settings.languages
        texts = (*clean.turns, *clean.apart) if clean.response is None else (clean.response,)
        for text in texts:
            language = detect_language(text)
            if language not in known:
                return language
        return next(filter(None, (find_foreign_part(text, known) for text in texts)), None)

    def _score_batch(self, batch: Sequence[_Reading]) -> list[ModerationScore | Failure]:
        rows = [row for reading in batch for row in reading.rows]
        # Answers before prompts: the batches of short inputs are the same as those of the cards.
        order = np.argsort([row.as_prompt for row in rows], kind="stable")
        logits = np.zeros((len(rows), FIRST_CATEGORY + len(self.settings.categories)), np.float32)
        if rows:
            ordered_logits = self.logits([rows[index] for index in order])
            logits = np.empty_like(ordered_logits)
            logits[order] = ordered_logits
        scores: list[ModerationScore | Failure] = []
        start = 0
        for reading in batch:
            end = start + len(reading.rows)
            score: ModerationScore | Failure | None = reading.failure
            if reading.rows:
                worst = self.combine_rows(reading.mode, reading.rows, logits[start:end])
                score = worst if reading.failure is None or worst.flagged else reading.failure
            assert score is not None  # a reading without rows has a failure
            scores.append(score)
            start = end
        return scores

    def combine_rows(
        self, mode: str, rows: Sequence[WindowRow], logits: np.ndarray
    ) -> ModerationScore:
        """Turns the logits of all rows of an input into its score: the worst row counts."""
        thresholds = self.thresholds
        harmful_logits, category_logits = self.correct_logits(mode, rows, logits)
        worst = int(np.argmax(harmful_logits))
        harmful = float(_sigmoid(harmful_logits[worst]))
        flagged = harmful >= thresholds.harmful[mode]
        probabilities = _sigmoid(category_logits.max(axis=0))
        categories = {
            name: float(p) for name, p in zip(self.settings.categories, probabilities, strict=True)
        }
        # An answer refuses where it begins, unless it does harm later on.
        refusing = logits[worst if flagged and not rows[worst].as_prompt else 0, REFUSED]
        return ModerationScore(
            mode=mode,
            harmful=harmful,
            flagged=flagged,
            refused=float(_sigmoid(refusing)),
            categories=categories,
            flagged_categories=tuple(
                name for name, p in categories.items() if p >= thresholds.for_category(name)
            ),
            windows=len(rows) - sum(row.as_prompt for row in rows),
            worst=rows[worst].position,
        )

    def correct_logits(
        self, mode: str, rows: Sequence[WindowRow], logits: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows' logits of harm, `[rows]`, and of the categories, `[rows, categories]`.

        Both are calibrated and, if the folder has curves, corrected for the number of windows of
        the rows' texts.
        """
        harmful = np.empty(len(rows), logits.dtype)
        categories = logits[:, FIRST_CATEGORY:].copy()
        windows = np.array([row.windows for row in rows])
        as_prompt = np.array([row.as_prompt for row in rows])
        for row_mode, chosen in ((mode, ~as_prompt), ("prompt", as_prompt)):
            if not chosen.any():
                continue
            column = HARMFUL_PROMPT if row_mode == "prompt" else HARMFUL
            temperature = self.thresholds.temperature[row_mode]
            calibrated = logits[chosen, column] / temperature + self.thresholds.bias[row_mode]
            harmful[chosen] = calibrated
            if self.curves is None:
                continue
            harmful[chosen] = self.curves.correct(
                row_mode, HARMFUL_OUTPUT, calibrated, windows[chosen]
            )
            for number, name in enumerate(self.settings.categories):
                categories[chosen, number] = self.curves.correct(
                    row_mode, name, categories[chosen, number], windows[chosen]
                )
        return harmful, categories


def _list_readings(clean: ModerationInput) -> list[ModerationInput]:
    """Returns the clean input and, if the judged texts may be disguised, what they may stand for.

    An answer is read with its dialogue as it is; of a dialogue every turn is read anew.
    """
    if clean.response is not None:
        responses = alternative_readings(clean.response)
        return [clean, *(ModerationInput(clean.turns, text) for text in responses)]
    texts = (*clean.turns, *clean.apart)
    readings_of_text = [alternative_readings(text) for text in texts]
    readings = [clean]
    for number in range(max(map(len, readings_of_text), default=0)):
        chosen = tuple(
            of_text[min(number, len(of_text) - 1)] if of_text else text
            for of_text, text in zip(readings_of_text, texts, strict=True)
        )
        count = len(clean.turns)
        readings.append(ModerationInput(chosen[:count], None, chosen[count:]))
    return readings


def _clean_input(moderation_input: ModerationInput) -> ModerationInput:
    """Returns the input with clean texts. Raises InputTooLong before it cleans a long one."""
    response = moderation_input.response
    texts = (*moderation_input.turns, *moderation_input.apart, response or "")
    characters = sum(map(len, texts))
    if characters > MAX_CHARACTERS:
        raise InputTooLong(
            f"{characters:,} characters: at most {MAX_CHARACTERS:,} are read as a whole"
        )

    def clean(text: str) -> str:
        return clean_text(replace_surrogates(text))

    return ModerationInput(
        tuple(map(clean, moderation_input.turns)),
        None if response is None else clean(response),
        tuple(map(clean, moderation_input.apart)),
    )


@cache
def shared_scorer(
    name: str, engine: str = "auto", dtype: str = "auto", device: str = "auto"
) -> ModerationScorer:
    """Returns this process's one scorer of a folder or a shipped name."""
    folder = find_classifier_folder(name)
    return ModerationScorer(folder, engine=engine, dtype=dtype, device=device)
