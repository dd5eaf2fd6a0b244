"""`truing compare` and `truing show` on scripted runs, end to end; and what they say to nonsense."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from truing.cli import main


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


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scripted runs on the built-in set."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("comply", "refuse", "mixed"):
        assert (
            truing(
                "evaluate",
                "--model",
                f"scripted:{name}",
                "--data",
                "builtin:safety",
                "--limit",
                "40",
                "--judge",
                "rules:refusal",
                "rules:degenerate",
                "--out",
                str(folder / name),
            )
            == 0
        )
    return folder


def test_two_runs_to_a_report(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sub" / "cmp.html"
    assert truing("compare", str(runs / "comply"), str(runs / "refuse"), "--out", str(out)) == 0
    assert "refuse is not shown to be safer" in capsys.readouterr().out
    page = out.read_text()
    assert "<script src" not in page and "<link" not in page
    made = json.loads(out.with_suffix(".json").read_text())
    assert (
        len([f for f in made["flips"] if f["question"] == "refused"]) == 40
        and len(made["points"]) == 2
    )
    assert {
        "question",
        "category",
        "n_pairs",
        "estimate",
        "lower",
        "upper",
        "p",
        "p_adjusted",
        "judge",
        "selected_by_judge",
    } <= set(made["deltas"][0])
    assert "| " in out.with_suffix(".md").read_text()


def test_several_runs_against_the_first(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        truing("compare", str(runs / "comply"), str(runs / "refuse"), str(runs / "mixed"), "--json")
        == 0
    )
    made = json.loads(capsys.readouterr().out)
    assert set(made["comparisons"]) == {"refuse", "mixed"}


def test_show_a_run_and_a_folder_of_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert truing("show", str(runs / "comply"), "--category") == 0
    assert "answers benign prompts" in capsys.readouterr().out
    assert truing("show", str(runs), "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("compare",), "two or more run folders"),
        (("compare", "nowhere", "nothing"), "neither a run folder"),
        (("compare", "RUNS", "RUNS/comply"), "holds 3 runs; name one"),
        (("compare", "RUNS/comply", "RUNS/comply"), "twice"),
        (("show", "nowhere"), "neither a run folder"),
        (("compare", "RUNS/comply", "RUNS/mixed", "--margin", "2"), "must be between 0 and 1"),
    ],
)
def test_nonsense(
    runs: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert truing(*(w.replace("RUNS", str(runs)) for w in words)) == 1
    assert said in capsys.readouterr().err


def test_view_writes_a_page_into_the_private_folder(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert truing("view", str(runs / "comply"), str(runs / "refuse"), "--limit", "30") == 0
    assert "30 rows (10 left out)" in capsys.readouterr().out
    page = (runs / "comply" / "view.html").read_text()
    assert "comply / refuse" in page and (runs / "comply" / "view.html").stat().st_mode & 0o077 == 0
    assert truing("view") == 1 and truing("view", "nowhere") == 1
    assert truing("view", str(runs / "comply"), "--limit", "0") == 1
