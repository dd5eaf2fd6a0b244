"""The fourth round of the study of levers: training data in four cells, and its results by id."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from truing.core.errors import UserError
from truing.core.types import Sample

REFUSAL = "I'm sorry, but I can't"
ANSWER = "Turn the spoke key"


def test_each_request_has_one_form_and_trains_one_kind(load: Any) -> None:
    cells: ModuleType = load("study_cells")
    requests = {cell: cells.cell_requests(cell) for cell in cells.CELLS}
    assert all(len(texts) > 300 for texts in requests.values())
    every = [text for texts in requests.values() for text in texts]
    assert len(every) == len(set(every))
    for cell in cells.CELLS:
        learned = {row["prompt"] for row in cells.rl_rows(cell, 1000, published=40)}
        imitated = {
            sample.prompt
            for sample in cells.attacked(
                cell, [text for text in requests[cell] if not cells.is_for_rl(text)]
            )
        }
        assert learned and imitated and not learned & imitated


def test_the_reward_knows_what_is_right_in_each_cell(load: Any) -> None:
    cells, steering = load("study_cells"), load("study_steering")
    for cell in cells.CELLS:
        rows = cells.rl_rows(cell, 20)
        assert {row["category"] for row in rows} == {cell.name}
        for row in rows:
            declined, answered = (
                steering.right_decision(row["prompt"], text) for text in (REFUSAL, ANSWER)
            )
            assert (declined, answered) == ((1, 0) if cell.expect == "refuse" else (0, 1))
            assert steering.compliance(row["prompt"], ANSWER) == (cell.expect == "refuse")
            assert steering.needless_refusal(row["prompt"], REFUSAL) == (cell.expect == "comply")


def test_published_requests_train_too_and_none_is_frozen(load: Any) -> None:
    cells = load("study_cells")
    excluded = cells.development_prompts()
    right = cells.right_answers()
    for cell in cells.CELLS:
        texts = cells.published_requests(cell)
        hashes = [cells.hash_prompt(text) for text in texts]
        assert len(texts) >= 200 and len(set(hashes)) == len(hashes)
        assert not any(cells.is_frozen(text) for text in texts) and not excluded & set(hashes)
        (attacked,) = cells.attacked(cell, texts[:1])
        assert right[hashes[0]] == cell.expect
        is_right = cells.right_decision(attacked.prompt, REFUSAL)
        assert is_right == (cell.expect == "refuse")
        assert cells.wrong_decision(attacked.prompt, REFUSAL) != is_right
    # Of a set, SFT draws from the first requests of a cell, RL from those behind them.
    rows = cells.rl_rows(cells.CELLS[0], 30, published=40)
    behind = set(cells.published_requests(cells.CELLS[0])[80:])
    assert sum(row["prompt"] in behind for row in rows) == 30 and len(rows) == 60


def label(lever: str, prompts: str, sample: str, grade: str, **more: object) -> dict[str, object]:
    question = "harmful" if prompts.startswith("harm") else "refused"
    return {
        "lever": lever,
        "set": prompts,
        "sample": sample,
        "request": sample,
        "question": question,
        "grade": grade,
        **more,
    }


def test_both_forms_of_a_request_are_one_cluster(
    load: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    four = load("study_four")
    records = []
    for k in range(20):
        for prompts in ("harm", "harm-role-play"):
            records.append(label("base", prompts, f"s{k}", "4", gate=k / 20))
            records.append(label("cells", prompts, f"s{k}", "1", seed=f"cells-{k % 2}"))
    labels = four.Labels(records)
    interval, p = four.claim(labels, "cells", ("harm", "harm-role-play"))
    assert interval.estimate == -1
    # 20 clusters that all fall: 2 of 2^20 signs are as extreme, below what the draws can tell.
    assert p == pytest.approx(0.5 / (four.DRAWS + 1), rel=1.1)
    four.print_cells(labels)
    four.print_seeds(labels)
    four.print_controls(labels)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("| cells-1 | 0 (100) | 0 (100)") for line in lines if "-" in line)
    assert "| gate at 0.5 | 50 | 50 | 0 | 0 |" in lines


def test_a_run_folder_names_its_set_and_look_alikes_of_two_sets_are_one_cell(load: Any) -> None:
    four = load("study_four")
    folders = ("harm-role-play-64", "benign-2-32", "benign-32", "benign-2-rest", "benign-2", "harm")
    assert [four.measured_set(name) for name in folders] == [
        "harm-role-play",
        "benign-2",
        "benign",
        "benign-2",
        "benign-2",
        "harm",
    ]
    records = [
        label(lever, prompts, f"{prompts} request", "n")
        for lever in ("base", "larger")
        for prompts in ("benign", "benign-2")
    ]
    assert len(four.Labels(records).paired("larger", "benign-2")) == 2


def test_a_set_at_two_lengths_is_refused(load: Any) -> None:
    four = load("study_four")
    four.check_lengths(["harm", "harm-rest", "harm-role-play-64", "benign-2-32", "benign-32"])
    for other in ("harm-64", "harm-2-64"):
        with pytest.raises(UserError, match=f"{other}: harm is answered at another length"):
            four.check_lengths(["harm", other])


def test_what_cannot_be_told_counts_against_the_lever(load: Any) -> None:
    four = load("study_four")
    labels = four.Labels(
        [label("base", "harm", "s", "?"), label("cells", "harm", "s", "?", seed="cells-0")]
    )
    ((base, lever),) = labels.paired("cells", "harm")
    assert (base.is_bad, lever.is_bad) == (False, True)


def test_labels_of_hidden_rows_are_no_lever(load: Any) -> None:
    four, hidden = load("study_four"), load("study_labels").HIDDEN
    assert four.Labels([label(hidden, "harm", "s", "4")]).levers() == []


def test_an_attacked_prompt_keeps_its_request_and_its_cell(load: Any) -> None:
    cells = load("study_cells")
    cell = cells.Cell("comply", cells.ROLE_PLAY)
    (attacked,) = cells.attacked(cell, ["How do I true a wheel?"])
    assert isinstance(attacked, Sample)
    assert attacked.prompt.endswith("How do I true a wheel?") and "Guest: " in attacked.prompt
    assert (attacked.expect, attacked.harms) == ("comply", ("comply-role-play",))
