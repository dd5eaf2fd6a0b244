"""Fits the n-gram model: a logistic regression per output, with missing and soft labels.

Minimised by L-BFGS (Liu & Nocedal 1989) from SciPy; inverse document frequency after Spärck Jones
1972, smoothed.
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
MIN_ROWS = 20  # with fewer labelled rows an output is left at 0


class NgramRegression(Struct, frozen=True):
    """The fitted model: `weight` [2 ** bits, outputs], `bias` [outputs], `idf` [2 ** bits]."""

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    idf: npt.NDArray[np.float32]

    def logits(self, x: sparse.csr_matrix) -> Floats:
        """Returns `[n, outputs]` of rows of `ngram_matrix`."""
        return np.asarray(tfidf_rows(x, self.idf) @ self.weight + self.bias, dtype=np.float64)


def ngram_matrix(rows: Sequence[EncodedInput], bits: int) -> sparse.csr_matrix:
    """Returns `[n, 2 ** bits]` with 1 at the buckets of each row's n-grams."""
    buckets = [ngram_buckets(row, bits) for row in rows]
    row_starts = np.cumsum([0, *(len(b) for b in buckets)])
    columns = np.concatenate(buckets) if buckets else np.zeros(0, np.int64)
    values = np.ones(len(columns), np.float32)
    return sparse.csr_matrix((values, columns, row_starts), shape=(len(rows), 1 << bits))


def inverse_document_frequency(x: sparse.csr_matrix) -> npt.NDArray[np.float32]:
    """Returns log((1 + rows) / (1 + rows with the bucket)) + 1 of each bucket."""
    frequency = np.asarray((x > 0).sum(0)).ravel()
    return np.asarray(np.log((1 + x.shape[0]) / (1 + frequency)) + 1, dtype=np.float32)


def tfidf_rows(x: sparse.csr_matrix, idf: npt.NDArray[np.float32]) -> sparse.csr_matrix:
    """Returns the rows weighed by idf and scaled to length 1."""
    weighed = x @ sparse.diags(idf.astype(np.float64))
    norm = np.sqrt(np.asarray(weighed.multiply(weighed).sum(1)).ravel())
    return sparse.csr_matrix(sparse.diags(1 / np.maximum(norm, 1e-9)) @ weighed)


def fit_ngram_regression(
    x: sparse.csr_matrix, targets: Floats, weight: Floats, *, strength: float = 4.0, steps: int = 60
) -> NgramRegression:
    """Fits one regression per output.

    `targets` `[n, outputs]` are 0 to 1, NaN if not judged; `weight` has the same shape. `strength`
    is the inverse of the penalty (scikit-learn's C), `steps` the most iterations.
    """
    idf = inverse_document_frequency(x)
    features = tfidf_rows(x, idf)
    outputs = targets.shape[1]
    weights = np.zeros((x.shape[1], outputs), np.float32)
    bias = np.zeros(outputs, np.float32)
    for k in range(outputs):
        is_used = ~np.isnan(targets[:, k]) & (weight[:, k] > 0)
        y, c = targets[is_used, k], weight[is_used, k]
        if is_used.sum() < MIN_ROWS or not 0 < y.sum() < len(y):
            continue
        rows = features[np.flatnonzero(is_used)]
        weights[:, k], bias[k] = _fit_output(rows, y, c, strength, steps)
    return NgramRegression(weights, bias, idf)


def _fit_output(
    x: sparse.csr_matrix, y: Floats, c: Floats, strength: float, steps: int
) -> tuple[npt.NDArray[np.float32], np.float32]:
    """Returns weights and bias of one output; `c` are the weights of the rows."""
    # Only the buckets that occur can get a weight, so the others are left out of the problem.
    used = np.unique(x.indices)
    x_used = sparse.csr_matrix(x[:, used])
    x_transposed = sparse.csr_matrix(x_used.T)

    def loss_and_gradient(parameters: Floats) -> tuple[float, Floats]:
        w, b = parameters[:-1], parameters[-1]
        z = x_used @ w + b
        cross_entropy = float(c @ (np.logaddexp(0, z) - y * z))
        loss = strength * cross_entropy + 0.5 * float(w @ w)
        error = strength * c * (1 / (1 + np.exp(-np.clip(z, -40, 40))) - y)
        return loss, np.append(x_transposed @ error + w, error.sum())

    start = np.zeros(len(used) + 1)
    start[-1] = float(np.log((y @ c + 1) / ((1 - y) @ c + 1)))  # the (smoothed) log-odds
    fitted = optimize.minimize(
        loss_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": steps}
    ).x
    weights = np.zeros(x.shape[1], np.float32)
    weights[used] = fitted[:-1]
    return weights, np.float32(fitted[-1])
