"""`truing train moderation`: folds, their mean, the n-gram model, thresholds, card: a folder for `moderation:DIR`.

    OUT/log.jsonl  OUT/checkpoint-N/  OUT/folds/        the run; the same command goes on where it stopped
    OUT/truing.json thresholds.json head.safetensors model.safetensors (or delta.safetensors) card.json    the classifier

Probabilities in the card come from the fold that did not see the prompt, and what is chosen (mixing weights, thresholds)
is chosen again without that fold: no row is measured by what learned it or was chosen on it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors.torch import save_file

from truing.core.errors import PlanError
from truing.core.lineage import digest, hash_prompts
from truing.core.taxonomy import load_taxonomy
from truing.core.types import Lineage
from truing.hf.loading import load_encoder
from truing.hf.weights import Weights, find_weights
from truing.judges.moderation.causal_layers import truncate_layers
from truing.judges.moderation.inputs import EncodedInput, InputEncoder
from truing.judges.moderation.network import ModerationNetwork
from truing.judges.moderation.network_files import read_safetensors, write_body, write_head
from truing.judges.moderation.ngrams import quantise_columns
from truing.judges.moderation.scorer import hash_classifier_folder
from truing.judges.moderation.settings import ClassifierSettings as FolderSettings
from truing.judges.moderation.settings import ClassifierThresholds
from truing.judges.moderation.settings import write_json as write_json
from truing.train import checkpoint as ck
from truing.train.moderation import card as cards
from truing.train.moderation.calibration import (
    Calibration,
    OutOfFoldLogits,
    cross_fit,
    fit_calibration,
)
from truing.train.moderation.examples import (
    ModerationExample,
    ModerationTrainingSet,
    fold_of,
    give_unique_names,
)
from truing.train.moderation.fold_training import (
    FoldTrainingContext,
    build_trainable_network,
    compute_logits,
    merge_adapters,
    train_fold,
)
from truing.train.moderation.loss import sets_with_categories
from truing.train.moderation.ngram_fit import NgramRegression, ngram_matrix
from truing.train.moderation.ngram_fit import fit_ngram_regression as fit_linear
from truing.train.moderation.settings import ModerationTrainingSettings
from truing.train.run_lock import lock_run_folder
from truing.train.training_log import TrainingLog, read_last_step

Tell = Callable[[dict[str, Any]], None]
MIXED_LOGITS_FILE = "mixed.npy"  # in OUT/folds: the mixed logits of the measured rows, as the folder would give them
MIN_AVERAGING_CORRELATION = 0.9  # correlation of the mean network's logits with the mean of its members', below which it is no good


@dataclass(frozen=True)
class ModerationResult:
    """The folder and its card's figures."""

    folder: Path
    hash: str
    card: cards.ClassifierCard


@dataclass(frozen=True)
class _World:
    settings: ModerationTrainingSettings
    sources: Sequence[ModerationTrainingSet]
    items: list[ModerationExample]
    folds: np.ndarray
    base: Weights
    tokenizer: Any
    ids: tuple[str, ...]
    mark: ck.CheckpointIdentity

    @property
    def pad(self) -> int:
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def home(self) -> str:
        """The set on whose rows thresholds are chosen: the first."""
        return self.sources[0].items[0].source


def build_input_encoder(tokenizer: Any, settings: ModerationTrainingSettings) -> InputEncoder:
    """Token rows for a tokenizer."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    if cls is None or sep is None:
        cls, sep = tokenizer.bos_token_id or tokenizer.eos_token_id, tokenizer.eos_token_id
    return InputEncoder(
        backend, prompt=settings.prompt_tokens, response=settings.response_tokens, cls=cls, sep=sep
    )


def _world(
    settings: ModerationTrainingSettings, sources: Sequence[ModerationTrainingSet]
) -> _World:
    base = find_weights(settings.base)
    tokenizer = load_encoder(base, dtype="float32", device="cpu").tokenizer
    items = [i for s in sources for i in s.items]
    encoded = build_input_encoder(tokenizer, settings).encode([i.piece for i in items])
    items = [msgspec.structs.replace(i, encoded=e) for i, e in zip(items, encoded)]
    folds = np.array([fold_of(i.key, settings.folds) for i in items])
    if settings.folds > 1 and len(set(folds.tolist())) < settings.folds:
        raise PlanError(
            f"folds = {settings.folds}: the prompts fill only {len(set(folds.tolist()))} of them"
        )
    mark = ck.CheckpointIdentity(
        step=0,
        kind="moderation",
        digest=digest(settings.digest(), *(s.sha256 for s in sources)),
        base_sha256=base.sha256,
    )
    return _World(settings, sources, items, folds, base, tokenizer, load_taxonomy().ids, mark)


def train_moderation(
    settings: ModerationTrainingSettings,
    sources: Sequence[ModerationTrainingSet],
    *,
    on_log: Tell | None = None,
) -> ModerationResult:
    """Trains, or goes on training, into `settings.out`; gives the folder that `moderation:OUT` loads."""
    from accelerate import Accelerator

    settings = settings.checked()
    here = Accelerator(cpu=not torch.cuda.is_available() or settings.device == "cpu")
    with lock_run_folder(settings.folder):
        world = _world(settings, give_unique_names(sources))
        _same_run(world)
        networks = _all_folds(world, here, on_log)
        return _finish(world, networks)


def _same_run(world: _World) -> None:
    """Refuses a folder of another run; keeps this run's settings beside the log."""
    path = world.settings.folder / "run.json"
    shown = {"digest": world.mark.digest, "settings": msgspec.to_builtins(world.settings)}
    if path.is_file():
        before = msgspec.json.decode(path.read_bytes())
        if before.get("digest") != world.mark.digest:
            raise PlanError(
                f"{path}: is of a run with other settings or other data; give the same command, or another --out"
            )
    path.write_bytes(msgspec.json.format(msgspec.json.encode(shown), indent=1))


def _all_folds(world: _World, here: Any, on_log: Tell | None) -> list[Path]:
    """Trains what is not there yet: the folds, each with the logits of the rows that it did not see, then perhaps the whole."""
    settings = world.settings
    numbers = [*range(settings.trained_folds), *([settings.folds] if settings.whole else [])]
    made = [
        settings.folder / "folds" / ("whole" if k == settings.folds else f"fold-{k}")
        for k in numbers
    ]
    passes = {s.items[0].source: s.weight for s in world.sources}
    first = 0
    for fold, path in zip(numbers, made):
        inside = world.folds == fold if settings.folds > 1 else np.zeros(len(world.items), bool)
        learned = [i for i, out in zip(world.items, inside) if not out]
        if not (path / "logits.npy").is_file():
            resume, step = _checkpoint(world, fold)
            log = TrainingLog(
                settings.folder,
                first=(step or first) + 1,
                tensorboard=settings.tensorboard,
                on_log=on_log,
            )
            job = FoldTrainingContext(
                settings, world.base, learned, passes, len(world.ids), log, world.mark, here
            )
            network = train_fold(job, fold, world.pad, first=first, resume=resume)
            log.close()
            if here.is_main_process:
                rows = [i.row for i, out in zip(world.items, inside) if out or settings.folds == 1]
                shared = compute_logits(network, _sample(world), world.pad, settings)
                _save_fold(
                    path, network, compute_logits(network, rows, world.pad, settings), shared
                )
            here.wait_for_everyone()
        first = (
            int((path / "steps").read_text())
            if (path / "steps").is_file()
            else read_last_step(settings.folder)
        )
        (path / "steps").write_text(str(first))
    return made


def _checkpoint(world: _World, fold: int) -> tuple[Path | None, int]:
    """The newest checkpoint, if it is of this fold, and its step."""
    newest = ck.latest_checkpoint(world.settings.folder)
    if newest is None:
        return None, 0
    step = ck.check_identity(newest, world.mark).step
    return (newest, step) if ck.load_torch_file(newest, "state.pt")["fold"] == fold else (None, 0)


def _sample(world: _World, most: int = 1000) -> list[EncodedInput]:
    """The same rows for every network, spread over the mix: on them scales are compared."""
    step = max(1, len(world.items) // most)
    return [i.row for i in world.items[::step]]


def _save_fold(
    path: Path, network: ModerationNetwork, logits: np.ndarray, shared: np.ndarray
) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    np.save(path / "shared.npy", shared)
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()},
        path / "network.safetensors",
    )
    with (path / "logits.tmp").open("wb") as stream:
        np.save(stream, logits)
    (path / "logits.tmp").replace(path / "logits.npy")  # last: a fold is there or it is not


def _mean(world: _World, folds: Sequence[Path]) -> tuple[ModerationNetwork, str]:
    """The network whose weights are the mean of the folds' (or the one trained on the whole), and a note where there is none.

    Weights can be averaged only if training left them in one valley; where the mean disagrees with its members, which
    can be told without any label, the first fold's network is taken.
    """
    if world.settings.whole:
        folds = folds[-1:]
    states = [read_safetensors(p / "network.safetensors") for p in folds]
    network = merge_adapters(
        build_trainable_network(
            msgspec.structs.replace(world.settings, lora=0, frozen=0), world.base, len(world.ids)
        )
    )
    network.load_state_dict(
        {k: torch.stack([s[k].float() for s in states]).mean(0) for k in states[0]}
    )
    if len(folds) == 1:
        return network.eval(), ""
    members = np.stack([np.load(p / "shared.npy") for p in folds])
    logits = compute_logits(network, _sample(world), world.pad, world.settings)
    alike = float(np.corrcoef(logits[:, 0], members.mean(0)[:, 0])[0, 1])
    if not alike >= MIN_AVERAGING_CORRELATION:
        network.load_state_dict(states[0])
        why = f"the mean of the folds' weights disagrees with them (r = {alike:.2f}): this is the first fold's network"
        return network.eval(), why
    match_logit_scale(network, logits, members)
    return network.eval(), ""


def match_logit_scale(network: ModerationNetwork, logits: np.ndarray, members: np.ndarray) -> None:
    """Gives the mean network the scale of its members, whose logits the thresholds were chosen on.

    Between two minima logits are flatter: the mean of weights keeps the order of rows, not the spread. `members`
    `[folds, n, outputs]` and `logits` `[n, outputs]` are of the same rows.
    """
    ratio = members.std(1).mean(0) / np.maximum(logits.std(0), 1e-6)
    scale = torch.tensor(ratio, dtype=torch.float32)
    shift = torch.tensor(members.mean((0, 1)) - ratio * logits.mean(0), dtype=torch.float32)
    with torch.no_grad():
        network.head.weight *= scale[:, None]
        network.head.bias.copy_(network.head.bias * scale + shift)


def _evidence(
    world: _World, folds: Sequence[Path]
) -> tuple[OutOfFoldLogits, NgramRegression | None]:
    """Out-of-fold logits of both models for every row, and the n-gram model on all rows."""
    targets = np.array([i.targets for i in world.items], float)
    encoder = np.zeros_like(targets)
    ngrams = np.zeros_like(targets)
    for fold, path in enumerate(folds[: world.settings.trained_folds]):
        inside = (
            world.folds == fold if world.settings.folds > 1 else np.ones(len(world.items), bool)
        )
        encoder[inside] = np.load(path / "logits.npy")
    whole = None
    if world.settings.ngram_bits:
        x = ngram_matrix([i.row for i in world.items], world.settings.ngram_bits)
        weight = _weights(world, targets.shape[1])
        if world.settings.folds > 1:
            for fold in range(world.settings.trained_folds):
                inside = world.folds == fold
                rest = np.flatnonzero(~inside)
                ngrams[inside] = fit_linear(x[rest], targets[rest], weight[rest]).logits(
                    x[np.flatnonzero(inside)]
                )
        whole = fit_linear(x, targets, weight)
        if world.settings.folds == 1:
            ngrams[:] = whole.logits(x)
    seen = _measured(world)
    return OutOfFoldLogits(encoder[seen], ngrams[seen], targets[seen], _parts(world)[seen]), whole


def _measured(world: _World) -> np.ndarray:
    """The rows that a model measured which had not learned them (with one fold: all rows, learned as they are)."""
    if world.settings.folds == 1:
        return np.ones(len(world.items), bool)
    return np.asarray(world.folds < world.settings.trained_folds)


def _parts(world: _World) -> np.ndarray:
    """The folds, in whose turn thresholds are chosen without one; of a single one the two halves of its prompts."""
    if world.settings.trained_folds > 1 or world.settings.folds == 1:
        return world.folds
    return split_in_halves(world.items, world.settings.folds)


def split_in_halves(items: Sequence[ModerationExample], folds: int) -> np.ndarray:
    """0 or 1 for each row by the hash of its prompt, independent of fold and tenth."""
    return np.array([int(i.key, 16) // (30 * folds) % 2 for i in items])


def _weights(world: _World, outputs: int) -> np.ndarray:
    """The weight of each row for each output: its set's passes, and little for categories in sets that list none."""
    passes = {s.items[0].source: s.weight for s in world.sources}
    lists = sets_with_categories(world.items)
    made = np.repeat(np.array([passes[i.source] for i in world.items])[:, None], outputs, 1)
    made[[i.source not in lists for i in world.items], 3:] *= 0.15
    return made


def fold_mix_into_head(
    network: ModerationNetwork, linear: NgramRegression | None, choice: Calibration
) -> dict[str, torch.Tensor]:
    """Folds the mix into the head; gives the n-gram tensors, mixed and quantised."""
    mix = choice.mix
    a, b, gate, c = (
        torch.tensor(v, dtype=torch.float32) for v in (mix.a, mix.b, mix.gate, mix.bias)
    )
    with torch.no_grad():
        weight, bias = network.head.weight.clone(), network.head.bias.clone()
        network.head.weight.copy_(weight * a[:, None])
        network.head.bias.copy_(bias * a + c)
        network.head.weight[3:] += gate[:, None] * weight[0]
        network.head.bias[3:] += gate * bias[0]
        if linear is None:
            return {}
        network.head.bias += torch.from_numpy(linear.bias) * b
    quantised, scale = quantise_columns(linear.weight * np.asarray(mix.b, np.float32))
    tensors = {"weight": quantised, "scale": scale}
    return {
        **{k: torch.from_numpy(v) for k, v in tensors.items()},
        "idf": torch.from_numpy(linear.idf).half(),
    }


def _finish(world: _World, folds: Sequence[Path]) -> ModerationResult:
    """Writes the folder: tensors first, `truing.json` last."""
    out = world.settings.folder
    evidence, linear = _evidence(world, folds)
    measured = [i for i, seen in zip(world.items, _measured(world)) if seen]
    home = np.array([i.source == world.home for i in measured])
    prompts = np.array([i.alone for i in measured])
    choice = fit_calibration(evidence, home, prompts)
    np.save(out / "folds" / MIXED_LOGITS_FILE, choice.mix.apply(evidence.encoder, evidence.ngrams))
    (out / "truing.json").unlink(missing_ok=True)
    network, note = _mean(world, folds)
    ngrams = fold_mix_into_head(network, linear, choice)
    write_head(network, out, ngrams)
    base = None
    if world.settings.form != "full":
        whole = truncate_layers(
            load_encoder(world.base, dtype="float32", device="cpu").model, world.settings.layers
        )
        base = {k: v.clone() for k, v in whole.state_dict().items()}
    write_body(network, world.tokenizer, out, base, world.settings.rank)
    write_json(out / "thresholds.json", build_thresholds(world.ids, choice))
    settings = _folder_settings(world)
    write_json(out / "truing.json", settings)
    card = _card(world, settings, evidence, measured, note)
    cards.write_card(out / "card.json", card)
    return ModerationResult(out, card.judge_hash, card)


def build_thresholds(ids: Sequence[str], choice: Calibration) -> ClassifierThresholds:
    """`thresholds.json` of what was chosen."""
    alone_ = max(
        choice.harmful, choice.harmful_prompt
    )  # a text of unknown role: the stricter of the two
    return ClassifierThresholds(
        harmful={"pair": choice.harmful, "prompt": choice.harmful_prompt, "response": alone_},
        refused=choice.refused,
        categories={c: float(t) for c, t in zip(ids, choice.categories)},
    )


def _folder_settings(world: _World) -> FolderSettings:
    s = world.settings
    licences = "; ".join(dict.fromkeys(x.licence for x in world.sources if x.licence))
    data = tuple(x.spec for x in world.sources)
    lineage = Lineage(
        name=f"moderation:{s.folder.name}",
        base=world.base.title or world.base.name,
        base_sha256=world.base.sha256,
        data=data,
        prompts=hash_prompts(i.piece.turns[-1] for i in world.items if i.piece.turns),
        licence=licences,
        judges=tuple(j for x in world.sources for j in x.judges),
    )
    notice = "trained on data for non-commercial use: research only" if "NC" in licences else ""
    return FolderSettings(
        kind="moderation",
        base=s.base,
        base_sha256=world.base.sha256,
        form="full" if s.form == "full" else "delta",
        layers=0 if s.form == "full" else s.layers,
        categories=world.ids,
        prompt_tokens=s.prompt_tokens,
        response_tokens=s.response_tokens,
        languages=s.languages,
        data=data,
        lineage=lineage,
        licence=licences,
        notice=notice,
    )


def _method(settings: ModerationTrainingSettings) -> str:
    """How the card's figures came about, for two folds and more."""
    made = f"{settings.folds} folds by normalised prompt"
    if settings.trained_folds == 1:
        made += ", one of them measured; mix and thresholds for each half of it chosen on the other"
    elif settings.trained_folds < settings.folds:
        made += f", {settings.trained_folds} of them measured; mix and thresholds chosen without the fold"
    else:
        made += "; mix and thresholds chosen without the fold"
    return made + (
        "; what is shipped learned every row and was not measured itself" if settings.whole else ""
    )


def _card(
    world: _World,
    settings: FolderSettings,
    evidence: OutOfFoldLogits,
    items: Sequence[ModerationExample],
    note: str,
) -> cards.ClassifierCard:
    home = np.array([i.source == world.home for i in items])
    prompts = np.array([i.alone for i in items])
    if world.settings.folds > 1:
        p, said = cross_fit(evidence, home, prompts)
        method = _method(world.settings)
    else:
        from truing.train.moderation.calibration import sigmoid

        picked = fit_calibration(evidence, home, prompts)
        p = sigmoid(picked.mix.apply(evidence.encoder, evidence.ngrams))
        said = p >= np.concatenate(
            [[picked.harmful, picked.harmful_prompt, picked.refused], picked.categories]
        )
        method = "on the rows that it was trained on: says nothing of new ones (folds = 1)"
    found = cards.compute_card_metrics(items, p, said, world.home, world.ids)
    asked = found["questions"].get("harmful")
    absent = [c for k, c in enumerate(world.ids) if not (evidence.targets[:, 3 + k] == 1).any()]
    notes = tuple(
        n for n in (note, f"no positive row for: {', '.join(absent)}" if absent else "") if n
    )
    return cards.ClassifierCard(
        judge=settings.lineage.name,
        judge_hash=hash_classifier_folder(world.settings.folder),
        data=world.sources[0].spec,
        data_hash=world.sources[0].sha256,
        method=method,
        ece=asked.ece if asked else None,
        kappa=asked.kappa if asked else None,
        languages=settings.languages,
        lineage=cards.summarise_lineage(settings.lineage),
        licence=settings.licence,
        notes=notes,
        **found,
    )
