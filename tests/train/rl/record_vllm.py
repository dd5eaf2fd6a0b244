"""Records the signatures of vLLM that the generator relies on, from released wheels.

pip download --no-deps vllm==VERSION
python tests/train/rl/record_vllm.py vllm-*.whl > tests/train/rl/vllm_signatures.json

The sources are parsed and not imported: vLLM needs a GPU to import, and its wheel is large.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from typing import Any
from zipfile import ZipFile

# Class -> (file in the wheel, its methods; none for the fields of the class)
CLASSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "LLM": (
        "vllm/entrypoints/llm.py",
        ("__init__", "generate", "collective_rpc", "reset_prefix_cache", "sleep", "wake_up"),
    ),
    "EngineArgs": ("vllm/engine/arg_utils.py", ()),
    "SamplingParams": ("vllm/sampling_params.py", ()),
    "LoRARequest": ("vllm/lora/request.py", ()),
    "CompletionRequest": ("vllm/entrypoints/openai/completion/protocol.py", ()),
    "LoadLoRAAdapterRequest": ("vllm/entrypoints/serve/lora/protocol.py", ()),
    "UnloadLoRAAdapterRequest": ("vllm/entrypoints/serve/lora/protocol.py", ()),
    "WorkerBase": ("vllm/v1/worker/worker_base.py", ("get_model",)),
}
# Name of a type of literals -> file
LITERALS = {
    "LogprobsMode": "vllm/config/model.py",
    "DistributedExecutorBackend": "vllm/config/parallel.py",
}
ENVIRONMENT = ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_ALLOW_RUNTIME_LORA_UPDATING")


def record(wheel: ZipFile) -> dict[str, Any]:
    def parse(path: str) -> list[ast.stmt]:
        return ast.parse(wheel.read(path)).body

    return {
        "classes": {
            name: record_class(find_class(parse(path), name), methods)
            for name, (path, methods) in CLASSES.items()
        },
        "literals": {name: find_literals(parse(path), name) for name, path in LITERALS.items()},
        "environment": [
            name for name in ENVIRONMENT if name in wheel.read("vllm/envs.py").decode()
        ],
    }


def find_class(body: list[ast.stmt], name: str) -> ast.ClassDef:
    return next(node for node in body if isinstance(node, ast.ClassDef) and node.name == name)


def record_class(node: ast.ClassDef, methods: tuple[str, ...]) -> dict[str, list[str]]:
    """Returns the parameters of methods, or {"fields": names} without any."""
    if not methods:
        fields = [
            part.target.id
            for part in node.body
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        ]
        return {"fields": fields}
    return {
        part.name: list(parameter_names(part.args))
        for part in node.body
        if isinstance(part, ast.FunctionDef) and part.name in methods
    }


def parameter_names(arguments: ast.arguments) -> Iterator[str]:
    names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    yield from (parameter.arg for parameter in names if parameter.arg != "self")
    if arguments.kwarg:
        yield f"**{arguments.kwarg.arg}"


def find_literals(body: list[ast.stmt], name: str) -> list[str]:
    for node in body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
    raise LookupError(name)


if __name__ == "__main__":
    versions = {}
    for path in sorted(sys.argv[1:]):
        with ZipFile(path) as wheel:
            versions[path.rpartition("/")[2].split("-")[1]] = record(wheel)
    json.dump(versions, sys.stdout, indent=1)
    print()
