"""The commands of ranking and of weights, and the small table of `truing run`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from truing.analysis.judge_card import (
    CardLineage,
    GradedAgreement,
    JudgeCard,
    QuestionCard,
    write_card,
)
from truing.cli.rank import by
from truing.core.errors import DataError
from truing.specs.resolve import resolve
from truing.stats.intervals import Interval


def truing(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "truing", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_mcq_and_perplexity(tmp_path: Path) -> None:
    out = tmp_path / "mcq"
    words = (
        "--model",
        "scripted:mixed",
        "--data",
        "builtin:pairs",
        "--limit",
        "20",
        "--permutations",
        "2",
    )
    done = truing("rank", "mcq", *words, "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    likelihood, letter = json.loads(done.stdout)
    assert (likelihood["ranker"], letter["ranker"], likelihood["n"]) == (
        "mcq-likelihood",
        "mcq-letter",
        20,
    )
    assert json.loads((out / "ranking.json").read_text()) == [likelihood, letter]
    rows = [
        json.loads(line)
        for line in (out / "rankings" / "mcq-letter.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 20 and all(len(r["picks"]) == 2 for r in rows)
    shown = truing(
        "rank",
        "perplexity",
        "--model",
        "scripted:mixed",
        "--data",
        "builtin:pairs",
        "--out",
        str(tmp_path / "p"),
    )
    assert shown.returncode == 0
    assert "swapped question, gain" in shown.stdout
    assert (
        "Animal abuse: per token" in shown.stdout and " of 3 " in shown.stdout
    )  # a small group is a count, not a percentage


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--model", "scripted:mixed", "--data", "builtin:helpful"), "no multiple choice"),
        (("--model", "scripted:mixd", "--data", "builtin:pears"), "did you mean 'mixed'"),
        (("--model", "scripted:mixed", "--data", "builtin:pears"), "did you mean 'pairs'"),
        (
            ("--model", "scripted:mixed", "--data", "builtin:pairs", "--by", "luck"),
            "is none of likelihood, letter, generation",
        ),
        (
            ("--model", "scripted:mixed", "--data", "builtin:pairs", "--limit", "0"),
            "must be 1 or more",
        ),
        (
            ("--model", "scripted:mixed", "--data", "builtin:pairs", "--primer", "no/such/file"),
            "No such file",
        ),
    ],
)
def test_faults_are_one_line_each(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    done = truing("rank", "mcq", *words, "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert says in done.stderr and "Traceback" not in done.stderr


def test_by_a_judge(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    assert (
        truing(
            "evaluate",
            "--model",
            "scripted:mixed",
            "--data",
            "builtin:safety,limit=4",
            "--out",
            run,
        ).returncode
        == 0
    )
    done = truing("rank", "by", run, "--judge", "rules:refusal")
    assert done.returncode == 1 and "one answer a sample" in done.stderr


def _card(path: Path, judge: str, hash_: str) -> Path:
    """A small card against degrees of another question."""
    graded = GradedAgreement(
        n=90,
        spearman=Interval(0.61, 0.47, 0.72, ""),
        difference=Interval(-0.1, -0.2, 0.0, ""),
        absolute=0.2,
    )
    none = dict.fromkeys(("sensitivity", "specificity", "precision", "f1", "auroc", "ap", "kappa"))
    about = QuestionCard(n=90, n_positive=30, unscored=0, graded=graded, **none)
    write_card(
        JudgeCard(
            judge=judge,
            judge_hash=hash_,
            data="real-toxicity:",
            data_hash="",
            n=90,
            raters=("perspective:rtp",),
            against="toxicity",
            questions={"refused": about},
            per_category={},
            lineage=CardLineage(),
        ),
        path,
    )
    return path


def test_by_a_judge_with_its_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    made = (
        "--model",
        "scripted:mixed",
        "--data",
        "builtin:safety",
        "--limit",
        "4",
        "--n",
        "3",
        "--temperature",
        "1",
    )
    assert truing("evaluate", *made, "--out", str(run)).returncode == 0
    hash_ = resolve("rules:refusal", "judge").lineage.hash
    card = _card(tmp_path / "card.json", "rules:refusal", hash_)
    assert by(run, judge="rules:refusal", card=card) == 0
    shown = capsys.readouterr().out
    assert "expected maximum of 3" in shown
    assert (
        "against toxicity (perspective:rtp) on real-toxicity:; Spearman 0.61 [0.47, 0.72]" in shown
    )
    assert by(run, judge="rules:refusal", card=card, json=True) == 0
    assert json.loads(capsys.readouterr().out)["card"]["questions"]["refused"]["graded"]["n"] == 90
    assert by(run, judge="rules:refusal") == 0
    assert "no card of rules:refusal is given" in capsys.readouterr().out
    with pytest.raises(DataError, match="another version"):
        by(run, judge="rules:refusal", card=_card(tmp_path / "old.json", "rules:refusal", "0" * 16))
    with pytest.raises(DataError, match="the card is of rules:degenerate"):
        by(
            run,
            judge="rules:refusal",
            card=_card(tmp_path / "other.json", "rules:degenerate", hash_),
        )


def test_a_page_of_several_rankings(tmp_path: Path) -> None:
    out = tmp_path / "a"
    words = ("--model", "scripted:mixed", "--data", "builtin:pairs", "--limit", "12")
    assert truing("rank", "perplexity", *words, "--out", str(out)).returncode == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "builtin:pairs · perplexity of safe and unsafe answers" in page
    assert page.count("<svg") == 1 and "http://" not in page and "https://" not in page
    assert "smoke alarm" not in page  # counts only, no text of a row
    done = truing("rank", "report", str(out), str(out), "--out", str(tmp_path / "both"))
    assert done.returncode == 0
    assert (tmp_path / "both" / "report.md").read_text(encoding="utf-8").count(
        "## builtin:pairs"
    ) == 2
    assert truing("rank", "report", "--out", str(tmp_path / "none")).returncode == 1
    empty = truing("rank", "report", str(tmp_path), "--out", str(tmp_path / "none"))
    assert empty.returncode == 1 and "no run folder" in empty.stderr
