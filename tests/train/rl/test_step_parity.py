"""Whole steps of this room (lesson, λ, losses, as the trainer calls them) against what safe-rlhf and TRL log, over every
case.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from msgspec.structs import replace  # noqa: E402

from truing.distributed.process_group import World  # noqa: E402
from truing.train import losses as L  # noqa: E402
from truing.train.rl.advantages import Normalisers, critic_side, group_side, lesson  # noqa: E402
from truing.train.rl.constraint import Constraint  # noqa: E402
from truing.train.rl.policy_models import CRITICS  # noqa: E402
from truing.train.rl.rollout import Rollout  # noqa: E402
from truing.train.rl.settings import RLSettings  # noqa: E402
from truing.train.rl.update import Updater, policy_loss  # noqa: E402

FOLDER = Path(
    os.environ.get("TRUING_PARITY") or Path(__file__).parents[3].parent / "shared" / "parity"
)
TOLERANCE = {"rtol": 1e-9, "atol": 1e-12}


def cases(name: str) -> list[Any]:
    path = FOLDER / f"{name}.json"
    if not path.exists():
        if os.environ.get("CI") == "true":
            raise FileNotFoundError(f"{path}: the parity cases are not there (TRUING_PARITY)")
        return [
            pytest.param(
                None,
                marks=pytest.mark.skip(reason=f"no parity cases at {path} (set TRUING_PARITY)"),
            )
        ]
    return [pytest.param(c, id=c["id"]) for c in json.loads(path.read_text())["cases"]]


def t(x: Any) -> Any:
    return torch.tensor(x, dtype=torch.float64)


def close(got: Any, want: Any) -> None:
    torch.testing.assert_close(
        torch.as_tensor(got, dtype=torch.float64).detach(), t(want), **TOLERANCE
    )


class Leaf(torch.nn.Module):
    """A model that returns a stored tensor, with a gradient."""

    def __init__(self, stored: Any) -> None:
        super().__init__()
        self.stored = torch.nn.Parameter(stored.clone())
        self.rows: Any = None


class Stored:
    """A crew whose models give the stored logits and values, whatever they read."""

    tokenizer = None
    device = torch.device("cpu")

    def __init__(self, logits: Any, scores: dict[str, Any]) -> None:
        self.critics = tuple(scores)
        self.models = {"actor": Leaf(logits), **{k: Leaf(v) for k, v in scores.items()}}

    def _rows(self, ids: Any, name: str) -> Any:
        """The stored rows of the rows that are asked for (a piece is reordered and trimmed)."""
        whole, stored = self.ids, self.models[name].stored
        found, lo = [], 0
        for row in ids:
            at = next(
                i
                for i in range(len(whole))
                if any(
                    torch.equal(whole[i, k : k + len(row)], row)
                    for k in range(whole.shape[1] - len(row) + 1)
                )
                and i not in found
            )
            found.append(at)
        lo = next(
            k
            for k in range(whole.shape[1])
            if torch.equal(whole[found][:, k : k + ids.shape[1]], ids)
        )
        return stored[found][:, lo : lo + ids.shape[1]]

    @contextlib.contextmanager
    def role(self, name: str) -> Any:
        if name == "actor":

            def actor(*, input_ids: Any, logits_to_keep: int, **_: Any) -> Any:
                return SimpleNamespace(logits=self._rows(input_ids, name)[:, -logits_to_keep:])

            yield actor
        else:
            yield lambda ids, mask: self._rows(ids, name)

    def named(self, name: str) -> Any:
        return list(self.models[name].named_parameters())


def rollout_of(i: Any) -> Rollout:
    ids, mask, start = (
        torch.tensor(i["input_ids"]),
        torch.tensor(i["attention_mask"]),
        i["prompt_length"],
    )
    n = len(ids)
    shift = start - 1
    return Rollout(
        prompts=(None,) * n,
        index=tuple(range(n)),
        ids=ids,
        mask=mask,
        answer=mask[:, start:],  # type: ignore[arg-type]
        log_probs=t(i["old_log_probs"])[:, shift:],
        ended=(True,) * n,
        texts=("",) * n,
        ref_log_probs=t(i["ref_log_probs"])[:, shift:],
    )


@pytest.mark.parametrize("case", cases("rl_step_end_to_end"))
@pytest.mark.parametrize("micro", [1, 3, 64])
def test_rl_step(case: Any, micro: int) -> None:
    i, want = case["inputs"], case["expected"]
    h, start = i["hyperparameters"], i["prompt_length"]
    method = "reward-shaping" if "lambda_value" in i else "ppo-lag" if "lambda_init" in i else "ppo"
    rollout = rollout_of(i)
    n = len(rollout.texts)
    s = RLSettings(
        method=method,
        out="",
        prompts=n,
        kl=h["kl_coeff"],
        clip=h["clip_range_ratio"],
        clip_score=h["clip_range_score"],
        clip_value=h["clip_range_value"],
        gamma=h["gamma"],
        gae_lambda=h["gae_lambda"],
        micro=micro,
        lr=1e-12,
        nu=i.get("lambda_value", 1.0),
        lambda_init=i.get("lambda_init", 1.0),
        lambda_lr=i.get("lambda_lr", 0.1),
        lambda_max=i.get("lambda_max"),
        threshold=i.get("threshold", 0.0),
        clip_norm=0.0,
    )
    now = {"reward_critic": i["reward_critic_scores_now"]}
    old = {"reward_critic": i["old_reward_values"]}
    if method == "ppo-lag":
        now["cost_critic"], old["cost_critic"] = i["cost_critic_scores_now"], i["old_cost_values"]
    crew = Stored(t(i["actor_logits_now"]), {k: t(now[k]) for k in CRITICS[method]})
    crew.ids = rollout.ids
    constraint = Constraint(s)
    cost = None
    if "cost" in i:
        cost = t(i["cost"])
        constraint.observe(t(i["episode_cost_window"]) if "episode_cost_window" in i else cost)
    before = {
        k: t(v)[:, start - 1 : start - 1 + rollout.answer.shape[1]] * rollout.answer
        for k, v in old.items()
    }
    scored = torch.ones(n, dtype=torch.bool)
    made = lesson(
        s,
        rollout,
        (t(i["reward"]), cost, scored),
        before,
        kl=s.kl,
        constraint=constraint,
        normalisers=Normalisers.of(s),
        world=World(),
    )
    tally = (
        Updater(crew, s, World())
        .run(rollout, made, scored=scored, step=0, kl=s.kl, constraint=constraint)
        .means()
    )
    close(tally["actor_loss"], want["train/actor_loss"])
    close(tally["reward_critic_loss"], want["train/reward_critic_loss"])
    tail = rollout.answer
    gain = made.reward.advantage
    close(
        L.masked_mean(gain, tail),
        want.get("train/reward_advantage", want.get("train/shaped_reward_advantage")),
    )
    if method == "ppo-lag":
        close(constraint.multiplier.value, want["train/lambda"])
        close(constraint.multiplier.episode_cost, want["train/episode_cost"])
        close(tally["cost_critic_loss"], want["train/cost_critic_loss"])
        close(L.masked_mean(made.cost.advantage, tail), want["train/cost_advantage"])
        close(L.masked_mean(made.critics["cost_critic"].returns, tail), want["train/cost_return"])
    kl = ((rollout.log_probs - rollout.ref_log_probs) * tail).sum(-1).mean()
    close(kl, want["train/kl_divergence"])


@pytest.mark.parametrize("case", cases("actor_loss"))
def test_both_readings_of_the_surrogate(case: Any) -> None:
    i, want = case["inputs"], case["expected"]
    mask = torch.tensor(i["mask"])
    now = t(i["log_probs"]).requires_grad_()
    n = len(mask)
    piece = Rollout(
        (), tuple(range(n)), mask, mask, mask, t(i["old_log_probs"]), (True,) * n, ("",) * n
    )
    s = RLSettings(method="ppo-lag", out="", clip=i["clip_range_ratio"])
    pair = (t(i["reward_advantages"]), t(i["cost_advantages"]))
    loss = policy_loss(s, now, piece, pair, i["lambda"], 0.0)
    close(loss, want["ppo_lag_loss"])
    close(torch.autograd.grad(loss, now)[0], want["ppo_lag_dloss_dlog_probs"])
    close(
        policy_loss(s, now, piece, (pair[0], None), 0.0, 0.0), want["ppo_loss_on_reward_advantages"]
    )
    if case.get("reference_only"):
        apart = policy_loss(replace(s, surrogate="separate"), now, piece, pair, i["lambda"], 0.0)
        close(apart, case["reference_only"]["paper_separate_clip_loss"])


@pytest.mark.parametrize("case", cases("lambda_update"))
def test_multiplier_of_the_constraint(case: Any) -> None:
    i = case["inputs"]
    s = RLSettings(
        method="ppo-lag",
        out="",
        lambda_init=i["lambda_init"],
        lambda_lr=i["lambda_lr"],
        threshold=i["threshold"],
        lambda_max=i["lambda_max"],
        window=i["episode_cost_window_size"],
        delay=i["lambda_update_delay_steps"],
    )
    constraint, after = Constraint(s), iter(case["expected"]["after_each_rl_step"])
    for batch in i["cost_batches"]:
        constraint.observe(t(batch))
        for _ in range(i["update_iters"]):
            state = next(after)
            close(constraint.step(), state["lambda"])
            close(constraint.multiplier.episode_cost, state["episode_cost"])


@pytest.mark.parametrize("case", cases("gae"))
def test_gae_over_the_answers_alone(case: Any) -> None:
    """Arrays that begin with the answer give what safe-rlhf gets from whole rows and a start."""
    i, want = case["inputs"], case["expected"]
    cut = i["start"]
    got = L.gae(
        t(i["values"])[:, cut:],
        t(i["rewards"])[:, cut:],
        torch.tensor(i["sequence_mask"])[:, cut:],
        0,
        gamma=i["gamma"],
        lam=i["gae_lambda"],
    )
    close(got[0], want["advantages"])
    close(got[1], want["returns"])


@pytest.mark.parametrize("case", cases("trl_grpo_rloo_loss"))
def test_group_losses(case: Any) -> None:
    i, want = case["inputs"], case["expected"]
    mask = torch.tensor(i["completion_mask"])
    n = len(mask)
    now = t(i["token_logps"]).requires_grad_()
    ref = None if i.get("ref_token_logps") is None else t(i["ref_token_logps"])
    piece = Rollout(
        (), tuple(range(n)), mask, mask, mask, t(i["old_token_logps"]), (True,) * n, ("",) * n, ref
    )
    kind = i.get("loss_type")
    s = RLSettings(
        method="grpo" if kind else "rloo",
        out="",
        n=2,
        clip=i["epsilon"],
        loss=kind or "auto",
        max_new=i.get("max_completion_length") or mask.shape[1],
    )
    loss = policy_loss(s, now, piece, (t(i["advantages"]), None), 0.0, i.get("beta") or 0.0)
    close(loss, want["loss"])
    close(torch.autograd.grad(loss, now)[0], want["dloss_dlogps"])


@pytest.mark.parametrize("case", cases("trl_group_advantages"))
def test_group_advantages(case: Any) -> None:
    i, want = case["inputs"], case["expected"]
    n = i["num_generations"]
    if "rewards_per_func" in i:
        rewards = (t(i["rewards_per_func"]) * t(i["reward_weights"])).nansum(1)
        s = RLSettings(method="grpo", out="", n=n, scale=i["scale_rewards"])
    else:
        rewards = t(i["rewards"])
        s = RLSettings(
            method="rloo", out="", n=n, scale="batch" if i["normalize_advantages"] else "none"
        )
    close(group_side(s, rewards, torch.ones(len(rewards), dtype=torch.bool)), want["advantages"])


@pytest.mark.parametrize("case", cases("kl_penalised_rewards"))
def test_the_kl_of_the_reward_has_both_signs(case: Any) -> None:
    """With λ_GAE = 1, γ = 1 and no values, the first return of an answer is the sum of its token rewards."""
    i, want = case["inputs"], case["expected"]
    mask = torch.tensor(i["sequence_mask"])
    n = len(mask)
    made = Rollout(
        (),
        tuple(range(n)),
        mask,
        mask,
        mask,
        t(i["log_probs"]),
        (True,) * n,
        ("",) * n,
        t(i["ref_log_probs"]),
    )
    s = RLSettings(method="ppo-lag", out="", clip_score=i["clip_range_score"], gae_lambda=1.0)
    for score, sign, name in (
        (i["reward"], 1, "ppo_lag_rewards"),
        (i["cost"], -1, "ppo_lag_costs"),
    ):
        side = critic_side(
            s, made, t(score), torch.zeros_like(made.log_probs), kl=i["kl_coeff"], sign=sign
        )
        close(side.returns[:, 0], (t(want[name]) * mask).sum(-1).tolist())
