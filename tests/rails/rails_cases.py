"""Writes a conformance case as a configuration folder, and compares the results of two runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def build_actions_source(actions: dict[str, Any], prelude: str) -> str:
    """Returns the text of an ``actions.py`` with the actions that a case declares."""
    lines = [prelude, ""]
    for index, (name, spec) in enumerate(actions.items()):
        parameters = ", ".join(
            parameter if default == "<required>" else f"{parameter}={default!r}"
            for parameter, default in spec.get("params", {}).items()
        )
        lines += [f"@action(name={name!r})", f"async def _action_{index}({parameters}):"]
        result = spec.get("returns", "None")
        if "raises" in spec:
            lines.append(f"    raise Exception({spec['raises']!r})")
        elif "context_updates" in spec:
            updates = ", ".join(
                f"{variable!r}: ({expression})"
                for variable, expression in spec["context_updates"].items()
            )
            lines.append(
                f"    return ActionResult(return_value=({result}), context_updates={{{updates}}})"
            )
        else:
            lines.append(f"    return {result}")
        lines.append("")
    return "\n".join(lines)


def write_config(case: dict[str, Any], folder: str | Path, prelude: str) -> None:
    """Writes the files of a case."""
    for name, text in case["files"].items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if case.get("actions"):
        source = build_actions_source(case["actions"], prelude)
        (Path(folder) / "actions.py").write_text(source, encoding="utf-8")


def describe_difference(peer: dict[str, Any], truing: dict[str, Any]) -> str | None:
    """Returns how two results of one case differ; None if they agree.

    Where both refuse or both raise, the kinds of error need not be the same.
    """
    if "slow" in peer:
        return None
    crash = "list index out of range"
    if crash in peer.get("refused", "") or crash in str(peer.get("replies")):
        return None  # an internal error of NeMo's parser or runtime
    if "refused" in peer or "refused" in truing:
        if ("refused" in peer) == ("refused" in truing):
            return None
        return f"refused: {peer.get('refused')!r} / {truing.get('refused')!r}"
    if _without_error_kinds(peer["replies"]) != _without_error_kinds(truing["replies"]):
        return f"replies: {peer['replies']} / {truing['replies']}"
    if peer["tasks"] != truing["tasks"]:
        return f"LLM calls: {peer['tasks']} / {truing['tasks']}"
    return None


def _without_error_kinds(replies: list[Any]) -> list[str]:
    return ["RAISES" if str(reply).startswith("RAISES") else str(reply) for reply in replies]
