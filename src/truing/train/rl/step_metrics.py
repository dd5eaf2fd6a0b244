"""One line of the log: what the answers of a step were like, over all processes."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from truing.distributed.process_group import World
from truing.train import losses as L
from truing.train.rl.advantages import Side
from truing.train.rl.reward_signals import Scores
from truing.train.rl.rollout import Rollout
from truing.train.rl.settings import RLSettings

Row = dict[str, float | int | str | None]


def _fingerprint(text: str) -> float:
    """A whole number below 2^53, which a double holds exactly."""
    return float(
        int.from_bytes(
            hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=6).digest(), "big"
        )
    )


def describe(
    s: RLSettings,
    rollout: Rollout,
    own: Scores,
    whole: tuple[Tensor, Tensor | None, Tensor],
    world: World,
) -> Row:
    """KL (the very numbers that the penalty is made of), entropy, length, truncation, sameness, and each signal.

    kl_k1 and kl_k3 are sums over an answer's tokens, averaged over answers. The entropy is the sampled estimate -log π,
    a token.
    """
    device = rollout.ids.device
    ref = rollout.ref_log_probs if rollout.ref_log_probs is not None else rollout.log_probs
    gap = (rollout.log_probs - ref) * rollout.answer
    columns = [
        gap.sum(-1),
        (L.kl_estimate(gap, "k3") * rollout.answer).sum(-1),
        rollout.lengths,
        -(rollout.log_probs * rollout.answer).sum(-1),
        torch.tensor([not e for e in rollout.ended], device=device),
        torch.tensor([_fingerprint(t) for t in rollout.texts], dtype=torch.float64, device=device),
    ]
    names = list(own.parts)
    columns += [own.parts[n].nan_to_num(0.0).to(device) for n in names]
    columns += [own.parts[n].isfinite().to(device) for n in names]
    table = world.gather(
        torch.stack([c.double() for c in columns], 1), rollout.index, s.answers
    ).cpu()
    reward, _, scored = whole
    tokens = float(table[:, 2].sum())
    row: Row = {
        "reward_mean": float(reward[scored].mean()) if bool(scored.any()) else math.nan,
        "reward_std": float(reward[scored].std()) if int(scored.sum()) > 1 else 0.0,
        "kl_k1": float(table[:, 0].mean()),
        "kl_k3": float(table[:, 1].mean()),
        "entropy": float(table[:, 3].sum()) / tokens,
        "length": float(table[:, 2].mean()),
        "truncated": float(table[:, 4].mean()),
        "distinct": len(set(table[:, 5].tolist())) / s.answers,
        "unscored": 1 - float(scored.double().mean()),
        "length_reward": correlation(table[:, 2][scored], reward[scored]),
    }
    for at, name in enumerate(names):
        known = float(table[:, 6 + len(names) + at].sum())
        row[name] = float(table[:, 6 + at].sum()) / known if known else None
    return row


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's r; 0 where one of the two does not vary."""
    if x.numel() < 3:
        return 0.0
    a, b = x.double() - x.double().mean(), y.double() - y.double().mean()
    size = float(a.norm() * b.norm())
    return float((a * b).sum()) / size if size > 1e-12 else 0.0


def explained(side: Side, rollout: Rollout, world: World) -> float:
    """1 - Var(returns - values) / Var(returns) over the answers' tokens: 1 is a perfect critic, below 0 worse than none."""
    if side.values is None or side.returns is None:
        return math.nan
    m, r = rollout.answer.double(), side.returns.double()
    d = r - side.values.double()
    sums = torch.stack(
        [m.sum(), (r * m).sum(), (r * r * m).sum(), (d * m).sum(), (d * d * m).sum()]
    )
    n, a, aa, b, bb = world.sum(sums).tolist()
    spread = aa / n - (a / n) ** 2
    return 1 - (bb / n - (b / n) ** 2) / spread if spread > 1e-12 else 0.0
