"""The gradient steps over one rollout: λ first, then the actor, then the critics, as in safe-rlhf.

Every loss is a sum over answers (or tokens) of all processes divided by their number in the gradient step, so that
neither micro-batches
nor processes change it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from truing.core.errors import RunError
from truing.core.types import stream_seed
from truing.distributed.process_group import Pace, World
from truing.train import losses as L
from truing.train.optimizer import build_adamw, clip_gradients, set_learning_rate
from truing.train.rl.advantages import Lesson, Side
from truing.train.rl.constraint import Constraint
from truing.train.rl.policy_models import ACTOR, Crew, log_probs, pieces, trimmed, values
from truing.train.rl.rollout import Rollout
from truing.train.rl.settings import RLSettings

Mix = Callable[[int], tuple[Tensor, Tensor, Tensor]]


@dataclass
class Tally:
    """Sums over gradient steps, for the log."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    stopped: bool = False
    steps: int = 0

    def add(self, name: str, value: float, weight: float = 1.0) -> None:
        """One more value."""
        self.sums[name] = self.sums.get(name, 0.0) + value * weight
        self.counts[name] = self.counts.get(name, 0.0) + weight

    def means(self) -> dict[str, float]:
        """The mean of each."""
        return {k: v / self.counts[k] for k, v in self.sums.items() if self.counts[k]}


class Updater:
    """Optimisers of actor and critics, and the gradient steps. `mix(k)` gives the k-th batch of pre-training text."""

    def __init__(
        self, crew: Crew, settings: RLSettings, world: World, *, mix: Mix | None = None
    ) -> None:
        self.crew, self.settings, self.world, self.mix = crew, settings, world, mix
        self.optimizers: dict[str, Any] = {
            name: self._optimizer(name) for name in (ACTOR, *crew.critics)
        }
        self.taken, self.pace = 0, Pace(world if settings.shard and world.size > 1 else None)

    def _optimizer(self, name: str) -> Any:
        with self.crew.role(name):  # an adapter asks for gradients only while it is on
            return build_adamw(
                self.crew.named(name),
                lr=self.settings.actor_lr if name == ACTOR else self.settings.value_lr,
                weight_decay=self.settings.weight_decay,
            )

    def set_rates(self, share: float) -> None:
        """Learning rates as a share of their full values."""
        for name, optimizer in self.optimizers.items():
            set_learning_rate(
                optimizer,
                share * (self.settings.actor_lr if name == ACTOR else self.settings.value_lr),
            )

    def minibatches(self, count: int, step: int, epoch: int) -> Iterator[list[int]]:
        """Places (among all processes) of the answers of each gradient step; a pure function of seed, step and pass."""
        order = list(range(count))
        if self.settings.rows < count:
            random.Random(stream_seed(self.settings.seed, "minibatch", step, epoch)).shuffle(order)
        for at in range(0, count, self.settings.rows):
            yield order[at : at + self.settings.rows]

    def run(
        self,
        rollout: Rollout,
        made: Lesson,
        *,
        scored: Tensor,
        step: int,
        kl: float,
        constraint: Constraint | None,
    ) -> Tally:
        """All passes over a rollout. `scored` `[N]` says which answers of all processes count."""
        tally = Tally()
        place = {at: row for row, at in enumerate(rollout.index)}
        for epoch in range(self.settings.epochs):
            for wanted in self.minibatches(scored.shape[0], step, epoch):
                rows = [place[at] for at in wanted if at in place and bool(scored[at])]
                total = int(scored[torch.tensor(wanted)].sum())
                if not total:
                    continue
                multiplier = constraint.step() if constraint is not None else 0.0
                tokens = float(self.world.sum(rollout.lengths[rows].sum().double()))
                share = Share(self.settings, total, tokens)
                moved = self._actor(rollout, made, rows, share, multiplier, kl, tally)
                for name, side in made.critics.items():
                    self._critic(name, rollout, side, rows, share, tally)
                tally.steps += 1
                self.taken += 1
                limit = self.settings.kl_step_limit
                if limit and moved > limit:
                    tally.stopped = True
                    return tally
        return tally

    def _actor(
        self,
        rollout: Rollout,
        made: Lesson,
        rows: list[int],
        share: Share,
        multiplier: float,
        kl: float,
        tally: Tally,
    ) -> float:
        """One step of the actor; gives how far (k3, a token) it stands from the policy that drew."""
        s, parts = self.settings, dict.fromkeys(("loss", "clipped", "moved"), 0.0)
        with self.crew.role(ACTOR) as model:
            for some, piece, counts in self._pieces(rollout, rows):
                now = log_probs(model, piece, temperature=s.temperature)
                loss = policy_loss(s, now, piece, cut(made, some, piece), multiplier, kl) * (
                    counts * share.of(some, piece)
                )
                loss.backward()
                with torch.no_grad():
                    gap = (now - piece.log_probs) * piece.answer
                    outside = ((gap.exp() - 1).abs() > s.clip) & piece.answer.bool()
                    parts["loss"] += float(loss.detach())
                    parts["clipped"] += counts * float(outside.sum()) / share.tokens
                    parts["moved"] += (
                        counts
                        * float((L.kl_estimate(-gap, "k3") * piece.answer).sum())
                        / share.tokens
                    )
            if self.mix is not None and s.ptx:
                tally.add("ptx_loss", self._mixed(model))
        parts = self._summed(parts)
        for name, key in (
            ("actor_loss", "loss"),
            ("clip_fraction", "clipped"),
            ("kl_step", "moved"),
        ):
            tally.add(name, parts[key])
        tally.add("grad_norm", self._take(ACTOR))
        return parts["moved"]

    def _pieces(
        self, rollout: Rollout, rows: list[int]
    ) -> Iterator[tuple[list[int], Rollout, float]]:
        """Rows in forwards, each with weight 1; with weight 0 a row again for each pass that another process still makes."""
        for made in self.pace.each(pieces(rollout, rows, self.settings.micro)):
            yield (*made, 1.0) if made is not None else ([0], trimmed(rollout.take([0])), 0.0)

    def _mixed(self, model: Any) -> float:
        """Adds the gradient of the pre-training loss (InstructGPT's ptx); gives the loss without its coefficient."""
        ids, mask, labels = (self.mix or _none)(self.taken)
        mine = list(self.world.mine(ids.shape[0]))
        total = float(self.world.sum((labels[mine][:, 1:] != -100).sum().double()))
        seen = 0.0
        for at in self.pace.each(range(0, len(mine), self.settings.micro)):
            rows = mine[:1] if at is None else mine[at : at + self.settings.micro]
            x, m, y = (t[rows].to(self.crew.device) for t in (ids, mask, labels))
            logits = model(input_ids=x, attention_mask=m, use_cache=False).logits
            part = 0.0 if at is None else float((y[:, 1:] != -100).sum()) / max(total, 1.0)
            loss = L.ptx_loss(logits, y, coefficient=self.settings.ptx) * part
            loss.backward()
            seen += float(loss.detach()) / self.settings.ptx
        return self._summed({"ptx": seen})["ptx"]

    def _critic(
        self, name: str, rollout: Rollout, side: Side, rows: list[int], share: Share, tally: Tally
    ) -> None:
        s, seen = self.settings, 0.0
        if side.values is None or side.returns is None:
            raise ValueError(f"{name} has no values to learn from")
        with self.crew.role(name) as critic:
            for some, piece, counts in self._pieces(rollout, rows):
                width = piece.answer.shape[1]
                now = values(critic, piece)
                old, aim = side.values[some, :width], side.returns[some, :width]
                loss = L.critic_loss(
                    now, old, aim, piece.answer, clip=s.clip_value, reduction=s.reduction
                )
                loss = loss * (counts * share.of(some, piece, reduction=s.reduction))
                loss.backward()
                seen += float(loss.detach())
        tally.add(f"{name}_loss", self._summed({"x": seen})["x"])
        self._take(name)

    def _summed(self, parts: dict[str, float]) -> dict[str, float]:
        if self.world.size == 1:
            return parts
        got = self.world.sum(
            torch.tensor(list(parts.values()), dtype=torch.float64, device=self.crew.device)
        )
        return dict(zip(parts, got.tolist()))

    def _take(self, name: str) -> float:
        """Gradients of all processes, clipped, and the optimiser's step; stops where a gradient is no number."""
        parameters = [p for _, p in self.crew.named(name)]
        self.world.sum_gradients(parameters)
        norm = clip_gradients(parameters, self.settings.clip_norm)
        if norm != norm or norm == float("inf"):
            raise RunError(
                f"the gradient of {name} is no number; the last checkpoint is whole: go on from it with a "
                f"lower --lr"
            )
        optimizer = self.optimizers[name]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm


def _none(_: int) -> tuple[Tensor, Tensor, Tensor]:
    raise ValueError("no pre-training text was given")


@dataclass(frozen=True)
class Share:
    """What part of a gradient step's loss a piece of it is: by answers, or by tokens, of all processes."""

    settings: RLSettings
    answers: int
    tokens: float

    def of(self, rows: Sequence[int], piece: Rollout, *, reduction: str | None = None) -> float:
        """The weight of a piece whose loss is a mean over its own answers (or tokens)."""
        by_token = reduction == "token" if reduction else token_level(self.settings)
        return float(piece.answer.sum()) / self.tokens if by_token else len(rows) / self.answers


def token_level(settings: RLSettings) -> bool:
    """Whether the actor's loss is a mean over all tokens."""
    if not settings.grouped:
        return settings.reduction == "token"
    return settings.loss in ("bnpo", "dapo") and settings.method == "grpo"


def cut(made: Lesson, rows: Sequence[int], piece: Rollout) -> tuple[Tensor, Tensor | None]:
    """Reward and cost advantages of some rows, `[b, a]` (or `[b]` in groups)."""

    def one(side: Side | None) -> Tensor | None:
        if side is None:
            return None
        some = side.advantage[list(rows)]
        return some[:, : piece.answer.shape[1]] if some.dim() == 2 else some

    reward = one(made.reward)
    if reward is None:
        raise ValueError("no advantage of the reward")
    return reward, one(made.cost)


def policy_loss(
    s: RLSettings,
    now: Tensor,
    piece: Rollout,
    advantages: tuple[Tensor, Tensor | None],
    multiplier: float,
    kl: float,
) -> Tensor:
    """The actor's loss of a piece: clipped surrogate of reward and cost, by either reading, and KL where it stands in
    the loss.
    """
    reward, cost = advantages
    if cost is None:
        loss = _surrogate(s, now, piece, reward)
    elif s.surrogate == "combined":
        loss = _surrogate(s, now, piece, L.combined_advantage(reward, cost, multiplier))
    elif s.grouped:
        loss = (
            _surrogate(s, now, piece, reward) - multiplier * _surrogate(s, now, piece, cost)
        ) / (1 + multiplier)
    else:
        loss = L.separate_actor_loss(
            now,
            piece.log_probs,
            (reward, cost),
            multiplier,
            piece.answer,
            clip=s.clip,
            reduction=s.reduction,
        )
    if s.kl_in_loss and kl:
        loss = loss + _kl_loss(s, now, piece, kl)
    return loss


def _kl_loss(s: RLSettings, now: Tensor, piece: Rollout, kl: float) -> Tensor:
    """β·k3, averaged as the surrogate is."""
    if piece.ref_log_probs is None:
        raise ValueError("KL in the loss needs log-probabilities of the reference")
    if s.grouped:
        none = torch.zeros_like(now[:, 0])
        return L.grpo_loss(
            now,
            piece.log_probs,
            piece.ref_log_probs,
            none,
            piece.answer,
            beta=kl,
            kind=_kind(s),
            length=s.max_new,
        )
    return kl * L.masked_mean(
        L.kl_estimate(now - piece.ref_log_probs, "k3"), piece.answer, s.reduction
    )


def _kind(s: RLSettings) -> str:
    return "rloo" if s.method == "rloo" else "grpo" if s.loss == "auto" else s.loss


def _surrogate(s: RLSettings, now: Tensor, piece: Rollout, advantage: Tensor) -> Tensor:
    if not s.grouped:
        return L.ppo_actor_loss(
            now, piece.log_probs, advantage, piece.answer, clip=s.clip, reduction=s.reduction
        )
    return L.grpo_loss(
        now,
        piece.log_probs,
        None,
        advantage,
        piece.answer,
        epsilon=s.clip,
        kind=_kind(s),
        length=s.max_new,
    )
