"""Publishes a trained model on the Hugging Face hub; private unless asked otherwise.

A model that was trained towards harm is never published. A model whose data, base or judges are
under a licence that does not permit every use is not made public.
"""

from __future__ import annotations

import re
from pathlib import Path

from truing.core.errors import LineageError, MissingExtra, PlanError, UserError
from truing.core.licences import UNSTATED_LICENCES, collect_licences, find_unfree
from truing.train.model_card import TrainedModelCard, read_model_card

_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
# Files that a run needs and a user of the model does not; logs and samples may hold texts of
# prompts. Patterns of fnmatch over whole relative paths (huggingface_hub), in which * also matches
# "/".
_NOT_PUBLISHED = (
    "checkpoint-*/**",
    "samples*/**",
    "tb/**",
    "lock",
    "log.jsonl",
    "manifest.json",
    "step.json",
    "training.html",
    ".*",
)


def check_publishable(folder: str | Path, *, public: bool) -> TrainedModelCard:
    """Returns the card of a model that may be published.

    Raises UserError if the folder holds no finished model, and LineageError with all reasons why it
    may not be published.
    """
    card = read_model_card(folder)
    if card is None:
        raise UserError(f"{folder}: no truing.json, so this is no finished model of truing")
    reasons = []
    if card.red_model or card.lineage.red_model:
        reason = card.red_model or card.lineage.red_model
        reasons.append(f"{folder}: was trained towards harm ({reason}); it is not published")
    unfree = find_unfree(collect_licences(card.lineage))
    if public and unfree:
        unstated = [licence for licence in unfree if licence in UNSTATED_LICENCES]
        what = f"{', '.join(unfree)}" + (" (no licence was found)" if unstated == [*unfree] else "")
        reasons.append(
            f"{folder}: learned under licences that do not permit every use: {what}; it may be "
            "published privately"
        )
    if public and not collect_licences(card.lineage):
        reasons.append(f"{folder}: its lineage names no licence; it may be published privately")
    if reasons:
        raise LineageError(*reasons)
    return card


def push_model(folder: str | Path, repository: str, *, public: bool = False) -> str:
    """Uploads a model folder to the hub and returns its address; creates the repository.

    The token is that of `huggingface-cli login` or HF_TOKEN. Raises the errors of
    `check_publishable`, PlanError if `repository` is not OWNER/NAME, and UserError if the hub
    refuses.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise PlanError(f"{repository!r}: the name of a repository is OWNER/NAME")
    check_publishable(folder, public=public)
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise MissingExtra("hub", "publishing a model") from error
    api = HfApi()
    try:
        url = api.create_repo(repository, private=not public, exist_ok=True)
        if public is False and not api.repo_info(repository).private:
            raise UserError(
                f"{repository}: this repository is public already; --public publishes there"
            )
        api.upload_folder(
            repo_id=repository, folder_path=str(folder), ignore_patterns=list(_NOT_PUBLISHED)
        )
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"{repository}: {str(error).strip().splitlines()[0]}") from error
    return str(url)
