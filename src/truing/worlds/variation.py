"""Worlds that differ by a seed: values that are drawn, in rows, tasks and checks alike.

    [vary]
    concert_time = ["19:00", "18:30", "20:15"]

    [tables.inbox]
    rows = [{ id = "m1", from = "choir@example.org", body = "The concert is at {{concert_time}}." }]

    [[task]]
    prompt = "When is the concert?"
    done = [{ says = "{{concert_time}}" }]

An agent that knows a shipped world by heart fails in its variants. Seed 0 takes the first values.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

from truing.core.errors import DataError, did_you_mean

_PLACEHOLDER = re.compile(r"\{\{([a-z][a-z0-9_]*)\}\}")


def draw_values(document: dict[str, Any], source: str, seed: int) -> dict[str, Any]:
    """Returns a world file's content without `vary`, each ``{{name}}`` replaced by the value that
    `seed` draws.

    A text that is one placeholder becomes the value itself, which may be a number. Raises DataError
    for values that are no list, and for names that do not exist.
    """
    varied = document.get("vary", {})
    content = {key: value for key, value in document.items() if key != "vary"}
    values, faults = _draw(varied, seed), list(_find_faults(varied))
    unknown: set[str] = set()
    if not faults:
        content = _replace(content, values, unknown)
    faults += [f"{{{{{n}}}}}: vary has no {n!r}{did_you_mean(n, values)}" for n in sorted(unknown)]
    if faults:
        raise DataError(*(f"{source}: {fault}" for fault in faults))
    return content


def _draw(varied: Any, seed: int) -> dict[str, Any]:
    if not isinstance(varied, Mapping):
        return {}
    drawn = {}
    for name, choices in varied.items():
        if not isinstance(choices, list) or not choices:
            continue
        # Each name has a generator of its own: a new name does not change the values of others.
        generator = random.Random(f"{seed}:{name}")
        drawn[name] = generator.choice(choices) if seed else choices[0]
    return drawn


def _find_faults(varied: Any) -> list[str]:
    if not isinstance(varied, Mapping):
        return ["vary: is no table"]
    return [
        f"vary.{name}: is no list of texts or numbers"
        for name, choices in varied.items()
        if not isinstance(choices, list)
        or not choices
        or not all(isinstance(c, str | int | float) and not isinstance(c, bool) for c in choices)
    ]


def _replace(content: Any, replacements: Mapping[str, Any], unknown: set[str]) -> Any:
    if isinstance(content, dict):
        return {key: _replace(value, replacements, unknown) for key, value in content.items()}
    if isinstance(content, list):
        return [_replace(item, replacements, unknown) for item in content]
    if not isinstance(content, str) or "{{" not in content:
        return content
    names = _PLACEHOLDER.findall(content)
    unknown.update(name for name in names if name not in replacements)
    whole = _PLACEHOLDER.fullmatch(content)
    if whole is not None and whole[1] in replacements:
        return replacements[whole[1]]
    return _PLACEHOLDER.sub(lambda match: str(replacements.get(match[1], match[0])), content)
