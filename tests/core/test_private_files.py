"""Files and folders that truing creates are private, and are replaced as a whole."""

from __future__ import annotations

import ast
import errno
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from truing.core import private_files
from truing.core.errors import RunError, UserError
from truing.core.private_files import (
    MODE_VARIABLE,
    create_folder,
    create_private_file,
    file_mode,
    folder_mode,
    private_opener,
    rename_file,
    replace_file,
    replace_file_with,
    restrict_umask,
)


@pytest.fixture(autouse=True)
def usual_umask(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(MODE_VARIABLE, raising=False)
    monkeypatch.setattr(private_files, "_FIRST_WAIT_SECONDS", 0.0)
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_files_and_folders_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    create_folder(folder)
    replace_file(folder / "replaced", b"x")
    create_private_file(folder / "empty")
    for mode in ("w", "a", "x"):
        with open(folder / f"opened-{mode}", mode, opener=private_opener) as stream:
            stream.write("x")
    assert {mode_of(path) for path in (folder, folder.parent)} == {0o700}
    assert {path.name: mode_of(path) for path in folder.iterdir()} == dict.fromkeys(
        ("replaced", "empty", "opened-w", "opened-a", "opened-x"), 384
    )


def test_sqlite_gives_its_journal_the_mode_of_the_database(tmp_path: Path) -> None:
    create_private_file(tmp_path / "db.sqlite")
    with closing(sqlite3.connect(tmp_path / "db.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (x)")
        connection.commit()
        modes = {path.name: mode_of(path) for path in tmp_path.iterdir()}
    assert modes == {"db.sqlite": 0o600, "db.sqlite-wal": 0o600, "db.sqlite-shm": 0o600}


@pytest.mark.parametrize(
    ("configured", "file", "folder"),
    [("", 0o600, 0o700), ("0640", 0o640, 0o750), ("0644", 0o644, 0o755), ("0660", 0o660, 0o770)],
)
def test_the_setting_shares_files(
    configured: str, file: int, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODE_VARIABLE, configured)
    assert (file_mode(), folder_mode()) == (file, folder)


@pytest.mark.parametrize("configured", ["0400", "0755", "rw", "-1", "01600", "0o"])
def test_a_setting_that_is_no_mode(configured: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODE_VARIABLE, configured)
    with pytest.raises(UserError, match=MODE_VARIABLE):
        file_mode()


def test_an_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    create_folder(tmp_path / "shared" / "new")
    assert mode_of(tmp_path / "shared") == 0o755
    assert mode_of(tmp_path / "shared" / "new") == 0o700
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file"):
        create_folder(tmp_path / "file")
    with pytest.raises(RunError, match="Not a directory"):
        create_folder(tmp_path / "file" / "below")


def test_replacing_does_not_write_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "target.tmp").symlink_to(outside)
    (tmp_path / "target").symlink_to(outside)
    replace_file(tmp_path / "target", b"new")
    assert outside.read_text() == "mine"
    assert (tmp_path / "target").read_bytes() == b"new"
    assert not (tmp_path / "target").is_symlink()


def test_failed_replacement_keeps_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match="target: the disk is full"):
        replace_file_with(target, fail)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize("code", [errno.EBUSY, errno.ESTALE])
def test_rename_is_repeated_after_an_error_that_passes(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("x")
    rename, errors = Path.replace, [code, code]

    def replace(path: Path, to: Path) -> Path:
        if errors:
            raise OSError(errors.pop(), "server")
        return rename(path, to)

    monkeypatch.setattr(Path, "replace", replace)
    rename_file(source, target)
    assert target.read_text() == "x"


def test_rename_whose_reply_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("x")
    rename, calls = Path.replace, []

    def replace(path: Path, to: Path) -> Path:
        renamed = rename(path, to)
        calls.append(path)
        if len(calls) == 1:
            raise OSError(errno.ESTALE, "server")
        return renamed

    monkeypatch.setattr(Path, "replace", replace)
    rename_file(source, target)
    assert target.read_text() == "x"


@pytest.mark.parametrize("code", [errno.EIO, errno.EBUSY])
def test_rename_that_fails_in_the_end(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "target").write_text("old")

    def replace(path: Path, to: Path) -> Path:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(RunError, match=os.strerror(code)):
        replace_file(tmp_path / "target", b"new")
    assert (tmp_path / "target").read_text() == "old"


def test_umask_is_never_loosened(monkeypatch: pytest.MonkeyPatch) -> None:
    restrict_umask()
    assert os.umask(0o022) == 0o077
    monkeypatch.setenv(MODE_VARIABLE, "0640")
    restrict_umask()
    assert os.umask(0o077) == 0o027
    restrict_umask()
    assert os.umask(0o022) == 0o077


# Calls that create a file or a folder with whatever mode the umask gives.
_CREATING_METHODS = {"mkdir", "touch", "write_text", "write_bytes"}
_ALLOWED = {
    "core/private_files.py": "the helper itself",
    "core/output_filter.py": "its key has mode 0600 whatever the setting",
    "exchange/inspect_log.py": "creates its file with file_mode()",
    "runs/append_only_file.py": "creates its file with file_mode()",
    "runs/folder.py": "writes to a file that replace_file_with has created",
}


def _find_unprotected_writes(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        if name in _CREATING_METHODS:
            yield node.lineno
        elif name == "open" and not any(k.arg == "opener" for k in node.keywords):
            arguments = [a.value for a in node.args if isinstance(a, ast.Constant)]
            if any(re.fullmatch(r"[wax]\+?[bt]?\+?|rb?\+b?", str(mode)) for mode in arguments):
                yield node.lineno


def test_everything_is_written_by_the_helper(root: Path) -> None:
    source = root / "src" / "truing"
    found = [
        f"{path.relative_to(source)}:{line}"
        for path in sorted(source.rglob("*.py"))
        if str(path.relative_to(source)) not in _ALLOWED
        for line in _find_unprotected_writes(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == [], "create files with truing.core.private_files"
