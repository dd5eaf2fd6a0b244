from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from truing.core.errors import PlanError
from truing.plan import parse_plan, read_plan, run_plan
from truing.report import render

PLAN = """
title = "scripted"
baseline = "plain"
[models]
plain = "scripted:comply"
never = "scripted:refuse"
[run]
judges = ["rules:refusal", "rules:degenerate"]
limit = 40
[data]
safety = "builtin:safety"
"""


def test_a_plan_runs_to_a_report(tmp_path: Path) -> None:
    report = run_plan(parse_plan(PLAN), tmp_path)
    paths = render.write_report(report, tmp_path)
    page = paths["html"].read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert len(page) < 2_000_000
    plain, never = report.variants
    assert plain.find("answers_benign").raw.estimate == 1.0
    assert never.find("answers_benign").raw.estimate == 0.0
    assert never.find("refuses_harmful").raw.estimate == 1.0
    comparison = report.comparisons["never"]["safety"]
    flipped = {f.sample_id for f in comparison.flips if f.question == "refused"}
    assert len(flipped) == 40
    data = json.loads(paths["json"].read_text(encoding="utf-8"))
    assert data["baseline"] == "plain" and "| " in paths["md"].read_text(encoding="utf-8")


def test_the_same_plan_again_calls_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_plan(parse_plan(PLAN), tmp_path)
    from truing.models.scripted import ScriptedModel

    async def never(self: object, *_: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(ScriptedModel, "generate", never)
    again = run_plan(parse_plan(PLAN), tmp_path)
    assert again.variants[0].find("answers_benign").raw.estimate == 1.0


def test_all_faults_of_the_file_together() -> None:
    text = """
    titel = "x"
    baseline = "plane"
    [models]
    plain = "scripted:comply"
    [run]
    judge = ["rules:refusal"]
    seed = "one"
    sample = "last"
    margin = 1
    max_harm = 0
    [data.safety]
    spec = "builtin:safety"
    models = ["plian"]
    """
    with pytest.raises(PlanError) as caught:
        parse_plan(text, "p.toml")
    shown = str(caught.value)
    for word in (
        "p.toml:2: titel: unknown key; did you mean 'title'?",
        "p.toml:7: run.judge: unknown key; did you mean 'judges'?",
        "run.seed: expected int, got 'one'",
        "run.sample: 'last' is not a valid choice; valid: first, random",
        "run.margin: 1: a margin lies in [0, 1)",
        "run.max_harm: 0: must be above 0 and below 1",
        "p.toml:3: baseline: there is no model 'plane'; did you mean 'plain'?",
        "p.toml:14: data.safety.models: there is no model 'plian'",
    ):
        assert word in shown


def test_all_wrong_specs_together_before_any_call(tmp_path: Path) -> None:
    text = PLAN.replace("scripted:comply", "scriptd:comply").replace(
        "rules:refusal", "rules:refusl"
    )
    with pytest.raises(PlanError) as caught:
        run_plan(parse_plan(text), tmp_path)
    assert "models.plain" in str(caught.value) and "did you mean 'refusal'" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "plan: models: none given\nplan: data: none given"),
        ("[models", "plan:1: Expected ']' at the end of a table declaration"),
        ("models = 3", 'plan:1: models: expected name = "spec" lines'),
        (
            '[models]\n"../x" = "scripted:comply"\n[data]\na = "b"',
            "plan: '../x' cannot name a folder",
        ),
    ],
)
def test_nonsense_is_a_plan_error(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=f"^{re.escape(message)}"):
        parse_plan(text)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="nowhere"):
        read_plan(tmp_path / "nowhere.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError):
        read_plan(tmp_path / "b.toml")


def test_text_of_foreign_data_stays_out_unless_asked(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"prompt": "where is the zanzibar teapot?"}\n{"prompt": "and the other one?"}\n'
    )
    plan = PLAN.replace("builtin:safety", f"file:{rows}")
    report = run_plan(parse_plan(plan), tmp_path / "a")
    assert "zanzibar" not in render.render_html(
        report
    ) and "zanzibar" not in render.render_markdown(report)
    report = run_plan(parse_plan("with_text = true\n" + plan), tmp_path / "b")
    assert "zanzibar" in render.render_html(report)
