"""One trained network of a classifier folder: texts in, logits out. A blend has several of them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path

import numpy as np

from truing.core.errors import MissingExtra
from truing.judges.moderation.inputs import EncodedInput
from truing.judges.moderation.settings import ClassifierSettings


class EnsembleMember:
    """Loads the network in `folder`; `digest` is its key in the cache of exported networks."""

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
            from truing.judges.moderation.inputs import build_input_encoder
            from truing.judges.moderation.network_files import read_head, read_network
        except ModuleNotFoundError as error:
            raise MissingExtra("local", "moderation classifiers") from error
        network, tokenizer = read_network(folder, settings)
        self._ngrams = read_head(network, folder, settings)
        self.encoder = build_input_encoder(
            tokenizer, prompt=settings.prompt_tokens, response=settings.response_tokens
        )
        pad_id = tokenizer.pad_token_id or 0
        self.engine = make_engine(
            network, pad_id=pad_id, digest=digest, engine=engine, dtype=dtype, device=device
        )

    def open_stream(self) -> EnsembleMember:
        """Returns this member for the rows of one growing text; see `TorchEngine.open_stream`."""
        open_engine = getattr(self.engine, "open_stream", None)
        if open_engine is None:
            return self
        member = copy(self)
        member.engine = open_engine()
        return member

    def logits(self, rows: Sequence[EncodedInput]) -> np.ndarray:
        """Returns `[len(rows), outputs]` logits of network and n-grams, not yet calibrated."""
        logits = self.engine.logits(rows)
        return logits + self._ngrams.logits(rows) if self._ngrams is not None else logits
