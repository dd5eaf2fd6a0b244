"""Small adapters that come with the package: low-rank changes of a named base model.

adapter.safetensors    NAME.A `[rank, in]` and NAME.B `[out, rank]` of each changed NAME.weight
truing.json            what the adapter learned from: the lineage of the whole model

The merged model has weights W + B A, rounded to bfloat16, and is a folder like any other.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from truing.core.errors import MissingExtra, UserError
from truing.core.private_files import private_opener

ADAPTER_FILE = "adapter.safetensors"
CARD_FILE = "truing.json"
_WEIGHTS_FILE = "model.safetensors"


def merge_low_rank(base: Path, adapter: Path, target: Path) -> None:
    """Writes the base with the adapter added into the folder `target`, one matrix at a time.

    `base` is a model folder with one weights file (model.safetensors), `adapter` a folder with
    adapter.safetensors and truing.json. Raises UserError if the adapter does not fit the base or
    lacks a part, and MissingExtra without torch.
    """
    try:
        import torch
        from safetensors import safe_open
        from safetensors.torch import save_file
    except ImportError as error:
        raise MissingExtra("local", "local models") from error
    merged = {}
    with (
        safe_open(base / _WEIGHTS_FILE, framework="pt") as weights,
        safe_open(adapter / ADAPTER_FILE, framework="pt") as changes,
    ):
        names = set(weights.keys())
        changed = {key.removesuffix(".A") for key in changes.keys() if key.endswith(".A")}  # noqa: SIM118 (no dictionary)
        parts = set(changes.keys())
        lonely = sorted(f"{name}.B" for name in changed if f"{name}.B" not in parts)
        if lonely:
            raise UserError(f"{adapter}: {ADAPTER_FILE} is damaged: it has no {lonely[0]}")
        unknown = sorted(name for name in changed if f"{name}.weight" not in names)
        if unknown:
            raise UserError(f"{adapter}: does not fit {base.name}: it has no {unknown[0]}.weight")
        for key in sorted(names):
            weight, name = weights.get_tensor(key), key.removesuffix(".weight")
            if name in changed:
                a, b = (changes.get_tensor(f"{name}.{part}").float() for part in "AB")
                if (b.shape[0], a.shape[1]) != weight.shape:
                    raise UserError(f"{adapter}: {name} is of another size in {base.name}")
                weight = weight.float() + b @ a
            is_float = weight.is_floating_point()
            merged[key] = weight.to(torch.bfloat16).contiguous() if is_float else weight
    save_file(merged, target / _WEIGHTS_FILE, metadata={"format": "pt"})
    for file in base.iterdir():
        # Not the base's own card and marker, which describe other weights.
        if file.suffix in (".json", ".jinja", ".model", ".txt") and not file.match("truing*.json"):
            _copy(file, target / file.name)
    _copy(adapter / CARD_FILE, target / CARD_FILE)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as stream, open(target, "wb", opener=private_opener) as copy:
        shutil.copyfileobj(stream, copy)
