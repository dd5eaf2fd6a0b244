"""Finds the runs below a folder, within bounds: a folder may hold millions of other files."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

MAX_ENTRIES = 200_000
MAX_ENTRIES_OF_FOLDER = 50_000
MAX_RUNS = 5_000
MAX_FILES = 2_000
MAX_DEPTH = 6
MAX_SECONDS = 4.0
# Folders of a run, of a model or of a tool, which hold no runs.
_SKIPPED_FOLDERS = frozenset(
    {"judgements", "labels", "rankings", "node_modules", "__pycache__", "site-packages"}
)


class ScanLimits(Struct, frozen=True, kw_only=True):
    """Bounds of one scan: directory entries in all and of one folder, runs, files, seconds."""

    entries: int = MAX_ENTRIES
    entries_of_folder: int = MAX_ENTRIES_OF_FOLDER
    runs: int = MAX_RUNS
    files: int = MAX_FILES
    depth: int = MAX_DEPTH
    seconds: float = MAX_SECONDS


class FolderScan(Struct, kw_only=True):
    """What a scan came upon.

    `runs` are run folders by their id, `files` those with one of the suffixes that were asked for;
    both relative to the folder, sorted. `cut` says in words what was not looked at; empty if all
    was.
    """

    runs: dict[str, Path]
    files: list[Path]
    cut: str = ""


def run_id(relative: Path) -> str:
    """Returns the id of a run in links: a hash of its path relative to the folder."""
    # No path in a link: there is nothing that could lead out of the folder.
    return hashlib.sha256(relative.as_posix().encode("utf-8", "surrogateescape")).hexdigest()[:12]


def scan_folder(
    root: Path,
    suffixes: tuple[str, ...] = (),
    limits: ScanLimits | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> FolderScan:
    """Scans a folder, nearer folders first; links are not followed.

    What cannot be listed is left out.
    """
    scanner = _Scanner(root, suffixes, limits or ScanLimits(), clock)
    scanner.scan()
    runs = {run_id(path): path for path in sorted(scanner.runs)}
    return FolderScan(runs=runs, files=sorted(scanner.files), cut=scanner.cut)


class _Scanner:
    def __init__(
        self,
        root: Path,
        suffixes: tuple[str, ...],
        limits: ScanLimits,
        clock: Callable[[], float],
    ) -> None:
        self._root, self._suffixes, self._limits, self._clock = root, suffixes, limits, clock
        self._entries = 0
        self._deadline = clock() + limits.seconds
        self.runs: list[Path] = []
        self.files: list[Path] = []
        self.cut = ""

    def scan(self) -> None:
        """Walks breadth first, so that a large folder deep below hides none that is nearer."""
        waiting = deque([(Path(), 0)])
        while waiting and not self._is_exhausted():
            relative, depth = waiting.popleft()
            if (self._root / relative / "manifest.json").is_file():
                self.runs.append(relative)
                continue
            folders = self._list_folder(relative)
            if depth < self._limits.depth:
                waiting.extend((folder, depth + 1) for folder in sorted(folders))

    def _list_folder(self, relative: Path) -> list[Path]:
        folders: list[Path] = []
        try:
            entries = os.scandir(self._root / relative)
        except OSError:
            return folders
        with entries:
            for number, folder_entry in enumerate(entries):
                if number >= self._limits.entries_of_folder:
                    self.cut = self.cut or (
                        f"Of {relative.as_posix()!r} only the first "
                        f"{self._limits.entries_of_folder:,} entries were looked at."
                    )
                    break
                self._entries += 1
                # The clock is asked rarely: asking costs as much as an entry.
                if self._entries % 512 == 0 and self._is_exhausted():
                    break
                self._add_entry(folder_entry, relative, folders)
        return folders

    def _add_entry(
        self, folder_entry: os.DirEntry[str], relative: Path, folders: list[Path]
    ) -> None:
        if folder_entry.name.startswith("."):
            return
        try:
            if folder_entry.is_dir(follow_symlinks=False):
                if folder_entry.name not in _SKIPPED_FOLDERS:
                    folders.append(relative / folder_entry.name)
            elif folder_entry.name.endswith(self._suffixes or ("\0",)) and folder_entry.is_file(
                follow_symlinks=False
            ):
                if len(self.files) < self._limits.files:
                    self.files.append(relative / folder_entry.name)
                else:
                    self.cut = self.cut or f"Only {self._limits.files:,} files are listed."
        except OSError:
            return

    def _is_exhausted(self) -> bool:
        limits = self._limits
        reason = ""
        if self._entries >= limits.entries:
            reason = f"Only the first {limits.entries:,} files and folders were looked at."
        elif len(self.runs) >= limits.runs:
            reason = f"Only {limits.runs:,} runs are listed."
        elif self._clock() > self._deadline:
            reason = f"The folder was looked through for {limits.seconds:g} s only."
        self.cut = self.cut or reason
        return bool(reason)
