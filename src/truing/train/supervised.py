"""Supervised training: sft, distil, reward, cost, dpo and kto.

    result = train_supervised(
        TrainingSettings(kind="dpo", out="runs/dpo"), [read_training_set(data, "dpo")]
    )

The same call resumes from the newest checkpoint. Several processes share each batch (`accelerate
launch -m truing train ...`). A loss or gradient that is not finite stops the run before it reaches
the weights; the last good state is saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from msgspec import Struct

from truing.core.errors import RunError
from truing.core.types import Lineage
from truing.distributed.process_group import ProcessGroup, launched_processes
from truing.distributed.shared_errors import share_errors
from truing.hf.loading import select_device
from truing.train import checkpoint as ck
from truing.train.batches import ExampleEncoder, PromptWrapper
from truing.train.data_mix import (
    EncodedMix,
    add_benign_examples,
    count_steps,
    split_held_out,
)
from truing.train.examples import TrainingExample, TrainingSet
from truing.train.harm_check import check_objective
from truing.train.model_card import read_model_card
from truing.train.model_folder import build_lineage, save_model
from truing.train.objectives import cache_teacher_prefix
from truing.train.pair_evaluation import evaluate_model, write_evaluation
from truing.train.run_lock import lock_run_folder
from truing.train.run_manifest import build_manifest, find_finished
from truing.train.settings import TrainingSettings
from truing.train.sharded_checkpoint import is_sharded_checkpoint, read_sharded_weights
from truing.train.step_loop import LoopResult, SliceLimit
from truing.train.trainable_model import (
    BaseModel,
    TrainableModel,
    build_trainable_model,
    find_base_model,
    load_trainable_state,
)
from truing.train.training_log import LogCallback
from truing.train.training_loop import MODEL_PART, STATE_FILE, TrainingLoop


class TrainingResult(Struct, frozen=True, kw_only=True):
    """What a run left.

    `steps` are those of the whole run, `done_now` those of this call, `last` the last logged
    values. `finished` is False after a slice that ended before the run; there is no model yet then.
    """

    folder: Path
    lineage: Lineage
    steps: int
    done_now: int
    last: dict[str, Any] = {}
    held_out: tuple[TrainingExample, ...] = ()
    finished: bool = True


def train_supervised(
    settings: TrainingSettings,
    sources: Sequence[TrainingSet],
    *,
    fill: TrainingSet | None = None,
    wrap: PromptWrapper | None = None,
    on_log: LogCallback | None = None,
    tests: Mapping[str, Sequence[TrainingExample]] | None = None,
    limit: SliceLimit | None = None,
) -> TrainingResult:
    """Trains into `settings.out`, or resumes there; a finished run is returned as it is.

    `fill` holds benign look-alikes to top up the mix with; `wrap` adds the teacher's prompt
    (distil). A reward or cost model is evaluated on the held-out examples and on `tests` (name ->
    pairs). With a `limit` only a slice of the run is done; the same call goes on. Raises PlanError
    if the folder holds another run or the objective trains towards harm, DataError if no rows are
    left, RunError if another process trains into the folder or the disk is full, and
    NonFiniteLossError.
    """
    settings = settings.checked()
    base = find_base_model(settings.base)
    mixed = add_benign_examples(settings, sources, fill)
    training_sets, held_out = split_held_out(mixed, settings.held_out)
    red_model = check_objective(settings, training_sets, base.lineage)
    device = select_device(settings.device)
    with (
        launched_processes(device) as processes,
        share_errors(),
        lock_run_folder(settings.folder) if processes.is_main else nullcontext(),
    ):
        trainable = build_trainable_model(settings, base, device, processes)
        mix = EncodedMix(training_sets, _build_encoder(trainable, wrap))
        steps = count_steps(mix.sources, settings)
        manifest = build_manifest(settings, mix.sources, base, steps, red_model)
        card = find_finished(settings, manifest.identity(steps), settings.export_dtype)
        lineage = card.lineage if card is not None else None
        loop_result = LoopResult({}, 0, finished=True)
        if lineage is None:
            if settings.kind == "distil":
                cache_teacher_prefix(trainable, mix.all_rows())
            loop = TrainingLoop(processes, trainable, mix, manifest, on_log)
            loop_result = loop.run(limit)
            lineage = build_lineage(settings, base, mix.sources, red_model)
            if loop_result.finished:
                test_sets = {"held_out": held_out, **(tests or {})}
                lineage = _finish(processes, loop, base, lineage, test_sets)
    return TrainingResult(
        folder=settings.folder,
        lineage=lineage,
        steps=steps,
        done_now=loop_result.steps,
        last=loop_result.values,
        held_out=tuple(held_out),
        finished=loop_result.finished,
    )


def _build_encoder(trainable: TrainableModel, wrap: PromptWrapper | None) -> ExampleEncoder:
    settings, tokenizer = trainable.settings, trainable.tokenizer
    body = trainable.model.body if settings.scalar else trainable.model
    architecture = (getattr(body.config, "architectures", None) or [""])[0]
    is_encoder = (
        settings.scalar and not getattr(tokenizer, "chat_template", None) and "Bert" in architecture
    )
    return ExampleEncoder(tokenizer, settings, encoder=is_encoder, wrap=wrap)


def _finish(
    processes: ProcessGroup,
    loop: TrainingLoop,
    base: BaseModel,
    lineage: Lineage,
    test_sets: Mapping[str, Sequence[TrainingExample]],
) -> Lineage:
    """Evaluates and writes the trained model in the main process; returns its lineage."""
    processes.barrier()
    if processes.is_main:
        settings, trainable = loop.settings, loop.trainable
        if trainable.is_sharded:
            # The other processes hold parts of the weights; the last checkpoint holds all of them.
            trainable = _load_from_checkpoint(settings, base, trainable.device)
        if settings.scalar:
            # Before the adapters are merged: save_model changes the model.
            _evaluate(trainable, loop.mix.encoder, test_sets)
        save_model(trainable, base, lineage)
        card = read_model_card(settings.folder)
        if card is None:
            raise RunError(f"{settings.folder}: the model folder disappeared after it was written")
        lineage = card.lineage
    processes.barrier()
    return lineage


def _load_from_checkpoint(
    settings: TrainingSettings, base: BaseModel, device: torch.device
) -> TrainableModel:
    """Loads the model of the last checkpoint with whole weights, in this process alone."""
    # To be evaluated on the device; a language model is only written, from the CPU's memory.
    trainable = build_trainable_model(
        settings, base, device if settings.scalar else torch.device("cpu")
    )
    path = ck.latest_checkpoint(settings.folder)
    if path is None:
        raise RunError(f"{settings.folder}: the run left no checkpoint to export the model from")
    named = trainable.model.named_parameters()
    parameters = {name: parameter for name, parameter in named if parameter.requires_grad}
    if is_sharded_checkpoint(path):
        read_sharded_weights(path, MODEL_PART, parameters)
    else:
        weights = ck.load_torch_file(path, STATE_FILE)["weights"]
        load_trainable_state(trainable.model, weights)
    return trainable


def _evaluate(
    trainable: TrainableModel,
    encoder: ExampleEncoder,
    test_sets: Mapping[str, Sequence[TrainingExample]],
) -> None:
    evaluations = {
        name: evaluate_model(trainable, items, encoder)
        for name, items in test_sets.items()
        if items
    }
    if evaluations:
        write_evaluation(trainable.settings.folder, evaluations)
