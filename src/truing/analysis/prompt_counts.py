"""Counts of verdicts by prompt: the unit that every rate, difference and claim rests on.

Answers to the same prompt are not independent, whether they are n answers to one sample, rows of
a recorded set that repeat a prompt, or attacked versions of one prompt. So verdicts are summed by
prompt first (`VerdictTable.prompt_ids`), and intervals are computed over prompts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from truing.analysis.verdict_table import EXPECTS, NO, UNSCORED, YES, VerdictTable
from truing.stats.intervals import Interval, clustered_wilson, wilson

Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]


class PromptCounts(Struct, frozen=True):
    """Events, scored answers and all answers by prompt; arrays over the prompts of a table."""

    events: Counts
    scored: Counts
    rows: Counts

    @property
    def unscored(self) -> Counts:
        """Answers without a verdict, by prompt."""
        return self.rows - self.scored

    @property
    def lowest(self) -> NDArray[np.float64]:
        """Share of events by prompt if no unscored answer is one; NaN without answers."""
        return _share(self.events, self.rows)

    @property
    def highest(self) -> NDArray[np.float64]:
        """Share of events by prompt if every unscored answer is one; NaN without answers."""
        return _share(self.events + self.unscored, self.rows)

    @property
    def rate(self) -> NDArray[np.float64]:
        """Share of events among the scored answers by prompt; NaN where nothing was scored."""
        return _share(self.events, self.scored)


class RateCounts(Struct, frozen=True):
    """The counts behind one rate: its answers, and the prompts that they belong to."""

    by_prompt: PromptCounts

    @property
    def n(self) -> int:
        """Number of answers."""
        return int(self.by_prompt.rows.sum())

    @property
    def scored(self) -> int:
        """Number of answers with a verdict."""
        return int(self.by_prompt.scored.sum())

    @property
    def events(self) -> int:
        """Number of answers with the verdict "yes"."""
        return int(self.by_prompt.events.sum())

    @property
    def prompts(self) -> int:
        """Number of distinct prompts."""
        return int((self.by_prompt.rows > 0).sum())

    def interval(self) -> Interval | None:
        """Returns Wilson's interval, cluster-robust if prompts have several scored answers."""
        return cluster_interval(self.by_prompt.events, self.by_prompt.scored)


def cluster_interval(events: Counts, sizes: Counts) -> Interval | None:
    """Returns the interval of events per row over clusters; None without rows."""
    filled = sizes > 0
    if not filled.any():
        return None
    # Every prompt has a single scored answer, so the rows are independent.
    if sizes.max() == 1:
        return wilson(int(events.sum()), int(sizes.sum()))
    # Equal clusters are counted once, with their number: there are few kinds, and many prompts.
    distinct, multiplicity = np.unique(
        np.stack([events[filled], sizes[filled]], axis=1), axis=0, return_counts=True
    )
    return clustered_wilson(
        distinct[:, 0].tolist(), distinct[:, 1].tolist(), times=[int(t) for t in multiplicity]
    )


def _share(events: Counts, sizes: Counts) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(sizes > 0, events / sizes, np.nan), np.float64)


class _SampleCounts(Struct, frozen=True):
    """Events, scored answers and all answers by sample (position), not yet summed by prompt.

    `prompt_ids` holds the number of each sample's prompt.
    """

    prompt_ids: Counts
    events: Counts
    scored: Counts
    rows: Counts

    def by_prompt(self, mask: Mask | None) -> PromptCounts:
        """Returns the sums over the selected samples of each prompt."""
        n_prompts = int(self.prompt_ids.max()) + 1 if len(self.prompt_ids) else 0
        selected = slice(None) if mask is None else mask

        def sums(values: Counts) -> Counts:
            totals = np.bincount(
                self.prompt_ids[selected], weights=values[selected], minlength=n_prompts
            )
            return totals.astype(np.int64)

        return PromptCounts(sums(self.events), sums(self.scored), sums(self.rows))


def _count_by_sample(table: VerdictTable, codes: Sequence[bytes]) -> _SampleCounts:
    events, scored, rows = (np.zeros(table.size, np.int64) for _ in range(3))
    for array in codes:
        values = np.frombuffer(array, np.uint8)
        is_event, is_no = values == YES, values == NO
        events += is_event
        scored += is_event | is_no
        rows += is_event | is_no | (values == UNSCORED)
    return _SampleCounts(np.asarray(table.prompt_ids, np.int64), events, scored, rows)


def count_prompts(
    table: VerdictTable, codes: Sequence[bytes], mask: Mask | None = None
) -> PromptCounts:
    """Returns the counts by prompt of some codes (by answer index), over the selected samples."""
    return _count_by_sample(table, codes).by_prompt(mask)


def select_samples(
    table: VerdictTable, expects: Collection[str] | None = None, group: str = ""
) -> Mask:
    """Returns which samples have one of some expectations (None: any) and belong to a group."""
    mask = np.ones(table.size, bool)
    if expects is not None:
        expect_ids = [EXPECTS.index(expect) for expect in EXPECTS if expect in expects]
        mask &= np.isin(np.frombuffer(table.expect_ids, np.uint8), expect_ids)
    if group:
        attacked = np.frombuffer(table.attacked, np.uint8) > 0
        mask &= attacked if group == ATTACKED else ~attacked
    return mask


ATTACKED, PLAIN = "attacked", "plain"
"""Groups of samples: prompts that an attack rewrote, and prompts as they are in the data set."""


def row_groups(table: VerdictTable) -> tuple[str, ...]:
    """Returns the groups of samples that are counted apart, the one that is quoted first.

    A run that holds plain prompts and attacks on them has both; any other run has one group,
    named "".
    """
    is_mixed = 0 < sum(table.attacked) < table.size
    return (ATTACKED, PLAIN) if is_mixed else ("",)


def category_masks(table: VerdictTable, *, axis: bool) -> dict[str | None, Mask]:
    """Returns category -> samples that count in it, None being all of them.

    By the rules of axes a benign prompt counts under the category of its pair; by those of plain
    rates it belongs to no category.
    """
    masks: dict[str | None, Mask] = {None: np.ones(table.size, bool)}
    for category in dict.fromkeys(c for categories in table.category_sets for c in categories):
        mask = samples_in_category(table, category, axis=axis)
        if mask.any():
            masks[category] = mask
    return masks


def samples_in_category(table: VerdictTable, category: str, *, axis: bool) -> Mask:
    """Returns which samples count in a category, by the rules of axes or of plain rates."""
    set_ids = np.asarray(table.pair_category_ids if axis else table.category_ids, np.int64)
    has_category = np.asarray([category in c for c in table.category_sets], bool)
    if not len(has_category):
        return np.zeros(table.size, bool)
    mask = has_category[set_ids]
    return mask if axis else mask & ~select_samples(table, ("comply",))


def count_by_category(
    table: VerdictTable,
    codes: Sequence[bytes],
    expects: Collection[str] | None = None,
    *,
    axis: bool = False,
    group: str = "",
) -> dict[str | None, RateCounts]:
    """Counts codes by category, None being all rows.

    Args:
        table: the run.
        codes: codes by answer index.
        expects: count prompts with these expectations only.
        axis: count a benign prompt under the category of its pair instead of under none.
        group: count attacked or plain prompts only; see `row_groups`.
    """
    by_sample = _count_by_sample(table, codes)
    selected = select_samples(table, expects, group)
    return {
        category: RateCounts(by_sample.by_prompt(selected & mask))
        for category, mask in category_masks(table, axis=axis).items()
    }
