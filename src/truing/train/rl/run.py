"""A whole RL run from data and judges to a model folder; the same call goes on where it stopped.

    result = train_rl(RLSettings(method="ppo-lag", out="runs/safe"), [dataset], Steering([reward], [cost]))

Reward and cost models that truing trained with adapters on the run's own base share its backbone (`Shared`); every other
judge is asked as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from msgspec import Struct
from torch import Tensor

from truing.core.errors import LineageError, PlanError, RunError
from truing.core.lineage import digest, find_judge_conflict, hash_prompts
from truing.core.protocols import Dataset, Judge
from truing.core.types import Lineage
from truing.distributed.process_group import World
from truing.hf.loading import (
    context_length,
    load_causal_lm,
    select_device,
    select_training_attention,
)
from truing.runs.folder import replace_file
from truing.train import checkpoint
from truing.train.batches import ExampleEncoder, collate_examples
from truing.train.checkpoint import seed_all
from truing.train.examples import TrainingSet
from truing.train.harm_check import check_training_data
from truing.train.model_folder import read_model_card, save_model
from truing.train.rl.adapter_rewards import AdapterSignal
from truing.train.rl.generate import Generator
from truing.train.rl.policy_model import policy_lineage
from truing.train.rl.policy_models import ACTOR, CRITICS, Crew, SeparateCrew, SharedCrew
from truing.train.rl.reward_signals import JudgeSignal, Signal, Signals, Weighted
from truing.train.rl.rollout import Prompt, read_prompts
from truing.train.rl.settings import RLSettings
from truing.train.rl.trainer import Extras, Trainer
from truing.train.rl.training_page import write_page
from truing.train.rl.update import Mix
from truing.train.run_lock import lock_run_folder
from truing.train.settings import TrainingSettings
from truing.train.trainable_model import BaseModel, TrainableModel, find_base_model, training_dtype
from truing.train.training_log import StepCallback


@dataclass(frozen=True)
class Shared:
    """A folder that `truing train reward` or `cost` left, to be put on the run's own backbone."""

    folder: str


Steer = Judge | Shared | Signal


@dataclass(frozen=True)
class Steering:
    """Rewards and costs with their weights (1 where none is given)."""

    rewards: Sequence[Steer]
    costs: Sequence[Steer] = ()
    reward_weights: Sequence[float] = ()
    cost_weights: Sequence[float] = ()


@dataclass(frozen=True)
class Options:
    """What else a run may be given: who hears the log, who measures, pre-training text, another generator, limits.

    `watcher` is the judge that `measure` reports by: it must have no part in the training.
    """

    tell: StepCallback | None = None
    measure: Callable[[int, Trainer], dict[str, float]] | None = None
    watcher: Judge | None = None
    ptx: Sequence[TrainingSet] = ()
    generator: Callable[[Crew, RLSettings], Generator] | None = None
    limit: int | None = None
    allow_red_team: bool = False


class RLResult(Struct, frozen=True, kw_only=True):
    """What a run left: the folder, its lineage, steps done, the last line of the log, prompts that did not fit."""

    folder: Path
    lineage: Lineage
    steps: int
    done_now: int
    last: dict[str, Any] = {}
    left_out: int = 0
    warnings: tuple[str, ...] = ()


@dataclass
class _Parts:
    crew: Any
    prompts: list[Prompt]
    left: list[str]
    signals: Signals
    base: BaseModel
    data: list[dict[str, Any]]
    lineage: Lineage
    warnings: list[str] = field(default_factory=list)


def train_rl(
    settings: RLSettings,
    data: Sequence[Dataset],
    steering: Steering,
    options: Options | None = None,
) -> RLResult:
    """Trains, or goes on training, into `settings.out`; raises UserError before the first answer is drawn."""
    given = options or Options()
    settings = settings.checked(costs=bool(steering.costs))
    with _processes() as world, lock_run_folder(settings.folder) if world.first else nullcontext():
        parts = _build(settings, data, steering, given)
        done = _finished(settings, parts)
        if done is not None:
            return done
        mix = _mix(given.ptx, settings, parts) if given.ptx else None
        if settings.ptx and mix is None:
            raise PlanError("ptx > 0 needs text: --ptx-data SPEC")
        extras = Extras(
            tell=_both(given.tell, parts.warnings),
            measure=given.measure,
            mix=mix,
            base_sha256=parts.base.weights.sha256,
            data=digest(*(str(d) for d in parts.data)),
            generator=given.generator(parts.crew, settings) if given.generator else None,
        )
        trainer = Trainer(parts.crew, parts.prompts, parts.signals, settings, extras)
        trainer.resume()
        first = trainer.step
        if world.first:
            _manifest(settings, parts, steering)
        last = trainer.run()
        lineage = parts.lineage
        if world.first:
            write_page(settings.folder)
            lineage = _export(settings, parts)
        world.wait()
    return RLResult(
        folder=settings.folder,
        lineage=lineage,
        steps=trainer.step,
        done_now=trainer.step - first,
        last=dict(last),
        left_out=len(parts.left),
        warnings=tuple(parts.warnings),
    )


class _processes:
    """The processes that `accelerate launch` or `torchrun` started, if any; an initialised group is left as it is."""

    def __enter__(self) -> World:
        import os

        import torch.distributed as dist

        self.own = (
            int(os.environ.get("WORLD_SIZE", "1")) > 1
            and dist.is_available()
            and not dist.is_initialized()
        )
        if self.own:
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return World()

    def __exit__(self, *error: Any) -> None:
        if self.own:
            import torch.distributed as dist

            if not any(error):
                dist.barrier()  # none leaves while another still has a message under way
            dist.destroy_process_group()


def _both(tell: StepCallback | None, warnings: list[str]) -> StepCallback:
    def hear(row: dict[str, Any]) -> None:
        if row.get("warning"):
            warnings.append(f"step {row['step']}: {row['warning']}")
        if tell is not None:
            tell(row)

    return hear


def _build(
    settings: RLSettings, data: Sequence[Dataset], steering: Steering, given: Options
) -> _Parts:
    base = find_base_model(settings.base)
    for one in data:
        check_training_data(one.info, allow_red_team=given.allow_red_team)
    seed_all(settings.seed)
    device = select_device()
    attention = select_training_attention(settings.max_length, device)
    loaded = load_causal_lm(base.weights, dtype="float32", device=str(device), attention=attention)
    plain = TrainingSettings(
        kind="distil", out=settings.out, base=settings.base, template=settings.template
    )
    widest = context_length(loaded.model)
    if settings.max_length > widest:
        raise PlanError(
            f"max_prompt + max_new = {settings.max_length}: {base.weights.name} reads {widest} tokens at most"
        )
    encoder = ExampleEncoder(loaded.tokenizer, plain)
    samples = [row.sample for d in data for row in d.rows()][: given.limit]
    prompts, left = read_prompts(samples, encoder, longest=settings.max_prompt)
    half = training_dtype(msgspec.structs.replace(plain, dtype=settings.dtype), device)
    crew = _crew(
        settings, loaded, CRITICS[settings.method], None if half is torch.float32 else half
    )
    signals = _signals(crew, steering, encoder, base)
    mark = signals.mark(settings.red_model) or base.lineage.red_model
    hashes = hash_prompts(p.sample.prompt for p in prompts)
    lineage = policy_lineage(
        f"{settings.method}:{settings.folder.name}",
        base.lineage,
        signals.lineages,
        hashes,
        red_model=mark,
        data=(*base.lineage.data, *(d.info.spec for d in data)),
        licence=base.lineage.licence,
    )
    if given.watcher is not None:
        why = find_judge_conflict(given.watcher.lineage, lineage)
        if why is not None:
            raise LineageError(
                f"{given.watcher.name} may not measure this run: {why}; give a judge that had no part in it"
            )
    facts = [{"spec": d.info.spec, "sha256": d.sha256()} for d in data] + [
        {"prompts": len(prompts), "too_long": len(left)}
    ]
    return _Parts(crew, prompts, left, signals, base, facts, lineage)


def _crew(
    settings: RLSettings, loaded: Any, critics: tuple[str, ...], half: torch.dtype | None
) -> SharedCrew | SeparateCrew:
    if settings.lora:
        return SharedCrew(loaded.model, loaded.tokenizer, critics, rank=settings.lora, half=half)
    return SeparateCrew(loaded.model, loaded.tokenizer, critics, half=half)


def _one_piece(settings: RLSettings, parts: _Parts) -> SharedCrew | SeparateCrew:
    """The actor of the last checkpoint on a backbone of its own, for the weights of the run are in pieces."""
    made = _crew(
        settings, load_causal_lm(parts.base.weights, dtype="float32", device="cpu"), (), None
    )
    found = checkpoint.latest_checkpoint(settings.folder)
    if found is None:
        raise RunError(f"{settings.folder}: the run left no checkpoint to make the model from")
    made.load(ACTOR, checkpoint.load_torch_file(found, f"{ACTOR}.pt"))
    return made


def _signals(crew: Any, steering: Steering, encoder: ExampleEncoder, base: BaseModel) -> Signals:
    def listed(steers: Sequence[Steer], weights: Sequence[float], what: str) -> list[Weighted]:
        if weights and len(weights) != len(steers):
            raise PlanError(f"{len(weights)} weights for {len(steers)} {what}")
        made = []
        for at, steer in enumerate(steers):
            signal: Signal
            if isinstance(steer, Shared):
                signal = AdapterSignal.of(
                    crew, steer.folder, f"{what[:-1]}{at}", base.weights.sha256
                )
            else:
                signal = cast(Signal, steer) if hasattr(steer, "score") else JudgeSignal(steer)
            made.append(Weighted(signal, weights[at] if weights else 1.0))
        return made

    rewards = listed(steering.rewards, steering.reward_weights, "rewards")
    costs = listed(steering.costs, steering.cost_weights, "costs")
    for critic, some in (("reward_critic", rewards), ("cost_critic", costs)):
        if critic in crew.critics and len(some) == 1 and isinstance(some[0].signal, AdapterSignal):
            crew.start(critic, some[0].signal.adapter)
    return Signals(rewards, costs)


def _mix(sources: Sequence[TrainingSet], settings: RLSettings, parts: _Parts) -> Mix:
    """Batches of pre-training (or SFT) text, in an order that is a function of the step."""
    plain = TrainingSettings(
        kind="sft",
        out=settings.out,
        base=settings.base,
        template=settings.template,
        max_length=settings.max_length,
    )
    rows = ExampleEncoder(parts.crew.tokenizer, plain).all([i for s in sources for i in s.items])[0]
    if not rows:
        raise PlanError("no row of the pre-training text fits into max_prompt + max_new")
    rows = sorted(rows, key=lambda e: digest(str(settings.seed), e.item.name))

    def mix(step: int) -> tuple[Tensor, Tensor, Tensor]:
        some = [
            rows[(step * settings.ptx_batch + k) % len(rows)] for k in range(settings.ptx_batch)
        ]
        made = collate_examples(some, 0)
        return (
            made.ids,
            made.mask,
            torch.where(made.answer.bool(), made.ids, torch.full_like(made.ids, -100)),
        )

    return mix


def _manifest(settings: RLSettings, parts: _Parts, steering: Steering) -> None:
    plan = {
        "settings": msgspec.to_builtins(settings),
        "data": parts.data,
        "base": parts.base.weights.name,
        "base_sha256": parts.base.weights.sha256,
        "red_model": parts.lineage.red_model,
        "rewards": [{"name": w.signal.name, "weight": w.weight} for w in parts.signals.rewards],
        "costs": [{"name": w.signal.name, "weight": w.weight} for w in parts.signals.costs],
    }
    replace_file(
        settings.folder / "manifest.json", msgspec.json.format(msgspec.json.encode(plan), indent=2)
    )


def _finished(settings: RLSettings, parts: _Parts) -> RLResult | None:
    card = read_model_card(settings.folder)
    if card is None:
        return None
    found = checkpoint.latest_checkpoint(settings.folder)
    step = checkpoint.read_identity(found).step if found is not None else 0
    same = {
        k: v
        for k, v in msgspec.to_builtins(settings).items()
        if k not in ("out", "base", "steps", "lora")
    }
    if any(card.settings.get(k, v) != v for k, v in same.items()):
        raise PlanError(
            f"{settings.folder}: holds a finished model of other settings; give another --out"
        )
    if step < settings.steps:
        return None
    return RLResult(
        folder=settings.folder,
        lineage=card.lineage,
        steps=step,
        done_now=0,
        left_out=len(parts.left),
    )


def _export(settings: RLSettings, parts: _Parts) -> Lineage:
    """The model folder, as supervised training leaves it: merged weights, the adapter, the card last."""
    crew = _one_piece(settings, parts) if parts.crew.pace.world else parts.crew
    if isinstance(crew, SharedCrew):
        crew.save_adapter(settings.folder / "adapter")
    model = crew.merged()
    flat = msgspec.structs.replace(settings, lora=0)
    trained = TrainableModel(model, model, crew.tokenizer, cast(Any, flat), crew.device)
    save_model(trained, parts.base, parts.lineage)
    card = read_model_card(settings.folder)
    return card.lineage if card is not None else parts.lineage
