"""Why a file that a user names cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from truing.core.input_files import describe_unreadable, read_input_text


def _reason(path: Path) -> str:
    with pytest.raises((OSError, UnicodeDecodeError)) as caught:
        read_input_text(path)
    assert isinstance(caught.value, OSError | UnicodeDecodeError)
    return describe_unreadable(caught.value)


def test_a_missing_file_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    assert _reason(tmp_path / "plan.tml") == "No such file or directory"
    (tmp_path / "plan.toml").touch()
    (tmp_path / "rows.jsonl").touch()
    assert _reason(tmp_path / "plan.tml") == "No such file or directory; did you mean 'plan.toml'?"
    assert _reason(tmp_path / "quite-other") == "No such file or directory"
    assert _reason(tmp_path / "nowhere" / "plan.toml") == "No such file or directory"


def test_what_is_no_readable_text_is_told(tmp_path: Path) -> None:
    assert _reason(tmp_path) == "is no regular file (a folder, a pipe or a device)"
    (tmp_path / "latin").write_bytes(b"ab\xe9")
    assert _reason(tmp_path / "latin") == "is not UTF-8 text (byte 2)"
    (tmp_path / "text").write_bytes(b"a\r\nb\rc")
    assert read_input_text(tmp_path / "text") == "a\nb\nc"
    with pytest.raises(OSError, match="is larger than 3 bytes"):
        read_input_text(tmp_path / "text", max_bytes=3)
