"""Who was trained on what, and which judge may measure which model.

The rule: no figure may come from a judge that chose, trained or blocked the variant that it measures. Relation is by
hash: the same judge, a judge that one of the variant's judges was trained from, or training prompts in common.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator

from truing.core.types import Lineage

_SPACE = re.compile(r"\s+")


def normalise_prompt(prompt: str) -> str:
    """The form under which two prompts count as the same: NFKC, lower case, single spaces, no outer punctuation."""
    text = _SPACE.sub(" ", unicodedata.normalize("NFKC", prompt).casefold()).strip()
    return text.strip(" .!?\"'")


def hash_prompt(prompt: str) -> str:
    """Twelve hex digits of the normalised prompt's SHA-256."""
    return hashlib.sha256(normalise_prompt(prompt).encode()).hexdigest()[:12]


def hash_prompts(prompts: Iterable[str]) -> tuple[str, ...]:
    """Sorted distinct hashes, as `Lineage.prompts` holds them."""
    return tuple(sorted({hash_prompt(p) for p in prompts}))


def digest(*parts: str | bytes) -> str:
    """Sixteen hex digits over the parts: the form of `Lineage.hash`."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "big"))
        whole.update(data)
    return whole.hexdigest()[:16]


def ancestors(lineage: Lineage) -> Iterator[Lineage]:
    """Every judge behind a lineage, nearest first, the lineage itself not included."""
    for judge in lineage.judges:
        yield judge
        yield from ancestors(judge)


def find_judge_conflict(judge: Lineage, variant: Lineage) -> str | None:
    """Why a judge may not measure a variant, or none if it may.

    A judge is struck if it (by hash), or a judge with common training prompts, chose, trained or blocked for the
    variant, or if it was itself made from such a judge's labels.
    """
    behind = {j.hash: j for j in ancestors(variant) if j.hash}
    for mine in (judge, *ancestors(judge)):
        if mine.hash and mine.hash in behind:
            return f"{variant.name or 'the variant'} was chosen, trained or blocked by {mine.name or mine.hash}"
    for other in behind.values():
        shared = len(set(judge.prompts) & set(other.prompts))
        if shared:
            return f"shares {shared} training prompts with {other.name or other.hash}, which made the variant"
    return None


def find_shared_prompts(lineage: Lineage, prompts: Iterable[str]) -> frozenset[str]:
    """The hashes of those prompts that the lineage (or a judge behind it) was trained on."""
    known = set(lineage.prompts).union(*(j.prompts for j in ancestors(lineage)))
    return frozenset(h for h in map(hash_prompt, prompts) if h in known)
