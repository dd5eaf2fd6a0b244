"""`truing view`: runs as a page to look through, opened from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from truing.cli.compare import names_of
from truing.core.errors import RunError
from truing.report.view.page import MAX_ROWS, collect_page, render_page
from truing.runs.folder import replace_file


def command(
    *runs: Path,
    out: Path | None = None,
    with_text: Annotated[bool, Parameter(negative="")] = False,
    limit: int = MAX_ROWS,
    show: Annotated[bool, Parameter(name="--open", negative="")] = False,
) -> int:
    """Writes one page with every answer of the runs, side by side: filters, flips, disagreement first, keyboard.

    Parameters
    ----------
    runs
        Run folders; the same samples of several stand in one row.
    out
        Where the page goes. Default: view.html in the first run folder, which is private.
    with_text
        Put prompts and answers into the page, blurred until asked for. Built-in data are mild, and always shown.
    limit
        At most so many rows; flips, unscored and disagreements are kept first.
    show
        Open it in the browser.
    """
    if not runs:
        raise RunError("view needs a run folder")
    if limit < 1:
        raise RunError(f"--limit {limit}: show at least one row")
    page = collect_page(runs, with_text=with_text, most=limit, names=names_of(runs))
    path = out or runs[0] / "view.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, render_page(page).encode())
    print(f"{len(page.rows):,} rows{f' ({page.left:,} left out)' if page.left else ''}: {path}")
    if show:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    return 0
