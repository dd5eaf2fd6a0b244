"""Runs of scripted models, made by the command line."""

from __future__ import annotations

from pathlib import Path

from tests.cli.command_line import run_truing


def evaluate_scripted(out: Path, model: str, *flags: object) -> Path:
    """Runs `scripted:MODEL` on the built-in safety set with two rule judges; returns the run folder."""
    run_truing(
        "evaluate --data builtin:safety --judge rules:refusal rules:degenerate",
        "--model",
        f"scripted:{model}",
        "--out",
        out,
        *flags,
    )
    return out
