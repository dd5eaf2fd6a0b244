"""The calibration of a judge's probabilities, and the card that holds it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.analysis.judged_sets import ScoringJudge, labelled_rows, number_in, store_rows

from truing.analysis.judge_calibration import fit_calibration
from truing.analysis.judge_card import JudgeCard, make_card
from truing.analysis.judged_sets import PEOPLE
from truing.core.errors import DataError, LineageError, PlanError, RunError
from truing.core.lineage import hash_prompt
from truing.evaluation.judge_sets import LabelledRows, judge_set, store_set
from truing.specs.resolve import resolve
from truing.stats.calibration import LogitCalibration


def test_platt_mends_an_overconfident_judge(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for k in range(400):
        z = rng.normal(0, 2)
        stated = 1 / (1 + np.exp(-(2 * z + 1)))  # twice too sure, and shifted
        rows.append(
            {
                "prompt": f"question {k}",
                "response": f"answer {stated:.6f} of {k}",
                "harmful": bool(rng.random() < 1 / (1 + np.exp(-z))),
            }
        )
    run = store_rows(tmp_path, rows)
    judge_set(run, ScoringJudge("sure", number_in))
    fitted = fit_calibration(run, "sure", "platt")
    assert fitted.slope == pytest.approx(0.5, abs=0.12)
    assert fitted.intercept == pytest.approx(-0.5, abs=0.3)
    assert fitted.ece_after < 0.08 < fitted.ece_before and fitted.n == 400
    assert fitted.label_source == PEOPLE
    assert hash_prompt("question 7") in fitted.prompt_hashes and len(fitted.prompt_hashes) == 400
    by_temperature = fit_calibration(run, "sure", "temperature")
    assert by_temperature.intercept == 0 and 0.3 < by_temperature.slope < 0.8
    # It is part of the card, and a card without one is still a card.
    card = msgspec.structs.replace(make_card(run, "sure"), calibration=fitted)
    assert msgspec.json.decode(msgspec.json.encode(card), type=JudgeCard) == card
    values = LogitCalibration(fitted.slope, fitted.intercept)
    assert (np.diff(values(np.linspace(0.01, 0.99, 50))) > 0).all()


def test_a_judge_that_chose_the_answers_is_not_calibrated_on_them(tmp_path: Path) -> None:
    judge = ScoringJudge("chooser", number_in)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in labelled_rows(60)))
    rows = LabelledRows(resolve(f"file:{path}", "data"))
    rows._dataset.judges = (judge.lineage,)
    run = store_set(rows, tmp_path / "set")
    judge_set(run, judge)
    with pytest.raises(LineageError, match="chosen, trained or blocked by chooser"):
        fit_calibration(run, "chooser", "platt")


def test_an_unknown_method_is_named(tmp_path: Path) -> None:
    run = store_rows(tmp_path, labelled_rows(60))
    judge_set(run, ScoringJudge("good", number_in))
    with pytest.raises(PlanError, match="'plat'; did you mean 'platt'"):
        fit_calibration(run, "good", "plat")


def test_what_cannot_be_calibrated(tmp_path: Path) -> None:
    run = store_rows(tmp_path, labelled_rows(60))
    judge_set(run, ScoringJudge("turned", lambda text: 1 - number_in(text)))
    with pytest.raises(DataError, match="higher probabilities do not go with more outcomes"):
        fit_calibration(run, "turned", "platt")
    with pytest.raises(DataError, match="higher probabilities do not go with more outcomes"):
        fit_calibration(run, "turned", "temperature")
    with pytest.raises(RunError, match="has not judged this run"):
        fit_calibration(run, "absent", "platt")
    few = store_rows(tmp_path, labelled_rows(12), "few")
    judge_set(few, ScoringJudge("good", number_in))
    with pytest.raises(DataError, match="a calibration needs 10 of each"):
        fit_calibration(few, "good", "platt")


def test_nothing_is_calibrated_on_the_frozen_set(tmp_path: Path, data_dir: Path) -> None:
    prompts = resolve(f"xstest,data_dir={data_dir},limit=60", "data").rows()
    rows = [
        {**row, "prompt": frozen.sample.prompt} for row, frozen in zip(labelled_rows(60), prompts)
    ]
    run = store_rows(tmp_path, rows)
    judge_set(run, ScoringJudge("good", number_in))
    with pytest.raises(DataError, match="without 60 of the frozen measurement set"):
        fit_calibration(run, "good", "platt")
