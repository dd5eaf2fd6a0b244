"""gate, label, card, plan-size and --until at the command line, on scripted runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from truing.cli import main
from truing.runs.folder import Run


def truing(*words: str) -> int:
    """Runs the command line and gives its exit status."""
    before = sys.argv
    sys.argv = ["truing", *words]
    try:
        main()
    except SystemExit as done:
        return int(done.code or 0)
    finally:
        sys.argv = before
    return 0


def evaluate(out: Path, model: str, *more: str) -> Path:
    """A scripted run."""
    assert (
        truing(
            "evaluate",
            "--model",
            f"scripted:{model}",
            "--data",
            "builtin:safety",
            "--judge",
            "rules:refusal",
            "rules:degenerate",
            "--out",
            str(out),
            *more,
        )
        == 0
    )
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scripted run of 168 prompts that refuses about half of them."""
    return evaluate(tmp_path_factory.mktemp("runs") / "mixed", "mixed")


@pytest.fixture
def published(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published sets are found."""
    monkeypatch.setenv("TRUING_DATA", str(data_dir))


def gate(tmp_path: Path, run: Path, text: str, *more: str) -> int:
    """The gate's exit status for a rules file."""
    rules = tmp_path / "rules.toml"
    rules.write_text(text)
    return truing("gate", str(run), str(rules), *more)


def test_a_gate_passes_fails_and_is_inconclusive(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    allow = 'allow = ["uncarded"]'
    assert gate(tmp_path, run, f'[[rule]]\ncheck = "degenerate.upper < 0.05"\n{allow}') == 0
    assert gate(tmp_path, run, f'[[rule]]\ncheck = "answers_benign.lower > 0.9"\n{allow}') == 2
    assert gate(tmp_path, run, f'[[rule]]\ncheck = "degenerate.upper < 0.001"\n{allow}') == 3
    assert gate(tmp_path, run, 'rules = ["harm.upper < 0.02"]') == 3
    assert "not tested: harm: no judge was asked" in capsys.readouterr().out
    assert gate(tmp_path, run, "rules = ['hram']") == 1
    assert "rules[0].check" in capsys.readouterr().err
    files = (
        "--junit",
        str(tmp_path / "a" / "junit.xml"),
        "--sarif",
        str(tmp_path / "a" / "gate.sarif"),
        "--json",
    )
    assert gate(tmp_path, run, 'rules = ["cut.upper < 0.05"]', *files) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "passed"
    assert "<testsuite" in (tmp_path / "a" / "junit.xml").read_text()
    assert json.loads((tmp_path / "a" / "gate.sarif").read_text())["version"] == "2.1.0"
    assert truing("gate", str(run), str(tmp_path / "nowhere.toml")) == 1
    assert truing("gate", str(tmp_path), str(tmp_path / "rules.toml")) == 1


def test_labelling_in_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = evaluate(tmp_path / "r", "mixed", "--limit", "60")
    said = iter([*["y", "n", "?", "x", "y"] * 5, "q"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(said))
    assert truing("label", str(run), "--n", "30", "--question", "refused", "--rater", "ann") == 0
    out = capsys.readouterr()
    assert "20 of 30 drawn rows are labelled" in out.err and "1 of 30" in out.out
    labels = [
        json.loads(line) for line in (run / "labels" / "labels.jsonl").read_text().splitlines()
    ]
    assert len(labels) == 20 and {x["judge"] for x in labels} == {"human:ann"}
    assert truing("show", str(run), "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    rate = next(r for r in summary["rates"] if r["question"] == "refused" and r["category"] is None)
    assert rate["corrected"]["labels"] == 20
    monkeypatch.setattr("builtins.input", lambda prompt: "n")
    assert truing("label", str(run), "--question", "refused", "--rater", "ann") == 0
    assert "30 of 30 drawn rows are labelled" in capsys.readouterr().err
    assert truing("label", str(run), "--question", "refused") == 1
    assert "every drawn row has a label" in capsys.readouterr().err


def test_labels_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = evaluate(tmp_path / "r", "comply", "--limit", "30")
    assert truing("label", str(run), "--n", "10", "--draw-only") == 0
    draws = [json.loads(line) for line in (run / "labels" / "draws.jsonl").read_text().splitlines()]
    rows = [
        {"sample_id": d["sample_id"], "index": 0, "question": "harmful", "verdict": False}
        for d in draws
    ]
    file = tmp_path / "labels.jsonl"
    file.write_text(
        "".join(json.dumps(r) + "\n" for r in [*rows, {"sample_id": "x", "verdict": True}])
    )
    assert truing("label", str(run), "--labels", str(file)) == 0
    assert "of rows not in the run were left out" in capsys.readouterr().err
    file.write_text(json.dumps({"sample_id": "x", "verdict": True}) + "\n")
    assert truing("label", str(run), "--labels", str(file)) == 1
    assert truing("label", str(run), "--n", "0") == 1


def test_a_card_of_a_rule(
    tmp_path: Path, published: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "card.json"
    spec = "xstest,part=completions"
    assert (
        truing(
            "card", "rules:refusal", "--data", spec, "--limit", "150", "--out", str(out), "--json"
        )
        == 0
    )
    card = json.loads(capsys.readouterr().out)
    assert card["n"] == 150 and card["questions"]["refused"]["sensitivity"]["estimate"] > 0.5
    assert truing("card", "rules:refusal", "--data", "xstest", "--out", str(out)) == 1
    assert (
        truing("card", "rules:degenerate", "--data", spec, "--limit", "5", "--out", str(out)) == 1
    )
    assert "nobody labelled 'degenerate'" in capsys.readouterr().err


def test_a_card_lets_a_raw_figure_pass(run: Path, tmp_path: Path, published: None) -> None:
    out = tmp_path / "card.json"
    assert (
        truing(
            "card",
            "rules:refusal",
            "--data",
            "xstest,part=completions",
            "--limit",
            "150",
            "--out",
            str(out),
        )
        == 0
    )
    rule = 'rules = ["refuses_harmful.raw.lower > 0.3"]'
    assert gate(tmp_path, run, rule) == 3
    assert gate(tmp_path, run, rule, "--card", str(out)) == 0
    assert gate(tmp_path, run, f'cards = ["card.json"]\n{rule}') == 0


def test_until_stops_early_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = evaluate(tmp_path / "r", "comply", "--until", "refused(width<0.2)")
    notes = Run(run).manifest.notes
    assert notes["until"].startswith("stopped after") and len(list(Run(run).responses())) < 168
    capsys.readouterr()
    assert truing("show", str(run), "--json") == 0
    rates = json.loads(capsys.readouterr().out)["rates"]
    assert {
        r["raw"]["method"] for r in rates if r["category"] is None and "_" not in r["question"]
    } == {"betting sequence"}
    other = evaluate(tmp_path / "b", "refuse", "--until", f"refused(decided vs {run})")
    assert "until" in Run(other).manifest.notes and len(list(Run(other).responses())) < 40
    capsys.readouterr()
    assert truing("compare", str(run), str(other), "--json") == 0
    deltas = json.loads(capsys.readouterr().out)["deltas"]
    assert next(d for d in deltas if d["question"] == "refused")["method"].startswith(
        "paired betting"
    )
    assert (
        truing(
            "evaluate",
            "--model",
            "scripted:comply",
            "--data",
            "builtin:safety",
            "--judge",
            "rules:refusal",
            "--out",
            str(tmp_path / "c"),
            "--until",
            "harm<0.05",
        )
        == 1
    )
    assert not (tmp_path / "c").exists()


def test_plan_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        truing(
            "plan-size",
            "--rate",
            "0.1",
            "--width",
            "0.06",
            "--upper",
            "0.15",
            "--difference",
            "0.05",
            "--margin",
            "0.05",
            "--json",
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 6 and all(v > 0 for v in found.values())
    assert truing("plan-size", "--upper", "0.05", "--rate", "0", "--answers", "5") == 0
    assert "answers to each prompt" in capsys.readouterr().out
    assert truing("plan-size") == 1
    assert truing("plan-size", "--upper", "0.05", "--rate", "0.1") == 1
    assert truing("plan-size", "--width", "7") == 1


def test_certify_and_what_is_lacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = evaluate(tmp_path / "r", "comply", "--limit", "80")
    monkeypatch.setattr("builtins.input", lambda prompt: "n")
    words = ("certify", str(run), "--judge", "rules:degenerate")
    assert truing(*words) == 3
    assert "not certifiable at 5 %: 59 more labels" in capsys.readouterr().out
    assert truing(*words, "--n", "59", "--out", str(tmp_path / "c.json")) == 0
    assert (
        "with 95 % confidence at most 5 % of prompts get a harmful answer (0 of 59"
        in capsys.readouterr().out
    )
    made = json.loads((tmp_path / "c.json").read_text())
    assert made["status"] == "certified" and made["labels"] == 59
    assert truing(*words, "--anytime") == 3
    assert truing("certify", str(run), "--judge", "rules:degenrate") == 1
    assert truing(*words, "--alpha", "2") == 1
