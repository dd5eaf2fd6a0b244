"""Hashes of prompts and components, and the rule for which judge may measure which model.

The rule: no figure may come from a judge that selected, trained or blocked the model that it
measures. Two judges count as related if they have the same hash, if one was trained from the
other's labels, or if they share training prompts.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator

from truing.core.types import Lineage


def normalise_prompt(prompt: str) -> str:
    """Returns the form under which two prompts count as equal.

    NFKC, lower case, single spaces, no punctuation at either end.
    """
    text = unicodedata.normalize("NFKC", prompt).casefold()
    return " ".join(text.split()).strip(" .!?\"'")


def hash_prompt(prompt: str) -> str:
    """Returns the first twelve hex digits of the normalised prompt's SHA-256."""
    return hashlib.sha256(normalise_prompt(prompt).encode()).hexdigest()[:12]


def hash_prompts(prompts: Iterable[str]) -> tuple[str, ...]:
    """Returns the sorted distinct prompt hashes, the form of `Lineage.prompts`."""
    return tuple(sorted({hash_prompt(p) for p in prompts}))


def digest(*parts: str | bytes) -> str:
    """Returns sixteen hex digits of a SHA-256 over the parts, the form of `Lineage.hash`."""
    sha256 = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        # The length goes in first, so that ("ab", "c") and ("a", "bc") differ.
        sha256.update(len(data).to_bytes(8, "big"))
        sha256.update(data)
    return sha256.hexdigest()[:16]


def ancestors(lineage: Lineage) -> Iterator[Lineage]:
    """Yields every judge behind a lineage, depth first, without the lineage itself."""
    for judge in lineage.judges:
        yield judge
        yield from ancestors(judge)


def find_judge_conflict(judge: Lineage, variant: Lineage) -> str | None:
    """Returns why a judge may not measure a model variant, or None if it may.

    It may not if the judge, or a judge that it was trained from, selected, trained or blocked
    answers for the variant; nor if it shares training prompts with a judge that did.
    """
    # A judge without a hash (of an old run) cannot be recognised.
    used = {j.hash: j for j in ancestors(variant) if j.hash}
    for source in (judge, *ancestors(judge)):
        if source.hash and source.hash in used:
            return (
                f"{variant.name or 'the variant'} was chosen, trained or blocked by "
                f"{source.name or source.hash}"
            )
    # Two judges with common training prompts tend to make the same mistakes.
    for used_judge in used.values():
        shared = len(set(judge.prompts) & set(used_judge.prompts))
        if shared:
            return (
                f"{judge.name or 'the judge'} shares {shared} training prompts with "
                f"{used_judge.name or used_judge.hash}, "
                "which made the variant"
            )
    return None


def find_shared_prompts(lineage: Lineage, prompts: Iterable[str]) -> frozenset[str]:
    """Returns the hashes of the prompts that the lineage, or a judge behind it, was trained on."""
    known = set(lineage.prompts).union(*(j.prompts for j in ancestors(lineage)))
    return frozenset(h for h in map(hash_prompt, prompts) if h in known)
