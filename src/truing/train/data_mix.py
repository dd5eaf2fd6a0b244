"""The mix of training sets: benign share, held-out prompts, encoded rows, the rows of each step."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from truing.core.errors import DataError, PlanError
from truing.core.ids import stream_seed
from truing.core.lineage import hash_prompt
from truing.core.types import Conversation
from truing.train.batches import EncodedExample, ExampleEncoder
from truing.train.examples import TrainingExample, TrainingSet
from truing.train.settings import TrainingSettings

RowIndex = tuple[int, int]  # (index of the training set, index of the example in it)


def benign_share(sources: Iterable[TrainingSet]) -> float:
    """Returns the expected share of benign look-alikes (harmless, answer preferred) in the mix."""
    sources = list(sources)
    total = _drawn_per_epoch(sources)
    benign = sum(s.weight * sum(item.benign for item in s.items) for s in sources)
    return benign / total if total else 0.0


def _drawn_per_epoch(sources: Sequence[TrainingSet]) -> float:
    return sum(s.weight * len(s.items) for s in sources)


def add_benign_examples(
    settings: TrainingSettings, sources: Sequence[TrainingSet], fill: TrainingSet | None
) -> list[TrainingSet]:
    """Returns the mix, topped up from `fill` to the benign share that the settings ask for.

    Pairs that teach nothing but caution make a model refuse harmless requests as well. A share of 0
    switches the check off. Raises PlanError if the share is too low and there is nothing to add.
    """
    sources = list(sources)
    learns_preferences = settings.kind in ("reward", "cost", "dpo", "kto")
    teaches_caution = any(
        item.signs is not None and not item.benign for s in sources for item in s.items
    )
    if not learns_preferences or not settings.benign or not teaches_caution:
        return sources
    share = benign_share(sources)
    if share >= settings.benign - 1e-9:
        return sources
    if fill is None or not fill.items:
        raise PlanError(
            f"only {share:.0%} of the mix are benign look-alikes with the answer preferred, "
            f"{settings.benign:.0%} are required; add pairs:benign to --data, or give --benign 0"
        )
    # Solves (share * total + missing) / (total + missing) = settings.benign. The weight enters the
    # run's digest, so another order of these operations (other rounding) would break resuming.
    total = _drawn_per_epoch(sources)
    missing = (settings.benign * total - share * total) / (1 - settings.benign)
    return [*sources, replace(fill, weight=max(missing, 1) / len(fill.items))]


def split_held_out(
    sources: Sequence[TrainingSet], share: float
) -> tuple[list[TrainingSet], list[TrainingExample]]:
    """Takes a share of the prompts out; returns the remaining sets and the held-out examples.

    The normalised hash of a prompt decides, so that equal prompts stay together. Raises PlanError
    if one of the two sides would be empty.
    """
    if not share:
        return list(sources), []

    def is_held_out(conversation: Conversation) -> bool:
        text = "\n".join(message.content for message in conversation.messages)
        return int(hash_prompt(text), 16) % 1000 < 1000 * share

    held_out = [i for s in sources for i in s.items if is_held_out(i.conversation)]
    remaining = [
        replace(s, items=tuple(i for i in s.items if not is_held_out(i.conversation)))
        for s in sources
    ]
    remaining = [s for s in remaining if s.items]
    if not remaining or not held_out:
        raise PlanError(f"held_out={share}: too few prompts to hold some out")
    return remaining, held_out


def epoch_order(sources: Sequence[TrainingSet], epoch: int, seed: int) -> list[RowIndex]:
    """Returns the shuffled rows of an epoch, a function of the arguments alone.

    Each example is drawn `weight` times; of a fractional part a random sample is drawn.
    """
    rng = random.Random(stream_seed(seed, "epoch", epoch))
    drawn: list[RowIndex] = []
    for source_index, source in enumerate(sources):
        full_passes = int(source.weight)
        fraction = source.weight - full_passes
        indexes = range(len(source.items))
        drawn += [(source_index, k) for _ in range(full_passes) for k in indexes]
        sampled = rng.sample(indexes, round(fraction * len(source.items)))
        drawn += [(source_index, k) for k in sorted(sampled)]
    if not drawn:
        raise PlanError("the weights of the data sets leave no row in an epoch")
    rng.shuffle(drawn)
    return drawn


def iterate_step_rows(
    sources: Sequence[TrainingSet], settings: TrainingSettings, steps: int
) -> Iterator[list[RowIndex]]:
    """Yields the rows of each step; a batch may span the end of an epoch."""
    epoch = 0
    queue: list[RowIndex] = []
    for _ in range(steps):
        while len(queue) < settings.batch:
            queue += epoch_order(sources, epoch, settings.seed)
            epoch += 1
        yield queue[: settings.batch]
        queue = queue[settings.batch :]


def count_steps(sources: Sequence[TrainingSet], settings: TrainingSettings) -> int:
    """Returns the steps of the whole run: `steps`, or what `epochs` amount to."""
    if settings.steps is not None:
        return settings.steps
    rows_per_epoch = len(epoch_order(sources, 0, settings.seed))
    return max(1, math.ceil(settings.epochs * rows_per_epoch / settings.batch))


class EncodedMix:
    """The encoded examples of each training set.

    `sources` are the training sets without the examples that were dropped here: those with an
    answer that is too long, and pairs whose answers are equal as tokens.
    """

    def __init__(self, sources: Sequence[TrainingSet], encoder: ExampleEncoder) -> None:
        self.encoder = encoder
        self.sources: list[TrainingSet] = []
        self._encoded: list[list[EncodedExample]] = []
        for source in sources:
            encoded, too_long = encoder.encode_all(source.items)
            is_pair_kind = encoder.settings.kind in ("reward", "cost", "dpo")
            distinct = [e for e in encoded if not is_pair_kind or e.answers[0] != e.answers[1]]
            self._add(source, distinct, too_long=len(too_long), equal=len(encoded) - len(distinct))

    def _add(
        self, source: TrainingSet, encoded: list[EncodedExample], *, too_long: int, equal: int
    ) -> None:
        dropped = dict(source.dropped)
        if too_long:
            dropped["answer longer than max_length"] = too_long
        if equal:
            dropped["equal as tokens"] = equal
        if not encoded:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
            raise DataError(f"{source.spec}: nothing left after filtering: {reasons}")
        weight = source.weight
        if all(item.benign for item in source.items):
            # Benign examples keep their share of the mix: the remaining ones are drawn more often.
            weight = source.weight * len(source.items) / len(encoded)
        items = tuple(e.item for e in encoded)
        self._encoded.append(encoded)
        self.sources.append(replace(source, items=items, dropped=dropped, weight=weight))

    def all_rows(self) -> list[EncodedExample]:
        """Returns the encoded examples of all training sets."""
        return [e for encoded in self._encoded for e in encoded]

    def step_rows(self, indexes: Sequence[RowIndex]) -> list[EncodedExample]:
        """Returns the rows of a step, longest first, so that a micro-batch needs little padding."""
        rows = [self._encoded[source][index] for source, index in indexes]
        return sorted(rows, key=lambda e: -len(e.token_ids()))
