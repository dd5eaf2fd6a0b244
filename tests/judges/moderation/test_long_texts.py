"""The score of a long text is corrected for the number of its windows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.judges.moderation.conftest import CATEGORIES

from truing.core.errors import UserError
from truing.core.types import Failure
from truing.judges.moderation.inputs import EncodedInput, ModerationInput
from truing.judges.moderation.long_texts import (
    EXCEEDANCE_LEVELS,
    FILE_NAME,
    ExceedanceCurve,
    LongTextCurves,
    fit_curve,
    read_long_text_curves,
)
from truing.judges.moderation.scorer import (
    ModerationScore,
    ModerationScorer,
    hash_classifier_folder,
)
from truing.judges.moderation.settings import (
    INPUT_MODES,
    ClassifierSettings,
    write_json,
)

BAD = 5  # the id of the word "bad" in the tiny classifier
OUTPUTS = ("harmful", *CATEGORIES)
SETTINGS = ClassifierSettings(kind="moderation", base="b", base_sha256="0", categories=CATEGORIES)
CURVES = LongTextCurves(
    exceedance=(0.8, 0.3, 0.01),
    curves={
        mode: dict.fromkeys(OUTPUTS, ExceedanceCurve((-2.0, 0.5, 3.0), (-3.0, -1.0, 2.0), 0.4))
        for mode in INPUT_MODES
    },
)


def correct(curves: LongTextCurves, logits: Sequence[float], windows: Sequence[int]) -> np.ndarray:
    return curves.correct("pair", "harmful", np.asarray(logits), np.asarray(windows))


def script_logits(
    scorer: ModerationScorer, monkeypatch: pytest.MonkeyPatch, bad: float, good: float
) -> None:
    """Gives a row that holds the word "bad" one logit in all outputs, other rows another."""
    outputs = 3 + len(CATEGORIES)

    def logits(rows: Sequence[EncodedInput]) -> np.ndarray:
        scripted = [[bad if BAD in row.ids else good] * outputs for row in rows]
        return np.array(scripted, np.float32)

    monkeypatch.setattr(scorer.members[0], "logits", logits)


def score(scorer: ModerationScorer, moderation_input: ModerationInput) -> ModerationScore:
    (scored,) = scorer.score([moderation_input])
    assert not isinstance(scored, Failure)
    return scored


@given(
    st.lists(st.floats(-30, 30), min_size=2, max_size=20),
    st.integers(1, 640),
    st.integers(1, 640),
)
def test_a_corrected_logit_ascends_with_the_logit_and_descends_with_the_number_of_windows(
    logits: list[float], first: int, second: int
) -> None:
    few, many = sorted((first, second))
    ascending = sorted(logits)
    corrected = [correct(CURVES, ascending, [k] * len(logits)) for k in (few, many)]
    assert all(np.isfinite(values).all() for values in corrected)
    assert all((np.diff(values) >= 0).all() for values in corrected)
    assert (corrected[1] <= corrected[0] + 1e-9).all()
    assert (corrected[0] <= np.asarray(ascending) + 1e-9).all()


def test_one_window_is_left_as_it_is() -> None:
    logits = np.array([-7.1, 0.3, 12.0], np.float32)
    assert np.array_equal(correct(CURVES, logits, [1, 1, 1]), logits)
    assert correct(CURVES, logits, [1, 9, 1])[[0, 2]].tolist() == logits[[0, 2]].tolist()


def test_long_benign_texts_are_flagged_as_often_as_short_ones() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 120, 1_200)
    # Windows of a text share a part of their logit, and are higher than whole texts.
    texts = [1.0 + 0.3 * rng.normal() + rng.logistic(size=n) for n in lengths]
    whole = rng.logistic(size=20_000)
    curve = fit_curve(whole, texts[:600])
    assert curve.index < 1
    curves = LongTextCurves(exceedance=EXCEEDANCE_LEVELS, curves={"pair": {"harmful": curve}})
    highest = np.array([text.max() for text in texts[600:]])
    corrected = correct(curves, highest.tolist(), lengths[600:].tolist())
    for threshold in (0.0, 1.5):
        assert np.mean(highest >= threshold) > 0.85
        share = np.mean(whole >= threshold)
        assert np.mean(corrected >= threshold) == pytest.approx(share, abs=0.1)


def test_a_curve_of_equal_logits_can_be_inverted() -> None:
    curve = fit_curve(np.zeros(50), [np.zeros(5)] * 4)
    assert (np.diff(curve.windows) > 0).all() and (np.diff(curve.whole) > 0).all()
    assert 0 < curve.index <= 1


@pytest.mark.parametrize("side", ["prompt", "answer", "alone"])
def test_a_long_text_needs_more_than_a_short_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    write_json(folder / FILE_NAME, CURVES)
    scorer = ModerationScorer(folder, engine="torch", dtype="float32")
    script_logits(scorer, monkeypatch, bad=8.0, good=0.5)

    def judged(text: str) -> ModerationScore:
        if side == "prompt":
            return score(scorer, ModerationInput((text,)))
        return score(scorer, ModerationInput(("word",) if side == "answer" else (), text))

    short, long = judged("good word"), judged("good " * 3_000)
    assert short.harmful == float(np.float32(1) / (1 + np.exp(-np.float32(0.5))))
    assert short.flagged and short.flagged_categories == CATEGORIES
    assert not long.flagged and not long.flagged_categories and long.windows > 20
    assert long.harmful < short.harmful
    harmful = judged("good " * 1_500 + "bad " + "good " * 1_500)
    assert harmful.flagged and harmful.worst is not None
    assert harmful.harmful < 1 / (1 + np.exp(-8.0))


def test_the_verdict_agrees_with_the_score_and_the_threshold(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(folder / FILE_NAME, CURVES)
    scorer = ModerationScorer(folder, engine="torch", dtype="float32")
    for bad in np.linspace(-2, 8, 21):
        script_logits(scorer, monkeypatch, bad=float(bad), good=-9.0)
        for words in (1, 60, 900):
            scored = score(scorer, ModerationInput(("good " * words + "bad",)))
            assert scored.flagged == (scored.harmful >= scorer.thresholds.harmful["prompt"])
            flagged = tuple(c for c, p in scored.categories.items() if p >= 0.5)
            assert scored.flagged_categories == flagged


def test_other_texts_of_an_input_do_not_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(folder / FILE_NAME, CURVES)
    scorer = ModerationScorer(folder, engine="torch", dtype="float32")
    script_logits(scorer, monkeypatch, bad=0.5, good=-9.0)
    apart = score(scorer, ModerationInput(("good " * 3_000,), None, ("bad",)))
    assert apart.harmful == score(scorer, ModerationInput(("bad",))).harmful


def test_the_file_is_read_and_is_no_part_of_the_hash(folder: Path) -> None:
    before = hash_classifier_folder(folder)
    write_json(folder / FILE_NAME, CURVES)
    assert read_long_text_curves(folder, SETTINGS) == CURVES
    assert ModerationScorer(folder, engine="torch").curves == CURVES
    assert hash_classifier_folder(folder) == before


def change(path: str, value: Any) -> bytes:
    """Returns the file of `CURVES` with one value replaced, or removed if it is None."""
    tree: dict[str, Any] = msgspec.to_builtins(CURVES)
    node = tree
    *parents, last = path.split("/")
    for key in parents:
        node = node[key]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return json.dumps(tree).encode()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"{", "long_texts.json"),
        (b'{"exceedance": ["a"], "curves": {}}', "exceedance"),
        (change("exceedance", [0.5]), "at least two shares"),
        (change("exceedance", [0.8, 0.3, 0.0]), "between 0 and 1"),
        (change("exceedance", [0.01, 0.3, 0.8]), "must descend"),
        (change("curves/pair", None), "curves.pair.harmful: missing"),
        (change("curves/prompt/self_harm", None), "curves.prompt.self_harm: missing"),
        (change("curves/pair/harmful/windows", [1.0, 2.0]), "windows: must hold 3 logits"),
        (change("curves/pair/harmful/whole", [1.0, 1.0, 2.0]), "whole: logits must be finite"),
        (change("curves/pair/harmful/index", 0), "index: 0.0 is not above 0"),
        (change("curves/pair/harmful/index", 1.5), "at most 1"),
        (change("curves/pair/harmful/index", float("nan")), "long_texts.json"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(folder: Path, content: bytes, fault: str) -> None:
    (folder / FILE_NAME).write_bytes(content)
    with pytest.raises(UserError, match=fault):
        ModerationScorer(folder, engine="torch")


def test_without_the_file_nothing_is_corrected(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = ModerationScorer(folder, engine="torch", dtype="float32")
    script_logits(scorer, monkeypatch, bad=0.5, good=-9.0)
    long = score(scorer, ModerationInput(("good " * 900 + "bad",)))
    assert scorer.curves is None and long.windows > 20
    assert long.harmful == score(scorer, ModerationInput(("bad",))).harmful
