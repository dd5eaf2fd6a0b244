"""Corrects the scores of windows for the number of windows of their text.

The highest of k benign scores grows with k, and a part of a text looks odder than a whole one, so
that a threshold that was fitted on texts of one window flags most long ones. Let S(z) be the share
of windows of long benign texts whose logit is at least z, and W(z) that of benign texts of one
window. The highest logit of k windows becomes the z' with W(z') = 1 - (1 - S(z))^n,
n = 1 + index * (k - 1), at most z: a long benign text reaches a threshold as often as a short one
does. `index` is the extremal index of the sequence of windows: 1 for independent ones, lower where
the windows of a text resemble each other. The map is increasing in z, decreasing in k, and the
identity for one window.

long_texts.json of a classifier folder holds S, W and the index of each output. It is data about
benign texts and no part of the classifier's hash, which is about scores of one window. Without it
nothing is corrected: a guess would let harm pass that stands amid many words.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from truing.core.errors import UserError
from truing.judges.moderation.settings import INPUT_MODES, ClassifierSettings, read_json

FILE_NAME = "long_texts.json"
HARMFUL_OUTPUT = "harmful"  # the other outputs are the categories
EXCEEDANCE_LEVELS = (0.95, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.02, 0.005)
_LOWEST_INDEX = 0.02


class ExceedanceCurve(Struct, frozen=True):
    """Benign logits at the shares of `LongTextCurves.exceedance`, ascending.

    `windows` are those of windows of long texts, `whole` those of texts of one window; `index` is
    the extremal index, above 0 and at most 1.
    """

    windows: tuple[float, ...]
    whole: tuple[float, ...]
    index: float


class LongTextCurves(Struct, frozen=True, kw_only=True):
    """`long_texts.json`: a curve for each mode and each of its outputs.

    `exceedance` are shares of windows, descending, between 0 and 1. Between and beyond them the
    logit of the share is linear in the window's logit. Modes are those of windows: `prompt` (also
    of an answer that is read as a prompt), `pair` and `response`.
    """

    exceedance: tuple[float, ...]
    curves: dict[str, dict[str, ExceedanceCurve]]
    texts: str = ""

    def correct(
        self, mode: str, output: str, logits: np.ndarray, windows: np.ndarray
    ) -> np.ndarray:
        """Returns the logits of windows, corrected for the number of windows of their texts.

        `logits` and `windows` have one value a window; where that is 1 the logit is unchanged.
        """
        has_several_windows = windows > 1
        if not has_several_windows.any():
            return logits
        curve = self.curves[mode][output]
        shares = np.asarray(self.exceedance)
        share_logits = np.log(shares) - np.log1p(-shares)
        z = np.clip(logits[has_several_windows].astype(np.float64), -60.0, 60.0)
        count = 1.0 + curve.index * (windows[has_several_windows] - 1.0)
        # -log(1 - S), then n times that, then back to the logit of a share
        hazard = count * np.logaddexp(0.0, _interpolate(z, curve.windows, share_logits))
        any_share_logit = hazard + np.log(-np.expm1(-hazard))
        corrected = logits.astype(np.float64)
        of_whole = _interpolate(any_share_logit, share_logits[::-1], curve.whole[::-1])
        corrected[has_several_windows] = np.minimum(of_whole, z)
        return corrected


def read_long_text_curves(folder: Path, settings: ClassifierSettings) -> LongTextCurves | None:
    """Returns the checked `long_texts.json` of a folder, or None if there is none.

    Raises UserError with all faults of the file.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    curves = read_json(path, LongTextCurves)
    shares = curves.exceedance
    faults = []
    if len(shares) < 2 or not all(0 < share < 1 for share in shares):
        faults.append(f"{path}: exceedance: must be at least two shares between 0 and 1")
    if not _is_ascending(shares[::-1]):
        faults.append(f"{path}: exceedance: must descend")
    outputs = (HARMFUL_OUTPUT, *settings.categories)
    for mode in INPUT_MODES:
        of_mode = curves.curves.get(mode, {})
        for output in outputs:
            where = f"{path}: curves.{mode}.{output}"
            if output not in of_mode:
                faults.append(f"{where}: missing")
            else:
                faults += _list_faults(of_mode[output], len(shares), where)
    if faults:
        raise UserError(*faults)
    return curves


def _list_faults(curve: ExceedanceCurve, length: int, where: str) -> list[str]:
    faults = []
    for name, logits in (("windows", curve.windows), ("whole", curve.whole)):
        if len(logits) != length:
            faults.append(f"{where}.{name}: must hold {length} logits, one for each share")
        if not all(map(math.isfinite, logits)) or not _is_ascending(logits):
            faults.append(f"{where}.{name}: logits must be finite and ascend")
    if not 0 < curve.index <= 1:
        faults.append(f"{where}: index: {curve.index} is not above 0 and at most 1")
    return faults


def _is_ascending(values: Sequence[float]) -> bool:
    return all(a < b for a, b in itertools.pairwise(values))


def _interpolate(x: np.ndarray, knots: ArrayLike, values: ArrayLike) -> np.ndarray:
    """Returns the piecewise linear function through ascending knots, its end pieces prolonged."""
    knots, values = np.asarray(knots), np.asarray(values)
    piece = np.clip(np.searchsorted(knots, x) - 1, 0, len(knots) - 2)
    slope = (values[piece + 1] - values[piece]) / (knots[piece + 1] - knots[piece])
    return np.asarray(values[piece] + slope * (x - knots[piece]))


# -- measuring a curve


def fit_curve(whole: np.ndarray, logits_of_texts: Sequence[np.ndarray]) -> ExceedanceCurve:
    """Returns the curve of one output at `EXCEEDANCE_LEVELS`.

    `whole` holds the logits of benign texts of one window, `logits_of_texts` those of the windows
    of each long benign text. The index maximises the likelihood of these texts' highest logits.
    """
    knots = _find_knots(np.concatenate(logits_of_texts))
    levels = np.asarray(EXCEEDANCE_LEVELS)
    highest = np.array([logits.max() for logits in logits_of_texts])
    further = np.array([len(logits) - 1.0 for logits in logits_of_texts])
    shares = _interpolate(highest, knots, np.log(levels) - np.log1p(-levels))
    hazards = np.logaddexp(0.0, shares)

    def loss(index: float) -> float:
        counts = 1.0 + index * further
        return float((counts * hazards - np.log(counts)).sum())

    index = minimize_scalar(loss, bounds=(_LOWEST_INDEX, 1.0), method="bounded").x
    return ExceedanceCurve(knots, _find_knots(whole), round(float(index), 3))


def _find_knots(logits: np.ndarray) -> tuple[float, ...]:
    """Returns the logits at the levels; equal ones are moved apart, as a step has no inverse."""
    levels = np.asarray(EXCEEDANCE_LEVELS)
    knots = np.quantile(logits, 1.0 - levels) + 1e-3 * np.arange(len(levels))
    return tuple(round(float(knot), 4) for knot in knots)
