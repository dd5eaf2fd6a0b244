"""Which samples and judges of two runs are compared, and what is noted about the others."""

from __future__ import annotations

import json

import pytest

from truing.analysis.comparison import compare
from truing.analysis.pairing import pair_runs
from truing.core.errors import RunError
from truing.core.types import Conversation, Lineage, Sample


def test_runs_over_different_data_are_paired_over_the_overlap(make_run, prompts):
    a = make_run("a", prompts(6), {"harmful": [[True]] * 6})
    last_five = list(reversed(prompts(8)))[:5]  # s7 ... s3
    b = make_run("b", last_five, {"harmful": [[False], [True], [True], [True], [False]]})
    pair = pair_runs(a, b)
    assert pair.keys == ("s3", "s4", "s5")
    assert (pair.positions_a, pair.positions_b) == ((3, 4, 5), (4, 3, 2))
    assert (pair.only_a, pair.only_b) == (("s0", "s1", "s2"), ("s7", "s6"))
    assert any("s0, s1, s2" in note for note in pair.notes)
    delta = compare(a, b).find("harmful")
    assert (delta.n_pairs, delta.to_no) == (3, 1)


def test_an_id_with_another_prompt_is_left_out(make_run, prompts):
    a = make_run("a", prompts(3), {"harmful": [[True]] * 3})
    changed = [*prompts(2), Sample(id="s2", conversation=Conversation.of("something else"))]
    pair = pair_runs(a, make_run("b", changed, {"harmful": [[True]] * 3}))
    assert pair.keys == ("s0", "s1")
    assert any("1 ids stand for different prompts" in note for note in pair.notes)


def test_runs_without_a_shared_prompt_cannot_be_paired(make_run, prompts):
    a = make_run("a", prompts(3), {"harmful": [[True]] * 3})
    others = [Sample(id=f"s{i}", conversation=Conversation.of("else")) for i in range(3)]
    with pytest.raises(RunError, match="every prompt differs"):
        pair_runs(a, make_run("b", others, {"harmful": [[True]] * 3}))
    strangers = [Sample(id="x", conversation=Conversation.of("x"))]
    with pytest.raises(RunError, match="share no sample"):
        pair_runs(a, make_run("c", strangers, {"harmful": [[True]]}))


def test_attacked_runs_are_paired_by_the_sample_before_the_attack(make_run):
    def sample(i, text):
        return Sample(
            id=f"{text}{i}",
            conversation=Conversation.of(f"{text} {i}"),
            parent=f"p{i}",
            expect="refuse",
        )

    a = make_run("a", [sample(i, "x") for i in range(5)], {"harmful": [[True]] * 5})
    b = make_run("b", [sample(i, "y") for i in range(5)], {"harmful": [[False]] * 5})
    with pytest.raises(RunError):
        pair_runs(a, b)
    manifest = json.loads((b / "manifest.json").read_text())
    (b / "manifest.json").write_text(json.dumps({**manifest, "plan": {"attack": "tap"}}))
    assert compare(a, b).find("attack_success").n_pairs == 5


def test_another_version_of_a_judge_is_not_compared(make_run, prompts):
    verdicts = {"harmful@j": [[True]] * 3, "refused": [[True]] * 3}
    old, new = Lineage(name="j", hash="1" * 16), Lineage(name="j", hash="2" * 16)
    pair = pair_runs(
        make_run("a", prompts(3), verdicts, lineages={"j": old}),
        make_run("b", prompts(3), verdicts, lineages={"j": new}),
    )
    assert list(pair.a.columns) == list(pair.b.columns) == [("test:refused", "refused")]
    assert any("another version" in note for note in pair.notes)


def test_a_judge_of_one_run_only_is_noted(make_run, prompts):
    a = make_run("a", prompts(2), {"harmful": [[True]] * 2, "refused": [[True]] * 2})
    b = make_run("b", prompts(2), {"harmful": [[True]] * 2})
    pair = pair_runs(a, b)
    assert list(pair.a.columns) == [("test:harmful", "harmful")]
    assert any("test:refused answered 'refused'" in note for note in pair.notes)


def test_a_single_shared_sample_is_selected(make_run, prompts):
    a = make_run("a", prompts(3), {"harmful": [[True], [False], [True]]})
    b = make_run("b", prompts(3)[1:2], {"harmful": [[True]]})
    pair = pair_runs(a, b)
    assert pair.a.size == 1
    assert pair.a.columns["test:harmful", "harmful"].codes == [bytearray([1])]  # NO, of s1
