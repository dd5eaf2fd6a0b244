"""Environments of peers: built once, built again where they are unfinished, skips with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import peers

ABSENT = "no-such-package @ file:///no-such-file.whl"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of peers with an environment `absent` whose requirement cannot be installed."""
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    monkeypatch.setitem(peers.PEERS, "absent", peers.Peer((ABSENT,)))
    peers.peer_python.cache_clear()
    return tmp_path / "absent"


def test_a_finished_environment_is_used_as_it_is(folder: Path) -> None:
    folder.mkdir()
    (folder / peers.MARKER).write_text(ABSENT + "\n")
    assert peers.peer_python("absent") == str(folder / "bin" / "python")
    assert peers.peer_program("absent", "inspect") == str(folder / "bin" / "inspect")
    assert [path.name for path in folder.iterdir()] == [peers.MARKER]


def test_what_cannot_be_installed_is_a_skip_with_pips_words_and_in_ci_a_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An unfinished one of an older list: it is built further, and not taken for whole.
    folder.mkdir()
    (folder / peers.MARKER).write_text("another\n")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"absent cannot be installed: .*no-such-file"):
        peers.peer_python("absent")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="absent cannot be installed"):
        peers.peer_python("absent")
    assert (folder / peers.MARKER).read_text() == "another\n"


def test_the_requirements_of_an_extra_are_those_of_the_project() -> None:
    requirements = peers.truing_with("wandb")
    assert requirements[-1].startswith("wandb>=")
    assert any(line.startswith("msgspec") for line in requirements)
    # An extra within an extra would be looked for on the registry.
    assert [
        line for peer in peers.PEERS.values() for line in peer.requirements if "truing[" in line
    ] == []
