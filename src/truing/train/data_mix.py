"""The mix of training sets: benign share, held-out prompts, the order of the rows."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from truing.core.errors import PlanError
from truing.core.lineage import hash_prompt
from truing.core.types import Conversation, stream_seed
from truing.train.examples import TrainingExample, TrainingSet
from truing.train.settings import TrainingSettings


def benign_share(sources: Iterable[TrainingSet]) -> float:
    """The expected share of benign look-alikes, with the answer preferred, in the mix."""
    listed = list(sources)
    total = sum(s.weight * len(s.items) for s in listed)
    benign = sum(s.weight * sum(i.benign for i in s.items) for s in listed)
    return benign / total if total else 0.0


def add_benign_examples(
    settings: TrainingSettings, sources: Sequence[TrainingSet], fill: TrainingSet | None
) -> list[TrainingSet]:
    """The mix with enough benign look-alikes: as given, or topped up from `fill` to the share that is asked for.

    Pairs that teach caution alone raise over-refusal by construction; `benign=0` switches this off, and the folder
    says so.
    """
    listed = list(sources)
    caution = any(i.signs is not None and not i.benign for s in listed for i in s.items)
    if settings.kind not in ("reward", "cost", "dpo", "kto") or not settings.benign or not caution:
        return listed
    have = benign_share(listed)
    if have >= settings.benign - 1e-9:
        return listed
    if fill is None or not fill.items:
        raise PlanError(
            f"only {have:.0%} of the mix are benign look-alikes with the answer preferred, "
            f"{settings.benign:.0%} are wanted; add pairs:benign to --data, or --benign 0"
        )
    total = sum(s.weight * len(s.items) for s in listed)
    need = (settings.benign * total - have * total) / (1 - settings.benign)
    return [*listed, replace(fill, weight=max(need, 1) / len(fill.items))]


def epoch_order(sources: Sequence[TrainingSet], epoch: int, seed: int) -> list[tuple[int, int]]:
    """(source, row) of an epoch: each row `weight` times, fractions drawn, all shuffled; a function of its arguments."""
    rng = random.Random(stream_seed(seed, "epoch", epoch))
    drawn: list[tuple[int, int]] = []
    for at, source in enumerate(sources):
        whole, part = int(source.weight), source.weight - int(source.weight)
        rows = range(len(source.items))
        drawn += [(at, k) for _ in range(whole) for k in rows]
        drawn += [(at, k) for k in sorted(rng.sample(rows, round(part * len(source.items))))]
    if not drawn:
        raise PlanError("the weights leave no row in an epoch")
    rng.shuffle(drawn)
    return drawn


def iterate_step_rows(
    sources: Sequence[TrainingSet], settings: TrainingSettings, steps: int
) -> Iterator[list[tuple[int, int]]]:
    """The rows of each step, epoch after epoch, endlessly cut into batches."""
    epoch = 0
    queue: list[tuple[int, int]] = []
    for _ in range(steps):
        while len(queue) < settings.batch:
            queue += epoch_order(sources, epoch, settings.seed)
            epoch += 1
        yield queue[: settings.batch]
        queue = queue[settings.batch :]


def count_steps(sources: Sequence[TrainingSet], settings: TrainingSettings) -> int:
    """Steps of the whole run."""
    if settings.steps is not None:
        return settings.steps
    size = len(epoch_order(sources, 0, settings.seed))
    return max(1, math.ceil(settings.epochs * size / settings.batch))


def split_held_out(
    sources: Sequence[TrainingSet], share: float
) -> tuple[list[TrainingSet], list[TrainingExample]]:
    """Sets a share of the prompts apart, by their normalised hash, so that no prompt stands on both sides."""
    if not share:
        return list(sources), []

    def out(conversation: Conversation) -> bool:
        return (
            int(hash_prompt("\n".join(m.content for m in conversation.messages)), 16) % 1000
            < 1000 * share
        )

    held = [i for s in sources for i in s.items if out(i.conversation)]
    left = [replace(s, items=tuple(i for i in s.items if not out(i.conversation))) for s in sources]
    left = [s for s in left if s.items]
    if not left or not held:
        raise PlanError(f"held_out={share}: too few prompts to set some apart")
    return left, held
