"""`truing rank mcq|perplexity|by|report` on scripted models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command_line import run_truing, truing

from truing.analysis.card_files import write_card
from truing.analysis.judge_card import CardLineage, GradedAgreement, JudgeCard, QuestionCard
from truing.cli.rank import RankFlags
from truing.core.errors import UserError
from truing.specs.resolve import resolve
from truing.stats.intervals import Interval

PAIRS = "--model scripted:mixed --data builtin:pairs"


def test_mcq_by_likelihood_and_by_letter(tmp_path: Path) -> None:
    out = tmp_path / "mcq"
    printed = run_truing(f"rank mcq {PAIRS} --limit 20 --permutations 2 --json --out", out)
    likelihood, letter = json.loads(printed)
    assert (likelihood["ranker"], letter["ranker"]) == ("mcq-likelihood", "mcq-letter")
    assert likelihood["n"] == 20
    assert json.loads((out / "ranking.json").read_text()) == [likelihood, letter]
    lines = (out / "rankings" / "mcq-letter.jsonl").read_text().splitlines()
    assert len(lines) == 20
    assert all(len(json.loads(line)["picks"]) == 2 for line in lines)


def test_perplexity_with_controls(tmp_path: Path) -> None:
    printed = run_truing(f"rank perplexity {PAIRS} --out", tmp_path / "out")
    assert "swapped question, gain" in printed
    assert "Animal abuse: per token" in printed
    assert " of 3 " in printed  # a small group is a count, not a percentage


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--model scripted:mixed --data builtin:helpful", "no multiple choice"),
        ("--model scripted:mixd --data builtin:pears", "did you mean 'mixed'"),
        ("--model scripted:mixed --data builtin:pears", "did you mean 'pairs'"),
        (f"{PAIRS} --by luck", "is none of likelihood, letter, generation"),
        (f"{PAIRS} --limit 0", "must be 1 or more"),
        (f"{PAIRS} --primer no/such/file", "No such file"),
    ],
)
def test_errors(tmp_path: Path, flags: str, message: str) -> None:
    result = truing(f"rank mcq {flags} --out", tmp_path / "out")
    assert result.status == 1
    assert message in result.err


def test_a_primer_implies_plain_text(tmp_path: Path) -> None:
    primer = tmp_path / "primer.txt"
    primer.write_text("Question: 1 + 1? Answer: 2\n")
    settings = RankFlags(primer=primer, seed=3).settings(["letter"])
    assert settings.form.plain
    assert settings.form.primer == "Question: 1 + 1? Answer: 2\n"
    assert (settings.how, settings.seed) == (("letter",), 3)
    assert not RankFlags().settings().form.plain
    with pytest.raises(UserError, match="must be 1 or more"):
        RankFlags(permutations=0).settings()


def test_a_run_with_one_answer_a_sample_cannot_be_ordered(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_truing("evaluate --model scripted:mixed --data builtin:safety,limit=4 --out", run)
    result = truing("rank by", run, "--judge", "rules:refusal")
    assert result.status == 1
    assert "one answer a sample" in result.err
    result = truing("rank by", run, "--judge", "rules:refusal", "--dimension", "kind")
    assert "must be safe or helpful" in result.err


@pytest.fixture
def answered_run(tmp_path: Path) -> Path:
    """A run with three answers to each of four samples."""
    run = tmp_path / "run"
    flags = "--model scripted:mixed --data builtin:safety --limit 4 --n 3 --temperature 1"
    run_truing(f"evaluate {flags} --out", run)
    return run


def write_graded_card(path: Path, judge: str, judge_hash: str) -> Path:
    """Writes a small card of a judge against degrees of another question."""
    graded = GradedAgreement(
        n=90,
        spearman=Interval(0.61, 0.47, 0.72, ""),
        difference=Interval(-0.1, -0.2, 0.0, ""),
        absolute=0.2,
    )
    unknown = dict.fromkeys(
        ("sensitivity", "specificity", "precision", "f1", "auroc", "ap", "kappa")
    )
    card = JudgeCard(
        judge=judge,
        judge_hash=judge_hash,
        data="real-toxicity:",
        data_hash="",
        n=90,
        raters=("perspective:rtp",),
        against="toxicity",
        questions={
            "refused": QuestionCard(n=90, n_positive=30, unscored=0, graded=graded, **unknown)
        },
        per_category={},
        lineage=CardLineage(),
    )
    write_card(card, path)
    return path


def rank_by_refusal(run: Path, *flags: object) -> str:
    return run_truing("rank by", run, "--judge", "rules:refusal", *flags)


def test_order_by_a_judge_with_its_card(answered_run: Path, tmp_path: Path) -> None:
    judge_hash = resolve("rules:refusal", "judge").lineage.hash
    card = write_graded_card(tmp_path / "card.json", "rules:refusal", judge_hash)
    printed = rank_by_refusal(answered_run, "--card", card)
    assert "expected maximum of 3" in printed
    assert (
        "against toxicity (perspective:rtp) on real-toxicity:; Spearman 0.61 [0.47, 0.72]"
        in printed
    )
    fields = json.loads(rank_by_refusal(answered_run, "--card", card, "--json"))
    assert fields["card"]["questions"]["refused"]["graded"]["n"] == 90


def test_without_a_card_the_output_says_so(answered_run: Path) -> None:
    assert "no card of rules:refusal is given" in rank_by_refusal(answered_run)


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ("rules:refusal", "another version"),
        ("rules:degenerate", "the card is of rules:degenerate"),
    ],
)
def test_a_card_of_another_judge_is_refused(
    answered_run: Path, tmp_path: Path, judge: str, message: str
) -> None:
    card = write_graded_card(tmp_path / "card.json", judge, "0" * 16)
    result = truing("rank by --judge rules:refusal --card", card, answered_run)
    assert result.status == 1
    assert message in result.err


def test_report_of_several_rankings(tmp_path: Path) -> None:
    out, both = tmp_path / "a", tmp_path / "both"
    run_truing(f"rank perplexity {PAIRS} --limit 12 --out", out)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "builtin:pairs · perplexity of safe and unsafe answers" in page
    assert page.count("<svg") == 1
    assert "http://" not in page
    assert "https://" not in page
    assert "smoke alarm" not in page  # counts only, no text of a row

    run_truing("rank report", out, out, "--out", both)
    assert (both / "report.md").read_text(encoding="utf-8").count("## builtin:pairs") == 2
    assert truing("rank report --out", tmp_path / "none").status == 1
    result = truing("rank report", tmp_path, "--out", tmp_path / "none")
    assert result.status == 1
    assert "no run folder" in result.err
