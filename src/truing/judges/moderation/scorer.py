"""A loaded classifier folder: texts in, calibrated probabilities and verdicts out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from msgspec import Struct

from truing.core.errors import UserError
from truing.core.language_id import detect_language
from truing.core.lineage import digest
from truing.hf.weights import sha256_file
from truing.judges.moderation.ensemble_member import EnsembleMember
from truing.judges.moderation.inputs import ModerationInput
from truing.judges.moderation.settings import (
    BlendWeights,
    ClassifierSettings,
    ClassifierThresholds,
    read_blend,
    read_settings,
    read_thresholds,
)

SHIPPED = ("default", "open")
# Columns of the logits (see settings.MODERATION_QUESTIONS)
HARMFUL, HARMFUL_PROMPT, REFUSED, FIRST_CATEGORY = range(4)

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


class ModerationScore(Struct, frozen=True, kw_only=True):
    """The scores of one input.

    `harmful` is the probability for the input's mode and `flagged` the verdict by its threshold;
    `cut` is the number of tokens that were not read.
    """

    mode: str
    harmful: float
    flagged: bool
    refused: float
    categories: dict[str, float]
    flagged_categories: tuple[str, ...] = ()
    cut: int = 0


def find_classifier_folder(name: str) -> Path:
    """Returns the folder of a shipped classifier or of a path; UserError if there is none."""
    if name in SHIPPED:
        return Path(str(resources.files("truing") / "resources" / "weights" / "moderation" / name))
    path = Path(name).expanduser()
    if not path.is_dir():
        raise UserError(f"moderation:{name}: no such folder (shipped: {', '.join(SHIPPED)})")
    return path


def hash_classifier_folder(folder: Path) -> str:
    """Returns 16 hex digits over everything that decides a probability or a verdict."""
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
        self.hash = hash_classifier_folder(folder)
        self.blend: BlendWeights | None = None
        options = {"engine": engine, "dtype": dtype, "device": device}
        if self.settings.members:
            self.blend = read_blend(folder, self.settings)
            self.members = [self._load_member(name, options) for name in self.settings.members]
        else:
            self.members = [EnsembleMember(folder, self.settings, self.hash, **options)]
        if self.settings.notice and self.hash not in _notices_shown:
            _notices_shown.add(self.hash)
            _log.warning("%s: %s", self.settings.lineage.name or folder, self.settings.notice)

    def _load_member(self, name: str, options: dict[str, str]) -> EnsembleMember:
        folder = self.folder / name
        settings = read_settings(folder)
        if settings.members or settings.categories != self.settings.categories:
            raise UserError(
                f"{folder / 'truing.json'}: a member must have the blend's categories "
                "and no members of its own"
            )
        return EnsembleMember(folder, settings, hash_classifier_folder(folder), **options)

    def unsupported_language(self, moderation_input: ModerationInput) -> str | None:
        """Returns the language of the judged text if the classifier was not trained on it."""
        text = moderation_input.response
        if text is None:
            text = " ".join(moderation_input.turns[-1:])
        language = detect_language(text)
        return None if language in self.settings.languages else language

    def logits(self, inputs: Sequence[ModerationInput]) -> tuple[np.ndarray, list[int]]:
        """Returns uncalibrated logits `[len(inputs), 3 + categories]`, and the tokens not read.

        Members may have different windows: a token counts as read if one of them read it.
        """
        rows_by_member = [member.encode(inputs) for member in self.members]
        logits = [
            member.logits(rows) for member, rows in zip(self.members, rows_by_member, strict=True)
        ]
        cut = [min(row.cut for row in rows) for rows in zip(*rows_by_member, strict=True)]
        return (logits[0] if self.blend is None else self.blend.apply(logits)), cut

    def score(self, inputs: Sequence[ModerationInput]) -> list[ModerationScore]:
        """Returns one score per input, in order.

        A text without a prompt (mode `response`) may be either side of a dialogue, so it is scored
        as both and the worse score counts.
        """
        if not inputs:
            return []
        modes = [i.mode for i in inputs]
        as_prompts = [
            ModerationInput((i.response or "",), None)
            for i, mode in zip(inputs, modes, strict=True)
            if mode == "response"
        ]
        logits, cut = self.logits([*inputs, *as_prompts])
        prompt_logits = iter(logits[len(inputs) :])
        return [
            self._calibrate(
                mode, cut[index], logits[index], next(prompt_logits) if mode == "response" else None
            )
            for index, mode in enumerate(modes)
        ]

    def _calibrate(
        self, mode: str, cut: int, logits: np.ndarray, prompt_logits: np.ndarray | None
    ) -> ModerationScore:
        """Turns logits into a score; `prompt_logits` are those of the text read as a prompt."""
        thresholds = self.thresholds

        def calibrated(logit: float, of_mode: str) -> float:
            return logit / thresholds.temperature[of_mode] + thresholds.bias[of_mode]

        harmful_logit = calibrated(logits[HARMFUL_PROMPT if mode == "prompt" else HARMFUL], mode)
        category_logits = logits[FIRST_CATEGORY:]
        if prompt_logits is not None:
            harmful_logit = max(harmful_logit, calibrated(prompt_logits[HARMFUL_PROMPT], "prompt"))
            category_logits = np.maximum(category_logits, prompt_logits[FIRST_CATEGORY:])
        harmful = float(_sigmoid(np.asarray(harmful_logit)))
        probabilities = _sigmoid(category_logits)
        categories = {
            name: float(p) for name, p in zip(self.settings.categories, probabilities, strict=True)
        }
        return ModerationScore(
            mode=mode,
            harmful=harmful,
            flagged=harmful >= thresholds.harmful[mode],
            refused=float(_sigmoid(logits[REFUSED])),
            categories=categories,
            flagged_categories=tuple(
                name for name, p in categories.items() if p >= thresholds.for_category(name)
            ),
            cut=cut,
        )


@cache
def shared_scorer(
    name: str, engine: str = "auto", dtype: str = "auto", device: str = "auto"
) -> ModerationScorer:
    """Returns this process's one scorer of a folder or a shipped name."""
    folder = find_classifier_folder(name)
    return ModerationScorer(folder, engine=engine, dtype=dtype, device=device)
