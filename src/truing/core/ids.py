"""Ids of samples and seeds of random streams, both derived by hashing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import msgspec

from truing.core.types import Sample


def content_id(sample: Sample, occurrence: int = 0) -> str:
    """Returns sixteen hex digits of the sample's content, plus `-k` for the k-th repetition."""
    # The source and the tags do not change what a model sees, so they do not count as content.
    content = msgspec.structs.replace(sample, id="", source="", tags={})
    digest = hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()[:16]
    return digest if occurrence == 0 else f"{digest}-{occurrence}"


def with_ids(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Sets the content id of each sample without an id; equal samples are numbered in order."""
    occurrences: dict[str, int] = {}
    for sample in samples:
        if sample.id:
            yield sample
            continue
        base = content_id(sample)
        count = occurrences.get(base, 0)
        occurrences[base] = count + 1
        yield msgspec.structs.replace(sample, id=base if count == 0 else f"{base}-{count}")


def hash_text(text: str) -> int:
    """Returns a signed 64-bit hash of a text: the same in every process, unlike `hash`."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def stream_seed(seed: int, *parts: str | int) -> int:
    """Returns a 63-bit seed for a random stream derived from `seed` and the parts.

    The stream of a sample is `(seed, sample.id)`, that of an answer `(sampling.seed, index)`, so
    that results depend neither on the order nor on the number of samples.
    """
    blake = hashlib.blake2b(str(seed).encode(), digest_size=8)
    for part in parts:
        # NUL separates the parts; ids of users may hold lone surrogates.
        blake.update(b"\0" + str(part).encode("utf-8", "surrogatepass"))
    # 63 bits, because torch and numpy take signed 64-bit seeds.
    return int.from_bytes(blake.digest(), "big") >> 1
