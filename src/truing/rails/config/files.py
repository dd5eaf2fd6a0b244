"""Reads the files of a configuration: YAML is merged, Colang parsed, Python only listed."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path
from typing import Any

import yaml

from truing.core.errors import PlanError
from truing.rails.colang.ast import ColangFile
from truing.rails.colang.parser import parse_colang
from truing.rails.config.schema import SCHEMA, find_schema_faults
from truing.rails.yaml_lines import KeyPath, load_with_lines

MAX_FILE_BYTES = 4_000_000

# Keys whose lists are appended when documents are merged.
_LIST_KEYS = ("instructions", "flows", "models", "prompts", "docs", "import_paths")


class ConfigFiles:
    """The content of a configuration folder, or of one YAML file.

    `raw` is the merged YAML, `colang` the parsed Colang files in the order of reading, `code` the
    paths of Python files. `locations` maps ``("key", dotted path)`` to file and line. `faults`
    holds one line ``file:line: message`` for each error, so that all are reported together.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self.raw: dict[str, Any] = {}
        self.colang: list[ColangFile] = []
        self.code: list[str] = []
        self.locations: dict[tuple[str, str], tuple[str, int]] = {}
        self.faults: list[str] = []
        self._imported: set[Path] = set()

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
        """Parses a Colang file."""
        try:
            self.colang.append(parse_colang(name, text))
        except PlanError as error:
            self.faults.extend(error.faults)

    def _read_folder(self, root: Path) -> None:
        """Reads all files, sorted by name; those of a folder before those of its subfolders.

        The order decides which of two definitions wins, so it must not depend on the disk.
        """
        ignored = self._read_ignore_patterns(root)
        for folder, subfolders, names in os.walk(root, followlinks=False):
            is_root = Path(folder) == root
            subfolders[:] = sorted(
                name
                for name in subfolders
                if not name.startswith((".", "__"))
                # The dialogues of `truing rails test` are in DIR/tests.
                and not (is_root and name == "tests")
            )
            for name in sorted(names):
                if not any(fnmatch.fnmatch(name, pattern) for pattern in ignored):
                    path = Path(folder) / name
                    self._read_file(path, path.relative_to(root))

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
            if path.stat().st_size > MAX_FILE_BYTES:
                self.faults.append(f"{name}: larger than {MAX_FILE_BYTES // 1_000_000} MB")
                return ""
            return path.read_bytes().decode("utf-8")
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
            names = list(self.raw.get("import_paths", []))
            for tree in self.colang:
                names += tree.imports
            new_names = [n for n in names if self._resolve_import(n) not in self._imported]
            if not new_names:
                return
            for name in new_names:
                path = self._resolve_import(name)
                self._imported.add(path)
                if path.is_dir():
                    self._read_folder(path)
                elif path.is_file():
                    self._read_file(path, Path(path.name))
                else:
                    self.faults.append(
                        f"import {name!r}: there is no such folder or file beside the configuration"
                    )

    def _resolve_import(self, name: str) -> Path:
        """Looks in the folder, beside it, and for an absolute path; ".co" may be missing."""
        base = self.root if self.root is not None and self.root.is_dir() else Path()
        for candidate in (base / name, base.parent / name, Path(name)):
            for path in (candidate, candidate.with_name(candidate.name + ".co")):
                if path.exists():
                    return path.resolve()
        return (base / name).resolve()


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
