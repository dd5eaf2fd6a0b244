"""GLiNER in this process: the rails `gliner detect pii` and `gliner mask pii` without a server.

``truing: gliner: path: DIR`` names a model folder; the labels are the ``entities`` of NeMo's block
``rails.config.gliner``, whose threshold holds too. Nothing is downloaded. GLiNER (Zaratiana et al.
2023, arXiv:2311.08526; package `gliner`, Apache-2.0) reads a bounded number of words and leaves out
the rest, so a longer text is read in pieces that overlap. Each punctuation mark counts as a word.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from truing.core.errors import PlanError
from truing.core.lineage import digest
from truing.core.types import Failure, Lineage
from truing.rails.config.loader import RailsConfig
from truing.rails.config.service_addresses import list_used_rails
from truing.rails.config.trust import require_trusted_code
from truing.rails.config.vendor_addresses import GLINER_KEY, read_block, read_gliner_path
from truing.rails.library.further_service_protocols import mask_spans
from truing.rails.library.service_rails import ServiceInputs, ServiceVerdict
from truing.specs.resolve import load_object

GLINER_SERVICE = "gliner"
PIECE_WORDS, OVERLAP_WORDS = 200, 40  # parts of words; GLiNER's models read 384 words and more
DEFAULT_THRESHOLD = 0.5
DEFAULT_TIMEOUT = 60.0  # seconds, on a processor
# A part of one of GLiNER's own words (`\w+(?:[-_]\w+)*|\S`), so that a piece never has more of them
# than parts. Its tokenizer is bounded too: at most eight letters, and one character of the scripts
# that write no spaces (Thai to Burmese, Khmer, CJK).
_WORD_PART = re.compile(
    r"[^\W_\u0e00-\u109f\u1780-\u17ff\u2e80-\U0010ffff]{1,8}|\S",
)


@lru_cache(maxsize=4)
def load_gliner(path: str) -> Any:
    """Returns the model of a folder. Raises MissingExtra without the package `gliner`."""
    return load_object("gliner:GLiNER").from_pretrained(path, local_files_only=True)


class GlinerModel:
    """A service that finds personal data with a model in this process."""

    def __init__(self, path: str, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.name = GLINER_SERVICE
        self.lineage = Lineage(name=f"gliner:{Path(path).name}", hash=digest("gliner", path))
        self._model, self._timeout = load_gliner(path), timeout

    async def ask(self, inputs: ServiceInputs) -> ServiceVerdict | Failure:
        """Returns whether the text holds an entity, and the text with all of them masked."""
        labels = list((inputs.settings.get(inputs.source) or {}).get("entities") or ())
        threshold = float(inputs.settings.get("threshold", DEFAULT_THRESHOLD))
        deadline = time.monotonic() + self._timeout
        try:
            async with asyncio.timeout(self._timeout):
                spans = await asyncio.to_thread(
                    find_spans, self._model, inputs.text, labels, threshold, deadline
                )
        except TimeoutError:
            return Failure("rail", "timeout", f"no result within {self._timeout:g} s")
        except Exception as error:
            return Failure("rail", "model", f"{type(error).__name__}: {error}")
        found = ", ".join(dict.fromkeys(label for _, _, label in spans))
        return ServiceVerdict(bool(spans), found or None, mask_spans(inputs.text, spans))


def find_spans(
    model: Any, text: str, labels: list[str], threshold: float, deadline: float = math.inf
) -> list[tuple[int, int, str]]:
    """Returns (start, end, label) of the entities in a text, each once.

    Raises TimeoutError at `deadline` (of the monotonic clock): who awaits a thread can leave it,
    but not stop it.
    """
    spans: dict[tuple[int, int, str], None] = {}
    for offset, piece in split_text(text):
        if time.monotonic() > deadline:
            raise TimeoutError
        for entity in model.predict_entities(piece, labels, threshold=threshold):
            start, end = offset + int(entity["start"]), offset + int(entity["end"])
            spans[(start, end, str(entity["label"]))] = None
    return list(spans)


def split_text(text: str) -> Iterator[tuple[int, str]]:
    """Yields (offset, piece) of at most `PIECE_WORDS` of GLiNER's words, each with the end of the
    one before.
    """
    words = list(_WORD_PART.finditer(text))
    step = PIECE_WORDS - OVERLAP_WORDS
    for first in range(0, max(len(words) - OVERLAP_WORDS, 1), step):
        piece = words[first : first + PIECE_WORDS]
        if piece:
            yield piece[0].start(), text[piece[0].start() : piece[-1].end()]


def build_gliner(config: RailsConfig) -> dict[str, Any]:
    """Returns the client of a configuration that names a model folder, by service; {} for others.

    Raises PlanError without a folder of that name, and for a rail without entities.
    """
    path = read_gliner_path(config)
    sources = sorted(
        rail.rpartition(" ")[2] for rail in list_used_rails(config) if rail.startswith("gliner ")
    )
    if path is None or not sources:
        return {}
    require_trusted_code(config)
    place = config.locate("key", ".".join(GLINER_KEY))
    if not Path(path).is_dir():
        raise PlanError(f"{place}: there is no model folder {path}")
    block = read_block(config, "gliner")
    missing = [s for s in sources if not (block.get(s) or {}).get("entities")]
    if missing:
        keys = ", ".join(f"rails.config.gliner.{source}.entities" for source in missing)
        raise PlanError(f"{place}: a model in this process needs {keys}")
    return {GLINER_SERVICE: GlinerModel(path)}
