"""The moderation classifiers that come with truing: their names, folders and earlier versions.

`default` and `fast` are part of the package; their data, teachers and labels have free licences.
`research` was trained on data for non-commercial use and is a distribution of its own
(`truing-research`). `open` is an older name of `default`.

Run folders and cards refer to a classifier by its hash and not by its name. So a renamed classifier
is still recognised, and so is an earlier version whose card the package contains.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import msgspec
from msgspec import Struct, field

from truing.core.errors import UserError

FREE_CLASSIFIERS = ("default", "fast")
"""The classifiers of the package."""

RESEARCH_CLASSIFIER = "research"
RESEARCH_PACKAGE = "truing_research"
_INSTALL_RESEARCH = (
    "moderation:research learned from data for non-commercial use (CC BY-NC 4.0) and is no part of "
    "truing: pip install truing-research (in a checkout: pip install "
    "./distributions/truing-research), or name its folder, moderation:DIR; moderation:default is "
    "free"
)
# Name -> the classifier that is used if the package has no folder of that name.
_FALLBACKS = {"fast": "default", "open": "default"}
_EARLIER_VERSIONS = "earlier"  # folder of the cards of earlier versions, without weights

SHIPPED_NAMES = (*FREE_CLASSIFIERS, RESEARCH_CLASSIFIER)


class _Card(Struct, frozen=True):
    judge_hash: str


class _Thresholds(Struct, frozen=True):
    categories: dict[str, float] = field(default_factory=dict)


def find_shipped_folder(name: str) -> Path | None:
    """Returns the folder of a shipped classifier, or None if there is none of that name.

    Raises UserError, with the install line, for `research` where its distribution is absent.
    """
    if name == RESEARCH_CLASSIFIER:
        folder = _research_folder()
        if folder is None:
            raise UserError(_INSTALL_RESEARCH)
        return folder
    if name not in FREE_CLASSIFIERS and name not in _FALLBACKS:
        return None
    folder = _package_folder() / name
    return folder if folder.is_dir() else _package_folder() / _FALLBACKS[name]


def find_version_file(judge_hash: str, name: str) -> Path | None:
    """Returns the path of a JSON file (``card.json``, ``thresholds.json``) of a shipped version.

    None if no installed classifier and no earlier version has that hash, or it has no such file.
    """
    folder = _folders_by_hash().get(judge_hash)
    path = folder / name if folder is not None else None
    return path if path is not None and path.is_file() else None


@cache
def thresholds_of_version(judge_hash: str) -> dict[str, float]:
    """Returns the category thresholds of the shipped version with a hash; empty if unknown."""
    path = find_version_file(judge_hash, "thresholds.json")
    if path is None:
        return {}
    return msgspec.json.decode(path.read_bytes(), type=_Thresholds).categories


def _package_folder() -> Path:
    return Path(str(resources.files("truing"))) / "resources" / "weights" / "moderation"


def _research_folder() -> Path | None:
    spec = find_spec(RESEARCH_PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(location) / "moderation" / RESEARCH_CLASSIFIER
        if folder.is_dir():
            return folder
    return None


def _version_folders() -> Iterator[Path]:
    for name in FREE_CLASSIFIERS:
        yield _package_folder() / name
    research = _research_folder()
    if research is not None:
        yield research
    earlier = _package_folder() / _EARLIER_VERSIONS
    if earlier.is_dir():
        yield from sorted(earlier.iterdir())


@cache
def _folders_by_hash() -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for folder in _version_folders():
        card = folder / "card.json"
        if card.is_file():
            judge_hash = msgspec.json.decode(card.read_bytes(), type=_Card).judge_hash
            folders.setdefault(judge_hash, folder)
    return folders
