"""The section on agents, from a run of a scripted agent and from summaries built directly."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.report.rates import make_report, make_variant

from truing.analysis.agent_outcomes import AgentFigure, AgentSummary, ToolUse
from truing.analysis.summary import write_summary
from truing.cli.show import print_summary
from truing.evaluation.evaluate import evaluate
from truing.report.blocks import Figure, Table, Text
from truing.report.sections import agents
from truing.specs.resolve import resolve
from truing.stats.intervals import Interval


def _summary(utility: float, **fields: object) -> AgentSummary:
    figure = AgentFigure(
        name="utility",
        kind="benign",
        outcome="done",
        n=40,
        scored=40,
        events=int(40 * utility),
        raw=Interval(utility, utility / 2, min(1.0, utility * 2)),
        bounds=(utility, utility),
    )
    defaults = {"tools": (), "harm_undone": 0, "mean_turns": 2.0, "mean_calls": 1.0}
    return AgentSummary(outcomes=(), figures=(figure,), **{**defaults, **fields})  # type: ignore[arg-type]


def test_a_scripted_agent_in_report_and_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = resolve("agent,of=(scripted-agent,harm=1,follow=1)", "model")
    judges = [
        resolve(spec, "judge")
        for spec in ("state:done", "state:harm", "state:injection", "rules:refusal")
    ]
    run = evaluate(model, resolve("builtin:agents,world=mail", "data"), judges, tmp_path / "run")
    summary = write_summary(run)
    variant = make_variant("m")
    variant.summaries = {"set": summary}
    section = agents.build_section(make_report(variant))
    assert section is not None
    plane, tasks, note, outcomes, tools = section.blocks
    assert isinstance(plane, Figure)
    assert "0.0 %" in plane.alt
    assert isinstance(tasks, Table)
    assert [cell.text for cell in tasks.rows[0]][3:5] == ["10 of 10", "10 of 10"]
    assert isinstance(note, Text)
    # The tenth moves a mail to the bin, which could have been taken back.
    assert "of 10 answers with harm, in 9 it was final before anybody could undo it" in note.text
    assert isinstance(outcomes, Table)
    assert outcomes.rows[1][1].text == "harmful"
    assert isinstance(tools, Table)
    assert {row[0].text for row in tools.rows} >= {"read_mail", "send_mail"}
    print_summary(run.path, summary)
    shown = capsys.readouterr().out
    assert "attack success" in shown
    assert "misled" in shown


def test_a_model_that_cannot_carry_the_tasks_is_named() -> None:
    (note,) = agents.agent_notes("m", _summary(0.1))
    assert note.startswith("m does 10.0 % of the benign tasks: it cannot carry them")
    assert agents.agent_notes("m", _summary(0.5)) == []
    notes = agents.agent_notes("m", _summary(0.5, no_judge=("refused",)))
    assert notes == ["m: no judge was asked whether an answer is refused."]


def test_harm_that_was_final_or_undone_and_injections_that_were_not_read_are_said() -> None:
    figures = tuple(
        AgentFigure(
            name=name,
            kind=kind,
            outcome=outcome,
            n=8,
            scored=8,
            events=5,
            raw=Interval(0.6, 0.3, 0.9),
            bounds=(0.6, 0.6),
        )
        for name, kind, outcome in (
            ("harm", "harmful", "harmed"),
            ("attack success", "injected", "misled"),
        )
    )
    summary = _summary(0.5, harm_undone=2, harm_final=3, injections_read=6)
    assert agents.agent_notes("m", replace(summary, figures=figures)) == [
        "m: of 5 answers with harm, in 3 it was final before anybody could undo it (something was "
        "sent) and in 2 the agent undid it by the end.",
        "m has read the injection in 6 of 8 answers: one that it has not read, it has not "
        "resisted.",
    ]
    # Where all have been read there is nothing to say.
    read = replace(summary, figures=figures, injections_read=8, harm_final=0, harm_undone=0)
    assert agents.agent_notes("m", read) == []


def test_calls_that_were_not_executed_are_listed_by_reason() -> None:
    tool = ToolUse(tool="send", executed=3, others={"invalid": 2, "limit": 1})
    table = agents._tool_table("set, m", _summary(0.5, tools=(tool,)))
    assert isinstance(table, Table)
    assert [cell.text for cell in table.rows[0]] == ["send", "3", "2 invalid, 1 limit"]


def test_without_tasks_there_is_no_section() -> None:
    assert agents.build_section(make_report(make_variant("m"))) is None
