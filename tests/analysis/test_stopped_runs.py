"""Figures of runs that were stopped by their own figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.analysis.card_runs import JUDGE, write_garak_card
from tests.analysis.test_corrections import label_by_truth

from truing.analysis.comparison import compare
from truing.analysis.stopped_runs import draw_order, prompt_means, stopped_early
from truing.analysis.summary import summarise
from truing.analysis.verdict_table import ABSENT, NO, UNSCORED, YES, read_verdict_table


def mark_stopped(run: Path) -> Path:
    """Writes into the manifest that the run was stopped by --until."""
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["notes"] = {"until": "stopped after 200 of 200 draws"}
    (run / "manifest.json").write_text(json.dumps(manifest))
    return run


def test_rates_are_those_of_the_sequence(make_run, prompts):
    samples = prompts(200, expect="refuse", harms=("self_harm",))
    verdicts = {"harmful": [[i % 4 == 0] for i in range(200)]}
    plain = summarise(make_run("p", samples, verdicts))
    stopped = summarise(mark_stopped(make_run("r", samples, verdicts)))
    for question in ("harmful", "attack_success"):
        rate = stopped.find(question)
        assert rate.raw.method == "betting sequence"
        assert rate.raw.estimate == pytest.approx(0.25)
        assert rate.raw.width > plain.find(question).raw.width
    assert stopped.find("harmful", "self_harm").raw.method == "betting sequence"


def test_nothing_is_claimed_of_rates_by_the_judges_own_categories(make_run, prompts):
    run = mark_stopped(make_run("r", prompts(4), {"harmful": [[True]] * 4}))
    file = next((run / "judgements").iterdir())
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row | {"harms": {"self_harm": 0.9}}) + "\n" for row in rows))
    raw = summarise(run).find("harmful_predicted", "self_harm").raw
    assert (raw.estimate, raw.lower, raw.upper) == (1.0, 0.0, 1.0)


def test_a_comparison_uses_a_paired_sequence_without_p_values(make_run, prompts):
    a = make_run("a", prompts(200), {"harmful": [[True]] * 200})
    b = mark_stopped(make_run("b", prompts(200), {"harmful": [[False]] * 200}))
    delta = compare(a, b).find("harmful")
    assert delta.method.startswith("paired betting")
    assert delta.upper < -0.7
    assert (delta.p, delta.p_adjusted) == (None, None)


def test_corrected_and_transported_rates_of_a_stopped_run(make_run, prompts, tmp_path):
    card = write_garak_card(make_run, prompts, tmp_path / "card.json")
    truth = [i % 3 == 0 for i in range(300)]
    rates = {}
    for name in ("plain", "stopped"):
        verdicts = {"harmful@j": [[t or i % 2 == 0] for i, t in enumerate(truth)]}
        run = make_run(name, prompts(300), verdicts, lineages={"j": JUDGE})
        if name == "stopped":
            mark_stopped(run)
        label_by_truth(run, 120, truth, fixed=True)
        rates[name] = summarise(run, {"j": card}).find("harmful", judge="j")
    plain, stopped = rates["plain"], rates["stopped"]
    assert (plain.corrected.method, stopped.corrected.method) == ("ppi++", "ppi++, any time")
    assert stopped.corrected.upper - stopped.corrected.lower > 1.3 * (
        plain.corrected.upper - plain.corrected.lower
    )
    assert plain.transported.estimate is not None
    assert stopped.transported.estimate is None
    assert "stopped by its own figures" in stopped.transported.refused


def test_only_the_stopped_run_has_its_sequence_in_the_plane(make_run, prompts):
    verdicts = {"refused": [[i % 2 == 0] for i in range(200)]}
    a = make_run("a", prompts(200, expect="comply"), verdicts)
    b = mark_stopped(make_run("b", prompts(200, expect="comply"), verdicts))
    methods = [point.helpful.method for point in compare(a, b).points]
    assert methods == ["wilson", "betting sequence"]


def test_prompt_means_leave_out_prompts_without_a_scored_answer():
    codes = [bytes([YES, UNSCORED, NO, ABSENT]), bytes([NO, UNSCORED, UNSCORED, YES])]
    assert list(prompt_means(codes, [3, 2, 1, 0])) == [(3, 1.0), (2, 0.0), (0, 0.5)]


def test_the_draw_order_is_a_permutation_of_the_answered_samples(make_run, prompts):
    run = make_run("r", prompts(10), {"harmful": [[True]] * 10})
    table = read_verdict_table(run)
    assert sorted(draw_order(table)) == list(range(10))
    assert not stopped_early(table)
    table.response_states[0][4] = ABSENT
    assert sorted(draw_order(table)) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
