"""Every installed distribution in the closure of our declared dependencies has a licence that is allowed.

The lists, and the reason of each exception, are in docs/reference/licences.toml.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LISTS = tomllib.loads((ROOT / "docs/reference/licences.toml").read_text(encoding="utf-8"))
ALLOWED = set(LISTS["allowed"])
SPELLED = {text.casefold(): spdx for text, spdx in LISTS["spelled"].items()}
EXCEPTIONS: dict[str, dict[str, str]] = LISTS["exceptions"]
BY_HAND: dict[str, dict[str, str]] = LISTS["by_hand"]
# A short form or name of a licence that no entry may hide; an LGPL library needs an exception by name.
FORBIDDEN = re.compile(
    r"GPL|GNU (Affero |Lesser )?General Public|non-?commercial|CC-BY-NC|SSPL|BUSL", re.IGNORECASE
)


def _declared() -> list[Requirement]:
    texts = [*PROJECT["dependencies"]]
    for extra in PROJECT["optional-dependencies"].values():
        texts.extend(extra)
    found = [Requirement(text) for text in texts]
    return [r for r in found if canonicalize_name(r.name) != PROJECT["name"]]


def _closure() -> dict[str, Distribution]:
    """Returns the installed distributions that the declared dependencies bring, by canonical name."""
    found: dict[str, Distribution] = {}
    extras_seen: dict[str, set[str]] = {}
    queue = _declared()
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        new_extras = {"", *requirement.extras} - extras_seen.setdefault(name, set())
        try:
            installed = distribution(requirement.name)
        except PackageNotFoundError:
            continue
        found[name] = installed
        extras_seen[name] |= new_extras
        for inner in map(Requirement, installed.requires or ()):
            marker = inner.marker
            if new_extras and (
                marker is None or any(marker.evaluate({"extra": extra}) for extra in new_extras)
            ):
                queue.append(inner)
    return found


CLOSURE = _closure()


def licence_of(installed: Distribution) -> str | None:
    """Returns the SPDX expression that the metadata states, or None where it states nothing usable."""
    metadata = installed.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    # Some distributions put the whole text of their licence here: its first line is the name.
    free_text = (metadata.get("License") or "").strip().split("\n")[0].strip()
    if free_text and (spdx := _as_spdx(free_text)):
        return spdx
    classifiers = [c for c in metadata.get_all("Classifier") or () if c.startswith("License ::")]
    names = [c.rsplit("::", 1)[1].strip() for c in classifiers]
    known = [SPELLED.get(name.casefold()) for name in names if name != "DFSG approved"]
    if known and all(known):
        # Several classifiers: all are taken to apply, which is the strict reading.
        return " AND ".join(sorted({spdx for spdx in known if spdx}))
    return None


def _as_spdx(text: str) -> str | None:
    if text.casefold() in SPELLED:
        return SPELLED[text.casefold()]
    parts = [part.strip("() ") for part in re.split(r" (?:AND|OR) ", text)]
    return text if all(part in ALLOWED for part in parts) else None


def is_allowed(expression: str) -> bool:
    """Returns whether all parts joined by AND, or one of those joined by OR, are allowed."""
    tokens = re.findall(r"[()]|[^()\s]+(?:\s+WITH\s+[^()\s]+)?", expression)
    return _any_of(list(reversed(tokens)))


def _any_of(tokens: list[str]) -> bool:
    result = _all_of(tokens)
    while tokens and tokens[-1].upper() == "OR":
        tokens.pop()
        result = _all_of(tokens) or result
    return result


def _all_of(tokens: list[str]) -> bool:
    result = _one(tokens)
    while tokens and tokens[-1].upper() == "AND":
        tokens.pop()
        result = _one(tokens) and result
    return result


def _one(tokens: list[str]) -> bool:
    token = tokens.pop()
    if token != "(":
        return token in ALLOWED
    result = _any_of(tokens)
    tokens.pop()
    return result


def _exception(name: str) -> str | None:
    """Returns the key of the exception that covers a distribution; a key may end in a star."""
    return next((pattern for pattern in EXCEPTIONS if fnmatch(name, pattern)), None)


def _statements(installed: Distribution) -> Iterator[str]:
    """Yields each short statement about the licence in the metadata."""
    metadata = installed.metadata
    yield str(metadata.get("License-Expression") or "")
    yield (metadata.get("License") or "").strip().split("\n")[0]
    yield from (c for c in metadata.get_all("Classifier") or () if c.startswith("License ::"))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("MIT AND GPL-3.0-or-later", False),
        ("GPL-2.0-only OR MIT", True),
        ("MIT OR Apache-2.0 AND GPL-3.0-only", True),
        ("(MIT OR GPL-3.0-only) AND AGPL-3.0-only", False),
        ("(GPL-3.0-only OR MIT) AND (BSD-3-Clause)", True),
        ("Apache-2.0 AND Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-or-later WITH GCC-exception-3.1", False),
    ],
)
def test_expressions_are_read_as_spdx_defines_them(expression: str, expected: bool) -> None:
    assert is_allowed(expression) is expected


def test_the_closure_holds_direct_and_indirect_dependencies() -> None:
    assert {"msgspec", "aiohttp", "yarl", "psycopg", "certifi"} <= set(CLOSURE)


def test_krippendorff_is_not_a_dependency() -> None:
    assert "krippendorff" not in CLOSURE
    assert "krippendorff" not in {canonicalize_name(r.name) for r in _declared()}


@pytest.mark.parametrize("name", sorted(CLOSURE))
def test_the_licence_is_allowed(name: str) -> None:
    installed = CLOSURE[name]
    stated = licence_of(installed)
    exception = _exception(name)
    if exception is not None:
        # A family of distributions (a key with a star) spells its licence in several ways.
        assert "*" in exception or stated == EXCEPTIONS[exception]["licence"]
        return
    if stated is None:
        assert name in BY_HAND, f"{name}: no usable licence metadata; read its files, list it"
        stated = BY_HAND[name]["licence"]
    assert is_allowed(stated), f"{name} is {stated}"
    if " OR " not in stated:
        assert not [s for s in _statements(installed) if FORBIDDEN.search(s)]


def test_each_listed_distribution_has_its_reason() -> None:
    assert all(entry["licence"] and len(entry["reason"]) > 40 for entry in EXCEPTIONS.values())
    assert all(entry["licence"] and entry["found"] for entry in BY_HAND.values())
    named = {name for name in EXCEPTIONS if "*" not in name} | set(BY_HAND)
    assert not [name for name in named if name != canonicalize_name(name)]
