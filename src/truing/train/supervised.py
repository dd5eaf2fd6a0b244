"""The one supervised loop: sft, distil, reward, cost, dpo, kto.

    result = train(Settings(kind="dpo", out="runs/dpo"), [read_source(data, "dpo")])

The same call goes on from the newest checkpoint, to the same next step. A step's loss is that of its whole batch,
however it is cut into micro-batches and over processes (`accelerate launch -m truing train ...`). A loss or gradient
that is not finite stops the run before it reaches the weights: the last good state is kept and the rows are named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import Struct

from truing.core.errors import DataError, PlanError, RunError, UserError
from truing.core.lineage import digest
from truing.core.types import Lineage
from truing.runs.folder import replace_file
from truing.train import checkpoint as ck
from truing.train.batches import EncodedExample, ExampleEncoder, PromptWrapper
from truing.train.data_mix import (
    add_benign_examples,
    benign_share,
    count_steps,
    iterate_step_rows,
    split_held_out,
)
from truing.train.examples import TrainingExample, TrainingSet
from truing.train.harm_check import check_objective
from truing.train.model_folder import build_lineage, read_model_card, save_model
from truing.train.objectives import OBJECTIVES, batch_weight, cache_teacher_prefix
from truing.train.optimizer import build_adamw, clip_gradients, learning_rate, set_learning_rate
from truing.train.run_lock import lock_run_folder
from truing.train.settings import TrainingSettings
from truing.train.sharding import gather_training_state, load_training_state, shard_model
from truing.train.trainable_model import (
    BaseModel,
    TrainableModel,
    autocast,
    build_trainable_model,
    find_base_model,
    load_trainable_state,
    trainable_state,
)
from truing.train.training_log import StepCallback, TrainingLog

STATE_FILE = "state.pt"


class NonFiniteLossError(UserError):
    """The loss or a gradient was not finite; the message names the rows and the checkpoint that is good."""


class TrainingResult(Struct, frozen=True, kw_only=True):
    """What a run left: the folder, its lineage, how many steps were done in this call, the last log line, held-out rows."""

    folder: Path
    lineage: Lineage
    steps: int
    done_now: int
    last: dict[str, Any] = {}
    held_out: tuple[TrainingExample, ...] = ()


class _Plan(Struct, frozen=True, kw_only=True):
    """The run as data: what `manifest.json` shows."""

    settings: TrainingSettings
    sources: list[dict[str, Any]]
    base: str
    base_sha256: str
    steps: int
    benign_share: float
    red_model: str | None
    digest: str


class _Rows:
    """The encoded rows of each source, and who reads what in a step."""

    def __init__(self, sources: Sequence[TrainingSet], encoder: ExampleEncoder) -> None:
        self.encoder = encoder
        self.sources: list[TrainingSet] = []
        self.encoded: list[list[EncodedExample]] = []
        pairs = encoder.settings.kind in ("reward", "cost", "dpo")
        for source in sources:
            kept, long = encoder.all(source.items)
            same = [e for e in kept if pairs and e.answers[0] == e.answers[1]]
            kept = [e for e in kept if not (pairs and e.answers[0] == e.answers[1])]
            more = {"answer longer than max_length": len(long), "equal as tokens": len(same)}
            dropped = {**source.dropped, **{word: count for word, count in more.items() if count}}
            if not kept:
                why = ", ".join(f"{n} {what}" for what, n in sorted(dropped.items()))
                raise DataError(f"{source.spec}: nothing left after filtering: {why}")
            # look-alikes keep their share of the mix: what was too long is made up for by the others
            only = all(item.benign for item in source.items)
            weight = source.weight * len(source.items) / len(kept) if only else source.weight
            items = tuple(e.item for e in kept)
            self.encoded.append(kept)
            self.sources.append(
                msgspec.structs.replace(source, items=items, dropped=dropped, weight=weight)
            )

    def rows(self, step: Sequence[tuple[int, int]]) -> list[EncodedExample]:
        """The rows of a step, longest first, so that a micro-batch is padded little."""
        return sorted((self.encoded[s][k] for s, k in step), key=lambda e: -len(e.row()))


def split_micro_batches(
    rows: Sequence[EncodedExample], size: int, *, least: int = 1
) -> list[Sequence[EncodedExample]]:
    """Near-equal parts of at most `size` rows, and of at least `least` where there are so many."""
    parts = max(1, math.ceil(len(rows) / size))
    parts = max(1, min(parts, len(rows) // least))
    edges = [round(k * len(rows) / parts) for k in range(parts + 1)]
    return [rows[a:b] for a, b in pairwise(edges) if b > a]


def train_supervised(
    settings: TrainingSettings,
    sources: Sequence[TrainingSet],
    *,
    fill: TrainingSet | None = None,
    wrap: PromptWrapper | None = None,
    tell: StepCallback | None = None,
    tests: Mapping[str, Sequence[TrainingExample]] | None = None,
) -> TrainingResult:
    """Trains, or goes on training, into `settings.out`, and gives what is there.

    `fill` tops the mix up with benign look-alikes; `wrap` is the teacher's prompt (distil); a reward or cost model is
    measured on the held-out rows and on `tests` (name -> pairs) before it is written.
    """
    from accelerate import Accelerator

    settings = settings.checked()
    base = find_base_model(settings.base)
    listed, held = split_held_out(add_benign_examples(settings, sources, fill), settings.held_out)
    red = check_objective(settings, listed, base.lineage)
    here = Accelerator(cpu=not torch.cuda.is_available())
    with lock_run_folder(settings.folder) if here.is_main_process else nullcontext():
        trained = build_trainable_model(settings, base, here.device)
        rows = _Rows(listed, _encoder(trained, base, wrap))
        steps = count_steps(rows.sources, settings)
        plan = _plan(settings, rows.sources, base, steps, red)
        lineage = build_lineage(settings, base, rows.sources, red)
        done = _finished(settings, plan)
        if done is not None:
            return TrainingResult(
                folder=settings.folder, lineage=done, steps=steps, done_now=0, held_out=tuple(held)
            )
        if settings.kind == "distil":
            cache_teacher_prefix(trained, [e for part in rows.encoded for e in part])
        run = _Loop(here, trained, rows, plan, tell)
        last, now = run.go()
        here.wait_for_everyone()
        if here.is_main_process:
            if run.spread:
                trained = _whole(settings, base, here.device)
            if settings.scalar:
                _measure(trained, rows.encoder, {"held_out": held, **(tests or {})})
            save_model(trained, base, lineage)
            lineage = (read_model_card(settings.folder) or _missing(settings)).lineage
        here.wait_for_everyone()
    return TrainingResult(
        folder=settings.folder,
        lineage=lineage,
        steps=steps,
        done_now=now,
        last=last,
        held_out=tuple(held),
    )


def _whole(settings: TrainingSettings, base: BaseModel, device: torch.device) -> TrainableModel:
    """The trained model in one piece, from the checkpoint of its last step."""
    made = build_trainable_model(settings, base, device)
    path = ck.latest_checkpoint(settings.folder)
    load_trainable_state(
        made.plain, ck.load_torch_file(path, STATE_FILE)["weights"] if path else {}
    )
    return made


def _measure(
    t: TrainableModel, encoder: ExampleEncoder, sets: Mapping[str, Sequence[TrainingExample]]
) -> None:
    from truing.train.pair_evaluation import evaluate_model, write_evaluation

    made = {name: evaluate_model(t, items, encoder) for name, items in sets.items() if items}
    if made:
        write_evaluation(t.settings.folder, made)


def _missing(settings: TrainingSettings) -> Any:
    raise RunError(f"{settings.folder}: the model folder is not there although it was written")


def _encoder(t: TrainableModel, base: BaseModel, wrap: PromptWrapper | None) -> ExampleEncoder:
    body = t.plain.body if t.settings.scalar else t.plain
    kinds = getattr(body.config, "architectures", None) or [""]
    bidirectional = (
        t.settings.scalar and not getattr(t.tokenizer, "chat_template", None) and "Bert" in kinds[0]
    )
    return ExampleEncoder(t.tokenizer, t.settings, encoder=bidirectional, wrap=wrap)


def _plan(
    settings: TrainingSettings,
    sources: Sequence[TrainingSet],
    base: BaseModel,
    steps: int,
    red: str | None,
) -> _Plan:
    facts = [
        {
            "spec": s.spec,
            "sha256": s.sha256,
            "rows": len(s.items),
            "weight": s.weight,
            "licence": s.licence,
            "dropped": s.dropped,
            "synthetic": sum(i.synthetic for i in s.items),
            "benign": sum(i.benign for i in s.items),
        }
        for s in sources
    ]
    whole = digest(
        settings.digest(), *(f"{f['spec']} {f['sha256']} {f['rows']} {f['weight']}" for f in facts)
    )
    return _Plan(
        settings=settings,
        sources=facts,
        base=base.weights.name,
        base_sha256=base.weights.sha256,
        steps=steps,
        benign_share=benign_share(sources),
        red_model=red,
        digest=whole,
    )


def _finished(settings: TrainingSettings, plan: _Plan) -> Lineage | None:
    """The lineage of a run that is done, where it is this run; PlanError where the folder holds another."""
    card, path = read_model_card(settings.folder), ck.latest_checkpoint(settings.folder)
    if path is not None:
        found = ck.check_identity(path, _mark(plan, 0))
        return card.lineage if card is not None and found.step == plan.steps else None
    if card is not None:
        raise RunError(
            f"{settings.folder}: holds a finished model without a checkpoint; give another --out"
        )
    return None


def _mark(plan: _Plan, step: int) -> ck.CheckpointIdentity:
    return ck.CheckpointIdentity(
        step=step, kind=plan.settings.kind, digest=plan.digest, base_sha256=plan.base_sha256
    )


class _Loop:
    """Steps, with what they need."""

    def __init__(
        self,
        here: Any,
        trained: TrainableModel,
        rows: _Rows,
        plan: _Plan,
        tell: StepCallback | None,
    ) -> None:
        self.here, self.t, self.rows, self.plan, self.tell = here, trained, rows, plan, tell
        s = plan.settings
        self.spread = s.shard and here.num_processes > 1
        if self.spread:
            if s.batch % here.num_processes:
                raise PlanError(
                    f"--shard: a batch of {s.batch} does not divide among {here.num_processes} processes"
                )
            trained.model = trained.plain = shard_model(
                trained.plain, here.num_processes, trained.device
            )
        self.optimizer = build_adamw(
            trained.plain.named_parameters(), lr=s.lr, weight_decay=s.weight_decay
        )
        self.step = self._resume()
        self.saved = self.step
        if here.num_processes > 1 and not self.spread:
            trained.model = here.prepare(trained.model)

    def _resume(self) -> int:
        path = ck.latest_checkpoint(self.plan.settings.folder)
        if path is None:
            return 0
        mark = ck.check_identity(path, _mark(self.plan, 0))
        state = ck.load_torch_file(path, STATE_FILE)
        if self.spread:
            load_training_state(self.t.plain, self.optimizer, state["weights"], state["optimizer"])
        else:
            load_trainable_state(self.t.plain, state["weights"])
            self.optimizer.load_state_dict(state["optimizer"])
        ck.set_rng_state(state["rng"])
        return mark.step

    def save(self) -> None:
        """A checkpoint of the step that was done last, by the main process."""
        s = self.plan.settings
        if self.saved != self.step or not self.step:
            if self.spread:
                weights, optimizer = gather_training_state(self.t.plain, self.optimizer)
            else:
                weights, optimizer = trainable_state(self.t.plain), self.optimizer.state_dict()
            if self.here.is_main_process:
                state = {"weights": weights, "optimizer": optimizer, "rng": ck.rng_state()}
                ck.write_checkpoint(
                    s.folder,
                    _mark(self.plan, self.step),
                    {STATE_FILE: ck.torch_writer(state)},
                    keep=s.keep,
                )
            self.saved = self.step
        self.here.wait_for_everyone()

    def go(self) -> tuple[dict[str, Any], int]:
        """All steps that are left; gives the last log line and their number."""
        s, first = self.plan.settings, self.step
        log = None
        if self.here.is_main_process:
            manifest = msgspec.json.format(msgspec.json.encode(self.plan), indent=2)
            replace_file(s.folder / "manifest.json", manifest)
            log = TrainingLog(s.folder, first=first + 1, tensorboard=s.tensorboard, tell=self.tell)
        values: dict[str, Any] = {}
        try:
            for at, chosen in enumerate(
                iterate_step_rows(self.rows.sources, s, self.plan.steps), 1
            ):
                if at <= first:
                    continue
                values = self.one(at, self.rows.rows(chosen))
                self.step = at
                if log is not None:
                    log.write(at, values)
                if at % s.save_every == 0:
                    self.save()
            self.save()
        finally:
            if log is not None:
                log.close()
        return values, self.plan.steps - first

    def one(self, at: int, rows: Sequence[EncodedExample]) -> dict[str, Any]:
        """One optimiser step over a whole batch; gives what is logged."""
        s, here = self.plan.settings, self.here
        lr = learning_rate(at, self.plan.steps, lr=s.lr, warmup=s.warmup, schedule=s.schedule)
        set_learning_rate(self.optimizer, lr)
        whole = batch_weight(s, rows)
        mine = rows[here.process_index :: here.num_processes]
        least = 2 if s.kind == "kto" else 1
        parts = split_micro_batches(mine, s.micro, least=least)
        sums = torch.zeros(2 + 2 * len(_NAMES), dtype=torch.float64)
        for k, part in enumerate(parts):
            last = k == len(parts) - 1
            if self.spread:
                self.t.model.set_requires_gradient_sync(last)
            with (
                nullcontext()
                if last or self.spread or here.num_processes == 1
                else here.no_sync(self.t.model)
            ):
                self._backward(part, whole, sums)
        loss, shown = self._reduced(sums)
        norm = clip_gradients(self.t.plain.parameters(), s.clip_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._stop(at, mine)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {
            "steps": self.plan.steps,
            "loss": loss,
            "lr": lr,
            "grad_norm": norm,
            "rows": len(rows),
            **shown,
        }

    def _backward(self, part: Sequence[EncodedExample], whole: float, sums: torch.Tensor) -> None:
        s, here = self.plan.settings, self.here
        with autocast(s, self.t.device):
            loss, shown = OBJECTIVES[s.kind](self.t, part)
        share = batch_weight(s, part) / whole
        # several processes average their gradients, so each counts as many times
        (loss * share * here.num_processes).backward()
        sums[0] += float(loss.detach()) * share
        for name, value in shown.items():
            at = 2 + 2 * _NAMES.index(name)
            sums[at] += value * len(part)
            sums[at + 1] += len(part)

    def _reduced(self, sums: torch.Tensor) -> tuple[float, dict[str, float]]:
        made = sums
        if self.here.num_processes > 1:
            made = self.here.reduce(sums.to(self.here.device), reduction="sum").cpu()
        shown = {
            name: float(made[2 + 2 * k] / made[3 + 2 * k])
            for k, name in enumerate(_NAMES)
            if float(made[3 + 2 * k])
        }
        return float(made[0]), shown

    def _stop(self, at: int, rows: Sequence[EncodedExample]) -> None:
        """Keeps the state before the bad step and names the rows."""
        self.optimizer.zero_grad(set_to_none=True)
        bad: list[str] = []
        for row in rows:
            with torch.no_grad(), autocast(self.plan.settings, self.t.device):
                loss, _ = OBJECTIVES[self.plan.settings.kind](self.t, [row])
            if not bool(torch.isfinite(loss)):
                bad.append(row.item.name)
        self.save()
        named = ", ".join((bad or [r.item.name for r in rows])[:8])
        what = f"the loss of {named}" if bad else f"a gradient of the batch {named}"
        raise NonFiniteLossError(
            f"step {at}: {what} is not finite. The weights are those of step {self.step} "
            f"({ck.checkpoint_folder(self.plan.settings.folder, self.step)}); lower --lr, or leave these rows out"
        )


_NAMES = (
    "accuracy",
    "sign_accuracy",
    "margin",
    "score",
    "chosen",
    "rejected",
    "kl",
    "desirable",
    "undesirable",
)
