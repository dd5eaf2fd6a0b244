"""Reads the files of a configuration: YAML is merged, Colang parsed, Python only listed."""

from __future__ import annotations

import fnmatch
import os
import stat
from pathlib import Path
from typing import Any

import yaml

from truing.core.errors import PlanError
from truing.rails.colang.ast import ColangFile
from truing.rails.colang.colang2 import Translation, translate_colang2
from truing.rails.colang.parser import is_colang_2, parse_colang
from truing.rails.colang.script_ast import Script
from truing.rails.config.schema import SCHEMA, find_schema_faults
from truing.rails.yaml_lines import KeyPath, load_with_lines

MAX_FILE_BYTES = 4_000_000
MAX_FILES = 5_000
MAX_TOTAL_BYTES = 64_000_000
MAX_FOLDER_ENTRIES = 20_000  # an import may name a folder as large as a disk

# Keys whose lists are appended when documents are merged.
_LIST_KEYS = ("instructions", "flows", "models", "prompts", "docs", "import_paths")


class ConfigFiles:
    """The content of a configuration folder, or of one YAML file.

    `raw` is the merged YAML, `colang` the parsed Colang files in the order of reading,
    `translations` and `script` those of them in Colang 2, `code` the paths of Python files.
    `locations` maps ``("key", dotted path)`` to file and line. `faults` holds one line
    ``file:line: message`` for each error, so that all are reported together.

    What links or imports lead to outside the folder is listed in `outside` as (place, message), and
    read only with `read_outside`: a received folder must not pull in files of this machine.
    """

    def __init__(self, root: Path | None, *, read_outside: bool = False) -> None:
        self.root = root
        self.read_outside = read_outside
        self.outside: list[tuple[str, str]] = []
        self._file_count = self._byte_count = 0
        self.raw: dict[str, Any] = {}
        self.colang: list[ColangFile] = []
        self.code: list[str] = []
        self.locations: dict[tuple[str, str], tuple[str, int]] = {}
        self.faults: list[str] = []
        self._imported: set[Path] = set()
        self._colang2: list[tuple[str, str]] = []
        self.translations: list[Translation] = []
        self.script: Script | None = None

    def read_root(self) -> None:
        """Reads the folder (or file) and what it imports; PlanError if it does not exist."""
        if self.root is None:
            return
        if self.root.is_dir():
            self._read_folder(self.root)
        elif self.root.is_file() and self.root.suffix in (".yml", ".yaml"):
            self.add_yaml(self.root.name, self._read_text(self.root, self.root.name))
        else:
            raise PlanError(f"{self.root}: there is no such rails folder")
        self._read_imports()

    def translate(self) -> None:
        """Translates the Colang 2 files, and adds what they hold; once, after the last file."""
        if not self._colang2 or self.faults:
            return
        try:
            self.translations, self.script = translate_colang2(self._colang2)
            for translation in self.translations:
                self.colang.append(parse_colang(translation.name, translation.colang))
        except PlanError as error:
            self.faults.extend(error.faults)

    def add_yaml(self, name: str, text: str) -> None:
        """Merges a YAML document; one with faults is left out."""
        try:
            document, lines = load_with_lines(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark is not None else 1
            problem = getattr(error, "problem", None) or str(error).split("\n")[0]
            self.faults.append(f"{name}:{line}: {problem}")
            return
        if document is None:
            return
        if not isinstance(document, dict):
            self.faults.append(f"{name}:1: expected a mapping at the top")
            return
        schema_faults = [
            f"{name}:{_nearest_line(lines, path)}: {message}"
            for path, message in find_schema_faults(document, SCHEMA)
        ]
        if schema_faults:
            self.faults.extend(schema_faults)
            return
        for path, line in lines.items():
            key = ".".join(str(part) for part in path)
            self.locations[("key", key)] = (name, line)
        merge_documents(self.raw, document)

    def add_colang(self, name: str, text: str) -> None:
        """Parses a Colang file; one in Colang 2 is translated when all files are there."""
        if is_colang_2(text):
            self._colang2.append((name, text))
            return
        try:
            self.colang.append(parse_colang(name, text))
        except PlanError as error:
            self.faults.extend(error.faults)

    def _read_folder(self, root: Path) -> None:
        """Reads all files, sorted by name; those of a folder before those of its subfolders.

        The order decides which of two definitions wins, so it must not depend on the disk.
        """
        ignored = self._read_ignore_patterns(root)
        entry_count = 0
        for folder, subfolders, names in os.walk(root, followlinks=False):
            entry_count += len(names) + len(subfolders)
            if entry_count > MAX_FOLDER_ENTRIES:
                self.faults.append(f"{root}: more than {MAX_FOLDER_ENTRIES:,} files and folders")
                return
            is_root = Path(folder) == root
            subfolders[:] = sorted(
                name
                for name in subfolders
                if not name.startswith((".", "__"))
                # The dialogues of `truing rails test` are in DIR/tests.
                and not (is_root and name == "tests")
            )
            for name in sorted(names):
                if any(fnmatch.fnmatch(name, pattern) for pattern in ignored):
                    continue
                path = Path(folder) / name
                relative = path.relative_to(root)
                if path.is_symlink() and self._is_outside(path):
                    self.outside.append((str(relative), "links to a file outside the folder"))
                    if not self.read_outside:
                        continue
                self._read_file(path, relative)

    def _read_ignore_patterns(self, root: Path) -> list[str]:
        path = root / ".railsignore"
        if not path.is_file():
            return []
        lines = [line.strip() for line in self._read_text(path, ".railsignore").split("\n")]
        return [line for line in lines if line and not line.startswith("#")]

    def _read_file(self, path: Path, relative: Path) -> None:
        name = str(relative)
        if relative.parts[0].startswith("kb"):
            if path.suffix == ".md":
                document = {"format": "md", "content": self._read_text(path, name)}
                self.raw.setdefault("docs", []).append(document)
        elif path.suffix in (".yml", ".yaml"):
            self.add_yaml(name, self._read_text(path, name))
        elif path.suffix == ".co":
            self.add_colang(name, self._read_text(path, name))
        elif path.suffix == ".py":
            is_code = name in ("actions.py", "config.py") or relative.parts[0] == "actions"
            if is_code:
                self.code.append(str(path))

    def _read_text(self, path: Path, name: str) -> str:
        """Returns the text of a file; "" with a fault if it cannot be read."""
        try:
            status = path.stat()
            self._file_count += 1
            self._byte_count += status.st_size
            if not stat.S_ISREG(status.st_mode):
                self.faults.append(f"{name}: is no regular file")
            elif status.st_size > MAX_FILE_BYTES:
                self.faults.append(f"{name}: larger than {MAX_FILE_BYTES // 1_000_000} MB")
            elif self._byte_count > MAX_TOTAL_BYTES or self._file_count > MAX_FILES:
                self.faults.append(
                    f"the configuration has more than {MAX_FILES:,} files, or more than "
                    f"{MAX_TOTAL_BYTES // 1_000_000} MB"
                )
            else:
                return path.read_bytes().decode("utf-8")
            return ""
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            self.faults.append(f"{name}:{line}: not valid UTF-8")
        except OSError as error:
            self.faults.append(f"{name}: {error.strerror}")
        return ""

    def _read_imports(self) -> None:
        """Reads what ``import_paths`` and ``import`` name, and what those files import in turn."""
        # An imported file may import others: until a pass finds nothing new.
        while True:
            imports = [
                (self._locate_import(index), name)
                for index, name in enumerate(self.raw.get("import_paths") or [])
            ]
            imports += [(tree.file, name) for tree in self.colang for name in tree.imports]
            new_imports = [
                (place, name)
                for place, name in imports
                if self._resolve_import(name) not in self._imported
            ]
            if not new_imports:
                return
            for place, name in new_imports:
                path = self._resolve_import(name)
                if path in self._imported:
                    continue
                self._imported.add(path)
                if path.exists() and self._is_outside(path):
                    self.outside.append((place, f"imports {name}, which is outside the folder"))
                    if not self.read_outside:
                        continue
                if path.is_dir():
                    self._read_folder(path)
                elif path.is_file():
                    self._read_file(path, Path(path.name))
                else:
                    self.faults.append(
                        f"import {name!r}: there is no such folder or file beside the configuration"
                    )

    def _locate_import(self, index: int) -> str:
        default = (str(self.root or "config.yml"), 1)
        file, line = self.locations.get(("key", f"import_paths.{index}"), default)
        return f"{file}:{line}"

    def _is_outside(self, path: Path) -> bool:
        """Returns whether a path, with its links followed, is outside the configuration's
        folder.
        """
        base = self.root if self.root is not None and self.root.is_dir() else None
        if base is None:
            base = self.root.parent if self.root is not None else Path()
        try:
            return not path.resolve().is_relative_to(base.resolve())
        except OSError:
            return True  # a link that may not be followed

    def _resolve_import(self, name: str) -> Path:
        """Looks in the folder, beside it, and for an absolute path; ".co" may be missing."""
        base = self.root if self.root is not None and self.root.is_dir() else Path()
        for folder in (base, base.parent, Path()):
            for file_name in (name, f"{name}.co"):
                path = folder / file_name
                if os.path.exists(path):
                    return path.resolve()
        return base.absolute() / name.replace("\0", "")


def _nearest_line(lines: dict[KeyPath, int], path: KeyPath) -> int:
    """Returns the line of a path, or of the closest key above it that has one."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def merge_documents(target: dict[str, Any], document: dict[str, Any]) -> None:
    """Merges a document into another as NeMo does.

    Lists are appended, messages and ``truing`` are merged by key, any other key is replaced.
    """
    for key, value in document.items():
        if key in _LIST_KEYS:
            target[key] = [*target.get(key, []), *(value or [])]
        elif key in ("user_messages", "bot_messages"):
            target[key] = {**target.get(key, {}), **(value or {})}
        elif key == "truing" and isinstance(target.get(key), dict):
            target[key] = {**target[key], **(value or {})}
        else:
            target[key] = value
