"""Run folders on the command line: finding them, opening one, short names for several."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from truing.core.errors import RunError

if TYPE_CHECKING:
    from truing.runs.folder import Run


def find_runs(folder: Path) -> list[Path]:
    """Returns the folder itself if it is a run, else the runs up to two levels below it.

    Two levels, because `truing run` writes OUT/VARIANT/DATA. Raises RunError if there are none.
    """
    if (folder / "manifest.json").is_file():
        return [folder]
    runs = sorted(
        manifest.parent
        for pattern in ("*/manifest.json", "*/*/manifest.json")
        for manifest in folder.glob(pattern)
    )
    if not runs:
        raise RunError(f"{folder}: neither a run folder (no manifest.json) nor a folder of runs")
    return runs


def open_run(folder: Path) -> Run:
    """Opens the run at a folder; raises RunError if it is a folder of several runs."""
    from truing.runs.folder import Run

    runs = find_runs(folder)
    if runs != [folder]:
        names = ", ".join(str(path) for path in runs[:6])
        raise RunError(f"{folder}: holds {len(runs)} runs; name one: {names}")
    return Run(folder)


def short_run_names(runs: Sequence[Path]) -> list[str]:
    """Returns for each run the shortest tail of its path such that all the tails differ."""
    parts = [path.resolve().parts for path in runs]
    depth = 1
    while depth < max(map(len, parts)) and len({p[-depth:] for p in parts}) < len(parts):
        depth += 1
    return ["/".join(p[-depth:]) for p in parts]


def label_words(run: Path, questions: Collection[str]) -> tuple[object, ...]:
    """Returns the words of the command that labels rows of a run about a question its judges
    answered: harm, or refusals where no judge was asked about harm.
    """
    words = ("truing", "label", run, "--n", 60)
    asks_refusals = "harmful" not in questions and "refused" in questions
    return (*words, "--question", "refused") if asks_refusals else words


def cards_by_judge(paths: Sequence[Path] | None) -> dict[str, Path]:
    """Returns the judge cards at some paths by the name of the judge that each describes."""
    from truing.analysis.card_files import read_card

    return {read_card(path).judge: path for path in paths or ()}
