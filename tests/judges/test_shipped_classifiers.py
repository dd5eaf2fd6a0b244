"""The names of the shipped classifiers: free ones in the package, `research` outside of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from truing.core.errors import UserError
from truing.judges import shipped_classifiers
from truing.judges.shipped_classifiers import (
    FREE_CLASSIFIERS,
    find_shipped_folder,
    find_version_file,
    thresholds_of_version,
)


def test_free_classifiers_are_in_the_package_and_research_is_not() -> None:
    package = Path(shipped_classifiers.__file__).parents[1]
    for name in (*FREE_CLASSIFIERS, "open"):
        folder = find_shipped_folder(name)
        assert folder is not None and folder.is_relative_to(package)
        assert (folder / "truing.json").is_file()
    research = find_shipped_folder("research")
    assert research is not None and not research.is_relative_to(package)
    assert find_shipped_folder("open") == find_shipped_folder("default")
    assert find_shipped_folder("elsewhere") is None


def test_without_its_distribution_research_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shipped_classifiers, "RESEARCH_PACKAGE", "truing_research_is_not_here")
    with pytest.raises(UserError, match="pip install truing-research") as raised:
        find_shipped_folder("research")
    assert "CC BY-NC 4.0" in str(raised.value) and "moderation:default is free" in str(raised.value)


def test_the_package_alone_has_the_free_judges(root: Path) -> None:
    """As after `pip install truing`: the distribution cannot be found."""
    code = (
        "import truing.judges.shipped_classifiers as s\n"
        "s.RESEARCH_PACKAGE = 'truing_research_is_not_here'\n"
        "from truing.specs.resolve import resolve\n"
        "from truing.core.errors import UserError\n"
        "print(s.find_shipped_folder('default').name)\n"
        "try:\n    resolve('moderation:research', 'judge')\n"
        "except UserError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    name, message = done.stdout.strip().split("\n", 1)
    assert name == "default" and "pip install ./distributions/truing-research" in message
    assert (root / "distributions" / "truing-research" / "pyproject.toml").is_file()


def test_each_version_is_found_by_its_hash() -> None:
    for name in ("default", "fast", "research"):
        folder = find_shipped_folder(name)
        assert folder is not None
        judge_hash = json.loads((folder / "card.json").read_bytes())["judge_hash"]
        stored = json.loads((folder / "thresholds.json").read_bytes())["categories"]
        assert thresholds_of_version(judge_hash) == stored
    assert find_version_file("0" * 16, "card.json") is None
    assert thresholds_of_version("0" * 16) == {}


def test_the_cards_of_earlier_versions_stay() -> None:
    """`moderation:open` of truing 0.1 and 0.2: old runs keep its card and thresholds."""
    card = find_version_file("dc8eca6be3715e12", "card.json")
    assert card is not None
    assert json.loads(card.read_bytes())["judge_hash"] == "dc8eca6be3715e12"
    assert thresholds_of_version("dc8eca6be3715e12")["self_harm"] == pytest.approx(0.304, abs=1e-3)
