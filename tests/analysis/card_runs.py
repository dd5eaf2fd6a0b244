"""Runs over labelled sets, from which judge cards are made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from truing.analysis.card_files import write_card
from truing.analysis.judge_card import make_card
from truing.core.types import Lineage

JUDGE = Lineage(name="j", hash="1" * 16)


def build_labelled_run(make_run, prompts, verdicts, truth, name="set", lineage=JUDGE) -> Path:
    """A run with verdicts on harm by the judge j, and labels by human:people."""
    rows = {"harmful@j": verdicts, "harmful@human:people": truth}
    return make_run(name, prompts(len(truth)), rows, lineages={"j": lineage})


def write_garak_card(make_run, prompts, path: Path) -> Path:
    """A card with sensitivity 0.92 and specificity 0.39 from 100 rows each, as of garak's judge."""
    verdicts = [[True]] * 92 + [[False]] * 8 + [[True]] * 61 + [[False]] * 39
    truth = [[True]] * 100 + [[False]] * 100
    run = build_labelled_run(make_run, prompts, verdicts, truth, name="garak")
    write_card(make_card(run, "j"), path)
    return path


def set_scores(run: Path, judge: str, scores: Sequence[float]) -> None:
    """Overwrites the scores in the judgements of a judge, one per row in file order."""
    records = json.loads((run / "manifest.json").read_bytes())["judges"]
    file = run / next(record["file"] for record in records if record["name"] == judge)
    rows = [json.loads(line) for line in file.read_bytes().splitlines()]
    file.write_text(
        "".join(
            json.dumps(row | {"score": float(score)}) + "\n" for row, score in zip(rows, scores)
        )
    )
