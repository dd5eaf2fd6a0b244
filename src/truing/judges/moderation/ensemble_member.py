"""One trained network of a moderation folder: pieces of text in, logits out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from truing.core.errors import MissingExtra
from truing.judges.moderation.inputs import EncodedInput, ModerationInput
from truing.judges.moderation.settings import ClassifierSettings


class EnsembleMember:
    """Loads the network that stands in `folder`; `digest` names it in the engine's cache."""

    def __init__(
        self,
        folder: Path,
        settings: ClassifierSettings,
        digest: str,
        *,
        engine: str,
        dtype: str,
        device: str,
    ) -> None:
        try:
            from truing.judges.moderation.engines import make_engine
            from truing.judges.moderation.inputs import InputEncoder
            from truing.judges.moderation.network_files import read_head, read_network
        except ModuleNotFoundError as error:
            raise MissingExtra("local", "moderation classifiers") from error
        network, tokenizer = read_network(folder, settings)
        self._ngrams = read_head(network, folder, settings)
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        ends = (tokenizer.cls_token_id, tokenizer.sep_token_id)
        first, sep = (
            ends
            if None not in ends
            else (tokenizer.bos_token_id or tokenizer.eos_token_id, tokenizer.eos_token_id)
        )
        self._rows = InputEncoder(
            backend,
            prompt=settings.prompt_tokens,
            response=settings.response_tokens,
            cls=first,
            sep=sep,
        )
        pad = tokenizer.pad_token_id or 0
        self.engine = make_engine(
            network, pad=pad, digest=digest, engine=engine, dtype=dtype, device=device
        )

    def encode(self, pieces: Sequence[ModerationInput]) -> list[EncodedInput]:
        """Token rows, as the network sees them."""
        return self._rows.encode(pieces)

    def logits(self, rows: Sequence[EncodedInput]) -> np.ndarray:
        """`[len(rows), 3 + categories]`, n-grams included, before temperature and bias."""
        made = self.engine.logits(rows)
        return made + self._ngrams.logits(rows) if self._ngrams is not None else made
