"""The names under which existing ``actions.py`` files import from nemoguardrails, filled with truing's own."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from truing.core.errors import PlanError
from truing.rails import actions
from truing.rails.config import loader
from truing.rails.runtime import prompt_filters
from truing.rails.runtime.llm_client import Llm, Reply


async def llm_call(
    llm: Llm | None,
    prompt: str | Sequence[dict[str, Any]],
    model_name: str | None = None,
    model_provider: str | None = None,
    stop: Sequence[str] | None = None,
    llm_params: dict[str, Any] | None = None,
    **_: Any,
) -> Reply:
    """One call of the LLM that an action was given."""
    if llm is None:
        raise ValueError("no LLM was given")
    return await llm(prompt, stop=stop, **(llm_params or {}))


def _module(name: str, **names: Any) -> ModuleType:
    made = ModuleType(name, "truing's own, under NeMo's name")
    vars(made).update(names)
    made.__path__ = []
    return made


def modules() -> dict[str, ModuleType]:
    """Module name -> module."""
    own: dict[str, Any] = {
        "action": actions.action,
        "ActionResult": actions.ActionResult,
        "RailOutcome": actions.RailOutcome,
    }
    utils = {
        "llm_call": llm_call,
        "get_multiline_response": prompt_filters.message_text,
        "strip_quotes": prompt_filters.unquoted,
        "get_first_nonempty_line": prompt_filters.first_line,
        "get_colang_history": prompt_filters.colang,
    }
    made = {
        "nemoguardrails": {"RailsConfig": loader.RailsConfig, **own},
        "nemoguardrails.actions": own,
        "nemoguardrails.actions.actions": own,
        "nemoguardrails.actions.rail_outcome": own,
        "nemoguardrails.actions.llm": {},
        "nemoguardrails.actions.llm.utils": utils,
        "nemoguardrails.llm": {},
        "nemoguardrails.llm.call": utils,
        "nemoguardrails.llm.completion_parsing": utils,
        "nemoguardrails.rails": {"RailsConfig": loader.RailsConfig},
        "nemoguardrails.rails.llm": {},
        "nemoguardrails.rails.llm.config": {"RailsConfig": loader.RailsConfig},
    }
    found = {name: _module(name, **names) for name, names in made.items()}
    for name, module in found.items():
        parent, _, leaf = name.rpartition(".")
        if parent:
            setattr(found[parent], leaf, module)
    return found


def load_code(files: Iterable[str], *, nemo_alias: bool = False) -> dict[str, Any]:
    """Imports a folder's Python files and gives its actions by name, and ``init`` functions as ``init:FILE``."""
    found: dict[str, Any] = {}
    with alias() if nemo_alias else contextlib.nullcontext():
        for at, file in enumerate(files):
            module = _import(Path(file), at)
            if Path(file).name == "config.py":
                if callable(getattr(module, "init", None)):
                    found[f"init:{file}"] = module.init
                continue
            for value in vars(module).values():
                meta = getattr(value, "action_meta", None)
                if meta and (inspect.isfunction(value) or inspect.isclass(value)):
                    found[meta["name"]] = value
    return found


def _import(path: Path, at: int) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"truing_rails_code_{at}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise PlanError(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        line = _line(error, path)
        hint = ""
        if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith(
            "nemoguardrails"
        ):
            hint = "; set truing: {library: {nemo_alias: true}} in config.yml to run it unchanged"
        raise PlanError(f"{path.name}:{line}: {type(error).__name__}: {error}{hint}") from error
    return module


def _line(error: BaseException, path: Path) -> int:
    if isinstance(error, SyntaxError) and error.lineno:
        return error.lineno
    trace, line = error.__traceback__, 1
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


@contextlib.contextmanager
def alias() -> Iterator[None]:
    """For the time of an import, ``nemoguardrails`` and the modules that actions import are truing's."""
    made = modules()
    before = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = old
