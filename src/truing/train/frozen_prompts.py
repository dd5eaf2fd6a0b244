"""Keeps the frozen measurement set out of training.

A model or judge that learned a prompt cannot be measured on it. All training reads its data through
`TrainableRows`: rows and pairs with a frozen prompt are left out and counted. With `allow` they are
kept and counted: their hashes in the lineage then cause a warning at every later figure, and
figures on the same published set are struck.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from truing.core.errors import DataError
from truing.core.measurement_set import has_frozen_prompt
from truing.core.protocols import Dataset
from truing.core.types import DataInfo, Lineage, Preference, Row, Sample

_log = logging.getLogger("truing.train")

FROZEN_REASON = "of the frozen measurement set"


class TrainableRows:
    """A data set without its rows and pairs of the frozen measurement set (unless `allow`).

    Their number in the latest pass over the rows and over the pairs is `n_left_out`, or `n_kept`
    with `allow`.
    """

    def __init__(self, data: Dataset, *, allow: bool = False) -> None:
        self._data = data
        self._allow = allow
        self._frozen_rows = 0
        self._frozen_pairs = 0

    @property
    def info(self) -> DataInfo:
        """The description of the data set."""
        return self._data.info

    @property
    def judges(self) -> tuple[Lineage, ...]:
        """The judges that labelled or chose the answers, if the data set names them."""
        return tuple(getattr(self._data, "judges", ()))

    @property
    def n_left_out(self) -> int:
        """The number of rows and pairs that were left out."""
        return 0 if self._allow else self._frozen_rows + self._frozen_pairs

    @property
    def n_kept(self) -> int:
        """The number of rows and pairs that are trained on in spite of a frozen prompt."""
        return self._frozen_rows + self._frozen_pairs if self._allow else 0

    def sha256(self) -> str:
        """Returns the hash of the files, which does not depend on what is left out."""
        return self._data.sha256()

    def rows(self) -> Iterator[Row]:
        """Yields the rows that may be trained on."""
        self._frozen_rows = 0
        for row in self._data.rows():
            if has_frozen_prompt(row.sample.conversation):
                self._frozen_rows += 1
                if not self._allow:
                    continue
            yield row

    def preferences(self) -> Iterator[Preference]:
        """Yields the pairs that may be trained on."""
        self._frozen_pairs = 0
        for pair in self._data.preferences():
            if has_frozen_prompt(pair.conversation):
                self._frozen_pairs += 1
                if not self._allow:
                    continue
            yield pair

    def log_frozen_rows(self) -> None:
        """Logs a warning with the number of rows with a frozen prompt, if there are any."""
        if self.n_left_out:
            _log.warning("%s: %s", self.info.spec, explain_left_out(self.n_left_out))
        if self.n_kept:
            _log.warning(
                "%s: %d rows of the frozen measurement set are trained on: figures of the result "
                "on that set will be struck",
                self.info.spec,
                self.n_kept,
            )


def read_trainable_samples(data: Iterable[Dataset], allow_frozen: bool) -> list[Sample]:
    """Returns the samples of some data sets whose prompts may be answered in training.

    Raises DataError if there are none.
    """
    samples: list[Sample] = []
    specs: list[str] = []
    for dataset in data:
        trainable = TrainableRows(dataset, allow=allow_frozen)
        samples += [row.sample for row in trainable.rows()]
        trainable.log_frozen_rows()
        specs.append(dataset.info.spec)
    if not samples:
        raise DataError(f"{', '.join(specs)}: no prompts are left to train on")
    return samples


def explain_left_out(n_frozen: int) -> str:
    """Returns the sentence about rows that were left out, with what to do."""
    return (
        f"{n_frozen} rows of the frozen measurement set are left out "
        "(--allow-measurement-prompts trains on them)"
    )
