"""A finished training run, as what another one starts from or is blended with."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from truing.core.errors import PlanError
from truing.core.types import Lineage
from truing.judges.moderation.network import ModerationNetwork
from truing.judges.moderation.network_files import read_safetensors
from truing.judges.moderation.scorer import hash_classifier_folder
from truing.judges.moderation.settings import read_settings
from truing.train.moderation.card import CardOrigin
from truing.train.moderation.settings import ModerationTrainingSettings

NETWORK_FILE = "network.safetensors"  # in the folder of a fold

# Settings that a run shares with the one that it starts from: the first decide which tensors a
# network has, the last that a fold's network has not learned the rows of its fold before.
_SHARED_SETTINGS = ("base", "layers", "folds", "held", "whole")


class _Origins(Struct):
    """The part of a card that is passed on."""

    origins: tuple[CardOrigin, ...] = ()


class StartingPoint(Struct, frozen=True):
    """What a training run starts from in place of the base: the networks of another run.

    `lineage` and `origins` are those of the other run's classifier, `hash` is its own.
    """

    folder: Path
    hash: str
    lineage: Lineage
    origins: tuple[CardOrigin, ...]

    def load_network(self, network: ModerationNetwork, fold_name: str) -> None:
        """Loads the other run's network of the same fold; PlanError if it has other tensors."""
        path = self.folder / "folds" / fold_name / NETWORK_FILE
        state = read_safetensors(path)
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            first_line = str(error).splitlines()[0]
            raise PlanError(f"{path}: not the tensors of this network: {first_line}") from error


def read_run_settings(folder: Path) -> ModerationTrainingSettings:
    """Returns the settings of a run; raises PlanError if it is not a finished one."""
    path = folder / "run.json"
    try:
        values = msgspec.json.decode(path.read_bytes())["settings"]
        settings = msgspec.convert(values, ModerationTrainingSettings)
    except (OSError, KeyError, TypeError, msgspec.MsgspecError) as error:
        raise PlanError(
            f"{path}: no training run of a moderation classifier ({str(error)[:120]})"
        ) from error
    if not (folder / "truing.json").is_file():
        raise PlanError(f"{folder}: its training is not finished; repeat its command")
    return settings


def read_origins(folder: Path) -> tuple[CardOrigin, ...]:
    """Returns what the classifier in a folder was made from; empty without a card."""
    path = folder / "card.json"
    if not path.is_file():
        return ()
    return msgspec.json.decode(path.read_bytes(), type=_Origins).origins


def read_starting_point(settings: ModerationTrainingSettings) -> StartingPoint | None:
    """Returns the run that `settings.start` names, or None if that is empty.

    Raises PlanError if it is not finished, or differs in what both must share.
    """
    if not settings.start:
        return None
    folder = Path(settings.start)
    other = read_run_settings(folder)
    different = [k for k in _SHARED_SETTINGS if getattr(other, k) != getattr(settings, k)]
    if different:
        raise PlanError(f"start = {folder}: was trained with another {', '.join(different)}")
    lineage = read_settings(folder).lineage
    return StartingPoint(folder, hash_classifier_folder(folder), lineage, read_origins(folder))
