"""Licences of data, weights and labels: which ones are free, and which ones a component depends on.

Only the licences in `FREE_LICENCES` count as free. All others do not: non-commercial, share-alike,
the terms of a model, "not stated".
"""

from __future__ import annotations

from collections.abc import Iterable

from truing.core.lineage import ancestors
from truing.core.types import Lineage

FREE_LICENCES = (
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CC BY 3.0",
    "CC BY 4.0",
    "ISC",
    "MIT",
    "ODC-BY",
)
"""Licences that allow any use of the material and of models trained on it; at most they require
attribution."""

_NORMALISED_FREE = frozenset(name.casefold().replace("-", " ") for name in FREE_LICENCES)


UNSTATED_LICENCES = ("not stated", "unverified")
"""Placeholders for a licence that is not known: it does not count as free, and is not reported as a
restriction either."""


def split_licences(text: str) -> tuple[str, ...]:
    """Returns the licences in a list such as ``MIT; CC BY 4.0``, in order, without duplicates."""
    parts = (part.strip() for part in text.split(";"))
    return tuple(dict.fromkeys(part for part in parts if part))


def join_licences(*texts: str) -> str:
    """Returns one list (``MIT; CC BY 4.0``) of the licences in several, without duplicates."""
    return "; ".join(dict.fromkeys(part for text in texts for part in split_licences(text)))


def is_free(licence: str) -> bool:
    """Returns whether a single licence permits any use, commercial use included."""
    return licence.strip().casefold().replace("-", " ") in _NORMALISED_FREE


def find_unfree(licences: Iterable[str]) -> tuple[str, ...]:
    """Returns the licences in these lists that are not free, without duplicates."""
    parts = (part for text in licences for part in split_licences(text))
    return tuple(dict.fromkeys(part for part in parts if not is_free(part)))


def collect_licences(lineage: Lineage) -> tuple[str, ...]:
    """Returns the licences of a model or judge, and of all judges and teachers in its lineage."""
    texts = (origin.licence for origin in (lineage, *ancestors(lineage)))
    return tuple(dict.fromkeys(part for text in texts for part in split_licences(text)))


def describe_restriction(name: str, licences: Iterable[str]) -> str:
    """Returns a sentence that says why a judge or model is not free; "" if it is.

    A licence that is not stated, such as that of a user's own rows, is not reported.
    """
    unfree = [licence for licence in find_unfree(licences) if licence not in UNSTATED_LICENCES]
    if not unfree:
        return ""
    use = ": research only" if any("-NC" in licence for licence in unfree) else ""
    return f"{name} learned under licences that are not free ({'; '.join(unfree)}){use}"
