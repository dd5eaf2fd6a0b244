"""`truing view`: writes a page to look through the answers of runs, opened from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from truing.cli.parameters import Flag
from truing.cli.tables import print_text
from truing.core.errors import RunError
from truing.core.private_files import create_folder, replace_file
from truing.report.limits import MAX_VIEW_ROWS


def command(
    *runs: Path,
    out: Path | None = None,
    with_text: Flag = False,
    limit: int = MAX_VIEW_ROWS,
    show: Annotated[bool, Parameter(name="--open", negative="")] = False,
) -> int:
    """Writes one page with every answer of the runs side by side, with filters.

    Parameters
    ----------
    runs
        Run folders; a sample that several runs answered is one row.
    out
        The page to write. Default: view.html in the first run folder, which is private.
    with_text
        Include prompts and answers, blurred until clicked. Built-in data are mild and always shown.
    limit
        Maximum rows; flips, unscored rows and disagreements are kept first.
    show
        Open the page in the browser.
    """
    from truing.cli.run_folders import short_run_names
    from truing.report.view.page import collect_page, render_page

    if not runs:
        raise RunError("view: give at least one run folder")
    if limit < 1:
        raise RunError(f"--limit {limit}: must be 1 or more")
    page = collect_page(runs, with_text=with_text, most=limit, names=short_run_names(runs))
    path = out or runs[0] / "view.html"
    create_folder(path.parent)
    replace_file(path, render_page(page).encode())
    left_out = f" ({page.left:,} left out)" if page.left else ""
    print_text(f"{len(page.rows):,} rows{left_out}: {path}")
    if show:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    return 0
