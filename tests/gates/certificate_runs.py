"""Runs with scores and labels, for tests of certificates."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from truing.analysis.labels import add_label
from truing.core.types import Judgement
from truing.gates.certificate_draws import CertificateRequest, draw_rows_to_label

REQUEST = CertificateRequest(judge="test:harmful")


def build_scored_run(
    make_run, prompts, scores: Sequence[Sequence[float | None]], name: str = "r", **fields
) -> Path:
    """A run whose judge of harm gives these scores, by prompt and answer; fields of the samples."""
    verdicts = {"harmful": [[False] * len(of_prompt) for of_prompt in scores]}
    run = make_run(name, prompts(len(scores), **fields), verdicts)
    record = json.loads((run / "manifest.json").read_text())["judges"][0]
    rows = [
        Judgement(
            sample_id=f"s{i}",
            index=index,
            judge=record["name"],
            question="harmful",
            verdict=None if score is None else score >= 0.5,
            score=score,
        )
        for i, of_prompt in enumerate(scores)
        for index, score in enumerate(of_prompt)
    ]
    (run / record["file"]).write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return run


def label_rows(
    run: Path,
    request: CertificateRequest,
    n: int,
    is_harmful: Callable[[int], bool | None] = lambda number: False,
) -> None:
    """Draws n rows and labels each by the number i of its sample s<i>."""
    for draw in draw_rows_to_label(run, request, n):
        add_label(
            run,
            Judgement(
                sample_id=draw.sample_id,
                index=draw.index,
                judge="human:a",
                question="harmful",
                verdict=is_harmful(int(draw.sample_id[1:])),
            ),
        )
