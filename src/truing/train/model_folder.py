"""The model folder that training leaves: the Hugging Face layout, and `truing.json` beside it.

config.json  model.safetensors  tokenizer...   adapters merged, so that every tool reads it
adapter/                                       the LoRA adapter alone, in peft's layout
head.safetensors                               the linear head of a reward or cost model
truing.json                                    kind, base, dimension, data, lineage: `Card`
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from truing.core.errors import UserError
from truing.core.lineage import digest, hash_prompts
from truing.core.types import Lineage
from truing.hf.weights import sha256_folder
from truing.runs.folder import replace_file
from truing.train.checkpoint import describe_write_error
from truing.train.examples import TrainingSet
from truing.train.settings import TrainingSettings
from truing.train.trainable_model import BaseModel, TrainableModel

CARD_FILE = "truing.json"
_DIMENSIONS = {"reward": "helpful", "cost": "safe"}


class TrainedModelCard(Struct, frozen=True, kw_only=True):
    """`truing.json`: what the folder is. `red_model` is the reason given for training towards harm."""

    kind: str
    base: str
    base_sha256: str
    dimension: str = ""
    data: tuple[str, ...] = ()
    lineage: Lineage = Lineage()
    template: str = "auto"
    max_length: int = 512
    red_model: str | None = None
    settings: dict[str, Any] = {}


def read_model_card(folder: str | Path) -> TrainedModelCard | None:
    """The card of a trained folder, or none where there is none."""
    path = Path(folder) / CARD_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=TrainedModelCard)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"{path}: {error}") from error


def build_lineage(
    settings: TrainingSettings, base: BaseModel, sources: Sequence[TrainingSet], red: str | None
) -> Lineage:
    """Base, data, hashes of the training prompts (of the base's training too), and the judges that labelled or chose."""
    below = base.lineage
    prompts = hash_prompts(i.conversation.prompt for s in sources for i in s.items)
    judges = {j.hash or j.name: j for s in sources for j in s.judges} | {
        j.hash or j.name: j for j in below.judges
    }
    licences = [below.licence, *(s.licence for s in sources)]
    return Lineage(
        name=f"{settings.kind}:{settings.folder.name}",
        base=below.base or below.name,
        base_sha256=below.base_sha256,
        data=(*below.data, *(s.spec for s in sources)),
        prompts=tuple(sorted({*prompts, *below.prompts})),
        judges=tuple(judges.values()),
        licence="; ".join(dict.fromkeys(x for x in licences if x)),
        red_model=red,
    )


def save_model(t: TrainableModel, base: BaseModel, lineage: Lineage) -> Path:
    """Writes the model folder: into a folder beside it first, then file by file into place, the card last.

    The model is merged into its base on the way, and cannot be trained any further.
    """
    settings, out = t.settings, t.settings.folder
    work = out / ".model.tmp"
    shutil.rmtree(work, ignore_errors=True)
    (out / CARD_FILE).unlink(missing_ok=True)
    try:
        work.mkdir(parents=True)
        _write(t, work)
        for path in sorted(work.iterdir()):
            target = out / path.name
            if target.is_dir():
                shutil.rmtree(target)
            path.rename(target)
        work.rmdir()
        made = msgspec.structs.replace(lineage, hash=digest(settings.kind, sha256_folder(out)))
        replace_file(
            out / CARD_FILE,
            msgspec.json.format(msgspec.json.encode(_card(settings, base, made)), indent=2),
        )
    except (OSError, RuntimeError) as error:
        shutil.rmtree(work, ignore_errors=True)
        raise describe_write_error(out, error) from error
    return out


def _card(settings: TrainingSettings, base: BaseModel, lineage: Lineage) -> TrainedModelCard:
    kept = {
        k: v for k, v in msgspec.to_builtins(settings).items() if k not in ("out", "kind", "base")
    }
    return TrainedModelCard(
        kind=settings.kind,
        base=base.weights.title or base.weights.name,
        base_sha256=base.weights.sha256,
        dimension=_DIMENSIONS.get(settings.kind, ""),
        data=lineage.data,
        lineage=lineage,
        template=settings.template,
        max_length=settings.max_length,
        red_model=lineage.red_model,
        settings=kept,
    )


def _write(t: TrainableModel, folder: Path) -> None:
    from safetensors.torch import save_file

    body = t.plain.body if t.settings.scalar else t.plain
    if t.settings.lora:
        body.save_pretrained(str(folder / "adapter"))
        body = body.merge_and_unload()
        if t.settings.scalar:
            t.plain.body = body
        else:
            t.plain = t.model = body
    body.save_pretrained(str(folder))
    t.tokenizer.save_pretrained(str(folder))
    if t.settings.scalar:
        weight = t.plain.head.weight.detach().float().cpu().contiguous()
        save_file({"weight": weight}, str(folder / "head.safetensors"))
