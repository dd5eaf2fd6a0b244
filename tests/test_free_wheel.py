"""Everything in the wheel is free: data, teachers and labels behind each shipped weight, transitively.

And nothing that ships learned the frozen measurement set, but for the exception named here.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from truing.core.licences import collect_licences, find_unfree
from truing.core.measurement_set import count_frozen_by_source
from truing.core.types import Lineage
from truing.judges.shipped_classifiers import find_shipped_folder

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "truing"
RESOURCES = PACKAGE / "resources"
RESEARCH = ROOT / "distributions" / "truing-research" / "src" / "truing_research"
WEIGHT_SUFFIXES = {".safetensors", ".gguf", ".onnx", ".bin", ".pt", ".npy", ".npz"}
RESTRICTION = re.compile(
    r"non-?commercial|\bBY-NC|\bNC\b|share-?alike|\bBY-SA|\bGPL|\bAGPL|research only", re.IGNORECASE
)

# Weights that learned frozen prompts before the set was frozen, by their hash: the published sets.
EXCEPTIONS = {"b86577a67907ff08": {"beavertails evaluation", "xstest"}}  # moderation:research


class _Settings(msgspec.Struct):
    """The part of a classifier's `truing.json` that is read here."""

    licence: str = ""
    notice: str = ""
    lineage: Lineage = Lineage()


def _settings(folder: Path) -> _Settings:
    return msgspec.json.decode((folder / "truing.json").read_bytes(), type=_Settings)


def _weight_folders(root: Path) -> list[Path]:
    """Returns the folders below a root whose weights have a card: the judge or model itself."""
    return sorted(card.parent for card in root.rglob("card.json") if _weights_below(card.parent))


def _weights_below(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.suffix in WEIGHT_SUFFIXES]


def _card(folder: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((folder / "card.json").read_bytes())
    return card


def _heads() -> list[Path]:
    return sorted((RESOURCES / "heads").glob("*.json"))


ADAPTERS = _weight_folders(RESOURCES / "weights" / "adapters")
FREE = [folder for folder in _weight_folders(RESOURCES) if folder not in ADAPTERS]
ALL = [*FREE, *_weight_folders(RESEARCH)]


def test_all_weights_of_the_package_have_a_card() -> None:
    carded = {path for folder in (*FREE, *ADAPTERS) for path in _weights_below(folder)}
    assert carded and carded == set(_weights_below(PACKAGE))
    assert len(_weight_folders(RESEARCH)) == 1


@pytest.mark.parametrize("folder", FREE, ids=lambda p: p.name)
def test_what_a_free_judge_learned_from_is_free(folder: Path) -> None:
    settings, card = _settings(folder), _card(folder)
    assert not settings.notice
    assert not find_unfree([settings.licence, card["licence"], *collect_licences(settings.lineage)])
    origins = card["origins"]
    # Every base, set, teacher and judge that labelled stands in the card, with a free licence.
    assert {o["kind"] for o in origins} >= {"base", "data"}
    assert not [o for o in origins if not o["licence"] or find_unfree([o["licence"]])]
    named = {o["name"] for o in origins}
    assert set(settings.lineage.data) <= named
    assert set(_teachers(settings.lineage)) <= named


def test_adapters_are_learned_from_free_texts_alone() -> None:
    for folder in ADAPTERS:
        lineage, card = _settings(folder).lineage, _card(folder)
        assert not find_unfree([card["licence"], *collect_licences(lineage)])
        assert not [o for o in card["origins"] if not o["licence"] or find_unfree([o["licence"]])]
        assert {o["kind"] for o in card["origins"]} >= {"base", "data"}
        assert not lineage.judges and lineage.red_model is None
        assert len(lineage.prompts) > 500  # the lineage names its training prompts
        assert count_frozen_by_source(lineage.prompts) == {}
        assert sum(path.stat().st_size for path in _weights_below(folder)) <= 5_000_000


def test_probes_are_learned_from_free_texts_alone() -> None:
    for folder in sorted((RESOURCES / "weights" / "probes").iterdir()):
        lineage = _settings(folder).lineage
        assert lineage.licence and not find_unfree(collect_licences(lineage))
        assert not lineage.judges and lineage.red_model is None
        assert len(lineage.prompts) > 500
        assert count_frozen_by_source(lineage.prompts) == {}
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 200_000


def _teachers(lineage: Lineage) -> Iterator[str]:
    for judge in lineage.judges:
        yield judge.name
        yield from _teachers(judge)


def test_research_says_that_it_is_not_free() -> None:
    (folder,) = _weight_folders(RESEARCH)
    settings, card = _settings(folder), _card(folder)
    assert "research only" in settings.notice
    assert find_unfree(collect_licences(settings.lineage))
    assert any(find_unfree([o["licence"]]) for o in card["origins"])
    assert "NonCommercial" in (folder / "LICENSE").read_text()


@pytest.mark.parametrize("head", _heads(), ids=lambda p: p.stem)
def test_heads_are_free_and_learned_no_frozen_prompt(head: Path) -> None:
    card = json.loads(head.read_bytes())["card"]
    assert card["licence"] and not find_unfree([card["licence"]])
    assert len(card["prompts"]) >= 0.99 * card["trained_on"]  # equal prompts count once
    assert count_frozen_by_source(card["prompts"]) == {}


@pytest.mark.parametrize("folder", ALL, ids=lambda p: p.name)
def test_no_judge_learned_frozen_prompts_but_for_a_named_exception(folder: Path) -> None:
    lineage, judge_hash = _settings(folder).lineage, _card(folder)["judge_hash"]
    prompts = {*lineage.prompts, *(h for judge in _lineages(lineage) for h in judge.prompts)}
    assert len(prompts) > 1000  # the lineage names its training prompts
    learned = set(count_frozen_by_source(prompts))
    assert learned == EXCEPTIONS.get(judge_hash, set())


def _lineages(lineage: Lineage) -> Iterator[Lineage]:
    for judge in lineage.judges:
        yield judge
        yield from _lineages(judge)


def test_no_file_of_the_package_states_a_restriction_of_its_own() -> None:
    """Licence files and cards in the wheel; the files that only name data sets of others are code."""
    files = [
        *RESOURCES.rglob("LICENSE*"),
        *RESOURCES.rglob("card.json"),
        *_heads(),
        ROOT / "LICENSE",
    ]
    files += RESOURCES.rglob("truing.json")
    assert len(files) > 5
    restricted = {str(f): RESTRICTION.search(f.read_text(encoding="utf-8")) for f in files}
    assert not {name: found.group() for name, found in restricted.items() if found}


def test_the_wheel_is_the_package_alone() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"] == {"packages": ["src/truing"]}
    research = tomllib.loads(
        (ROOT / "distributions" / "truing-research" / "pyproject.toml").read_text()
    )
    assert research["project"]["license"] == "Apache-2.0 AND CC-BY-NC-4.0"
    assert find_shipped_folder("default") in FREE
