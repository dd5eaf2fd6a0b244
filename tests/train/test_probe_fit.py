"""The fit of probes: the optimum of the penalised loss, honest held-out figures, clear refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from truing.core.errors import DataError
from truing.train.probe_fit import FOLDS, MIN_LABELS, _best_threshold, _fit_path, fit_probe


def simulated(
    n: int, width: int, *, strength: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """States on several scales, labels drawn by a known direction, its logits, and prompts of three."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width)).astype(np.float32)
    direction = rng.normal(size=width) / np.sqrt(width)
    logits = strength * (x @ direction) - 1.0
    labels = rng.random(n) < expit(logits)
    states = x * np.geomspace(0.01, 100, width).astype(np.float32) + 3
    return states, labels, logits, np.arange(n) // 3


def names(prompts: np.ndarray) -> list[str]:
    return [f"prompt {k}" for k in prompts]


def test_it_finds_a_known_direction_on_states_of_any_scale() -> None:
    states, labels, logits, prompts = simulated(3000, 20, strength=3.0, seed=1)
    fit = fit_probe("harmful", states, labels, names(prompts), [1] * 3000)
    ours = states @ np.array(fit.weights) + fit.bias
    assert np.corrcoef(ours, logits)[0, 1] > 0.99
    # Calibrated, not only ordered: the slope of the true logits on ours is near 1.
    assert np.polyfit(ours, logits, 1)[0] == pytest.approx(1, abs=0.15)
    assert fit.held_out.lower < 0.9 < fit.held_out.upper + 0.02
    assert (fit.n, fit.n_true) == (3000, int(labels.sum()))


def test_the_weights_are_the_optimum_of_the_penalised_loss() -> None:
    """The gradient of the sum of log losses plus half the penalty times |w|² is zero."""
    states, labels, _, _ = simulated(400, 8, strength=2.0, seed=2)
    mean, scale = states.mean(0, dtype=float), states.std(0, dtype=float)
    x = (states - mean) / scale
    for penalty, (weights, bias) in _fit_path(states, labels).items():
        scaled = weights * scale
        error = expit(x @ scaled + bias + mean @ weights) - labels
        assert x.T @ error + penalty * scaled == pytest.approx(np.zeros(8), abs=0.02)
        assert error.sum() == pytest.approx(0, abs=0.02)


def test_noise_is_held_out_at_a_half() -> None:
    """Pooled over folds with their biases, noise would have an AUROC of about 0.4."""
    fits = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        states = rng.normal(size=(300, 100)).astype(np.float32)
        labels = rng.random(300) < 0.3
        fits.append(fit_probe("harmful", states, labels, names(np.arange(300) // 2), [5] * 300))
    areas = [fit.held_out for fit in fits]
    assert np.mean([area.estimate for area in areas]) == pytest.approx(0.5, abs=0.04)
    assert sum(area.lower < 0.5 < area.upper for area in areas) >= 5
    assert fits[0].by_length.estimate == 0.5  # all answers are of one length


def test_answers_to_one_prompt_are_never_on_both_sides() -> None:
    """States that name the prompt tell the label in training, and nothing of a new prompt."""
    rng = np.random.default_rng(4)
    prompts = np.repeat(np.arange(60), 6)
    of_prompt = rng.random(60) < 0.5
    states = np.eye(60, dtype=np.float32)[prompts] + 0.01 * rng.normal(size=(360, 60))
    fit = fit_probe(
        "harmful", states.astype(np.float32), of_prompt[prompts], names(prompts), [1] * 360
    )
    assert fit.held_out.lower < 0.5 < fit.held_out.upper


def test_length_alone_is_told_apart() -> None:
    rng = np.random.default_rng(5)
    labels = rng.random(200) < 0.5
    states = rng.normal(size=(200, 4)).astype(np.float32)
    lengths = [int(40 * label + 5) for label in labels]
    fit = fit_probe("helpful", states, labels, names(np.arange(200)), lengths)
    assert fit.by_length.estimate == 1.0


def test_the_threshold_has_the_best_f1() -> None:
    logits = np.array([3.0, 2.0, 2.0, 1.0, -1.0])
    labels = np.array([True, True, False, True, False])
    # Above 0: three of four are right, and all three are found (F1 6/7).
    assert _best_threshold(logits, labels) == (0.0, 0.75, 1.0)
    # Two answers have one logit, so that no threshold lies between them.
    assert _best_threshold(np.array([2.0, 2.0, 0.0]), np.array([True, False, False])) == (
        1.0,
        0.5,
        1.0,
    )
    # States without variance tell nothing, and no verdict is true.
    assert _best_threshold(np.zeros(3), np.array([True, False, True])) == (0.0, 0.0, 0.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30))
def test_no_other_threshold_has_a_better_f1(rows: list[tuple[int, bool]]) -> None:
    logits, labels = (np.array(column) for column in zip(*rows))
    if not labels.any() or len(set(logits)) < 2:
        return

    def f1(threshold: float) -> float:
        flagged = logits > threshold
        return float(2 * (flagged & labels).sum() / (flagged.sum() + labels.sum()))

    threshold, precision, recall = _best_threshold(logits.astype(float), labels)
    values = np.unique(logits)
    assert f1(threshold) == max(f1(between) for between in (values[1:] + values[:-1]) / 2)
    flagged = logits > threshold
    assert precision == pytest.approx((flagged & labels).sum() / flagged.sum())
    assert recall == pytest.approx((flagged & labels).sum() / labels.sum())


def test_a_constant_state_has_no_weight() -> None:
    states, labels, _, prompts = simulated(200, 3, strength=2.0, seed=6)
    states[:, 1] = 7.0
    fit = fit_probe("harmful", states, labels, names(prompts), [1] * 200)
    assert fit.weights[1] == 0.0
    assert np.isfinite([*fit.weights, fit.bias]).all()


@pytest.mark.parametrize(
    ("n_true", "n_false", "message"),
    [
        (MIN_LABELS - 1, 50, f"{MIN_LABELS - 1} labels are true, of {MIN_LABELS - 1} prompts"),
        (50, 0, "0 labels are false, of 0 prompts"),
    ],
)
def test_too_few_labels(n_true: int, n_false: int, message: str) -> None:
    labels = np.array([True] * n_true + [False] * n_false)
    states = np.zeros((len(labels), 2), dtype=np.float32)
    with pytest.raises(DataError, match=message):
        fit_probe("harmful", states, labels, names(np.arange(len(labels))), [1] * len(labels))


def test_many_answers_to_few_prompts_are_too_few() -> None:
    labels = np.array([True, False] * 60)
    states = np.zeros((120, 2), dtype=np.float32)
    with pytest.raises(DataError, match="60 labels are true, of 5 prompts"):
        fit_probe("harmful", states, labels, names(np.arange(120) % 5), [1] * 120)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(40, 120), st.integers(1, 12))
def test_any_labels_give_finite_figures(seed: int, n: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    states = (rng.normal(size=(n, width)) * 10.0 ** rng.integers(-4, 4)).astype(np.float32)
    labels = np.arange(n) % 3 == 0
    fit = fit_probe("harmful", states, labels, names(np.arange(n)), [1] * n, seed=seed)
    assert np.isfinite([*fit.weights, fit.bias]).all()
    assert 0 <= fit.held_out.lower <= fit.held_out.estimate <= fit.held_out.upper <= 1
    assert FOLDS == 5
