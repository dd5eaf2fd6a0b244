"""Ordering the answers of a run: what a damaged run says."""

from __future__ import annotations

from pathlib import Path

import pytest

from truing.core.errors import RunError
from truing.core.types import Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.rankers.run_ranking import rank_run
from truing.specs.resolve import resolve


def test_an_answer_without_its_sample_is_named(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "s0", "prompt": "a"}\n{"id": "s1", "prompt": "b"}\n')
    judge = resolve("rules:refusal", "judge")
    run = evaluate(
        resolve("scripted:comply", "model"),
        resolve(f"file:{rows}", "data"),
        [judge],
        tmp_path / "run",
        options=EvaluateOptions(sampling=Sampling(n=2)),
    )
    samples = run.file("samples.jsonl")
    samples.write_bytes(b"".join(samples.read_bytes().splitlines(keepends=True)[:1]))
    with pytest.raises(RunError, match=r"the sample of the answer 's1' is missing"):
        rank_run(run.path, judge)
