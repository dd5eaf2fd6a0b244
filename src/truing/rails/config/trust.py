"""What a configuration may do that is not trusted, and what needs the operator's trust.

A folder of rails is data: texts, flows, settings. Some of it can do more, and then the operator has
to say so (``--trust-code``, ``trust_code=True``): Python files, specs that run Python or start from
files outside the folder, imports from outside, environment variables with keys. `find_code_uses`
lists them with file and line; `require_trusted_code` refuses a configuration that has any.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from truing.core.errors import PlanError, SpecError
from truing.rails.config.engines import (
    OPENAI_ADDRESS,
    TRUING_ENGINE,
    find_address,
)
from truing.rails.config.jailbreak_service import JAILBREAK_BLOCK, make_jailbreak_spec
from truing.rails.config.loader import RailsConfig
from truing.rails.config.service_addresses import find_service_addresses
from truing.rails.config.tracing import list_trace_files
from truing.rails.config.vendor_addresses import GLINER_KEY, read_gliner_path
from truing.specs.builders import BUILDERS
from truing.specs.keys import VENDOR_HOSTS, allow_key_variables, is_vendor_address
from truing.specs.parser import Spec, parse_spec
from truing.specs.resolve import RoleName, list_kinds, resolve

# Names of environment variables (separated by commas) that untrusted configurations may send to the
# addresses that they name.
VARIABLES_SETTING = "TRUING_RAILS_KEY_VARIABLES"

# Kinds of specs that run no code of the configuration: they call an endpoint, read shipped data, or
# are built of other specs. All others (`python`, plug-ins, ...) count as code.
_DATA_KINDS = frozenset(
    {
        *("scripted", "openai", "http", "pool", "best-of", "guarded", "prompted", "answers"),
        *("rules", "llm", "panel", "guard", "openai-moderation", "keywords", "tone"),
    }
)
# Kinds whose name is a model folder. Weights are data, but some folders bring code.
_MODEL_KINDS = frozenset({"local", "vllm", "moderation", "reward", "preference", "cost"})
# (kind, argument): the text of a file, which clients of the model could read. "" is the name.
# A nested `guarded:` names a folder of rails, whose texts are as readable.
_FILE_ARGUMENTS = frozenset(
    {
        *((kind, "") for kind in ("prompted", "answers", "keywords", "guarded")),
        ("llm", "file"),
        ("guard", "policy"),
    }
)
_FOLDER_ARGUMENTS = frozenset(
    {
        *((kind, "") for kind in _MODEL_KINDS),
        ("guard", "path"),
        ("guard", "tokenizer"),
    }
)
_BUILT_IN_PREFIXES = frozenset({"hhh", "hhh-long"})
# (kind, argument) that lets others run code: of another folder, or of the cluster at an address.
_CODE_ARGUMENTS = frozenset({("guarded", "trust_code"), ("pool", "address")})
# Suffixes of files in a model folder that run code when they are loaded: modules and pickles.
_CODE_SUFFIXES = frozenset({".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
_MAX_CONFIG_BYTES = 1_000_000


class CodeUse(Struct, frozen=True):
    """Something in a configuration that needs trust: its ``file:line``, and what it does."""

    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


def find_code_uses(config: RailsConfig) -> list[CodeUse]:
    """Returns all that a configuration would run or read beyond its own data; [] for pure data."""
    uses = [CodeUse(f"{_relative_name(config, file)}:1", "Python code") for file in config.code]
    uses += [CodeUse(place, what) for place, what in config.outside]
    for key, role, spec in iterate_specs(config):
        uses += [
            CodeUse(_locate(config, key), what) for what in _find_spec_uses(spec, role, config)
        ]
    for index, entry in enumerate(config.models):
        address = find_address(entry.engine, entry.parameters)
        fault = find_key_fault(entry.api_key_env_var, address, config)
        if fault is not None and entry.engine != TRUING_ENGINE:
            uses.append(CodeUse(_locate(config, f"models.{index}.api_key_env_var"), fault))
    uses += _find_service_uses(config)
    gliner = read_gliner_path(config)
    if gliner is not None:
        place = _locate(config, ".".join(GLINER_KEY))
        uses += [CodeUse(place, what) for what in _find_folder_uses(gliner)]
    uses += [
        CodeUse(_locate(config, "tracing.adapters"), f"appends traces to the file {file}")
        for file in list_trace_files(config.raw)
    ]
    return uses


def _find_service_uses(config: RailsConfig) -> Iterator[CodeUse]:
    """Yields the keys that the configuration would send to the services of its rails."""
    try:
        addresses = find_service_addresses(config)
    except PlanError:
        return  # nothing is sent: whoever builds the services says what is wrong
    for address in addresses:
        fault = find_key_fault(address.variable, address.url, config)
        if fault is not None and not address.is_key_optional:
            yield CodeUse(_locate(config, address.key), fault)


def require_trusted_code(config: RailsConfig) -> None:
    """Raises PlanError with all that would run, unless the configuration is trusted or pure data.

    Everything that runs code or resolves specs for a configuration calls this first.
    """
    if config.trust_code:
        return
    uses = find_code_uses(config)
    if uses:
        raise PlanError(
            *(f"{use}; it needs the operator's trust" for use in uses),
            f"{config.path or 'config'}: not trusted. If you trust all of the above, pass "
            "--trust-code (in Python trust_code=True; in a spec guarded:DIR,trust_code=true)",
        )


def resolve_configured_spec(
    config: RailsConfig, spec: str | Spec, role: RoleName, **objects: Any
) -> Any:
    """Builds the object of a spec that the configuration names, if the configuration is trusted or
    pure data. No other function resolves the specs of a configuration. `objects` are arguments
    that are objects already, such as `model=`.
    """
    require_trusted_code(config)
    # Also a spec that was not in the list above: the rule holds for what is really built.
    uses = [] if config.trust_code else list(_find_spec_uses(spec, role, config))
    if uses:
        raise PlanError(*(f"{config.path or 'config'}: {what}" for what in uses))
    if config.trust_code:
        return resolve(spec, role, **objects)
    # Also what a builder reads without an argument of the spec.
    with allow_key_variables((*VENDOR_HOSTS, *_allowed_variables(config))):
        return resolve(spec, role, **objects)


# -- specs -------------------------------------------------------------------------------------


def iterate_specs(config: RailsConfig) -> Iterator[tuple[str, RoleName, str | Spec]]:
    """Yields (YAML key, role, spec) of each spec in the YAML, and of the service that it names."""
    for index, entry in enumerate(config.models):
        if entry.engine == TRUING_ENGINE:
            yield f"models.{index}.model", "model", entry.model
    for path in (
        ("moderation",),
        ("moderation", "input"),
        ("moderation", "output"),
        ("self_harm",),
        ("jailbreak",),
    ):
        block: Any = config.truing
        for key in path:
            block = block.get(key) if isinstance(block, dict) else None
        if isinstance(block, dict) and block.get("judge"):
            yield ".".join(("truing", *path, "judge")), "judge", str(block["judge"])
    service = make_jailbreak_spec(config)
    if service is not None:
        key = "api_key_env_var" if "api_key_env" in service.reveal_values() else "nim_base_url"
        yield f"rails.config.{JAILBREAK_BLOCK}.{key}", "judge", service


def _find_spec_uses(spec: str | Spec, role: RoleName, config: RailsConfig) -> Iterator[str]:
    """Yields what in a spec, and in those that it contains, needs trust."""
    try:
        parsed = parse_spec(spec) if isinstance(spec, str) else spec
    except SpecError:
        return  # cannot be built: whoever resolves it says why
    is_data = parsed.kind in BUILDERS[role] and parsed.kind in _DATA_KINDS | _MODEL_KINDS
    if not is_data and _is_kind(parsed.kind, role):
        yield f"the spec {str(parsed)!r} runs Python code"
    for key, argument in parsed.reveal_values().items():
        if (parsed.kind, key) in _CODE_ARGUMENTS:
            yield f"the spec {str(parsed)!r} runs the code of another place by {key}="
        elif (parsed.kind, key) in _FOLDER_ARGUMENTS and isinstance(argument, str):
            yield from _find_folder_uses(argument)
        elif (parsed.kind, key) in _FILE_ARGUMENTS and isinstance(argument, str):
            yield from _find_file_uses(argument, config)
        elif key.endswith("_env") and isinstance(argument, str):
            fault = find_key_fault(argument, _spec_address(parsed), config)
            if fault is not None:
                yield fault
        elif key:
            yield from _find_argument_uses(argument, config)


def _find_argument_uses(value: str | Spec, config: RailsConfig) -> Iterator[str]:
    """Yields the uses of a nested spec. It may also be a bare text, in any argument and role."""
    for role in ("model", "judge"):
        try:
            parsed = parse_spec(value) if isinstance(value, str) else value
        except SpecError:
            return
        # `base_url=https://host` reads as a spec of the kind https, which does not exist.
        if _is_kind(parsed.kind, role):
            yield from _find_spec_uses(parsed, role, config)


@cache
def _plugin_kinds(role: RoleName) -> frozenset[str]:
    # Cached: the search through all installed distributions takes a tenth of a second.
    return frozenset(list_kinds(role)) - frozenset(BUILDERS[role])


def _is_kind(kind: str, role: RoleName) -> bool:
    return kind in BUILDERS[role] or kind in _plugin_kinds(role)


def _find_folder_uses(name: str) -> Iterator[str]:
    """Yields what a model folder would run: its modules, pickles and classes of its own."""
    folder = Path(name).expanduser()
    if not name or not folder.is_dir():
        return
    files = sorted(f.name for f in folder.iterdir() if f.suffix.lower() in _CODE_SUFFIXES)
    if files:
        yield f"the model folder {name} holds code or pickles: {', '.join(files[:5])}"
    for config_name in ("config.json", "tokenizer_config.json", "processor_config.json"):
        file = folder / config_name
        if file.is_file() and file.stat().st_size <= _MAX_CONFIG_BYTES:
            try:
                fields = json.loads(file.read_bytes())
            except (ValueError, OSError, RecursionError):
                continue
            if isinstance(fields, dict) and fields.get("auto_map"):
                yield f"the model folder {name} names its own classes (auto_map in {config_name})"


def _find_file_uses(name: str, config: RailsConfig) -> Iterator[str]:
    """Yields a file outside the folder whose text the configuration would read."""
    if name and name not in _BUILT_IN_PREFIXES and not is_inside(Path(name).expanduser(), config):
        kind = "folder" if Path(name).expanduser().is_dir() else "file"
        yield f"reads the {kind} {name}, which is outside the folder"


def is_inside(path: Path, config: RailsConfig) -> bool:
    """Returns whether a path, with its links followed, is in the configuration's folder."""
    root = Path(config.path)
    root = root if root.is_dir() else root.parent
    return bool(config.path) and path.resolve().is_relative_to(root.resolve())


# -- keys --------------------------------------------------------------------------------------


def find_key_fault(variable: str | None, address: str, config: RailsConfig) -> str | None:
    """Returns why an untrusted configuration may not send a variable to an address, or None.

    A vendor's variable may go to the vendor over https, and those that the operator lists
    (``--allow-key-env``, or `TRUING_RAILS_KEY_VARIABLES`) anywhere.
    """
    if variable is None:
        return None
    if variable in _allowed_variables(config) or is_vendor_address(variable, address):
        return None
    host = urlsplit(address).hostname or address
    return (
        f"sends the environment variable {variable} to {host} (to allow it, pass "
        f"--allow-key-env {variable}, or list it in {VARIABLES_SETTING})"
    )


def _allowed_variables(config: RailsConfig) -> frozenset[str]:
    listed = os.environ.get(VARIABLES_SETTING, "").split(",")
    return frozenset((*config.key_variables, *(name.strip() for name in listed)))


def _spec_address(spec: Spec) -> str:
    """Returns the address of an endpoint's spec: its `base_url`, or the URL in an `http:` spec."""
    values = spec.reveal_values()
    if spec.kind == "http":
        name = str(values[""])
        return name if "://" in name else f"http://{name.lstrip('/')}"
    base_url = values.get("base_url", OPENAI_ADDRESS)
    return base_url if isinstance(base_url, str) else ""


# -- places ------------------------------------------------------------------------------------


def _locate(config: RailsConfig, key: str) -> str:
    """Returns the place of a YAML key, or of the closest key above it that has a line."""
    while key and ("key", key) not in config.locations:
        key = key.rpartition(".")[0]
    return config.locate("key", key)


def _relative_name(config: RailsConfig, file: str) -> str:
    root, path = Path(config.path), Path(file)
    return str(path.relative_to(root)) if path.is_relative_to(root) else file
