"""The adapters under ``tracing:``, to which the traces of turns are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from truing.core.errors import did_you_mean

DEFAULT_TRACE_FILE = "./.traces/trace.jsonl"  # NeMo's
TRACE_ADAPTER_NAMES = ("FileSystem", "OpenTelemetry")


def list_trace_adapters(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the adapters of a configuration's YAML with their names; [] if tracing is off.

    Without a list there is one, `FileSystem`, as in NeMo Guardrails.
    """
    tracing = raw.get("tracing") or {}
    if not tracing.get("enabled"):
        return []
    adapters = tracing.get("adapters")
    rows: list[dict[str, Any]] = [{}] if adapters is None else adapters
    return [{**row, "name": str(row.get("name") or TRACE_ADAPTER_NAMES[0])} for row in rows]


def list_trace_files(raw: Mapping[str, Any]) -> list[str]:
    """Returns the files that the adapters of a configuration's YAML append to."""
    return [
        str(adapter.get("filepath") or DEFAULT_TRACE_FILE)
        for adapter in list_trace_adapters(raw)
        if adapter["name"] == "FileSystem"
    ]


def find_adapter_faults(raw: Mapping[str, Any]) -> Iterator[str]:
    """Yields a fault for each adapter that truing does not have."""
    for adapter in list_trace_adapters(raw):
        if adapter["name"] not in TRACE_ADAPTER_NAMES:
            hint = did_you_mean(adapter["name"], TRACE_ADAPTER_NAMES)
            yield f"there is no tracing adapter {adapter['name']!r}{hint}"
