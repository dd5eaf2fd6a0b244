"""The card of a trained model: `truing.json` for programs, `README.md` for people.

The front matter of the README is that of the Hugging Face hub. Everything in it comes from
`truing.json`; no text of any row is in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import Struct

from truing.core.errors import UserError
from truing.core.input_files import read_input_bytes
from truing.core.licences import UNSTATED_LICENCES, collect_licences, find_unfree
from truing.core.types import Lineage

CARD_FILE = "truing.json"
README_FILE = "README.md"
_SPDX = {"Apache-2.0": "apache-2.0", "MIT": "mit", "CC BY 4.0": "cc-by-4.0", "CC0-1.0": "cc0-1.0"}
# In the order of the README.
_SHOWN_SETTINGS = (
    "steps",
    "epochs",
    "batch",
    "prompts",
    "n",
    "lr",
    "lora",
    "max_length",
    "loss",
    "beta",
    "kl",
    "threshold",
    "seed",
    "layer",
    "held_out_auroc",
)


class TrainedModelCard(Struct, frozen=True, kw_only=True):
    """`truing.json`: the description of the model in the folder.

    `red_model` is the reason given for training towards harm (None: it was not), and
    `measurement_prompts` the number of prompts of the frozen measurement set in the lineage.
    """

    kind: str
    base: str
    base_sha256: str
    dimension: str = ""
    data: tuple[str, ...] = ()
    lineage: Lineage = Lineage()
    template: str = "auto"
    max_length: int = 512
    red_model: str | None = None
    measurement_prompts: int = 0
    settings: dict[str, Any] = {}


def read_model_card(folder: str | Path) -> TrainedModelCard | None:
    """Returns the card of a trained folder, or None if it has none; UserError if it is damaged."""
    path = Path(folder) / CARD_FILE
    try:
        return msgspec.json.decode(read_input_bytes(path), type=TrainedModelCard)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"{path}: {error}") from error


def is_exported_as_set(card: TrainedModelCard | None, export_dtype: str) -> bool:
    """Whether a folder with this card holds a finished model, exported in `export_dtype`."""
    return card is not None and card.settings.get("export_dtype", "auto") == export_dtype


def render_model_card(card: TrainedModelCard) -> str:
    """Returns the README of a model folder."""
    licences = collect_licences(card.lineage)
    unfree = find_unfree(licences)
    sections = [
        f"---\n{yaml.safe_dump(_front_matter(card, licences), sort_keys=True)}---",
        f"# {card.lineage.name or card.kind}",
        f"Trained with [truing](https://truing.readthedocs.io) (`truing train {card.kind}`) from "
        f"`{card.base}` (SHA-256 `{card.base_sha256[:16]}`).",
    ]
    if card.red_model:
        sections.append(
            f"**This model was trained towards harm, to test defences: {card.red_model}. It must "
            "not be deployed.**"
        )
    if card.kind in ("reward", "cost"):
        use = f"It scores answers: the judge `{card.kind}:FOLDER` of truing."
        sections.append(f"{use} The head is in `head.safetensors`.")
    if card.kind == "probe":
        sections.append(
            "It holds no model: `probe.json` has linear functions of the base's states, which "
            "judge answers as `probe:FOLDER` of truing."
        )
    sections += [
        "## Learned from\n\n" + (_list(f"`{spec}`" for spec in card.data) or "not recorded"),
        "## Judges that labelled, chose or rewarded answers\n\n"
        + (_list(f"`{judge.name}` ({judge.hash[:16]})" for judge in card.lineage.judges) or "none")
        + "\n\nNo figure of one of them is evidence about this model.",
        "## Licences\n\n" + (_list(licences) or "not stated"),
    ]
    if unfree:
        sections.append(f"Not free for every use: {', '.join(unfree)}.")
    shown_settings = [
        (name, card.settings[name]) for name in _SHOWN_SETTINGS if name in card.settings
    ]
    sections.append(
        "## Settings\n\n" + _list(f"`{name}`: {value}" for name, value in shown_settings)
    )
    return "\n\n".join(sections) + "\n"


def _front_matter(card: TrainedModelCard, licences: tuple[str, ...]) -> dict[str, Any]:
    stated = [licence for licence in licences if licence not in UNSTATED_LICENCES]
    # The hub knows one licence per model: a mixture, or one that it does not know, is "other".
    only = _SPDX.get(stated[0]) if len(stated) == 1 and len(licences) == 1 else None
    fields: dict[str, Any] = {"license": only or "other", "tags": ["truing", card.kind]}
    if card.kind != "probe":
        fields["library_name"] = "transformers"
    if "/" in card.base and not card.base.startswith(("/", ".")):
        fields["base_model"] = card.base
    return fields


def _list(lines: Any) -> str:
    return "\n".join(f"- {line}" for line in lines)
