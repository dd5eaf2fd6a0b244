"""Very large runs are summarised part by part: the counts and intervals of the whole table."""

from __future__ import annotations

from pathlib import Path

import pytest

from truing.analysis import streamed_summary
from truing.analysis.streamed_summary import count_parts, is_streamed
from truing.analysis.summary import summarise
from truing.core.types import Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.evaluation.run_parts import PartDataset, finish_parts, prepare_parts
from truing.runs.folder import Run
from truing.specs.resolve import resolve

OPTIONS = EvaluateOptions(sampling=Sampling(n=2, temperature=1.0), seed=3, limit=40)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "parts"
    model, dataset = resolve("scripted:mixed", "model"), resolve("builtin:safety", "data")
    judges = [resolve(s, "judge") for s in ("keywords:", "rules:refusal", "rules:degenerate")]
    prepared = prepare_parts(model, dataset, judges, out, options=OPTIONS, part_rows=9)
    of_parts = PartDataset(dataset.info, dataset.sha256())
    for part in prepared.parts:
        evaluate(model, of_parts, judges, out / "parts" / part, options=OPTIONS)
    finish_parts(out)
    return out


def test_the_figures_of_the_whole_table(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = summarise(sharded)
    assert not is_streamed(Run(sharded))
    monkeypatch.setattr(streamed_summary, "STREAMED_SAMPLES", 10)
    assert is_streamed(Run(sharded))
    streamed = summarise(sharded)
    for name in ("model", "data", "samples", "responses", "failed", "complete", "headline"):
        assert getattr(streamed, name) == getattr(whole, name), name
    assert (streamed.not_tested, streamed.tokens) == (whole.not_tested, whole.tokens)
    fields = ("n", "scored", "events", "unscored", "raw", "bounds", "prompts", "small", "struck")
    compared = 0
    for rates, of_whole in ((streamed.rates, whole.rates), (streamed.axes, whole.axes)):
        expected = {(r.question, r.judge, r.group, r.category): r for r in of_whole}
        # Twins may lie in different parts: then the categories of axes differ, and a note says so.
        for rate in rates:
            key = (rate.question, rate.judge, rate.group, rate.category)
            if rate.category is not None and rates is streamed.axes:
                continue
            compared += 1
            for name in fields:
                assert getattr(rate, name) == getattr(expected[key], name), (key, name)
        wanted = {k for k in expected if k[3] is None or rates is streamed.rates}
        assert wanted <= {(r.question, r.judge, r.group, r.category) for r in rates}
    assert compared > 10
    assert any("summarised part by part" in note for note in streamed.notes)


def test_with_fewer_held_prompts_counts_stay_exact(sharded: Path) -> None:
    exact, sampled = count_parts(Run(sharded)), count_parts(Run(sharded), bound=4)
    assert exact.sketches.keys() == sampled.sketches.keys()
    for key, sketch in exact.sketches.items():
        assert (sketch.totals == sampled.sketches[key].totals).all()
    assert any("from a random sample of so many" in note for note in sampled.notes())
    assert not any("random sample" in note for note in exact.notes())
