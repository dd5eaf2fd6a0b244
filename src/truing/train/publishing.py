"""Publishes a trained model on the Hugging Face hub; private unless asked otherwise.

A model that was trained towards harm is never published. A model whose data, base or judges are
under a licence that does not permit every use is not made public.
"""

from __future__ import annotations

import re
from glob import escape
from pathlib import Path

from truing.core.errors import LineageError, MissingExtra, PlanError, UserError
from truing.core.licences import UNSTATED_LICENCES, collect_licences, find_unfree
from truing.train.model_card import CARD_FILE, README_FILE, TrainedModelCard, read_model_card

_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
# The files of a model: what `train.model_folder` and the tokenizers of transformers write. Nothing
# else is published, since logs, samples and earlier rounds of training hold prompts and answers.
_MODEL_FILES = (
    CARD_FILE,
    README_FILE,
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
    "head.safetensors",
    "probe.json",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
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
        licences_text = f"{', '.join(unfree)}" + (
            " (no licence was found)" if unstated == [*unfree] else ""
        )
        reasons.append(
            f"{folder}: learned under licences that do not permit every use: {licences_text}; "
            "it may be published privately"
        )
    if public and not collect_licences(card.lineage):
        reasons.append(f"{folder}: its lineage names no licence; it may be published privately")
    if reasons:
        raise LineageError(*reasons)
    return card


def list_model_files(folder: str | Path) -> list[str]:
    """Returns the paths of the files that make up the model, relative to its folder, sorted."""
    root = Path(folder)
    paths = {path for pattern in _MODEL_FILES for path in root.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(root).as_posix() for path in paths)


def push_model(folder: str | Path, repository: str, *, public: bool = False) -> str:
    """Uploads the files of a model to the hub and returns its address; creates the repository.

    The token is that of `huggingface-cli login` or HF_TOKEN. Raises the errors of
    `check_publishable`, PlanError if `repository` is not OWNER/NAME, and UserError if the hub
    refuses or has the repository already and it is public or private against `public`.
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
        is_private = bool(api.repo_info(repository).private)
        if not public and not is_private:
            raise UserError(
                f"{repository}: this repository is public already; --public publishes there"
            )
        if public and is_private:
            raise UserError(
                f"{repository}: this repository is private; make it public on the hub first, or "
                "publish there without --public"
            )
        # The hub's patterns match whole paths; escaped names match one file each.
        names = [escape(name) for name in list_model_files(folder)]
        api.upload_folder(repo_id=repository, folder_path=str(folder), allow_patterns=names)
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"{repository}: {str(error).strip().splitlines()[0]}") from error
    return str(url)
