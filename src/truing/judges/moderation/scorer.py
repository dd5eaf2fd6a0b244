"""A loaded moderation folder: pieces of text in, calibrated probabilities out."""

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
_log = logging.getLogger("truing.moderation")
_told: set[str] = set()  # classifiers whose notice this process has given


class ModerationScore(Struct, frozen=True, kw_only=True):
    """What the classifier says of a piece. `harmful` is the probability for its mode, `flagged` its verdict."""

    mode: str
    harmful: float
    flagged: bool
    refused: float
    categories: dict[str, float]
    flagged_categories: tuple[str, ...] = ()
    cut: int = 0


def find_classifier_folder(name: str) -> Path:
    """The folder of a shipped classifier, or the folder of that path; UserError if there is none."""
    if name in SHIPPED:
        return Path(str(resources.files("truing") / "resources" / "weights" / "moderation" / name))
    path = Path(name).expanduser()
    if not path.is_dir():
        raise UserError(f"moderation:{name}: no such folder (shipped: {', '.join(SHIPPED)})")
    return path


def hash_classifier_folder(folder: Path) -> str:
    """Sixteen hex digits over everything that decides a probability or a verdict."""
    names = (
        "truing.json",
        "thresholds.json",
        "head.safetensors",
        "delta.safetensors",
        "model.safetensors",
        "tokenizer.json",
    )
    own = [
        f"{n} {sha256_file(folder / n)}" for n in (*names, "blend.json") if (folder / n).is_file()
    ]
    parts = sorted(p.parent for p in folder.glob("*/head.safetensors"))
    return digest(*own, *(f"{p.name} {hash_classifier_folder(p)}" for p in parts))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -60.0, 60.0))))


class ModerationScorer:
    """Loads a folder; safe to share between threads. Raises UserError for a folder that does not fit together."""

    def __init__(
        self, folder: Path, *, engine: str = "auto", dtype: str = "auto", device: str = "auto"
    ) -> None:
        self.folder = folder
        self.settings: ClassifierSettings = read_settings(folder)
        self.thresholds: ClassifierThresholds = read_thresholds(folder, self.settings)
        self.hash = hash_classifier_folder(folder)
        self.blend: BlendWeights | None
        how = {"engine": engine, "dtype": dtype, "device": device}
        if self.settings.members:
            self.blend = read_blend(folder, self.settings)
            self.members = [self._member(name, how) for name in self.settings.members]
        else:
            self.blend = None
            self.members = [EnsembleMember(folder, self.settings, self.hash, **how)]
        if self.settings.notice and self.hash not in _told:
            _told.add(self.hash)
            _log.warning("%s: %s", self.settings.lineage.name or folder, self.settings.notice)

    def reads(self, piece: ModerationInput) -> str | None:
        """The language of what is judged where the card does not name it, else none."""
        text = piece.response if piece.response is not None else " ".join(piece.turns[-1:])
        found = detect_language(text)
        return None if found in self.settings.languages else found

    def _member(self, name: str, how: dict[str, str]) -> EnsembleMember:
        folder = self.folder / name
        settings = read_settings(folder)
        if settings.members or settings.categories != self.settings.categories:
            raise UserError(
                f"{folder / 'truing.json'}: a member has the blend's categories and no members of its own"
            )
        return EnsembleMember(folder, settings, hash_classifier_folder(folder), **how)

    def logits(self, pieces: Sequence[ModerationInput]) -> tuple[np.ndarray, list[int]]:
        """`[len(pieces), 3 + categories]` before temperature and bias, and how many tokens of each piece nobody read."""
        rows = [member.encode(pieces) for member in self.members]
        found = [member.logits(r) for member, r in zip(self.members, rows)]
        unread = [min(row.cut for row in of_piece) for of_piece in zip(*rows)]
        return (found[0] if self.blend is None else self.blend.apply(found)), unread

    def score(self, pieces: Sequence[ModerationInput]) -> list[ModerationScore]:
        """One opinion a piece, in order. A text alone (mode response) may be either side, so the worse of the two counts."""
        if not pieces:
            return []
        modes = [p.mode for p in pieces]
        doubled = [
            ModerationInput((p.response or "",), None)
            for p, m in zip(pieces, modes)
            if m == "response"
        ]
        logits, unread = self.logits([*pieces, *doubled])
        asked = iter(range(len(pieces), len(logits)))
        return [
            self._opinion(
                mode, cut, logits[at], logits[next(asked)] if mode == "response" else None
            )
            for at, (mode, cut) in enumerate(zip(modes, unread))
        ]

    def _opinion(
        self, mode: str, cut: int, z: np.ndarray, as_prompt: np.ndarray | None
    ) -> ModerationScore:
        t = self.thresholds
        value = z[1] if mode == "prompt" else z[0]
        logit = value / t.temperature[mode] + t.bias[mode]
        categories = z[3:]
        if as_prompt is not None:
            logit = max(logit, as_prompt[1] / t.temperature["prompt"] + t.bias["prompt"])
            categories = np.maximum(categories, as_prompt[3:])
        harmful = float(_sigmoid(np.asarray(logit)))
        named = {c: float(p) for c, p in zip(self.settings.categories, _sigmoid(categories))}
        return ModerationScore(
            mode=mode,
            harmful=harmful,
            flagged=harmful >= t.harmful[mode],
            refused=float(_sigmoid(z[2])),
            categories=named,
            flagged_categories=tuple(c for c, p in named.items() if p >= t.of(c)),
            cut=cut,
        )


@cache
def shared_scorer(
    name: str, engine: str = "auto", dtype: str = "auto", device: str = "auto"
) -> ModerationScorer:
    """The one scorer of this process for a folder or shipped name."""
    return ModerationScorer(find_classifier_folder(name), engine=engine, dtype=dtype, device=device)
