"""The loop: draw answers, have them scored, tell λ the costs, take the gradient steps, log, keep.

trainer = Trainer(crew, prompts, Signals([reward], [cost]), settings)
trainer.run()
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from truing.core.errors import PlanError, RunError
from truing.core.lineage import digest, hash_prompts
from truing.core.types import Lineage
from truing.distributed.process_group import World
from truing.hf.chat_tokens import ChatTokenizer
from truing.hf.loading import eos_token_ids
from truing.train import checkpoint
from truing.train.optimizer import learning_rate
from truing.train.rl.advantages import Normalisers, lesson
from truing.train.rl.constraint import Constraint, KLController
from truing.train.rl.diagnosis import Watch
from truing.train.rl.generate import Generator, LocalGenerator, streams
from truing.train.rl.policy_model import PolicyModel, policy_lineage
from truing.train.rl.policy_models import ACTOR, WRITER, Crew, log_probs, over_all, values
from truing.train.rl.reward_signals import Scores, Signals
from truing.train.rl.rollout import Prompt, Rollout, assemble, draw_prompts
from truing.train.rl.settings import RLSettings
from truing.train.rl.step_metrics import Row, describe, explained
from truing.train.rl.update import Mix, Updater
from truing.train.sharding import gather_tensors, shard_optimizer_state
from truing.train.training_log import StepCallback, TrainingLog

Whole = tuple[Tensor, Tensor | None, Tensor]


@dataclass
class Extras:
    """What a run may have besides: another generator, pre-training text, who hears the log, who measures samples.

    `measure(step, trainer)` is called every `sample_every` steps by the first process and gives figures for the log;
    `base_sha256` and `data` identify the run for its checkpoints.
    """

    generator: Generator | None = None
    mix: Mix | None = None
    tell: StepCallback | None = None
    measure: Callable[[int, Trainer], dict[str, float]] | None = None
    base_sha256: str = ""
    data: str = ""


class Trainer:
    """One RL run. `run` goes on from the newest checkpoint in `settings.out`, to the same next step."""

    def __init__(
        self,
        crew: Crew,
        prompts: Sequence[Prompt],
        signals: Signals,
        settings: RLSettings,
        extras: Extras | None = None,
    ) -> None:
        self.settings = s = settings.checked(costs=bool(signals.costs))
        self.crew, self.prompts, self.signals = crew, tuple(prompts), signals
        self.extras = extras or Extras()
        self.world = World()
        if s.prompts < self.world.size:
            raise PlanError(f"prompts = {s.prompts}: fewer than the {self.world.size} processes")
        if s.shard and self.world.size > 1:
            for name in ("prompts", *(["ptx_batch"] if s.ptx else [])):
                if getattr(s, name) % self.world.size:
                    raise PlanError(
                        f"shard: {name} = {getattr(s, name)} does not divide among {self.world.size} processes"
                    )
            crew.spread(self.world)
        self.mark = signals.mark(s.red_model)
        with crew.role(ACTOR) as model:
            self.fill = int(crew.tokenizer.pad_token_id or 0)
            self.generator = self.extras.generator or LocalGenerator(
                model,
                eos_token_ids(model, crew.tokenizer),
                temperature=s.temperature,
                top_p=s.top_p,
                fill=self.fill,
            )
        self.updater = Updater(crew, s, self.world, mix=self.extras.mix)
        self.constraint = Constraint(s) if signals.costs else None
        self.kl = KLController(s)
        self.normalisers = Normalisers.of(s)
        self.watch = Watch(s)
        self.step = 0
        self.halted = ""
        self.drift: float | None = None

    def rollout(self, step: int) -> Rollout:
        """The answers of this process to the prompts of a step, with the reference's log-probabilities."""
        s = self.settings
        chosen = draw_prompts(len(self.prompts), step, s.prompts, s.seed)
        mine = [
            (self.prompts[chosen[p]], p * s.n + j)
            for p in self.world.mine(s.prompts)
            for j in range(s.n)
        ]
        asked, index = [p for p, _ in mine], [at for _, at in mine]
        with self.crew.whole(), self.crew.role(WRITER) as writer:
            if isinstance(self.generator, LocalGenerator):
                self.generator.model = writer
            answered = self.generator(
                [p.ids for p in asked], streams(s.seed, step, index, s.max_new)
            )
        made = assemble(
            asked, index, answered, self.crew.tokenizer, device=self.crew.device, fill=self.fill
        )
        if (
            self.extras.generator is not None or self.crew.half is not None
        ):  # another arithmetic drew: read them again
            with self.crew.role(ACTOR) as model:
                again = over_all(
                    made,
                    s.score_micro,
                    lambda piece: log_probs(model, piece, temperature=s.temperature),
                )
            self.drift = float(
                ((made.log_probs - again).abs() * made.answer).sum() / made.answer.sum()
            )
            if hasattr(self.generator, "check"):
                self.generator.check(self.drift)
            made = replace(made, log_probs=again)
        with self.crew.role("reference") as model:
            ref = over_all(
                made,
                s.score_micro,
                lambda piece: log_probs(model, piece, temperature=s.temperature),
            )
        return replace(made, ref_log_probs=ref)

    def scored(self, rollout: Rollout) -> tuple[Scores, Whole]:
        """What the signals say: of this process's answers, and of all (reward, cost, which are scored)."""
        own, count = self.signals.measure(rollout), self.settings.answers

        def all_of(x: Tensor) -> Tensor:
            return self.world.gather(x.double().to(self.crew.device), rollout.index, count).cpu()

        scored = all_of(own.scored) > 0.5
        cost = None if own.cost is None else all_of(own.cost)
        lost = 1 - float(scored.double().mean())
        if lost > self.settings.max_unscored:
            why = (
                "; ".join(f"{n} × {r}" for r, n in own.reasons.most_common(3))
                or "on another process"
            )
            raise RunError(
                f"step {self.step + 1}: {lost:.0%} of the answers could not be scored ({why}); what cannot be "
                f"judged never "
                f"counts as safe, so the run stops here: mend the judge and give the same command"
            )
        return own, (all_of(own.reward), cost, scored)

    def values(self, rollout: Rollout) -> dict[str, Tensor]:
        """What each critic expects before each token."""
        made: dict[str, Tensor] = {}
        for name in self.crew.critics:
            with self.crew.role(name) as critic:
                made[name] = over_all(
                    rollout, self.settings.score_micro, lambda piece, c=critic: values(c, piece)
                )
        return made

    def policy(self, name: str) -> PolicyModel:
        """The actor as it is now, as a `Model`; the judges that steer it stand in its lineage."""
        with self.crew.role(ACTOR) as model:
            ends = eos_token_ids(model, self.crew.tokenizer)
        turns = ChatTokenizer(self.crew.tokenizer, plain=self.settings.template == "plain")
        hashes = hash_prompts(p.sample.prompt for p in self.prompts)
        lineage = policy_lineage(
            name,
            Lineage(name=self.settings.base),
            self.signals.lineages,
            hashes,
            red_model=self.mark,
        )
        return PolicyModel(self.crew, turns, ends, lineage)

    def one_step(self) -> Row:
        """Draws, scores, learns; gives the line of the log."""
        s, step, clock = self.settings, self.step, [time.perf_counter()]
        rollout = self.rollout(step)
        clock.append(time.perf_counter())
        own, whole = self.scored(rollout)
        _, cost, scored = whole
        if self.constraint is not None and cost is not None:
            chosen = draw_prompts(len(self.prompts), step, s.prompts, s.seed)
            harms = [self.prompts[p].sample.harms for p in chosen for _ in range(s.n)]
            self.constraint.observe(
                cost[scored], [harms[k] for k in scored.nonzero().flatten().tolist()]
            )
        clock.append(time.perf_counter())
        made = lesson(
            s,
            rollout,
            whole,
            self.values(rollout),
            kl=self.kl.value,
            constraint=self.constraint,
            normalisers=self.normalisers,
            world=self.world,
        )
        self.updater.set_rates(
            learning_rate(step + 1, s.steps, lr=1.0, warmup=s.warmup, schedule=s.schedule)
        )
        tally = self.updater.run(
            rollout, made, scored=scored, step=step, kl=self.kl.value, constraint=self.constraint
        )
        clock.append(time.perf_counter())
        row = describe(s, rollout, own, whole, self.world)
        row |= tally.means() | {
            "loss": tally.means().get("actor_loss", 0.0),
            "kl_coefficient": self.kl.value,
        }
        row |= {
            f"{n}_explained": explained(side, rollout, self.world)
            for n, side in made.critics.items()
        }
        if self.constraint is not None and cost is not None:
            row |= self.constraint.log(cost[scored])
        if self.drift is not None:
            row["drift"] = self.drift
        if tally.stopped:
            row["stopped_after"] = tally.steps
        names = ("seconds_generate", "seconds_score", "seconds_learn")
        row |= {n: round(b - a, 4) for n, a, b in zip(names, clock, clock[1:])}
        kl = row.get("kl_k1")
        self.kl.update(float(kl) if isinstance(kl, float) else 0.0, s.answers)
        if s.kl_limit and isinstance(kl, float) and kl > s.kl_limit:
            self.halted = f"KL to the reference {kl:.3g} is above kl_limit = {s.kl_limit}"
        return row

    def run(self) -> Row:
        """All steps that are left; gives the last line of the log."""
        s = self.settings
        self.resume()
        log = (
            TrainingLog(
                s.out, first=self.step + 1, tensorboard=s.tensorboard, tell=self.extras.tell
            )
            if self.world.first
            else None
        )
        row: Row = {}
        try:
            while self.step < s.steps and not self.halted:
                row = self.one_step()
                self.step += 1
                if (
                    s.sample_every
                    and self.extras.measure is not None
                    and self.step % s.sample_every == 0
                ):
                    with self.crew.whole():
                        row |= self.extras.measure(self.step, self) if self.world.first else {}
                    self.world.wait()
                told = self.watch.hear(row)
                if told:
                    row["warning"] = " | ".join(told)
                if self.halted:
                    row["halted"] = self.halted
                if log is not None:
                    log.write(self.step, row)
                if self.step % s.save_every == 0 or self.step == s.steps or self.halted:
                    self.save()
        finally:
            if log is not None:
                log.close()
        return row

    # -- what a resumed run needs

    def _mark(self) -> checkpoint.CheckpointIdentity:
        names = [
            f"{w.signal.name}×{w.weight}:{w.signal.lineage.hash}"
            for w in (*self.signals.rewards, *self.signals.costs)
        ]
        return checkpoint.CheckpointIdentity(
            step=self.step,
            kind=self.settings.method,
            base_sha256=self.extras.base_sha256,
            digest=digest(self.settings.digest(), self.extras.data, *names),
        )

    def state(self) -> dict[str, Any]:
        """Everything besides weights: optimisers, λ with its window, β, statistics, what the diagnosis remembers."""
        return {
            "optimizers": {
                k: gather_tensors(o.state_dict()) for k, o in self.updater.optimizers.items()
            },
            "taken": self.updater.taken,
            "constraint": self.constraint.state_dict() if self.constraint is not None else None,
            "kl": self.kl.value,
            "normalisers": self.normalisers.state_dict(),
            "watch": self.watch.state_dict(),
            "halted": self.halted,
            "rng": checkpoint.rng_state(),
        }

    def save(self) -> None:
        """Writes a checkpoint (the first process; the others give their pieces and wait)."""
        made = {n: self.crew.state(n) for n in (ACTOR, *self.crew.critics)} | {
            "state": self.state()
        }
        if self.world.first:
            parts = {f"{n}.pt": checkpoint.torch_writer(part) for n, part in made.items()}
            checkpoint.write_checkpoint(
                self.settings.out, self._mark(), parts, keep=self.settings.keep
            )
        self.world.wait()

    def resume(self) -> bool:
        """Goes on from the newest checkpoint, if there is one of this run."""
        found = checkpoint.latest_checkpoint(self.settings.out)
        if found is None:
            return False
        self.step = checkpoint.check_identity(found, self._mark()).step
        for name in (ACTOR, *self.crew.critics):
            self.crew.load(name, checkpoint.load_torch_file(found, f"{name}.pt"))
        state = checkpoint.load_torch_file(found, "state.pt")
        for name, optimizer in self.updater.optimizers.items():
            optimizer.load_state_dict(shard_optimizer_state(optimizer, state["optimizers"][name]))
        if self.constraint is not None:
            self.constraint.load_state_dict(state["constraint"])
        self.updater.taken, self.kl.value, self.halted = (
            state["taken"],
            state["kl"],
            state["halted"],
        )
        self.normalisers.load_state_dict(state["normalisers"])
        self.watch.load_state_dict(state["watch"])
        checkpoint.set_rng_state(state["rng"])
        return True
