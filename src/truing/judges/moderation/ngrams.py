"""A linear model over hashed n-grams of tokens, beside the encoder: exact words that a small encoder blurs.

Features are the distinct uni-, bi- and trigrams of token ids in the prompt and in the response, hashed (Weinberger et
al. 2009, Feature Hashing, arXiv:0902.2206) to `2 ** bits` buckets and weighed by inverse document frequency; rows have
length 1. The weights are ours alone: nothing of a text is stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from truing.judges.moderation.inputs import EncodedInput

Floats = npt.NDArray[np.float32]
_A, _B, _C, _D = (
    np.uint64(v)
    for v in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5)
)


def ngram_buckets(row: EncodedInput, bits: int) -> npt.NDArray[np.int64]:
    """The distinct buckets of a row's n-grams, ascending; special tokens only mark the ends."""
    ids = np.asarray(row.ids, dtype=np.uint64) + np.uint64(7)
    segments = np.asarray(row.segments, dtype=np.uint64)
    found: list[npt.NDArray[np.uint64]] = []
    for segment in (0, 1):
        x = ids[segments == segment]
        if len(x) < 2:
            continue
        salt = np.uint64(segment + 1) * _D
        found.append(
            x[1 - segment : -1] * _A ^ salt
        )  # the prompt begins with a mark, the answer does not
        found.append(x[:-1] * _A + x[1:] * _B ^ salt)
        if len(x) > 2:
            found.append(x[:-2] * _A + x[1:-1] * _B + x[2:] * _C ^ salt)
    if not found:
        return np.zeros(0, np.int64)
    mixed = np.concatenate(found)
    mixed ^= mixed >> np.uint64(29)
    mixed *= _B
    mixed ^= mixed >> np.uint64(32)
    return np.unique((mixed & np.uint64((1 << bits) - 1)).astype(np.int64))


class NgramModel:
    """`weight` [2 ** bits, outputs] int8 with a scale for each output, `idf` [2 ** bits]; the bias is the head's."""

    def __init__(self, weight: npt.NDArray[np.int8], scale: Floats, idf: Floats) -> None:
        if (
            weight.ndim != 2
            or weight.shape[0] & (weight.shape[0] - 1)
            or weight.shape[0] != len(idf)
        ):
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
        """`[len(rows), outputs]`, to be added to the encoder's logits."""
        made = np.zeros((len(rows), self._weight.shape[1]), np.float32)
        for at, row in enumerate(rows):
            found = ngram_buckets(row, self.bits)
            if len(found):
                value = self._idf[found]
                value = value / max(float(np.sqrt(value @ value)), 1e-9)
                made[at] = value @ self._weight[found].astype(np.float32)
        return made * self._scale


def quantise_columns(weight: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """int8 with one scale a column, so that the largest weight of a column is 127."""
    scale = np.maximum(np.abs(weight).max(0), 1e-9) / 127.0
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)
