"""Fits the n-gram model: logistic regression on sparse rows for every output, with masked and soft labels.

Minimised by L-BFGS (Liu & Nocedal 1989) from SciPy; idf as in Spärck Jones 1972, smoothed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from scipy import optimize, sparse

from truing.judges.moderation.inputs import EncodedInput
from truing.judges.moderation.ngrams import ngram_buckets

Floats = npt.NDArray[np.float64]


class NgramRegression(Struct, frozen=True):
    """`weight` [2 ** bits, outputs], `bias` [outputs], `idf` [2 ** bits]."""

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    idf: npt.NDArray[np.float32]

    def logits(self, x: sparse.csr_matrix) -> Floats:
        """`[n, outputs]` for rows of `counts`."""
        return np.asarray(tfidf_rows(x, self.idf) @ self.weight + self.bias, dtype=np.float64)


def ngram_matrix(rows: Sequence[EncodedInput], bits: int) -> sparse.csr_matrix:
    """1 for each bucket of each row."""
    found = [ngram_buckets(r, bits) for r in rows]
    ends = np.cumsum([0, *(len(f) for f in found)])
    columns = np.concatenate(found) if found else np.zeros(0, np.int64)
    return sparse.csr_matrix(
        (np.ones(len(columns), np.float32), columns, ends), shape=(len(rows), 1 << bits)
    )


def inverse_document_frequency(x: sparse.csr_matrix) -> npt.NDArray[np.float32]:
    """log((1 + rows) / (1 + rows with it)) + 1."""
    n = x.shape[0]
    frequency = np.asarray((x > 0).sum(0)).ravel()
    return np.asarray(np.log((1 + n) / (1 + frequency)) + 1, dtype=np.float32)


def tfidf_rows(x: sparse.csr_matrix, idf: npt.NDArray[np.float32]) -> sparse.csr_matrix:
    """Rows weighed by idf, of length 1."""
    made = x @ sparse.diags(idf.astype(np.float64))
    norm = np.sqrt(np.asarray(made.multiply(made).sum(1)).ravel())
    return sparse.csr_matrix(sparse.diags(1 / np.maximum(norm, 1e-9)) @ made)


def fit_ngram_regression(
    x: sparse.csr_matrix, targets: Floats, weight: Floats, *, strength: float = 4.0, steps: int = 60
) -> NgramRegression:
    """Targets `[n, outputs]` in 0..1, NaN = not judged; `strength` is the inverse of the penalty (scikit-learn's C)."""
    idf = inverse_document_frequency(x)
    a = tfidf_rows(x, idf)
    outputs = targets.shape[1]
    made = np.zeros((x.shape[1], outputs), np.float32)
    bias = np.zeros(outputs, np.float32)
    for k in range(outputs):
        known = ~np.isnan(targets[:, k]) & (weight[:, k] > 0)
        y, c = targets[known, k], weight[known, k]
        if known.sum() < 20 or not 0 < y.sum() < len(y):
            continue
        part = a[np.flatnonzero(known)]
        start = float(np.log((y @ c + 1) / ((1 - y) @ c + 1)))
        made[:, k], bias[k] = _one(part, y, c, strength, steps, start)
    return NgramRegression(made, bias, idf)


def _one(
    a: sparse.csr_matrix, y: Floats, c: Floats, strength: float, steps: int, start: float
) -> tuple[npt.NDArray[np.float32], np.float32]:
    used = np.unique(a.indices)
    part = sparse.csr_matrix(a[:, used])
    turned = sparse.csr_matrix(part.T)

    def loss(w: Floats) -> tuple[float, Floats]:
        z = part @ w[:-1] + w[-1]
        value = strength * float(c @ (np.logaddexp(0, z) - y * z)) + 0.5 * float(w[:-1] @ w[:-1])
        error = strength * c * (1 / (1 + np.exp(-np.clip(z, -40, 40))) - y)
        return value, np.append(turned @ error + w[:-1], error.sum())

    first = np.zeros(len(used) + 1)
    first[-1] = start
    found = optimize.minimize(
        loss, first, jac=True, method="L-BFGS-B", options={"maxiter": steps}
    ).x
    whole = np.zeros(a.shape[1], np.float32)
    whole[used] = found[:-1]
    return whole, np.float32(found[-1])
