"""A linear model over hashed n-grams of tokens, beside the encoder: exact words that it may blur.

The features are the distinct uni-, bi- and trigrams of token ids in the prompt and in the response,
hashed to `2 ** bits` buckets (Weinberger et al. 2009, Feature Hashing, arXiv:0902.2206) and weighed
by inverse document frequency; rows are scaled to length 1. No text is stored, only weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from truing.judges.moderation.inputs import EncodedInput

Floats = npt.NDArray[np.float32]

# Odd 64-bit constants of splitmix64 and xxHash. They are part of the file format: other numbers
# would put the n-grams of trained models into other buckets.
_PRIME_1, _PRIME_2, _PRIME_3, _SALT = (
    np.uint64(value)
    for value in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5)
)


def ngram_buckets(row: EncodedInput, bits: int) -> npt.NDArray[np.int64]:
    """Returns the distinct buckets of a row's n-grams, ascending.

    Special tokens are not features of their own; in bi- and trigrams they mark the two ends.
    """
    ids = np.asarray(row.ids, dtype=np.uint64) + np.uint64(7)
    segments = np.asarray(row.segments, dtype=np.uint64)
    hashes: list[npt.NDArray[np.uint64]] = []
    for segment in (0, 1):
        x = ids[segments == segment]
        if len(x) < 2:
            continue
        # The salt keeps a word of the prompt apart from the same word of the response.
        salt = np.uint64(segment + 1) * _SALT
        # Unigrams: the prompt's ids begin with [CLS], the response's do not; both end with [SEP].
        hashes.append(x[1 - segment : -1] * _PRIME_1 ^ salt)
        hashes.append(x[:-1] * _PRIME_1 + x[1:] * _PRIME_2 ^ salt)
        if len(x) > 2:
            hashes.append(x[:-2] * _PRIME_1 + x[1:-1] * _PRIME_2 + x[2:] * _PRIME_3 ^ salt)
    if not hashes:
        return np.zeros(0, np.int64)
    mixed = np.concatenate(hashes)
    # The products' low bits are weak, and the mask below keeps only low bits: mix the high ones in.
    mixed ^= mixed >> np.uint64(29)
    mixed *= _PRIME_2
    mixed ^= mixed >> np.uint64(32)
    return np.unique((mixed & np.uint64((1 << bits) - 1)).astype(np.int64))


class NgramModel:
    """Weights `[2 ** bits, outputs]` in int8 with a scale per output, and `idf` `[2 ** bits]`.

    The bias is part of the network's head.
    """

    def __init__(self, weight: npt.NDArray[np.int8], scale: Floats, idf: Floats) -> None:
        is_power_of_two = weight.ndim == 2 and weight.shape[0] & (weight.shape[0] - 1) == 0
        if not is_power_of_two or weight.shape[0] != len(idf):
            raise ValueError(
                f"n-gram weights of shape {weight.shape} with {len(idf)} frequencies do not fit"
            )
        if scale.shape != (weight.shape[1],):
            raise ValueError(f"{len(scale)} scales for {weight.shape[1]} outputs")
        self.bits = int(weight.shape[0]).bit_length() - 1
        self._weight = weight
        self._scale = scale.astype(np.float32)
        self._idf = idf.astype(np.float32)

    def logits(self, rows: Sequence[EncodedInput]) -> Floats:
        """Returns `[len(rows), outputs]`, to be added to the network's logits."""
        logits = np.zeros((len(rows), self._weight.shape[1]), np.float32)
        for index, row in enumerate(rows):
            buckets = ngram_buckets(row, self.bits)
            if len(buckets):
                idf = self._idf[buckets]
                idf = idf / max(float(np.sqrt(idf @ idf)), 1e-9)
                logits[index] = idf @ self._weight[buckets].astype(np.float32)
        return logits * self._scale


def quantise_columns(weight: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Returns int8 weights and a scale per column; the largest weight of a column becomes 127."""
    scale = np.maximum(np.abs(weight).max(0), 1e-9) / 127.0
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)
