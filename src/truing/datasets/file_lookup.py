"""Finds the files of a set: a file, a folder, a hub repository, or a folder in TRUING_DATA."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

from msgspec import Struct

from truing.core.errors import DataError, MissingExtra
from truing.datasets.readers import data_suffix
from truing.specs.resolve import Args


class FileQuery(Struct, frozen=True):
    """The files to look for: patterns below a folder, tried in order, and the hub id to suggest."""

    kind: str
    folder: str
    patterns: tuple[str, ...]
    hub: str = ""


def locate_files(args: Args, query: FileQuery) -> tuple[Path, ...]:
    """Returns the files that a spec names; reads its arguments `data_dir` and `revision`.

    Raises SpecError if neither a path nor a data folder is set, DataError if no file matches.
    """
    root = args.text("data_dir") or os.environ.get("TRUING_DATA")
    revision = args.text("revision")
    name, kind = args.name, query.kind
    if not name:
        if not root:
            also = f", a hub id ({kind}:{query.hub})" if query.hub else ""
            raise args.fault(f"give a file or folder ({kind}:PATH){also}, or set TRUING_DATA")
        return _find_in_folder(Path(root) / query.folder, query)
    path = Path(name).expanduser()
    if path.is_file():
        return (path,)
    if path.is_dir():
        return _find_in_folder(path, query)
    if (
        # A hub id is owner/name. Where the parent folder exists, or the name has the suffix of a
        # data file, a mistyped path is likelier, and must not become a download.
        name.count("/") == 1
        and not name.startswith(("/", ".", "~"))
        and not path.parent.exists()
        and not data_suffix(path)
    ):
        return _find_in_folder(_download_from_hub(name, revision, query), query)
    raise DataError(f"{name}: no such file or folder")


def _find_in_folder(folder: Path, query: FileQuery) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    for pattern in query.patterns:
        # Sorted, since glob() returns the order of the file system and the order of the files
        # decides ids and hashes.
        matches = sorted(p for p in folder.glob(pattern) if p.is_file())
        if matches:
            return tuple(matches)
    raise DataError(f"{folder}: no file of {query.kind}; looked for {', '.join(query.patterns)}")


def _download_from_hub(name: str, revision: str | None, query: FileQuery) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "hub", f"{query.kind}:{name} is no local file or folder; downloading it from the hub"
        ) from error
    patterns = list(query.patterns)
    try:
        snapshot_path = snapshot_download(
            name, repo_type="dataset", revision=revision, allow_patterns=patterns
        )
    except Exception as error:
        reason = (
            f"{query.kind}:{name}: no such file or folder, and the download from the hub "
            f"failed: {error}"
        )
        raise DataError(reason) from error
    folder = Path(snapshot_path)
    if not any(
        fnmatch.fnmatch(str(p.relative_to(folder)), q) for p in folder.rglob("*") for q in patterns
    ):
        raise DataError(
            f"{query.kind}:{name}: the repository has no file that matches {', '.join(patterns)}"
        )
    return folder
