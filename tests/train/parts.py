"""Small data for the tests of training: pairs and answers in our own words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from truing.core.types import Conversation, DataInfo, Message, Preference, Row
from truing.train.examples import TrainingExample, TrainingSet
from truing.train.settings import TrainingSettings

WORDS = (
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


def item(k: int, **more: Any) -> TrainingExample:
    """A pair about part k of a bicycle; lengths differ from row to row."""
    word = WORDS[k % len(WORDS)]
    given = {
        "name": f"pairs#{k}",
        "conversation": Conversation.of(f"How do I true a {word}, part {k}?"),
        "answers": (f"Turn the {word} slowly. " * (1 + k % 3), f"No idea about any {word}."),
        "source": "pairs",
        **more,
    }
    return TrainingExample(**given)


def source(
    n: int = 12, *, weight: float = 1.0, spec: str = "pairs", width: int = 2, **more: Any
) -> TrainingSet:
    """n rows; `width` 1 keeps the first answer alone."""
    items = [item(k, **more) for k in range(n)]
    items = [msgspec.structs.replace(i, answers=i.answers[:width]) for i in items]
    return TrainingSet(spec=spec, sha256="0" * 64, items=tuple(items), weight=weight)


def settings(kind: str, out: str, base: str, **more: Any) -> TrainingSettings:
    """Quick settings in float32, without what tests do not look at."""
    given = {
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
        **more,
    }
    return TrainingSettings(kind=kind, out=out, base=base, **given)  # type: ignore[arg-type]


class Data:
    """A data set in memory."""

    def __init__(
        self, pairs: Sequence[Preference] = (), rows: Sequence[Row] = (), **info: Any
    ) -> None:
        self._pairs, self._rows = pairs, rows
        self.info = DataInfo(**({"spec": "memory:test"} | info))

    def sha256(self) -> str:
        """Of the number of rows; good enough here."""
        return hashlib.sha256(f"{len(self._pairs)} {len(self._rows)}".encode()).hexdigest()

    def rows(self) -> Iterator[Row]:
        """As given."""
        yield from self._rows

    def preferences(self) -> Iterator[Preference]:
        """As given."""
        yield from self._pairs


def pair(prompt: str, chosen: str, rejected: str, **more: Any) -> Preference:
    """A pair."""
    given = {"dimension": "helpful", "source": "memory", **more}
    return Preference(
        conversation=Conversation.of(prompt),
        chosen=Message("assistant", chosen),
        rejected=Message("assistant", rejected),
        **given,
    )
