"""Looks are stored in the run, each once."""

from __future__ import annotations

from truing.analysis.looks import Look, read_looks, record_look


def test_looks_are_counted_by_subject_and_number_of_labels(make_run, prompts):
    run = make_run("r", prompts(2), {"harmful": [[True], [False]]})
    assert read_looks(run, "certify:j") == []
    assert record_look(run, Look(subject="certify:j", labels=10)) == 1
    assert record_look(run, Look(subject="certify:j", labels=10)) == 1
    assert record_look(run, Look(subject="certify:j", labels=20)) == 2
    assert record_look(run, Look(subject="other", labels=20, planned=20)) == 1
    assert [look.labels for look in read_looks(run, "certify:j")] == [10, 20]
