"""Routes that make runs of other tools' logs that lie in the folder, as `truing import` does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from litestar import Response, get, post

from truing.annotation.store import RequestRejected
from truing.serve.ui.app_state import UiState
from truing.serve.ui.jobs import Job, path_argument, quote_words
from truing.serve.ui.routes_jobs import find_file, list_files
from truing.serve.ui.run_scan import run_id
from truing.serve.ui.session import AppRequest, open_session

IMPORTED_FOLDER = "imported"
TOOLS: dict[str, tuple[str, tuple[str, ...]]] = {
    "inspect": ("Inspect AI, Petri (.eval)", (".eval",)),
    "garak": ("garak (.report.jsonl)", (".jsonl",)),
    "pyrit": ("PyRIT (database or .json)", (".db", ".sqlite", ".sqlite3", ".json")),
    "promptfoo": ("promptfoo (.json)", (".json",)),
}
"""Tool, as `truing import` names it -> its name for people, the endings of its files."""
_MAX_LISTED_FILES = 500
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@get("/import")
async def import_page(request: AppRequest) -> Response[Any]:
    """Offers the files of the folder that may be logs of other tools."""
    session = open_session(request)
    files = await session.state.run(_list_log_files, session.state)
    return session.render(
        "import.html",
        tools={name: title for name, (title, _) in TOOLS.items()},
        files=files[:_MAX_LISTED_FILES],
        n_files=len(files),
        folder_of_imports=IMPORTED_FOLDER,
    )


def _list_log_files(state: UiState) -> list[str]:
    suffixes = tuple({suffix for _, of_tool in TOOLS.values() for suffix in of_tool})
    return list_files(state, suffixes)


@post("/import")
async def start_import(request: AppRequest) -> Response[Any]:
    """Starts `truing import TOOL FILE --out FOLDER/imported/NAME`."""
    session = open_session(request)
    form = await session.read_form()
    tool, file, name = form.text("tool"), form.text("file"), form.text("name").strip()
    if tool not in TOOLS:
        raise RequestRejected("invalid", "Choose the tool that wrote the file.")

    def add() -> Job:
        source = find_file(session.state, file, TOOLS[tool][1])
        target = _new_folder(session.state, name or Path(file).name.split(".")[0])
        words = ["import", tool, path_argument(source), "--out", path_argument(target)]
        id_ = run_id(target.relative_to(session.state.folder))
        return session.state.jobs.add(
            f"Import from {tool}", "", words, quote_words(words), f"/runs/{id_}"
        )

    job = await session.state.run(add)
    return session.redirect(f"/jobs/{job.id}")


def _new_folder(state: UiState, name: str) -> Path:
    """Returns the folder of a new run; a run that is there already is never written to."""
    if not _NAME.fullmatch(name):
        raise RequestRejected(
            "invalid", "Name the run with letters, digits, dots and dashes, 80 at most."
        )
    parent = state.folder / IMPORTED_FOLDER
    if parent.is_symlink() or (parent / name).exists() or (parent / name).is_symlink():
        raise RequestRejected("invalid", f"{IMPORTED_FOLDER}/{name} is there already.")
    return parent / name


HANDLERS = (import_page, start_import)
