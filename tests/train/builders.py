"""Small training data for tests: examples, training sets, settings, data sets in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from truing.core.types import Conversation, DataInfo, Message, Preference, Row
from truing.train.examples import TrainingExample, TrainingSet
from truing.train.settings import TrainingSettings

PARTS = (
    "wheel",
    "spoke",
    "rim",
    "hub",
    "cone",
    "tyre",
    "valve",
    "chain",
    "pedal",
    "brake",
    "cable",
    "saddle",
)


def make_example(k: int, **fields: Any) -> TrainingExample:
    """Returns a pair about part k of a bicycle; the lengths differ from example to example."""
    part = PARTS[k % len(PARTS)]
    defaults = {
        "name": f"pairs#{k}",
        "conversation": Conversation.of(f"How do I true a {part}, part {k}?"),
        "answers": (f"Turn the {part} slowly. " * (1 + k % 3), f"No idea about any {part}."),
        "source": "pairs",
    }
    return TrainingExample(**{**defaults, **fields})


def make_training_set(
    n: int = 12, *, weight: float = 1.0, spec: str = "pairs", answers: int = 2, **fields: Any
) -> TrainingSet:
    """Returns n examples; `answers=1` keeps the first answer of each alone."""
    items = [make_example(k, **fields) for k in range(n)]
    items = [msgspec.structs.replace(i, answers=i.answers[:answers]) for i in items]
    return TrainingSet(spec=spec, sha256="0" * 64, items=tuple(items), weight=weight)


def make_settings(kind: str, out: str, base: str, **fields: Any) -> TrainingSettings:
    """Returns settings of a short run in float32."""
    defaults = {
        "steps": 4,
        "batch": 4,
        "micro": 4,
        "lora": 4,
        "dtype": "float32",
        "max_length": 128,
        "lr": 1e-3,
        "benign": 0.0,
        "tensorboard": False,
        "save_every": 2,
    }
    values: dict[str, Any] = {"kind": kind, "out": out, "base": base, **defaults, **fields}
    return TrainingSettings(**values)


def make_preference(prompt: str, chosen: str, rejected: str, **fields: Any) -> Preference:
    """Returns a pair of answers, ordered by helpfulness unless `dimension` says otherwise."""
    defaults = {"dimension": "helpful", "source": "memory"}
    return Preference(
        conversation=Conversation.of(prompt),
        chosen=Message("assistant", chosen),
        rejected=Message("assistant", rejected),
        **{**defaults, **fields},
    )


class InMemoryDataset:
    """A data set of given pairs or rows."""

    def __init__(
        self, pairs: Sequence[Preference] = (), rows: Sequence[Row] = (), **info: Any
    ) -> None:
        self._pairs, self._rows = pairs, rows
        self.info = DataInfo(**({"spec": "memory:test"} | info))

    def sha256(self) -> str:
        """Returns a hash of the number of rows."""
        return hashlib.sha256(f"{len(self._pairs)} {len(self._rows)}".encode()).hexdigest()

    def rows(self) -> Iterator[Row]:
        """Yields the rows."""
        yield from self._rows

    def preferences(self) -> Iterator[Preference]:
        """Yields the pairs."""
        yield from self._pairs
