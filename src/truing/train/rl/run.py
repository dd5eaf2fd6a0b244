"""A whole RL run, from data sets and judges to a model folder; the same call resumes.

    settings = RLSettings(method="ppo-lag", out="runs/safe")
    result = train_rl(settings, [dataset], RewardSpec([reward_judge], [cost_judge]))

Reward and cost models that truing trained as adapters on the run's own base can share its backbone
(`SharedScorer`); every other judge runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from msgspec import Struct

from truing.core.errors import LineageError, PlanError, RunError
from truing.core.licences import join_licences
from truing.core.lineage import digest, find_judge_conflict, hash_prompts
from truing.core.protocols import Dataset, Judge
from truing.core.types import Lineage
from truing.distributed.process_group import ProcessGroup, launched_processes
from truing.distributed.shared_errors import share_errors
from truing.hf.loading import (
    context_length,
    load_causal_lm,
    select_device,
    select_training_attention,
)
from truing.train import checkpoint
from truing.train.batches import ExampleEncoder
from truing.train.checkpoint import seed_all
from truing.train.examples import TrainingSet
from truing.train.frozen_base import storage_dtype
from truing.train.frozen_prompts import read_trainable_samples
from truing.train.harm_check import check_training_data
from truing.train.model_card import read_model_card
from truing.train.model_folder import export_dtype, save_model
from truing.train.rl.current_policy import policy_lineage
from truing.train.rl.generate import AnswerGenerator
from truing.train.rl.older_settings import keep_older_settings
from truing.train.rl.policy_models import (
    POLICY,
    PolicyModels,
    SeparateModels,
    SharedBackboneModels,
    critic_roles,
)
from truing.train.rl.pretraining_text import pretraining_batches
from truing.train.rl.reward_signals import RewardSignals, WeightedSignal
from truing.train.rl.reward_spec import RewardSpec, build_signals
from truing.train.rl.rollout import TokenizedPrompt, tokenize_prompts
from truing.train.rl.settings import RLSettings
from truing.train.rl.trainer import RLTrainer, TrainerOptions, run_identity
from truing.train.rl.training_page import write_training_page
from truing.train.run_lock import lock_run_folder
from truing.train.run_manifest import MANIFEST_FILE, find_finished, write_manifest
from truing.train.settings import TrainingSettings
from truing.train.sharded_checkpoint import is_sharded_checkpoint, read_sharded_weights
from truing.train.sharded_model import load_for_shards, shard_backbone
from truing.train.step_loop import SliceLimit
from truing.train.trainable_model import (
    BaseModel,
    find_base_model,
    load_frozen_lm,
    training_dtype,
)
from truing.train.training_log import LogCallback


@dataclass(frozen=True)
class RLOptions:
    """Optional parts of a run.

    `on_log` is called with each line of the log. `measure` is called every `sample_every` steps;
    `evaluation_judge` is the judge that it measures by, which must have no part in the training.
    `ptx_sources` is the text of the ptx loss, `make_generator` returns another answer generator,
    `limit` is the largest number of prompts, `slice_limit` ends a slice of the run. `allow_frozen`
    trains on prompts of the frozen measurement set too.
    """

    on_log: LogCallback | None = None
    measure: Callable[[int, RLTrainer], dict[str, float]] | None = None
    evaluation_judge: Judge | None = None
    ptx_sources: Sequence[TrainingSet] = ()
    make_generator: Callable[[PolicyModels, RLSettings], AnswerGenerator] | None = None
    limit: int | None = None
    slice_limit: SliceLimit | None = None
    allow_red_team: bool = False
    allow_frozen: bool = False


class RLResult(Struct, frozen=True, kw_only=True):
    """The result of a run.

    `done_now` counts the steps of this call, `last` is the last line of the log, `left_out` counts
    prompts longer than `max_prompt`. `finished` is False after a slice that ended before the run;
    there is no model yet then.
    """

    folder: Path
    lineage: Lineage
    steps: int
    done_now: int
    last: dict[str, Any] = {}
    left_out: int = 0
    warnings: tuple[str, ...] = ()
    finished: bool = True


@dataclass
class _RunParts:
    """Everything that is loaded before the first step."""

    models: SharedBackboneModels | SeparateModels
    prompts: list[TokenizedPrompt]
    too_long: list[str]
    signals: RewardSignals
    base: BaseModel
    data: list[dict[str, Any]]
    lineage: Lineage
    warnings: list[str] = field(default_factory=list)

    @property
    def data_digest(self) -> str:
        """A hash of the data sets and of the number of prompts."""
        return digest(*(str(entry) for entry in self.data))


def train_rl(
    settings: RLSettings,
    data: Sequence[Dataset],
    reward_spec: RewardSpec,
    options: RLOptions | None = None,
) -> RLResult:
    """Trains into `settings.out`, or resumes there, and writes the model folder.

    Raises UserError before the first answer is sampled if anything is wrong.
    """
    options = options or RLOptions()
    settings = keep_older_settings(settings.validated(costs=bool(reward_spec.costs)))
    # One process locks the folder for all.
    with (
        launched_processes(select_device(settings.device)) as processes,
        share_errors(),
        lock_run_folder(settings.folder) if processes.is_main else nullcontext(),
    ):
        return _train(settings, data, reward_spec, options, processes)


def _train(
    settings: RLSettings,
    data: Sequence[Dataset],
    reward_spec: RewardSpec,
    options: RLOptions,
    processes: ProcessGroup,
) -> RLResult:
    parts = _load_parts(settings, data, reward_spec, options, processes)
    finished = _finished_result(settings, parts)
    if finished is not None:
        return finished
    trainer = _build_trainer(settings, parts, options)
    trainer.resume()  # before the manifest is written: the folder may hold another run
    if processes.is_main:
        _write_manifest(settings, parts)
    loop_result = trainer.run(options.slice_limit)
    lineage = parts.lineage
    if processes.is_main:
        write_training_page(settings.folder)
        if loop_result.finished:
            lineage = _export_model(settings, parts)
    processes.barrier()
    return RLResult(
        folder=settings.folder,
        lineage=lineage,
        steps=trainer.step,
        done_now=loop_result.steps,
        last=dict(loop_result.values),
        left_out=len(parts.too_long),
        warnings=tuple(parts.warnings),
        finished=loop_result.finished,
    )


def _build_trainer(settings: RLSettings, parts: _RunParts, options: RLOptions) -> RLTrainer:
    ptx_batches = None
    if options.ptx_sources:
        ptx_batches = pretraining_batches(options.ptx_sources, settings, parts.models.tokenizer)
    elif settings.ptx:
        raise PlanError("ptx > 0 needs text: --ptx-data SPEC")
    generator = None
    if options.make_generator is not None:
        generator = options.make_generator(parts.models, settings)
    trainer_options = TrainerOptions(
        generator=generator,
        pretraining_batches=ptx_batches,
        on_log=_collect_warnings(options.on_log, parts.warnings),
        measure=options.measure,
        base_sha256=parts.base.weights.sha256,
        data_digest=parts.data_digest,
    )
    return RLTrainer(parts.models, parts.prompts, parts.signals, settings, trainer_options)


def _collect_warnings(on_log: LogCallback | None, warnings: list[str]) -> LogCallback:
    """Returns a log callback that appends warnings to a list and calls `on_log`."""

    def collect(row: dict[str, Any]) -> None:
        if row.get("warning"):
            warnings.append(f"step {row['step']}: {row['warning']}")
        if on_log is not None:
            on_log(row)

    return collect


# -- loading


class _Sharding(NamedTuple):
    """The processes that share the weights, and the device of this one."""

    processes: ProcessGroup
    device: torch.device


def _load_parts(
    settings: RLSettings,
    data: Sequence[Dataset],
    reward_spec: RewardSpec,
    options: RLOptions,
    processes: ProcessGroup,
) -> _RunParts:
    base = find_base_model(settings.base)
    for dataset in data:
        check_training_data(dataset.info, allow_red_team=options.allow_red_team)
    seed_all(settings.seed)
    device = select_device(settings.device)
    attention = select_training_attention(settings.max_length, device)
    compute_dtype = _compute_dtype(settings, device)
    held = storage_dtype(
        settings.base_dtype, compute_dtype, lora=settings.lora, shard=settings.shard
    )
    sharding = _Sharding(processes, device) if settings.shard and processes.size > 1 else None
    if sharding is not None:
        loaded = load_for_shards(base.weights, "AutoModelForCausalLM", attention)
    else:
        loaded = load_frozen_lm(base.weights, held, device, attention)
    most_tokens = context_length(loaded.model)
    if settings.max_length > most_tokens:
        raise PlanError(
            f"max_prompt + max_new = {settings.max_length}: {base.weights.name} reads at most "
            f"{most_tokens} tokens"
        )
    # The encoder is that of supervised training and takes its settings; the kind has no effect.
    supervised_settings = TrainingSettings(
        kind="distil", out=settings.out, base=settings.base, template=settings.template
    )
    encoder = ExampleEncoder(loaded.tokenizer, supervised_settings)
    samples = read_trainable_samples(data, options.allow_frozen)[: options.limit]
    prompts, too_long = tokenize_prompts(samples, encoder, max_tokens=settings.max_prompt)
    critics = critic_roles(settings, costs=bool(reward_spec.costs))
    models = _build_models(settings, loaded, critics, compute_dtype, sharding)
    signals = build_signals(models, reward_spec, base.weights.sha256, settings)
    lineage = policy_lineage(
        f"{settings.method}:{settings.folder.name}",
        base.lineage,
        signals.lineages,
        hash_prompts(prompt.sample.prompt for prompt in prompts),
        red_model=signals.red_model_mark(settings.red_model) or base.lineage.red_model,
        data=(*base.lineage.data, *(dataset.info.spec for dataset in data)),
        licence=join_licences(base.lineage.licence, *(dataset.info.licence for dataset in data)),
    )
    _check_evaluation_judge(options.evaluation_judge, lineage)
    manifest_data: list[dict[str, Any]] = [
        {"spec": dataset.info.spec, "sha256": dataset.sha256()} for dataset in data
    ]
    manifest_data.append({"prompts": len(prompts), "too_long": len(too_long)})
    return _RunParts(models, prompts, too_long, signals, base, manifest_data, lineage)


def _compute_dtype(settings: RLSettings, device: torch.device) -> torch.dtype | None:
    """Returns the autocast dtype of forward passes, or None for float32."""
    dtype = training_dtype(settings, device)
    return None if dtype is torch.float32 else dtype


def _check_evaluation_judge(judge: Judge | None, lineage: Lineage) -> None:
    """Raises LineageError if the judge has a part in the training that it should measure."""
    objection = None if judge is None else find_judge_conflict(judge.lineage, lineage)
    if judge is not None and objection is not None:
        raise LineageError(
            f"{judge.name} may not measure this run: {objection}; give a judge that had no part "
            f"in it"
        )


def _build_models(
    settings: RLSettings,
    loaded: Any,
    critics: tuple[str, ...],
    compute_dtype: torch.dtype | None,
    sharding: _Sharding | None = None,
) -> SharedBackboneModels | SeparateModels:
    """Returns the models of the roles; with `sharding` each process holds parts of them."""
    models: SharedBackboneModels | SeparateModels
    if settings.lora:
        if sharding is not None:
            shard_backbone(loaded.model, loaded.weights, sharding.processes, sharding.device)
        models = SharedBackboneModels(
            loaded.model,
            loaded.tokenizer,
            critics,
            rank=settings.lora,
            first_layer=settings.lora_from,
            compute_dtype=compute_dtype,
            checkpointing=settings.checkpointing,
        )
    else:
        models = SeparateModels(
            loaded.model,
            loaded.tokenizer,
            critics,
            compute_dtype=compute_dtype,
            checkpointing=settings.checkpointing,
            device=sharding.device if sharding is not None else None,
        )
    if sharding is not None:
        models.shard(sharding.processes, loaded.weights)
    return models


# -- the run folder


def _write_manifest(settings: RLSettings, parts: _RunParts) -> None:
    def describe_signals(signals: Sequence[WeightedSignal]) -> list[dict[str, Any]]:
        return [{"name": s.signal.name, "weight": s.weight} for s in signals]

    manifest = {
        "settings": msgspec.to_builtins(settings),
        "data": parts.data,
        "base": parts.base.weights.name,
        "base_sha256": parts.base.weights.sha256,
        "red_model": parts.lineage.red_model,
        "rewards": describe_signals(parts.signals.rewards),
        "costs": describe_signals(parts.signals.costs),
        "constraints": {
            cost.name: describe_signals(cost.signals) for cost in parts.signals.constraints
        },
    }
    write_manifest(settings.folder / MANIFEST_FILE, manifest)


def _finished_result(settings: RLSettings, parts: _RunParts) -> RLResult | None:
    """Returns the result of a run that is already done, or None."""
    identity = run_identity(
        settings,
        parts.signals,
        step=settings.steps,
        base_sha256=parts.base.weights.sha256,
        data_digest=parts.data_digest,
    )
    card = find_finished(settings, identity, settings.export_dtype)
    if card is None:
        return None
    newest = checkpoint.list_checkpoints(settings.folder)[-1]  # a finished run has one
    return RLResult(
        folder=settings.folder,
        lineage=card.lineage,
        steps=checkpoint.read_identity(newest).step,
        done_now=0,
        left_out=len(parts.too_long),
    )


@dataclass
class MergedPolicy:
    """A policy whose adapters are merged, as `save_model` writes it."""

    model: Any
    tokenizer: Any
    settings: RLSettings


def _export_model(settings: RLSettings, parts: _RunParts) -> Lineage:
    """Writes the model folder as supervised training does: adapter, merged weights, then the card.

    The card comes last because its presence marks the run as finished.
    """
    models = parts.models
    if models.lockstep.processes is not None:
        models = _load_from_checkpoint(settings, parts)
    if isinstance(models, SharedBackboneModels):
        with checkpoint.name_write_errors(settings.folder):
            models.save_policy_adapter(settings.folder / "adapter")
    policy = models.merged_policy(export_dtype(settings, parts.base))
    merged_settings = msgspec.structs.replace(settings, lora=0)
    merged = MergedPolicy(policy, models.tokenizer, merged_settings)
    save_model(merged, parts.base, parts.lineage)
    card = read_model_card(settings.folder)
    return card.lineage if card is not None else parts.lineage


def _load_from_checkpoint(
    settings: RLSettings, parts: _RunParts
) -> SharedBackboneModels | SeparateModels:
    """Loads the policy of the last checkpoint with whole weights; those of the run are sharded."""
    loaded = load_causal_lm(parts.base.weights, dtype="float32", device="cpu")
    models = _build_models(settings, loaded, (), None)
    folder = checkpoint.latest_checkpoint(settings.folder)
    if folder is None:
        raise RunError(f"{settings.folder}: the run left no checkpoint to export the model from")
    if is_sharded_checkpoint(folder):
        read_sharded_weights(folder, POLICY, dict(models.named_parameters(POLICY)))
    else:
        models.load_state_dict(POLICY, checkpoint.load_torch_file(folder, f"{POLICY}.pt"))
    return models
