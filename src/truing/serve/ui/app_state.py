"""State shared by the route handlers: the folder, what is known of its runs, who may look."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from truing.annotation.store import RequestRejected
from truing.core.version import __version__
from truing.serve.page_files import load_templates, read_static_files
from truing.serve.throttling import HashingQueue, Throttle
from truing.serve.ui.comparisons import Comparisons
from truing.serve.ui.figures import Figures
from truing.serve.ui.jobs import JobQueue
from truing.serve.ui.judge_choices import JudgeChoices
from truing.serve.ui.row_indexes import RowIndexes, load_index_key
from truing.serve.ui.run_scan import FolderScan, ScanLimits, scan_folder
from truing.serve.ui.run_state import RunState, RunStateReader
from truing.serve.ui.side_by_side import Alignments
from truing.serve.ui.template_filters import FILTERS

T = TypeVar("T")
_PACKAGE = Path(__file__).parent
# The look and the script of the red-teaming pages, which these pages share.
_SHARED_STATIC = _PACKAGE.parent / "annotation" / "static"
_SCAN_SECONDS = 2.0
IMPORT_SUFFIXES = (".eval", ".json", ".jsonl", ".db", ".sqlite", ".sqlite3", ".toml")
_MAX_SESSIONS = 10_000
_SIGN_INS_PER_MINUTE, _ALL_SIGN_INS_PER_MINUTE = 10, 60


class UiOptions(Struct, frozen=True, kw_only=True):
    """How the app is served.

    `password_hash` (argon2) is needed where other machines reach it; without one, the app answers
    to loopback names alone, and to processes of this user or whoever has the link with the token.
    `judges` are specs that a page may start besides the shipped judges that read nothing else.
    """

    password_hash: str | None = None
    port: int = 0
    max_body_bytes: int = 1_000_000
    body_seconds: float = 30.0
    rows_per_page: int = 25
    judges: tuple[str, ...] = ()
    scan: ScanLimits = ScanLimits()


class UiState:
    """State shared by the route handlers (stored in `app.state.ui`)."""

    def __init__(
        self, folder: Path, options: UiOptions | None = None, *, index_key: bytes | None = None
    ) -> None:
        self.folder, self.options = folder.resolve(), options or UiOptions()
        self.link_token = secrets.token_urlsafe(24)
        self._secret = secrets.token_bytes(32)
        # By a keyed hash: how long a look-up takes tells nothing about a token.
        self._sessions: OrderedDict[str, None] = OrderedDict()
        self.sign_in_throttle = Throttle(_SIGN_INS_PER_MINUTE)
        self.password_throttle = Throttle(_ALL_SIGN_INS_PER_MINUTE)
        self.hashing = HashingQueue(16)
        self.states = RunStateReader()
        self.figures = Figures()
        self.indexes = RowIndexes(load_index_key() if index_key is None else index_key)
        self.alignments = Alignments()
        self.comparisons = Comparisons()
        self.jobs = JobQueue()
        self.judges = JudgeChoices(self.options.judges)
        self._scan: tuple[float, FolderScan] | None = None
        self._scan_lock = threading.Lock()
        self._listed: tuple[FolderScan, list[RunState]] | None = None
        self._seen_runs: set[str] = set()
        self._pool = ThreadPoolExecutor(6, "page")
        self.static = read_static_files(_SHARED_STATIC, _PACKAGE / "static")
        self._templates = load_templates(_PACKAGE / "templates", FILTERS, self.static)
        self._templates.globals.update(
            truing_version=__version__, folder_name=self.folder.name or "/"
        )

    def render(self, template: str, /, **values: Any) -> str:
        """Renders a template as HTML."""
        return self._templates.get_template(template).render(**values)

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Runs a function that reads files in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    # -- runs

    def scan(self) -> FolderScan:
        """Returns what lies in the folder; looks again after two seconds."""
        with self._scan_lock:
            if self._scan is None or time.monotonic() - self._scan[0] > _SCAN_SECONDS:
                scan = scan_folder(self.folder, IMPORT_SUFFIXES, self.options.scan)
                self._scan = (time.monotonic(), scan)
                self._seen_runs.update(scan.runs)
            return self._scan[1]

    def list_states(self) -> list[RunState]:
        """Returns the states of all runs, as they were at the last scan."""
        scan = self.scan()
        if self._listed is None or self._listed[0] is not scan:
            states = [self.read_state(id_, path) for id_, path in scan.runs.items()]
            self._listed = (scan, states)
        return self._listed[1]

    def find_run(self, id_: str) -> RunState:
        """Returns the state of a run; raises RequestRejected if it is not in the folder."""
        relative = self.scan().runs.get(id_)
        if relative is not None:
            state = self.read_state(id_, relative)
            if state.status != "gone":
                return state
        if id_ in self._seen_runs:
            raise RequestRejected("gone", "This run has been deleted or moved.")
        raise RequestRejected("missing", "There is no such run in this folder.")

    def read_state(self, id_: str, relative: Path) -> RunState:
        """Returns the state of the run at a path relative to the folder."""
        name = relative.as_posix() if relative.parts else self.folder.name
        return self.states.read(id_, name, self.folder / relative)

    # -- sessions

    def new_session(self) -> str:
        """Returns the token of a new session; of very many, the least recently used one ends."""
        token = secrets.token_urlsafe(24)
        self._sessions[self._sign("session", token)] = None
        if len(self._sessions) > _MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return token

    def is_session(self, token: str) -> bool:
        """Returns whether a token opens a session that has not been ended."""
        signature = self._sign("session", token)
        if signature not in self._sessions:
            return False
        self._sessions.move_to_end(signature)
        return True

    def end_session(self, token: str) -> None:
        """Ends a session: whoever still has its cookie has to sign in."""
        self._sessions.pop(self._sign("session", token), None)

    def form_token(self, session: str) -> str:
        """Returns the CSRF token of a session's forms."""
        return self._sign("form", session)

    def _sign(self, purpose: str, text: str) -> str:
        message = f"{purpose}:{text}".encode("utf-8", "replace")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()[:40]

    def close(self) -> None:
        """Stops what runs in the background."""
        self.jobs.close()
        self.indexes.close()
        self.figures.close()
        self.alignments.close()
        self.comparisons.close()
        self.hashing.close()
        self._pool.shutdown(wait=True)
