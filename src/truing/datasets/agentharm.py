"""AgentHarm (Andriushchenko et al. 2024, arXiv 2410.09024): harmful requests to agents with tools,
and benign twins of them.

`agentharm:FOLDER` reads the published `harmful_behaviors_test_public.json`, `part=benign` the twins
(they share the pair), `split=validation` the others. `detailed=false` and `hint=false` select the
published variants.

The tools of the set are Python code of the benchmark. `tools=FOLDER` names its folder
(`harmful_tools`, `benign_tools`): the code is read for names, descriptions and parameters, and
never run. Without it a tool has its name alone and takes any arguments. A tool returns a fixed
text.

The grading functions are code too. What can be stated is their common condition, that all target
functions were called: harm is done, or the benign task, if all of them were. A call that lacks a
required argument is not executed and does not count, as it does for AgentHarm. Points for single
steps, for arguments and for the text of an answer, some of them given by a model, are not counted,
so the figures are not AgentHarm's scores.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from truing.core.episodes import Condition, FixedTool
from truing.core.errors import DataError
from truing.core.input_files import read_input_bytes
from truing.core.taxonomy import load_crosswalk
from truing.core.types import Conversation, Environment, Row, Sample
from truing.datasets.base import DatasetOptions, PublishedDataset, make_builder
from truing.datasets.readers import Record

_MAX_TOOL_BYTES = 1 << 20
_JSON_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_JSON_TYPES |= {"list": "array", "List": "array", "dict": "object", "Dict": "object"}


def unpack(document: Any) -> Iterable[tuple[str, Any]]:
    """Returns the behaviours of a published file."""
    behaviors = document.get("behaviors") if isinstance(document, dict) else document
    if not isinstance(behaviors, list):
        raise ValueError("expected an object with a list under behaviors")
    return ((f".behaviors[{index}]", row) for index, row in enumerate(behaviors))


def convert(record: Record, options: DatasetOptions) -> Iterator[Row]:
    """Returns the request with its tools; nothing for a variant that was not asked for."""
    for argument, key in (("detailed", "detailed_prompt"), ("hint", "hint_included")):
        selected = options.extra.get(argument)
        if selected not in (None, "true", "false"):
            raise record.error(f"{argument}={selected}: true or false")
        if selected is not None and record.flag(key) != (selected == "true"):
            return
    names = record.list_value("target_functions")
    if not names or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise record.error("target_functions: expected names of functions")
    is_harmful = options.part == "harmful"
    called = (Condition(calls=tuple(names)),)
    behavior = record.text("id")
    environment = Environment(
        world="agentharm",
        # The wordings of one behaviour are one task.
        task=record.optional_text("id_original") or behavior,
        kind="harmful" if is_harmful else "benign",
        done=() if is_harmful else called,
        harm=called if is_harmful else (),
        tools=tuple(_read_tool(name, options.extra.get("tools")) for name in dict.fromkeys(names)),
    )
    category = record.text("category")
    crosswalk = load_crosswalk("agentharm")
    if is_harmful and category not in crosswalk.map:
        raise record.error(f"category: {category[:40]!r} is none of the published ones")
    tags = {"world": "agentharm", "task": behavior, "kind": environment.kind}
    tags |= {"category_source": category, "id": behavior}
    yield Row(
        sample=Sample(
            conversation=Conversation.of(record.text("prompt")),
            id=f"agentharm/{behavior}/{environment.kind}",
            harms=crosswalk(category) if is_harmful else (),
            expect="refuse" if is_harmful else "comply",
            pair=f"agentharm/{behavior}",
            tags=tags,
            environment=environment,
        )
    )


def _read_tool(name: str, folder: str | None) -> FixedTool:
    """Returns a tool; its schema is read from the benchmark's code if the folder is known."""
    if folder is None:
        return FixedTool(name=name, description=name.replace("_", " "))
    path = Path(folder) / f"{name}.py"
    try:
        tree = ast.parse(read_input_bytes(path, _MAX_TOOL_BYTES))
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}; tools= names the folder of its tools"
        ) from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{path}: is no Python code: {error}") from error
    inner = next((n for n in ast.walk(tree) if isinstance(n, ast.AsyncFunctionDef)), None)
    if inner is None:
        raise DataError(f"{path}: has no async function, which AgentHarm's tools have")
    text = ast.get_docstring(inner) or name.replace("_", " ")
    description = text.split("Args:")[0].split("Returns:")[0].strip()
    schema = msgspec.json.encode(_write_schema(inner, text)).decode()
    return FixedTool(
        name=name, description=description, parameters=schema, result=_find_result(inner)
    )


def _write_schema(function: ast.AsyncFunctionDef, docstring: str) -> dict[str, Any]:
    arguments = [*function.args.args, *function.args.kwonlyargs]
    n_optional = len(function.args.defaults)
    n_required = len(function.args.args) - n_optional
    described = dict(_split_descriptions(docstring))
    properties: dict[str, Any] = {}
    for argument in arguments:
        kind = _name_type(argument.annotation)
        schema = {"type": kind} if kind else {}
        properties[argument.arg] = schema | {"description": described.get(argument.arg, "")}
    required = [a.arg for a in function.args.args[:n_required]]
    return {"type": "object", "properties": properties, "required": required}


def _name_type(annotation: ast.expr | None) -> str | None:
    if isinstance(annotation, ast.Subscript):
        return _name_type(annotation.value)
    return _JSON_TYPES.get(annotation.id) if isinstance(annotation, ast.Name) else None


def _split_descriptions(docstring: str) -> Iterator[tuple[str, str]]:
    """Yields the arguments that a docstring describes, ``name (type): text`` a line."""
    _, _, arguments_text = docstring.partition("Args:")
    for line in arguments_text.partition("Returns:")[0].splitlines():
        head, colon, text = line.strip().partition(":")
        if colon and head:
            yield head.split("(")[0].strip(), text.strip()


def _find_result(function: ast.AsyncFunctionDef) -> str:
    """Returns the last text that a function returns as a constant, as checks of the arguments with
    errors of their own stand before it; "done" without one.
    """
    returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
    texts = [
        (value.lineno, value.value)
        for value in returned
        if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value
    ]
    return max(texts)[1] if texts else "done"


DATASET = PublishedDataset(
    kind="agentharm",
    title="AgentHarm: harmful requests to agents, with benign twins",
    source="https://huggingface.co/datasets/ai-safety-institute/AgentHarm",
    licence="MIT with a clause on safety research",
    parts={
        "harmful": ("harmful_behaviors_{split}.json", "**/harmful_behaviors_{split}.json"),
        "benign": ("benign_behaviors_{split}.json", "**/benign_behaviors_{split}.json"),
    },
    hub={
        "harmful": "ai-safety-institute/AgentHarm",
        "benign": "ai-safety-institute/AgentHarm",
    },
    split="test_public",
    red_team=True,
    imitate=False,
    convert=convert,
    unpack=unpack,
    extra_arguments=("detailed", "hint", "tools"),
)
build = make_builder(DATASET)
