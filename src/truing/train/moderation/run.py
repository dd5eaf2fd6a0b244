"""`truing train moderation`: trains the folds, then writes the classifier.

    OUT/run.json  log.jsonl  checkpoint-N/  folds/    the run; the same command resumes it
    OUT/truing.json  thresholds.json  card.json       the classifier, the judge `moderation:OUT`
        head.safetensors  model.safetensors (or delta.safetensors)

The probabilities in the card are those of the fold that did not see the prompt, and what is chosen
on them (mixing weights, thresholds) is chosen again without that fold: no row is measured by what
learned it or was chosen on it.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch
from safetensors.torch import save_file

from truing.core.errors import RunError
from truing.core.private_files import create_folder, replace_file
from truing.distributed.shared_errors import share_errors
from truing.judges.moderation.network import ModerationNetwork
from truing.train import checkpoint as ck
from truing.train.moderation.classifier_export import ModerationResult, export_classifier
from truing.train.moderation.examples import ModerationTrainingSet
from truing.train.moderation.finished_run import NETWORK_FILE
from truing.train.moderation.fold_evidence import LOGITS_FILE
from truing.train.moderation.fold_training import (
    STATE_FILE,
    FoldTrainer,
    FoldTrainingContext,
    compute_logits,
)
from truing.train.moderation.run_context import RunContext, prepare_run
from truing.train.moderation.settings import ModerationTrainingSettings
from truing.train.moderation.weight_average import SHARED_LOGITS_FILE
from truing.train.run_lock import lock_run_folder
from truing.train.run_manifest import check_same_run, read_manifest, write_manifest
from truing.train.step_loop import SliceLimit
from truing.train.tracker import open_tracker
from truing.train.training_log import LogCallback, TrainingLog, read_last_step

if TYPE_CHECKING:
    from accelerate import Accelerator

STEPS_FILE = "steps"  # in the folder of a fold: the steps of the run after it


def train_moderation(
    settings: ModerationTrainingSettings,
    sources: Sequence[ModerationTrainingSet],
    *,
    on_log: LogCallback | None = None,
    limit: SliceLimit | None = None,
) -> ModerationResult | None:
    """Trains into `settings.out`, or resumes there; the folder is the judge `moderation:OUT`.

    With a `limit` only a slice of the run is done, and None is returned until the last one.
    Raises PlanError if the settings are wrong or the folder holds another run, and RunError if
    another process trains into it.
    """
    from accelerate import Accelerator

    settings = settings.checked()
    use_cpu = not torch.cuda.is_available() or settings.device == "cpu"
    accelerator = Accelerator(cpu=use_cpu)
    is_main = accelerator.is_main_process
    with share_errors(), lock_run_folder(settings.folder) if is_main else nullcontext():
        context = prepare_run(settings, sources)
        _write_run_file(context)
        if not _train_folds(context, accelerator, on_log, limit):
            return None
        with ck.name_write_errors(settings.folder):
            return export_classifier(context)


def _write_run_file(context: RunContext) -> None:
    """Writes `run.json`.

    Raises PlanError if the folder is of another run, RunError if it cannot be told.
    """
    path = context.settings.folder / "run.json"
    digest = context.identity.digest
    if path.is_file():
        stored = read_manifest(path).get("digest")
        if not isinstance(stored, str):
            raise RunError(f"{path}: cannot be read; give another --out")
        check_same_run(path, digest, stored, context.settings)
    write_manifest(path, {"digest": digest, "settings": msgspec.to_builtins(context.settings)})


def _train_folds(
    context: RunContext,
    accelerator: Accelerator,
    on_log: LogCallback | None,
    limit: SliceLimit | None,
) -> bool:
    """Trains the networks that are not there yet, each with the logits of its fold's rows.

    Returns False if the slice ended before the last of them.
    """
    steps_before = 0
    for fold, folder in context.fold_folders.items():
        if not (folder / LOGITS_FILE).is_file():
            trainer = _build_trainer(context, accelerator, fold, steps_before, on_log)
            network = trainer.run(limit)
            if network is None:
                return False
            if accelerator.is_main_process:
                _save_fold(context, fold, folder, network)
            accelerator.wait_for_everyone()
        steps_file = folder / STEPS_FILE
        if steps_file.is_file():
            steps_before = int(steps_file.read_text())
        else:
            steps_before = read_last_step(context.settings.folder)
            replace_file(steps_file, str(steps_before).encode())
    return True


def _build_trainer(
    context: RunContext,
    accelerator: Accelerator,
    fold: int,
    steps_before: int,
    on_log: LogCallback | None,
) -> FoldTrainer:
    settings = context.settings
    resume, checkpoint_step = _find_checkpoint(context, fold)
    log = TrainingLog(
        settings.folder,
        first=(checkpoint_step or steps_before) + 1,
        tensorboard=settings.tensorboard,
        on_log=on_log,
        tracker=open_tracker(settings) if accelerator.is_main_process else None,
    )
    fold_context = FoldTrainingContext(
        settings=settings,
        base=context.base,
        items=[item for item, out in zip(context.items, context.in_fold(fold)) if not out],
        passes=context.passes,
        categories=len(context.category_ids),
        pad_id=context.pad_id,
        log=log,
        identity=context.identity,
        accelerator=accelerator,
        start=context.start,
    )
    return FoldTrainer(fold_context, fold, first_step=steps_before, resume=resume)


def _find_checkpoint(context: RunContext, fold: int) -> tuple[Path | None, int]:
    """Returns the newest checkpoint and its step if it is of this fold, else (None, 0)."""
    path = ck.latest_checkpoint(context.settings.folder)
    if path is None:
        return None, 0
    step = ck.check_identity(path, context.identity).step
    if ck.load_torch_file(path, STATE_FILE)["fold"] != fold:
        return None, 0
    return path, step


def _save_fold(context: RunContext, fold: int, folder: Path, network: ModerationNetwork) -> None:
    """Writes the network, the logits of the rows of its fold, and those of the shared sample."""
    settings, pad_id = context.settings, context.pad_id
    in_fold = context.in_fold(fold)
    is_scored = in_fold if settings.folds > 1 else np.ones_like(in_fold)
    rows = [item.row for item, scored in zip(context.items, is_scored) if scored]
    shared_logits = compute_logits(network, context.shared_sample, pad_id, settings)
    logits = compute_logits(network, rows, pad_id, settings)

    shutil.rmtree(folder, ignore_errors=True)
    state = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    encoded_logits = io.BytesIO()
    np.save(encoded_logits, logits)
    with ck.name_write_errors(folder):
        create_folder(folder)
        np.save(folder / SHARED_LOGITS_FILE, shared_logits)
        save_file(state, folder / NETWORK_FILE)
        # The logits come last, and at once: a folder with them is complete.
        replace_file(folder / LOGITS_FILE, encoded_logits.getvalue())
