"""Figures are computed from the run's own lines, and grow with a run that is being written."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tests.serve.ui.pages import open_pages, path_of, write_run, write_small_run

from truing.serve.ui.figures import count_steps


@given(st.integers(0, 10**9))
def test_the_figures_of_a_running_run_never_freeze(lines: int) -> None:
    assert count_steps(lines + max(20, lines // 5)) > count_steps(lines)
    assert count_steps(lines) <= count_steps(lines + 1)


def test_a_summary_that_a_run_brings_along_is_not_believed(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    other = write_run(tmp_path / "other", ["a"] * 3, [[True, True, False]] * 3)
    with open_pages(tmp_path) as visitor:
        expected = visitor.state.figures.get(visitor.state.read_state("x", Path("run")))
        brought = visitor.state.figures.get(visitor.state.read_state("y", Path("other")))
    import msgspec

    assert expected != brought and other.is_dir()
    (run / "summary.json").write_bytes(msgspec.json.encode(brought))
    os.utime(run / "summary.json", (4e9, 4e9))
    with open_pages(tmp_path) as visitor:
        visitor.text(path_of(tmp_path, run))
        assert visitor.state.figures.get(visitor.state.read_state("x", Path("run"))) == expected
