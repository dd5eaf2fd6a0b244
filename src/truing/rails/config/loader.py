"""A configuration folder in NeMo's format, read once: YAML, Colang, knowledge base. Nothing in it is run here.

`actions.py` and `config.py` of the folder are only noted (`code`); `truing.rails.runtime.nemo_compat` imports them when a runtime is
built from a folder whose code is trusted.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from truing.core.errors import PlanError
from truing.rails.colang import ast as n
from truing.rails.colang.flow_reference import flow_name
from truing.rails.colang.parser import parse_colang
from truing.rails.colang.yaml_flows import flow_from_yaml
from truing.rails.config.schema import FOREIGN_BLOCKS, SCHEMA, faults
from truing.rails.yaml_lines import load_with_lines

MAX_FILE = 4_000_000
DEFAULT_INSTRUCTIONS = "Below is a conversation between a helpful assistant and a user. The assistant is concise and honest."
DEFAULT_SAMPLE = (
    'user "Hello there!"\n  express greeting\nbot express greeting\n  "Hello! How can I assist you today?"\n'
    'user "What can you do for me?"\n  ask about capabilities\nbot respond about capabilities\n'
    '  "I can answer questions and help with everyday tasks."\n'
    'user "Thanks a lot."\n  express appreciation\nbot express appreciation and offer additional help\n'
    '  "You are welcome. Is there anything else?"\n'
)


@dataclass(slots=True)
class Rails:
    """One stage's rails: flow names as they stand in the configuration, in order."""

    flows: list[str] = field(default_factory=list)
    parallel: bool = False


@dataclass(slots=True)
class Streaming:
    """``rails.output.streaming``."""

    enabled: bool = False
    chunk_size: int = 200
    context_size: int = 50
    stream_first: bool = True


@dataclass(slots=True)
class OutputRails(Rails):
    """``rails.output``."""

    streaming: Streaming = field(default_factory=Streaming)


@dataclass(slots=True)
class AllRails:
    """``rails``: the stages by name, as expressions see them ($config.rails.input.flows)."""

    input: Rails = field(default_factory=Rails)
    output: OutputRails = field(default_factory=OutputRails)
    retrieval: Rails = field(default_factory=Rails)
    tool_output: Rails = field(default_factory=Rails)
    tool_input: Rails = field(default_factory=Rails)


@dataclass(slots=True)
class ModelEntry:
    """One entry of ``models``."""

    type: str
    engine: str
    model: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    api_key_env_var: str | None = None


@dataclass(slots=True)
class PromptEntry:
    """One entry of ``prompts``; either `content` or `messages` (type and content) is set."""

    task: str
    content: str | None = None
    messages: tuple[tuple[str, str], ...] = ()
    models: tuple[str, ...] = ()
    output_parser: str | None = None
    max_length: int = 16_000
    mode: str = "standard"
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None


@dataclass(slots=True)
class RailsConfig:
    """Everything that the folder says. `raw` is the merged YAML, `truing` our own block, `code` the Python files."""

    path: str = ""
    models: list[ModelEntry] = field(default_factory=list)
    user_messages: dict[str, list[str]] = field(default_factory=dict)
    bot_messages: dict[str, list[n.Text]] = field(default_factory=dict)
    flows: list[n.Flow] = field(default_factory=list)
    instructions: str = DEFAULT_INSTRUCTIONS
    sample_conversation: str = DEFAULT_SAMPLE
    docs: list[str] = field(default_factory=list)
    prompts: list[PromptEntry] = field(default_factory=list)
    prompting_mode: str = "standard"
    rails: AllRails = field(default_factory=AllRails)
    single_call: bool = False
    embeddings_only: bool = False
    embeddings_threshold: float | None = None
    embeddings_fallback: str | None = None
    lowest_temperature: float = 0.001
    multi_step: bool = False
    enable_rails_exceptions: bool = False
    passthrough: bool = False
    custom_data: dict[str, Any] = field(default_factory=dict)
    truing: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict)
    code: list[str] = field(default_factory=list)
    places: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(
        default_factory=list
    )  # (place, what): no fault, but rarely meant

    @classmethod
    def load(cls, path: str | Path) -> RailsConfig:
        """Reads a folder (or one YAML file); PlanError holds every fault found."""
        return _Folder(Path(path)).config()

    @classmethod
    def of(cls, yaml_text: str = "", colang: str = "") -> RailsConfig:
        """A configuration from texts, for tests and notebooks."""
        folder = _Folder(None)
        folder.yaml("config.yml", yaml_text)
        folder.parsed.append(parse_colang("main.co", colang))
        return folder.config()

    def place(self, kind: str, name: str) -> str:
        """``file:line`` of a definition or a YAML key, or the folder."""
        found = self.places.get((kind, name))
        return f"{found[0]}:{found[1]}" if found else self.path or "config"


class _Folder:
    """The reading of one folder."""

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self.raw: dict[str, Any] = {}
        self.parsed: list[n.Parsed] = []
        self.faults: list[str] = []
        self.code: list[str] = []
        self.places: dict[tuple[str, str], tuple[str, int]] = {}
        self.imported: set[Path] = set()

    def text(self, path: Path, name: str) -> str:
        try:
            if path.stat().st_size > MAX_FILE:
                self.faults.append(f"{name}: larger than {MAX_FILE // 1_000_000} MB")
                return ""
            return path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            line = path.read_bytes()[: error.start].count(b"\n") + 1
            self.faults.append(f"{name}:{line}: not valid UTF-8")
        except OSError as error:
            self.faults.append(f"{name}: {error.strerror}")
        return ""

    def read(self, root: Path) -> None:
        """Everything under a folder, in order of names, the top before its subfolders."""
        ignored = self._ignored(root)
        for folder, subfolders, files in os.walk(root, followlinks=False):
            own = Path(folder) == root  # DIR/tests holds dialogues for `truing rails test`
            subfolders[:] = sorted(
                s
                for s in subfolders
                if not s.startswith((".", "__")) and not (own and s == "tests")
            )
            for file in sorted(files):
                if any(fnmatch.fnmatch(file, pattern) for pattern in ignored):
                    continue
                path = Path(folder) / file
                self.file(path, path.relative_to(root))

    def _ignored(self, root: Path) -> list[str]:
        path = root / ".railsignore"
        if not path.is_file():
            return []
        rows = (row.strip() for row in self.text(path, ".railsignore").split("\n"))
        return [row for row in rows if row and not row.startswith("#")]

    def file(self, path: Path, name: Path) -> None:
        """One file, by its ending and place."""
        if name.parts[0].startswith("kb"):
            if path.suffix == ".md":
                self.raw.setdefault("docs", []).append(
                    {"format": "md", "content": self.text(path, str(name))}
                )
        elif path.suffix in (".yml", ".yaml"):
            self.yaml(str(name), self.text(path, str(name)))
        elif path.suffix == ".co":
            try:
                self.parsed.append(parse_colang(str(name), self.text(path, str(name))))
            except PlanError as error:
                self.faults.extend(error.faults)
        elif path.suffix == ".py" and (
            str(name) in ("actions.py", "config.py") or name.parts[0] == "actions"
        ):
            self.code.append(str(path))

    def yaml(self, name: str, text: str) -> None:
        """Reads one YAML document into the whole."""
        try:
            value, lines = load_with_lines(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark is not None else 1
            problem = getattr(error, "problem", None) or str(error).split("\n")[0]
            self.faults.append(f"{name}:{line}: {problem}")
            return
        if value is None:
            return
        if not isinstance(value, dict):
            self.faults.append(f"{name}:1: expected keys at the top")
            return
        found = [f"{name}:{_line(lines, path)}: {what}" for path, what in faults(value, SCHEMA)]
        if found:
            self.faults.extend(found)
            return
        for path, line in lines.items():
            self.places[("key", ".".join(str(p) for p in path))] = (name, line)
        merge(self.raw, value)

    def config(self) -> RailsConfig:
        """Reads and joins everything."""
        if self.root is not None:
            if self.root.is_dir():
                self.read(self.root)
            elif self.root.is_file() and self.root.suffix in (".yml", ".yaml"):
                self.yaml(self.root.name, self.text(self.root, self.root.name))
            else:
                raise PlanError(f"{self.root}: there is no such rails folder")
            self._imports()
        if not self.faults and not self.raw and not self.parsed:
            self.faults.append(f"{self.root}: holds neither YAML nor Colang files")
        if self.faults:
            raise PlanError(*dict.fromkeys(self.faults))
        return _build(self)

    def _imports(self) -> None:
        while True:
            wanted = [
                *self.raw.get("import_paths", []),
                *(i for p in self.parsed for i in p.imports),
            ]
            fresh = [w for w in wanted if self._resolve(w) not in self.imported]
            if not fresh:
                return
            for name in fresh:
                path = self._resolve(name)
                self.imported.add(path)
                if path.is_dir():
                    self.read(path)
                elif path.is_file():
                    self.file(path, Path(path.name))
                else:
                    self.faults.append(
                        f"import {name!r}: there is no such folder or file beside the configuration"
                    )

    def _resolve(self, name: str) -> Path:
        base = self.root if self.root is not None and self.root.is_dir() else Path()
        for candidate in (base / name, base.parent / name, Path(name)):
            for path in (candidate, candidate.with_name(candidate.name + ".co")):
                if path.exists():
                    return path.resolve()
        return (base / name).resolve()


def _line(lines: dict[tuple[str | int, ...], int], path: tuple[str | int, ...]) -> int:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


_LISTS = ("instructions", "flows", "models", "prompts", "docs", "import_paths")


def merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    """Joins two documents as NeMo does: lists are appended, messages joined by name, any other key is replaced."""
    for key, value in more.items():
        if key in _LISTS:
            into[key] = [*into.get(key, []), *(value or [])]
        elif key in ("user_messages", "bot_messages"):
            into[key] = {**into.get(key, {}), **(value or {})}
        elif key == "truing" and isinstance(into.get(key), dict):
            into[key] = {**into[key], **(value or {})}
        else:
            into[key] = value


def _build(folder: _Folder) -> RailsConfig:
    raw = folder.raw
    version = str(raw.get("colang_version", "1.0"))
    if version not in ("1.0", "1"):
        at = folder.places.get(("key", "colang_version"), ("config.yml", 1))
        raise PlanError(
            f"{at[0]}:{at[1]}: colang_version {version} is not supported; truing reads Colang 1.0"
        )
    config = RailsConfig(
        path=str(folder.root or ""), raw=raw, code=folder.code, places=folder.places
    )
    config.user_messages = {
        k: [str(t) for t in _list(v)] for k, v in raw.get("user_messages", {}).items()
    }
    config.bot_messages = {
        k: [n.Text(str(t), 0) for t in _list(v)] for k, v in raw.get("bot_messages", {}).items()
    }
    config.flows = [
        flow_from_yaml(f, at, folder.places) for at, f in enumerate(raw.get("flows") or [])
    ]
    for parsed in reversed(folder.parsed):  # earlier files win
        config.user_messages.update(parsed.users)
        config.bot_messages.update(parsed.bots)
        config.flows.extend(parsed.flows)
        config.places.update({key: (parsed.file, line) for key, line in parsed.places.items()})
    config.notes = list(_twice(folder.parsed))
    _settings(config, raw)
    _rails(config, raw.get("rails") or {})
    return config


def _twice(parsed: list[n.Parsed]) -> Iterator[tuple[str, str]]:
    """Names that are defined in two files: the first file in order of names counts."""
    seen: dict[tuple[str, str], str] = {}
    for one in parsed:
        flows = {("flow", f.name): f.line for f in one.flows if not f.name.startswith("anonymous-")}
        for (kind, name), line in {**one.places, **flows}.items():
            first = seen.setdefault((kind, name), f"{one.file}:{line}")
            if first != f"{one.file}:{line}":
                yield (
                    f"{one.file}:{line}",
                    f"the {_KINDS[kind]} {name!r} is not used: {first} defines it too, and comes first",
                )


_KINDS = {"user": "intent", "bot": "bot message", "flow": "flow"}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _settings(config: RailsConfig, raw: dict[str, Any]) -> None:
    faults: list[str] = []
    for at, entry in enumerate(raw.get("models") or []):
        made, fault = _model(entry)
        if fault:
            faults.append(f"{config.place('key', f'models.{at}')}: {fault}")
        config.models.append(made)
    for at, entry in enumerate(raw.get("prompts") or []):
        if bool(entry.get("content")) == bool(entry.get("messages")) or not entry.get("task"):
            faults.append(
                f"{config.place('key', f'prompts.{at}')}: a prompt needs a task, and content or messages"
            )
            continue
        config.prompts.append(_prompt(entry))
    general = [
        i.get("content") or "" for i in raw.get("instructions") or [] if i.get("type") == "general"
    ]
    if raw.get("instructions"):
        config.instructions = general[0] if general else ""
    if "sample_conversation" in raw:
        config.sample_conversation = raw["sample_conversation"] or ""
    config.docs = [str(d.get("content", "")) for d in raw.get("docs") or []]
    config.prompting_mode = raw.get("prompting_mode") or "standard"
    config.lowest_temperature = float(raw.get("lowest_temperature") or 0.001)
    config.multi_step = bool(raw.get("enable_multi_step_generation"))
    config.enable_rails_exceptions = bool(raw.get("enable_rails_exceptions"))
    config.passthrough = bool(raw.get("passthrough"))
    config.custom_data = dict(raw.get("custom_data") or {})
    config.truing = dict(raw.get("truing") or {})
    if raw.get("actions_server_url"):
        faults.append(
            f"{config.place('key', 'actions_server_url')}: an actions server is not supported; use actions.py"
        )
    if faults:
        raise PlanError(*faults)


def _model(entry: dict[str, Any]) -> tuple[ModelEntry, str | None]:
    parameters = dict(entry.get("parameters") or {})
    inner = parameters.pop("model_name", None) or parameters.pop("model", None)
    name = entry.get("model") or inner or ""
    fault = None
    if not entry.get("type") or not entry.get("engine"):
        fault = "a model needs type and engine"
    elif entry.get("model") and inner:
        fault = "the model's name stands twice: once is enough"
    elif not str(name).strip():
        fault = "a model needs a name: model: NAME"
    made = ModelEntry(
        str(entry.get("type")),
        str(entry.get("engine")),
        str(name),
        parameters,
        entry.get("api_key_env_var"),
    )
    return made, fault


def _prompt(entry: dict[str, Any]) -> PromptEntry:
    rows = []
    for row in entry.get("messages") or []:
        rows.append(
            ("", row) if isinstance(row, str) else (str(row.get("type")), str(row.get("content")))
        )
    return PromptEntry(
        task=entry["task"],
        content=entry.get("content"),
        messages=tuple(rows),
        models=tuple(entry.get("models") or ()),
        output_parser=entry.get("output_parser"),
        max_length=entry.get("max_length") or 16_000,
        mode=entry.get("mode") or "standard",
        stop=tuple(entry.get("stop") or ()),
        max_tokens=entry.get("max_tokens"),
    )


def _rails(config: RailsConfig, raw: dict[str, Any]) -> None:
    for stage in ("input", "output", "retrieval", "tool_output", "tool_input"):
        block = raw.get(stage) or {}
        rails: Rails = getattr(config.rails, stage)
        rails.flows = [str(f) for f in block.get("flows") or []]
        rails.parallel = bool(block.get("parallel"))
    streaming = (raw.get("output") or {}).get("streaming") or {}
    config.rails.output.streaming = Streaming(**streaming)
    dialog = raw.get("dialog") or {}
    config.single_call = bool((dialog.get("single_call") or {}).get("enabled"))
    messages = dialog.get("user_messages") or {}
    config.embeddings_only = bool(messages.get("embeddings_only"))
    config.embeddings_threshold = messages.get("embeddings_only_similarity_threshold")
    config.embeddings_fallback = messages.get("embeddings_only_fallback_intent")
    faults = [
        f"{config.place('key', f'rails.config.{name}')}: the library rail {name!r} calls a service or a model that "
        "truing does not have; docs/from-nemo.md names what to use in its place"
        for name in raw.get("config") or {}
        if name in FOREIGN_BLOCKS
    ]
    if config.passthrough and config.single_call:
        faults.append(
            f"{config.place('key', 'passthrough')}: passthrough and single_call exclude each other"
        )
    threshold = config.embeddings_threshold
    if threshold is not None and not 0 <= threshold <= 1:
        key = "rails.dialog.user_messages.embeddings_only_similarity_threshold"
        faults.append(f"{config.place('key', key)}: {threshold} is not between 0 and 1")
    if faults:
        raise PlanError(*faults)


def stages(config: RailsConfig) -> Iterable[tuple[str, Rails]]:
    """The stages and their rails."""
    rails = config.rails
    yield from (
        ("input", rails.input),
        ("output", rails.output),
        ("retrieval", rails.retrieval),
        ("tool_output", rails.tool_output),
        ("tool_input", rails.tool_input),
    )


def rail_names(config: RailsConfig) -> frozenset[str]:
    """The names of all flows that are used as rails, without their parameters."""
    return frozenset(flow_name(f) for _, block in stages(config) for f in block.flows)
