"""Loads a configuration in NeMo's format: a folder of YAML, Colang and a knowledge base.

Nothing in it is executed: `actions.py` and `config.py` are only listed in `RailsConfig.code`.
`truing.rails.runtime.nemo_compat` imports them when a runtime is built from a trusted folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truing.core.errors import PlanError
from truing.rails.colang.ast import BotText, ColangFile, Flow
from truing.rails.colang.flow_reference import parse_flow_name
from truing.rails.colang.script_ast import Script
from truing.rails.colang.tokenizer import ANONYMOUS_PREFIX
from truing.rails.colang.yaml_flows import parse_yaml_flow
from truing.rails.config.client_settings import find_client_setting_faults
from truing.rails.config.entries import (
    ModelEntry,
    OutputStreaming,
    PromptEntry,
    RailStage,
    RailStages,
    parse_model_entry,
    parse_prompt_entry,
)
from truing.rails.config.files import ConfigFiles
from truing.rails.config.tracing import find_adapter_faults

DEFAULT_INSTRUCTIONS = (
    "Below is a conversation between a helpful assistant and a user. "
    "The assistant is concise and honest."
)
DEFAULT_SAMPLE_CONVERSATION = """\
user "Hello there!"
  express greeting
bot express greeting
  "Hello! How can I assist you today?"
user "What can you do for me?"
  ask about capabilities
bot respond about capabilities
  "I can answer questions and help with everyday tasks."
user "Thanks a lot."
  express appreciation
bot express appreciation and offer additional help
  "You are welcome. Is there anything else?"
"""


@dataclass(slots=True)
class RailsConfig:
    """A loaded configuration.

    `raw` is the merged YAML, `truing` its block of truing's own settings, `code` the paths of the
    Python files. `locations` maps a kind ("key", "user", "bot") and a name to file and line.
    `notes` are pairs (place, message) about what is no error, but rarely intended.

    `trust_code` says that the operator trusts all of the configuration: without it no code of the
    folder runs (`config.trust`). `key_variables` names the environment variables that the operator
    lets it send to the addresses that it names. `outside` holds (place, what) for what it reads
    outside its folder, `translated` says where Colang 2 was translated, `script` holds the flows of
    Colang 2 that react to exact words.
    """

    path: str = ""
    models: list[ModelEntry] = field(default_factory=list)
    user_messages: dict[str, list[str]] = field(default_factory=dict)
    bot_messages: dict[str, list[BotText]] = field(default_factory=dict)
    flows: list[Flow] = field(default_factory=list)
    instructions: str = DEFAULT_INSTRUCTIONS
    sample_conversation: str = DEFAULT_SAMPLE_CONVERSATION
    docs: list[str] = field(default_factory=list)
    prompts: list[PromptEntry] = field(default_factory=list)
    prompting_mode: str = "standard"
    rails: RailStages = field(default_factory=RailStages)
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
    locations: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)
    trust_code: bool = False
    key_variables: tuple[str, ...] = ()
    outside: list[tuple[str, str]] = field(default_factory=list)
    translated: list[tuple[str, str]] = field(default_factory=list)
    script: Script | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        trust_code: bool = False,
        key_variables: Sequence[str] = (),
        read_outside: bool = False,
    ) -> RailsConfig:
        """Loads a folder, or one YAML file; PlanError holds every fault. Nothing is executed.

        What the folder imports from outside is read if it is trusted (`trust_code`), or only to be
        checked (`read_outside`).
        """
        files = ConfigFiles(Path(path), read_outside=trust_code or read_outside)
        files.read_root()
        config = _build_config(files, trust_code)
        config.key_variables = tuple(key_variables)
        return config

    @classmethod
    def from_text(
        cls, yaml_text: str = "", colang: str = "", *, trust_code: bool = False
    ) -> RailsConfig:
        """Loads a configuration from texts, for tests and notebooks."""
        files = ConfigFiles(None, read_outside=trust_code)
        files.add_yaml("config.yml", yaml_text)
        files.add_colang("main.co", colang)
        return _build_config(files, trust_code)

    @property
    def hides_thinking(self) -> bool:
        """Whether the main model's thinking is left out of the answer."""
        return any(entry.hides_thinking for entry in self.models if entry.type == "main")

    def locate(self, kind: str, name: str) -> str:
        """Returns ``file:line`` of a definition or a YAML key; the folder if it is not known."""
        location = self.locations.get((kind, name))
        if location is None:
            return self.path or "config"
        file, line = location
        return f"{file}:{line}"


def iterate_stages(config: RailsConfig) -> Iterable[tuple[str, RailStage]]:
    """Yields the name and the rails of every stage."""
    rails = config.rails
    yield "input", rails.input
    yield "output", rails.output
    yield "retrieval", rails.retrieval
    yield "tool_output", rails.tool_output
    yield "tool_input", rails.tool_input


def list_rail_flow_names(config: RailsConfig) -> frozenset[str]:
    """Returns the names of all flows that are used as rails, without their parameters."""
    return frozenset(
        parse_flow_name(reference)
        for _, stage in iterate_stages(config)
        for reference in stage.flows
    )


# -- building --------------------------------------------------------------------------------------


def _build_config(files: ConfigFiles, trust_code: bool) -> RailsConfig:
    files.translate()
    if not files.faults and not files.raw and not files.colang:
        files.faults.append(f"{files.root}: holds neither YAML nor Colang files")
    if files.faults:
        raise PlanError(*dict.fromkeys(files.faults))
    raw = files.raw
    config = RailsConfig(
        path=str(files.root or ""),
        raw=raw,
        code=files.code,
        locations=files.locations,
        trust_code=trust_code,
        outside=files.outside,
        script=files.script,
    )
    version = str(raw.get("colang_version", "1.0"))
    if version in ("1.0", "1") and files.translations:
        name = files.translations[0].name
        raise PlanError(f'{name}:1: this is Colang 2; set colang_version: "2.x"')
    if version not in ("1.0", "1") and not (version == "2.x" and files.translations):
        file, line = files.locations.get(("key", "colang_version"), ("config.yml", 1))
        raise PlanError(
            f"{file}:{line}: colang_version {version} is not supported; truing reads Colang 1.0"
            " and translates rails and dialog flows of 2.x"
        )
    _set_definitions(config, files)
    faults = _set_general_settings(config)
    _add_translated_rails(raw, config, files)
    _set_rails(config, raw.get("rails") or {})
    faults += _find_rail_faults(config, raw.get("rails") or {})
    if faults:
        raise PlanError(*faults)
    return config


def _add_translated_rails(raw: dict[str, Any], config: RailsConfig, files: ConfigFiles) -> None:
    """Adds the rails that Colang 2 files name to those of the YAML."""
    for translation in files.translations:
        for stage, references in translation.rails.items():
            rails = raw.setdefault("rails", {}).setdefault(stage, {})
            known = list(rails.get("flows") or [])
            for index, reference in enumerate(references, len(known)):
                place = (translation.name, translation.rail_lines[stage])
                config.locations[("key", f"rails.{stage}.flows.{index}")] = place
                known.append(reference)
            rails["flows"] = known
        if translation.continuation_line:
            config.translated.append(
                (
                    f"{translation.name}:{translation.continuation_line}",
                    "Colang 2 is translated to Colang 1.0: the LLM is asked for intents, steps and "
                    "messages with the prompts of 1.0",
                )
            )


def _set_definitions(config: RailsConfig, files: ConfigFiles) -> None:
    """Sets messages, flows and their locations, from YAML and Colang."""
    raw = config.raw
    for intent, examples in raw.get("user_messages", {}).items():
        config.user_messages[intent] = [str(example) for example in _as_list(examples)]
    for message, texts in raw.get("bot_messages", {}).items():
        config.bot_messages[message] = [BotText(str(text), 0) for text in _as_list(texts)]
    config.flows = [
        parse_yaml_flow(raw_flow, index, files.locations)
        for index, raw_flow in enumerate(raw.get("flows") or [])
    ]
    # In reverse, as NeMo joins files: the messages of the first file win, but its flows come last
    # in the order of precedence.
    for tree in reversed(files.colang):
        config.user_messages.update(tree.user_messages)
        config.bot_messages.update(tree.bot_messages)
        config.flows.extend(tree.flows)
        for key, line in tree.definition_lines.items():
            config.locations[key] = (tree.file, line)
    config.notes = list(_find_duplicates(files.colang))


_KIND_NAMES = {"user": "intent", "bot": "bot message", "flow": "flow"}


def _find_duplicates(trees: list[ColangFile]) -> Iterator[tuple[str, str]]:
    """Yields (place, message) for names that two files define.

    Of two messages the one of the first file is used, of two flows the one of the last.
    """
    messages = ((tree, dict(tree.definition_lines)) for tree in trees)
    yield from _find_unused(messages, "comes first")
    flows = (
        (
            tree,
            {
                ("flow", flow.name): flow.line
                for flow in tree.flows
                if not flow.name.startswith(ANONYMOUS_PREFIX)
            },
        )
        for tree in reversed(trees)
    )
    yield from _find_unused(flows, "comes last")


def _find_unused(
    definitions: Iterable[tuple[ColangFile, dict[tuple[str, str], int]]], reason: str
) -> Iterator[tuple[str, str]]:
    """Yields a note for each name that an earlier file of `definitions` has defined."""
    used_places: dict[tuple[str, str], str] = {}
    for tree, lines in definitions:
        for (kind, name), line in lines.items():
            place = f"{tree.file}:{line}"
            used_place = used_places.setdefault((kind, name), place)
            if used_place != place:
                yield (
                    place,
                    f"the {_KIND_NAMES[kind]} {name!r} is not used: "
                    f"{used_place} defines it too, and {reason}",
                )


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _set_general_settings(config: RailsConfig) -> list[str]:
    """Sets what is neither a definition nor a rail; returns the faults."""
    raw = config.raw
    faults: list[str] = []
    for index, raw_model in enumerate(raw.get("models") or []):
        model, fault = parse_model_entry(raw_model)
        if fault:
            faults.append(f"{config.locate('key', f'models.{index}')}: {fault}")
        config.models.append(model)
    for index, raw_prompt in enumerate(raw.get("prompts") or []):
        prompt = parse_prompt_entry(raw_prompt)
        if prompt is None:
            place = config.locate("key", f"prompts.{index}")
            faults.append(f"{place}: a prompt needs a task, and content or messages")
        elif prompt.max_length < 1:
            place = config.locate("key", f"prompts.{index}")
            faults.append(f"{place}: max_length: {prompt.max_length} is less than 1")
        else:
            config.prompts.append(prompt)
    if raw.get("actions_server_url"):
        place = config.locate("key", "actions_server_url")
        faults.append(f"{place}: an actions server is not supported; use actions.py")
    if raw.get("instructions"):
        general = [entry for entry in raw["instructions"] if entry.get("type") == "general"]
        config.instructions = (general[0].get("content") or "") if general else ""
    if "sample_conversation" in raw:
        config.sample_conversation = raw["sample_conversation"] or ""
    config.docs = [str(document.get("content", "")) for document in raw.get("docs") or []]
    config.prompting_mode = raw.get("prompting_mode") or "standard"
    if raw.get("lowest_temperature") is not None:
        config.lowest_temperature = float(raw["lowest_temperature"])
    config.multi_step = bool(raw.get("enable_multi_step_generation"))
    config.enable_rails_exceptions = bool(raw.get("enable_rails_exceptions"))
    config.passthrough = bool(raw.get("passthrough"))
    config.custom_data = dict(raw.get("custom_data") or {})
    config.truing = dict(raw.get("truing") or {})
    return faults


def _set_rails(config: RailsConfig, raw: dict[str, Any]) -> None:
    for name, stage in iterate_stages(config):
        block = raw.get(name) or {}
        stage.flows = [str(reference) for reference in block.get("flows") or []]
        stage.parallel = bool(block.get("parallel"))
    streaming = (raw.get("output") or {}).get("streaming") or {}
    config.rails.output.streaming = OutputStreaming(**streaming)
    dialog = raw.get("dialog") or {}
    config.single_call = bool((dialog.get("single_call") or {}).get("enabled"))
    messages = dialog.get("user_messages") or {}
    config.embeddings_only = bool(messages.get("embeddings_only"))
    config.embeddings_threshold = messages.get("embeddings_only_similarity_threshold")
    config.embeddings_fallback = messages.get("embeddings_only_fallback_intent")


def _find_rail_faults(config: RailsConfig, raw: dict[str, Any]) -> Iterator[str]:
    blocks = raw.get("config") or {}
    if (blocks.get("sensitive_data_detection") or {}).get("recognizers"):
        place = config.locate("key", "rails.config.sensitive_data_detection.recognizers")
        yield (
            f"{place}: recognizers of Presidio's are not supported, and without them data would "
            "pass; use rails.config.regex_detection or an action of your own"
        )
    if (blocks.get("jailbreak_detection") or {}).get("api_key"):
        place = config.locate("key", "rails.config.jailbreak_detection.api_key")
        yield f"{place}: the configuration contains a secret; use api_key_env_var: NAME"
    for fault in find_adapter_faults(config.raw):
        yield f"{config.locate('key', 'tracing.adapters')}: {fault}"
    for key, fault in find_client_setting_faults(config.truing):
        yield f"{config.locate('key', key)}: {fault}"
    if config.passthrough and config.single_call:
        place = config.locate("key", "passthrough")
        yield f"{place}: passthrough and single_call exclude each other"
    threshold = config.embeddings_threshold
    if threshold is not None and not 0 <= threshold <= 1:
        key = "rails.dialog.user_messages.embeddings_only_similarity_threshold"
        yield f"{config.locate('key', key)}: {threshold} is not between 0 and 1"
