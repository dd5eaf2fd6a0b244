"""Writes a conformance case as a configuration folder, and compares what two runtimes say."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def actions_source(actions: dict[str, Any], prelude: str) -> str:
    """The text of ``actions.py`` for declared actions."""
    out = [prelude, ""]
    for at, (name, spec) in enumerate(actions.items()):
        params = ", ".join(
            k if v == "<required>" else f"{k}={v!r}" for k, v in spec.get("params", {}).items()
        )
        out += [f"@action(name={name!r})", f"async def _action_{at}({params}):"]
        if "raises" in spec:
            out.append(f"    raise Exception({spec['raises']!r})")
        elif "context_updates" in spec:
            updates = (
                "{" + ", ".join(f"{k!r}: ({e})" for k, e in spec["context_updates"].items()) + "}"
            )
            value = spec.get("returns", "None")
            out.append(
                f"    return ActionResult(return_value=({value}), context_updates={updates})"
            )
        else:
            out.append(f"    return {spec.get('returns', 'None')}")
        out.append("")
    return "\n".join(out)


def write_config(case: dict[str, Any], folder: str | Path, prelude: str) -> None:
    """Writes the case's files."""
    for name, text in case["files"].items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if case.get("actions"):
        (Path(folder) / "actions.py").write_text(
            actions_source(case["actions"], prelude), encoding="utf-8"
        )


def difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str | None:
    """What differs between two results of one case, or none. The kinds of error need not be the same."""
    if "slow" in theirs:
        return None
    if "list index out of range" in theirs.get("refused", "") or "list index out of range" in str(
        theirs.get("said")
    ):
        return None  # NeMo's parser or runtime falls over
    if "refused" in theirs or "refused" in ours:
        if ("refused" in theirs) == ("refused" in ours):
            return None
        return f"refused: {theirs.get('refused')!r} / {ours.get('refused')!r}"
    a = ["RAISES" if s.startswith("RAISES") else s for s in map(str, theirs["said"])]
    b = ["RAISES" if s.startswith("RAISES") else s for s in map(str, ours["said"])]
    if a != b:
        return f"said: {theirs['said']} / {ours['said']}"
    return (
        None if theirs["tasks"] == ours["tasks"] else f"calls: {theirs['tasks']} / {ours['tasks']}"
    )
