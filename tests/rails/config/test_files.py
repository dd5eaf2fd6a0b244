"""Reading a folder: which files in which order, imports, and merged documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from truing.core.errors import PlanError
from truing.rails.config.files import ConfigFiles, merge_documents

FLOW = "define flow {name}\n  user a\n  bot b\n"


def _write(root: Path, **files: str) -> None:
    """Writes files; ``__`` in a name stands for a slash, ``_`` before the suffix for a dot."""
    for name, text in files.items():
        stem, _, suffix = name.replace("__", "/").rpartition("_")
        path = root / f"{stem}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _read(root: Path) -> ConfigFiles:
    files = ConfigFiles(root)
    files.read_root()
    return files


def test_files_are_read_by_name_and_before_subfolders(tmp_path: Path) -> None:
    _write(
        tmp_path,
        z_co=FLOW.format(name="z"),
        a_co=FLOW.format(name="a"),
        b__a_co=FLOW.format(name="ba"),
        tests__d_co=FLOW.format(name="dialogue"),
    )
    _write(tmp_path / ".hidden", x_co=FLOW.format(name="hidden"))
    assert [tree.file for tree in _read(tmp_path).colang] == ["a.co", "z.co", "b/a.co"]


def test_ignored_files_are_left_out(tmp_path: Path) -> None:
    _write(tmp_path, a_co=FLOW.format(name="a"), draft_co="no colang")
    (tmp_path / ".railsignore").write_text("# unfinished\ndraft*\n")
    files = _read(tmp_path)
    assert [tree.file for tree in files.colang] == ["a.co"]
    assert files.faults == []


def test_documents_of_the_knowledge_base_and_python_files(tmp_path: Path) -> None:
    _write(
        tmp_path,
        kb__facts_md="# Facts\n",
        kb__notes_txt="ignored",
        actions_py="raise SystemExit",
        helper_py="ignored",
        actions__more_py="",
    )
    files = _read(tmp_path)
    assert files.raw["docs"] == [{"format": "md", "content": "# Facts\n"}]
    names = [Path(path).relative_to(tmp_path).as_posix() for path in files.code]
    assert names == ["actions.py", "actions/more.py"]


def test_a_single_yaml_file_can_be_the_root(tmp_path: Path) -> None:
    _write(tmp_path, config_yml="passthrough: true\n", rails_co="not read")
    files = _read(tmp_path / "config.yml")
    assert files.raw == {"passthrough": True}
    assert files.locations[("key", "passthrough")] == ("config.yml", 1)


def test_imports_are_read_transitively_and_once(tmp_path: Path) -> None:
    _write(
        tmp_path,
        main__config_yml="import_paths: [../lib]\n",
        main__main_co="import common\n" + FLOW.format(name="main"),
        common_co="import common\n" + FLOW.format(name="common"),
        lib__lib_co=FLOW.format(name="lib"),
    )
    files = ConfigFiles(tmp_path / "main", read_outside=True)
    files.read_root()
    assert files.faults == []
    assert [what for _, what in files.outside] == [
        "imports ../lib, which is outside the folder",
        "imports common, which is outside the folder",
    ]
    assert sorted(tree.flows[0].name for tree in files.colang) == ["common", "lib", "main"]


def test_every_fault_is_kept_with_its_place(tmp_path: Path) -> None:
    _write(
        tmp_path,
        a_yml="models: [\n",
        b_yml="- list\n",
        c_yml="model: []\n",
        d_co="import missing\ndefine flow\n",
    )
    files = _read(tmp_path)
    places = [fault.split(": ")[0] for fault in files.faults]
    assert places == ["a.yml:2", "b.yml:1", "c.yml:1", "d.co:2"]


def test_a_missing_import_is_a_fault(tmp_path: Path) -> None:
    _write(tmp_path, config_yml="import_paths: [nowhere]\n")
    assert _read(tmp_path).faults == [
        "import 'nowhere': there is no such folder or file beside the configuration"
    ]


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="there is no such rails folder"):
        _read(tmp_path / "nowhere")


def test_merge_documents() -> None:
    target = {"models": [1], "bot_messages": {"a": "x", "b": "y"}, "truing": {"seed": 1}}
    merge_documents(target, {"models": [2], "bot_messages": {"b": "z"}, "passthrough": True})
    merge_documents(target, {"models": None, "truing": {"encoder": "e"}, "passthrough": False})
    assert target == {
        "models": [1, 2],
        "bot_messages": {"a": "x", "b": "z"},
        "truing": {"seed": 1, "encoder": "e"},
        "passthrough": False,
    }
