"""A loaded moderation folder: pieces of text in, calibrated probabilities out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from msgspec import Struct

from truing.errors import MissingExtra, UserError
from truing.judges.moderation.settings import Settings, Thresholds, read_settings, read_thresholds
from truing.judges.moderation.tokens import Encoded, Piece
from truing.language import language
from truing.lineage import digest
from truing.weights import sha256_file

SHIPPED = ("default", "open")
_log = logging.getLogger("truing.moderation")
_told: set[str] = set()  # classifiers whose notice this process has given


class Opinion(Struct, frozen=True, kw_only=True):
    """What the classifier says of a piece. `harmful` is the probability for its mode, `flagged` its verdict."""

    mode: str
    harmful: float
    flagged: bool
    refused: float
    categories: dict[str, float]
    flagged_categories: tuple[str, ...] = ()
    cut: int = 0


def folder_of(name: str) -> Path:
    """The folder of a shipped classifier, or the folder of that path; UserError if there is none."""
    if name in SHIPPED:
        return Path(str(resources.files("truing.judges.moderation") / "weights" / name))
    path = Path(name).expanduser()
    if not path.is_dir():
        raise UserError(f"moderation:{name}: no such folder (shipped: {', '.join(SHIPPED)})")
    return path


def folder_hash(folder: Path) -> str:
    """Sixteen hex digits over everything that decides a probability or a verdict."""
    names = ("truing.json", "thresholds.json", "head.safetensors", "delta.safetensors", "model.safetensors", "tokenizer.json")
    return digest(*(f"{n} {sha256_file(folder / n)}" for n in names if (folder / n).is_file()))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -60.0, 60.0))))


class Scorer:
    """Loads a folder; safe to share between threads. Raises UserError for a folder that does not fit together."""

    def __init__(self, folder: Path, *, engine: str = "auto", dtype: str = "auto", device: str = "auto") -> None:
        self.folder = folder
        self.settings: Settings = read_settings(folder)
        self.thresholds: Thresholds = read_thresholds(folder, self.settings)
        self.hash = folder_hash(folder)
        try:
            from truing.judges.moderation.engines import make_engine
            from truing.judges.moderation.folder import read_head, read_network
            from truing.judges.moderation.tokens import Rows
        except ModuleNotFoundError as error:
            raise MissingExtra("local", "moderation classifiers") from error
        network, tokenizer = read_network(folder, self.settings)
        self._ngrams = read_head(network, folder, self.settings)
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        ends = (tokenizer.cls_token_id, tokenizer.sep_token_id)
        first, sep = ends if None not in ends else (tokenizer.bos_token_id or tokenizer.eos_token_id, tokenizer.eos_token_id)
        self._rows = Rows(
            backend, prompt=self.settings.prompt_tokens, response=self.settings.response_tokens, cls=first, sep=sep
        )
        pad = tokenizer.pad_token_id or 0
        self.engine = make_engine(network, pad=pad, digest=self.hash, engine=engine, dtype=dtype, device=device)
        if self.settings.notice and self.hash not in _told:
            _told.add(self.hash)
            _log.warning("%s: %s", self.settings.lineage.name or folder, self.settings.notice)

    def reads(self, piece: Piece) -> str | None:
        """The language of what is judged where the card does not name it, else none."""
        text = piece.response if piece.response is not None else " ".join(piece.turns[-1:])
        found = language(text)
        return None if found in self.settings.languages else found

    def encode(self, pieces: Sequence[Piece]) -> list[Encoded]:
        """Token rows, as the networks sees them."""
        return self._rows.encode(pieces)

    def logits(self, rows: Sequence[Encoded]) -> np.ndarray:
        """`[len(rows), 3 + categories]`, n-grams included, before temperature and bias."""
        made = self.engine.logits(rows)
        return made + self._ngrams.logits(rows) if self._ngrams is not None else made

    def score(self, pieces: Sequence[Piece]) -> list[Opinion]:
        """One opinion a piece, in order. A text alone (mode response) may be either side, so the worse of the two counts."""
        if not pieces:
            return []
        modes = [p.mode for p in pieces]
        doubled = [Piece((p.response or "",), None) for p, m in zip(pieces, modes) if m == "response"]
        rows = self.encode([*pieces, *doubled])
        logits = self.logits(rows)
        asked = iter(range(len(pieces), len(rows)))
        return [
            self._opinion(mode, row, logits[at], logits[next(asked)] if mode == "response" else None)
            for at, (mode, row) in enumerate(zip(modes, rows))
        ]

    def _opinion(self, mode: str, row: Encoded, z: np.ndarray, as_prompt: np.ndarray | None) -> Opinion:
        t = self.thresholds
        value = z[1] if mode == "prompt" else z[0]
        logit = value / t.temperature[mode] + t.bias[mode]
        categories = z[3:]
        if as_prompt is not None:
            logit = max(logit, as_prompt[1] / t.temperature["prompt"] + t.bias["prompt"])
            categories = np.maximum(categories, as_prompt[3:])
        harmful = float(_sigmoid(np.asarray(logit)))
        named = {c: float(p) for c, p in zip(self.settings.categories, _sigmoid(categories))}
        return Opinion(
            mode=mode, harmful=harmful, flagged=harmful >= t.harmful[mode], refused=float(_sigmoid(z[2])), categories=named,
            flagged_categories=tuple(c for c, p in named.items() if p >= t.of(c)), cut=row.cut,
        )  # fmt: skip


@cache
def scorer(name: str, engine: str = "auto", dtype: str = "auto", device: str = "auto") -> Scorer:
    """The one scorer of this process for a folder or shipped name."""
    return Scorer(folder_of(name), engine=engine, dtype=dtype, device=device)
