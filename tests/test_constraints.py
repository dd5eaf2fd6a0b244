"""constraints.txt: its form, that it covers the direct dependencies, and that it agrees with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINES = [
    line
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line.strip() and not line.startswith("#")
]
# torch is left out: its right build depends on the machine.
WITHOUT_A_PIN = {"torch"}


def _of_extra(name: str) -> Iterator[Requirement]:
    """Yields the requirements of an extra; `truing[a,b]` stands for the extras a and b."""
    for text in PROJECT["optional-dependencies"][name]:
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) == PROJECT["name"]:
            for inner in sorted(requirement.extras):
                yield from _of_extra(inner)
        else:
            yield requirement


def _direct() -> list[Requirement]:
    base = [Requirement(text) for text in PROJECT["dependencies"]]
    every = [*base, *_of_extra("all"), *_of_extra("dev")]
    return list({str(requirement): requirement for requirement in every}.values())


def _pins() -> dict[str, Version]:
    pins = {}
    for line in LINES:
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        pins[canonicalize_name(requirement.name)] = Version(specifier.version)
    return pins


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_a_name_and_one_public_version(line: str) -> None:
    requirement = Requirement(line)
    assert requirement.url is None
    assert not requirement.extras
    assert requirement.marker is None
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    assert Version(specifier.version).local is None
    assert re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+", line)


def test_names_are_sorted_and_unique() -> None:
    names = [line.split("==")[0] for line in LINES]
    assert names == sorted(set(names))


@pytest.mark.parametrize("requirement", _direct(), ids=str)
def test_a_direct_dependency_is_pinned_within_its_range(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    if name in WITHOUT_A_PIN:
        assert name not in _pins()
        return
    assert name in _pins(), f"constraints.txt has no line for {requirement}"
    assert requirement.specifier.contains(_pins()[name], prereleases=True)
