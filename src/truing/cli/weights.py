"""`truing weights list|pull|push`: the models that truing knows by name, or has trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from truing.cli.parameters import Flag
from truing.cli.tables import print_json, print_text
from truing.specs.extras import needs_extra

if TYPE_CHECKING:
    from truing.hf.weights import Weights


def list_weights(*, json: Flag = False) -> int:
    """Lists the weights that have a name, their licence, and whether they are on this machine.

    Parameters
    ----------
    json
        Print as JSON.
    """
    from truing.hf.named_weights import NAMED_SOURCES
    from truing.hf.weights import find_cached_weights

    rows = []
    for name, source in NAMED_SOURCES.items():
        cached = find_cached_weights(name)
        rows.append(
            {
                "name": name,
                "title": source.title,
                "licence": source.licence,
                "package": source.package,
                "path": None if cached is None else str(cached.path),
            }
        )
    if json:
        print_json(msgspec.json.encode(rows))
        return 0
    for row in rows:
        place = row["path"] or "not downloaded"
        print_text(f"{row['name']:<15} {row['title']:<46} {row['licence']:<12} {place}")
    return 0


def pull(name: str, /, *, json: Flag = False) -> int:
    """Downloads weights if they are not on this machine, and checks the SHA-256 of each file.

    Parameters
    ----------
    name
        A name from `truing weights list`, or a hub id.
    json
        Print as JSON.
    """
    from truing.hf.weights import verify_weights

    def print_progress(line: str) -> None:
        print_text(line, file=sys.stderr)

    weights: Weights = verify_weights(name, on_progress=None if json else print_progress)
    if json:
        fields = {"name": weights.name, "path": str(weights.path), "sha256": weights.sha256}
        print_json(msgspec.json.encode(fields))
    else:
        licence = weights.licence or "licence not stated"
        print_text(f"{weights.name}: {weights.path} (sha256 {weights.sha256[:12]}..., {licence})")
    return 0


def push(folder: Path, /, *, to: str, public: Flag = False, json: Flag = False) -> int:
    """Publishes a trained model on the Hugging Face hub, with a model card.

    Private unless --public. A model that was trained towards harm is refused; so is --public for a
    model whose base, data or judges are under a licence that does not permit every use.

    Parameters
    ----------
    folder
        The folder of a model that truing trained.
    to
        The repository, OWNER/NAME; it is created if it does not exist.
    public
        Let everybody see the model.
    json
        Print as JSON.
    """
    with needs_extra("truing weights push", "train"):
        from truing.train.publishing import push_model

    url = push_model(folder, to, public=public)
    if json:
        print_json(msgspec.json.encode({"url": url, "public": public}))
    else:
        print_text(f"{url} ({'public' if public else 'private'})")
    return 0


def merge(
    adapter: Path,
    /,
    *,
    out: Path,
    base: str | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    json: Flag = False,
) -> int:
    """Merges a LoRA adapter in the layout of PEFT into its base: a model like any other.

    Parameters
    ----------
    adapter
        A folder with adapter_config.json and adapter_model.safetensors.
    out
        Folder for the model.
    base
        The base, if not the one that the adapter names.
    dtype
        Type of the weights; auto is the base's.
    json
        Print as JSON.
    """
    with needs_extra("truing weights merge", "train"):
        from truing.train.adapter_merging import merge_adapter

    folder = merge_adapter(adapter, out, base=base, dtype=dtype)
    if json:
        print_json(msgspec.json.encode({"folder": str(folder)}))
    else:
        print_text(f"{folder}  (local:{folder})")
    return 0
