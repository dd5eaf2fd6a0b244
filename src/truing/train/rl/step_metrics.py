"""The metrics of one step, taken over the answers of all processes: one line of log.jsonl."""

from __future__ import annotations

import hashlib
import math
from itertools import combinations

import torch
from torch import Tensor

from truing.distributed.process_group import ProcessGroup, as_float64
from truing.train import losses as L
from truing.train.rl.advantages import Advantages
from truing.train.rl.reward_signals import GlobalScores, RolloutScores
from truing.train.rl.rollout import Rollout
from truing.train.rl.settings import RLSettings

StepMetrics = dict[str, float | int | str | None]


def compute_step_metrics(
    settings: RLSettings,
    rollout: Rollout,
    local_scores: RolloutScores,
    scores: GlobalScores,
    processes: ProcessGroup,
) -> StepMetrics:
    """Returns rewards, KL, entropy, lengths, diversity, and the mean of each signal.

    `kl_k1` and `kl_k3` (Schulman 2020) are summed over an answer's tokens and averaged over
    answers; they use the log-probabilities that the KL penalty is computed from. The entropy is
    the sampled estimate, the mean of -log π per token. `length_reward` is the correlation of
    length and reward.
    """
    mask, device = rollout.answer_mask, rollout.input_ids.device
    has_reference = rollout.ref_log_probs is not None
    ref_log_probs = rollout.log_probs if rollout.ref_log_probs is None else rollout.ref_log_probs
    log_ratio = (rollout.log_probs - ref_log_probs) * mask
    columns = {
        "k1": log_ratio.sum(-1),
        "k3": (L.kl_estimate(log_ratio, "k3") * mask).sum(-1),
        "length": rollout.answer_lengths,
        "surprisal": -(rollout.log_probs * mask).sum(-1),
        "truncated": torch.tensor([not ended for ended in rollout.ended], device=device),
        "empty": torch.tensor([not text for text in rollout.texts], device=device),
        "special": torch.tensor(rollout.special or (False,) * len(rollout.texts), device=device),
        "text": torch.tensor(
            [_text_fingerprint(text) for text in rollout.texts], dtype=torch.float64
        ),
    }
    # Sums and counts apart: the mean of a signal is over the answers that it could score.
    for name, numbers in local_scores.parts.items():
        columns[f"sum {name}"] = numbers.nan_to_num(0.0)
        columns[f"count {name}"] = numbers.isfinite()
    # One table, so that the processes exchange one message.
    local_table = torch.stack([as_float64(column, device) for column in columns.values()], 1)
    answers = settings.answers_per_step
    table = processes.gather_rows(local_table, rollout.global_rows, answers).cpu()
    answer = dict(zip(columns, table.unbind(1)))

    reward, scored = scores.reward, scores.scored
    metrics: StepMetrics = {
        "reward_mean": float(reward[scored].mean()) if bool(scored.any()) else math.nan,
        "reward_std": float(reward[scored].std()) if int(scored.sum()) > 1 else 0.0,
        "kl_k1": float(answer["k1"].mean()) if has_reference else None,
        "kl_k3": float(answer["k3"].mean()) if has_reference else None,
        "entropy": float(answer["surprisal"].sum()) / float(answer["length"].sum()),
        "length": float(answer["length"].mean()),
        "truncated": float(answer["truncated"].mean()),
        "empty": float(answer["empty"].mean()),
        "special_tokens": float(answer["special"].mean()),
        "distinct": len(set(answer["text"].tolist())) / answers,
        "unscored": 1 - float(as_float64(scored).mean()),
        "length_reward": pearson_correlation(answer["length"][scored], reward[scored]),
    }
    metrics |= _correlations(local_scores, answer, scores)
    for name in local_scores.parts:
        count = float(answer[f"count {name}"].sum())
        metrics[name] = float(answer[f"sum {name}"].sum()) / count if count else None
    return metrics


def _correlations(
    local_scores: RolloutScores, answer: dict[str, Tensor], scores: GlobalScores
) -> StepMetrics:
    """Returns the lowest correlation of two rewards, and that of each cost with the reward.

    Rewards that contradict each other (r near -1) leave nothing to learn; a cost that rises with
    the reward (r near 1) can only be lowered with it. The keys of costs are as those of λ.
    """
    metrics: StepMetrics = {}
    rewards = [name for name in local_scores.parts if name.startswith("reward/")]
    if len(rewards) > 1:
        lowest = 1.0
        for first, second in combinations(rewards, 2):
            both = (answer[f"count {first}"] * answer[f"count {second}"]) > 0
            columns = (answer[f"sum {name}"][both] for name in (first, second))
            lowest = min(lowest, pearson_correlation(*columns))
        metrics["reward_conflict"] = lowest
    for position, (name, cost) in enumerate(scores.costs.items()):
        counted = scores.counted(name)
        correlation = pearson_correlation(scores.reward[counted], cost[counted])
        if position == 0:
            metrics["cost_reward"] = correlation
        if len(scores.costs) > 1:
            metrics[f"cost_reward/{name}"] = correlation
    return metrics


def _text_fingerprint(text: str) -> float:
    """Returns a hash below 2^48, which float64 holds exactly: texts travel as numbers."""
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=6).digest()
    return float(int.from_bytes(digest, "big"))


def pearson_correlation(x: Tensor, y: Tensor) -> float:
    """Returns Pearson's r; 0 if x or y is constant or there are fewer than three pairs."""
    if x.numel() < 3:
        return 0.0
    x, y = as_float64(x), as_float64(y)
    x_centred, y_centred = x - x.mean(), y - y.mean()
    norms = float(x_centred.norm() * y_centred.norm())
    return float((x_centred * y_centred).sum()) / norms if norms > 1e-12 else 0.0


def explained_variance(side: Advantages, rollout: Rollout, processes: ProcessGroup) -> float:
    """Returns 1 - Var(returns - values) / Var(returns) over the answer tokens of all processes.

    1 is a perfect critic; below 0 the critic is worse than a constant.
    """
    if side.values is None or side.returns is None:
        return math.nan
    mask, returns = as_float64(rollout.answer_mask), as_float64(side.returns)
    residuals = returns - as_float64(side.values)
    # Sums that add up over processes, in float64, because E[x²] - E[x]² loses digits.
    sums = torch.stack(
        [
            mask.sum(),
            (returns * mask).sum(),
            (returns * returns * mask).sum(),
            (residuals * mask).sum(),
            (residuals * residuals * mask).sum(),
        ]
    )
    count, r_sum, r_squares, d_sum, d_squares = processes.all_reduce(sums).tolist()
    return_variance = r_squares / count - (r_sum / count) ** 2
    residual_variance = d_squares / count - (d_sum / count) ** 2
    return 1 - residual_variance / return_variance if return_variance > 1e-12 else 0.0
