"""Optional dependencies: which extra installs which package, and the error without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from truing.core.errors import MissingExtra

EXTRA_BY_PACKAGE = {
    "torch": "local",
    "transformers": "local",
    "safetensors": "local",
    "gguf": "local",
    "accelerate": "local",
    "onnxruntime": "local",
    "onnx": "local",
    "peft": "train",
    "tensorboard": "train",
    "wandb": "wandb",
    "trackio": "trackio",
    "litestar": "serve",
    "uvicorn": "serve",
    "sqlalchemy": "serve",
    "alembic": "serve",
    "argon2": "serve",
    "psycopg": "serve",
    "prometheus_client": "serve",
    "vllm": "vllm",
    "ray": "ray",
    "redis": "redis",
    "huggingface_hub": "hub",
    "pyarrow": "hub",
    "pandas": "notebook",
    "playwright": "pdf",
    "presidio_analyzer": "presidio",
    "yara": "yara",
    "gliner": "gliner",
    "opentelemetry": "otel",
    "mcp": "mcp",
    "agentdojo": "agentdojo",
    "langchain": "langchain",
    "langchain_core": "langchain",
    "langgraph": "langchain",
    "litellm": "litellm",
    "agents": "openai-agents",
}
"""Top-level package, as an import error names it -> the extra that installs it."""


@contextmanager
def needs_extra(feature: str, extra: str | None = None) -> Iterator[None]:
    """Raises MissingExtra, with the install line, if an import in the block lacks a package.

        with needs_extra("truing serve", "serve"):
            import uvicorn

    Without `extra`, the one that installs the missing package is named. A feature that needs
    several packages names its own, so that one installation suffices. An import error of any other
    package passes through: it is a bug, not a missing extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package_extra = EXTRA_BY_PACKAGE.get((error.name or "").split(".")[0])
        if package_extra is None:
            raise
        raise MissingExtra(extra or package_extra, f"{feature} (package {error.name})") from error
