"""Imports the Python files of a configuration folder, also those written for NeMo Guardrails.

``from nemoguardrails.actions import action`` in an existing ``actions.py`` gets truing's own
decorator, unless ``truing: {library: {nemo_alias: false}}`` is set. The alias lasts only for the
import; NeMo Guardrails itself is neither needed nor touched.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from truing.core.errors import PlanError
from truing.rails import actions
from truing.rails.config import loader
from truing.rails.config.trust import require_trusted_code
from truing.rails.runtime import prompt_filters
from truing.rails.runtime.knowledge_base import KnowledgeBase
from truing.rails.runtime.llm_client import LlmClient, LlmReply
from truing.rails.runtime.prompts import PromptManager
from truing.rails.runtime.search_providers import EmbeddingsIndex, IndexItem


async def llm_call(
    llm: LlmClient | None,
    prompt: str | Sequence[dict[str, Any]],
    model_name: str | None = None,
    model_provider: str | None = None,
    stop: Sequence[str] | None = None,
    llm_params: dict[str, Any] | None = None,
    **_: Any,
) -> LlmReply:
    """Calls the LLM that an action got; NeMo's `llm_call` with its signature."""
    if llm is None:
        raise ValueError("no LLM was given")
    return await llm(prompt, stop=stop, **(llm_params or {}))


class LLMRails:
    """What `init(app)` of a config.py gets, for its annotation: `Runtime`, with these methods.

    `register_action`, `register_action_param`, `register_prompt_context`,
    `register_output_parser`, `register_embedding_provider`, `register_embedding_search_provider`.
    """


def register_llm_provider(name: str, provider: Any) -> None:
    """Raises PlanError: LangChain models of a configuration are not supported."""
    raise PlanError(
        f"register_llm_provider({name!r}): the models of truing are named under models: "
        "(engine: truing takes any spec, such as python:FILE)"
    )


def _make_module(name: str, attributes: dict[str, Any]) -> ModuleType:
    module = ModuleType(name, "truing's implementation under NeMo's name")
    vars(module).update(attributes)
    module.__path__ = []  # marks it as a package, so that its submodules can be imported
    return module


def nemo_modules() -> dict[str, ModuleType]:
    """Returns the modules that stand in for NeMo's, by name."""
    action_names: dict[str, Any] = {
        "action": actions.action,
        "ActionResult": actions.ActionResult,
        "RailOutcome": actions.RailOutcome,
    }
    utils = {
        "llm_call": llm_call,
        "get_multiline_response": prompt_filters.extract_bot_message,
        "strip_quotes": prompt_filters.strip_quotes,
        "get_first_nonempty_line": prompt_filters.first_nonempty_line,
        "get_colang_history": prompt_filters.render_colang,
    }
    embeddings = {"EmbeddingsIndex": EmbeddingsIndex, "IndexItem": IndexItem}
    config = {"RailsConfig": loader.RailsConfig}
    rails = {**config, "LLMRails": LLMRails}
    providers = {"register_llm_provider": register_llm_provider}
    attributes: dict[str, dict[str, Any]] = {
        "nemoguardrails": {**rails, **action_names},
        "nemoguardrails.actions": action_names,
        "nemoguardrails.actions.actions": action_names,
        "nemoguardrails.actions.rail_outcome": action_names,
        "nemoguardrails.actions.llm": {},
        "nemoguardrails.actions.llm.utils": utils,
        "nemoguardrails.llm": {},
        "nemoguardrails.llm.call": utils,
        "nemoguardrails.llm.completion_parsing": utils,
        "nemoguardrails.llm.providers": providers,
        "nemoguardrails.llm.taskmanager": {"LLMTaskManager": PromptManager},
        "nemoguardrails.embeddings": {},
        "nemoguardrails.embeddings.index": embeddings,
        "nemoguardrails.embeddings.providers": {},
        "nemoguardrails.embeddings.providers.base": {"EmbeddingModel": object},
        "nemoguardrails.kb": {},
        "nemoguardrails.kb.kb": {"KnowledgeBase": KnowledgeBase},
        "nemoguardrails.rails.llm.llmrails": rails,
        "nemoguardrails.rails": rails,
        "nemoguardrails.rails.llm": {},
        "nemoguardrails.rails.llm.config": config,
    }
    modules = {name: _make_module(name, values) for name, values in attributes.items()}
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    return modules


@contextlib.contextmanager
def nemo_import_alias() -> Iterator[None]:
    """Makes ``import nemoguardrails`` find truing's modules while the context is active."""
    modules = nemo_modules()
    previous = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in previous.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def load_config_code(config: loader.RailsConfig, *, nemo_alias: bool = False) -> dict[str, Any]:
    """Imports a folder's Python files; returns actions by name, `init` functions as ``init:FILE``.

    Raises PlanError if the configuration is not trusted, or with file and line if an import fails.
    """
    require_trusted_code(config)
    loaded: dict[str, Any] = {}
    with nemo_import_alias() if nemo_alias else contextlib.nullcontext():
        for index, file in enumerate(config.code):
            module = _import_file(Path(file), index)
            if Path(file).name == "config.py":
                if callable(getattr(module, "init", None)):
                    loaded[f"init:{file}"] = partial(_call_init, module.init, Path(file))
                continue
            for value in vars(module).values():
                meta = getattr(value, "action_meta", None)
                if meta and (inspect.isfunction(value) or inspect.isclass(value)):
                    loaded[meta["name"]] = value
    return loaded


def _call_init(init: Any, path: Path, app: Any) -> None:
    """Calls `init(app)`; raises PlanError with its line for whatever it raises."""
    try:
        init(app)
    except PlanError:
        raise
    except (Exception, SystemExit) as error:
        line = _error_line(error, path)
        raise PlanError(f"{path.name}:{line}: {type(error).__name__}: {error}") from error


def _import_file(path: Path, index: int) -> ModuleType:
    # The index keeps files of the same name apart.
    spec = importlib.util.spec_from_file_location(f"truing_rails_code_{index}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise PlanError(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        is_nemo_import = isinstance(error, ModuleNotFoundError) and (error.name or "").startswith(
            "nemoguardrails"
        )
        hint = ""
        if is_nemo_import:
            hint = "; set truing: {library: {nemo_alias: true}} in config.yml to run it unchanged"
        line = _error_line(error, path)
        raise PlanError(f"{path.name}:{line}: {type(error).__name__}: {error}{hint}") from error
    return module


def _error_line(error: BaseException, path: Path) -> int:
    """Returns the last line of the file that the traceback passes through."""
    if isinstance(error, SyntaxError) and error.lineno:
        return error.lineno
    line = 1
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
