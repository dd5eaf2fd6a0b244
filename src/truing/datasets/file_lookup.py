"""Where a set's files are: a file, a folder in the published layout, a hub repository, or its folder in TRUING_DATA."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

from msgspec import Struct

from truing.core.errors import DataError, MissingExtra
from truing.datasets.readers import data_suffix
from truing.specs.resolve import Args


class FileQuery(Struct, frozen=True):
    """Which files of a set: patterns below its folder, tried in order, and the hub id for an error's advice."""

    kind: str
    folder: str
    patterns: tuple[str, ...]
    hub: str = ""


def locate_files(args: Args, wanted: FileQuery) -> tuple[Path, ...]:
    """The files that a spec names; reads the arguments `data_dir` and `revision`."""
    root = args.text("data_dir") or os.environ.get("TRUING_DATA")
    revision = args.text("revision")
    name, kind = args.name, wanted.kind
    if not name:
        if not root:
            also = f", a hub id ({kind}:{wanted.hub})" if wanted.hub else ""
            raise args.fault(f"give a file or folder ({kind}:PATH){also}, or set TRUING_DATA")
        return _find_in_folder(Path(root) / wanted.folder, wanted)
    path = Path(name).expanduser()
    if path.is_file():
        return (path,)
    if path.is_dir():
        return _find_in_folder(path, wanted)
    if (
        name.count("/") == 1
        and not name.startswith(("/", ".", "~"))
        and not path.parent.exists()
        and not data_suffix(path)
    ):
        return _find_in_folder(_download_from_hub(name, revision, wanted), wanted)
    raise DataError(f"{name}: no such file or folder")


def _find_in_folder(folder: Path, wanted: FileQuery) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    for pattern in wanted.patterns:
        found = sorted(p for p in folder.glob(pattern) if p.is_file())
        if found:
            return tuple(found)
    raise DataError(
        f"{folder}: no file of {wanted.kind} here; looked for {', '.join(wanted.patterns)}"
    )


def _download_from_hub(name: str, revision: str | None, wanted: FileQuery) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "hub", f"{wanted.kind}:{name} is no file or folder here; reading it from the hub"
        ) from error
    patterns = list(wanted.patterns)
    try:
        got = snapshot_download(
            name, repo_type="dataset", revision=revision, allow_patterns=patterns
        )
    except Exception as error:
        what = f"{wanted.kind}:{name}: neither a file or folder here nor to be had from the hub: {error}"
        raise DataError(what) from error
    folder = Path(got)
    if not any(
        fnmatch.fnmatch(str(p.relative_to(folder)), q) for p in folder.rglob("*") for q in patterns
    ):
        raise DataError(f"{wanted.kind}:{name}: the hub has none of {', '.join(patterns)} there")
    return folder
